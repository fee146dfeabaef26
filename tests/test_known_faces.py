"""An evaluation knows the faces of its run again, whatever has become of the data; and numbers of others do not mix."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import warm
from conftest import TINY
from facelm.cli import main as facelm
from facelm.data.dataset import Photographs
from facelm.data.faces import Face, data_fingerprint, name_hashes
from facelm.evaluation.known_faces import (
    fingerprints,
    other_faces,
    photographs,
    shared_photographs,
    trained_on,
    unlike_report,
)
from facelm.geometry.boxes import Box
from facelm.launch.build import build_network, compose_config, model_spec
from facelm.models.spec import ModelSpec, checkpoint_facts, read_facts


def a_face(name, shift=0.0):
    return Face(name, None, np.full((68, 2), shift), Box((0.0, 0.0), 1.0), "x")


FACES = [a_face(name) for name in "abcd"]
KNOWN = {"validated": frozenset(name_hashes(FACES[:2])), "trained": frozenset(name_hashes(FACES[2:]))}
PRINT = data_fingerprint(FACES[:2])


class TestUnlikeReport:
    @pytest.fixture
    def report(self, tmp_path):
        known = {"checkpoint": {"data": {"fingerprints": fingerprints(FACES, ["val", "val", "test", "test"])}}}
        (tmp_path / "summary.json").write_text(json.dumps(known))
        return tmp_path

    def test_the_same_faces_and_a_subset_more(self, report, tmp_path):
        more = [*FACES, a_face("e")]
        assert unlike_report(report, more, ["val", "val", "test", "test", "new"], Photographs(more).content) == []
        assert unlike_report(tmp_path / "none", FACES, ["val"] * 4, Photographs(FACES).content) == []

    @pytest.mark.parametrize("count", [2, 3])
    def test_a_subset_that_did_not_validate_has_lost_faces(self, report, count):
        (said,) = unlike_report(report, FACES[:count], ["val", "val", "test"][:count], Photographs(FACES).content)
        assert "'test'" in said

    @pytest.mark.parametrize("content", [b"another", b"photo 1, and more"])
    def test_a_photograph_is_another(self, tmp_path, content):
        """One of as many bytes, too."""
        faces = [replace(face, image=tmp_path / f"{face.name}.jpg") for face in FACES]
        for face in faces:
            face.image.write_bytes(b"photo 1")
        labels, content_of = ["val", "val", "test", "test"], Photographs(faces).content
        known = {"checkpoint": {"data": {"contents": photographs(faces, labels, content_of)}}}
        (tmp_path / "summary.json").write_text(json.dumps(known))
        assert unlike_report(tmp_path, faces, labels, content_of) == []
        faces[2].image.write_bytes(content)
        (said,) = unlike_report(tmp_path, faces, labels, content_of)
        assert "photographs of 'test'" in said


class TestOtherFaces:
    def test_the_run_s_own_are_none(self):
        assert other_faces(FACES[:2], ["val", "val"], KNOWN, PRINT) == []

    def test_nor_are_subsets_that_did_not_validate(self):
        assert other_faces(FACES, ["val", "val", "test", "test"], KNOWN, PRINT) == []

    def test_one_more_in_their_subset(self):
        (said,) = other_faces(FACES[:3], ["val"] * 3, KNOWN, PRINT)
        assert said.startswith("1 faces are measured with them")

    def test_one_that_is_gone(self):
        (said,) = other_faces(FACES[:1], ["val"], KNOWN, PRINT)
        assert said.startswith("1 of the 2 faces")

    def test_other_landmarks(self):
        (said,) = other_faces([FACES[0], a_face("b", 1.0)], ["val"] * 2, KNOWN, PRINT)
        assert "landmarks" in said

    def test_a_test_set_alone_is_compared_with_nothing(self):
        assert other_faces([a_face("e")], ["test"], KNOWN, PRINT) == []
        assert other_faces([a_face("e")], ["full"], KNOWN, PRINT, ["full"])

    def test_an_older_checkpoint_says_nothing(self):
        assert other_faces(FACES, ["val"] * 4, {}, "") == []


def test_faces_that_trained_the_model_are_told():
    assert trained_on(FACES[:2], KNOWN) == []
    (said,) = trained_on(FACES[1:], KNOWN)
    assert said.startswith("2 of the 3 faces have the names of faces that trained this model, for example 'c'")


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), "x", 5])
def test_what_a_checkpoint_says_of_faces_is_checked(value):
    facts = checkpoint_facts(ModelSpec(architecture="hrnetv2_tiny"), {})
    with pytest.raises(ValueError, match="64-bit"):
        read_facts({"facelm": {**facts, "faces": {"trained": value}}})


@pytest.fixture(scope="module")
def run(drawn_root, tmp_path_factory):
    """A run on the 24 training faces alone, given by a relative root, with a fifth of them held out."""
    folder = tmp_path_factory.mktemp("known")
    shutil.copytree(drawn_root / "helen/trainset", folder / "faces/helen/trainset")
    how = [*TINY, "data=w300", "data.root=faces", "data.hold_out=0.2", "trainer.max_epochs=1", "hydra.run.dir=run"]
    done = facelm_module("train", folder, *how)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def of_300w_lp(run, tmp_path_factory):
    """The run's checkpoint, as if it had trained on 300W-LP."""
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["facelm"]["config"]["data"]["_target_"] = "facelm.data.w300lp.W300LpFaceDataModule"
    torch.save(checkpoint, path := tmp_path_factory.mktemp("lp") / "lp.ckpt")
    return path


def test_photographs_that_two_sets_share_are_told_where_measured(of_300w_lp, run, tmp_path):
    how = ["data=w300", f"data.root={run.parent / 'faces'}", "data.hold_out=0.2", "device=cpu"]
    done = facelm_module("evaluate", tmp_path, f"checkpoint={of_300w_lp}", *how, "report_dir=report")
    assert done.returncode == 0, done.stderr[-3000:]
    notes = json.loads((tmp_path / "report" / "summary.json").read_text())["notes"]
    assert any(note.startswith("300W-LP has photographs of 300W") for note in notes)
    assert shared_photographs("w300lp", "wflw") == shared_photographs("w300", "w300") == []


def test_photographs_that_two_sets_share_are_told_where_weights_start_a_training(of_300w_lp):
    cfg = compose_config([*TINY, "data=w300", "data.root=x", f"model.weights={of_300w_lp}"])
    with pytest.warns(UserWarning, match="300W-LP has photographs of 300W"):
        build_network(cfg, model_spec(cfg))


def facelm_module(name, where, *overrides):
    return warm.run(["-m", f"facelm.{name}", *overrides], cwd=where)


def names_in(report):
    return [line.split(",")[0] for line in (report / "per_face.csv").read_text().splitlines()[1:]]


@pytest.fixture
def copied(run, tmp_path):
    """The same run and data at another place."""
    shutil.copytree(run.parent, tmp_path / "there")
    record = json.loads((tmp_path / "there/run/result.json").read_text())
    record["data_root"] = str(tmp_path / "there/faces")
    (tmp_path / "there/run/result.json").write_text(json.dumps(record))
    return tmp_path / "there/run"


class TestAfterTheDataChanged:
    def test_a_new_face_changes_neither_the_faces_nor_the_number(self, run, copied):
        trainset = copied.parent / "faces/helen/trainset"
        first = min(trainset.glob("*.pts"))
        for path in (first, first.with_suffix(".jpg")):
            shutil.copy(path, trainset / f"0000_1{path.suffix}")
        validated = (run / "validated.txt").read_text().split()
        assert names_in(run / "report") == validated
        shutil.rmtree(copied / "report")  # else the run's own, left alone, would pass for a new one
        done = facelm_module("evaluate", copied.parent, f"checkpoint={copied}", "data.num_workers=0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert names_in(copied / "report") == validated
        summary = [json.loads((one / "report/summary.json").read_text())["subsets"] for one in (run, copied)]
        assert summary[0]["held-out"]["nme"] == pytest.approx(summary[1]["held-out"]["nme"], abs=1e-4)

    def test_other_landmarks_do_not_replace_the_report(self, copied):
        before = {path: path.read_bytes() for path in (copied / "report").rglob("*.*")}
        name = (copied / "validated.txt").read_text().split()[0]
        path = copied.parent / "faces" / f"{name}.pts"
        lines = path.read_text().splitlines()
        lines[5] = f"{float(lines[5].split()[0]) + 1} {lines[5].split()[1]}"
        path.write_text("\n".join(lines) + "\n")
        done = facelm_module("evaluate", copied.parent, f"checkpoint={copied}", "data.num_workers=0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "landmarks of the faces that validated this run have changed" in done.stderr + done.stdout
        assert all(path.read_bytes() == content for path, content in before.items())
        (other,) = (copied.parent / "outputs/evaluate").glob("*/summary.json")
        assert facelm(["compare", str(copied), str(other.parent)]) == 1

    def test_another_photograph_of_the_same_name_does_not_replace_the_report(self, copied):
        before = {path: path.read_bytes() for path in (copied / "report").rglob("*.*")}
        validated, trained = (
            copied.parent / "faces" / (copied / f"{name}.txt").read_text().split()[0]
            for name in ("validated", "trained")
        )
        (image,) = (path for path in validated.parent.glob(f"{validated.name}.*") if path.suffix != ".pts")
        shutil.copy(trained.with_suffix(image.suffix), image)
        done = facelm_module("evaluate", copied.parent, f"checkpoint={copied}", "data.num_workers=0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "the photographs of 'held-out' are not those of its report" in done.stderr + done.stdout
        assert all(path.read_bytes() == content for path, content in before.items())

    def test_a_relative_root_is_that_of_the_run_from_any_folder(self, run, tmp_path):
        shutil.copytree(run.parent / "faces", tmp_path / "faces")  # others of the same names would do as well
        done = facelm_module("evaluate", tmp_path, f"checkpoint={run}", "data.num_workers=0", "report_dir=mine")
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"data as in the checkpoint's run: {run.parent / 'faces'}" in done.stdout + done.stderr

    def test_faces_that_are_gone_are_an_error_where_none_is_left(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run/result.json").unlink()
        (tmp_path / "faces/helen/trainset").mkdir(parents=True)
        trainset = run.parent / "faces/helen/trainset"
        for path in (trainset.parents[1] / (run / "trained.txt").read_text().split()[0]).parent.glob("*"):
            if f"helen/trainset/{path.stem}" in (run / "trained.txt").read_text().split():
                shutil.copy(path, tmp_path / "faces/helen/trainset")
        done = facelm_module("evaluate", tmp_path, "checkpoint=run", "data.num_workers=0")
        assert done.returncode == 1
        assert "validated this run are not there" in done.stderr

    def test_faces_that_trained_it_are_told_when_named(self, run):
        how = [f"checkpoint={run}", "data.num_workers=0", "data.val_list=run/trained.txt", "report_dir=trained"]
        done = facelm_module("evaluate", run.parent, *how, "data.root=faces")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "trained this model" in (run.parent / "trained/table.md").read_text()


class TestCompare:
    def test_reports_of_other_faces_are_refused(self, tmp_path, capsys):
        for name, faces in (("one", "ab"), ("two", "ac"), ("three", "ab")):
            (tmp_path / name).mkdir()
            rows = "".join(f"{face},val,3.0\n" for face in faces)
            (tmp_path / name / "per_face.csv").write_text("name,subset,nme\n" + rows)
            (tmp_path / name / "summary.json").write_text(json.dumps({"subsets": {"val": {"nme": 3.0}}}))
        folders = [str(tmp_path / name) for name in ("one", "two", "three")]
        assert facelm(["compare", folders[0], folders[2]]) == 0
        assert facelm(["compare", folders[0], folders[1]]) == 1
        assert "not measured on the same faces of 'val'" in capsys.readouterr().err
        assert facelm(["compare", folders[0], "--baseline", folders[1]]) == 1
        assert "not measured on the same faces of 'val'" in capsys.readouterr().err

    @pytest.mark.parametrize("key", ["fingerprints", "contents"])
    def test_and_of_other_landmarks_or_photographs(self, tmp_path, capsys, key):
        for name, digest in (("one", "a"), ("two", "b"), ("three", "a"), ("older", None)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "per_face.csv").write_text("name,subset,nme\na,val,3.0\n")
            facts = {"checkpoint": {"data": {key: {"val": digest}}}} if digest else {}
            (tmp_path / name / "summary.json").write_text(json.dumps({"subsets": {"val": {"nme": 3.0}}, **facts}))
        folders = [str(tmp_path / name) for name in ("one", "two", "three", "older")]
        assert facelm(["compare", folders[0], *folders[2:]]) == 0
        assert facelm(["compare", *folders[:2]]) == 1
        assert "landmarks or photographs" in capsys.readouterr().err


def test_a_training_records_its_faces(trained_run):
    """In the checkpoint as hashes, in the run folder as names."""
    checkpoint = torch.load(trained_run / "checkpoints/last.ckpt", weights_only=True)
    known = read_facts(checkpoint).faces
    assert known.keys() == {"trained", "validated"}
    for name, hashes in known.items():
        names = (trained_run / f"{name}.txt").read_text().split()
        assert hashes == set(name_hashes(replace(FACES[0], name=one) for one in names))
