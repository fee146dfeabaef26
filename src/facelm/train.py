"""Training: `python -m facelm.train experiment=NAME [key=value ...]`.

Read next: `launch/build.py` (config to objects), `training/lit.py` (the step), `data/dataset.py` (what a face becomes).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import hydra
import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from facelm.addresses import public
from facelm.data.datamodule import FaceDataModule
from facelm.data.synthetic.folder import is_drawn
from facelm.evaluate import evaluate
from facelm.files import write_whole
from facelm.launch import ddp, slurm
from facelm.launch.build import (
    build_callbacks,
    build_data,
    build_lit,
    build_trainer,
    model_spec,
    network_class,
    require_network,
)
from facelm.launch.ddp import resolve_devices
from facelm.launch.errors import command_line, program
from facelm.launch.jobs import SWEEP, Job, first_to_fail, read_record, recorded, take_a_gpu
from facelm.launch.local import CONFIG, with_local
from facelm.launch.paths import CONF_DIR
from facelm.launch.quoted import as_value
from facelm.launch.resume import continued, refuse_first, resume_path, resumed_run
from facelm.launch.run_folder import held, require_own, score_of_the_same_job
from facelm.launch.run_log import run_facts, tracked, write_facts
from facelm.loggers import Tracker
from facelm.models.loading import load_model
from facelm.models.own import Network, path_of
from facelm.training.lit import LitLandmarks
from facelm.training.watch import FacesWhileTraining

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Trains, writes the report of the best checkpoint, and returns its validation NME in percent.

    A run without validation faces (`data.hold_out=0`) has nothing to choose by and nothing to report: its result is
    last.ckpt.

    Raises:
        ValueError: a config value is wrong, or data are unreadable.
        FileNotFoundError: no data, no weights, or no checkpoint to resume from.
    """
    run_dir = Path(cfg.run_dir)
    with tracked(cfg, run_dir, job_type="train", resumed=resumed_run(cfg.resume)) as tracker:
        data = build_data(cfg)
        data.prepare_data()
        data.setup()
        trainer = fit(cfg, data, tracker)
        score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
        if trainer.is_global_zero:
            best = run_dir / "checkpoints" / "best.ckpt"
            if best.is_file():
                report(best, data, trainer, Path(cfg.report_dir).expanduser(), network_class(cfg), cfg.report.heatmaps)
                tracker.log_report(Path(cfg.report_dir).expanduser(), drawn=is_drawn(data.root))
            scores = {"best": score, "last": trainer.callback_metrics.get("val/nme")}  # None: nothing was left to train
            known = {name: float(nme) for name, nme in scores.items() if nme is not None}
            tracker.log_checkpoints(best.parent, known)
    return float(score) if isinstance(score, torch.Tensor) else None


def fit(cfg: DictConfig, data: FaceDataModule, tracker: Tracker) -> L.Trainer:
    """The trainer, having trained: checkpoints and logs are in the run folder."""
    run_dir = Path(cfg.run_dir)
    if ddp.global_rank() == 0:
        write_whole(run_dir / "config.yaml", public(OmegaConf.to_yaml(cfg, resolve=True)))
        for name, faces in (("trained", data.train_faces), ("validated", data.val_faces)):
            write_whole(run_dir / f"{name}.txt", "".join(f"{face.name}\n" for face in faces))
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    lit = build_lit(cfg, model_spec(cfg), data)
    lit.run = tracker.identity()
    facts = run_facts(cfg, data, lit.net)
    write_facts(facts, run_dir)
    tracker.log_facts(facts)
    callbacks = [*build_callbacks(cfg, run_dir), *faces_shown(cfg, data, tracker, lit)]
    trainer = build_trainer(cfg, loggers=tracker.loggers(), callbacks=callbacks, run_dir=run_dir)
    if trainer.precision == "64-true":
        lit.double()  # Lightning does it after a checkpoint's weights are in, and after those to average were copied
    trainer.fit(lit, data, ckpt_path=resume_path(cfg.resume))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return trainer


def faces_shown(cfg: DictConfig, data: FaceDataModule, tracker: Tracker, lit: LitLandmarks) -> list[Callback]:
    """What shows validation faces in the tracker, every `pictures_every` epochs; nothing where it shows none."""
    drawn = is_drawn(data.root)
    if cfg.pictures_every is None or not data.val_faces or not tracker.shows_faces(drawn=drawn):
        return []
    show = partial(tracker.log_faces, drawn=drawn)
    return [FacesWhileTraining(data.val_faces, lit.scheme, show, cfg.pictures_every)]


def report(
    checkpoint: Path,
    data: FaceDataModule,
    trainer: L.Trainer,
    folder: Path,
    network: Network | None = None,
    heatmaps: bool = False,
) -> None:
    """The report of a checkpoint: in this process after a training on one device, else in one of its own."""
    device = trainer.strategy.root_device
    if trainer.world_size == 1:
        evaluate(load_model(checkpoint, network=network), data, device, folder, heatmaps=heatmaps)
    else:
        evaluate_apart(checkpoint, folder, device.type, network, heatmaps)


def evaluate_apart(
    checkpoint: Path, report_dir: Path, device: str, network: Network | None = None, heatmaps: bool = False
) -> None:
    """The report, made by a process of its own on one device.

    After a distributed fit the other ranks have left or are leaving: metrics in this process would still gather with
    them.

    Raises:
        ChildProcessError: it failed.
    """
    folder = as_value(report_dir)
    command = [sys.executable, "-m", "facelm.evaluate", f"checkpoint={as_value(checkpoint)}", f"device={device}"]
    command += [f"network={path_of(network)}"] if network else []
    command += ["report.heatmaps=true"] if heatmaps else []
    command += [f"report_dir={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    done = subprocess.run(command, env=ddp.without_ranks(os.environ) | {CONFIG: ""}, check=False)
    if done.returncode:
        raise ChildProcessError(
            f"training is done, but its report failed (exit code {done.returncode}, see above). "
            f"python -m facelm.evaluate checkpoint={checkpoint} makes it"
        )


# --- The Hydra job --------------------------------------------------------------------------------------------------


def train_on_all_devices(cfg: DictConfig, job: Job) -> float | None:
    """`train` in this process, or in one for each of several devices; the best validation NME in percent.

    Raises:
        ChildProcessError: a rank failed.
    """
    require_network(cfg, job.overrides)
    ranks = ranks_to_start(cfg, job)
    if ranks == 1:
        ddp.end_with_parent()
        return train(cfg)
    # What is wrong with the config or the data is said here, once, and what has to be made is made once.
    resume_path(cfg.resume)
    data = build_data(cfg)
    data.prepare_data()
    data.setup()
    extra = {CONFIG: ""} | ({SWEEP: str(job.sweep)} if job.sweep else {})  # the job's overrides hold local.yaml's
    ddp.run_ranks(ddp.rank_commands(ranks, job.overrides, job.folder), job.folder, extra=extra)
    score = read_record(job.folder).get("val_nme")
    return None if score is None else float(score)


def ranks_to_start(cfg: DictConfig, job: Job) -> int:
    """How many processes to start; 1: none, this one trains.

    Raises:
        ValueError: the devices are not here, or the processes of several machines cannot be started from here.
    """
    if ddp.is_rank():
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ValueError(
                "srun or torchrun would run the whole sweep once on every rank. Start the sweep without them: each job "
                "starts its own ranks, and launcher=submitit sends each to SLURM"
            )
        return 1
    if cfg.trainer.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}: on several machines srun or torchrun start the processes; "
            "docs/running.md has the lines. On one machine use trainer=ddp"
        )
    if job.sweep and HydraConfig.get().runtime.choices.get("hydra/launcher") == "joblib":
        ddp.stop_with_parent()
        take_a_gpu(job.sweep)
    return resolve_devices(cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.max_devices)[1]


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
@command_line
def hydra_job(cfg: DictConfig) -> float | None:
    """The Hydra job; returns the best validation NME, which sweepers minimise."""
    if ddp.global_rank():
        if ddp.STARTED_BY not in os.environ:
            logging.disable(logging.INFO)  # rank 0 says it; the ranks of srun and torchrun share one train.log
        cfg, _ = with_local(continued(cfg))
        job = Job.current()
        with first_to_fail(job, ddp.global_rank()):
            train_on_all_devices(cfg, job)
        return None
    slurm.when_stopped(cfg.slurm_requeue)  # a signal while data are read is one before the first batch
    require_own(cfg.run_dir, Job.current().folder)
    with held(Job.current().folder):
        if (score := score_of_the_same_job(Job.current(), cfg.resume)) is not None:
            return score
        cfg, local = with_local(continued(cfg))
        job = Job.current()
        facts = {"data_root": str(Path(cfg.data.root).expanduser().absolute())} | ({"local": local} if local else {})
        with recorded(job, **facts) as record:
            (job.folder / "report" / "summary.json").unlink(missing_ok=True)  # of the run before it went on
            score = record["val_nme"] = train_on_all_devices(cfg, job)
    return score


@program
def main() -> None:
    """The command; `sys.argv` holds what was typed."""
    refuse_first(sys.argv[1:])
    hydra_job()


if __name__ == "__main__":
    main()
