"""What happens around the training step: checkpoints on disk and averaged weights."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from facelm.data.workers import STOP_SIGNALS
from facelm.models.spec import ModelSpec, read_facelm_checkpoint, write_checkpoint

log = logging.getLogger(__name__)


class WholeFileCheckpoints(TorchCheckpointIO):
    """Checkpoints that are on disk whole or not at all, and are read back as tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes to a temporary file beside `path`, then renames it."""
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Reads with `weights_only=True`, whatever the caller says."""
        return read_facelm_checkpoint(path)


class WarmedEMA(WeightAveraging):
    """An exponential moving average of weights and batch norm statistics, which validation and checkpoints use.

    The first update copies the weights; after n updates the decay is min(`decay`, (1 + n) / (10 + n)), so a short run
    is not averaged with its start (the rule of TensorFlow's `ExponentialMovingAverage`). The raw weights travel in the
    checkpoint too, for resuming.

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


class Stopped(SystemExit):
    """The run was told to stop by a signal, and its state is in last.ckpt.

    The process ends with code 130 after Ctrl-C and with 143 after any other signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM))


class DivergedError(ValueError):
    """The training has numbers that are not finite; it cannot go on from there."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(
            f"{what} is not a finite number after step {step}: the training has diverged. The usual causes are a "
            "learning rate that is too high (optim.optimizer.lr, trainer.gradient_clip_val) and 16 bit arithmetic "
            "(trainer.precision); last.ckpt, if there is one, is of an earlier step"
        )


class FiniteLoss(Callback):
    """Ends a training whose loss is not a finite number: at once on a CPU, on a GPU when the loss is logged.

    Raises:
        DivergedError: it is not.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the step's loss, where that costs no waiting for the device."""
        logged = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if (pl_module.device.type == "cpu" or logged) and not torch.isfinite(outputs["loss"]):
            raise DivergedError("the loss", trainer.global_step)


class LastCheckpoint(Checkpoint):
    """last.ckpt after every epoch, every `every_n_steps` optimizer steps, and wherever the training ends.

    Within an epoch it is written between two batches, the optimizer having stepped, so that a resumed run goes on
    with the next batch; not after an epoch's last batch, whose validation and end-of-epoch checkpoint are to come.
    An epoch that is broken off (`max_steps`, `max_time`, a callback's `should_stop`) is not saved as one that is done.

    `STOP_SIGNALS` ask for an end; a second Ctrl-C does not wait for it. `on_stop` is called then, with the signal.

    Raises:
        ValueError: `every_n_steps` below 1.
        Stopped: after a signal, at the same batch on every rank.
    """

    def __init__(
        self, path: Path, every_n_steps: int | None = None, on_stop: Callable[[int], None] | None = None
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps is at least 1, or null for none, got {every_n_steps}")
        self.path = path
        self.every_n_steps = every_n_steps
        self.on_stop = on_stop
        self._told_by: int | None = None
        self._told_at = 0.0
        self._saved_to_stop = False
        self._stop_after_step = False
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over from Lightning, whose handlers save and talk to other ranks in the middle of anything.

        Lightning puts the former handlers back after the fit.
        """
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        again = self._told_by is not None and time.monotonic() - self._told_at > 1.0  # one signal may come by two ways
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._told_by is None:
            self._told_by, self._told_at = number, time.monotonic()

    def _is_told(self, trainer: L.Trainer) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(self._told_by is not None, all=False))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Saves if it is time to, if the training ends with this batch, or if any rank was told to stop."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped:  # half an accumulated gradient cannot be saved: the end waits for the step
            if trainer.should_stop:
                self._stop_after_step, trainer.should_stop = True, False
            return
        if self._stop_after_step:
            self._stop_after_step, trainer.should_stop = False, True
        if trainer.is_last_batch:
            return
        stop = self._is_told(trainer)
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if stop or due or _ends_here(trainer):
            self._save(trainer, pl_module)
            self._saved_to_stop = stop

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes last.ckpt, unless the weights are not numbers: the one before is then what to go on from."""
        for name, parameter in pl_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise DivergedError(f"the weight {name}", trainer.global_step)
        trainer.save_checkpoint(self.path, weights_only=False)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops here if the run was told to: by now the loggers have the last batch, which is in the checkpoint."""
        if self._saved_to_stop:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after validation, unless the epoch was broken off: what is to go on from is on disk then."""
        if trainer.is_last_batch:
            self._save(trainer, pl_module)
        if self._is_told(trainer):
            self._leave(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Says what there is to go on from, if anything."""
        if trainer.is_global_zero and not isinstance(exception, Stopped) and self.path.is_file():
            log.warning(f"the training broke off; resume={self.path} goes on from what was saved last")

    def _leave(self, trainer: L.Trainer) -> None:
        number = self._told_by or signal.SIGTERM  # or another rank was told
        if trainer.is_global_zero:
            log.warning(f"stopped by {signal.Signals(number).name}; go on with resume={self.path}")
            if self.on_stop:
                self.on_stop(number)
        raise Stopped(number)


def _ends_here(trainer: Any) -> bool:
    """Whether this batch of an epoch is the last one of the training."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt by `val/nme`. A resumed run keeps the best one so far where it is still comparable.

    Also in a run folder that was moved; not where other faces or crops validate than before, or with another flip test
    or `annotation_shift`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/nme",
            mode="min",
            auto_insert_metric_name=False,  # a `/` in a metric's name would make folders
            enable_version_counter=False,  # one best.ckpt: each replaces its predecessor
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As `on_train_epoch_end`."""
        if self._counts(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves if it is the best epoch; one that was broken off counts only while there is nothing else.

        A run that never stopped would not have validated there.
        """
        if self._counts(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def _counts(self, trainer: L.Trainer) -> bool:
        measured = self.monitor in trainer.callback_metrics and not self.best_model_path
        return trainer.is_last_batch or measured

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the score. Paths say whose machine it was, and the folder may be moved."""
        return {"best_model_score": self.best_model_score}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps, moves or forgets what was best, in `checkpoint` itself, before Lightning restores it from there."""
        state = checkpoint["callbacks"].get(self.state_key)
        changed = _validated_otherwise(trainer, pl_module, checkpoint["facelm"])
        if changed and checkpoint["global_step"] >= trainer.estimated_stepping_batches:
            log.warning(f"{', '.join(changed)}: that changes nothing, since training is done; facelm.evaluate measures")
            changed = []
        elif changed:
            log.warning(f"{', '.join(changed)}: val/nme is not what it was before, the best epoch is chosen anew")
        if state is None:
            return
        best = Path(str(self.dirpath)) / "best.ckpt"
        score = state.get("best_model_score")
        kept = isinstance(score, Tensor) and not changed and best.is_file()
        if kept and Path(str(trainer.ckpt_path)).parent.samefile(best.parent):
            # Only its score is the checkpoint's: Lightning deletes the former best by the path that it is told here.
            path = str(best)
            paths = dict.fromkeys(("best_model_path", "kth_best_model_path"), path)
            state.update(paths, dirpath=self.dirpath, best_k_models={path: score}, kth_value=score, last_model_path="")
        else:  # another run's folder: its best epoch is among those that follow
            del checkpoint["callbacks"][self.state_key]


def _validated_otherwise(trainer: Any, lit: Any, facts: dict[str, Any]) -> list[str]:
    """What of the validation is different from that of the run which a checkpoint's `facts` are about."""
    before, now = ModelSpec.from_dict(facts["spec"]), lit.spec
    names = {"flip": "inference.flip", "annotation_shift": "inference.annotation_shift"}
    names |= {"crop_size": "crop.size", "crop_scale": "crop.scale"}
    pairs = {key: (getattr(before, name), getattr(now, name)) for name, key in names.items()}
    changed = [f"{key} was {was}, and is {is_now} now" for key, (was, is_now) in pairs.items() if was != is_now]
    faces = trainer.datamodule.validated
    return changed + ["other faces validate"] * (facts["position"].get("validated", faces) != faces)


def checkpoints(
    folder: Path, every_n_steps: int | None, on_stop: Callable[[int], None] | None = None
) -> list[Callback]:
    """best.ckpt and last.ckpt; `on_stop` as in `LastCheckpoint`."""
    return [BestCheckpoint(folder), LastCheckpoint(folder / "last.ckpt", every_n_steps, on_stop)]
