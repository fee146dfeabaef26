"""mmpose's MSRAHeatmap codec, quirks included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facelm.codec.gaussians import draw_windows, meets_map, window_bounds
from facelm.codec.interface import Codec, visible_or_all
from facelm.codec.peaks import first_peaks, quarter_steps


@dataclass(frozen=True, kw_only=True)
class MMPoseCodec(Codec):
    """A Gaussian window at the rounded cell, decoded as the largest cell plus a quarter step.

    For a checkpoint trained with mmpose, and to reproduce its numbers. Rounding costs even a perfect network 1.5
    pixels of the crop on average (1.6 rms); `subpixel` has no such floor.

    Three things are odd and kept: with sigma 1.5, a point within 18 pixels of the crop's left or top edge is drawn
    one cell too far right or down; a point up to 30 pixels outside keeps its weight with a partly or wholly blank
    map; cells 1 and the outermost rows and columns get no quarter step (see `_may_step`). A map without a positive
    value decodes to (-4, -4).

    Source: mmpose 1.3.2, codecs/msra_heatmap.py, codecs/utils/refinement.py.
    """

    name = "mmpose"

    sigma: float = 1.5

    def encode(self, landmarks_crop: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Heatmaps and weights; the weight is `visible`, or 0 where the window misses the map."""
        visible = visible_or_all(landmarks_crop, visible)
        cells = torch.trunc(landmarks_crop / self.stride + 0.5)  # towards zero, for negative points too
        seen = meets_map(*window_bounds(cells, self.sigma), self.heatmap_size)
        heatmaps = draw_windows(cells, self.sigma, self.heatmap_size, visible >= 0.5)
        # A point marked invisible keeps its (small) weight even outside, since mmpose skips it before it looks.
        return heatmaps, torch.where(seen | (visible < 0.5), visible, 0)

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Points to a quarter cell (1 pixel) and scores."""
        x, y, scores = first_peaks(heatmaps)
        cells = torch.stack([x, y], -1).to(heatmaps)
        steps = torch.where(_may_step(x, y, self.heatmap_size), quarter_steps(heatmaps, x, y), 0)
        cells = torch.where(scores[..., None] > 0, cells + steps, -1)
        return cells * self.stride, scores


def _may_step(x: Tensor, y: Tensor, size: int) -> Tensor:
    """Where mmpose takes the quarter step in x and in y, `[B, K, 2]`: the bounds are off by one, and so are kept."""
    in_x = (x > 1) & (x < size - 1) & (y > 0)
    in_y = (y > 1) & (y < size - 1) & (x > 0)
    return torch.stack([in_x, in_y], -1)
