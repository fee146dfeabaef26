"""Several trackers as one: `logger=[wandb,tensorboard]`, and loggers of Lightning's beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from facelm.geometry.affine import Image
from facelm.loggers.metrics_csv import MetricsCSV
from facelm.loggers.tracker import RunPlan, Tracker


class ForeignTracker(Tracker):
    """Any logger of Lightning's, which gets the metrics; it is closed by the trainer."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def loggers(self) -> list[Logger]:
        """metrics.csv and that logger."""
        return [*super().loggers(), self._logger]


class Trackers(Tracker):
    """Passes everything on to each of `trackers`; metrics.csv is written once."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def start(self, plan: RunPlan) -> None:
        """Opens each; where one cannot be opened, those before it are closed as failed."""
        super().start(plan)
        with ExitStack() as opened:
            for tracker in self._trackers:
                tracker.start(plan)
                opened.callback(tracker.finish, 1)
            opened.pop_all()

    def loggers(self) -> list[Logger]:
        """metrics.csv, and what each adds to it."""
        added = [one for tracker in self._trackers for one in tracker.loggers() if not isinstance(one, MetricsCSV)]
        return [*super().loggers(), *added]

    def identity(self) -> dict[str, str]:
        """What names the run in any of them."""
        return {key: value for tracker in self._trackers for key, value in tracker.identity().items()}

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Tells each."""
        for tracker in self._trackers:
            tracker.log_facts(facts)

    def shows_faces(self, *, drawn: bool) -> bool:
        """Whether any does."""
        return any(tracker.shows_faces(drawn=drawn) for tracker in self._trackers)

    def log_faces(self, pictures: Sequence[Image], captions: Sequence[str], step: int, *, drawn: bool) -> None:
        """Shows each, in those that show such faces."""
        for tracker in self._trackers:
            tracker.log_faces(pictures, captions, step, drawn=drawn)

    def log_report(self, folder: Path, *, drawn: bool = False) -> None:
        """Shows each."""
        for tracker in self._trackers:
            tracker.log_report(folder, drawn=drawn)

    def log_checkpoints(self, folder: Path, nme: Mapping[str, float]) -> None:
        """Gives each the files."""
        for tracker in self._trackers:
            tracker.log_checkpoints(folder, nme)

    def log_source(self, checkpoint: Mapping[str, Any]) -> None:
        """Tells each."""
        for tracker in self._trackers:
            tracker.log_source(checkpoint)

    def finish(self, exit_code: int) -> None:
        """Closes each, also after one that could not be."""
        with ExitStack() as all_of_them:
            for tracker in self._trackers:
                all_of_them.callback(tracker.finish, exit_code)


def as_one(loggers: Mapping[str, Any]) -> Tracker:
    """The tracker of a run from its named trackers and loggers of Lightning's; none: metrics.csv alone.

    Raises:
        ValueError: one that is neither.
    """
    trackers: list[Tracker] = []
    for name, logger in loggers.items():
        if isinstance(logger, Logger):
            logger = ForeignTracker(logger)
        if not isinstance(logger, Tracker):
            raise ValueError(
                f"logger.{name} describes no logger: it needs logger.{name}._target_=CLASS, a facelm Tracker or a "
                "logger of Lightning's, and its arguments beside it"
            )
        trackers.append(logger)
    return trackers[0] if len(trackers) == 1 else Trackers(trackers)
