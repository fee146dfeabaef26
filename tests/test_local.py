"""local.yaml: where it is looked for, what it may say, what counts over it, and that a resumed run does without it."""

import json
import sys

import hydra
import pytest

from conftest import TINY
from facelm.addresses import shareable
from facelm.cli import main
from facelm.launch.jobs import Job, read_record
from facelm.launch.local import local_file, read_local, with_local
from facelm.launch.paths import CONF_DIR
from facelm.launch.resume import continued
from facelm.launch.run_folder import to_go_on_with


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Writes the local.yaml that `FACELM_CONFIG` names."""
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("FACELM_CONFIG", str(folder))
    monkeypatch.chdir(tmp_path)

    def write(text):
        (folder / "local.yaml").write_text(text)
        return folder / "local.yaml"

    return write


@pytest.fixture
def job(tmp_path, monkeypatch):
    """What a job of facelm.train or facelm.evaluate makes of the command line and local.yaml: the config, and whose."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(*typed, config="train"):
        seen = {}

        @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config)
        def program(cfg):
            cfg, values = with_local(continued(cfg) if config == "train" else cfg)
            seen.update(cfg=cfg, values=values, overrides=list(Job.current().overrides))

        monkeypatch.setattr(sys, "argv", ["job", f"hydra.run.dir={tmp_path / 'run'}", *typed])
        program()
        return seen

    return run


def measured_at(report):
    return json.loads((report / "summary.json").read_text())["checkpoint"]["data"]["root"]


class TestWhere:
    def test_the_user_s_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FACELM_CONFIG")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert local_file() is None
        file = tmp_path / ".config" / "facelm" / "local.yaml"
        file.parent.mkdir(parents=True)
        file.touch()
        assert local_file() == file

    def test_the_variable_names_the_file_or_its_folder(self, local, monkeypatch):
        file = local("seed: 1")
        assert local_file() == file
        monkeypatch.setenv("FACELM_CONFIG", str(file))
        assert local_file() == file
        monkeypatch.setenv("FACELM_CONFIG", "")
        assert local_file() is None

    def test_a_variable_that_names_nothing_is_said(self, local):
        with pytest.raises(FileNotFoundError, match=r"FACELM_CONFIG=.*config"):
            local_file()

    def test_never_the_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FACELM_CONFIG")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "local.yaml").write_text("seed: 1")
        assert local_file() is None


class TestWhatItSays:
    def test_plain_values_and_what_the_environment_holds(self, local, monkeypatch):
        monkeypatch.setenv("SCRATCH", "/scratch")
        file = local("data: {root: '${oc.env:SCRATCH}/300w'}\ntrainer.devices: 2\nlogger: [csv, wandb]\n")
        assert read_local(file) == {"data.root": "/scratch/300w", "trainer.devices": 2, "logger": ["csv", "wandb"]}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("callbacks: {mine: {_target_: os.system}}", "_target_"),
            ("data: {root: '${oc.env:NOT_SET_ANYWHERE}'}", "NOT_SET_ANYWHERE"),
            ("- 1", "keys"),
            ("data: [", "local.yaml"),
            ("hydra: {run: {dir: x}}", "hydra"),
            ("resume: x", "resume"),
            ("experiment: demo", "experiment"),
        ],
    )
    def test_what_is_refused_with_the_file_s_name(self, local, text, said):
        file = local(text)
        with pytest.raises(ValueError, match=said) as refused:
            read_local(file)
        assert str(file) in str(refused.value)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("data: {rot: x}", r"data.rot .*did you mean data.root"),
            ("trainer: {max_epochs: many}", "max_epochs"),
            ("trainer: nowhere", "nowhere"),
            ("data: {batch_size: big}", "batch_size"),
        ],
    )
    def test_what_the_config_does_not_know_is_refused_too(self, local, job, text, said):
        file = local(text)
        with pytest.raises(ValueError, match=f"(?s){said}") as refused:
            job()
        assert str(file) in str(refused.value)


class TestWhatCounts:
    def test_over_the_experiment_and_under_what_is_typed(self, local, job, caplog):
        local("trainer: {max_epochs: 7, log_every_n_steps: 3}\nmodel: {init: normal}\n")
        seen = job("experiment=demo", "trainer.max_epochs=9")
        assert (seen["cfg"].trainer.max_epochs, seen["cfg"].trainer.log_every_n_steps) == (9, 3)
        assert seen["cfg"].model.init == "normal"
        assert seen["values"] == ["trainer.log_every_n_steps=3", "model.init=normal"]
        assert set(seen["values"]) < set(seen["overrides"])

    def test_under_a_file_that_is_typed_for_this_run(self, local, job):
        local("data: {num_workers: 8, batch_size: 7}\ntrainer: {devices: 4}\n")
        seen = job("debug=fast", "ablation=batch_32", "trainer=cpu")
        assert seen["cfg"].data.num_workers == 0
        assert seen["cfg"].data.batch_size == 32
        assert seen["cfg"].trainer.devices == 1

    def test_a_file_of_a_group_can_be_chosen(self, local, job):
        local("trainer: cpu\nlogger: [tensorboard]\n")
        seen = job()
        assert seen["cfg"].trainer.accelerator == "cpu"
        assert list(seen["cfg"].logger) == ["tensorboard"]

    def test_keys_of_what_is_not_chosen_wait_for_their_turn(self, local, job):
        local("logger: {wandb: {entity: me}}\ntrainer: {devices: 1}\n")
        assert job()["values"] == ["trainer.devices=1"]
        assert job("logger=wandb")["cfg"].logger.wandb.entity == "me"
        assert job("checkpoint=x", config="evaluate")["values"] == []

    def test_drawn_faces_keep_their_folder(self, local, job):
        local("data: {root: /data/300w}\n")
        assert job("experiment=demo")["cfg"].data.root == "data/drawn"
        assert job()["cfg"].data.root == "/data/300w"

    @pytest.mark.parametrize("value", ["it's here", "C:\\x", "true", "a b", "~/x", "x=1,2", "ü"])
    def test_text_comes_through_whole(self, local, job, value):
        local(json.dumps({"data": {"root": value}}))
        assert job()["cfg"].data.root == value

    def test_without_a_file_nothing_changes(self, job):
        assert job("seed=4")["overrides"] == ["seed=4"]


class TestRuns:
    @pytest.fixture
    def stopped(self, tmp_path):
        """A run with values of a local.yaml that has changed since."""
        folder = tmp_path / "run"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        record = {"status": "stopped", "overrides": ["data.num_workers=8", "seed=3"], "local": ["data.num_workers=8"]}
        (folder / "result.json").write_text(json.dumps(record))
        return folder

    @pytest.mark.parametrize("typed", [["seed=3"], ["resume=run"], ["resume=run", "seed=3"]])
    def test_what_goes_on_is_as_it_was(self, stopped, local, job, typed):
        local("data: {num_workers: 2, batch_size: 5}\n")
        seen = job(*typed)
        assert (seen["cfg"].data.num_workers, seen["cfg"].data.batch_size, seen["cfg"].seed) == (8, 64, 3)
        assert seen["values"] == []

    def test_what_is_typed_otherwise_is_another_run(self, stopped):
        assert to_go_on_with(stopped, ["seed=3"]) == stopped
        with pytest.raises(ValueError, match="num_workers=2"):
            to_go_on_with(stopped, ["seed=3", "data.num_workers=2"])
        with pytest.raises(ValueError, match="seed=3"):
            to_go_on_with(stopped, ["data.num_workers=8"])

    def test_a_run_says_whose_values_it_has_and_is_evaluated_as_it_was(self, local, drawn_root, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["facelm"])
        local(f"data: {{root: '{drawn_root}'}}\ncrop: {{scale: 1.5}}\n")
        run = tmp_path / "run"
        assert main(["train", "data=w300", *TINY, f"hydra.run.dir={run}", "trainer.max_epochs=1"]) == 0
        assert read_record(run)["local"] == [f"data.root={drawn_root}", "crop.scale=1.5"]
        (run / "report" / "summary.json").unlink()
        local("data: {root: /nowhere}\ncrop: {scale: 1.1}\n")
        assert main(["evaluate", f"checkpoint={run}"]) == 0
        assert measured_at(run / "report") == shareable(str(drawn_root)), (
            "its own report, since nobody named other faces"
        )

    def test_a_checkpoint_from_elsewhere_is_measured_on_this_machine_s_data(
        self, local, trained_run, drawn_root, tmp_path, monkeypatch
    ):
        """A copy of the checkpoint alone: its record names a folder that is not here."""
        import torch

        content = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
        content["facelm"]["config"]["data"]["root"] = "not/here"
        torch.save(content, tmp_path / "copy.ckpt")
        monkeypatch.setattr(sys, "argv", ["facelm"])
        local(f"data: {{root: '{drawn_root}'}}\n")
        how = ["evaluate", f"checkpoint={tmp_path / 'copy.ckpt'}", f"report_dir={tmp_path / 'report'}"]
        assert main(how) == 0
        assert measured_at(tmp_path / "report") == shareable(str(drawn_root))
