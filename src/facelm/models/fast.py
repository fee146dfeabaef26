"""HRNetV2 for inference: by torch on any device (`FoldedOperations`), or by native code on the CPU (`native/`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelm.models.hrnet import HRNetV2, is_hrnet
from facelm.models.operations import check_size, fold_all, fold_head, heatmaps

BACKENDS = ("auto", "native", "torch")


class FoldedOperations:
    """The operations in torch, with batch norms folded into the convolutions: a copy of the weights, in inference."""

    def __init__(self, net: HRNetV2) -> None:
        self._folded = {conv: (_channels_last(weight), bias) for conv, (weight, bias) in fold_all(net).items()}
        parts, self._bias = fold_head(net)
        self._parts = [_channels_last(part) for part in parts]
        last = cast(nn.Conv2d, net.head[3])
        self._last = _channels_last(last.weight.detach()), cast(Tensor, last.bias).detach().clone()

    def conv(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """relu(norm(conv(x)) + residual)."""
        weight, bias = self._folded[conv]
        y = F.conv2d(x, weight, bias, conv.stride, cast(tuple[int, int], conv.padding))
        if residual is not None:
            y.add_(residual)
        return y.relu_() if relu else y

    def enlarge(self, x: Tensor, scale: int, residual: Tensor, relu: bool) -> Tensor:
        """relu(x enlarged bilinearly + residual)."""
        y = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False).add_(residual)
        return y.relu_() if relu else y

    def head(self, head: nn.Sequential, branches: Sequence[Tensor]) -> Tensor:
        """The heatmaps, from all branches at their own resolutions."""
        total = F.conv2d(branches[0], self._parts[0], self._bias)
        for i, (part, branch) in enumerate(zip(self._parts[1:], branches[1:], strict=True), start=1):
            total = self.enlarge(F.conv2d(branch, part), 2**i, total, relu=i == len(branches) - 1)
        return F.conv2d(total, *self._last)


def _can_be_folded(net: nn.Module) -> bool:
    norms = [norm for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    return all(norm.running_mean is not None and norm.weight is not None for norm in norms)


def _one_thread() -> None:
    """OpenMP's threads do not live on in a forked process, and torch and the native kernels would wait for them."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)


def _channels_last(weight: Tensor) -> Tensor:
    return weight.clone(memory_format=torch.channels_last)


def for_inference(net: nn.Module, *, crop_size: int, backend: str = "auto") -> Callable[[Tensor], Tensor]:
    """A function from normalised images `[B, 3, crop_size, crop_size]` to heatmaps `[B, K, S/4, S/4]`.

    It holds its own copy of the weights as they are now, with batch norms as in evaluation mode. `backend`:

    - "native": compiled kernels, float32 on the CPU; about two seconds of compiling on a machine's first use;
    - "torch": torch's operations, on any device and in the network's number type;
    - "auto": native where it can be had, else torch.

    The heatmaps differ from the network's own by rounding: a few millionths of their size (W18, float32). A network
    that is not facelm's `HRNetV2`, or whose batch norms have no running statistics or no weights to fold, is returned
    as it is. NaN and infinity in weights or images come out as NaN, as from the network itself.

    Raises:
        ValueError: an unknown backend, a crop size that is no multiple of 32, or "native" where it cannot be had.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown inference backend={backend!r}; choose one of {', '.join(BACKENDS)}")
    if crop_size <= 0 or crop_size % 32:
        raise ValueError(f"crop_size={crop_size} must be a positive multiple of 32, such as 128 or 256")
    if not is_hrnet(net) or not _can_be_folded(net):
        return net
    if backend != "torch":
        from facelm.models.native import program  # what it loads is of no use elsewhere

        reason = program.obstacle(net)
        if reason is None:
            return program.NativeNet(net)
        if backend == "native":
            raise ValueError(f"backend='native' cannot be used: {reason}. backend='torch' works everywhere.")
    ops = FoldedOperations(net)

    def run(images: Tensor) -> Tensor:
        check_size(images)
        with torch.no_grad():
            return heatmaps(net, images.contiguous(memory_format=torch.channels_last), ops)

    return run
