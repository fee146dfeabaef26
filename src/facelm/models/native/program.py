"""HRNetV2 as a list of native operations: what `fast.for_inference` runs on a CPU.

`NativeNet` walks the network once for each shape of input and writes down what is to be computed, from which buffer
into which; the list is then run by `native/kernels.cpp` in one call.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from facelm.models import native
from facelm.models.hrnet import HRNetV2
from facelm.models.native import packing
from facelm.models.operations import check_size, fold_all, fold_head, heatmaps

_MOST_PROGRAMS = 4  # input shapes whose buffers are kept
_LEAST_TILES = 4  # fewer 4x4 tiles than this do not repay reading the transformed weights, four times as many


def obstacle(net: HRNetV2) -> str | None:
    """Why this network cannot run as native code here; None if it can."""
    weight = net.conv1.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return f"the network is on {weight.device} in {weight.dtype}, native code is for float32 on the CPU"
    try:
        lanes = native.library(_real(weight)).lanes()
    except (OSError, RuntimeError) as error:
        return str(error)
    if any(type(norm) is nn.SyncBatchNorm for norm in net.modules()):
        return "its batch norms share statistics between processes"
    narrowest = min(*net.config.channels, net.config.stem, net.num_landmarks)
    return f"a layer has {narrowest} channels, fewer than a vector's {lanes}" if narrowest < lanes else None


def _real(tensor: Tensor) -> str:
    return "double" if tensor.dtype == torch.float64 else "float"


class NativeNet:
    """Heatmaps of normalised images by native code: a copy of the weights, in evaluation mode.

    Uses torch's number of threads. Safe to call from several threads: they wait for each other.
    """

    def __init__(self, net: HRNetV2) -> None:
        self._net = net  # its structure; the numbers are in `_weights`
        self._weights = _Weights(net)
        self._programs: OrderedDict[torch.Size, _Program] = OrderedDict()
        self._lock, self._process = threading.Lock(), os.getpid()

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` -> `[B, K, H/4, W/4]`."""
        check_size(images)
        # A few images at a time: what passes between the operations stays in the processor's shared cache.
        parts = torch.split(images, max(4, 2 * torch.get_num_threads()))
        if self._process != os.getpid():  # forked, perhaps while another thread held the lock
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            results = [self._program(part.shape)(part) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _program(self, shape: torch.Size) -> _Program:
        program = self._programs.pop(shape, None) or _Program(self._net, self._weights, shape)
        self._programs[shape] = program  # the newest last
        if len(self._programs) > _MOST_PROGRAMS:
            self._programs.popitem(last=False)
        return program


class _Weights:
    """Every convolution, folded, and in the form that an operation reads; that form is made when first asked for."""

    def __init__(self, net: HRNetV2) -> None:
        self._folded: dict[object, tuple[Tensor, Tensor | None]] = {}
        for conv, folded in fold_all(net).items():
            self._folded[conv] = folded
        self._packed: dict[tuple[object, int], tuple[Tensor, Tensor | None]] = {}
        parts, bias = fold_head(net)
        for i, part in enumerate(parts):
            self._folded["head", i] = part, bias if i == 0 else None
        last = cast(nn.Conv2d, net.head[3])
        self._folded["last"] = last.weight.detach().clone(), cast(Tensor, last.bias).detach().clone()

    def shape(self, key: object) -> torch.Size:
        """`[outputs, inputs, kernel, kernel]`."""
        return self._folded[key][0].shape

    def packed(self, key: object, kind: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for an operation of this kind."""
        if (key, kind) not in self._packed:
            weight, bias = self._folded[key]
            pack = packing.winograd_weight if kind == native.WINOGRAD else packing.direct_weight
            self._packed[key, kind] = pack(weight), bias
        return self._packed[key, kind]


@dataclass(eq=False)
class _Map:
    """A stand-in for a tensor `[B, height, width, channels]` that flows between operations."""

    height: int
    width: int
    channels: int


@dataclass
class _Step:
    op: native.Op
    x: _Map
    residual: _Map | None
    y: _Map


class _Program:
    """The operations for one shape of input, with their buffers; as `Operations`, it records what it is told."""

    def __init__(self, net: HRNetV2, weights: _Weights, shape: torch.Size) -> None:
        self._weights = weights
        self._dtype = net.conv1.weight.dtype
        self._batch, channels, height, width = shape
        self._steps: list[_Step] = []
        self._images = _Map(height, width, channels)
        self._heatmaps = heatmaps(net, self._images, self)
        self._buffers = self._assign_buffers()
        self._ops = (native.Op * len(self._steps))(*(step.op for step in self._steps))
        self._run = native.library(_real(net.conv1.weight)).run

    def __call__(self, images: Tensor) -> Tensor:
        images = images.detach().to(self._dtype).contiguous(memory_format=torch.channels_last)
        shape = (self._batch, self._heatmaps.channels, self._heatmaps.height, self._heatmaps.width)
        y = torch.empty(shape, dtype=self._dtype, memory_format=torch.channels_last)
        self._ops[0].x, self._ops[len(self._ops) - 1].y = images.data_ptr(), y.data_ptr()
        self._run(self._ops, len(self._ops), torch.get_num_threads())
        return y

    def conv(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: _Map, residual: _Map | None = None, relu: bool = True
    ) -> _Map:
        """Notes down relu(norm(conv(x)) + residual)."""
        return self._convolve(conv, x, conv.stride[0], residual, relu)

    def enlarge(self, x: _Map, scale: int, residual: _Map, relu: bool) -> _Map:
        """Notes down relu(x enlarged bilinearly + residual)."""
        y = _Map(scale * x.height, scale * x.width, x.channels)
        return self._note(native.ENLARGE, x, y, residual, relu, stride=scale)

    def head(self, head: nn.Sequential, branches: Sequence[_Map]) -> _Map:
        """Notes down the head, its first convolution taken before the enlargement."""
        total = self._convolve(("head", 0), branches[0], 1, None, relu=False)
        for i in range(1, len(branches)):
            low = self._convolve(("head", i), branches[i], 1, None, relu=False)
            total = self.enlarge(low, 2**i, total, relu=i == len(branches) - 1)
        return self._convolve("last", total, 1, None, relu=False)

    def _convolve(self, key: object, x: _Map, stride: int, residual: _Map | None, relu: bool) -> _Map:
        outputs, _, kernel, _ = self._weights.shape(key)
        y = _Map((x.height - 1) // stride + 1, (x.width - 1) // stride + 1, outputs)
        tiles = self._batch * -(-y.height // 4) * -(-y.width // 4)
        kind = native.WINOGRAD if kernel == 3 and stride == 1 and tiles >= _LEAST_TILES else native.DIRECT
        weight, bias = self._weights.packed(key, kind)
        pointers = {"weight": weight.data_ptr(), "bias": None if bias is None else bias.data_ptr()}
        return self._note(kind, x, y, residual, relu, kernel=kernel, stride=stride, **pointers)

    def _note(self, kind: int, x: _Map, y: _Map, residual: _Map | None, relu: bool, **more: int | None) -> _Map:
        sizes = {"batch": self._batch, "height": x.height, "width": x.width, "inputs": x.channels}
        op = native.Op(kind=kind, outputs=y.channels, relu=relu, **sizes, **more)
        self._steps.append(_Step(op, x, residual, y))
        return y

    def _assign_buffers(self) -> list[Tensor]:
        """Memory for every map but the first and the last, each piece used again when nobody reads it any more."""
        last_read = {m: i for i, step in enumerate(self._steps) for m in (step.x, step.residual)}
        buffers: list[Tensor] = []
        free: list[Tensor] = []
        held: dict[_Map | None, Tensor] = {}
        for i, step in enumerate(self._steps):
            if step.y is not self._heatmaps:
                size = self._batch * step.y.height * step.y.width * step.y.channels
                fitting = [buffer for buffer in free if buffer.numel() == size]
                held[step.y] = fitting[-1] if fitting else torch.empty(size, dtype=self._dtype)
                buffers += [] if fitting else [held[step.y]]
                free = [buffer for buffer in free if buffer is not held[step.y]]
            for name, read in (("x", step.x), ("residual", step.residual), ("y", step.y)):
                if read in held:
                    setattr(step.op, name, held[read].data_ptr())
            # An operation never writes where it reads, so what it has read is free only now.
            free += [held[m] for m in {step.x, step.residual} if m in held and last_read[m] == i]
        return buffers
