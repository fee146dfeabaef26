"""The learning rate at every iteration against a real mmengine run of 60 epochs."""

from __future__ import annotations

import numpy as np
import pytest

from facelm.training.schedule import WarmupMultiStep

MMPOSE = WarmupMultiStep(milestones=(40, 55), warmup_iterations=500, warmup_start=0.001)


def rates(per_epoch: int, epochs: int = 60) -> np.ndarray:
    total = per_epoch * epochs
    factors = [MMPOSE.factor(i, iterations_per_epoch=per_epoch, total_iterations=total) for i in range(total)]
    return 2e-3 * np.array(factors)


@pytest.mark.parametrize("per_epoch", [7, 13, 25, 50, 99, 197])
def test_every_iteration(golden, agree, per_epoch):
    curves = golden.json("lr_schedule.json")
    if f"iters_{per_epoch}" not in curves:
        pytest.skip(f"lr_schedule.json has no iters_{per_epoch}")
    expected, ours = curves[f"iters_{per_epoch}"], rates(per_epoch)
    what = f"learning rate, {per_epoch} iterations an epoch"
    agree(what, len(ours), expected["n"])
    agree(what, ours[:3], expected["first"], rtol=1e-9, scale="value")
    for key, value in (
        ("max", ours.max()),
        ("at_epoch_40", ours[40 * per_epoch]),
        ("before_40", ours[40 * per_epoch - 1]),
        ("at_55", ours[55 * per_epoch]),
        ("last", ours[-1]),
        ("mean", ours.mean()),
    ):
        agree(what, value, expected[key], rtol=1e-9, scale="value")
    if expected.get("lr_499") is not None:
        agree(what, ours[499], expected["lr_499"], rtol=1e-9, scale="value")
    if "lr" in expected:
        agree(what, ours, expected["lr"], rtol=1e-9, scale="value")
