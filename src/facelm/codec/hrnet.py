"""The codec of the HRNet authors' facial landmark release, quirks included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facelm.codec.gaussians import draw_windows
from facelm.codec.interface import Codec, visible_or_all
from facelm.codec.peaks import first_peaks, quarter_steps


@dataclass(frozen=True, kw_only=True)
class HRNetCodec(Codec):
    """A Gaussian window at the truncated cell, decoded as the middle of the largest cell plus a quarter step.

    For the authors' checkpoints. A target of cell `c` stands for the points from `4 c` to `4 c + 4`, so decoding adds
    half a cell; mmpose's codec rounds instead. Weights trained with one and decoded with the other are 2 pixels of
    the crop off in x and in y, about 2 % NME.

    Convention: the authors use 300W's 1-based numbers as they are and give integers: a crop's point is moved into
    the image, truncated, and 1 is added. With their checkpoints set `data.pixel_origin=0`; the result is then in the
    frame of the stored numbers, as they compare it, and 0.5 to 1 image pixel too large on average. With
    `integer_predictions=False` the point is left where the map puts it.

    Source: HRNet-Facial-Landmark-Detection, lib/datasets/face300w.py, lib/utils/transforms.py,
    lib/core/evaluation.py.
    """

    name = "hrnet"

    sigma: float = 1.0
    integer_predictions: bool = True

    def encode(self, landmarks_crop: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Heatmaps and weights, all 1: the authors' loss counts a blank map like any other.

        They leave a point blank whose y in the image is not positive, their mark for a missing one; say so with
        `visible`.
        """
        drawn = visible_or_all(landmarks_crop, visible) >= 0.5
        cells = torch.trunc(landmarks_crop / self.stride)  # towards zero, for negative points too
        heatmaps = draw_windows(cells, self.sigma, self.heatmap_size, drawn)
        return heatmaps, torch.ones_like(cells[..., 0])

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Points to a quarter cell and scores; a map without a positive value decodes to (-2, -2)."""
        x, y, scores = first_peaks(heatmaps)
        inside = (x > 0) & (x < self.heatmap_size - 1) & (y > 0) & (y < self.heatmap_size - 1)
        steps = torch.where(inside[..., None], quarter_steps(heatmaps, x, y), 0)
        cells = torch.where(scores[..., None] > 0, torch.stack([x, y], -1).to(heatmaps) + steps, -1)
        return (cells + 0.5) * self.stride, scores

    def landmarks_in_image(self, landmarks_crop: Tensor, image_from_crop: Tensor) -> Tensor:
        """Points in the image as the authors give them: truncated to integers, plus 1 (see the class)."""
        landmarks_image = super().landmarks_in_image(landmarks_crop, image_from_crop)
        return torch.trunc(landmarks_image) + 1 if self.integer_predictions else landmarks_image
