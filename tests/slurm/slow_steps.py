"""A callback that makes steps long enough for a signal to come between them, without work for the machine."""

import os
import time

from lightning.pytorch.callbacks import Callback


class SlowSteps(Callback):
    """Waits `$SLOW_STEPS` seconds before a step; not in a job that came back from the queue."""

    def on_train_batch_start(self, *_):
        if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            time.sleep(float(os.environ.get("SLOW_STEPS", 0)))
