"""Batch norm's running statistics without a memory of the numbers they start from."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class WarmedStatistics(Callback):
    """Running means and variances are plain averages over the first 1 / momentum batches, then as ever.

    torch starts them at 0 and 1. With the HRNet authors' momentum of 0.01 and their initialisation, whose first
    activations have variances near 1e-4, that 1 rules for hundreds of batches: after 3 epochs of 114 batches a network
    trained from scratch scores an NME of 44 % with these statistics and 6 % with measured ones. Counted by
    `num_batches_tracked`, so loaded weights and resumed runs are left alone. The network itself, and so
    `torch.compile`, sees nothing of it.
    """

    def __init__(self) -> None:
        self._groups: list[list[_BatchNorm]] | None = None  # of one momentum each: facelm's networks have one group
        self._before: list[list[Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Keeps the statistics as they are before the batch."""
        if self._groups is None:
            young = [m for m in pl_module.modules() if isinstance(m, _BatchNorm) and is_young(m)]
            momenta = dict.fromkeys(norm.momentum for norm in young)
            self._groups = [[norm for norm in young if norm.momentum == momentum] for momentum in momenta]
        self._before = [[buffer.clone() for norm in group for buffer in _statistics(norm)] for group in self._groups]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Turns the step that batch norm took into that of a plain average: 1 / n instead of momentum."""
        for group, before in zip(self._groups or [], self._before, strict=True):
            after = [buffer for norm in group for buffer in _statistics(norm)]
            step = 1.0 / (float(group[0].momentum or 0.0) * float(group[0].num_batches_tracked or 1))
            torch._foreach_lerp_(before, after, step)
            torch._foreach_copy_(after, before)
        self._groups = [group for group in self._groups or [] if is_young(group[0])]
        self._before = []


def is_young(norm: _BatchNorm) -> bool:
    """Whether fewer than 1 / momentum batches have gone into the statistics."""
    seen, momentum = norm.num_batches_tracked, norm.momentum
    return seen is not None and bool(momentum) and float(seen) * float(momentum or 0.0) < 1.0


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be warmed")
    return mean, variance
