"""Ranks: started alike, watched, ended together; and two of them train as one process with the whole batch."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import TINY
from facelm import train as training
from facelm.launch import ddp
from frozen_job import install
from killed_run import fit

TESTS = Path(__file__).resolve().parent


def python(code):
    return [sys.executable, "-c", "import os, sys, time; rank = int(os.environ['RANK'])\n" + code]


def run(*codes, folder, **options):
    ddp.run_ranks([python(code) for code in codes], folder, **options)


class TestRunRanks:
    def test_what_ranks_are_told(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MASTER_PORT", "1")  # of something else: must not reach them
        monkeypatch.setenv("LOCAL_RANK", "7")
        names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "EXTRA")
        write = f"import json, pathlib; told = {{n: os.environ[n] for n in {names}}}\n"
        write += f"pathlib.Path({str(tmp_path)!r}, str(rank)).write_text(json.dumps(told))"
        run(write, write, folder=tmp_path, extra={"EXTRA": "x"})
        first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1))
        assert (first["RANK"], second["RANK"]) == (first["LOCAL_RANK"], second["LOCAL_RANK"]) == ("0", "1")
        assert first["WORLD_SIZE"] == "2"
        assert first["EXTRA"] == "x"
        assert first["MASTER_PORT"] == second["MASTER_PORT"] != "1"
        assert os.environ["LOCAL_RANK"] == "7"

    def test_a_failed_rank_ends_the_others(self, tmp_path):
        started = time.monotonic()
        with pytest.raises(ChildProcessError, match=r"(?s)rank 1 of 2 ended with exit code 3.*last words.*rank_1\.log"):
            run("time.sleep(60)", "print('last words'); sys.exit(3)", folder=tmp_path, grace=0.5)
        assert time.monotonic() - started < 20

    def test_a_killed_rank(self, tmp_path):
        with pytest.raises(ChildProcessError, match="rank 0 of 2 was killed by SIGKILL"):
            run("os.kill(os.getpid(), 9)", "time.sleep(60)", folder=tmp_path, grace=0.5)

    @pytest.mark.parametrize(("codes", "cause"), [([1, -9], 1), ([-9, 1], 0), ([143, 3], 1), ([1, 3], 0)])
    def test_of_several_that_have_ended_the_killed_one_is_the_cause(self, codes, cause):
        """The others see at once that it is gone, and may all have ended when they are looked at."""
        ranks = [SimpleNamespace(returncode=code, poll=lambda code=code: code) for code in codes]
        assert ddp._first_failure(ranks) == cause

    def test_sigterm_reaches_the_ranks_and_they_may_save(self, tmp_path):
        save = "import signal, pathlib\ndef stop(*_):\n    time.sleep(0.3)\n"
        save += f"    pathlib.Path({str(tmp_path)!r}, f'saved{{rank}}').touch()\n    sys.exit(143)\n"
        save += f"signal.signal(15, stop); pathlib.Path({str(tmp_path)!r}, f'up{{rank}}').touch(); time.sleep(60)"

        def stop_when_up():
            while not all((tmp_path / f"up{rank}").exists() for rank in (0, 1)):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop_when_up, daemon=True).start()
        with pytest.raises(SystemExit) as error:
            run(save, save, folder=tmp_path)
        assert error.value.code == 143
        assert all((tmp_path / f"saved{rank}").exists() for rank in (0, 1))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_ctrl_c_before_they_can_save_does_not_wait_either(self, tmp_path):
        start = "import signal, pathlib; rank and signal.signal(2, lambda *_: None)\n"
        start += f"pathlib.Path({str(tmp_path)!r}, f'up{{rank}}').touch()\n"
        start += "end = time.monotonic() + 90\nwhile time.monotonic() < end: time.sleep(1)"

        def interrupt():
            while not all((tmp_path / f"up{rank}").exists() for rank in (0, 1)):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(SystemExit) as error:
            run(start, start, folder=tmp_path, grace=80)
        assert error.value.code == 130
        assert time.monotonic() - started < 40

    def test_a_second_ctrl_c_does_not_wait_for_them(self, tmp_path):
        deaf = "import signal, pathlib; signal.signal(2, lambda *_: None)\n"
        deaf += f"pathlib.Path({str(tmp_path)!r}, 'up').touch()\n"
        deaf += "end = time.monotonic() + 90\nwhile time.monotonic() < end: time.sleep(1)"

        def interrupt():
            while not (tmp_path / "up").exists():
                time.sleep(0.05)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.2)

        threading.Thread(target=interrupt, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run(deaf, folder=tmp_path, grace=80)
        assert time.monotonic() - started < 40

    def test_ranks_end_when_nobody_waits_for_them(self, tmp_path):
        orphan = "from facelm.launch import ddp; ddp.end_with_parent(); import pathlib\n"
        orphan += f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid())); time.sleep(60)"
        code = f"import pathlib; from facelm.launch import ddp; ddp.run_ranks({[python(orphan)]!r}, "
        code += f"pathlib.Path({str(tmp_path)!r}))"
        waiting = subprocess.Popen([sys.executable, "-c", code])
        pid_file = tmp_path / "pid"
        while not (pid_file.exists() and pid_file.read_text()):
            assert waiting.poll() is None
            time.sleep(0.1)
        waiting.kill()
        waiting.wait()
        deadline = time.monotonic() + 30
        while alive(int(pid_file.read_text())):
            assert time.monotonic() < deadline, "the rank goes on without the process that started it"
            time.sleep(0.2)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


class TestRank:
    @pytest.mark.parametrize(
        ("environment", "rank"),
        [
            ({}, None),
            ({"LOCAL_RANK": "1", "RANK": "9", "WORLD_SIZE": "16"}, 9),  # torchrun
            ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9"}, 9),  # srun
            ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),  # srun of one process
            ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, None),  # a batch script without srun
        ],
    )
    def test_from_the_environment(self, monkeypatch, environment, rank):
        for name in (*ddp.RANK_VARIABLES, *(name for name in os.environ if name.startswith("SLURM_"))):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert ddp.is_rank() == (rank is not None)
        assert ddp.global_rank() == (rank or 0)


def few_faces(root, folder, train=8, val=7):
    """List files with training and validation faces of their own."""
    names = sorted(p.relative_to(root).with_suffix("").as_posix() for p in (root / "helen/trainset").glob("*.pts"))
    (folder / "train.txt").write_text("\n".join(names[:train]))
    (folder / "val.txt").write_text("\n".join(names[train : train + val]))
    lists = [f"data.train_list={folder / 'train.txt'}", f"data.val_list={folder / 'val.txt'}"]
    return ["data=w300", f"data.root={root}", *lists, "data.eval_batch_size=2"]


def frozen_job(*arguments, program=(str(TESTS / "frozen_job.py"),)):
    command = [sys.executable, *program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


class TestTwoRanksAreOneProcess:
    @pytest.fixture(scope="class")
    def runs(self, drawn_root, tmp_path_factory):
        """Run folders of 20 steps with 1 x 4 and 2 x 2 faces; in the first 10 the backbone is frozen."""
        folder = tmp_path_factory.mktemp("ranks")
        same = [*TINY, *few_faces(drawn_root, folder), "augment=strong", "codec=subpixel", "trainer.precision=64-true"]
        same += ["optim=adamw_cosine", "optim.optimizer._target_=torch.optim.SGD", "optim.optimizer.lr=0.1"]
        same += [
            "freeze_backbone_epochs=5",
            "trainer.max_epochs=10",
            "+trainer.check_val_every_n_epoch=10",
            "trainer.log_every_n_steps=1",
        ]
        done = frozen_job(*same, "trainer.devices=2", "data.batch_size=2", f"hydra.run.dir={folder / '2'}")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "sync_dist" not in done.stderr
        built = training.build_callbacks
        install()
        try:
            fit([*same, "data.batch_size=4", f"run_dir={folder / '1'}"])
        finally:
            training.build_callbacks = built
        return folder / "1", folder / "2"

    @staticmethod
    def seen(run, rank):
        return json.loads((run / f"seen_{rank}.json").read_text())

    @staticmethod
    def logged(run, name):
        return [float(row[name]) for row in csv.DictReader((run / "metrics.csv").open()) if row[name]]

    def test_same_crops(self, runs):
        alone, together = self.seen(runs[0], 0)["crops"], [self.seen(runs[1], rank)["crops"] for rank in (0, 1)]
        assert len(alone) == 20
        assert alone == [first + second for first, second in zip(*together, strict=True)]

    def test_same_losses(self, runs):
        alone, together = self.seen(runs[0], 0)["loss"], [self.seen(runs[1], rank)["loss"] for rank in (0, 1)]
        assert alone == pytest.approx([(a + b) / 2 for a, b in zip(*together, strict=True)], rel=1e-9)
        assert together[0] != together[1]
        assert alone[-1] != alone[0]
        assert self.logged(runs[0], "train/loss") == pytest.approx(self.logged(runs[1], "train/loss"), rel=1e-9)

    def test_seven_validation_faces_count_once(self, runs):
        alone, together = (self.logged(run, "val/nme") for run in runs)
        assert len(alone) == 1
        assert alone == pytest.approx(together, rel=1e-9)

    def test_same_weights(self, runs):
        one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-12, msg=name)


class TestCommandLine:
    """Sweeps of jobs with two ranks, from the real command line."""

    def test_a_job_fails_the_next_one_ends_with_its_report(self, drawn_root, tmp_path):
        """codec.sigma=-1 cannot be built."""
        arguments = [*TINY, *few_faces(drawn_root, tmp_path), "trainer.devices=2", "trainer.max_epochs=1"]
        arguments += [f"hydra.sweep.dir={tmp_path / 'sweep'}", "codec=subpixel", "codec.sigma=-1,1.5"]
        done = frozen_job("-m", *arguments, program=("-m", "facelm.train"))
        assert done.returncode == 1
        assert "this job failed: " in done.stdout
        assert "Traceback" not in done.stderr
        report = json.loads((tmp_path / "sweep/1/report/summary.json").read_text())["subsets"]["val"]
        result = json.loads((tmp_path / "sweep/1/result.json").read_text())
        assert report["n"] == 7
        assert report["nme"] == pytest.approx(result["val_nme"], abs=0.01)
        assert "`codec.sigma=1.5` | finished" in (tmp_path / "sweep/sweep.md").read_text()
        assert "`codec.sigma=-1` | failed" in (tmp_path / "sweep/sweep.md").read_text()

    def test_the_rank_that_raised_is_the_one_that_is_blamed(self, drawn_root, tmp_path):
        """With seed=13 rank 1 raises; rank 0, which waits for its gradients, fails too and knows less."""
        arguments = [*TINY, *few_faces(drawn_root, tmp_path), "trainer.devices=2", "trainer.max_epochs=1"]
        done = frozen_job(*arguments, "seed=13", f"hydra.run.dir={tmp_path / 'run'}")
        assert done.returncode == 1
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["status"], result["error"]) == ("failed", "rank 1: RuntimeError: bad luck")

    @staticmethod
    def seen(sweep, job, rank):
        return json.loads((sweep / str(job) / f"seen_{rank}.json").read_text())

    def test_every_rank_has_the_trial_that_optuna_drew(self, drawn_root, tmp_path):
        """Unseeded, so a rank that ran the sweep again would train something else."""
        pytest.importorskip("optuna")
        sweep = tmp_path / "sweep"
        arguments = [*TINY, *few_faces(drawn_root, tmp_path), "trainer.devices=2", "trainer.max_epochs=1"]
        arguments += ["hydra/sweeper=facelm_optuna", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={sweep}"]
        arguments += ["seed=choice(2,3)", "optim.optimizer.lr=tag(log,interval(1e-4,1e-2))"]
        done = frozen_job("-m", *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        for job in range(2):
            result = json.loads((sweep / str(job) / "result.json").read_text())
            typed = dict(override.split("=", 1) for override in result["overrides"])
            assert result["status"] == "finished"
            seen = [self.seen(sweep, job, rank) for rank in (0, 1)]
            assert [s["seed"] for s in seen] == [int(typed["seed"])] * 2
            assert [s["lr"] for s in seen] == [float(typed["optim.optimizer.lr"])] * 2
        assert sorted(p.name for p in sweep.iterdir() if p.is_dir()) == ["0", "1"]
        assert "best of" in done.stdout
