"""Convolution weights in the order in which the native kernels read them.

Columns (output channels) stand in panels of three vectors; within a panel, row after row. The last vector steps back
so that it ends with the last channel: no padding, a few channels twice. See lanes.h.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facelm.models.native import Kernel, library


def winograd_weight(weight: Tensor) -> Tensor:
    """A 3x3 convolution's weight `[outputs, inputs, 3, 3]` at the 36 points of Winograd's F(4x4, 3x3)."""
    outputs, inputs, _, _ = weight.shape
    lib = library("double" if weight.dtype == torch.float64 else "float")
    packed = weight.new_empty((36, inputs * _slots(outputs, lib.lanes())))
    step = Kernel(*weight.stride())
    lib.pack(weight.data_ptr(), step, outputs, inputs, packed.data_ptr(), torch.get_num_threads())
    return packed


def direct_weight(weight: Tensor) -> Tensor:
    """A convolution's weight `[outputs, inputs, k, k]` as a matrix of `k * k * inputs` rows, in panels."""
    outputs, inputs, kernel, _ = weight.shape
    lib = library("double" if weight.dtype == torch.float64 else "float")
    packed = weight.new_empty(kernel * kernel * inputs * _slots(outputs, lib.lanes()))
    lib.pack_direct(weight.data_ptr(), Kernel(*weight.stride()), outputs, inputs, kernel, packed.data_ptr())
    return packed


def _slots(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
