"""From a composed config to the objects of a run: model, data, callbacks, trainer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from facelm.addresses import shareable
from facelm.data.datamodule import FaceDataModule
from facelm.evaluation.known_faces import shared_photographs
from facelm.evaluation.metrics import mean_shape
from facelm.geometry.landmarks import get_scheme, plain_scheme
from facelm.launch import ddp, slurm
from facelm.launch.ddp import environment_plugins, resolve_devices
from facelm.launch.errors import sentence
from facelm.launch.jobs import key_of
from facelm.launch.paths import CONF_DIR
from facelm.launch.recorded import recorded_group, trained_group
from facelm.launch.resume import resume_path
from facelm.models import own
from facelm.models.loading import same_points
from facelm.models.spec import ModelSpec
from facelm.models.weights import load_weights, open_weights
from facelm.training.batch_norm import WarmedStatistics
from facelm.training.callbacks import FiniteLoss, WarmedEMA, WholeFileCheckpoints, checkpoints
from facelm.training.console import console
from facelm.training.freezing import FrozenBackbone
from facelm.training.lit import LitLandmarks
from facelm.training.schedule import Schedule
from facelm.training.throughput import Throughput

HRNET = "facelm.models.build_model"
"""`_target_` of conf/model: facelm's own networks, by name."""

OF_HRNET = ("name", "init", "bn_momentum")
"""Keys of conf/model that a network of the user's own gets only if its constructor has an argument of that name."""


def build(node: Any, **extra: Any) -> Any:
    """The object that a config node describes; its error, if any, is the constructor's own.

    albumentations ignores arguments that it does not know with a warning: here that is an error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Argument", category=UserWarning)
        try:
            return instantiate(node, _convert_="all", **extra)
        except InstantiationException as error:
            if isinstance(cause := error.__cause__, TypeError | UserWarning):  # an argument missing, or not known
                raise ValueError(" ".join(str(error).split())) from cause
            if isinstance(cause, Exception):
                raise cause from None
            raise


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as dicts, lists, strings and numbers only."""
    container = OmegaConf.to_container(cfg, resolve=True)
    if not isinstance(container, dict):
        raise ValueError("the config is not a mapping")
    return {str(key): value for key, value in container.items()}


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that `python -m facelm.train` would compose, without running it.

    Raises:
        ValueError: a group, file or key that does not exist, or an override that cannot be read.
    """
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return compose("train", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{sentence(error)}\n(overrides: {' '.join(overrides) or 'none'})") from error


def model_spec(cfg: DictConfig) -> ModelSpec:
    """What the weights of this run will mean."""
    network = network_class(cfg)
    return ModelSpec(
        architecture=cfg.model._target_ if network else cfg.model.name,
        arguments=network_arguments(cfg.model, network) if network else {},
        scheme=get_scheme(plain(cfg.landmarks)),
        crop_size=cfg.crop.size,
        crop_scale=cfg.crop.scale,
        codec=plain(cfg.codec),
        flip=cfg.inference.flip,
        annotation_shift=cfg.inference.annotation_shift,
        pixel_origin=cfg.data.get("pixel_origin", 1),  # 300W's affair
    )


def network_class(cfg: DictConfig) -> own.Network | None:
    """The class of the user's own that `model._target_` names; None for facelm's networks.

    Raises:
        ValueError: there is none such.
    """
    return None if cfg.model._target_ == HRNET else own.named(cfg.model._target_)


def network_arguments(model: DictConfig, network: own.Network) -> dict[str, Any]:
    """The constructor's arguments for a class of the user's own: the keys of `model`, without those of facelm's."""
    takes = own.takes(network)
    given = {key: value for key, value in plain(model).items() if key not in ("_target_", "weights")}
    return {key: value for key, value in given.items() if key in takes or key not in OF_HRNET}


def require_network(cfg: DictConfig, typed: Sequence[str] = ()) -> None:
    """Tries a network of the user's own before data are read; `typed` are the overrides.

    Raises:
        ValueError: it cannot be built, gives no heatmaps of the right shape, could not be rebuilt from a checkpoint, or
            a key was typed that it does not get.
    """
    spec = model_spec(cfg)
    if network := network_class(cfg):
        unread = {f"model.{key}" for key in OF_HRNET} - {f"model.{key}" for key in spec.arguments}
        if mistaken := [one for one in typed if key_of(one) in unread]:
            raise ValueError(f"{mistaken[0]}: {own.path_of(network)} has no argument of that name")
        spec.require_network(spec.build_network(network))


def build_network(cfg: DictConfig, spec: ModelSpec) -> nn.Module:
    """The network, with the weights that `model.weights` names; a run that goes on has its own."""
    weights = None if resume_path(cfg.resume) else cfg.model.get("weights")  # resume=auto alone goes on with nothing
    if network := network_class(cfg):
        net = spec.build_network(network)
        if weights is not None:
            load_weights(net, weights)
        return net
    scheme = spec.landmark_scheme()
    built: nn.Module = build(OmegaConf.merge(cfg.model, {"weights": None}), num_landmarks=scheme.num_landmarks)
    if weights is not None:
        file = open_weights(weights)
        load_weights(built, file, new_head=True, same=same_points(file, scheme, cfg.same_points))
        for said in shared_photographs(trained_group(file), recorded_group({"data": plain(cfg.data)})):
            warnings.warn(f"model.weights={weights}: {said}", stacklevel=2)
    return built


def build_data(cfg: DictConfig) -> FaceDataModule:
    """A training's data module; nothing is read yet."""
    return framed_data(cfg.data, model_spec(cfg), augmentation=cfg.augment, seed=cfg.seed)


def framed_data(node: DictConfig, spec: ModelSpec, **options: Any) -> FaceDataModule:
    """The data module that `node` of `conf/data` describes, its crops framed as `spec` says; nothing is read yet."""
    landmarks = plain_scheme(spec.scheme)  # plain: Hydra would take the dataclass for a config
    data: FaceDataModule = build(
        node, crop_size=spec.crop_size, crop_scale=spec.crop_scale, landmarks=landmarks, **options
    )
    return data


def build_lit(cfg: DictConfig, spec: ModelSpec, data: FaceDataModule) -> LitLandmarks:
    """The LightningModule with its network, weights loaded where the config names some."""
    faces = data.train_faces
    shape = mean_shape(faces.landmarks_image, faces.boxes[:, :2], faces.boxes[:, 2])
    return LitLandmarks(
        spec=spec,
        net=build_network(cfg, spec),
        loss=build(cfg.loss),
        optimizer=build_optimizer(cfg.optim.optimizer),
        schedule=build_schedule(cfg.optim.schedule),
        base_batch=cfg.optim.base_batch,
        scale_lr=cfg.optim.scale_lr,
        clip_warmup=cfg.optim.clip_warmup,
        channels_last=cfg.channels_last,
        compile_net=cfg.compile,
        native=cfg.native,
        record=shareable(plain(cfg)),
        mean_shape=shape.tolist() if np.isfinite(shape).all() else None,  # a point that no face has labelled
    )


def build_optimizer(node: Any) -> Any:
    """What makes the optimizer of parameters; tried on one, for what it refuses.

    Raises:
        ValueError: an option that it does not have, or a value that it refuses.
    """
    make = build(node)
    try:
        make([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        given = {name: value for name, value in node.items() if not name.startswith("_")}
        raise ValueError(
            f"optim.optimizer: {node._target_} refuses {given} ({error}). Give it options that it has: "
            "+optim.optimizer.KEY=VALUE adds one, ~optim.optimizer.KEY takes one away"
        ) from error
    return make


def build_schedule(node: Any) -> Schedule:
    """The learning rate's schedule, asked for a first factor.

    Raises:
        ValueError: a value that it cannot work with.
    """
    schedule: Schedule = build(node)
    try:
        schedule.factor(0, iterations_per_epoch=1, total_iterations=2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optim.schedule: {node._target_} cannot work with {dict(node)} ({error})") from error
    return schedule


def chosen_callbacks(cfg: DictConfig) -> list[Callback]:
    """Those that `callbacks=[...]` and `+callbacks.NAME._target_=CLASS` name, in their order.

    Raises:
        ValueError: an entry that is none.
    """
    chosen: list[Callback] = []
    for name, node in (cfg.get("callbacks") or {}).items():
        callback = build(node) if isinstance(node, DictConfig) and "_target_" in node else None
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks.{name} describes no callback of Lightning's: it needs callbacks.{name}._target_=CLASS, "
                "where CLASS inherits from lightning.Callback, and its arguments beside it"
            )
        chosen.append(callback)
    return chosen


def build_callbacks(cfg: DictConfig, run_dir: Path) -> list[Callback]:
    """Batch norm statistics, averaged weights if `ema.decay` is set, throughput, checkpoints, console, `callbacks`.

    A learning-rate monitor or progress bar of `callbacks` takes the place of the built-in one.
    """
    chosen = chosen_callbacks(cfg)
    alone = [kind for kind in (LearningRateMonitor, ProgressBar) if any(isinstance(one, kind) for one in chosen)]
    built_in = console(cfg.trainer.enable_progress_bar)
    on_stop = slurm.when_stopped(cfg.slurm_requeue) if ddp.global_rank() == 0 else None
    averaging: list[Callback] = [WarmedEMA(cfg.ema.decay)] if cfg.ema.decay is not None else []
    # Averaging comes first: the checkpoint after a validation must hold the weights that were validated.
    return [
        *([WarmedStatistics()] if cfg.bn_warmup else []),
        *([FrozenBackbone(cfg.freeze_backbone_epochs)] if cfg.freeze_backbone_epochs else []),
        *averaging,
        FiniteLoss(),
        Throughput(),
        *checkpoints(run_dir / "checkpoints", cfg.checkpoint.every_n_steps, on_stop),
        *(one for one in built_in if not isinstance(one, tuple(alone))),
        *chosen,
    ]


def _require_promises(node: dict[str, Any]) -> None:
    """Refuses what Lightning promises of a trainer key and this package's loaders or checkpoints would not keep.

    Raises:
        ValueError: such a key.
    """
    if nothing := [key for key in ("max_steps", "limit_train_batches") if node.get(key) == 0]:
        raise ValueError(
            f"trainer.{nothing[0]}={node[nothing[0]]}: nothing would train, and the run would count as finished. Leave "
            "it out, or measure weights with facelm evaluate"
        )
    if node.get("overfit_batches"):
        raise ValueError(
            f"trainer.overfit_batches={node['overfit_batches']} promises the same few batches in every epoch, but the "
            "faces are put in another order each epoch. Name a few faces in a file: data.train_list=FILE"
        )
    interval = node.get("val_check_interval")
    if interval is not None and (interval != 1.0 or isinstance(interval, int)):  # 1 is every batch, 1.0 every epoch
        raise ValueError(
            f"trainer.val_check_interval={node['val_check_interval']}: validation comes at an epoch's end, where a "
            "resumed run repeats it exactly. For fewer of them: +trainer.check_val_every_n_epoch=N"
        )


def build_trainer(cfg: DictConfig, *, loggers: list[Any], callbacks: list[Callback], run_dir: Path) -> L.Trainer:
    """The trainer, with the devices that this machine has."""
    node = plain(cfg.trainer)
    _require_promises(node)
    if node["precision"] in ("16-true", "bf16-true"):
        raise ValueError(
            f"trainer.precision={node['precision']} rounds landmarks too, by up to a pixel; use 16-mixed or bf16-mixed"
        )
    accelerator, devices = resolve_devices(node.pop("accelerator"), node.pop("devices"), node.pop("max_devices"))
    if devices == 1 and node["num_nodes"] == 1:
        node["strategy"] = "auto"
    environment = environment_plugins()
    if isinstance(environment[0], slurm.Srun):
        slurm.require_fitting_counts(devices, node["num_nodes"])
    trainer: L.Trainer = build(
        node,
        accelerator=accelerator,
        devices=devices,
        logger=loggers,
        callbacks=callbacks,
        plugins=[WholeFileCheckpoints(), *environment],
        default_root_dir=str(run_dir),
        use_distributed_sampler=False,  # our sampler yields each rank its part
        num_sanity_val_steps=0,
    )
    if trainer.world_size > 1 and ddp.STARTED_BY not in os.environ:
        place = f"{environment[0].main_address}:{environment[0].main_port}"
        slurm.watch_for_peers(trainer.global_rank, trainer.world_size, place, run_dir)
    return trainer
