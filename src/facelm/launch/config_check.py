"""What can be wrong with a config before anything is built: keys that nothing reads, and values of another kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from facelm import checked
from facelm.launch.build import build_optimizer, build_schedule, chosen_callbacks
from facelm.launch.ddp import search_path
from facelm.launch.jobs import key_of
from facelm.launch.key_names import OWNED, did_you_mean, keys_of

FREE = ("callbacks", "logger", "codec", "hydra")
"""Where keys of any name may be added: what is built from them says what it does not know."""

FRACTIONS_TOO = re.compile(r"trainer\.(devices|max_epochs|max_steps|limit_\w+|overfit_batches|val_check_interval)")
"""Whole numbers that have other forms, or a check of their own."""


WHOLE = {
    "trainer.check_val_every_n_epoch": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.num_nodes": 1,
    "checkpoint.every_n_steps": 1,
    "data.batch_size": 1,
    "data.num_workers": 0,
}
"""Whole numbers, and the least that each may be: what divides by them, or counts to them, would not say it."""

SHARES = {"ema.decay": 1.0, "trainer.gradient_clip_val": 1e9}
"""Numbers from 0 to this, whose default is null and so does not say that they are numbers."""


def check_config(cfg: Any) -> None:
    """Refuses keys that nothing would read and values of another kind than the config's own.

    Raises:
        ValueError: the first of them, with what to type instead.
    """
    if "trainer" in cfg:
        check_owned(cfg)
        check_length(cfg.trainer)
    check_numbers(cfg)
    if "seed" in cfg:  # a training's
        check_seed(cfg.seed)
    check_tags(cfg.get("tags"))
    if HydraConfig.initialized() and GlobalHydra.instance().is_initialized():
        hydra_job: Any = HydraConfig.get()
        typed = list(hydra_job.overrides.task)
        values = [one for one in typed if is_value(cfg, key_of(one))]
        if values:
            rest = [one for one in typed if one not in values]
            check_typed(cfg, hydra.compose(str(hydra_job.job.config_name), [*rest, *search_path()]), values)
    if "trainer" in cfg:  # before minutes of reading data
        build_optimizer(cfg.optim.optimizer)
        build_schedule(cfg.optim.schedule)
        chosen_callbacks(cfg)


def check_owned(cfg: DictConfig) -> None:
    """Refuses keys that the code sets itself."""
    for key, instead in OWNED.items():
        node, _, name = key.partition(".")
        if name in cfg[node]:
            raise ValueError(f"{key} is set by facelm, so a value given there would do nothing. Use {instead}")


def check_length(trainer: Any) -> None:
    """Refuses a training without an end: the schedule needs to know it."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    whole = isinstance(epochs, int) and not isinstance(epochs, bool)
    if whole and epochs >= 1:
        return
    if epochs in (None, -1) and isinstance(steps, int) and steps >= 1:
        return
    raise ValueError(
        f"trainer.max_epochs={'null' if epochs is None else epochs}: a number of epochs, 1 or more; or -1 together "
        "with +trainer.max_steps=N. The learning rate's schedule needs to know the end"
    )


def check_numbers(cfg: Any) -> None:
    """Refuses what is no number, or too small, where the objects that are built would not; null stands for none."""
    for key, least in WHOLE.items():
        if (value := OmegaConf.select(cfg, key)) is not None:
            checked.integer(value, key, least, 2**31)
    for key, most in SHARES.items():
        if (value := OmegaConf.select(cfg, key)) is not None:
            checked.number(value, key, 0, most)


def check_seed(seed: Any) -> None:
    """Refuses a seed that is no whole number of 32 bits."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(
            f"seed={'null' if seed is None else seed}: a whole number from 0 to {2**32 - 1}; every run has one, so "
            "that it can be repeated. sweep=seeds tries several"
        )


def check_tags(tags: Any) -> None:
    """Refuses tags that are no list of words."""
    if tags is None or (isinstance(tags, ListConfig) and all(isinstance(tag, str | int | float) for tag in tags)):
        return
    raise ValueError(f"tags={tags}: a list of words, as in tags=[baseline,cluster]")


def is_value(cfg: Any, key: str) -> bool:
    """Whether an override of `key` sets a value, and does not choose a file of conf/ or a part of the config."""
    if "/" in key or "@" in key:
        return False
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return _has(node, name) and not isinstance(node._get_node(name), DictConfig)


def check_typed(cfg: Any, base: Any, typed: Sequence[str]) -> None:
    """Compares the values that were typed with `base`, the same config without them.

    Raises:
        ValueError: a key that is new and that nothing reads, or a value of another kind.
    """
    for override in typed:
        key = key_of(override)
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(base, parent) if parent else base
        if _has(node, name):
            check_kind(key, _raw(node, name), _raw(OmegaConf.select(cfg, parent) if parent else cfg, name))
        elif not _is_read(cfg, base, key):
            raise ValueError(f"{key} is a key that nothing reads{did_you_mean(key, keys_of(base))}")


def check_kind(key: str, was: Any, value: Any) -> None:
    """Refuses text for a number, a fraction for a whole number, and anything but true and false for a switch."""
    if value is None or FRACTIONS_TOO.fullmatch(key):
        return
    if isinstance(was, bool):
        kind, fits = "true or false", isinstance(value, bool)
    elif isinstance(was, int):
        kind, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(was, float):
        kind, fits = "a number", isinstance(value, int | float) and not isinstance(value, bool)
    else:
        return
    if not fits and not (isinstance(value, str) and value.startswith("${")):
        raise ValueError(f"{key}={value}: that is {kind}, {str(was).lower()} unless given")


def _has(node: Any, name: str) -> bool:
    """Whether a config has a key, also one whose value is still missing, which `in` denies."""
    return isinstance(node, DictConfig) and name in list(node)


def _raw(node: Any, name: str) -> Any:
    """A value as it is written: an interpolation stays text."""
    found = node._get_node(name)
    return found._value() if found is not None and not isinstance(found, DictConfig) else None


def _is_read(cfg: Any, base: Any, key: str) -> bool:
    """Whether something reads a key that conf/ does not have: what is built from its node, or another key."""
    parts = key.split(".")
    if parts[0] in FREE:
        return True
    for length in range(1, len(parts)):
        node = OmegaConf.select(base, ".".join(parts[:length]))
        if isinstance(node, DictConfig) and "_target_" in node:
            return True
    return f"${{{key}" in str(OmegaConf.to_container(cfg, resolve=False))
