"""HRNetV2's training step on the CPU by native code: the same parameters, outputs and gradients as `hrnet.py`.

Three things make it faster. 3x3 convolutions and both of their gradients take Winograd's quarter of the
multiplications; a batch norm, the sum and the ReLU after it read and write memory once, not three times; and the
head's first convolution comes before the enlargement, see `fast.py`. `for_training` changes a network in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelm.models import fast, native
from facelm.models.hrnet import HRNetV2
from facelm.models.native import packing
from facelm.models.program import obstacle


class NativeHRNetV2(HRNetV2):
    """An `HRNetV2` whose training forward and backward run as native code; in evaluation mode it is an `HRNetV2`."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` -> heatmaps `[B, K, H/4, W/4]`."""
        if not self.training or images.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(images)
        fast.check_size(images)
        x = images.to(self.conv1.weight.dtype).contiguous(memory_format=torch.channels_last)
        return fast.heatmaps(self, x, TrainingOperations())


def for_training(net: HRNetV2) -> str | None:
    """Makes `net` a `NativeHRNetV2`, in place and with the same parameters; or returns the reason why it cannot be."""
    reason = obstacle(net)
    if reason is None:
        net.__class__ = NativeHRNetV2
    return reason


class TrainingOperations:
    """The operations with gradients and batch statistics; running statistics are updated as torch does."""

    def conv(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """relu(norm(conv(x)) + residual)."""
        return norm_relu(norm, _convolve(x, conv), residual, relu)

    def enlarge(self, x: Tensor, scale: int, residual: Tensor, relu: bool) -> Tensor:
        """relu(x enlarged bilinearly + residual)."""
        y = residual + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        return F.relu(y, inplace=True) if relu else y

    def head(self, head: nn.Sequential, branches: Sequence[Tensor]) -> Tensor:
        """The heatmaps, from all branches at their own resolutions."""
        first, norm, last = cast(nn.Conv2d, head[0]), cast(nn.BatchNorm2d, head[1]), cast(nn.Conv2d, head[3])
        parts = torch.split(first.weight, [branch.shape[1] for branch in branches], dim=1)
        total = _pointwise(branches[0], parts[0], first.bias)
        for i in range(1, len(branches)):
            total = self.enlarge(_pointwise(branches[i], parts[i], None), 2**i, total, relu=False)
        return _pointwise(norm_relu(norm, total, None, relu=True), last.weight, last.bias)


def _convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    if conv.kernel_size == (3, 3) and conv.stride == (1, 1):
        return cast(Tensor, _Convolution.apply(x, conv.weight))  # type: ignore[no-untyped-call]
    if conv.kernel_size == (1, 1):
        return _pointwise(x, conv.weight, None)
    return F.conv2d(x, conv.weight, None, conv.stride, cast(tuple[int, int], conv.padding))


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution as the one matrix product that it is in NHWC: torch's convolution goes detours on a CPU."""
    return F.linear(_nhwc(x).permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def norm_relu(norm: nn.BatchNorm2d, y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """relu(norm(y) + residual) with the batch's statistics, in one operation."""
    result, mean, variance = _NormReLU.apply(y, norm.weight, norm.bias, residual, norm.eps, relu)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        count = y.numel() // y.shape[1]
        seen = cast(Tensor, norm.num_batches_tracked).add_(1)
        momentum = 1.0 / float(seen) if norm.momentum is None else norm.momentum
        cast(Tensor, norm.running_mean).lerp_(mean, momentum)
        cast(Tensor, norm.running_var).lerp_(variance * (count / (count - 1)), momentum)
    return cast(Tensor, result)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _library(x: Tensor) -> Any:
    return native.library("double" if x.dtype == torch.float64 else "float")


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution of stride 1, padding 1, without bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = _nhwc(x)
        ctx.save_for_backward(x, weight)
        return _winograd(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = _nhwc(gradient)
        for_x = _winograd(gradient, weight, turned=True) if ctx.needs_input_grad[0] else None
        return for_x, _winograd_weight_gradient(x, weight, gradient)


def _winograd(x: Tensor, weight: Tensor, *, turned: bool = False) -> Tensor:
    batch, inputs, height, width = x.shape
    outputs = weight.shape[1 if turned else 0]
    y = x.new_empty((batch, height, width, outputs)).permute(0, 3, 1, 2)
    packed = packing.winograd_weight(weight, turned=turned)
    sizes = {"batch": batch, "height": height, "width": width, "inputs": inputs, "outputs": outputs}
    op = native.Op(native.WINOGRAD, **sizes, x=_pointer(x), weight=_pointer(packed), y=_pointer(y))
    _library(x).run(op, 1, torch.get_num_threads())
    return y


def _winograd_weight_gradient(x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    (batch, inputs, height, width), outputs = x.shape, gradient.shape[1]
    result = torch.empty_like(weight)
    sizes = (batch, height, width, inputs, outputs, torch.get_num_threads())
    step = native.Kernel(*result.stride())
    _library(x).conv_weight_gradient(_pointer(x), _pointer(gradient), _pointer(result), step, *sizes)
    return result


class _NormReLU(torch.autograd.Function):
    """Batch norm with the batch's own statistics, the sum with a residual, and the ReLU; also mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = _nhwc(y)
        residual = None if residual is None else _nhwc(residual)
        lib, threads, channels = _library(y), torch.get_num_threads(), y.shape[1]
        rows = y.numel() // channels
        totals = torch.empty(2, channels, dtype=torch.float64)
        lib.statistics(_pointer(y), rows, channels, _pointer(totals), threads)
        shifted, squares = totals / rows
        mean, variance = shifted + y[0, :, 0, 0], (squares - shifted.square()).clamp_(min=0)
        inverse = torch.rsqrt(variance + eps)
        scale = inverse * weight
        shift = bias - mean * scale
        result = torch.empty_like(y, memory_format=torch.channels_last)
        numbers = [t.to(y.dtype) for t in (scale, shift)]
        lib.apply(
            _pointer(y), *map(_pointer, numbers), _pointer(residual), _pointer(result), rows, channels, relu, threads
        )
        mean = mean.to(y.dtype)
        ctx.save_for_backward(y, weight, mean, inverse, result if relu else None)
        ctx.mark_non_differentiable(mean)
        return result, mean, variance.to(y.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, mean, inverse, result = ctx.saved_tensors
        gradient = _nhwc(gradient)
        lib, threads, channels = _library(y), torch.get_num_threads(), y.shape[1]
        rows = y.numel() // channels
        totals = torch.empty(2, channels, dtype=torch.float64)
        read = _pointer(gradient), _pointer(result), _pointer(y)
        lib.gradient_sums(*read, _pointer(mean), rows, channels, _pointer(totals), threads)
        for_bias, for_weight = totals[0], totals[1] * inverse
        scale = weight * inverse
        slope = -scale * inverse * for_weight / rows
        offset = -scale * for_bias / rows - slope * mean
        numbers = [t.to(y.dtype) for t in (scale, slope, offset)]
        for_y = torch.empty_like(y, memory_format=torch.channels_last)
        for_residual = torch.empty_like(y, memory_format=torch.channels_last) if ctx.needs_input_grad[3] else None
        written = _pointer(for_y), _pointer(for_residual)
        lib.gradient(*read, *map(_pointer, numbers), *written, rows, channels, threads)
        return for_y, for_weight.to(y.dtype), for_bias.to(y.dtype), for_residual, None, None
