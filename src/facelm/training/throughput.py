"""How fast a run trains, and how much of that time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler

Clock = Callable[[], float]


class Throughput(Callback):
    """Logs `train/images_per_second` over all devices, and `train/data_wait` in percent, whenever metrics are logged.

    Both cover the batches since they were logged last, and the wall time of fetching them, moving them to the device,
    training on them, logging, and writing checkpoints in the middle of an epoch. Validation and what happens between
    epochs are left out. A run's first batch waits for the workers to start, and that is in.

    `train/data_wait` is the share of that time in which the first rank's training loop stood still until the loader
    gave it a batch. A GPU may still have been busy with the step before, so its idle time is at most that.

    An epoch shorter than `trainer.log_every_n_steps` logs once, after its last step.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._images = 0
        self._logged_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listens to the moments at which the training loop asks for a batch and gets it."""
        self._watch = LoopWatch(trainer.profiler, self._clock)  # type: ignore[attr-defined]
        trainer.profiler = self._watch  # type: ignore[attr-defined]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes short epochs log too."""
        steps_an_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        shortest = min(steps_an_epoch, int(trainer.estimated_stepping_batches))
        trainer.log_every_n_steps = max(1, min(trainer.log_every_n_steps, shortest))  # type: ignore[attr-defined]
        self._logged_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the images, and logs when Lightning does."""
        self._images += len(batch["image"]) * trainer.world_size
        step = trainer.global_step
        if step != self._logged_step and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._logged_step = step
            if pl_module.device.type == "cuda":  # queued steps are not done yet; logging the loss waits for them anyway
                torch.cuda.synchronize(pl_module.device)
            waited, total = self._watch.read()
            values = {
                "train/images_per_second": self._images / max(total, 1e-9),
                "train/data_wait": 100.0 * waited / max(total, 1e-9),
            }
            pl_module.log_dict(values, batch_size=1, on_step=True, on_epoch=False)
            self._images = 0
        if trainer.is_last_batch:
            self._watch.pause()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the watch until the next batch is asked for."""
        self._watch.pause()


class LoopWatch(Profiler):
    """A watch that Lightning's profiling starts: it runs from the moment a training batch is asked for until `pause`.

    Everything is passed on to another profiler, the one that `trainer.profiler` names.
    """

    def __init__(self, inner: Profiler, clock: Clock) -> None:
        super().__init__(dirpath=inner.dirpath, filename=inner.filename)
        self._inner = inner
        self._clock = clock
        self._asked = 0.0
        self._running_since: float | None = None
        self._waited = self._total = 0.0

    def start(self, action_name: str) -> None:
        """The beginning of an action."""
        self._inner.start(action_name)
        if action_name.endswith(".train_dataloader_next"):
            self._asked = self._clock()
            if self._running_since is None:
                self._running_since = self._asked

    def stop(self, action_name: str) -> None:
        """The end of an action."""
        if action_name.endswith(".train_dataloader_next"):
            self._waited += self._clock() - self._asked
        self._inner.stop(action_name)

    def pause(self) -> None:
        """Stops until the next batch is asked for."""
        if self._running_since is not None:
            self._total += self._clock() - self._running_since
            self._running_since = None

    def read(self) -> tuple[float, float]:
        """(seconds waited for batches, seconds that the watch ran) since the last reading; it goes on from zero."""
        running = self._running_since is not None
        self.pause()
        reading = self._waited, self._total
        self._waited = self._total = 0.0
        self._running_since = self._clock() if running else None
        return reading

    def summary(self) -> str:
        """The other profiler's."""
        return self._inner.summary()

    def describe(self) -> None:
        """The other profiler's report."""
        self._inner.describe()

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """The other profiler's."""
        self._inner.setup(stage, local_rank, log_dir)

    def teardown(self, stage: str | None) -> None:
        """The other profiler's."""
        self._inner.teardown(stage)
