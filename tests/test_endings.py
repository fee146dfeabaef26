"""However a training ends: what is resumed from its last.ckpt ends as a run that never stopped, bit for bit."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from conftest import TINY
from facelm import train as training
from facelm.data.datamodule import FaceDataModule
from facelm.training.callbacks import Stopped
from killed_run import Hit, fit
from test_resume import EPOCHS, STEPS, assert_same, assert_same_training, best_state, last

TESTS = Path(__file__).resolve().parent


class StopAt(Callback):
    """Asks the trainer to stop in batch `batch` of the whole training, counted from 1."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, *_):
        self.batch -= 1
        if self.batch == 0:
            trainer.should_stop = True


class Raise(StopAt):
    def on_train_batch_start(self, *_):
        if self.batch == 1:
            raise RuntimeError("bad luck")

    def on_train_batch_end(self, *_):
        self.batch -= 1


class TimeIsUp(StopAt):
    """`trainer.max_time` is over at that batch: Lightning's Timer is told of a day that has passed."""

    def on_train_batch_end(self, trainer, *_):
        self.batch -= 1
        if self.batch == 0:
            (timer,) = (callback for callback in trainer.callbacks if type(callback).__name__ == "Timer")
            timer._offset = 1e6


@pytest.fixture(scope="module")
def common(drawn_root):
    tiny = ["data=w300", f"data.root={drawn_root}", "data.batch_size=6", "codec=subpixel", "ema.decay=0.9"]
    return [*TINY, *tiny, f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def whole(common, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit([*common, f"run_dir={folder}"])
    return folder


def fit_with(callbacks, arguments):
    """As `fit`, with `callbacks` besides."""
    built = training.build_callbacks
    training.build_callbacks = lambda *args, **kwargs: [*built(*args, **kwargs), *callbacks]
    try:
        return fit(arguments)
    finally:
        training.build_callbacks = built


ENDINGS = {
    "max_steps": ([], ["+trainer.max_steps=5"], ["+trainer.max_steps=-1"], None, 5),
    "max_steps in the first epoch": ([], ["+trainer.max_steps=2"], ["+trainer.max_steps=-1"], None, 2),
    "max_steps at an epoch's end": ([], ["+trainer.max_steps=4"], ["+trainer.max_steps=-1"], None, 4),
    "max_time": ([TimeIsUp(6)], ["+trainer.max_time=00:01:00:00"], [], None, 6),
    "Ctrl-C": ([Hit("SIGINT", 5)], ["data.num_workers=1"], [], Stopped, 6),
    "SIGTERM": ([Hit("SIGTERM", 5)], ["data.num_workers=2"], [], Stopped, 6),
    "SIGUSR1": ([Hit("SIGUSR1", 1)], ["data.num_workers=2"], [], Stopped, 2),
    "SIGUSR2 in an epoch's last batch": ([Hit("SIGUSR2", 7)], ["data.num_workers=1"], [], Stopped, 8),
    "exception": ([Raise(7)], ["checkpoint.every_n_steps=1"], [], RuntimeError, 6),
    "exception, saved before": ([Raise(8)], ["checkpoint.every_n_steps=3"], [], RuntimeError, 6),
    "early stopping": ([EarlyStopping("val/nme", stopping_threshold=1e9)], [], [], None, 4),
    "should_stop": ([StopAt(7)], [], [], None, 7),
    "should_stop in the first epoch": ([StopAt(3)], [], [], None, 3),
    "should_stop in an epoch's last batch": ([StopAt(8)], [], [], None, 8),
    "should_stop before min_epochs": ([StopAt(2)], ["+trainer.min_epochs=2"], ["+trainer.min_epochs=null"], None, 8),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_going_on_equals_never_having_stopped(how, common, whole, tmp_path, caplog):
    callbacks, first, then, raised, steps = ENDINGS[how]
    run = [*common, f"run_dir={tmp_path}"]
    if raised:
        with pytest.raises(raised) as error:
            fit_with(callbacks, [*run, *first])
        assert f"resume={tmp_path}/checkpoints/last.ckpt" in caplog.text
        if raised is Stopped:
            assert error.value.code == (130 if how == "Ctrl-C" else 143)
    else:
        fit_with(callbacks, [*run, *first])
    stopped = last(tmp_path)
    assert stopped["global_step"] == steps
    assert stopped["facelm"]["position"]["epoch"] * STEPS + stopped["facelm"]["position"]["batches"] == steps
    fit([*run, *then, f"resume={tmp_path}"])
    one, other = last(whole), last(tmp_path)
    assert_same_training(one, other)
    assert torch.equal(best_state(one)["best_model_score"], best_state(other)["best_model_score"])
    best, again = (torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True) for folder in (whole, tmp_path))
    assert_same(best["state_dict"], again["state_dict"], "best")
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_end_waits_for_the_step_of_accumulated_gradients(common, tmp_path):
    """Two batches a step: a stop in the third batch comes after the fourth, the epoch's last."""
    how = [*common, "+trainer.accumulate_grad_batches=2", "data.batch_size=3"]  # eight batches, four steps an epoch
    fit([*how, f"run_dir={tmp_path / 'whole'}"])
    fit_with([StopAt(11)], [*how, f"run_dir={tmp_path / 'run'}"])
    assert last(tmp_path / "run")["global_step"] == 6
    assert last(tmp_path / "run")["facelm"]["position"]["batches"] == 4
    fit([*how, f"run_dir={tmp_path / 'run'}", f"resume={tmp_path / 'run'}"])
    assert_same_training(last(tmp_path / "whole"), last(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["+trainer.accumulate_grad_batches=2"], "global batch 6, now 12"),
        (["+trainer.accumulate_grad_batches=2", "data.batch_size=3"], "batches a step 1, now 2"),
    ],
)
def test_another_accumulation_cannot_go_on(common, whole, tmp_path, changed, said):
    with pytest.raises(ValueError, match=rf"cannot go on with other batches \(.*{said}"):
        fit([*common, *changed, f"run_dir={tmp_path}", f"resume={whole}"])


class TestTrainerKeys:
    def test_loaders_made_anew_have_the_same_batches(self, common, whole, tmp_path):
        how = [*common, "+trainer.reload_dataloaders_every_n_epochs=1", "data.num_workers=1", f"run_dir={tmp_path}"]
        fit_with([StopAt(5)], how)
        fit([*how, f"resume={tmp_path}"])
        assert_same_training(last(whole), last(tmp_path))

    def test_limited_batches_are_the_first_of_each_epoch(self, common, tmp_path):
        how = [*common, "+trainer.limit_train_batches=3", "+trainer.limit_val_batches=1"]
        fit([*how, f"run_dir={tmp_path / 'whole'}"])
        assert last(tmp_path / "whole")["global_step"] == 3 * EPOCHS
        fit_with([StopAt(5)], [*how, f"run_dir={tmp_path / 'run'}"])
        fit([*how, f"run_dir={tmp_path / 'run'}", f"resume={tmp_path / 'run'}"])
        for key in ("state_dict", "optimizer_states", "global_step", "loops"):
            assert_same(last(tmp_path / "whole")[key], last(tmp_path / "run")[key], key)

    @pytest.mark.parametrize(
        "key",
        [
            "overfit_batches=1",
            "overfit_batches=0.5",
            "val_check_interval=2",
            "val_check_interval=1",
            "limit_train_batches=0",
            "max_steps=0",
        ],
    )
    def test_refused(self, common, tmp_path, key):
        with pytest.raises(ValueError, match=f"trainer.{key}"):
            fit([*common, f"+trainer.{key}", f"run_dir={tmp_path}"])

    def test_no_whole_batch(self, drawn_root):
        data = FaceDataModule(root=str(drawn_root), crop_size=64, batch_size=100, drop_last=True)
        data.setup()
        with pytest.raises(ValueError, match=r"24 training faces are fewer than one batch of 100 x 1"):
            data.train_dataloader()


def runs(pid):
    """Whether there is such a process, and not only its exit code that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestWorkers:
    def loader(self, root):
        data = FaceDataModule(root=str(root), crop_size=64, batch_size=2, num_workers=2)
        data.setup()
        batches = iter(data.train_dataloader())
        next(batches)
        return batches, multiprocessing.active_children()

    def test_deaf_to_the_job_and_not_to_the_parent(self, drawn_root):
        batches, workers = self.loader(drawn_root)
        for number in ("TERM", "INT", "USR1", "USR2"):
            subprocess.run(["kill", f"-{number}", *(str(worker.pid) for worker in workers)], check=True)
        assert len(list(batches)) == 11
        assert all(worker.is_alive() for worker in workers)
        for worker in workers:
            worker.terminate()
            worker.join(5)
            assert worker.exitcode is not None
        del batches

    def test_end_when_their_parent_is_killed(self, drawn_root):
        program = (
            "import multiprocessing, signal, sys; from facelm.data.datamodule import FaceDataModule\n"
            "data = FaceDataModule(root=sys.argv[1], crop_size=64, batch_size=2, num_workers=2); data.setup()\n"
            "batches = iter(data.train_dataloader()); next(batches)\n"
            "print(*(worker.pid for worker in multiprocessing.active_children()), flush=True); signal.pause()"
        )
        with subprocess.Popen([sys.executable, "-c", program, drawn_root], stdout=subprocess.PIPE, text=True) as parent:
            workers = [int(pid) for pid in parent.stdout.readline().split()]
            parent.kill()
        assert len(workers) == 2
        deadline = time.monotonic() + 30
        while left := [pid for pid in workers if runs(pid)]:
            assert time.monotonic() < deadline, f"{left} go on"
            time.sleep(0.1)

    @pytest.mark.parametrize("descriptors", [64])
    def test_without_file_descriptors_the_command_ends(self, common, tmp_path, descriptors):
        command = [sys.executable, str(TESTS / "killed_run.py"), *common, "data.num_workers=8"]
        command += [f"hydra.run.dir={tmp_path}"]
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "-", *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=TESTS,
            env={**os.environ, "HIT": ""},
            timeout=120,
        )
        assert done.returncode == 1
        assert "Too many open files" in done.stderr
        assert json.loads((tmp_path / "result.json").read_text())["status"] == "failed", "it could not be opened"
        assert time.monotonic() - started < 100
