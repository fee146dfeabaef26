"""Names of keys: those that the code sets itself, those of other projects, and what a wrong one was meant to be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from facelm.checked import now_called
from facelm.launch.jobs import key_of
from facelm.launch.paths import CONF_DIR

OWNED = {
    "trainer.callbacks": "callbacks=[early_stopping] (a group, conf/callbacks), or +callbacks.NAME._target_=CLASS",
    "trainer.logger": "logger=[csv,tensorboard,wandb], or +logger.NAME._target_=CLASS",
    "trainer.default_root_dir": "hydra.run.dir=FOLDER",
    "trainer.num_sanity_val_steps": "debug=fast (a run of one batch that also validates)",
    "trainer.plugins": "trainer.precision, trainer.sync_batchnorm or trainer.strategy",
    "trainer.use_distributed_sampler": "nothing: the data module gives each device its part",
    "trainer.enable_checkpointing": "checkpoint.every_n_steps=N; a run's result is its checkpoint",
    "trainer.fast_dev_run": "debug=fast",
    "trainer.limit_test_batches": "data.val_list=FILE of facelm evaluate: a report measures every face",
    "trainer.limit_predict_batches": "data.val_list=FILE of facelm evaluate: a report measures every face",
    "trainer.barebones": "trainer.enable_progress_bar=false logger=csv",
    "model.num_landmarks": "landmarks=SCHEME",
    "data.crop_size": "crop.size",
    "data.crop_scale": "crop.scale",
    "data.landmarks": "landmarks",
    "data.augmentation": "augment",
    "data.seed": "seed",
}
"""Keys that the code sets itself, and what to use instead."""

ELSEWHERE = {
    "ckpt_path": "resume=RUN goes on with a training, and facelm evaluate checkpoint=RUN measures one",
    "hparams_search": "sweep=NAME, with -m",
    "paths": "data.root=FOLDER for the data, and hydra.run.dir=FOLDER for the run",
    "extras": "tags=[...]; the config is always written to config.yaml in the run folder",
    "train": "nothing to set: facelm train trains, and facelm evaluate checkpoint=RUN measures alone",
    "test": "nothing to set: a training ends with the report of its best checkpoint",
    "task_name": "name=NAME",
    "optimized_metric": "nothing to set: sweeps minimise the best val/nme",
    "datamodule": "data=NAME",
    "model.net": "model=NAME",
    "model.optimizer": "optim.optimizer",
    "model.scheduler": "optim.schedule",
    "model.compile": "compile=true",
    "data.data_dir": "data.root=FOLDER",
    "data.pin_memory": "nothing to set: memory is pinned where there is a GPU",
}
"""Keys of lightning-hydra-template that are called otherwise here, and what to type."""

OF_THE_CHECKPOINT = ("crop", "landmarks", "augment", "inference")
"""Keys of a training that an evaluation takes from the checkpoint."""

THE_CHECKPOINT_S = (
    "that is the checkpoint's own. Of the way it is read, flip=, annotation_shift=, codec= and pixel_origin= can be "
    "changed; as=SCHEME alone says what points the faces have"
)


def keys_of(node: Any, prefix: str = "") -> list[str]:
    """Every key of a config, dotted."""
    content = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else node
    return list(_keys(content, prefix)) if isinstance(content, Mapping) else []


def _keys(content: Mapping[Any, Any], prefix: str) -> Iterator[str]:
    for name, value in content.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The key of `known` that `key` was probably meant to be."""
    known = list(known)
    first, last = key.split(".")[0], key.split(".")[-1]
    namesakes = [one for one in known if one.split(".")[-1] == last]
    namesakes.sort(key=lambda one: (one.split(".")[0] != first, one.count(".")))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return next(iter(namesakes or close or difflib.get_close_matches(key, known, n=1, cutoff=0.5)), None)


def elsewhere(key: str) -> str | None:
    """What stands here for a key of lightning-hydra-template, or of its node, that does not exist here."""
    parts, known = key.split("."), ELSEWHERE | OWNED
    return next((known[one] for n in (2, 1) if (one := ".".join(parts[:n])) in known), None)


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """`: did you mean NEAREST?`, or what stands here for a key of lightning-hydra-template, or nothing."""
    if instead := elsewhere(key):
        return f". Here it is {instead}"
    found = nearest(key, known)
    return f": did you mean {found}?" if found else ""


def with_nearest(error: BaseException, arguments: Sequence[str]) -> list[str]:
    """A line for each override among `arguments` whose key does not exist, where `error` is Hydra's about one."""
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return []
    pairs = [one.partition("=") for one in arguments]
    if older := [f"{key}={value}{now}" for key, _, value in pairs if (now := now_called(value))]:
        return older
    typed = [one for one in arguments if "=" in one and not one.startswith(("-", "+", "~", "hydra"))]
    name = "evaluate" if any(key_of(one) == "checkpoint" for one in typed) else "train"
    groups = [path.name for path in CONF_DIR.iterdir() if path.is_dir()]
    chosen = [one for one in typed if key_of(one) in groups and "," not in one]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            base = compose(name, chosen)
    except (HydraException, OmegaConfBaseException):  # what the error is about
        return []
    if name == "evaluate" and (own := [key_of(one) for one in typed if key_of(one).split(".")[0] in OF_THE_CHECKPOINT]):
        return [f"{key}: {THE_CHECKPOINT_S}" for key in own]
    known = [*keys_of(base), *groups]
    unknown = [key_of(one) for one in typed if key_of(one) not in known and "/" not in key_of(one)]
    return [
        f"{key} does not exist{said}"
        for key in unknown
        if (said := of_other_files(name, key) or to_be_added(base, key) or did_you_mean(key, known))
    ]


def to_be_added(base: Any, key: str) -> str:
    """That `key` wants a `+`, where what is built from its node takes such an argument; else nothing."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not target or elsewhere(key):
        return ""
    try:
        takes = name in inspect.signature(get_object(target)).parameters
    except (ImportError, TypeError, ValueError):  # no such class, or one that does not say what it takes
        return ""
    return f": type +{key}=..., an argument of {target}" if takes else ""


def of_other_files(name: str, key: str) -> str:
    """Which files of a key's group have the key, where the one that `name` chooses has not; nothing where none has."""
    group, _, inner = key.partition(".")
    found = []
    for path in sorted((CONF_DIR / group).glob("*.yaml")) if inner else ():
        try:
            with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
                node = compose(name, [f"{group}={path.stem}"])
        except (HydraException, OmegaConfBaseException):  # one that needs more
            continue
        if inner in keys_of(node.get(group)):
            found.append(f"{group}={path.stem}")
    return f" with the {group} of this command: it is a key of {', '.join(found)}, to be typed too" if found else ""
