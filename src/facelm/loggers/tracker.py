"""What every tracker does, and what it is told about a run before the run starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from facelm.geometry.affine import Image
from facelm.loggers.metrics_csv import MetricsCSV

MACHINERY = ("hydra", "launcher", "logger", "resume", "run_dir", "report", "report_dir", "sweep", "tags")
"""Overrides that say how a run is made and not what it is: they stay out of its short name, and out of tables."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is known of a run before it starts: plain values only.

    `sweep` names the sweep that the run is a job of; `resumed` is what the checkpoint that it goes on from says of its
    run (see `Tracker.identity`).
    """

    folder: Path
    experiment: str
    job_type: str = "train"
    overrides: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sweep: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    resumed: Mapping[str, str] = field(default_factory=dict)

    def short_overrides(self) -> list[str]:
        """`optimizer.lr=0.002` for `optim.optimizer.lr=0.002`: the last two parts of a path, since one says too little.

        Without `hydra.*`, `logger=` and such.
        """
        short = []
        for override in self.overrides:
            key, _, value = override.lstrip("+").partition("=")
            if key.lstrip("~").partition(".")[0] in (*MACHINERY, "experiment", "name"):
                continue
            value = value.strip("'\"").rstrip("/").rpartition("/")[2]
            short.append(f"{'.'.join(key.split('.')[-2:])}={value}" if value else key)
        return short


class Tracker:
    """metrics.csv and nothing else (`logger=csv`); the methods that other trackers fill.

    Order of calls: `start`, `loggers`, any of `log_*`, `finish` in a `finally`. On ranks other than the first a plain
    `Tracker` stands in, so nothing but rank 0 opens a run anywhere.
    """

    def start(self, plan: RunPlan) -> None:
        """Opens the run."""
        self.folder = plan.folder

    def loggers(self) -> list[Logger]:
        """What the trainer logs to."""
        return [MetricsCSV(self.folder)]

    def identity(self) -> dict[str, str]:
        """Plain values that name the run; they travel in its checkpoints, so that resuming finds it again."""
        return {}

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Adds plain facts that are known once data and network exist (facts.json holds them too)."""

    def shows_faces(self, *, drawn: bool) -> bool:
        """Whether pictures of faces go there; `drawn` says that they are of nobody."""
        return False

    def log_faces(self, pictures: Sequence[Image], captions: Sequence[str], step: int, *, drawn: bool) -> None:
        """Shows faces that validate, `[H, W, 3]` each, as they are predicted after `step` steps."""

    def log_report(self, folder: Path, *, drawn: bool = False) -> None:
        """Shows what the report in `folder` holds; `drawn` says that its faces are of nobody."""

    def log_checkpoints(self, folder: Path, nme: Mapping[str, float]) -> None:
        """Keeps `folder`/best.ckpt and last.ckpt, or the one there is; `nme`: `val/nme` of `best`, `last`, percent."""

    def log_source(self, checkpoint: Mapping[str, Any]) -> None:
        """Says which checkpoint an evaluation used: its `path`, `sha256`, and the `run` that it carries."""

    def finish(self, exit_code: int) -> None:
        """Closes the run; 0 for success."""


def is_main_process() -> bool:
    """Whether this is the process that tracks: the only one, or the first rank of the first node.

    Asked before there is a trainer, so the answer comes from what launchers leave in the environment.
    """
    # On the second machine Lightning's own launcher sets no rank in its first process, only NODE_RANK.
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0 and os.environ.get("NODE_RANK", "0") == "0"
