"""What every codec promises: points to heatmaps, heatmaps to points, and points of the crop to points of the image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """A pair of encoder and decoder that belong together; a network is trained for one and decoded with the same.

    Convention: (x, y), 0-based pixel centres. `landmarks_heatmap = landmarks_crop / stride`, no half pixel, as in
    mmpose; a heatmap of a crop of `crop_size` pixels has `crop_size / 4` cells on a side. `sigma` is in cells.

    Everything is computed for a whole batch on the device of its input, in float32 or float64; decoding lifts
    narrower types to float32 first.

    Raises:
        ValueError: `crop_size` is not a positive multiple of 4, or `sigma` is not a positive number.
    """

    name: ClassVar[str]
    stride: ClassVar[int] = 4

    crop_size: int
    sigma: float

    def __post_init__(self) -> None:
        if self.crop_size <= 0 or self.crop_size % self.stride:
            raise ValueError(
                f"codec {self.name!r}: crop_size={self.crop_size} must be a positive multiple of {self.stride} "
                "(a heatmap cell is 4 crop pixels). Check `crop.size=`"
            )
        if not (isinstance(self.sigma, int | float) and math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(
                f"codec {self.name!r}: sigma={self.sigma} must be a positive number of heatmap cells; "
                "300W recipes use 1 to 2. Check `codec.sigma=`"
            )

    @property
    def heatmap_size(self) -> int:
        """Cells on a side of a heatmap."""
        return self.crop_size // self.stride

    @abstractmethod
    def encode(self, landmarks_crop: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Target heatmaps `[B, K, H, W]` and their loss weights `[B, K]`.

        Args:
            landmarks_crop: `[B, K, 2]`, in pixels of the crop; may lie outside of it.
            visible: `[B, K]`; points below 0.5 get a blank map. None: all are visible.
        """

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Points `[B, K, 2]` in pixels of the crop and their scores `[B, K]`, the largest value of each map.

        A map that holds NaN, or infinity as its largest value, has no point: NaN.

        Raises:
            ValueError: `heatmaps` is not floating point `[B, K, H, W]` with H = W = `heatmap_size`.
        """
        points, scores = self._decode(self._heatmaps_to_decode(heatmaps))
        known = scores.abs() < torch.inf  # not of NaN, which is the largest value of every map that holds it
        return torch.where(known[..., None], points, torch.nan), scores

    @abstractmethod
    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` of heatmaps of the right shape, in a type that can be computed with."""

    def landmarks_in_image(self, landmarks_crop: Tensor, image_from_crop: Tensor) -> Tensor:
        """`landmarks_crop` `[B, K, 2]` moved into the image by the affine maps `[B, 3, 3]`.

        Convention: the frame of the image is the one that `image_from_crop` leads to (see `data.pixel_origin`).
        The result has the wider type of the two, so float64 matrices give float64 points.
        """
        dtype = torch.promote_types(landmarks_crop.dtype, image_from_crop.dtype)
        matrix = image_from_crop.to(dtype)[:, None, :2]
        # Not `@`: under autocast, or with TF32, a matrix product would keep 8 or 10 bits.
        return (matrix[..., :2] * landmarks_crop.to(dtype)[..., None, :]).sum(-1) + matrix[..., 2]

    def spec(self) -> dict[str, Any]:
        """Plain values from which `build_codec(spec, crop_size)` makes this codec again."""
        names = [field.name for field in fields(self) if field.init and field.name != "crop_size"]
        options = {name: getattr(self, name) for name in names}
        return {"name": self.name, **options}

    def _heatmaps_to_decode(self, heatmaps: Tensor) -> Tensor:
        """`heatmaps`, checked and in a type that can be computed with."""
        size = (self.heatmap_size, self.heatmap_size)
        if heatmaps.ndim != 4 or tuple(heatmaps.shape[-2:]) != size or not heatmaps.is_floating_point():
            raise ValueError(
                f"codec {self.name!r} for crops of {self.crop_size} pixels decodes floating point heatmaps "
                f"[B, K, {size[0]}, {size[1]}], got {heatmaps.dtype} {list(heatmaps.shape)}. "
                "Check that the network and the codec were built for the same `crop.size`"
            )
        return heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32)).contiguous()


def visible_or_all(landmarks: Tensor, visible: Tensor | None) -> Tensor:
    """`visible` in the type of `landmarks`, or ones `[B, K]`."""
    if visible is None:
        return landmarks.new_ones(landmarks.shape[:-1])
    return visible.to(landmarks)
