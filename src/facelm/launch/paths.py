"""Where the configs are (in the checkout if there is one, else inside the installed package), and new run folders."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from facelm.launch import ddp


def conf_dir() -> Path:
    """The folder of Hydra configs.

    Raises:
        FileNotFoundError: neither the checkout nor the package holds it.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf"
    if (package / "conf" / "train.yaml").is_file():
        return package / "conf"
    raise FileNotFoundError(f"no configs in {checkout / 'conf'} or {package / 'conf'}: the installation is incomplete")


CONF_DIR = conf_dir()


def new_folder(path: str) -> str:
    """`path`, or `path-2`, `path-3`, ...: the first that is not there, made. Hydra's resolver `facelm.new_folder`.

    Folders are named by the second in which a run starts, and two may start in one.
    """
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
