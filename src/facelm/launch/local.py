"""local.yaml: what is so on this machine (`data.root`, `trainer`, a W&B entity), for every training and evaluation.

It lies in the user's own folder, never in the working folder: whoever starts a command in a folder of somebody else's
gets no values from there. A value in it counts over the experiment's and under what is typed. It becomes an override of
the job like a typed one, so ranks get it, result.json holds it, and a run that is resumed needs the file no more.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from facelm import checked
from facelm.addresses import without_keys
from facelm.launch import ddp
from facelm.launch.config_check import check_config
from facelm.launch.jobs import Job, key_of
from facelm.launch.key_names import did_you_mean, keys_of
from facelm.launch.paths import CONF_DIR
from facelm.launch.quoted import as_value
from facelm.launch.resume import composed, merged, resumed_folder

log = logging.getLogger(__name__)

CONFIG = "FACELM_CONFIG"
"""The environment variable that names the file, or its folder; empty: none is read."""

NAME = "local.yaml"

TYPED = (
    *("hydra", "name", "run_dir", "report_dir", "resume", "checkpoint"),
    *("experiment", "sweep", "launcher", "ablation", "debug"),
    *("landmarks", "codec", "flip", "annotation_shift", "pixel_origin"),
)
"""Keys that say which run this is, where it goes or how it is measured: no machine has a say in that."""

CLOSER = ("trainer", "debug", "ablation", "sweep")
"""Groups of which a file that is typed counts over local.yaml: it is said of this run."""

WORDS = ("true", "false", "null", "nan", "inf")
"""What Hydra takes for something else than text."""

FILES_OF_FACES = ("data.root", "data.annotations", "data.annotations_at", "data.train_list", "data.val_list")
"""Not for drawn faces, which have a folder of their own, nor for a pack."""


def local_file() -> Path | None:
    """`$FACELM_CONFIG`, a file or a folder with a local.yaml, or ~/.config/facelm/local.yaml; None where there is none.

    Raises:
        FileNotFoundError: the variable names something else.
    """
    given = os.environ.get(CONFIG)
    if given is None:
        home = Path(os.path.expanduser("~"))  # stays ~ where there is no home
        file = home / ".config" / "facelm" / NAME
        return file if home.is_absolute() and file.is_file() else None
    if not given:
        return None
    path = Path(given).expanduser()
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{CONFIG}={given}: neither a file nor a folder with a {NAME}. Correct it, or set it to nothing to use none"
        )
    return file.absolute()


def with_local(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """The config of this Hydra job with local.yaml's values, and these as overrides; a run that goes on has its own.

    Raises:
        ValueError: the file cannot be read, or sets what nothing reads, or what is typed; its name is said.
        FileNotFoundError: `$FACELM_CONFIG` names no file.
    """
    file = local_file()
    if file is None or resumed_folder(cfg.get("resume")):
        return cfg, []
    typed = Job.current().overrides
    values = read_local(file)
    here = {*keys_of(cfg), *HydraConfig.get().runtime.choices}
    unknown = [key for key in values if key not in here]
    known = _keys_of_every_config() if unknown else []
    if wrong := [key for key in unknown if key not in known]:
        raise ValueError(f"'{file}': {wrong[0]} is a key that nothing reads{did_you_mean(wrong[0], known)}")
    closer = _said_closer(typed)
    local = [f"{key}={_as_typed(value)}" for key, value in values.items() if key in here and key not in closer]
    log.info(f"local config '{file}': {' '.join(without_keys(local)) or 'nothing for this job'}")
    try:
        cfg = composed(merged(local, typed))
        check_config(cfg)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"'{file}': {str(error).strip()}") from error
    return cfg, without_keys(local)


def read_local(file: Path) -> dict[str, Any]:
    """The values of a local.yaml by their dotted keys: plain ones and lists of them, interpolations resolved.

    Raises:
        ValueError: it is no YAML of such values.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        if not isinstance(content, Mapping):
            raise ValueError("keys and their values are expected, as in conf/train.yaml")
        values = dict(_leaves(checked.plain(dict(content), "it")))
    except (yaml.YAMLError, OmegaConfBaseException, *checked.OF_YAML) as error:
        raise ValueError(f"'{file}': {' '.join(str(error).split())}") from error
    for key in values:
        if (top := key.partition(".")[0]) in TYPED:
            raise ValueError(
                f"'{file}': {top} is not read from there, since it says what a run is. Type it, or write an experiment"
            )
    return values


def _leaves(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if not re.fullmatch(r"[A-Za-z][\w.]*", str(name)):
            raise ValueError(f"{prefix}{name}: plain keys and values are read from there, and no class")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _as_typed(value: Any) -> str:
    """A plain value as Hydra reads it from the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_typed, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z/][\w./-]*", value) and value.lower() not in WORDS
        return value if plain else as_value(value)
    return "null" if value is None else str(value).lower()


def _said_closer(typed: Sequence[str]) -> set[str]:
    """The keys for which the command line speaks: its own, and those of the files it chooses from some groups."""
    keys = set(map(key_of, typed))
    for group, _, names in (one.partition("=") for one in typed):
        if group in CLOSER:
            for name in names.strip("'\"[]").split(","):
                keys |= _keys_of_file(CONF_DIR / group / f"{name}.yaml")
    if HydraConfig.get().runtime.choices.get("data") in ("drawn", "packed"):
        keys |= set(FILES_OF_FACES)
    return keys


def _keys_of_file(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    own = "@package _global_" in file.read_text(encoding="utf-8")
    return set(keys_of(OmegaConf.load(file), "" if own else f"{file.parent.name}."))


def _keys_of_every_config() -> list[str]:
    """The keys of training, of evaluation, and of every file that either may choose."""
    found = [key for name in ("train", "evaluate") for key in keys_of(hydra.compose(name, ddp.search_path()))]
    found += [path.name for path in CONF_DIR.iterdir() if path.is_dir()]
    found += [key for file in CONF_DIR.glob("*/*.yaml") for key in _keys_of_file(file)]
    return list(dict.fromkeys(found))
