"""SLURM: which processes srun has started, whether their number fits, and a stopped job's way back into the queue."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from facelm.data.workers import STOP_SIGNALS
from facelm.files import write_whole
from facelm.launch.jobs import RECORD, read_record

log = logging.getLogger(__name__)


class Srun(SLURMEnvironment):
    """What tells Lightning that srun started this process, whatever the job's name; signals are not its affair."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_variables() -> None:
        """`require_fitting_counts` compares what srun did, whichever options said it."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """See `require_fitting_counts`."""


def tasks() -> int:
    """How many processes the srun started that started this one; 0 where none did (a batch script, a shell)."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 0)) if "SLURM_STEP_ID" in os.environ else 0


def require_fitting_counts(devices: int, num_nodes: int) -> None:
    """Compares what srun has started with what the trainer expects.

    Raises:
        ValueError: other numbers of processes or nodes: some would wait for others that never come.
    """
    started, nodes = tasks(), int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
    per_node = set(re.findall(r"(\d+)(?:\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(devices))))
    if started <= 1 or (started == devices * num_nodes and per_node == {str(devices)}):
        return
    or_else = ""
    if started % nodes == 0:
        or_else = f", or trainer=ddp_multinode trainer.num_nodes={nodes} trainer.devices={started // nodes} to train"
    raise ValueError(
        f"srun started {started} processes on {nodes} nodes, but trainer.num_nodes={num_nodes} x trainer.devices="
        f"{devices} are {num_nodes * devices} on {num_nodes}. Write #SBATCH --nodes={num_nodes} and #SBATCH "
        f"--ntasks-per-node={devices} in the script{or_else}"
    )


# --- Back into the queue ---------------------------------------------------------------------------------------------


_told: list[int] = []
"""The signal that this job goes back for, once it came."""


def when_stopped(requeue: object) -> Callable[[int], None] | None:
    """What a stopped training does at last, by `slurm_requeue`; from now on signals outside of the training do it too.

    Raises:
        ValueError: neither auto nor false.
    """
    if requeue not in ("auto", False):
        raise ValueError(f"slurm_requeue={requeue} is neither auto nor false")
    if not requeue:
        return None
    if "SLURM_JOB_ID" in os.environ and threading.current_thread() is threading.main_thread():
        for number in set(STOP_SIGNALS) - {signal.SIGINT}:
            signal.signal(number, _end)
    return requeue_at_exit


def _end(number: int, _: object) -> None:
    """Ends the process, but not one that ends already: what it still has to write is written."""
    if not _told:
        requeue_at_exit(number)
        raise SystemExit(128 + signal.SIGTERM)


def requeue_at_exit(number: int) -> None:
    """Puts this SLURM job back into the queue when all else is written; not after Ctrl-C, nor outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and number != signal.SIGINT and not _told:
        _told.append(number)
        atexit.register(lambda: log.warning(requeue(job)))


def requeue(job: str) -> str:
    """Puts job number `job` back into the queue if SLURM allows it; what became of it, in words.

    A job that was cancelled, or is over for another reason, stays so.
    """
    try:
        shown = subprocess.run(
            ["scontrol", "-o", "show", "job", job], capture_output=True, text=True, timeout=60, check=False
        )
        facts = dict(re.findall(r"(JobState|Requeue|BatchFlag)=(\S+)", shown.stdout))
        if shown.returncode or not facts:
            return f"SLURM job {job} is not requeued: scontrol says {shown.stderr.strip() or 'nothing about it'}"
        if facts.get("JobState") != "RUNNING":
            return f"SLURM job {job} is {facts.get('JobState')}: it comes back only if SLURM itself has requeued it"
        if facts.get("Requeue") == "0" or facts.get("BatchFlag") == "0":
            return f"SLURM job {job} is not requeued: only jobs of sbatch --requeue are"
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return f"SLURM job {job} is not requeued: there is no scontrol here (a container?)"
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM job {job} is not requeued: {error}"
    return f"SLURM job {job} is not requeued: {done.stderr.strip()}" if done.returncode else f"SLURM job {job} requeued"


# --- Peers that do not come ------------------------------------------------------------------------------------------


def watch_for_peers(
    rank: int, world_size: int, place: str, folder: Path, *, say: float = 30, give_up: float = 600
) -> None:
    """Says after `say` seconds, and then each minute, whom this rank waits for; ends the process after `give_up`.

    torch waits inside a call that no signal handler and no exception gets out of. `place` is where rank 0 listens.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST")
    whom = (
        f"the other {world_size - 1} processes, which have to reach it at {place}" if not rank else f"rank 0 at {place}"
    )
    said = f"rank {rank} of {world_size} waits for {whom}" + (f" (nodes {nodes})" if nodes else "")

    def watch() -> None:
        started, next_time = time.monotonic(), say
        while not torch.distributed.is_initialized():
            waited = time.monotonic() - started
            if waited > give_up:
                told = f"{said}: not all came within {give_up:.0f} seconds. Is a node down, or the address wrong?"
                _give_up(told, rank, folder)
            if waited > next_time:
                log.warning(f"{said}; it gives up {give_up - waited:.0f} seconds from now")
                next_time += 60
            time.sleep(min(1.0, say))

    threading.Thread(target=watch, daemon=True, name="watch-for-peers").start()


def _give_up(said: str, rank: int, folder: Path) -> None:
    log.error(said)
    record = read_record(folder) if rank == 0 else {}
    if record:
        record |= {"status": "failed", "error": said}
        write_whole(folder / RECORD, json.dumps(record, indent=1))
    os._exit(1)
