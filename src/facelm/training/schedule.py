"""Learning-rate schedules: a factor for every iteration, in closed form, so a resumed run cannot drift from it.

And `TrainingPlan`, the lengths that they are told.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)


class Schedule(Protocol):
    """The factor on the base learning rate at an iteration (0-based) of a run with known lengths."""

    warmup_iterations: int

    def factor(self, iteration: int, *, iterations_per_epoch: int, total_iterations: int) -> float:
        """The factor, usually in [0, 1]."""


def warmup(iteration: int, warmup_iterations: int, start: float) -> float:
    """The linear ramp from `start` at iteration 0 to 1 at iteration `warmup_iterations - 1`, then 1.

    mmengine's `LinearLR(begin=0, end=n)` reaches 1 after n - 1 steps; torch's `LinearLR(total_iters=n - 1)` is equal.
    """
    last = warmup_iterations - 1
    if last < 1 or iteration >= last:
        return 1.0
    return start + (1.0 - start) * iteration / last


@dataclass(frozen=True, kw_only=True)
class WarmupMultiStep:
    """Linear warm-up by iteration, times `gamma` at each milestone (epochs): mmpose's schedule.

    Milestones are epochs of the run, counted by iterations, so the two parts multiply exactly as mmengine's do.
    """

    milestones: Sequence[int]
    gamma: float = 0.1
    warmup_iterations: int = 0
    warmup_start: float = 0.001

    def factor(self, iteration: int, *, iterations_per_epoch: int, total_iterations: int) -> float:
        """`warmup(iteration) * gamma ** (milestones passed)`; `total_iterations` has no influence."""
        epoch = iteration // iterations_per_epoch
        passed = sum(epoch >= milestone for milestone in self.milestones)
        return warmup(iteration, self.warmup_iterations, self.warmup_start) * self.gamma**passed


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up by iteration, then half a cosine from 1 down to `final` at the run's last iteration."""

    final: float = 0.0
    warmup_iterations: int = 0
    warmup_start: float = 0.001

    def factor(self, iteration: int, *, iterations_per_epoch: int, total_iterations: int) -> float:
        """The ramp during the warm-up, the cosine after it; `iterations_per_epoch` has no influence."""
        if iteration < self.warmup_iterations:
            return warmup(iteration, self.warmup_iterations, self.warmup_start)
        span = max(1, total_iterations - 1 - self.warmup_iterations)
        done = min(1.0, (iteration - self.warmup_iterations) / span)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


def clip_warmup(warmup_iterations: int, total_iterations: int, *, share: float = 0.1) -> int:
    """`warmup_iterations`, or `share` of the run where that is less: what `optim.clip_warmup=true` uses."""
    return min(warmup_iterations, int(share * total_iterations))


@dataclass(frozen=True)
class TrainingPlan:
    """Batch, learning-rate factor and length of a run, as far as the trainer knows them before it starts."""

    batch_size: int
    devices: int
    global_batch: int
    lr_factor: float
    iterations_per_epoch: int
    total_iterations: int

    def report(self, lr: float, warmup_iterations: int) -> None:
        """One line in the log, and a warning if the warm-up outlasts the training."""
        accumulated = self.global_batch // (self.devices * self.batch_size)
        parts = f"{self.devices} x {self.batch_size}" + (f" x {accumulated} accumulated" if accumulated > 1 else "")
        log.info(
            f"global batch {self.global_batch} ({parts}), learning rate {lr:.4g}, "
            f"{self.total_iterations} iterations ({self.iterations_per_epoch} an epoch), warm-up {warmup_iterations}"
        )
        if warmup_iterations > self.total_iterations:
            warnings.warn(
                f"the warm-up ({warmup_iterations} iterations) is longer than the training "
                f"({self.total_iterations}): the learning rate never reaches {lr:.4g}. The published recipe at "
                "8 x 64 has this too. optim.clip_warmup=true shortens the warm-up to a tenth of the run",
                stacklevel=2,
            )
