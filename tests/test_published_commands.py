"""Training, evaluation and prediction on published data sets in their authors' layout, through the command line."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

import warm
from conftest import TINY
from facelm.cli import main
from published_trees import COUNTS, SPLITS, WRITERS, write_tree

SAMPLES = Path(os.environ.get("FACELM_SAMPLES") or Path(__file__).resolve().parents[2] / "shared" / "samples")

ROWS = {
    "wflw": ["test", "pose", "expression", "illumination", "make-up", "occlusion", "blur"],
    "cofw": ["test"],
    "aflw": ["full", "frontal"],
    "lapa": ["test", "val"],
    "w300lp": ["held-out"],
    "coco_wholebody": ["val"],
}
"""Of the table of each, in the authors' own layout."""

REAL = {
    "wflw": ("wflw", "face_landmarks_wflw_{}.json", ("train", "test")),
    "cofw": ("cofw", "cofw_{}.json", ("train", "test")),
    "aflw": ("aflw", "face_landmarks_aflw_{}.json", ("train", "test")),
    "lapa": ("lapa", "lapa_{}.json", ("train", "val", "test")),
    "w300lp": ("300wlp", "face_landmarks_300wlp_{}.json", ("train", "val")),
}
"""Folder of two real photographs, and what mmpose calls its JSON: here the same faces in every split."""


def run(cwd, *command):
    done = warm.run(["-m", *command], cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train_evaluate_predict(name, root, cwd):
    """One step of training, an evaluation of the run, landmarks of a photograph: the table, and how many points."""
    tiny = [one for one in TINY if "batch_size" not in one]
    steps = ["data.batch_size=2", "trainer.max_epochs=1", "+trainer.limit_train_batches=1", "hydra.run.dir=run"]
    run(cwd, "facelm.train", *tiny, "experiment=own", f"data={name}", f"data.root={root}", *steps)
    before = json.loads((cwd / "run/report/summary.json").read_text())
    run(cwd, "facelm.evaluate", "checkpoint=run", "data.num_workers=0")
    after = json.loads((cwd / "run/report/summary.json").read_text())
    assert list(after["subsets"]) == list(before["subsets"])
    for subset, row in after["subsets"].items():
        assert row["n"] == before["subsets"][subset]["n"]
        assert row["nme"] == pytest.approx(before["subsets"][subset]["nme"], abs=1e-3)
    image = min(p for p in Path(root).rglob("*") if p.suffix in (".jpg", ".png"))
    (cwd / "boxes.csv").write_text(f"{image.name},10,10,100,100\n")
    run(cwd, "facelm.cli", "predict", str(image), "--checkpoint", "run", "--boxes", "boxes.csv", "--out", "results")
    (result,) = (cwd / "results").rglob(f"{image.stem}*.json")
    return after, json.loads(result.read_text())


def check(name, root, cwd, rows):
    table, predicted = train_evaluate_predict(name, root, cwd)
    assert list(table["subsets"]) == rows
    assert not any("absent" in note for note in table["notes"]) or name in ("w300lp", "wflw", "aflw")
    assert len(predicted["faces"][0]["landmarks"]) == COUNTS[name]
    return table


@pytest.mark.slow
def test_a_face_counts_in_each_of_its_subsets(drawn_root, tmp_path):
    """WFLW as its authors ship it."""
    splits = write_tree(drawn_root, tmp_path / "wflw", "wflw", "txt")
    table = check("wflw", tmp_path / "wflw", tmp_path, ROWS["wflw"])
    for subset, row in table["subsets"].items():
        assert row["n"] == sum(subset == "test" or subset in face.subsets for face in splits["test"])
    with (tmp_path / "run/report/per_face.csv").open() as file:
        said = {row["name"]: row["subset"].split("+") for row in csv.DictReader(file)}
    assert said == {face.name: ["test", *face.subsets] for face in splits["test"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if name != "wflw"])
def test_every_data_set_trains_evaluates_and_predicts(drawn_root, tmp_path, name):
    if name == "cofw":
        pytest.importorskip("h5py")
    write_tree(drawn_root, tmp_path / "tree", name, WRITERS[name][1][0])
    check(name, tmp_path / "tree", tmp_path, ROWS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_on_real_samples(tmp_path, name):
    folder, file, splits = REAL[name]
    if not (SAMPLES / folder).is_dir():
        pytest.skip(f"no {SAMPLES / folder}")
    root = tmp_path / "tree"
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for image in (SAMPLES / folder).glob("*.jpg"):
        shutil.copy(image, root / "images" / image.name)
    (annotations,) = (SAMPLES / folder).glob("*.json")
    for split in splits:
        shutil.copy(annotations, root / "annotations" / file.format(split))
    rows = [row for row in ("full", "test", "val") if row in (SPLITS.get(name) or ("test",))]
    check(name, root, tmp_path, rows)


# --- facelm prepare -------------------------------------------------------------------------------------------------


def test_found_against_official(drawn_root, tmp_path, capsys):
    write_tree(drawn_root, tmp_path / "my lapa", "lapa", "txt")
    (tmp_path / "my lapa/val/images/val001_0.jpg").unlink()
    assert main(["prepare", "--data", "lapa", "--out", str(tmp_path / "my lapa")]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[1:4] == [["train", "6", "18,176"], ["val", "5", "2,000"], ["test", "6", "2,000"]]


def test_cofw_is_unpacked(drawn_root, tmp_path, capsys):
    pytest.importorskip("h5py")
    write_tree(drawn_root, tmp_path / "down", "cofw", "mat")
    files = [str(tmp_path / "down" / f"COFW_{split}_color.mat") for split in ("train", "test")]
    assert main(["prepare", "--data", "cofw", *files, "--out", str(tmp_path / "cofw")]) == 0
    assert "1,345" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "cofw/images").iterdir())[:6] == [f"{n:06d}.png" for n in range(1, 7)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "wider"], "none of aflw, coco_wholebody, cofw, lapa, w300lp, wflw"),
        (["--data", "wflw", "WFLW_images.tar.gz"], "unpacked with tar or unzip"),
        (["--data", "cofw", "other.mat"], "COFW_train_color.mat"),
        (["--data", "wflw", "--drawn"], "leave one out"),
    ],
)
def test_mistakes(tmp_path, capsys, arguments, said):
    assert main(["prepare", *arguments, "--out", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
