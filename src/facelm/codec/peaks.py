"""Where heatmaps peak, and their values around there.

Convention: (x, y) in cells, cell `i` centred on `i`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def first_peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Column, row (integers) and value of each map's largest cell, the first one of several: three `[B, K]`."""
    flat = heatmaps.flatten(2)
    index = flat.argmax(dim=2)
    value = flat.gather(2, index[..., None])[..., 0]
    width = heatmaps.shape[-1]
    return index % width, torch.div(index, width, rounding_mode="floor"), value


def values_at(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values at integer cells: `[B, K, ...]` for `x`, `y` `[B, K, ...]`; a cell outside reads the nearest inside."""
    height, width = heatmaps.shape[-2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return heatmaps.flatten(2).gather(2, index.reshape(*index.shape[:2], -1)).view(index.shape)


def quarter_steps(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A quarter cell towards the higher neighbour in x and in y, 0 where both are equal: `[B, K, 2]`."""
    x, y = x[..., None], y[..., None]
    ahead = values_at(heatmaps, torch.cat([x + 1, x], -1), torch.cat([y, y + 1], -1))
    behind = values_at(heatmaps, torch.cat([x - 1, x], -1), torch.cat([y, y - 1], -1))
    return 0.25 * torch.sign(ahead - behind)
