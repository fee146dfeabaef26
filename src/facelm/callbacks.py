"""What happens around the training step: checkpoints on disk, averaged weights, and a quiet console."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from facelm.checkpoint import read_facelm_checkpoint, write_whole


class WholeFileCheckpoints(TorchCheckpointIO):
    """Checkpoints that are on disk whole or not at all, and are read back as tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes to a temporary file beside `path`, then renames it."""
        write_whole(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Reads with `weights_only=True`, whatever the caller says."""
        return read_facelm_checkpoint(path)


class WarmedEMA(WeightAveraging):
    """An exponential moving average of weights and batch norm statistics, which validation and checkpoints use.

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so a short run is not averaged with its start
    (the rule of TensorFlow's `ExponentialMovingAverage`). The raw weights travel in the checkpoint too, for resuming.

    Raises:
        ValueError: `decay` outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema.decay lies between 0 and 1 (0.998, say; null for none), got {decay}")

        def average(means: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
            n = float(updates)
            weight = 1.0 - min(decay, (1.0 + n) / (10.0 + n))
            if torch.is_floating_point(means[0]):
                torch._foreach_lerp_(list(means), list(values), weight)
            else:  # batch norm's counters
                for mean, value in zip(means, values, strict=True):
                    mean.copy_(value)

        super().__init__(use_buffers=True, multi_avg_fn=average)


def checkpoints(folder: Path, every_n_steps: int | None) -> list[Callback]:
    """best.ckpt by `val/nme`, last.ckpt after every epoch and, if asked for, every n steps."""
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,  # a `/` in a metric's name would make folders
        "enable_version_counter": False,  # one best.ckpt, one last.ckpt: each replaces its predecessor
    }
    callbacks: list[Callback] = [
        ModelCheckpoint(filename="best", monitor="val/nme", mode="min", **shared),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared),
    ]
    if every_n_steps:
        callbacks.append(ModelCheckpoint(filename="last", every_n_train_steps=every_n_steps, **shared))
    return callbacks


def console(progress_bar: bool) -> list[Callback]:
    """The progress bar with losses and NME, and the learning rate in every log."""
    quiet()
    monitor: list[Callback] = [LearningRateMonitor(logging_interval="step")]
    return [*monitor, RichProgressBar(leave=False)] if progress_bar else monitor


def quiet() -> None:
    """Silences what Lightning says about itself and nobody can act on; warnings about the run stay."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_about_the_run)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*Experiment logs directory.*",
        ".*does not have many workers.*",
        ".*sync_dist=True.*",  # val/nme is computed from all ranks' faces: every rank logs the same value
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)


def _is_about_the_run(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not message.startswith(("💡", "GPU available: False", "TPU available", "HPU available", "Loading `"))
