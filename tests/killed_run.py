"""A training that a signal hits: `python killed_run.py SIGNAL STEP OVERRIDE...` sends it to itself after that step."""

import os
import signal
import sys

from conftest import compose
from lightning.pytorch.callbacks import Callback

from facelm import train as training
from facelm.launch import build_data


class Hit(Callback):
    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(overrides, *callbacks):
    """Trains as facelm.train does, without the report."""
    cfg = compose("train", *overrides)
    data = build_data(cfg)
    data.setup()
    built = training.build_callbacks
    training.build_callbacks = lambda *args: [*built(*args), *callbacks]
    try:
        return training.fit(cfg, data)
    finally:
        training.build_callbacks = built


if __name__ == "__main__":
    fit(sys.argv[3:], Hit(getattr(signal, sys.argv[1]), int(sys.argv[2])))
