"""`first=`: a training that starts from another, both in one command and one run folder, resumed by `resume=RUN`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from conftest import TINY, compose
from facelm import train as training
from facelm.launch.jobs import Job
from facelm.launch.resume import as_overrides, first_changes, merged

TESTS = Path(__file__).resolve().parent
FIRST = ["crop.size=96", "trainer.max_epochs=1"]
FIRST_OPTION = "first={crop: {size: 96}, trainer: {max_epochs: 1}}"


def job(*arguments, hit="", **environment):
    """facelm.train in a process of its own, which a signal may hit (see killed_run.py)."""
    command = [sys.executable, str(TESTS / "killed_run.py"), *arguments]
    environment = {**os.environ, "HIT": hit, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS, env=environment)


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def status(run):
    return json.loads((run / "result.json").read_text())["status"]


def assert_same_weights(one, other):
    one, other = last(one)["state_dict"], last(other)["state_dict"]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def common(drawn_root):
    """The second training: two epochs of four steps at 64 px; the first has one of them at 96 px."""
    recipe = ["codec=subpixel", "optim=adamw_cosine", "ema.decay=0.9", "data.batch_size=6", "trainer.max_epochs=2"]
    return [*TINY, "data=w300", f"data.root={drawn_root}", *recipe]


@pytest.fixture(scope="module")
def by_hand(common, tmp_path_factory):
    """The same as two commands: the two run folders."""
    before, after = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after")
    for command in (
        [*merged(common, FIRST), f"hydra.run.dir={before}"],
        [*merged(common, [f"model.weights={before}/checkpoints/last.ckpt"]), f"hydra.run.dir={after}"],
    ):
        done = job(*command)
        assert done.returncode == 0, done.stderr[-3000:]
    return before, after


@pytest.mark.parametrize("step", [2, 6], ids=["in-the-first", "in-the-second"])
def test_stopped_and_resumed_it_is_the_same_as_two_commands(common, by_hand, tmp_path, step):
    run = tmp_path / "a run's folder"
    folder = f"hydra.run.dir='{run!s}'".replace("run's", "run\\'s")
    stopped = job(*common, FIRST_OPTION, folder, hit=f"SIGTERM {step}")
    assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert (status(run / "first"), status(run)) == ("stopped" if step == 2 else "finished", "stopped")
    assert ("resume=" + str(run) + " goes on with it, and then with the second" in stopped.stdout) == (step == 2)
    resumed = job("resume='" + str(run).replace("'", "\\'") + "'")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    goes_on = run / "first" if step == 2 else run
    assert f"Restored all states from the checkpoint at {goes_on}/checkpoints/last.ckpt" in resumed.stderr
    assert resumed.stderr.count("Restored all states") == 1
    assert ("first training: crop.size=96 trainer.max_epochs=1" in resumed.stdout) == (step == 2)
    for made, hand in ((run / "first", by_hand[0]), (run, by_hand[1])):
        assert status(made) == "finished"
        assert_same_weights(made, hand)
    names = [OmegaConf.load(made / "config.yaml").name for made in (run / "first", run)]
    assert names == ["train_first", "train"]  # two runs in W&B


def test_ranks_of_torchrun_do_not_each_start_it(common, tmp_path):
    done = job(*common, FIRST_OPTION, f"hydra.run.dir={tmp_path}", LOCAL_RANK="1", RANK="1")
    assert done.returncode == 1
    assert "run it as a job of its own" in done.stderr
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize("first", [FIRST_OPTION, "first=null"], ids=["as-typed", "as-the-rank-recorded-it"])
def test_a_finished_one_is_taken_from_where_it_lies(tmp_path, monkeypatch, first):
    """Also where the rest is to go to another folder, and where rank 0 was killed before its first checkpoint."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "result.json").write_text('{"status": "finished"}')
    monkeypatch.setattr(training, "composed", lambda overrides: compose("train", *overrides))
    typed = [first, f"resume={tmp_path}", "run_dir=elsewhere", "seed=3"]
    cfg, job = training.after_first(compose("train", *typed), Job(tuple(typed)))
    assert cfg.model.weights == f"{tmp_path}/first/checkpoints/last.ckpt"
    assert (cfg.first, cfg.resume, cfg.run_dir, cfg.seed) == (None, None, "elsewhere", 3)
    assert "seed=3" in job.overrides


def test_what_is_typed_holds_for_both_trainings():
    cfg = compose("train", "experiment=hrnetv2_w18_cpu")
    own = {"crop.size=128", "trainer.max_epochs=30", "optim.optimizer.lr=0.0015", "ema.decay=0.998"}
    assert set(first_changes(cfg, ["seed=1"])) == own
    assert set(first_changes(cfg, ["trainer.max_epochs=2", "ema.decay=null"])) == {
        "crop.size=128",
        "optim.optimizer.lr=0.0015",
    }
    assert set(first_changes(cfg, ["trainer.max_epochs=2", "first.trainer.max_epochs=30"])) == own
    assert set(first_changes(cfg, ["crop.size=64", "first={}"])) == own


def test_a_part_of_a_config_as_overrides():
    values = {"crop": {"size": 96}, "ema": {"decay": None}, "native": True, "name": "a 'b'"}
    assert as_overrides(values) == ["crop.size=96", "ema.decay=null", "native=true", """name="a 'b'\""""]


def test_of_two_overrides_of_one_key_the_later_counts():
    assert merged(["a=null", "+b=2", "a.c=3"], ["b=4", "a=null"]) == ["a.c=3", "b=4", "a=null"]


def test_experiments_of_ones_own_are_found_in_the_second_config_too(tmp_path):
    """`hydra.searchpath=` is no override of the job's; the config that is composed anew needs it all the same."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    (tmp_path / "job.py").write_text(
        "import hydra\nfrom facelm.launch.paths import CONF_DIR\nfrom facelm.launch.resume import composed\n"
        "@hydra.main(version_base='1.3', config_path=str(CONF_DIR), config_name='train')\n"
        "def main(cfg):\n    print(composed(['experiment=mine', 'seed=7']).name)\n"
        "main()\n"
    )
    command = [sys.executable, "job.py", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "experiment=mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mine"], done.stderr[-2000:]
