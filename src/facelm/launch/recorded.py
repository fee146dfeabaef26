"""What a record may say: overrides and configs that a file keeps, as plain values under plain names and nothing else.

A run folder and a checkpoint may come from anybody. What they recorded is restored where it is a string, a number or a
list or mapping of them. What names a class (`_target_`), a config outside `conf/`, a launcher, or something to be
interpolated (`${...}`) is typed again by whoever trusts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from facelm import checked
from facelm.addresses import CUT, shareable
from facelm.configs import CONF_DIR
from facelm.launch.jobs import key_of, read_record
from facelm.launch.same_faces import FACTS
from facelm.models.spec import read_facts
from facelm.models.weights import WeightsFile

Check = Callable[[object, str], Any]

WHERE = ("resume", "run_dir")
"""Overrides that say where a run is, not what it is: never restored, since a run goes on in the folder it lies in."""

_KEY = re.compile(r"[A-Za-z]\w*(\.[A-Za-z0-9]\w*)*")


def _path(value: object, name: str) -> str | None:
    return None if value is None else checked.text(value, name, longest=4096)


def _paths(value: object, name: str) -> str | list[str] | None:
    return [checked.text(one, name, longest=4096) for one in value] if isinstance(value, list) else _path(value, name)


DATA: Mapping[str, Check] = {
    "root": lambda value, name: checked.text(value, name, longest=4096),
    "file": _path,
    "annotations": lambda value, name: checked.one_of(value, name, ("auto", "pts", "txt", "json", "csv", "mat")),
    "annotations_at": _path,
    "train": _paths,
    "val": _paths,
    "test": _paths,
    "first_pixel": lambda value, name: None if value is None else checked.integer(value, name, 0, 1),
    "exif": lambda value, name: checked.one_of(value, name, ("auto", "apply", "ignore")),
    "train_list": _path,
    "val_list": _path,
    "on_error": lambda value, name: checked.one_of(value, name, ("raise", "skip")),
    "hold_out": lambda value, name: checked.number(value, name, 0, 1),
    "seed": lambda value, name: checked.integer(value, name, -(2**63), 2**64),
    "eval_batch_size": lambda value, name: checked.integer(value, name, 1, 2**16),
    "num_workers": lambda value, name: checked.integer(value, name, 0, 256),
}
"""Of a recorded `data`, the keys that say which faces were measured and how they were read; no other is looked at."""


def recorded_data(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of DATA in the config that a checkpoint keeps, checked.

    Raises:
        ValueError: one is of another type, out of range, or would be interpolated.
    """
    data = checked.mapping(record.get("data") or {}, "the recorded data")
    found = {key: check(data[key], f"the recorded data.{key}") for key, check in DATA.items() if key in data}
    for key, value in found.items():
        if _interpolates(value):
            raise ValueError(
                f"the recorded data.{key}={checked.shown(value)} would be interpolated: of a record only plain values "
                f"are used. If you trust it, type data.{key}= yourself"
            )
    return found


def recorded_root(run: Path) -> str | None:
    """The absolute `data.root` of a run: the one that was typed may be relative, and then depends on the place.

    None where the run's folder does not say it, or the data are not there any more.

    Raises:
        ValueError: what the folder says is no path, or would be interpolated.
    """
    said = read_record(run).get("data_root")
    root = None if said is None else str(recorded_data({"data": {"root": said}})["root"])
    return root if root is not None and Path(root).exists() else None


def recorded_cache(run: Path) -> str | None:
    """What `data.cache=auto` came to in a run, as its facts.json says it; None where it does not."""
    try:
        return checked.one_of(checked.read_json(run / FACTS)["cache"], "the recorded cache", ("none", "raw", "jpeg"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def recorded_group(record: Mapping[str, Any]) -> str | None:
    """The file of `conf/data` for the kind of data that a checkpoint's run had; None where it is none of them.

    What a record says is looked up among facelm's own files, and is not itself imported.
    """
    data = record.get("data")
    return _group(data.get("_target_") if isinstance(data, Mapping) else None)


def trained_group(file: WeightsFile) -> str | None:
    """As `recorded_group`, of the run that wrote weights; None where they are no run's checkpoint."""
    return recorded_group(read_facts(file.checkpoint, file.path).config) if "facelm" in file.checkpoint else None


def group_of(module: type) -> str | None:
    """The file of `conf/data` that builds data modules of this class; None where there is none."""
    return _group(f"{module.__module__}.{module.__qualname__}")


def _group(said: object) -> str | None:
    for path in sorted((CONF_DIR / "data").glob("*.yaml")):
        if isinstance(said, str) and f"_target_: {said}" in path.read_text(encoding="utf-8").splitlines():
            return path.stem
    return None


def with_places(recorded: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """`recorded_data` with whole paths: a checkpoint keeps of an absolute one its last part alone, the run folder all.

    `run` is the folder that the checkpoint lies in, whether or not it is a run's.

    Raises:
        ValueError: a path was cut, and the folder does not say it.
    """
    cut = [key for key, value in recorded.items() if any(str(one).startswith(CUT) for one in _leaves(value))]
    if not cut:
        return dict(recorded)
    said: dict[str, Any] = {}
    if (config := run / "config.yaml").is_file():
        try:
            said = recorded_data(checked.mapping(checked.from_yaml(config.read_text(encoding="utf-8"), "it"), "it"))
        except ValueError as error:
            raise ValueError(f"'{config}' was not written by facelm, or was changed: {error}") from error
    lost = [key for key in cut if shareable(said.get(key)) != recorded[key]]
    if lost:
        raise ValueError(
            f"the checkpoint keeps of data.{lost[0]} the last part alone ({recorded[lost[0]]}), and no run folder is "
            f"around it that says more: type {' '.join(f'data.{key}=PATH' for key in lost)}"
        )
    return {**recorded, **{key: said[key] for key in cut}}


def restored(recorded: Iterable[str], typed: Sequence[str]) -> list[str]:
    """The overrides of a run that is continued, without those that `typed` says anew.

    Raises:
        ValueError: one names code, another config folder, a place to write to, or something to interpolate; it is to be
            typed again.
    """
    said = {*map(key_of, typed), *WHERE}
    kept = [_todays(override) for override in recorded if key_of(override) not in said]
    refused = [f"'{override}' ({reason})" for override in kept if (reason := _not_plain(override))]
    if refused:
        raise ValueError(
            f"the run was started with {', '.join(refused[:4])[:600]}. Of a recorded run plain values alone are "
            "restored; type it again beside resume= if it is yours"
        )
    return kept


def _todays(override: str) -> str:
    """A recorded override with the name that what it chooses has now."""
    key, sign, value = override.partition("=")
    chooses = key_of(override) in ("codec", "augment", "optim", "experiment", "ablation", "model.init")
    return f"{key}{sign}{checked.renamed(value)}" if chooses else override


def _not_plain(override: str) -> str | None:
    """Why a recorded override is not restored; None for a plain value under a plain name."""
    if re.search(r"\$\\*\{", override):
        return "an interpolation"
    key = key_of(override)
    top = key.partition(".")[0]
    if not _KEY.fullmatch(key) or top == "hydra":
        return "its key is none of a plain value"
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        return "it cannot be read"
    if parsed.is_sweep_override():
        return "a sweep"
    try:
        value = checked.plain(parsed.value(), key)
    except ValueError as error:
        return str(error)
    if _interpolates(value):
        return "an interpolation"
    if _names_code(value):
        return "it names code"
    if key == top and any(_leads_away(one) for one in _leaves(value)):
        return "a folder outside the run's" if key == "report_dir" else "a config outside conf/"
    return None


def _leaves(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _interpolates(value: object) -> bool:
    return any(isinstance(one, str) and re.search(r"\$\\*\{", one) for one in _leaves(value))


def _names_code(value: object) -> bool:
    """Whether a key in it is one of Hydra's own (`_target_`, `_args_`, ...), or reaches into another (`a.b`)."""
    if isinstance(value, Mapping):
        return any(not re.fullmatch(r"[A-Za-z0-9][\w -]*", key) or _names_code(one) for key, one in value.items())
    return isinstance(value, list) and any(map(_names_code, value))


def _leads_away(value: object) -> bool:
    """Whether a string, taken for the name of a config, leads out of its group."""
    return isinstance(value, str) and (".." in PurePath(value).parts or value.startswith(("/", "\\", "~")))
