"""A callback that makes steps long enough for a signal to come between them, without work for the machine."""

import os
import time

from lightning.pytorch.callbacks import Callback


class SlowSteps(Callback):
    def on_train_batch_start(self, *_):
        time.sleep(float(os.environ.get("SLOW_STEPS", 0)))
