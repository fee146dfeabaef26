import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.errors import HydraException

import facelm.evaluate as evaluate_module
import warm
from conftest import compose
from facelm.commands.describe import known_nme
from facelm.evaluate import evaluate, evaluation_data, report_folder, spec_changes
from facelm.evaluation.predictions import predict_faces
from facelm.launch.key_names import with_nearest
from facelm.models.cards import write_card
from facelm.models.loading import load_model
from facelm.models.spec import read_facelm_checkpoint
from facelm.models.weights import save_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def command_line(trained_run, drawn_root, tmp_path_factory):
    """(finished process, report folder) of the real command on a tree with the common subset only."""
    root = tmp_path_factory.mktemp("only_common")
    for folder in ("helen/testset", "lfpw/testset"):
        shutil.copytree(drawn_root / folder, root / folder)
    report = tmp_path_factory.mktemp("report")
    command = [
        "-m", "facelm.evaluate", f"checkpoint={trained_run}", f"data.root={root}",
        f"report_dir={report}", "data.num_workers=0", f"hydra.run.dir={report / 'job'}",
    ]  # fmt: skip
    return warm.run(command), report


class TestCommandLine:
    def test_only_what_is_there_is_measured(self, command_line):
        done, report = command_line
        assert done.returncode == 0, done.stderr[-3000:]
        summary = json.loads((report / "summary.json").read_text())
        assert list(summary["subsets"]) == ["common"]
        assert any("challenge and test absent" in note for note in summary["notes"])

    def test_the_same_numbers_as_the_training_reported(self, command_line, trained_run):
        _, report = command_line
        ours = json.loads((report / "summary.json").read_text())["subsets"]["common"]
        theirs = json.loads((trained_run / "report" / "summary.json").read_text())["subsets"]["common"]
        # Other subsets, other batches: native code adds up a batch of another size in another order.
        assert ours["nme"] == pytest.approx(theirs["nme"], abs=1e-4)
        assert set(ours) >= {"n", "nme", "nme_interpupil", "nme_box", "fr@8", "fr@10", "auc@8", "auc@10", "nme_ci95"}

    def test_the_mean_shape_travels_in_the_checkpoint(self, command_line):
        _, report = command_line  # there are no training faces under this root
        assert json.loads((report / "summary.json").read_text())["mean_shape"]["common"]["nme"] > 10


class TestData:
    def test_a_run_is_measured_on_its_own_data(self, trained_run, drawn_root):
        cfg = compose("evaluate", f"checkpoint={trained_run}")
        data = evaluation_data(cfg, load_model(trained_run), typed=[])
        assert data.root == drawn_root
        assert data.crop_size == 64

    def test_a_typed_root_is_obeyed(self, trained_run, tmp_path):
        cfg = compose("evaluate", f"checkpoint={trained_run}", f"data.root={tmp_path}")
        data = evaluation_data(cfg, load_model(trained_run), typed=[f"data.root={tmp_path}"])
        assert data.root == tmp_path

    def test_nothing_to_evaluate(self, trained_run, tmp_path):
        cfg = compose("evaluate", f"checkpoint={trained_run}", f"data.root={tmp_path}")
        model = load_model(trained_run)
        data = evaluation_data(cfg, model, typed=["data.root=x"])
        with pytest.raises(FileNotFoundError, match="nothing to evaluate under data.root"):
            evaluate(model, data, CPU, tmp_path)

    def test_how_the_faces_are_loaded_does_not_say_which(self, trained_run, drawn_root):
        typed = ["data.num_workers=3"]
        cfg = compose("evaluate", f"checkpoint={trained_run}", *typed)
        data = evaluation_data(cfg, load_model(trained_run), typed)
        assert (data.root, data.num_workers) == (drawn_root, 3)

    @pytest.mark.parametrize(
        "typed",
        [
            "data.pixel_origin=0",
            "landmarks=wflw98",
            "+augment=strong",
            "+inference.flip=none",
        ],
    )
    def test_what_the_checkpoint_decides_is_refused(self, trained_run, typed):
        """And training's name of what can be changed."""
        cfg = compose("evaluate", f"checkpoint={trained_run}", typed)
        with pytest.raises(ValueError, match=f"{re.escape(typed)}: that is the checkpoint's own.*pixel_origin="):
            evaluation_data(cfg, load_model(trained_run), [typed])

    @pytest.mark.parametrize("typed", ["crop.size=128", "inference.flip=none"])
    def test_also_where_an_evaluation_has_no_such_key(self, typed):
        with pytest.raises(HydraException) as caught:
            compose("evaluate", "checkpoint=x", typed)
        (said,) = with_nearest(caught.value, ["checkpoint=x", typed])
        assert said.startswith(f"{typed.partition('=')[0]}: that is the checkpoint's own")

    def test_faces_held_out_of_the_training_are_found_again(self, trained_run, drawn_root, tmp_path):
        """Of other data nobody knows which were held out."""
        shutil.copytree(drawn_root / "helen/trainset", tmp_path / "helen/trainset")
        model = load_model(trained_run)
        model = replace(model, faces={}, record={**model.record, "data": {"root": str(tmp_path), "hold_out": 0.2}})
        cfg = compose("evaluate", f"checkpoint={trained_run}")
        data = evaluation_data(cfg, model, typed=[])
        faces, labels = data.evaluation_faces()
        data.setup()
        assert [face.name for face in faces] == [face.name for face in data.val_faces]
        assert set(labels) == {"held-out"}
        assert not {face.name for face in faces} & {face.name for face in data.train_faces}
        named = [f"data.root={tmp_path}"]
        other = evaluation_data(compose("evaluate", f"checkpoint={trained_run}", *named), model, named)
        with pytest.raises(FileNotFoundError, match="nothing to evaluate"):
            other.evaluation_faces()


class TestWhereTheReportGoes:
    def test_a_run_s_own_report_is_not_replaced_by_another_kind_of_evaluation(self, trained_run, tmp_path, monkeypatch):
        job = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
        monkeypatch.setattr(evaluate_module.HydraConfig, "get", lambda: job)
        model = load_model(trained_run)
        typed = {
            "": trained_run / "report",
            "flip=none": tmp_path,
            "annotation_shift=0": tmp_path,
            "data.num_workers=0": trained_run / "report",
            "data.val_list=others.txt": tmp_path,
            f"report_dir={tmp_path / 'mine'}": tmp_path / "mine",
            "report_dir='~/mine'": tmp_path / "mine",
        }
        monkeypatch.setenv("HOME", str(tmp_path))
        for override, folder in typed.items():
            given = list(filter(None, [override]))
            cfg = compose("evaluate", f"checkpoint={trained_run}", *given)
            assert report_folder(cfg, model, given) == folder

    def test_the_report_is_the_result_s(self, trained_run, tmp_path, monkeypatch):
        """Of a run with a best.ckpt that is not last.ckpt."""
        job = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
        monkeypatch.setattr(evaluate_module.HydraConfig, "get", lambda: job)
        cfg = compose("evaluate", f"checkpoint={trained_run}")
        assert report_folder(cfg, load_model(trained_run / "checkpoints" / "best.ckpt"), []) == trained_run / "report"
        assert report_folder(cfg, load_model(trained_run / "checkpoints" / "last.ckpt"), []) == tmp_path

    def test_a_report_of_another_kind_is_not_the_model_s_nme(self, trained_run, tmp_path):
        run = shutil.copytree(trained_run, tmp_path / "run")
        own = known_nme(load_model(run))
        assert own["full"] > 0
        model = load_model(run, annotation_shift=0.0)
        data = evaluation_data(compose("evaluate", f"checkpoint={run}"), model, typed=[])
        evaluate(model, data, CPU, run / "report")
        assert known_nme(load_model(run)) == {}
        assert known_nme(model) != own


class TestPublishedFiles:
    @pytest.mark.parametrize(
        ("name", "naming", "codec", "flip", "common"),
        [
            ("hrnetv2_w18_300w_256x256-eea53406_20211019.pth", "mmpose-0.x", "mmpose", "shifted", 2.92),
            ("HR18-300W.pth", "hrnet", "hrnet", "none", 2.91),
        ],
    )
    def test_known_by_name(self, tmp_path, name, naming, codec, flip, common):
        from facelm.models import build_model

        path = tmp_path / "any.pth"
        save_weights(build_model("hrnetv2_w18"), path, naming)
        path.rename(tmp_path / name)
        model = load_model(tmp_path / name)
        assert model.spec.codec["name"] == codec
        assert (model.spec.pixel_origin, model.spec.flip) == (0, flip)
        assert model.published["common"] == common

    def test_weights_that_say_nothing_are_refused(self, tmp_path):
        from facelm.models import build_model

        save_weights(build_model("hrnetv2_tiny"), tmp_path / "some.pth", "hrnet")
        with pytest.raises(ValueError, match="not what they mean.*facelm convert"):
            load_model(tmp_path / "some.pth")


class TestCards:
    """A tiny network with a card, evaluated on faces that its card gives one number for, and one of others."""

    @pytest.fixture(scope="class")
    def table(self, trained_run, drawn_root, tmp_path_factory):
        model, tmp_path = load_model(trained_run), tmp_path_factory.mktemp("carded")
        path = tmp_path / "mine.safetensors"
        save_weights(model.net, path, "hrnet")
        write_card(path, model.spec, nme={"common": 4.5, "dev of its twin": 3.5}, data="24 drawn faces")
        cfg = compose("evaluate", f"checkpoint={path}", f"data.root={drawn_root}", "data.num_workers=0")
        carded = load_model(path)
        evaluate(carded, evaluation_data(cfg, carded, ["data.root"]), CPU, tmp_path / "report")
        return (tmp_path / "report" / "table.md").read_text()

    def test_numbers_of_other_faces_are_not_beside_ours(self, table):
        header, _, common = table.splitlines()[:3]
        assert header.endswith("| mine |")
        assert common.endswith("| 4.50 |")
        assert "mine, published NME: dev of its twin 3.5" in table

    def test_what_it_learned_from_is_said(self, table):
        assert "mine was trained on 24 drawn faces" in table


class TestLoading:
    def test_changes_replace_entries_of_the_spec(self, trained_run):
        model = load_model(trained_run, flip="exact", codec={"name": "dark", "sigma": 2.0})
        assert model.spec.flip == "exact"
        assert model.spec.build_codec().name == "dark"

    def test_what_is_typed_replaces_entries_nothing_replaces_none(self, trained_run):
        given = compose(
            "evaluate", "checkpoint=x", "flip=shifted", "annotation_shift=0", "codec={name: dark, sigma: 2}"
        )
        assert spec_changes(given) == {
            "flip": "shifted",
            "annotation_shift": 0,
            "codec": {"name": "dark", "sigma": 2},
        }
        assert load_model(trained_run).spec.annotation_shift == 0.02
        assert load_model(trained_run, **spec_changes(given)).spec.annotation_shift == 0
        assert spec_changes(compose("evaluate", "checkpoint=x")) == {}

    def test_the_shift_moves_each_face_by_a_share_of_its_own_box(self, trained_run):
        model = load_model(trained_run)
        data = evaluation_data(compose("evaluate", f"checkpoint={trained_run}"), model, typed=[])
        faces, _ = data.evaluation_faces()
        found, unmoved = (
            predict_faces(
                model.net, replace(model.spec, annotation_shift=shift), data.faces_loader(faces), CPU
            ).predicted
            for shift in (0.02, 0.0)
        )
        expected = [[[0.02 * face.box.side, 0.0]] * 68 for face in faces]
        assert np.abs(np.asarray(found) - np.asarray(unmoved) - expected).max() < 1e-3

    def test_of_another_model(self, trained_run, tmp_path):
        checkpoint = read_facelm_checkpoint(trained_run / "checkpoints" / "best.ckpt")
        checkpoint["facelm"]["spec"]["architecture"] = "hrnetv2_w18"
        torch.save(checkpoint, tmp_path / "wrong.ckpt")
        with pytest.raises(ValueError, match="wrong.ckpt"):
            load_model(tmp_path / "wrong.ckpt")
