"""Training: `python -m facelm.train experiment=NAME [key=value ...]`.

Read next: `launch.py` (config to objects), `lit.py` (the training step), `data/dataset.py` (what a face becomes).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import hydra
import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from facelm.data.datamodule import FaceDataModule
from facelm.errors import command_line
from facelm.evaluate import evaluate
from facelm.launch import build_callbacks, build_data, build_lit, build_loggers, build_trainer, model_spec
from facelm.loading import load_model
from facelm.paths import CONF_DIR

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Trains, writes the report of the best checkpoint, and returns its validation NME in percent.

    Raises:
        ValueError: a config value is wrong, or data are unreadable.
        FileNotFoundError: no data, no weights, or no checkpoint to resume from.
    """
    data = build_data(cfg)
    data.prepare_data()
    data.setup()
    trainer = fit(cfg, data)
    best = Path(cfg.run_dir) / "checkpoints" / "best.ckpt"
    if trainer.is_global_zero and best.is_file():
        if trainer.world_size == 1:
            evaluate(load_model(best), data, trainer.strategy.root_device, Path(cfg.report_dir))
        else:
            evaluate_apart(best, Path(cfg.report_dir))
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    return float(score) if isinstance(score, torch.Tensor) else None


def fit(cfg: DictConfig, data: FaceDataModule) -> L.Trainer:
    """The trainer, having trained: checkpoints and logs are in the run folder."""
    run_dir = Path(cfg.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run_dir / "config.yaml", resolve=True)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    lit = build_lit(cfg, model_spec(cfg), data)
    loggers = build_loggers(cfg, run_dir)
    trainer = build_trainer(cfg, loggers=loggers, callbacks=build_callbacks(cfg, run_dir), run_dir=run_dir)
    trainer.fit(lit, data, ckpt_path=resume_path(cfg.resume))
    return trainer


def evaluate_apart(checkpoint: Path, report_dir: Path) -> None:
    """The report, made by a process of its own on one device.

    After a distributed fit the other ranks have left or are leaving: metrics in this process would still gather with
    them.
    """
    distributed = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {key: value for key, value in os.environ.items() if key not in distributed}
    command = [sys.executable, "-m", "facelm.evaluate", f"checkpoint='{checkpoint}'", f"report_dir='{report_dir}'"]
    subprocess.run(command, env=environment, check=True)


def resume_path(resume: str | None) -> str | None:
    """The checkpoint that `resume=` means: a file, or the last.ckpt of a run folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if resume is None:
        return None
    path = Path(resume).expanduser()
    for candidate in (path, path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return str(candidate)
    raise FileNotFoundError(f"resume={resume}: neither a checkpoint nor a run folder with checkpoints/last.ckpt")


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
@command_line
def main(cfg: DictConfig) -> float | None:
    """The Hydra entry; returns the best validation NME, which sweepers minimise."""
    return train(cfg)


if __name__ == "__main__":
    main()
