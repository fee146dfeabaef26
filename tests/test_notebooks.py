"""Runs every notebook, small, and looks at what it computed. `make notebooks` runs this file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY
from notebook_outputs import run, same

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
TRAIN = "35"
"""Notebooks that train: not to the same numbers everywhere. tests/notebook_outputs.py writes the outputs of all."""


def cells(path, kind="code"):
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def source(cell) -> str:
    return "".join(cell["source"])


def execute(name, **parameters) -> dict:
    """The variables of a notebook after all of its cells; `parameters` replace those of its first code cell.

    One that trains says in a short training what is kept of a whole one, but for numbers.
    """
    variables: dict = {}
    path = next(path for path in ALL if path.name.startswith(name))
    outputs = run(path, variables, **parameters)
    if path.name[0] in TRAIN:
        for number, (cell, now) in enumerate(zip(cells(path), outputs, strict=True)):
            said = same(as_kept(cell["outputs"]), as_kept(now), trained=True)
            assert not said, f"code cell {number}: {said}"
    return variables


def as_kept(outputs: list) -> list:
    """Outputs with the names that the notebooks themselves use for what the tests below call otherwise."""
    names = {"my faces": "notebook_own", "my run": "notebook_own", "hrnetv2_tiny": "hrnetv2_w18", "'": ""}
    text = json.dumps(outputs)
    for ours, kept in names.items():
        text = text.replace(ours, kept)
    return json.loads(text)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
class TestFiles:
    def test_outputs_are_small(self, path):
        assert any(cell["outputs"] for cell in cells(path))
        assert path.stat().st_size < 500_000
        assert all(cell["execution_count"] is None for cell in cells(path))

    def test_parameters_come_first(self, path):
        tagged = [cell["metadata"].get("tags") == ["parameters"] for cell in cells(path)]
        assert tagged.index(True) == 0
        assert sum(tagged) == 1

    def test_nothing_of_anybody_s_machine(self, path):
        text = re.sub(r'"image/jpeg": "[^"]*"', "", path.read_text(encoding="utf-8"))
        assert not re.search(r"/(home|Users|work|root|tmp)/", text)
        assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", [path for path in ALL if path.name[0] not in TRAIN], ids=lambda path: path.name)
def test_what_is_kept_still_comes_out(path):
    if path.name[0] == "4":
        pytest.importorskip("dlib", reason="no dlib here (pip install 'facelm[detect]')")
    for number, (cell, now) in enumerate(zip(cells(path), run(path, {}), strict=True)):
        assert not (said := same(cell["outputs"], now)), f"code cell {number}: {said}"


def test_data_and_augmentation(drawn_root):
    variables = execute("1_", root=str(drawn_root), crop_size=64)
    assert (len(variables["train_faces"]), len(variables["challenge"])) == (24, 4)
    assert variables["crop"].shape == (64, 64, 3)
    landmarks = variables["landmarks_crop"]
    assert ((landmarks > 0) & (landmarks < 63)).all(), "the box holds the face"
    assert variables["flips"]["mmpose"] == pytest.approx(0.5, abs=0.05)
    items = [variables["datasets"]["mmpose"][epoch, 0]["landmarks_crop"].numpy() for epoch in range(6)]
    assert len({points.tobytes() for points in items}) == 6


def test_heatmaps_and_codecs():
    variables = execute("2_", crop_size=128, points=2000)
    rms = {name: error.square().sum(-1).mean().sqrt().item() for name, error in variables["errors"].items()}
    assert rms["mmpose"] == pytest.approx(1.6, abs=0.1)
    assert rms["hrnet"] == pytest.approx(1.6, abs=0.1)
    assert max(rms["dark"], rms["subpixel"]) < 0.002
    assert variables["bias"]["shifted"] == pytest.approx(0.5, abs=0.02)
    assert abs(variables["bias"]["none"]) < 0.01
    assert abs(variables["bias"]["exact"]) < 0.01
    noise = {name: float(values[-1]) for name, values in variables["rms"].items()}
    assert noise["subpixel"] < noise["mmpose"]


def test_train_evaluate_read(drawn_root, tmp_path):
    counts = "data.counts={train:24,common:6,challenge:4,test:4}"  # as drawn_root has them, or it is drawn anew
    shutil.copytree(drawn_root, tmp_path / "data" / "drawn")
    overrides = ["experiment=demo", *TINY, counts, "data.root=../data/drawn", "trainer.max_epochs=2"]
    variables = execute("3_", run_dir=str(tmp_path / "my run"), overrides=overrides)
    subsets = variables["summary"]["subsets"]
    assert list(subsets) == ["common", "challenge", "full", "test"]
    for name, measured in variables["measured"].items():
        for column, value in measured.items():
            assert value == pytest.approx(subsets[name][column], abs=1e-4), f"the notebook reads {column} wrongly"
    assert np.isfinite(variables["best_nme"])
    assert len(variables["validated"]) == 2
    assert np.hstack(variables["tiles"]).shape == (320, 4 * 320, 3)


def test_predict():
    pytest.importorskip("dlib", reason="no dlib here (pip install 'facelm[detect]')")
    variables = execute("4_")
    assert [len(one) for one in variables["predictions"]] == [1, 1, 1, 0]
    assert variables["predictions"][-1].error
    assert np.abs(variables["again"].landmarks - variables["prediction"].landmarks).max() < 8


def test_own_data():
    overrides = [*TINY, "trainer.max_epochs=1"]
    variables = execute("5_", folder="../data/my faces", faces=40, overrides=overrides, run_dir="../outputs/my run")
    assert (variables["inferred"], variables["checked"]) == (0, 0)
    assert np.isfinite(variables["best_nme"])
    assert variables["prediction"].landmarks.shape == (1, 9, 2)
    assert variables["predictor"].scheme.mirror[:4] == (3, 2, 1, 0)
