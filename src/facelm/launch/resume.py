"""Going on with a run: what `resume=` means, and the overrides of a run as a list that can be changed.

A run is its folder: the overrides that it was started with lie in result.json, its state in checkpoints/last.ckpt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from facelm.launch import ddp
from facelm.launch.jobs import RECORD, Job, by_key, key_of, read_record
from facelm.launch.paths import new_folder
from facelm.launch.quoted import as_value
from facelm.launch.recorded import recorded_cache, recorded_root, restored
from facelm.launch.run_folder import require_unused, to_go_on_with
from facelm.models.spec import read_facelm_checkpoint, read_facts

AUTO = "auto"
"""`resume=auto`: goes on where the same command left an unfinished run in a folder that was given, see `continued`."""


def resume_path(resume: str | None) -> str | None:
    """The checkpoint that `resume=` means: a file, or the last.ckpt of a run folder; None where it means none.

    Raises:
        FileNotFoundError: there is none.
    """
    if resume in (None, AUTO):
        return None
    path = Path(resume).expanduser()
    for candidate in (path, path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return str(candidate)
    raise FileNotFoundError(f"resume={resume}: neither a checkpoint nor a run folder with checkpoints/last.ckpt")


def resumed_run(resume: str | None) -> dict[str, str]:
    """What the checkpoint that `resume=` means says of the run that wrote it (see `Tracker.identity`)."""
    path = resume_path(resume)
    return dict(read_facts(read_facelm_checkpoint(path), path).run) if path else {}


def run_of(checkpoint: str) -> Path | None:
    """The run folder that a checkpoint lies in."""
    folder = Path(checkpoint).absolute().parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / RECORD).is_file() else None


def resumed_folder(resume: str | None) -> Path | None:
    """The folder of the run that `resume=` means.

    Raises:
        FileNotFoundError: there is nothing to go on with.
    """
    path = resume_path(resume)
    return run_of(path) if path else None


def run_dir_for(resume: str | None, new: str) -> str:
    """Where a run writes: the folder of the run that it resumes, else `new`. Hydra's resolver `facelm.run_dir`.

    `new`, or what `new_folder` makes of it, is not there yet.
    """
    try:
        resumed = resumed_folder(resume)
    except FileNotFoundError:  # said again, and better, when the job starts
        resumed = None
    return str(resumed or new_folder(new))


# With a cache, as `facelm.new_folder`.
OmegaConf.register_new_resolver("facelm.run_dir", run_dir_for, use_cache=True, replace=True)


def continued(cfg: DictConfig) -> DictConfig:
    """`cfg`, but with the overrides of the run that `resume=` continues; what is typed now wins over them.

    So `resume=RUN` alone goes on with the run as it was. Hydra's list of overrides becomes the whole one too.

    Raises:
        ValueError: a recorded override is no plain value, see `recorded.restored`; or the folder holds a run that this
            job does not continue.
    """
    job = Job.current()
    typed = list(job.overrides)
    if cfg.resume == AUTO and (found := unfinished(job)):
        then = restored(read_record(found).get("overrides", []), typed)  # local.yaml's of that time among them
        return _with_its_cache(checked_again(merged([*then, *typed], [f"resume={as_value(found)}"])), found)
    run = resumed_folder(cfg.resume)
    if cfg.resume != AUTO and not _follows() and (run is None or run.resolve() != job.folder.resolve()):
        require_unused(job.folder)
    recorded = read_record(run).get("overrides", []) if run else []
    recorded = [override for override in recorded if override != "first=null"]  # a key that older runs had
    everything = merged(restored(recorded, typed), typed)
    cfg = cfg if everything == typed else checked_again(everything)
    if run and "data.root" not in map(key_of, typed) and (root := recorded_root(run)):
        cfg.data.root = root
    return _with_its_cache(cfg, run) if run else cfg


def _with_its_cache(cfg: DictConfig, run: Path) -> DictConfig:
    """What `auto` came to when the run began is what it goes on with, on whatever machine."""
    if cfg.data.get("cache") == "auto" and (kind := recorded_cache(run)):
        cfg.data.cache = kind
    return cfg


def unfinished(job: Job) -> Path | None:
    """The run that `resume=auto` goes on with, if any; a rank that was started here is told by the one that did."""
    return None if ddp.STARTED_BY in os.environ else to_go_on_with(job.folder, job.overrides)


def _follows() -> bool:
    """Whether this process is a rank for which another looks after the folder."""
    return ddp.STARTED_BY in os.environ or ddp.global_rank() != 0


# --- Overrides -------------------------------------------------------------------------------------------------------


def merged(overrides: Iterable[str], later: Iterable[str]) -> list[str]:
    """Both lists of overrides as one; of two for one key, the later, at its later place."""
    return list(by_key([*overrides, *later]).values())


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config of this Hydra job with other overrides, which become the job's."""
    job: Any = HydraConfig.get()
    with read_write(job):
        job.overrides.task = list(overrides)
    return hydra.compose(str(job.job.config_name), overrides=[*overrides, *ddp.search_path()])


def checked_again(overrides: Sequence[str]) -> DictConfig:
    """As `composed`, for overrides of which some were not typed: `check_config` has not seen them.

    Raises:
        ValueError: as `check_config`.
    """
    from facelm.launch.config_check import check_config  # it builds parts, and whoever builds asks this module

    cfg = composed(overrides)
    check_config(cfg)
    return cfg


def refuse_first(typed: Iterable[str]) -> None:
    """Ends the command where `first` is typed, which was a training done before this one, in one command.

    Raises:
        SystemExit: it is; the message says what to type now.
    """
    for one in typed:
        if key_of(one).partition(".")[0] == "first":
            print(
                f"error: {one}: one command makes one training now. Run the first by itself "
                "(experiment=hrnetv2_w18_cpu_128, or your own), then this one with "
                "model.weights=RUN_OF_THE_FIRST/checkpoints/last.ckpt",
                file=sys.stderr,
            )
            sys.exit(1)
