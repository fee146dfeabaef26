"""The codec without quantisation: unrounded targets, decoded by a parabola fitted to the logarithm of the map."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from facelm.codec.dark import encode_unrounded
from facelm.codec.interface import Codec
from facelm.codec.peaks import first_peaks, quarter_steps, values_at

_FLOOR = 1e-5  # of the peak; lower values enter as this, so that a logarithm does not make much of noise
_FLATTEST = 1e-3  # least curvature per square cell, a peak some 30 cells wide; rounding alone makes 1e-6
_REACH = 1.0  # cells; the largest step from the peak, enough for every pixel of the crop


@dataclass(frozen=True, kw_only=True)
class SubpixelCodec(Codec):
    """A Gaussian over the whole map at the unrounded point, decoded to 0.001 px for a perfect network.

    Decoding fits log h = c + g.d + d.A.d / 2 by weighted least squares to a window around the largest cell and takes
    the top of the parabola. A Gaussian of any width and direction is such a parabola, so the fit is exact for the
    sharp target and for the broad, slanted peak of a network that is unsure along a contour. The weights fall off as
    the square of the target (additive noise on h is noise / h on log h), so a window of 25 cells averages noise that
    a three-point formula passes on, and unlike DARK's blur does not draw in what lies beyond.

    At the border the window is moved inwards and stays whole, its weights still centred on the peak. The step is at
    most one cell. Where the fit has no top, the step is the quarter cell towards the higher neighbour. A map without
    a positive value decodes to its largest cell, with a score of 0 or less.

    Args:
        radius: cells on each side in the window; None takes round(1.5 sigma), at least 1.

    Raises:
        ValueError: `sigma` is below 0.7, where neighbouring cells hold too little to fit; or `radius` is below 1 or
            the window larger than the map.
    """

    name = "subpixel"

    sigma: float = 1.5
    radius: int | None = None
    _fits: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma < 0.7:
            raise ValueError(f"codec 'subpixel': sigma={self.sigma} is too narrow to fit; use 0.7 cells or more")
        if not 1 <= self._radius <= (self.heatmap_size - 1) // 2:
            raise ValueError(
                f"codec 'subpixel': a window of radius={self._radius} does not fit heatmaps of {self.heatmap_size} "
                "cells; give a radius from 1 up, a larger crop.size or a smaller sigma"
            )
        object.__setattr__(self, "_fits", _fits(self.sigma, self._radius))  # frozen, hence not an assignment

    @property
    def _radius(self) -> int:
        return max(1, round(1.5 * self.sigma)) if self.radius is None else self.radius

    def encode(self, landmarks_crop: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Heatmaps and weights; the weight is `visible`, or 0 for points more than 3 sigma outside the map.

        Points just outside thus teach a map that rises towards them, and the decoder to look at that border.
        """
        return encode_unrounded(self, landmarks_crop, visible)

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-pixel points and scores."""
        x, y, scores = first_peaks(heatmaps)
        steps, has_top = self._steps(heatmaps, x, y, scores)
        fallback = torch.where(scores[..., None] > 0, quarter_steps(heatmaps, x, y), 0)
        cells = torch.stack([x, y], -1).to(heatmaps) + torch.where(has_top[..., None], steps, fallback)
        return cells * self.stride, scores

    def _steps(self, heatmaps: Tensor, x: Tensor, y: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        """From the largest cell to the top of the fitted parabola `[B, K, 2]`, and whether there is one `[B, K]`."""
        radius = self._radius
        size = 2 * radius + 1
        middle_x, middle_y = (i.clamp(radius, self.heatmap_size - 1 - radius) for i in (x, y))
        offsets = torch.arange(-radius, radius + 1, device=heatmaps.device)
        window = values_at(
            heatmaps,
            middle_x[..., None, None] + offsets,
            middle_y[..., None, None] + offsets[:, None],
        ).flatten(2)
        floor = (_FLOOR * peak).clamp(min=torch.finfo(heatmaps.dtype).tiny)[..., None]
        logarithm = torch.log(torch.maximum(window, floor) / floor)
        fits = self._fits.to(heatmaps)
        which = (y - middle_y + radius) * size + x - middle_x + radius
        # Not `@`: under autocast, or with TF32, a matrix product would keep 8 or 10 bits.
        gx, gy, xx, xy, yy = (fits[which] * logarithm[..., None, :]).sum(-1).unbind(-1)
        determinant = xx * yy - xy * xy
        has_top = (peak > 0) & (xx < 0) & (yy < 0) & (determinant > -_FLATTEST * (xx + yy))
        steps = torch.stack([xy * gy - yy * gx, xy * gx - xx * gy], -1)
        steps = steps / torch.where(has_top, determinant, 1)[..., None]
        return steps.clamp(-_REACH, _REACH), has_top


def _fits(sigma: float, radius: int) -> Tensor:
    """Least squares as matrices `[(2r+1)^2, 5, (2r+1)^2]`: one for each place of the peak in the window.

    A matrix takes the window's values to gx, gy, Axx, Axy, Ayy of the parabola around the peak.
    """
    span = torch.arange(-radius, radius + 1, dtype=torch.float64)
    cells = torch.cartesian_prod(span, span).flip(-1)  # (x, y) in the order of a flattened window
    dx, dy = (cells[None] - cells[:, None]).unbind(-1)  # [peak, cell]
    design = torch.stack([torch.ones_like(dx), dx, dy, dx * dx / 2, dx * dy, dy * dy / 2], -1)
    root_weight = torch.exp(-(dx * dx + dy * dy) / (2 * sigma**2))  # the target: its square is the weight
    solution: Tensor = torch.linalg.pinv(root_weight[..., None] * design) * root_weight[:, None]
    return solution[:, 1:].contiguous()
