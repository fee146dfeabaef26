"""SLURM without SLURM: whom srun started, counts that fit, the way back into the queue, peers that do not come."""

import json
import os
import signal
import threading

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from conftest import TINY, compose
from facelm.data.workers import STOP_SIGNALS
from facelm.launch import ddp, slurm
from facelm.launch.build import build_trainer

TWO_NODES = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}
"""What srun tells rank 1 of two nodes with a process each."""


@pytest.fixture
def outside(monkeypatch):
    """A process that neither SLURM nor torchrun has started."""
    for name in (*ddp.RANK_VARIABLES, ddp.STARTED_BY, *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def started(outside):
    """`started(SLURM_X="3")`: srun has started this process, with `TWO_NODES` but for what is given."""

    def start(**other):
        for name, value in {**TWO_NODES, **other}.items():
            outside.setenv(name, value)

    return start


class TestJobName:
    """Lightning takes a job of these names for a shell and would not look at what srun says."""

    @pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning")
    @pytest.mark.parametrize("name", ["train", "interactive", "bash"])
    def test_ranks_of_srun_find_each_other(self, started, tmp_path, name):
        started(SLURM_JOB_NAME=name)
        waits = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rank_zero_only, "rank", 0)  # the trainer sets it for the whole process: put back afterwards
            patch.setattr(slurm, "watch_for_peers", lambda *args: waits.append(args))
            cfg = compose("train", *TINY, "trainer=ddp_multinode", "trainer.accelerator=cpu", "trainer.devices=1")
            trainer = build_trainer(cfg, loggers=[], callbacks=[], run_dir=tmp_path)
        assert (trainer.world_size, trainer.global_rank, trainer.node_rank) == (2, 1, 1)
        ((rank, world_size, place, _),) = waits
        assert (rank, world_size) == (1, 2)
        assert place.startswith("n1:")

    def test_lightning_installs_no_handler_of_its_own(self, started):
        started()
        assert not slurm.Srun().auto_requeue


class TestCounts:
    @pytest.mark.parametrize(
        ("devices", "num_nodes", "srun"),
        [
            (1, 2, {}),
            (8, 2, {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}),
            (8, 1, {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "8"}),
            (8, 1, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}),
        ],
    )
    def test_fit(self, started, devices, num_nodes, srun):
        started(**srun)
        slurm.require_fitting_counts(devices, num_nodes)

    def test_outside(self, outside):
        slurm.require_fitting_counts(8, 2)

    @pytest.mark.parametrize(
        ("devices", "num_nodes", "srun", "said"),
        [
            # -n4 on two nodes of one device
            (
                1,
                2,
                {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
                ["4 processes on 2 nodes", "trainer.num_nodes=2 x trainer.devices=1", "--ntasks-per-node=1"],
            ),
            # two nodes, but the trainer expects one of two devices: two nodes would each wait for a local rank 1
            (2, 1, {}, ["2 processes on 2 nodes", "--nodes=1", "trainer.num_nodes=2 trainer.devices=1"]),
            # --ntasks=4 without --ntasks-per-node: three here, one there
            (
                2,
                2,
                {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "3,1"},
                ["4 processes on 2 nodes", "--ntasks-per-node=2"],
            ),
        ],
    )
    def test_other_numbers(self, started, devices, num_nodes, srun, said):
        started(**srun)
        with pytest.raises(ValueError, match="srun started") as error:
            slurm.require_fitting_counts(devices, num_nodes)
        assert [part for part in said if part not in str(error.value)] == []

    def test_are_compared_before_a_trainer_is_built(self, started, tmp_path):
        started(SLURM_STEP_NUM_TASKS="4", SLURM_STEP_TASKS_PER_NODE="2(x2)")
        cfg = compose("train", *TINY, "trainer=ddp_multinode", "trainer.accelerator=cpu", "trainer.devices=1")
        with pytest.raises(ValueError, match="srun started 4 processes on 2 nodes"):
            build_trainer(cfg, loggers=[], callbacks=[], run_dir=tmp_path)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """`scontrol(facts, code)`: one that says so of a job and ends so; what is returned reads what it was asked."""

    def install(shown, code=0, requeue_code=0):
        program = tmp_path / "bin" / "scontrol"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n'
            f'if [ "$1" = requeue ]; then echo "no way" >&2; exit {requeue_code}; fi\n'
            f"echo '{shown}'; exit {code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return lambda: (tmp_path / "asked").read_text().splitlines()

    return install


class TestRequeue:
    RUNNING = "JobId=7 JobName=train JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1 Reboot=0"

    def test_a_job_that_runs(self, scontrol):
        asked = scontrol(self.RUNNING)
        assert slurm.requeue("7") == "SLURM job 7 requeued"
        assert asked() == ["-o show job 7", "requeue 7"]

    @pytest.mark.parametrize(
        ("shown", "code", "why"),
        [
            (RUNNING.replace("RUNNING", "COMPLETING"), 0, "is COMPLETING: it comes back only if SLURM"),
            (RUNNING.replace("RUNNING", "CANCELLED"), 0, "is CANCELLED: it comes back only if SLURM"),
            (RUNNING.replace("Requeue=1", "Requeue=0"), 0, "sbatch --requeue"),
            (RUNNING.replace("BatchFlag=1", "BatchFlag=0"), 0, "sbatch --requeue"),
            (RUNNING, 1, "scontrol says"),
            ("", 0, "nothing about it"),
        ],
    )
    def test_a_job_that_does_not_go_back(self, scontrol, shown, code, why):
        asked = scontrol(shown, code)
        said = slurm.requeue("7")
        assert said.startswith("SLURM job 7 is")
        assert why in said
        assert asked() == ["-o show job 7"]

    def test_slurm_refuses(self, scontrol):
        scontrol(self.RUNNING, requeue_code=1)
        assert slurm.requeue("7") == "SLURM job 7 is not requeued: no way"

    def test_in_a_container(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "there is no scontrol here" in slurm.requeue("7")

    @pytest.mark.parametrize(
        ("job", "number", "goes_back"),
        [
            ("7", signal.SIGUSR1, True),
            ("7", signal.SIGTERM, True),
            ("7", signal.SIGINT, False),
            (None, signal.SIGTERM, False),
        ],
    )
    def test_when(self, outside, job, number, goes_back):
        """After all else: the job's other processes are killed at once when it is requeued."""
        if job:
            outside.setenv("SLURM_JOB_ID", job)
        later = []
        outside.setattr(slurm.atexit, "register", later.append)
        outside.setattr(slurm, "_told", [])
        slurm.requeue_at_exit(number)
        slurm.requeue_at_exit(number)  # one signal may come by two ways
        assert len(later) == goes_back

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
    def test_outside_of_the_training(self, outside, number):
        """While the report is made, say. It ends once: srun tells those that are left with SIGTERM to hurry."""
        later = []
        outside.setattr(slurm.atexit, "register", later.append)
        outside.setattr(slurm, "_told", [])
        outside.setenv("SLURM_JOB_ID", "7")
        former = {one: signal.getsignal(one) for one in STOP_SIGNALS}
        try:
            slurm.when_stopped("auto")
            assert signal.getsignal(signal.SIGINT) == former[signal.SIGINT]
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
        finally:
            for one, handler in former.items():
                signal.signal(one, handler)
        assert ended.value.code == 143
        assert len(later) == 1

    def test_switched_off(self):
        assert slurm.when_stopped(False) is None
        with pytest.raises(ValueError, match="slurm_requeue=yes"):
            slurm.when_stopped("yes")


class TestPeers:
    @pytest.fixture
    def ended(self, outside):
        """Whether the watch ended this process; it only ends its own thread here."""
        codes = []

        def end(code):
            codes.append(code)
            raise SystemExit

        outside.setattr(os, "_exit", end)
        outside.setenv("SLURM_STEP_NODELIST", "n[1-2]")
        return codes

    @staticmethod
    def watch(rank, folder):
        (folder / "result.json").write_text(json.dumps({"status": "running", "overrides": [], "error": None}))
        slurm.watch_for_peers(rank, 2, "n1:1234", folder, say=0.05, give_up=0.3)
        for thread in threading.enumerate():
            if thread.name == "watch-for-peers":
                thread.join(20)
        return json.loads((folder / "result.json").read_text())

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    @pytest.mark.parametrize(("rank", "whom"), [(0, "the other 1 processes"), (1, "rank 0 at n1:1234")])
    def test_that_do_not_come(self, tmp_path, ended, caplog, rank, whom):
        record = self.watch(rank, tmp_path)
        assert ended == [1]
        warning, error = [one.getMessage() for one in caplog.records]
        assert whom in warning
        assert whom in error
        assert "n[1-2]" in warning
        assert record["status"] == ("running" if rank else "failed")  # rank 0 answers for the run
        assert rank or record["error"] == error

    def test_that_come(self, tmp_path, ended, caplog, monkeypatch):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        assert self.watch(0, tmp_path)["status"] == "running"
        assert (ended, caplog.records) == ([], [])
