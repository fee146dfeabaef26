"""Nothing that a file says chooses what is imported, called or interpolated."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

import warm
from conftest import compose
from facelm.evaluate import evaluation_data
from facelm.launch.jobs import read_record
from facelm.launch.recorded import DATA, recorded_data, restored, with_places
from facelm.models.loading import load_model
from facelm.models.spec import read_facelm_checkpoint, write_checkpoint
from facelm.training.callbacks import BestCheckpoint


def code(marker):
    """What ran a command when a recorded config was instantiated."""
    folder = {"_target_": "pathlib.Path", "_args_": [str(marker.parent)]}
    return {"_target_": "facelm.launch.ddp.run_ranks", "commands": [["touch", str(marker)]], "folder": folder}


def edited(run, path, **data):
    content = read_facelm_checkpoint(run / "checkpoints" / "best.ckpt")
    content["facelm"]["config"]["data"] |= data
    write_checkpoint(content, path)
    return path


def in_a_run(run, folder):
    """Where a checkpoint lies in a run folder that knows the whole paths of `run`."""
    (folder / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.yaml", folder / "run")
    return folder / "run" / "checkpoints" / "last.ckpt"


class TestEvaluate:
    @pytest.mark.parametrize("key", sorted(DATA))
    @pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: [[bad]]])
    def test_code_in_the_recorded_data(self, trained_run, tmp_path, key, wrap):
        marker = tmp_path / "ran"
        path = edited(trained_run, tmp_path / "evil.ckpt", **{key: wrap(code(marker))})
        with pytest.raises(ValueError, match=re.escape(f"the recorded data.{key}")):
            evaluation_data(compose("evaluate", f"checkpoint={path}"), load_model(path), typed=[])
        assert not marker.exists()

    @pytest.mark.parametrize("exif", ["apply", "ignore"])
    def test_photographs_are_turned_as_in_the_run(self, trained_run, tmp_path, exif):
        path = edited(trained_run, in_a_run(trained_run, tmp_path), exif=exif)
        data = evaluation_data(compose("evaluate", f"checkpoint={path}"), load_model(path), typed=[])
        assert data.source._index.keywords["exif"] == exif

    @pytest.mark.parametrize("key", ["_target_", "cache_dir", "augmentation", "cache", "a.b", "_args_"])
    def test_what_is_not_named_is_not_read(self, trained_run, tmp_path, drawn_root, key):
        marker = tmp_path / "ran"
        path = edited(trained_run, in_a_run(trained_run, tmp_path), **{key: code(marker)})
        data = evaluation_data(compose("evaluate", f"checkpoint={path}"), load_model(path), typed=[])
        assert (data.root, type(data).__name__) == (drawn_root, "FaceDataModule")
        assert not marker.exists()

    @pytest.mark.parametrize("value", ["${oc.env:HOME}", "$\\{oc.env:HOME}", "x${name}"])
    def test_nothing_is_interpolated(self, value):
        with pytest.raises(ValueError, match="would be interpolated.*type data.root="):
            recorded_data({"data": {"root": value}})

    def test_by_the_command_itself(self, trained_run, tmp_path):
        """As in the report of the fault: exit 0, a report, and a file that the command made."""
        marker = tmp_path / "ran"
        path = edited(trained_run, tmp_path / "evil.ckpt", train_list=code(marker))
        command = ["-m", "facelm.evaluate", f"checkpoint={path}", f"hydra.run.dir={tmp_path / 'job'}"]
        done = warm.run(command)
        assert (done.returncode, marker.exists()) == (1, False)
        assert "Traceback" not in done.stderr
        assert "error: the recorded data.train_list is a text" in done.stderr


class TestOverrides:
    @pytest.mark.parametrize(
        "override",
        [
            "data.root='/my faces/x=[1]'",
            "crop.size=128",
            "~augment",
            "+trainer.max_steps=4",
            "codec={name: dark, sigma: 2.0}",
            "data.counts={train: 24, common: 6}",
            "optim.optimizer.betas=[0.9, 0.99]",
            "experiment=demo",
            "report_dir=reports",
            "data.train_list=../lists/a.txt",
            "model.weights=null",
        ],
    )
    def test_plain_values_are_restored(self, override):
        assert restored([override], ["resume=x"]) == [override]

    @pytest.mark.parametrize(
        "override",
        [
            "model._target_=os.system",
            "+trainer.callbacks=[{_target_: os.system, command: x}]",
            "loss={a: [{b: {_target_: x}}]}",
            "+augment.transforms.0._args_=[x]",
            "name=${oc.env:SECRET}",
            "name=$\\{oc.env:SECRET}",
            "name='${oc.env:SECRET}'",
            "data.root=[['${oc.env:SECRET}']]",
            "hydra.searchpath=[file:///tmp]",
            "hydra/launcher=joblib",
            "report_dir=/home/me/papers",
            "report_dir=../other",
            "+lever@trainer.callbacks=strong",
            "experiment=../../elsewhere/evil",
            "experiment=[demo,/elsewhere/evil]",
            "+data/x=evil",
            "codec={name.x: dark}",
            "seed=1,2",
            "seed=range(4)",
            "--config-dir=/tmp",
            "seed=" + "[" * 60 + "]" * 60,
            "",
        ],
    )
    def test_others_are_typed_again(self, override):
        with pytest.raises(ValueError, match="the run was started with .* type it again"):
            restored(["seed=3", override], ["resume=x"])

    def test_where_a_run_is_no_record_says(self):
        assert restored(["run_dir=/another/run", "resume=/x", "seed=3"], []) == ["seed=3"]

    def test_what_is_typed_again_is_not_looked_at(self):
        assert restored(["model._target_=a.B", "seed=3"], ["resume=x", "model._target_=a.B"]) == ["seed=3"]

    @pytest.mark.parametrize(
        ("evil", "said"),
        [
            ("loss={{_target_: facelm.launch.ddp.run_ranks, commands: [[touch, {marker}]], folder: x}}", "again"),
            ("+trainer.default_root_dir={marker}", "trainer.default_root_dir is set by facelm"),
        ],
    )
    def test_resume_by_the_command_itself(self, trained_run, tmp_path, evil, said):
        run, marker = shutil.copytree(trained_run, tmp_path / "run"), tmp_path / "ran"
        evil = evil.format(marker=marker)
        (run / "result.json").write_text(json.dumps({"status": "stopped", "overrides": [evil]}))
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(f"- '{evil}'\n")  # Hydra's own, which nothing reads
        command = ["-m", "facelm.train", f"resume={run}"]
        done = warm.run(command)
        assert (done.returncode, marker.exists()) == (1, False)
        assert "Traceback" not in done.stderr
        assert said in done.stderr


@pytest.mark.parametrize(
    "content",
    [{"overrides": "x"}, {"overrides": [1]}, {"status": 5}, {"val_nme": [1]}, {"seconds": "long"}, {"error": {}}],
)
def test_a_record_of_other_types_is_refused(tmp_path, content):
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"result\.json' was not written by facelm, or was changed: "):
        read_record(tmp_path)


class TestPlaces:
    """A checkpoint keeps the last part of an absolute path, its run folder the whole."""

    CUT = {"root": ".../faces", "val_list": "lists/a.txt"}

    def test_are_those_of_the_run_folder(self, tmp_path):
        (tmp_path / "config.yaml").write_text("data: {root: /home/me/faces, val_list: /other.txt}")
        assert with_places(self.CUT, tmp_path) == {"root": "/home/me/faces", "val_list": "lists/a.txt"}

    @pytest.mark.parametrize(
        "said",
        [
            None, "data: {root: /home/me/others}", "data: {}", "5", "a: [", "data: {root: 5}",
            "data: {root: '${oc.env:HOME}/faces'}", "!!python/name:os.system", "[" * 5000,
        ],
    )  # fmt: skip
    def test_are_asked_for_where_no_folder_says_them(self, tmp_path, said):
        if said is not None:
            (tmp_path / "config.yaml").write_text(said)
        with pytest.raises(ValueError, match="data.root=PATH|was not written by facelm"):
            with_places(self.CUT, tmp_path)


def test_a_checkpoint_does_not_say_which_file_is_deleted(tmp_path):
    """Lightning removes the former best checkpoint by the path that the resumed one holds."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "best.ckpt").touch()
    callback = BestCheckpoint(folder)
    precious = str(folder / ".." / "precious")
    state = {**callback.state_dict(), "best_model_score": torch.tensor(3.0), "best_k_models": {precious: 3.0}}
    state |= dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), precious)
    checkpoint = {"callbacks": {callback.state_key: state}, "facelm": {}, "global_step": 1}
    trainer = SimpleNamespace(estimated_stepping_batches=9, ckpt_path=str(folder / "last.ckpt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facelm.training.callbacks._validated_otherwise", lambda *_: [])
        callback.on_load_checkpoint(trainer, None, checkpoint)
    callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
    paths = {callback.best_model_path, callback.kth_best_model_path, *callback.best_k_models}
    assert paths == {str(folder / "best.ckpt")}
    assert callback.last_model_path == ""
