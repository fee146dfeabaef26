"""Where a run's numbers go: metrics.csv in the run folder always, and what `logger=` names beside it.

`logger=csv` is a plain `Tracker`, `logger=tensorboard` and `logger=wandb` are its subclasses, `logger=[...]` several as
one. wandb is imported in this package only, and only when a run with `logger=wandb` starts.
"""

from __future__ import annotations

from facelm.loggers.metrics_csv import MetricsCSV
from facelm.loggers.several import as_one
from facelm.loggers.tensorboard import TensorBoardTracker
from facelm.loggers.tracker import RunPlan, Tracker, is_main_process
from facelm.loggers.wandb import WandbTracker

__all__ = ["MetricsCSV", "RunPlan", "TensorBoardTracker", "Tracker", "WandbTracker", "as_one", "is_main_process"]
