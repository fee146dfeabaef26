"""Gaussians on the grid of a heatmap: the references' cut-out window around a cell, and the whole map.

Convention: centres are (x, y) in cells, cell `i` centred on `i`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def window_bounds(centers: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """First and one-past-last cell `[..., 2]` of the window that both references draw around `centers`.

    Both truncate towards zero, which for a first cell left of the map shortens the window by one.
    """
    return torch.trunc(centers - 3 * sigma), torch.trunc(centers + 3 * sigma + 1)


def meets_map(first: Tensor, end: Tensor, size: int) -> Tensor:
    """Whether the references count a window `[..., 2]` as touching the map, `[...]`."""
    return ((first < size) & (end >= 0)).all(dim=-1)


def draw_windows(centers: Tensor, sigma: float, size: int, keep: Tensor) -> Tensor:
    """Heatmaps `[B, K, size, size]`, blank but for the window around each of `centers` `[B, K, 2]`.

    The peak stands in the middle of the kernel, and the kernel's first cell on the window's first. For a window
    whose first cell was shortened the peak is thus one cell to the right (below): the references' behaviour near the
    left and top edges when 3 sigma is no integer. Points that are not `keep` `[B, K]` stay blank.

    Source: mmpose 1.3.2 codecs/utils/gaussian_heatmap.py and the HRNet authors' `generate_target`, which agree.
    """
    kernel = _kernel(sigma).to(centers)
    first, end = window_bounds(centers, sigma)
    keep = keep & meets_map(first, end, size)
    blank = kernel.shape[0] - 1
    cells = torch.arange(size, device=centers.device, dtype=centers.dtype)
    within = (cells >= first[..., None]) & (cells < end[..., None]) & keep[..., None, None]  # [B, K, 2, size]
    index = torch.where(within, cells - first[..., None], blank).long()
    return kernel[index[:, :, 1, :, None], index[:, :, 0, None, :]]


def _kernel(sigma: float) -> Tensor:
    """The references' Gaussian window with a last row and column of zeros, to index cells outside of it.

    A table, because rounding then equals the references' bit for bit: exp(a + b) and exp(a) exp(b) do not.
    """
    x = np.arange(0, 6 * sigma + 1, 1, dtype=np.float32)
    middle = (6 * sigma + 1) // 2
    kernel = np.exp(-((x - middle) ** 2 + (x[:, None] - middle) ** 2) / (2 * sigma**2))
    return torch.from_numpy(np.pad(kernel, (0, 1)))


def draw_gaussians(centers: Tensor, sigma: float, size: int, keep: Tensor) -> Tensor:
    """Heatmaps `[B, K, size, size]` of unrounded Gaussians over the whole map, of height 1 at `centers` `[B, K, 2]`.

    Separable: two rows of exponentials for each point and their outer product. Points that are not `keep` `[B, K]`
    are blank.
    """
    cells = torch.arange(size, device=centers.device, dtype=centers.dtype)
    rows = torch.exp(-((cells - centers[..., None]) ** 2) / (2 * sigma**2))  # [B, K, 2, size]
    rows = torch.where(keep[..., None, None], rows, 0)
    return rows[:, :, 1, :, None] * rows[:, :, 0, None, :]
