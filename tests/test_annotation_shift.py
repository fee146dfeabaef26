"""The benchmark finds a shift that was put into the annotations, by collection and whatever the model's own."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm.data.faces import Face
from facelm.geometry.boxes import box_from_landmarks
from facelm.predict import Predictor
from perfect_network import SPEC, PerfectNetwork, face_landmarks, map_image, save_checkpoint
from w300_tree import NAMES, write_tree

FACE = face_landmarks((120, 100), 80)


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import benchmarks.annotation_shift as module

    sys.path.pop(0)
    return module


@pytest.fixture
def faces(tmp_path):
    """Annotated 1.6 px to the right of what there is, in lfpw; 2 % of the box of 80."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), cv2.cvtColor(map_image(), cv2.COLOR_RGB2BGR))
    right = FACE + np.array([1.6, 0])
    return [
        Face(f"{folder}/a", path, at, box_from_landmarks(FACE), "train")
        for folder, at in {"afw": FACE, "lfpw": right}.items()
    ]


def test_what_was_put_in_is_found(benchmark, faces):
    found = benchmark.predict_in_boxes(Predictor(PerfectNetwork(FACE), SPEC, device="cpu", flip="exact"), faces)
    share = 1.6 / faces[0].box.side
    table = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in benchmark.rows(faces, found, share)
    }
    assert [table[name][0] for name in ("all", "afw", "lfpw")] == ["2", "1", "1"]
    x = {name: float(row[1].split()[0]) for name, row in table.items()}
    assert x["lfpw"] - x["afw"] == pytest.approx(100 * share, abs=0.01)
    assert x["all"] == pytest.approx((x["afw"] + x["lfpw"]) / 2, abs=0.002)
    assert float(table["lfpw"][2].split()[0]) == pytest.approx(0, abs=0.2)
    before, after = float(table["lfpw"][3]), float(table["lfpw"][4])
    assert after < before / 3


def test_pixels_and_shares_are_told_apart(benchmark):
    rng = np.random.default_rng(0)
    truth = [face_landmarks((0, 0), side) for side in rng.uniform(80, 300, 60)]
    faces = [Face(f"afw/{i}", Path(), at, box_from_landmarks(at), "train") for i, at in enumerate(truth)]
    moved = np.array(
        [at - [0.7 + 0.01 * face.box.side + rng.normal(0, 0.05), 0] for at, face in zip(truth, faces, strict=True)]
    )
    every, own = benchmark.fits(faces, moved)
    pixels, share = re.fullmatch(
        r"all: x = ([+-][\d.]+) \+- 0\.0\d px ([+-][\d.]+) \+- 0\.0\d % of the side", every
    ).groups()
    assert (float(pixels), float(share)) == (pytest.approx(0.7, abs=0.1), pytest.approx(1.0, abs=0.05))
    assert own == every.replace("all", "afw")
    assert benchmark.fits(faces[:19], moved[:19]) == []


@pytest.mark.filterwarnings("ignore:300W is incomplete")
def test_the_script_measures_from_nothing(benchmark, tmp_path, capsys):
    """The model's own shift is taken off first, and is what the last column adds."""
    from dataclasses import replace

    write_tree(tmp_path / "data", NAMES["train"])
    tables = []
    for shift in (0.0, 0.01):
        checkpoint = save_checkpoint(tmp_path / f"{shift}.ckpt", replace(SPEC, annotation_shift=shift))
        benchmark.main(["--checkpoint", str(checkpoint), "--data", str(tmp_path / "data"), "--device", "cpu"])
        tables.append(capsys.readouterr().out.splitlines())
    assert "with a shift of 0.01" in tables[1][1]
    without, moved = ([row.split("|")[1:-1] for row in table if row.startswith("| all")][0] for table in tables)
    assert without[:5] == moved[:5]
    assert without[4] == without[5]
    assert moved[4] != moved[5]
