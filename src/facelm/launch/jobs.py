"""The Hydra job that a process runs: what it came to, in its result.json, and the GPU that it has for itself."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from facelm import checked
from facelm.addresses import public, without_keys
from facelm.files import process_lives, take_lock, write_whole

RECORD = "result.json"
SWEEP = "FACELM_SWEEP"
"""The sweep's folder, for the ranks of a job, which Hydra does not know to be part of a sweep."""


class RankKilledError(ChildProcessError):
    """A signal ended a rank; what the others then say is only that somebody is gone."""


@dataclass(frozen=True)
class Job:
    """The Hydra job that this process runs: its overrides, its folder, and the folder of its sweep, if any."""

    overrides: tuple[str, ...] = ()
    folder: Path = Path()
    sweep: Path | None = None

    @classmethod
    def current(cls) -> Job:
        """The job as Hydra knows it; without overrides and folder outside Hydra."""
        if not HydraConfig.initialized():
            return cls()
        hydra = HydraConfig.get()
        sweep = hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else os.environ.get(SWEEP)
        folder = Path(hydra.runtime.output_dir)
        return cls(tuple(hydra.overrides.task), folder, Path(sweep).absolute() if sweep else None)


@contextmanager
def recorded(job: Job, **facts: Any) -> Iterator[dict[str, Any]]:
    """Writes `job`'s result.json when it starts and when it ends, however it ends; what is yielded goes into it.

    `facts` are plain values that are known at the start; `local` is by default the one of the run that is continued.

    A job that continues an earlier one in the same folder adds to its time.
    """
    earlier = read_record(job.folder)
    before = earlier.get("seconds") or 0.0
    record: dict[str, Any] = {
        "status": "running",
        "overrides": without_keys(list(job.overrides)),
        "local": earlier.get("local", []),
        "val_nme": None,
        "seconds": None,
        "error": None,
        **own_process(),
        **facts,
    }
    started = time.monotonic()
    write_whole(job.folder / RECORD, json.dumps(record, indent=1))
    with Path(os.devnull).open() as spare:  # else a job that ran out of file descriptors could not write its record
        try:
            yield record
            record["status"] = "finished"
        except BaseException as error:
            spare.close()
            gone = isinstance(error, SystemExit | KeyboardInterrupt)
            said = read_record(job.folder).get("error")  # by the rank that failed first, unless one could not say it
            if isinstance(error, RankKilledError):
                said = None
            said = public(said or f"{type(error).__name__}: {error}")
            record |= {"status": "stopped" if gone else "failed", "error": said}
            raise
        finally:
            spare.close()
            record["seconds"] = round(before + time.monotonic() - started, 1)
            write_whole(job.folder / RECORD, json.dumps(record, indent=1))


@contextmanager
def first_to_fail(job: Job, rank: int) -> Iterator[None]:
    """On another rank than 0: its error goes into result.json, unless one is there.

    Rank 0 fails too, a moment later, and knows only that somebody is gone.
    """
    try:
        yield
    except Exception as error:
        record = read_record(job.folder)
        if record and not record.get("error"):
            record["error"] = public(f"rank {rank}: {type(error).__name__}: {error}")
            write_whole(job.folder / RECORD, json.dumps(record, indent=1))
        raise


def key_of(override: str) -> str:
    """What an override is about."""
    return override.lstrip("+~").partition("=")[0]


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides by what they are about; of two for one key, the later, at its later place.

    Of `+key=1 key=2` it is `+key=2`: only the first added the key, which no config has.
    """
    lines: dict[str, str] = {}
    for override in overrides:
        before = lines.pop(key_of(override), "")
        adds = before[: len(before) - len(before.lstrip("+"))] if override[:1] not in "+~" else ""
        lines[key_of(override)] = adds + override
    return lines


def read_record(folder: Path) -> dict[str, Any]:
    """What `recorded` wrote into `folder`; empty where it wrote nothing."""
    try:
        content = checked.read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return checked_record(content, folder) if isinstance(content, dict) else {}


def checked_record(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The entries of a result.json, plain, those that facelm reads of their types.

    Raises:
        ValueError: one is not.
    """
    try:
        record = checked.mapping(checked.plain(dict(content), "it"), "it")
        for name in {"status", "error"} & record.keys():
            if record[name] is not None or name == "status":
                checked.text(record[name], name)
        for name in {"overrides", "local"} & record.keys():
            checked.strings(record[name], name, most=1000)
        for name in {"val_nme", "seconds"} & record.keys():
            value = record[name]
            if value is not None and value == value:  # a training that diverged leaves NaN
                checked.number(value, name, 0, 1e12)
    except ValueError as error:
        raise ValueError(f"'{folder / RECORD}' was not written by facelm, or was changed: {error}") from error
    return record


def own_process() -> dict[str, Any]:
    """Host, number and start of this process, by which others of the machine can tell whether it still runs.

    And its SLURM job, if any: where that runs again, its earlier process is gone.
    """
    job = {"slurm_job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
    return {"host": socket.gethostname(), "process": os.getpid(), "process_start": _start_of(os.getpid()), **job}


def is_killed(record: Mapping[str, Any]) -> bool:
    """Whether a record says "running" of a process of this machine that is gone; of another machine nobody can say."""
    pid = record.get("process")
    if record.get("status") != "running" or record.get("host") != socket.gethostname():
        return False
    if not isinstance(pid, int) or not 0 < pid < 2**31:  # whatever the file says
        return False
    return not process_lives(pid) or _start_of(pid) != record.get("process_start")


def _start_of(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: numbers are given again. None where the system does not say."""
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, ValueError, IndexError):
        return None


# --- One GPU for each of several workers ----------------------------------------------------------------------------

_held: list[IO[str]] = []


def take_a_gpu(folder: Path) -> None:
    """Gives this worker of a sweep a GPU of its own, for all its jobs, where there are several.

    Raises:
        ValueError: more jobs run side by side than there are GPUs.
    """
    import torch  # here: a table of results needs no torch

    gpus = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    if len(gpus) > 1:
        gpu = claim_gpu(folder, gpus)
        if gpu is None:
            raise ValueError(
                f"{len(gpus)} GPUs and more jobs than that side by side: set hydra.launcher.n_jobs to {len(gpus)}"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def claim_gpu(folder: Path, gpus: Sequence[str]) -> str | None:
    """One of `gpus` that no other worker of the sweep in `folder` has; it is this process's until it ends.

    None if all are taken: more jobs run side by side than there are GPUs.
    """
    for gpu in gpus:
        file = (folder / f".gpu_{gpu}.lock").open("a", encoding="utf-8")
        if take_lock(file, wait=False):
            _held.append(file)
            return gpu
        file.close()
    return None
