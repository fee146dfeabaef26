"""What a training shows on the console: its progress, and nothing that nobody can act on."""

from __future__ import annotations

import logging
import warnings

from lightning.pytorch.callbacks import Callback, LearningRateMonitor, RichProgressBar


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
        ".*Total length of `list` across ranks is zero.*",  # a run without validation says so itself
        ".*could not find the monitored key.*",
        r".*callbacks used to create the checkpoint.*: \['WarmedEMA'\].*",  # ema.decay=null, which the run says itself
        ".*`srun` command is available.*",  # `launch.ddp` knows better who started this process
        ".*your dataloader is not resumable.*",  # ours is: the data module has its position from the checkpoint
    ):
        warnings.filterwarnings("ignore", message)


def _is_about_the_run(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not message.startswith(("💡", "GPU available: False", "TPU available", "HPU available", "Loading `"))
