"""HRNetV2's training step on the CPU by native code: the same parameters, outputs and gradients as `hrnet.py`.

Four things make it faster. 3x3 convolutions of stride 1 and both of their gradients take Winograd's quarter of the
multiplications; a batch norm, the sum and the ReLU after it are one operation with little traffic to memory; the
head's first convolution comes before the enlargement, see `operations.py`; and freed memory is kept for the next step.
In mixed precision (autocast to bfloat16) the convolutions are torch's, see `gradients.py`. `for_training` changes a
network in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelm.models.hrnet import HRNetV2
from facelm.models.native import gradients
from facelm.models.native.program import obstacle
from facelm.models.operations import check_size, heatmaps


class NativeHRNetV2(HRNetV2):
    """An `HRNetV2` whose training forward and backward run as native code; in evaluation mode it is an `HRNetV2`."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` -> heatmaps `[B, K, H/4, W/4]`."""
        maps = _type_of_maps(self.conv1.weight)
        if not self.training or images.device.type != "cpu" or maps is None:
            return super().forward(images)
        check_size(images)
        x = images.to(maps).contiguous(memory_format=torch.channels_last)
        return heatmaps(self, x, TrainingOperations())


def _type_of_maps(weight: Tensor) -> torch.dtype | None:
    """What the maps of a network with such weights are held in: bfloat16 in mixed precision. None: torch's own way."""
    if not torch.is_autocast_enabled("cpu"):
        return weight.dtype
    narrow = torch.get_autocast_dtype("cpu") == torch.bfloat16 and weight.dtype == torch.float32
    return torch.bfloat16 if narrow else None


def for_training(net: HRNetV2) -> str | None:
    """Makes `net` a `NativeHRNetV2`, in place and with the same parameters; or returns the reason why it cannot be.

    From then on this process keeps the memory that it frees, for the next step.
    """
    reason = obstacle(net)
    if reason is None:
        net.__class__ = NativeHRNetV2
        gradients.keep_memory(net.conv1.weight)
    return reason


def takes_batch_statistics(norm: nn.BatchNorm2d) -> bool:
    """Whether `norm` does what the native batch norm does: normalise by the batch and note its statistics.

    A frozen norm (`norm.eval()` inside a network that trains), one without running statistics or that keeps them as
    they are (`track_running_stats=False`), and one without weights is left to torch.
    """
    tracks = norm.track_running_stats and norm.running_mean is not None
    return norm.training and tracks and norm.weight is not None


class TrainingOperations:
    """The operations of one forward, with gradients and batch statistics; running statistics are updated as in torch.

    Each norm is asked for its own mode, so a network whose norms are frozen, all or some, trains as in torch.

    A map that several operations read is handed from one to the next, see `gradients.conv_norm_relu`.
    """

    def __init__(self) -> None:
        self._handed_on: dict[Tensor, Tensor] = {}

    def conv(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """relu(norm(conv(x)) + residual)."""
        residual = None if residual is None else self._latest(residual)
        if not takes_batch_statistics(norm):
            z = norm(gradients.convolve(self._latest(x), conv.weight, conv.bias, conv.stride[0]))
            z = z if residual is None else z + residual
            return F.relu(z) if relu else z
        z, self._handed_on[x] = gradients.conv_norm_relu(self._latest(x), conv, norm, residual, relu)
        return z

    def enlarge(self, x: Tensor, scale: int, residual: Tensor, relu: bool) -> Tensor:
        """relu(x enlarged bilinearly + residual)."""
        return gradients.enlarge(self._latest(x), scale, self._latest(residual), relu)

    def head(self, head: nn.Sequential, branches: Sequence[Tensor]) -> Tensor:
        """The heatmaps, from all branches at their own resolutions."""
        first, norm, last = cast(nn.Conv2d, head[0]), cast(nn.BatchNorm2d, head[1]), cast(nn.Conv2d, head[3])
        parts = torch.split(first.weight, [branch.shape[1] for branch in branches], dim=1)
        total = gradients.convolve(branches[0], parts[0], first.bias)
        for i in range(1, len(branches)):
            total = self.enlarge(gradients.convolve(branches[i], parts[i]), 2**i, total, relu=False)
        total = gradients.norm_relu(total, norm) if takes_batch_statistics(norm) else F.relu(norm(total))
        return gradients.convolve(total, last.weight, last.bias)

    def _latest(self, x: Tensor) -> Tensor:
        return self._handed_on.get(x, x)
