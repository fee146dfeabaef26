"""The record of a run: opened in the tracker that `logger=` names, closed with the right exit code whatever happens."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from facelm import __version__
from facelm.addresses import shareable
from facelm.data.datamodule import FaceDataModule
from facelm.data.faces import data_fingerprint
from facelm.files import write_whole
from facelm.launch.build import build, plain
from facelm.launch.jobs import Job
from facelm.launch.paths import CONF_DIR
from facelm.launch.same_faces import FACTS
from facelm.loggers import RunPlan, Tracker, as_one, is_main_process
from facelm.models import count_macs


@contextmanager
def tracked(
    cfg: DictConfig, run_dir: Path, *, job_type: str, resumed: Mapping[str, str] | None = None
) -> Iterator[Tracker]:
    """The tracker of this run, open inside the `with`; each job of a sweep has its own.

    Ranks other than the first get a plain `Tracker`, which opens nothing. `resumed` is what a checkpoint says of the
    run that this one continues.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    tracker = build_tracker(cfg) if is_main_process() else Tracker()
    tracker.start(run_plan(cfg, run_dir, job_type, resumed or {}))
    exit_code = 0
    try:
        yield tracker
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        exit_code = code if isinstance(code, int) else int(code is not None)
        raise
    finally:
        tracker.finish(exit_code)


def build_tracker(cfg: DictConfig) -> Tracker:
    """The tracker that `logger=` names: each entry of the group has a node of its own.

    Raises:
        ValueError: an entry that describes no logger.
    """
    nodes = {str(name): node for name, node in (cfg.logger or {}).items()}
    return as_one({name: build(node) if isinstance(node, DictConfig) else node for name, node in nodes.items()})


def run_plan(cfg: DictConfig, run_dir: Path, job_type: str, resumed: Mapping[str, str]) -> RunPlan:
    """What the tracker is told before the run starts; overrides and sweep are those of the Hydra job, if it is one."""
    job = Job.current()
    return RunPlan(
        folder=run_dir,
        experiment=cfg.name,
        job_type=job_type,
        overrides=shareable(job.overrides),
        tags=tuple(str(tag) for tag in cfg.get("tags") or ()),
        sweep=f"{cfg.name} {job.sweep.name}" if job.sweep else None,
        config=shareable(plain(cfg)),
        resumed=resumed,
    )


def run_facts(cfg: DictConfig, data: FaceDataModule, net: nn.Module) -> dict[str, Any]:
    """Plain facts that the config does not hold: overrides, commit, versions, data fingerprints, size of the network.

    `gmacs` is what papers on landmarks call GFLOPs; `gflops` counts a multiply-add as two operations.
    """
    macs = count_macs(net, cfg.crop.size)
    return {
        "overrides": shareable(list(Job.current().overrides)),
        "commit": git_commit(),
        "versions": {"facelm": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "data": {
            "train": {"faces": len(data.train_faces), "fingerprint": data_fingerprint(data.train_faces)},
            data.val_name: {"faces": len(data.val_faces), "fingerprint": data_fingerprint(data.val_faces)},
        },
        "cache": data.cache,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "gmacs": macs / 1e9,
        "gflops": 2 * macs / 1e9,
    }


def write_facts(facts: Mapping[str, Any], run_dir: Path) -> None:
    """Writes facts.json (FACTS), which every run folder holds, whatever the tracker."""
    if is_main_process():
        write_whole(run_dir / FACTS, json.dumps(facts, indent=2) + "\n")


def git_commit() -> str | None:
    """The commit of the checkout that facelm runs from, ending in `+` if files were changed since; None without one."""
    checkout = CONF_DIR.parent
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return commit + ("+" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", checkout, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
