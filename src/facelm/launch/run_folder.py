"""The run folder: one process trains in it, and what is in it is of one run.

A run takes its folder with a lock that ends with the process, however it ends. A folder that holds a run is used for
nothing but to go on with that run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facelm.addresses import without_keys
from facelm.files import take_lock
from facelm.launch import ddp
from facelm.launch.jobs import RECORD, Job, by_key, is_killed, read_record
from facelm.launch.recorded import WHERE

log = logging.getLogger(__name__)

LOCK = ".lock"

LEAVING, REQUEUED = 15.0, 180.0
"""Seconds for which a run that was killed may still hold its folder: its workers look for their parent now and then;
and of a SLURM job that runs again, since the disk may hold the lock of a node that was lost."""

_TRACES = (RECORD, "checkpoints/last.ckpt", "checkpoints/best.ckpt", "report/summary.json", "metrics.csv")
"""What a run leaves in its folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder is this process's inside the `with`, on every machine that shares the disk.

    Raises:
        ValueError: another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if ddp.STARTED_BY in os.environ:  # whoever started this rank holds it
        yield
        return
    with (folder / LOCK).open("a", encoding="utf-8") as file:
        started = time.monotonic()
        try:
            while not take_lock(file, wait=False):
                record = read_record(folder)
                if time.monotonic() - started > _patience(record):
                    raise ValueError(
                        f"'{folder}' is in use: process {record.get('process', '?')} on {record.get('host', '?')} "
                        "trains there. Wait for its end, or give this run another folder: hydra.run.dir=PATH"
                    )
                time.sleep(0.2)
        except OSError as error:
            log.warning(f"'{folder}' cannot be locked ({error.strerror}): start one training in it at a time")
        yield


def _patience(record: Mapping[str, Any]) -> float:
    """Seconds to wait for the lock of the run that a folder's `record` tells of."""
    if is_killed(record):
        return LEAVING
    again = record.get("slurm_job") is not None and record.get("slurm_job") == os.environ.get("SLURM_JOB_ID")
    return REQUEUED if again else 0.0


def is_used(folder: Path) -> bool:
    """Whether a run has left something in it."""
    return any((folder / name).exists() for name in _TRACES)


def to_go_on_with(folder: Path, overrides: Sequence[str]) -> Path | None:
    """What `resume=auto` goes on with: `folder`, where the same command has left an unfinished run; None if it is new.

    Raises:
        ValueError: the folder holds another run, or one that is finished.
    """
    record = read_record(folder)
    if not is_used(folder) or (record and _same(record, overrides) and _without_state(folder, record)):
        return None
    if not record:
        raise ValueError(f"'{folder}' {_is_taken}: what is in it has no {RECORD} that says which run it is. {_cure}")
    if not _same(record, overrides):
        raise ValueError(f"'{folder}' {_is_taken}, started with {_difference(record, overrides)}. {_cure}")
    if record.get("status") == "finished":
        raise ValueError(f"'{folder}' {_is_taken}, which is finished. {_cure}")
    log.info(f"the run in '{folder}' is {'killed' if is_killed(record) else record.get('status')}: going on with it")
    return folder


def require_own(run_dir: str | Path, folder: Path) -> None:
    """Refuses a `run_dir` that is not the `folder` a command has taken: nothing keeps two runs apart in it.

    Raises:
        ValueError: it is another folder.
    """
    if Path(run_dir).expanduser().absolute() != folder.absolute():
        raise ValueError(
            f"run_dir={run_dir}: the run's folder is '{folder}', which was taken for it alone. Give it another with "
            f"hydra.run.dir={run_dir}"
        )


def require_unused(folder: Path) -> None:
    """Refuses to start a run where another has been.

    Raises:
        ValueError: one has.
    """
    if is_used(folder):
        raise ValueError(f"'{folder}' {_is_taken}. {_cure}")


_is_taken = "holds a run already"
_cure = "resume=RUN goes on with a run; a new one needs a new folder: leave out hydra.run.dir, or name another"


def score_of_the_same_job(job: Job, resume: str | None) -> float | None:
    """What a job of a sweep that is started again came to the first time; None where it is to be trained."""
    record = read_record(job.folder)
    known = record.get("val_nme") if record.get("status") == "finished" else None
    if job.sweep is None or resume != "auto" or known is None or not _same(record, job.overrides):
        return None
    log.info(f"'{job.folder}' holds the finished run of this job: {known:.2f}")
    return float(known)


def _same(record: Mapping[str, Any], overrides: Sequence[str]) -> bool:
    return not _difference(record, overrides)


def _difference(record: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What the recorded command had otherwise than `overrides`, in words; "" where nothing."""
    then, now = by_key(record.get("overrides", [])), by_key(without_keys(list(overrides)))
    local = by_key(record.get("local", []))  # nobody typed them: `now` lacks them
    keys = [key for key in {**then, **now} if key not in WHERE and then.get(key) != now.get(key)]
    keys = [key for key in keys if key in now or then[key] != local.get(key)]
    return ", ".join(f"{then.get(key, f'no {key}')} (now {now.get(key, f'no {key}')})" for key in keys[:4])


def _without_state(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the run ended before it had anything to go on with; the same command then begins again."""
    ended = record.get("status") != "finished"
    return ended and not (folder / "checkpoints" / "last.ckpt").exists()
