"""Where a run's numbers go: metrics.csv in the run folder always, and what `logger=` names beside it.

`logger=csv` is a plain `Tracker`, `logger=tensorboard` and `logger=wandb` are its subclasses. wandb is imported in this
package only, and only when a run with `logger=wandb` starts.
"""

from __future__ import annotations

from facelm.tracking.metrics_csv import MetricsCSV
from facelm.tracking.tensorboard import TensorBoardTracker
from facelm.tracking.throughput import Throughput
from facelm.tracking.tracker import RunPlan, Tracker, is_main_process
from facelm.tracking.wandb_tracker import WandbTracker

__all__ = ["MetricsCSV", "RunPlan", "TensorBoardTracker", "Throughput", "Tracker", "WandbTracker", "is_main_process"]
