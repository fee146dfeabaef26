"""The two-node SLURM as a test uses it: scripts go in, jobs are watched, and `python` trains the tiny network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
PAGE = HERE.parents[1] / "docs" / "running.md"


def page_blocks(first_line: str) -> list[str]:
    """The code blocks of docs/running.md that begin with `first_line`."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block.startswith(first_line)]


class Cluster:
    """Jobs run in `folder`; `python` in their scripts is this Python, and `small` is added to what it trains."""

    def __init__(self, slurm: Path, folder: Path, small: list[str]) -> None:
        self.folder, self.slurm = folder, slurm
        program = folder / "bin" / "python"
        program.parent.mkdir(parents=True)
        program.write_text(
            '#!/bin/bash\n[ "$2" = facelm.train ] || exec ' + f'{sys.executable} "$@"\n'
            f'exec {sys.executable} "$@" {" ".join(small)} +callbacks.slow._target_=slow_steps.SlowSteps\n'
        )
        program.chmod(0o755)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | {
            "SLURM_CONF": str(slurm / "slurm.conf"),
            "PATH": f"{program.parent}:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": "1",
        }

    def call(self, *command: str, check: bool = True, **environment: str) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip() + ("" if check else done.stderr)

    def sbatch(self, *arguments: str, slow: float = 0.0) -> str:
        """The number of a submitted job."""
        return self.call("sbatch", "--parsable", *arguments, SLOW_STEPS=str(slow)).partition(";")[0]

    def facts(self, job: str) -> dict[str, str]:
        """What scontrol shows of a job."""
        return dict(re.findall(r"(\w+)=(\S+)", self.call("scontrol", "-o", "show", "job", job)))

    def wait(self, job: str, *states: str, restarts: int = 0, seconds: float = 240) -> str:
        """Waits until the job is in one of `states`, having been requeued `restarts` times; which one.

        A job that was requeued starts within seconds here, and not after SLURM's two minutes.
        """
        deadline = time.monotonic() + seconds
        while True:
            facts = self.facts(job)
            if facts["JobState"] in states and int(facts["Restarts"]) >= restarts:
                return facts["JobState"]
            if facts["JobState"] == "PENDING" and facts["Reason"] == "BeginTime":
                self.call("scontrol", "update", f"JobId={job}", "StartTime=now+3seconds", check=False)
                time.sleep(4)  # what was revoked with the job before must not be taken for this one's
            if facts["JobState"] in OVER or time.monotonic() > deadline:
                raise AssertionError(f"job {job} is not {states}: {facts}\n{self.output(job)}")
            time.sleep(0.3)

    def wait_for(self, job: str, what: Path | str, seconds: float = 240) -> None:
        """Waits until a file is there, or the job has printed a text."""
        deadline = time.monotonic() + seconds
        while not (what.exists() if isinstance(what, Path) else what in self.output(job)):
            if self.facts(job)["JobState"] in OVER or time.monotonic() > deadline:
                raise AssertionError(f"job {job} did not make {what}: {self.facts(job)}\n{self.output(job)}")
            time.sleep(0.1)

    def output(self, job: str) -> str:
        """What the job has printed."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob(f"slurm-{job}*.out")))


@contextmanager
def lost_node(cluster: Cluster, node: str) -> Iterator[None]:
    """The node's daemon and all that it runs stand still inside the `with`; a new daemon follows."""
    pid_file = cluster.slurm / f"slurmd.{node}.pid"
    pids = [int(pid_file.read_text()), *_started_on(cluster.slurm, node)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        pid_file.unlink()
        subprocess.run(["slurmd", "-N", node], env=cluster.environment, check=True)


def _started_on(slurm: Path, node: str) -> set[int]:
    """Tasks of a node, and the daemons of their job steps."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            if {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={slurm}/slurm.conf".encode()} <= set(environment):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                found |= {int(process.name)}
                if b"slurmstepd" in Path("/proc", parent, "cmdline").read_bytes():
                    found |= {int(parent)}
        except OSError:  # it is gone
            continue
    return found
