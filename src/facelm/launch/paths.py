"""Where the configs are, and where a new run goes."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from facelm.configs import CONF_DIR as CONF_DIR


def new_folder(path: str) -> str:
    """`path`, or `path-2`, `path-3`, ...: the first that is not there, made. Hydra's resolver `facelm.new_folder`.

    Folders are named by the second in which a run starts, and two may start in one.
    """
    from facelm.launch import ddp  # with torch, for which nobody who asks for a completion should wait

    if ddp.global_rank():
        return path  # rank 0's counts
    number = 1
    while True:
        candidate = Path(path if number == 1 else f"{path}-{number}")
        try:
            candidate.parent.mkdir(parents=True, exist_ok=True)
            candidate.mkdir()
        except FileExistsError:
            number += 1
            continue
        except OSError:
            return path  # said when the run starts, with the folder's name
        return str(candidate)


# With a cache: what is asked twice in a job, or by the jobs of one sweep, is one folder.
OmegaConf.register_new_resolver("facelm.new_folder", new_folder, use_cache=True, replace=True)
