"""The native operations that training needs, as torch functions with gradients: convolution, batch norm, enlargement.

All take and give dense NHWC tensors `[B, C, H, W]` (torch's channels_last) on the CPU, in the parameters' float32 or
float64, or in bfloat16 beside float32 parameters (mixed precision). There the convolutions are torch's: processors that
have bfloat16 multiply matrices of it by a unit of its own (AMX), which oneDNN drives well. Norms, sums and ReLUs gain
from native code by their traffic to memory, of which bfloat16 is half.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.grad import conv2d_input

from facelm.models import native

_LIBRARIES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}


def conv_norm_relu(
    x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, residual: Tensor | None = None, relu: bool = True
) -> tuple[Tensor, Tensor]:
    """relu(norm(conv(x)) + residual) with the batch's statistics, and x; running ones are updated as torch does.

    Whoever reads x after this takes the x that is given back: its gradient then comes by here and is added to this
    one's on the way, which costs less than the sum that autograd would make.

    Raises:
        ValueError: a batch of one pixel, which has no variance.
    """
    parameters = conv.weight, norm.weight, norm.bias
    z, x = _ConvNormReLU.apply(x, *parameters, residual, conv.stride[0], norm, relu)  # type: ignore[no-untyped-call]
    return z, x


def norm_relu(y: Tensor, norm: nn.BatchNorm2d, residual: Tensor | None = None, relu: bool = True) -> Tensor:
    """relu(norm(y) + residual), as `conv_norm_relu`."""
    return cast(Tensor, _NormReLU.apply(y, norm.weight, norm.bias, residual, norm, relu))  # type: ignore[no-untyped-call]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """The convolution of `x` with `weight` `[N, C, k, k]`, padded by half a kernel: k is 1, or 3 with stride 1 or 2."""
    return cast(Tensor, _Convolution.apply(x, weight, bias, stride))  # type: ignore[no-untyped-call]


def enlarge(x: Tensor, scale: int, residual: Tensor, relu: bool) -> Tensor:
    """relu(x enlarged bilinearly (align_corners=False) + residual)."""
    return cast(Tensor, _Enlarge.apply(x, residual, scale, relu))  # type: ignore[no-untyped-call]


def keep_memory(parameter: Tensor) -> bool:
    """Whether this process keeps, from now on, the memory that tensors like `parameter` free."""
    return bool(_library(parameter).keep_memory())


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _library(x: Tensor) -> Any:
    return native.library(_LIBRARIES[x.dtype], training=True)


def _parameters(x: Tensor) -> torch.dtype:
    """The type of parameters and their gradients beside maps of the type of `x`."""
    return torch.float32 if x.dtype == torch.bfloat16 else x.dtype


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _convolution(x: Tensor, weight: Tensor, stride: int) -> native.Convolution:
    batch, inputs, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    sizes = (batch, height, width, inputs, outputs, kernel, stride, torch.get_num_threads())
    return native.Convolution(*sizes, native.Kernel(*weight.stride()), x.data_ptr(), weight.data_ptr())


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    if x.dtype == torch.bfloat16:
        return _nhwc(F.conv2d(x, weight, bias, stride, weight.shape[2] // 2))
    op = _convolution(x, weight, stride)
    height, width = (x.shape[2] - 1) // stride + 1, (x.shape[3] - 1) // stride + 1
    y = x.new_empty((x.shape[0], height, width, weight.shape[0])).permute(0, 3, 1, 2)
    op.bias, op.y = _pointer(bias), y.data_ptr()
    _library(x).convolve(op)
    return y


def _backward(
    x: Tensor, weight: Tensor, stride: int, dy: Tensor, needs_dx: bool, more: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """The gradients for `x`, with `more` added, and `weight`."""
    if x.dtype == torch.bfloat16:
        return _backward_by_torch(x, weight, stride, dy, needs_dx, more)
    lib, op = _library(x), _convolution(x, weight, stride)
    by_torch = needs_dx and x.shape[1] < lib.lanes()  # images of three channels: less than a vector
    dx = torch.empty_like(x) if needs_dx and not by_torch else None
    dweight = torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype)  # the order that `op` tells
    op.dy, op.more, op.dx, op.dweight = map(_pointer, (dy, more, dx, dweight))
    lib.convolve_back(op)
    if by_torch:
        dx = conv2d_input(x.shape, weight, dy, stride, weight.shape[2] // 2)  # type: ignore[no-untyped-call]
        dx = dx if more is None else dx + more
    return dx, dweight


def _backward_by_torch(
    x: Tensor, weight: Tensor, stride: int, dy: Tensor, needs_dx: bool, more: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    steps, padding = [stride] * 2, [weight.shape[2] // 2] * 2
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, steps, padding, [1, 1], False, [0, 0], 1, [needs_dx, True, False]
    )
    if dx is not None:
        dx = _nhwc(dx if more is None else dx.add_(more))
    return dx, dweight.to(_parameters(x))


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        x, weight = _nhwc(x), weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _forward(x, weight, None if bias is None else bias.to(x.dtype), stride)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = _nhwc(dy)
        dbias = dy.sum((0, 2, 3)).to(_parameters(x)) if ctx.needs_input_grad[2] else None
        return *_backward(x, weight, ctx.stride, dy, ctx.needs_input_grad[0]), dbias, None


def _norm_forward(
    y: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, norm: nn.BatchNorm2d, relu: bool
) -> tuple[Tensor, Tensor]:
    """The result, and numbers `[4, C]` for the gradient."""
    channels = y.shape[1]
    rows = y.numel() // channels
    if rows == 1:
        raise ValueError(f"a batch norm saw one pixel, {list(y.shape)}: there is no variance. Take a larger batch.")
    z, saved = torch.empty_like(y), torch.empty((4, channels), dtype=torch.float64)
    momentum = -1.0 if norm.momentum is None else norm.momentum
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    pointers = (*map(_pointer, (y, weight, bias, residual, z)), *map(_pointer, running), saved.data_ptr())
    op = native.Norm(rows, channels, relu, torch.get_num_threads(), 0, norm.eps, momentum, *pointers)
    _library(y).normalise(op)
    return z, saved


def _norm_backward(
    y: Tensor, z: Tensor | None, saved: Tensor, relu: bool, dz: Tensor, needs_dresidual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The gradients for y, weight, bias and residual; `z` is needed after a ReLU if there was a residual."""
    channels = y.shape[1]
    dy, (dweight, dbias) = torch.empty_like(y), torch.empty((2, channels), dtype=_parameters(y))
    dresidual = torch.empty_like(y) if needs_dresidual and relu else None
    op = native.Norm(y.numel() // channels, channels, relu, torch.get_num_threads())
    op.y, op.z, op.saved, op.dz = y.data_ptr(), _pointer(z), saved.data_ptr(), dz.data_ptr()
    op.dy, op.dresidual, op.dweight, op.dbias = map(_pointer, (dy, dresidual, dweight, dbias))
    _library(y).normalise_back(op)
    return dy, dweight, dbias, dz if needs_dresidual and not relu else dresidual


class _NormReLU(Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, norm: nn.BatchNorm2d, relu: bool
    ) -> Tensor:
        y, residual = _nhwc(y), None if residual is None else _nhwc(residual)
        z, saved = _norm_forward(y, weight, bias, residual, norm, relu)
        ctx.save_for_backward(y, None if residual is None else z, saved)
        ctx.relu = relu
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        y, z, saved = ctx.saved_tensors
        return *_norm_backward(y, z, saved, ctx.relu, _nhwc(dz), ctx.needs_input_grad[3]), None, None


class _ConvNormReLU(Function):
    """Both in one: half the bookkeeping."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        conv_weight: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        stride: int,
        norm: nn.BatchNorm2d,
        relu: bool,
    ) -> tuple[Tensor, Tensor]:
        x, residual = _nhwc(x), None if residual is None else _nhwc(residual)
        conv_weight = conv_weight.to(x.dtype)
        y = _forward(x, conv_weight, None, stride)
        z, saved = _norm_forward(y, weight, bias, residual, norm, relu)
        ctx.save_for_backward(x, conv_weight, y, None if residual is None else z, saved)
        ctx.stride, ctx.relu = stride, relu
        ctx.set_materialize_grads(False)
        return z, x

    @staticmethod
    def backward(ctx: Any, dz: Tensor | None, more: Tensor | None) -> tuple[Tensor | None, ...]:
        if dz is None:  # only x was read
            return more, *[None] * 7
        x, conv_weight, y, z, saved = ctx.saved_tensors
        more = None if more is None else _nhwc(more)
        dy, *for_norm = _norm_backward(y, z, saved, ctx.relu, _nhwc(dz), ctx.needs_input_grad[4])
        return *_backward(x, conv_weight, ctx.stride, dy, ctx.needs_input_grad[0], more), *for_norm, None, None, None


class _Enlarge(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, scale: int, relu: bool) -> Tensor:
        x, residual = _nhwc(x), _nhwc(residual)
        batch, channels, height, width = x.shape
        y = torch.empty_like(residual)
        sizes = batch, height, width, channels, scale, relu, torch.get_num_threads()
        _library(x).enlarge_sum(x.data_ptr(), residual.data_ptr(), y.data_ptr(), *sizes)
        ctx.save_for_backward(y if relu else None)
        ctx.shape, ctx.scale = x.shape, scale
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        dy = _nhwc(dy)
        if y is not None:
            dy = torch.ops.aten.threshold_backward(dy, y, 0)
        batch, channels, height, width = ctx.shape
        dx = dy.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)
        sizes = batch, height, width, channels, ctx.scale, torch.get_num_threads()
        _library(dy).enlarge_back(dy.data_ptr(), dx.data_ptr(), *sizes)
        return dx, dy, None, None
