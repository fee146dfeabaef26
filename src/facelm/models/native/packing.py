"""Convolution weights in the order in which the native kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from facelm.models.native import library

# Lavin & Gray's G for F(4x4, 3x3), times 24: a 3x3 kernel w has the values G w G^T at the 36 points.
_G24 = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))


def kernel_to_points(dtype: torch.dtype) -> Tensor:
    """`[36, 9]`: takes a flattened 3x3 kernel to its values at the 36 points of F(4x4, 3x3)."""
    g = torch.tensor(_G24, dtype=torch.float64) / 24
    return torch.kron(g, g).to(dtype)


def winograd_weight(weight: Tensor) -> Tensor:
    """A 3x3 convolution's weight `[outputs, inputs, 3, 3]` at the 36 points: `[36, panels]`."""
    outputs, inputs = weight.shape[:2]
    points = kernel_to_points(weight.dtype) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    return _panels(points.view(36, inputs, outputs))


def direct_weight(weight: Tensor) -> Tensor:
    """A convolution's weight `[outputs, inputs, k, k]` as a matrix `k * k * inputs` by outputs: `[1, panels]`."""
    return _panels(weight.permute(2, 3, 1, 0).reshape(1, -1, weight.shape[0]))


def lane_columns(channels: int, dtype: torch.dtype) -> Tensor:
    """The channel in every slot: whole vectors side by side, the last stepping back to end with the last channel."""
    lanes = library("double" if dtype == torch.float64 else "float").lanes()
    starts = [min(slot, channels - lanes) for slot in range(0, channels, lanes)]
    return torch.tensor(starts)[:, None].add(torch.arange(lanes)).flatten()


def _panels(matrices: Tensor) -> Tensor:
    """`[M, depth, N]` cut into panels of three vectors of columns, each panel in one piece: `[M, depth * slots(N)]`."""
    columns = lane_columns(matrices.shape[-1], matrices.dtype)
    width = 3 * library("double" if matrices.dtype == torch.float64 else "float").lanes()
    return torch.cat([matrices[..., part].flatten(1) for part in torch.split(columns, width)], dim=1)
