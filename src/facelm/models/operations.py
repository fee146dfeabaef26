"""HRNetV2 in three operations: the same parameters and, up to rounding, the same heatmaps as `hrnet.py`.

`heatmaps` says once more what the network computes: a convolution that ends in a batch norm, a sum and a ReLU; an
enlargement that ends in a sum and a ReLU; and the head, whose 1x1 convolution is taken before the enlargement: both are
linear, and the coarse branches have few pixels. How an operation is carried out is exchanged: by torch (`fast.py`), or
by native code on the CPU (`native/program.py` predicts, `native/training.py` trains).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from facelm.models.hrnet import BasicBlock, Bottleneck, ExchangeModule, HRNetV2

Map = TypeVar("Map")  # what flows between the operations: a Tensor, or a stand-in for one


class Operations(Protocol[Map]):
    """A way to carry out the network's operations; `residual` is added last, before the ReLU."""

    def conv(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Map, residual: Map | None = None, relu: bool = True
    ) -> Map:
        """relu(norm(conv(x)) + residual)."""

    def enlarge(self, x: Map, scale: int, residual: Map, relu: bool) -> Map:
        """relu(x enlarged bilinearly + residual)."""

    def head(self, head: nn.Sequential, branches: Sequence[Map]) -> Map:
        """The heatmaps, from all branches at their own resolutions."""


def check_size(images: Tensor) -> None:
    """Raises ValueError for images whose height or width is not a multiple of 32."""
    if images.ndim != 4 or images.shape[-2] % 32 or images.shape[-1] % 32:
        raise ValueError(
            f"HRNetV2 takes [B, 3, H, W] with H and W multiples of 32 (it halves them five times), got "
            f"{list(images.shape)}. Set crop.size to a multiple of 32, such as 128 or 256."
        )


def heatmaps(net: HRNetV2, x: Map, ops: Operations[Map]) -> Map:
    """What `HRNetV2.forward` computes from normalised images `[B, 3, H, W]`, by way of `ops`."""
    x = ops.conv(net.conv1, net.bn1, x)
    x = ops.conv(net.conv2, net.bn2, x)
    for block in net.layer1:
        x = _bottleneck(cast(Bottleneck, block), x, ops)
    same, half = net.transition1
    branches = [ops.conv(*_pair(same), x), ops.conv(*_pair(_first(half)), x)]
    branches = _stage(net.stage2, branches, ops)
    branches.append(ops.conv(*_pair(_first(net.transition2[-1])), branches[-1]))
    branches = _stage(net.stage3, branches, ops)
    branches.append(ops.conv(*_pair(_first(net.transition3[-1])), branches[-1]))
    branches = _stage(net.stage4, branches, ops)
    return ops.head(net.head, branches)


def _bottleneck(block: Bottleneck, x: Map, ops: Operations[Map]) -> Map:
    y = ops.conv(block.conv1, block.bn1, x)
    y = ops.conv(block.conv2, block.bn2, y)
    shortcut = x
    if not isinstance(block.downsample, nn.Identity):
        shortcut = ops.conv(*_pair(block.downsample), x, relu=False)
    return ops.conv(block.conv3, block.bn3, y, shortcut)


def _stage(stage: nn.Sequential, branches: list[Map], ops: Operations[Map]) -> list[Map]:
    for module in stage:
        exchange = cast(ExchangeModule, module)
        branches = [_blocks(blocks, x, ops) for blocks, x in zip(exchange.branches, branches, strict=True)]
        branches = [_fuse(paths, branches, target, ops) for target, paths in enumerate(exchange.fuse_layers)]
    return branches


def _blocks(blocks: nn.Module, x: Map, ops: Operations[Map]) -> Map:
    for block in cast(list[BasicBlock], list(blocks.children())):
        x = ops.conv(block.conv2, block.bn2, ops.conv(block.conv1, block.bn1, x), x)
    return x


def _fuse(paths: nn.Module, branches: Sequence[Map], target: int, ops: Operations[Map]) -> Map:
    """The sum of all branches at the target's resolution: a running total that each operation adds to."""
    total, last = branches[target], len(branches) - 1
    for source, path in enumerate(cast(nn.ModuleList, paths)):
        x = branches[source]
        if source < target:
            *halvings, final = cast(nn.Sequential, path)
            for halving in halvings:
                x = ops.conv(*_pair(halving), x)
            total = ops.conv(*_pair(final), x, total, relu=source + 1 == target == last)
        elif source > target:
            x = ops.conv(*_pair(path), x, relu=False)
            total = ops.enlarge(x, 2 ** (source - target), total, relu=source == last)
    return total


def _first(sequence: nn.Module) -> nn.Module:
    return cast(nn.Sequential, sequence)[0]


def _pair(sequence: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The convolution and the batch norm that a Sequential begins with."""
    layers = cast(nn.Sequential, sequence)
    return cast(nn.Conv2d, layers[0]), cast(nn.BatchNorm2d, layers[1])


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `conv` followed by `norm` in evaluation mode."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = norm.bias - mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return (conv.weight * scale[:, None, None, None]).detach(), bias.detach()


def fold_all(net: HRNetV2) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Every convolution before the head, folded with its batch norm: weight and bias."""
    collect = _Collect()
    heatmaps(net, None, collect)
    return collect.folded


def fold_head(net: HRNetV2) -> tuple[list[Tensor], Tensor]:
    """The head's first convolution, folded and cut into the part of each branch, and its bias."""
    weight, bias = fold(*_pair(net.head))
    return list(torch.split(weight, list(net.config.channels), dim=1)), bias


class _Collect:
    """Operations that compute nothing and fold every convolution they are told of."""

    def __init__(self) -> None:
        self.folded: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def conv(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: None, residual: None = None, relu: bool = True) -> None:
        self.folded[conv] = fold(conv, norm)

    def enlarge(self, x: None, scale: int, residual: None, relu: bool) -> None:
        return None

    def head(self, head: nn.Sequential, branches: Sequence[None]) -> None:
        return None
