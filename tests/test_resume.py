"""Killed in the middle of an epoch and resumed: the same weights, bit for bit, as one that was never interrupted."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import warm
from conftest import TINY
from facelm.data.datamodule import FaceDataModule
from facelm.data.sampler import EpochBatches
from facelm.launch.resume import resume_path, run_dir_for
from facelm.models.spec import write_checkpoint
from facelm.train import train
from killed_run import fit

TESTS = Path(__file__).resolve().parent
EPOCHS, STEPS = 3, 4  # 24 faces in batches of 6
STATE = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "global_step",
    "loops",
)


def job(hit, *arguments):
    return warm.run([TESTS / "killed_run.py", *arguments], cwd=TESTS, env={**os.environ, "HIT": hit})


def last(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def best_state(checkpoint):
    """What the callback of best.ckpt keeps in it."""
    (state,) = (state for key, state in checkpoint["callbacks"].items() if key.startswith("BestCheckpoint"))
    return state


def assert_same(one, other, path=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{path}: {(one - other).abs().max()}"
    else:
        assert one == other, path


def assert_same_training(one, other):
    assert one["global_step"] == EPOCHS * STEPS
    for key in STATE:
        assert (key in one) == (key in other)
        if key in one:
            assert_same(one[key], other[key], key)


@pytest.fixture(scope="module")
def common(drawn_root):
    tiny = ["data=w300", f"data.root={drawn_root}", "data.batch_size=6", "optim=adamw_cosine", "codec=subpixel"]
    return [*TINY, *tiny, f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def whole(common, tmp_path_factory):
    """Run folders of trainings that nothing interrupts, by `ema.decay`."""
    folders = {decay: tmp_path_factory.mktemp("whole") for decay in ("null", "0.9")}
    for decay, folder in folders.items():
        fit([*common, f"ema.decay={decay}", f"run_dir={folder}"])
    return folders


class TestSameWeights:
    @pytest.mark.parametrize(
        ("step", "every", "workers", "decay"),
        [(2, 1, 0, "null"), (7, 3, 2, "0.9")],
        ids=["first-epoch", "second-epoch-two-workers-ema"],
    )
    def test_after_sigkill(self, common, whole, tmp_path, step, every, workers, decay):
        how = [*common, f"ema.decay={decay}", f"data.num_workers={workers}", f"checkpoint.every_n_steps={every}"]
        assert job(f"SIGKILL {step}", *how, f"hydra.run.dir={tmp_path}").returncode == -9
        stopped = last(tmp_path)
        assert stopped["global_step"] == step - step % every
        assert stopped["facelm"]["position"]["batches"] == stopped["global_step"] % STEPS > 0
        fit([*how, f"run_dir={tmp_path}", f"resume={tmp_path}"])
        assert_same_training(last(whole[decay]), last(tmp_path))

    def test_after_max_steps_a_cosine_goes_on_as_planned(self, common, whole, tmp_path):
        """`max_steps` cuts a training of so many epochs short; its schedule still ends with the last epoch."""
        fit([*common, "ema.decay=null", f"run_dir={tmp_path}", "+trainer.max_steps=5"])
        assert last(tmp_path)["global_step"] == 5
        fit([*common, "ema.decay=null", f"run_dir={tmp_path}", f"resume={tmp_path}"])
        assert_same_training(last(whole["null"]), last(tmp_path))

    def test_in_64_bits(self, common, tmp_path):
        """Lightning widens a module after it has got its weights: they were rounded, averages of another type."""
        how = [*common, "ema.decay=0.9", "trainer.precision=64-true"]
        fit([*how, f"run_dir={tmp_path / 'whole'}"])
        assert job("SIGTERM 5", *how, f"hydra.run.dir={tmp_path / 'rest'}").returncode == 143
        assert last(tmp_path / "rest")["state_dict"]["net.conv1.weight"].dtype == torch.float64
        fit([*how, f"run_dir={tmp_path / 'rest'}", f"resume={tmp_path / 'rest'}"])
        assert_same_training(last(tmp_path / "whole"), last(tmp_path / "rest"))

    def test_averaging_leaves_the_training_itself_alone(self, whole):
        """So the weights of the last iteration, which an averaged run keeps beside, are those of a run without."""
        averaged, plain = last(whole["0.9"]), last(whole["null"])
        raw = {key.removeprefix("module."): value for key, value in averaged["current_model_state"].items()}
        assert_same(raw, plain["state_dict"], "weights")
        assert not all(torch.equal(averaged["state_dict"][key], value) for key, value in plain["state_dict"].items())

    def test_sigterm_saves_first_and_resume_alone_goes_on(self, common, whole, tmp_path):
        """Nothing but the signal writes a checkpoint; the second command names the run folder and nothing else."""
        how = [*common, "ema.decay=0.9", "data.num_workers=1", f"hydra.run.dir={tmp_path}"]
        done = job("SIGTERM 5", *how)
        assert done.returncode == 143, done.stderr[-3000:]
        assert f"go on with resume={tmp_path}/checkpoints/last.ckpt" in done.stdout
        assert last(tmp_path)["global_step"] == 6
        assert json.loads((tmp_path / "result.json").read_text())["status"] == "stopped"
        done = job("", f"resume={tmp_path}")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "not resumable" not in done.stderr
        assert "dirpath has changed" not in done.stderr
        assert_same_training(last(whole["0.9"]), last(tmp_path))
        record = json.loads((tmp_path / "result.json").read_text())
        assert record["status"] == "finished"
        assert "ema.decay=0.9" in record["overrides"]
        rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
        assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(EPOCHS * STEPS))

    def test_from_best_and_nothing_of_the_stored_config_runs(self, common, whole, tmp_path):
        """best.ckpt is written between an epoch's last batch and its end."""
        marker = tmp_path / "ran"
        best = torch.load(whole["null"] / "checkpoints" / "best.ckpt", weights_only=True)
        best["facelm"]["config"]["model"] = {"_target_": "os.system", "command": f"touch {marker}"}
        write_checkpoint(best, tmp_path / "edited.ckpt")
        fit([*common, f"run_dir={tmp_path / 'run'}", f"resume={tmp_path / 'edited.ckpt'}"])
        if best["epoch"] + 1 < EPOCHS:  # else the best epoch was the last one, and nothing was left to train
            one, other = last(whole["null"]), last(tmp_path / "run")
            for key in ("state_dict", "optimizer_states", "global_step"):
                assert_same(one[key], other[key], key)
        assert not marker.exists()


def test_a_run_that_was_stopped_before_its_report_gets_it(trained_run, tmp_path, caplog, monkeypatch):
    """Nothing is left to train, and no validation of this process has a number for the last checkpoint.

    That another shift is of no use then is said: an experiment's may have changed in between.
    """
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    shutil.rmtree(run / "report")
    cfg = OmegaConf.load(run / "config.yaml")
    monkeypatch.setenv("HOME", str(run))
    cfg.run_dir, cfg.resume, cfg.report_dir = str(run), str(run), "~/report"
    cfg.inference.annotation_shift = 0.01
    with caplog.at_level("WARNING", "facelm.training.callbacks"):
        score = train(cfg)
    assert score == best_state(last(trained_run))["best_model_score"].item()
    assert "inference.annotation_shift was 0.02, and is 0.01 now: that changes nothing" in caplog.text
    assert "inference.flip" not in caplog.text
    assert (run / "report" / "summary.json").is_file()


class TestChanged:
    """One more epoch than before, with something else typed beside `resume=`."""

    def one_more(self, common, run, *typed):
        fit([*common, f"trainer.max_epochs={EPOCHS + 1}", f"run_dir={run}", f"resume={run}", *typed])
        return last(run)

    def test_what_is_typed_for_the_optimizer(self, common, whole, tmp_path):
        """The checkpoint brings an optimizer's settings along."""
        run = shutil.copytree(whole["null"], tmp_path / "run")
        typed = ["optim.optimizer.lr=1e-5", "optim.optimizer.weight_decay=0.3"]
        stopped, done = last(run), self.one_more(common, run, "ema.decay=null", *typed)
        (before,), (group,) = (one["optimizer_states"][0]["param_groups"] for one in (stopped, done))
        assert before["weight_decay"] != group["weight_decay"] == 0.3
        assert before["initial_lr"] != group["initial_lr"] == 1e-5
        rows = csv.DictReader((run / "metrics.csv").open())
        rates = [float(row["train/lr"]) for row in rows if row["train/lr"]][-STEPS:]
        assert 0 < max(rates) <= 1e-5

    def test_without_averaging_the_last_iteration_goes_on(self, common, whole, tmp_path):
        runs = [shutil.copytree(whole[decay], tmp_path / decay) for decay in ("null", "0.9")]
        plain, averaged = (self.one_more(common, run, "ema.decay=null") for run in runs)
        assert_same(plain["state_dict"], averaged["state_dict"], "weights")

    @pytest.mark.parametrize(
        ("typed", "kept"),
        [([], True), (["crop.scale=1.3"], False), (["inference.flip=exact"], False), (["other faces"], False)],
    )
    @pytest.mark.parametrize("place", ["moved", "where it was"])
    def test_the_best_so_far_stays_where_it_compares(self, common, whole, tmp_path, caplog, typed, kept, place):
        """Its best is made better than anything that can follow."""
        run = shutil.copytree(whole["null"], tmp_path / "run")
        content = last(run)
        state = best_state(content)
        if place == "where it was":
            best = str(run / "checkpoints" / "best.ckpt")
            state.update(dirpath=str(run / "checkpoints"), best_model_path=best, kth_best_model_path=best)
        state["best_model_score"] = state["kth_value"] = torch.tensor(1e-3)
        state["best_k_models"] = {state.get("best_model_path", "best.ckpt"): torch.tensor(1e-3)}
        assert content["facelm"]["position"]["validated"]
        if "other faces" in typed:
            content["facelm"]["position"]["validated"] = "0123456789ab"
            typed = []
        write_checkpoint(content, run / "checkpoints" / "last.ckpt")
        best = (run / "checkpoints" / "best.ckpt").read_bytes()
        self.one_more(common, run, "ema.decay=null", *typed)
        assert ((run / "checkpoints" / "best.ckpt").read_bytes() == best) == kept
        assert ("the best epoch is chosen anew" in caplog.text) != kept

    def test_a_folder_of_its_own_has_a_best_of_its_own(self, common, whole, tmp_path):
        self.one_more(common, whole["null"], "ema.decay=null", f"run_dir={tmp_path}")
        best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
        assert best["epoch"] == EPOCHS
        assert last(whole["null"])["epoch"] == EPOCHS - 1


class TestRefused:
    def test_other_faces_of_the_same_number(self, drawn_root):
        one, other = (FaceDataModule(root=str(drawn_root), crop_size=64, pixel_origin=origin) for origin in (1, 0))
        one.setup()
        other.setup()
        with pytest.raises(ValueError, match="cannot go on with other batches .names and landmarks [0-9a-f]+, now"):
            other.go_on_from(one.position())
        before = {key: value for key, value in one.position().items() if key != "names and landmarks"}
        other.go_on_from(before)  # a checkpoint of 0.1.0's first days does not say

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("seed=5", "cannot go on with other batches .seed 0, now 5"),
            ("data.batch_size=4", "global batch 6, now 4"),
            ("codec=dark", "belongs to another codec"),
            ("model.name=hrnetv2_w18", "belongs to another architecture: 'hrnetv2_tiny', this run has 'hrnetv2_w18'"),
        ],
    )
    def test_another_run(self, common, whole, tmp_path, override, message):
        with pytest.raises(ValueError, match=message):
            fit([*common, override, f"run_dir={tmp_path}", f"resume={whole['null']}"])

    def test_every_n_steps(self, common, tmp_path):
        with pytest.raises(ValueError, match="every_n_steps is at least 1"):
            fit([*common, "checkpoint.every_n_steps=0", f"run_dir={tmp_path}"])


class TestFolders:
    def test_a_resumed_run_stays_in_its_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = tmp_path / "run"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").touch()
        (run / "result.json").write_text("{}")
        for resume in (run, run / "checkpoints" / "last.ckpt"):
            assert run_dir_for(str(resume), "new") == str(run)
        assert run_dir_for(None, "new") == "new"
        assert run_dir_for(str(tmp_path / "nowhere"), "other") == "other"
        (tmp_path / "loose.ckpt").touch()
        assert run_dir_for(str(tmp_path / "loose.ckpt"), "third") == "third"
        assert resume_path(str(run)) == str(run / "checkpoints" / "last.ckpt")

    def test_the_position_survives_a_run_that_stops_before_its_first_batch(self, drawn_root):
        data = FaceDataModule(root=str(drawn_root), crop_size=64)
        data.setup()
        data.go_on_from({**data.position(), "epoch": 3, "batches": 2})
        assert (data.position()["epoch"], data.position()["batches"]) == (3, 2)

    def test_workers_start_with_the_next_batch(self, drawn_root):
        """Lightning starts them before it names the epoch."""
        data = FaceDataModule(root=str(drawn_root), crop_size=64, batch_size=6)
        data.setup()
        data.go_on_from({**data.position(), "epoch": 2, "batches": 1})
        batches = data.train_dataloader().batch_sampler
        whole = EpochBatches(len(data.train_faces), 6, seed=data.seed)
        whole.set_epoch(2)
        assert list(batches) == list(whole)[1:]
        batches.set_epoch(3)
        whole.set_epoch(3)
        assert list(batches) == list(whole)
