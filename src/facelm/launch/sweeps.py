"""What many runs came to, in one table: sweep.md, sweep.csv, `facelm compare`."""

from __future__ import annotations

import atexit
import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from facelm.evaluation.stored import in_report, read_summary
from facelm.evaluation.tables import table_lines
from facelm.files import take_lock, write_whole
from facelm.launch.jobs import RECORD, is_killed, key_of, read_record
from facelm.launch.same_faces import BEST, faces_of_report, faces_that_validated, of_other_faces
from facelm.loggers.tracker import MACHINERY


@dataclass(frozen=True)
class Row:
    """A run in a table; errors in percent, `val` the best validation's and `nme` the report's, by subset.

    `faces` says which faces the columns are about, see `same_faces`.
    """

    name: str
    overrides: tuple[str, ...] = ()
    status: str = "unknown"
    val: float | None = None
    nme: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None
    faces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_run(folder: Path, name: str | None = None) -> Row:
    """The row of a run folder, or of a report folder.

    Raises:
        FileNotFoundError: it holds neither a result nor a report.
        ValueError: one of them was changed, or is damaged.
    """
    record, summary = read_record(folder), read_summary(folder)
    if not record and summary is None:
        raise FileNotFoundError(f"{folder} is no run folder: it holds neither {RECORD} nor a report's summary.json")
    report = summary or {"subsets": {}}
    said = record["overrides"] if "overrides" in record else _measured(report)
    overrides = [override for override in said if not _is_machinery(override)]
    return Row(
        name=name or folder.name,
        overrides=tuple(overrides),
        status="killed" if is_killed(record) else record.get("status", "evaluated"),
        val=record.get("val_nme"),
        nme={subset: row["nme"] for subset, row in report["subsets"].items() if row["nme"] is not None},
        seconds=record.get("seconds"),
        error=record.get("error"),
        faces={BEST: faces_that_validated(folder), **faces_of_report(folder, report)},
    )


def run_folders(path: Path) -> list[Path]:
    """`path` itself if it is a run or report folder, else those in it: the jobs of a sweep, or evaluations."""
    if (path / RECORD).is_file() or in_report(path, "summary.json"):
        return [path]
    return sorted({file.parent for name in (RECORD, "summary.json") for file in path.glob(f"*/{name}")})


def table(rows: Sequence[Row]) -> str:
    """The runs as Markdown, in the order given; below them mean and standard deviation where only the seed differs."""
    shared = [override for override in rows[0].overrides if all(override in row.overrides for row in rows)]
    names = _subsets(rows)
    counts = {status: sum(row.status == status for row in rows) for status in dict.fromkeys(row.status for row in rows)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = [f"{len(rows)} runs: {said}. NME in percent, inter-ocular, best validation first."]
    if len(rows) > 1 and shared:
        lines[0] += f" All with {_code(shared)}."
    lines += [
        "",
        *table_lines(["run", "overrides", "status", BEST, *names, "minutes"], _run_cells(rows, shared, names)),
    ]
    for column, (one, other) in of_other_faces((row.name, row.faces) for row in rows).items():
        lines += ["", f"{column}: not the same faces in {one} and {other}; these numbers do not compare."]
    if groups := _seed_groups(rows):
        lines += ["", "Mean ± standard deviation over seeds:", ""]
        cells = []
        for overrides, group in groups.items():
            own = [override for override in overrides if override not in shared]
            columns = [[row.val for row in group], *([row.nme.get(name) for row in group] for name in names)]
            cells.append([_code(own), str(len(group)), *map(_mean_and_sd, columns)])
        lines += table_lines(["overrides", "n", BEST, *names], cells)
    failed = [f"- {row.name}: {row.error.splitlines()[0]}" for row in rows if row.error and row.status == "failed"]
    return "\n".join([*lines, *(["", "What failed:", "", *failed] if failed else [])]) + "\n"


def write_table(folder: Path, rows: Sequence[Row], title: str) -> None:
    """Writes sweep.md and sweep.csv into `folder`, each whole."""
    rows = in_order(rows)
    names = _subsets(rows)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "overrides", "status", "best_val", *(f"{name}_nme" for name in names), "seconds", "error"])
    for row in rows:
        numbers = [row.nme.get(name) for name in names]
        writer.writerow([row.name, " ".join(row.overrides), row.status, row.val, *numbers, row.seconds, row.error])
    write_whole(folder / "sweep.csv", text.getvalue())
    write_whole(folder / "sweep.md", f"# {title}\n\n{table(rows)}")


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Best validation first; then what was only evaluated, by its first subset; then what has no numbers."""

    def key(row: Row) -> tuple[int, float, str]:
        if row.val is not None:
            return 0, row.val, row.name
        return (1, next(iter(row.nme.values())), row.name) if row.nme else (2, 0.0, row.name)

    return sorted(rows, key=key)


class SweepTable(Callback):
    """Writes the table of a sweep into its folder after each job, so that it is there however the sweep ends."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """An interrupted sweep ends without a word to its callbacks: its table is written when the process does."""
        atexit.register(self._write, Path(config.hydra.sweep.dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """A job has ended, in this process or in a worker of a launcher."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self._write(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """All have ended."""
        self._write(Path(config.hydra.sweep.dir))

    def _write(self, folder: Path) -> None:
        if not folder.is_dir():  # nothing came of it
            return
        with _locked(folder / ".table.lock"):  # of two jobs that end at once, the second sees the first
            rows = [_row(run) for run in run_folders(folder)]
            if rows:
                write_table(folder, rows, f"Sweep {folder.name}")


def _row(run: Path) -> Row:
    """`read_run`, where one job's damaged file costs the others no table."""
    try:
        return read_run(run)
    except ValueError as error:
        return Row(name=run.name, status="failed", error=str(error))


def _measured(summary: Mapping[str, Any]) -> list[str]:
    """How a report that no run left was made, as the overrides of `facelm.evaluate`."""
    checkpoint = summary.get("checkpoint", {}).get("checkpoint", {})
    spec = checkpoint.get("spec", {})
    said = {"checkpoint": checkpoint.get("path"), "codec.name": spec.get("codec", {}).get("name")}
    said |= {name: spec.get(name) for name in ("flip", "annotation_shift")}
    return [f"{name}={value}" for name, value in said.items() if value is not None]


def _is_machinery(override: str) -> bool:
    return key_of(override).partition(".")[0] in MACHINERY


def _subsets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.nme))


def _run_cells(rows: Sequence[Row], shared: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    cells = []
    for row in rows:
        own = [override for override in row.overrides if len(rows) == 1 or override not in shared]
        minutes = "" if row.seconds is None else f"{row.seconds / 60:.1f}"
        numbers = [_number(row.val), *(_number(row.nme.get(name)) for name in names)]
        cells.append([row.name, _code(own), row.status, *numbers, minutes])
    return cells


def _seed_groups(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Finished runs that differ in nothing but their seed, where there are two or more."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.status == "finished" and any(override.startswith("seed=") for override in row.overrides):
            groups.setdefault(tuple(o for o in row.overrides if not o.startswith("seed=")), []).append(row)
    return {overrides: group for overrides, group in groups.items() if len(group) > 1}


def _code(overrides: Sequence[str]) -> str:
    return " ".join(f"`{override}`".replace("|", "\\|") for override in overrides)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _mean_and_sd(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        take_lock(file)
        yield
