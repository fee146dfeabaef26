"""The DARK codec as mmpose has it: unrounded targets, decoded by one Newton step on the logarithm of a blurred map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from facelm.codec.gaussians import draw_gaussians
from facelm.codec.interface import Codec, visible_or_all
from facelm.codec.peaks import first_peaks, values_at

# OpenCV takes these, not samples of a Gaussian, for small kernels of unstated sigma.
_OPENCV_KERNELS = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: tuple(weight / 256 for weight in (4, 13, 30, 51, 60, 51, 30, 13, 4)),
}


def opencv_gaussian(size: int) -> tuple[float, ...]:
    """The weights of `cv2.GaussianBlur` for a kernel of `size` (odd) when no sigma is given."""
    if size in _OPENCV_KERNELS:
        return _OPENCV_KERNELS[size]
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    weights = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True, kw_only=True)
class DarkCodec(Codec):
    """A Gaussian over the whole map at the unrounded point, decoded by DARK: exact to 0.001 px for a perfect network.

    The step is not bounded: noise gives steps of several cells. Within two cells of the border there is none. A map
    without a positive value decodes to (-4, -4).

    Source: Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020; mmpose 1.3.2,
    codecs/utils/gaussian_heatmap.py (unbiased) and refinement.py (`refine_keypoints_dark`).

    Raises:
        ValueError: `blur_kernel_size` is not an odd positive number.
    """

    name = "dark"

    sigma: float = 2.0
    blur_kernel_size: int = 11

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur_kernel_size < 1 or self.blur_kernel_size % 2 == 0:
            raise ValueError(
                f"codec 'dark': blur_kernel_size={self.blur_kernel_size} must be odd and positive; 11 suits sigma 2"
            )

    def encode(self, landmarks_crop: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Heatmaps and weights; the weight is `visible`, or 0 for points more than 3 sigma outside the map."""
        return encode_unrounded(self, landmarks_crop, visible)

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-pixel points and scores."""
        x, y, scores = first_peaks(heatmaps)
        steps = newton_steps(self._logarithm_of_blurred(heatmaps), x, y)
        inside = (x > 1) & (x < self.heatmap_size - 2) & (y > 1) & (y < self.heatmap_size - 2)
        steps = torch.where(inside[..., None], steps, 0)
        cells = torch.where(scores[..., None] > 0, torch.stack([x, y], -1).to(heatmaps) + steps, -1)
        return cells * self.stride, scores

    def _logarithm_of_blurred(self, heatmaps: Tensor) -> Tensor:
        """Logarithm of the blurred maps, scaled back to their old maximum and cut off at 1e-10."""
        weights = opencv_gaussian(self.blur_kernel_size)
        blurred = _filter(_filter(heatmaps, weights).transpose(2, 3).contiguous(), weights).transpose(2, 3)
        largest = blurred.amax((2, 3), keepdim=True)
        scale = heatmaps.amax((2, 3), keepdim=True) / torch.where(largest == 0, 1, largest)
        return (blurred * scale).clamp(min=1e-10).log()


def _filter(maps: Tensor, weights: tuple[float, ...]) -> Tensor:
    """`maps` filtered along their last axis, zeros beyond the border.

    A sum of shifted maps: a convolution is slow for single channels on a CPU, and keeps 8 or 10 bits under autocast
    or with TF32.
    """
    width = maps.shape[-1]
    padded = functional.pad(maps, (len(weights) // 2, len(weights) // 2))
    filtered = weights[0] * padded[..., :width]
    for shift, weight in enumerate(weights[1:], start=1):
        filtered.add_(padded[..., shift : shift + width], alpha=weight)
    return filtered


def encode_unrounded(codec: Codec, landmarks_crop: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whole-map Gaussians at the unrounded points, and mmpose's weights for them (its `unbiased=True`)."""
    visible = visible_or_all(landmarks_crop, visible)
    landmarks_heatmap = landmarks_crop / codec.stride
    reach = 3 * codec.sigma
    seen = ((landmarks_heatmap - reach < codec.heatmap_size) & (landmarks_heatmap + reach + 1 >= 0)).all(-1)
    drawn = seen & (visible >= 0.5)
    heatmaps = draw_gaussians(landmarks_heatmap, codec.sigma, codec.heatmap_size, drawn)
    return heatmaps, torch.where(seen | (visible < 0.5), visible, 0)


def newton_steps(logarithm: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """-H^-1 g at each peak `[B, K, 2]`, the second differences taken two cells wide; 0 where H is singular."""

    def at(dx: int, dy: int) -> Tensor:
        return values_at(logarithm, x + dx, y + dy)

    gx, gy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    xx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    yy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = xx * yy - xy * xy
    safe = torch.where(determinant == 0, 1, determinant)[..., None]
    steps = torch.stack([xy * gy - yy * gx, xy * gx - xx * gy], -1) / safe
    return torch.where(determinant[..., None] == 0, 0, steps)
