"""metrics.csv: every logged number of a run, one line per logging event, in a file that resuming continues."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from facelm.files import writing

_FIRST = ("step", "epoch")


class MetricsCSV(Logger):
    """Appends to `folder`/metrics.csv; each line is on disk when it is logged.

    A run that starts again in the same folder drops the lines from its first step on and goes on after them, so a
    resumed run leaves the file that an uninterrupted one would have left. (Lightning's `CSVLogger` deletes the file.)
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Empty: the run folder has the run's name."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the run folder has the run's time."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a line with `metrics` and `step`; empty cells where a column has no value."""
        row: dict[str, Any] = {"step": step, **metrics}
        if self._columns is None:
            kept = self._rows_before(step or 0)
            self._rewrite({name for kept_row in kept for name, cell in kept_row.items() if cell} | set(row), kept)
        elif new := set(row) - set(self._columns):
            self._rewrite({*self._columns, *new}, self._rows_before(None))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns or [], lineterminator="\n").writerow(row)

    def _rows_before(self, step: int | None) -> list[dict[str, str]]:
        """The lines of the file, all or those before `step`; a last line that a kill cut short is dropped."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        if step is None:
            return rows
        return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < step]

    def _rewrite(self, columns: Iterable[str], rows: list[dict[str, str]]) -> None:
        """Writes header and `rows` whole or not at all."""
        self._columns = [*_FIRST, *sorted(set(columns) - set(_FIRST))]
        with writing(self.path, "w") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
