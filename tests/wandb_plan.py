"""A plan of a run and a tracker of W&B, with what tests do not care about filled in."""

from pathlib import Path

from facelm.loggers import RunPlan, WandbTracker


def plan(folder: Path, **facts) -> RunPlan:
    return RunPlan(folder=folder, **{"experiment": "demo", "overrides": ("seed=1",)} | facts)


def tracker(**options) -> WandbTracker:
    return WandbTracker(**{"project": "facelm"} | options)
