"""facelm.train that a signal hits before a step: HIT="SIGKILL 6" or HIT="SIGTERM 6". No report is made.

What is not SIGKILL goes to the data loader's workers too, as SLURM sends it to every process of a job.
"""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from conftest import compose
from facelm import train as training
from facelm.launch.build import build_data
from facelm.loggers import RunPlan, Tracker


class Hit(Callback):
    def __init__(self, name, step):
        self.number, self.step = getattr(signal, name), int(step)

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            workers = multiprocessing.active_children() if self.number != signal.SIGKILL else []
            pids = [str(pid) for pid in (*(worker.pid for worker in workers), os.getpid())]
            subprocess.run(["kill", f"-{self.number.value}", *pids], check=True)  # not from the workers' own parent


def fit(overrides):
    """Trains as facelm.train does, without Hydra's job and without the report."""
    cfg = compose("train", *overrides)
    tracker = Tracker()
    Path(cfg.run_dir).mkdir(parents=True, exist_ok=True)
    tracker.start(RunPlan(folder=Path(cfg.run_dir), experiment=cfg.name))
    data = build_data(cfg)
    data.setup()
    return training.fit(cfg, data, tracker)


if __name__ == "__main__":
    built, hits = training.build_callbacks, [Hit(*os.environ["HIT"].split())] if os.environ.get("HIT") else []
    training.build_callbacks = lambda *args: [*built(*args), *hits]
    training.evaluate = lambda *_, **__: None
    training.main()
