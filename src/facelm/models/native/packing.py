"""Convolution weights in the order in which the native kernels read them.

Columns (output channels) stand in panels of three vectors; within a panel, row after row. The last vector steps back
so that it ends with the last channel: no padding, a few channels twice. See lanes.h.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facelm.models.native import Kernel, library


def winograd_weight(weight: Tensor, *, turned: bool = False) -> Tensor:
    """A 3x3 convolution's weight `[outputs, inputs, 3, 3]` at the 36 points of Winograd's F(4x4, 3x3): `[36, panels]`.

    `turned` gives that of the convolution that takes the gradient back: inputs and outputs exchanged, taps reversed.
    """
    outputs, inputs, _, _ = weight.shape
    n, k, row, column = weight.stride()
    address = weight.data_ptr()
    if turned:
        address += weight.element_size() * 2 * (row + column)
        outputs, inputs, n, k, row, column = inputs, outputs, k, n, -row, -column
    lib = library("double" if weight.dtype == torch.float64 else "float")
    lanes = lib.lanes()
    packed = weight.new_empty((36, inputs * -(-outputs // lanes) * lanes))
    lib.pack(address, Kernel(n, k, row, column), outputs, inputs, packed.data_ptr(), torch.get_num_threads())
    return packed


def direct_weight(weight: Tensor) -> Tensor:
    """A convolution's weight `[outputs, inputs, k, k]` as a matrix of `k * k * inputs` rows, in panels."""
    lanes = library("double" if weight.dtype == torch.float64 else "float").lanes()
    outputs = weight.shape[0]
    starts = torch.tensor([min(slot, outputs - lanes) for slot in range(0, outputs, lanes)])
    columns = starts[:, None].add(torch.arange(lanes)).flatten()
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, outputs)
    return torch.cat([matrix[:, part].flatten() for part in torch.split(columns, 3 * lanes)])
