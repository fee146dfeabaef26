"""TensorBoard beside metrics.csv: `logger=tensorboard`, then `tensorboard --logdir outputs`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from facelm.data.images import read_image
from facelm.geometry.affine import Image
from facelm.loggers.tracker import RunPlan, Tracker


class TensorBoardTracker(Tracker):
    """Writes event files into RUN/tensorboard: metrics, the config as text, the report's table and pictures.

    Raises:
        ModuleNotFoundError: tensorboard is not installed.
    """

    def start(self, plan: RunPlan) -> None:
        """Opens the event file and writes the config."""
        super().start(plan)
        try:
            self._logger = TensorBoardLogger(plan.folder, name="", version="tensorboard", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "logger=tensorboard needs tensorboard: pip install 'facelm[tensorboard]'"
            ) from error
        self._text("config", plan.config)
        if plan.tags:
            self._logger.experiment.add_text("tags", ", ".join(plan.tags))

    def loggers(self) -> list[Logger]:
        """metrics.csv and the event file."""
        return [*super().loggers(), self._logger]

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Adds them as text."""
        self._text("facts", facts)

    def shows_faces(self, *, drawn: bool) -> bool:
        """Always: its files stay in the run folder."""
        return True

    def log_faces(self, pictures: Sequence[Image], captions: Sequence[str], step: int, *, drawn: bool) -> None:
        """A picture for each face, which moves with the slider of the steps."""
        for number, picture in enumerate(pictures, start=1):
            self._logger.experiment.add_image(f"val/face_{number}", picture, step, dataformats="HWC")

    def log_report(self, folder: Path, *, drawn: bool = False) -> None:
        """Adds the table as text and the report's pictures."""
        writer = self._logger.experiment
        writer.add_text("report/table", (folder / "table.md").read_text(encoding="utf-8"))
        for name in ("ced", "regions", "worst"):
            if (folder / f"{name}.png").is_file():
                writer.add_image(f"report/{name}", read_image(folder / f"{name}.png"), dataformats="HWC")

    def finish(self, exit_code: int) -> None:
        """Writes what is left."""
        self._logger.experiment.close()

    def _text(self, tag: str, content: Mapping[str, Any]) -> None:
        block = "\n".join(f"    {line}" for line in json.dumps(content, indent=2, default=str).splitlines())
        self._logger.experiment.add_text(tag, block)
