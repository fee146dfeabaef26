"""Several devices of one machine: a process for each, all alike, watched by the process that was asked to train.

Lightning would start the other ranks from the first one's command line. In a Hydra sweep that is the command line of
the sweep, so each of them would run the whole sweep again; and when one dies, Lightning kills the process that started
it, sweep and all (Lightning#11300, hydra#2070). Here the process that Hydra called trains nothing. It starts every
rank with the job's own overrides, waits, and ends the rest when one fails, so each job of a sweep has fresh ranks and a
job that fails, fails alone. Ranks that torchrun or srun have started are left to them.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from facelm.data.workers import STOP_SIGNALS
from facelm.launch import slurm
from facelm.launch.jobs import RankKilledError
from facelm.launch.quoted import as_value

log = logging.getLogger(__name__)

STARTED_BY = "FACELM_STARTED_BY"
"""Set for ranks that were started here: the process id of the one that waits for them."""

STOP_WITH_PARENT = "stop-with-parent"

PROGRAM = ("-m", "facelm.train")
"""What Python runs as a rank; a script of your own that ends in `facelm.train.main()` puts its path here."""

RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit codes of a rank that has saved and stopped, as a signal told it to."""

Process = subprocess.Popen[bytes]


def is_rank() -> bool:
    """Whether this process is one of several that train together: started here, by torchrun, or by srun.

    In a batch script SLURM says how many processes srun would start; one that it did not start trains alone.
    """
    return "LOCAL_RANK" in os.environ or slurm.tasks() > 1


def global_rank() -> int:
    """The rank of this process among all that train together; 0 for one that trains alone."""
    named = ("RANK", "SLURM_PROCID", "LOCAL_RANK") if is_rank() else ()
    return next((int(os.environ[name]) for name in named if name in os.environ), 0)


def environment_plugins() -> list[ClusterEnvironment]:
    """What tells Lightning who started this process; its own guess goes by the SLURM job's name and variables."""
    if STARTED_BY not in os.environ:
        if TorchElasticEnvironment.detect():
            return [TorchElasticEnvironment()]
        if slurm.tasks() > 1:
            return [slurm.Srun()]
    return [LightningEnvironment()]


def resolve_devices(accelerator: str, devices: int | str, max_devices: int) -> tuple[str, int]:
    """(accelerator, number of processes) on this machine.

    `devices="auto"` takes every GPU up to `max_devices`, or one process on the CPU where there is none. A number is
    obeyed or refused.

    Raises:
        ValueError: more devices than there are, or none of the kind asked for.
    """
    gpus = torch.cuda.device_count()
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator == "gpu" and not gpus:
        raise ValueError(
            "trainer.accelerator=gpu, but torch sees no GPU here. Use trainer=cpu, or trainer=ddp to let it choose"
        )
    if devices == "auto":
        count = min(gpus, max_devices) if accelerator == "gpu" else 1
        log.info(f"{count} {accelerator.upper()} process{'es' if count > 1 else ''} (this machine has {gpus} GPUs)")
        return accelerator, count
    try:
        count = int(devices)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"trainer.devices is a number of devices or auto, got {devices!r}")
    available = gpus if accelerator == "gpu" else os.cpu_count() or 1
    if count > available:
        raise ValueError(f"trainer.devices={count}, but this machine has {available} for accelerator={accelerator}")
    return accelerator, count


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a process that trains or evaluates alone."""
    return {key: value for key, value in environment.items() if key not in (*RANK_VARIABLES, STARTED_BY)}


def rank_commands(count: int, overrides: Sequence[str], run_dir: Path) -> list[list[str]]:
    """The command of each rank: this job's overrides in this job's folder, whoever swept it."""
    hydra = HydraConfig.get()
    options = ["--config-name", str(hydra.job.config_name)]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(source.path)]
    place = [f"hydra.run.dir={as_value(run_dir)}", "hydra.mode=RUN", "hydra.output_subdir=null"]
    command = [sys.executable, *PROGRAM, *options, *overrides, *search_path(), *place]
    return [command if rank == 0 else [*command, "hydra/job_logging=stdout"] for rank in range(count)]


def search_path() -> list[str]:
    """The override that says where else this job's configs are, if there was one."""
    return [override for override in HydraConfig.get().overrides.hydra if override.startswith("hydra.searchpath=")]


def run_ranks(
    commands: Sequence[Sequence[str]], folder: Path, *, extra: Mapping[str, str] | None = None, grace: float = 20.0
) -> None:
    """Runs `commands` as ranks 0, 1, ... and returns when all have ended well.

    Rank 0 has the console; what the others say is in `folder`/rank_1.log and so on. `extra` is added to their
    environment. When one fails, the rest have `grace` seconds to notice and to end by themselves.

    Raises:
        ChildProcessError: a rank failed; the message says which, and what it said last.
        SystemExit: a signal came, the ranks have saved and stopped.
    """
    environment = without_ranks(os.environ) | dict(extra or {})
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(len(commands))}
    environment |= {"NODE_RANK": "0", STARTED_BY: str(os.getpid())}
    logs = [folder / f"rank_{rank}.log" for rank in range(len(commands))]
    ranks: list[Process] = []
    with ExitStack() as files, _passing_on_signals(ranks) as stopped:
        try:
            for rank, command in enumerate(commands):
                output = files.enter_context(logs[rank].open("wb")) if rank else None
                own = {"LOCAL_RANK": str(rank), "RANK": str(rank)}
                ranks.append(
                    subprocess.Popen(command, env=environment | own, stdout=output, stderr=output and subprocess.STDOUT)
                )
            failed = _first_failure(ranks)
            if stopped and failed is not None:
                grace = min(grace, 1.0)
                log.warning("stopped before every rank could save; what was saved earlier, if anything, is kept")
        except KeyboardInterrupt:  # the second: nothing is waited for
            grace = min(grace, 1.0)
            raise
        finally:
            _end(ranks, grace)
    codes = [128 + number for number in stopped] + [rank.returncode for rank in ranks]
    if stopped or set(codes) & set(STOPPED):
        raise SystemExit(128 + (signal.SIGINT if 128 + signal.SIGINT in codes else signal.SIGTERM))
    if failed is not None:
        kind = RankKilledError if ranks[failed].returncode < 0 else ChildProcessError
        raise kind(_account(failed, ranks, logs[failed]))


def end_with_parent() -> None:
    """Makes a rank end when the process that waits for it is gone: no training goes on that nobody knows of."""
    parent = os.environ.get(STARTED_BY)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def stop_with_parent(grace: float = 60.0) -> None:
    """Makes a job of joblib's stop when the sweep's own process is gone, as SIGTERM does: its state is saved first."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)

    if not any(thread.name == STOP_WITH_PARENT for thread in threading.enumerate()):  # a worker does several jobs
        threading.Thread(target=watch, daemon=True, name=STOP_WITH_PARENT).start()


def _first_failure(ranks: Sequence[Process]) -> int | None:
    """Waits until all have ended or one has failed; which one."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if failed := [rank for rank, code in enumerate(codes) if code not in (None, 0, *STOPPED)]:
            return min(failed, key=lambda rank: ranks[rank].returncode >= 0)  # the one that a signal ended is the cause
        if None not in codes:
            return None
        time.sleep(0.1)


def _end(ranks: Sequence[Process], grace: float) -> None:
    """No rank is left after this: those that do not end within `grace` seconds are killed.

    SIGTERM would not do: a rank that waits for the others inside a collective does not hear it.
    """
    deadline = time.monotonic() + grace
    for rank in ranks:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _account(failed: int, ranks: Sequence[Process], log_path: Path) -> str:
    """What happened to rank `failed`, in words."""
    code = ranks[failed].returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = "what it said is above"
    if failed:
        lines = [line for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        said = "\n".join(["its last lines:", *lines[-8:], f"all of them are in {log_path}"])
    return f"rank {failed} of {len(ranks)} {how}; the others were ended; {said}"


@contextmanager
def _passing_on_signals(ranks: Sequence[Process]) -> Iterator[list[int]]:
    """What asks for an end goes on to `ranks`; what is yielded holds it if it came. A second Ctrl-C does not wait."""
    received: list[int] = []
    first = 0.0

    def pass_on(number: int, _: object) -> None:
        nonlocal first
        for rank in ranks:
            rank.send_signal(number)
        if number == signal.SIGINT and received and time.monotonic() - first > 1.0:
            raise KeyboardInterrupt
        first = first if received else time.monotonic()
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    former = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
