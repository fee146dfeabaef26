"""The Hydra job that a process runs: what it came to, in its result.json, and the GPU that it has for itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from facelm.files import take_lock

RECORD = "result.json"
SWEEP = "FACELM_SWEEP"
"""The sweep's folder, for the ranks of a job, which Hydra does not know to be part of a sweep."""


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
def recorded(job: Job) -> Iterator[dict[str, Any]]:
    """Writes `job`'s result.json when it starts and when it ends, however it ends; what is yielded goes into it.

    A job that continues an earlier one in the same folder adds to its time.
    """
    before = read_record(job.folder).get("seconds") or 0.0
    record: dict[str, Any] = {
        "status": "running",
        "overrides": list(job.overrides),
        "val_nme": None,
        "seconds": None,
        "error": None,
    }
    started = time.monotonic()
    write_whole_text(job.folder / RECORD, json.dumps(record, indent=1))
    try:
        yield record
        record["status"] = "finished"
    except BaseException as error:
        gone = isinstance(error, SystemExit | KeyboardInterrupt)
        said = read_record(job.folder).get("error")  # by the rank that failed first
        record |= {"status": "stopped" if gone else "failed", "error": said or f"{type(error).__name__}: {error}"}
        raise
    finally:
        record["seconds"] = round(before + time.monotonic() - started, 1)
        write_whole_text(job.folder / RECORD, json.dumps(record, indent=1))


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
            record["error"] = f"rank {rank}: {type(error).__name__}: {error}"
            write_whole_text(job.folder / RECORD, json.dumps(record, indent=1))
        raise


def key_of(override: str) -> str:
    """What an override is about."""
    return override.lstrip("+~").partition("=")[0]


def read_record(folder: Path) -> dict[str, Any]:
    """What `recorded` wrote into `folder`; empty where it wrote nothing."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_whole_text(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
