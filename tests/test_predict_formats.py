"""Parquet, faces cut out, and how heads are turned, as `facelm predict` writes them."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from facelm.cli import main
from facelm.commands.predict_job import Job
from facelm.geometry.align import aligned_crop
from facelm.geometry.landmarks import IBUG68
from facelm.geometry.pose import head_angles
from perfect_network import map_image
from predict_folder import FACE, written


def test_several_formats_at_once(photos):
    pytest.importorskip("pyarrow")
    assert main(["predict", "photos", "--out", "out", "--no-overlay", "--format", "csv,parquet,pts,json,coco"]) == 0
    tables = ["landmarks.coco.json", "landmarks.csv", "landmarks.parquet"]
    assert written() == [*tables, "one.json", "one.pts", "two.json", "two.pts"]


def test_parquet_holds_what_the_table_does(photos):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (photos / "two.png").rename(photos / b"two\xff.png".decode(errors="surrogateescape"))
    assert main(["predict", "photos", "--out", "out", "--no-overlay", "--format", "parquet"]) == 0
    rows = pyarrow.read_table("out/landmarks.parquet").to_pylist()
    assert [row["input"] for row in rows] == ["photos/one.png", "photos/two\\xff.png"]
    assert rows[0]["frame"] is None
    assert rows[0]["face"] == 1
    assert rows[0]["30_x"] == pytest.approx(FACE[30, 0], abs=0.5)
    assert rows[0]["30_confidence"] > 0.9


def test_faces_are_cut_out_and_heads_have_angles(photos):
    assert main(["predict", "photos", "--out", "out", "--no-overlay", "--crops", "112"]) == 0
    assert written() == ["landmarks.csv", "one-face1.png", "one.json", "two-face1.png", "two.json"]
    (face,) = json.loads(Path("out/one.json").read_text())["faces"]
    points = np.array(face["landmarks"])
    crop = cv2.cvtColor(cv2.imread("out/one-face1.png"), cv2.COLOR_BGR2RGB)
    expected = aligned_crop(map_image(), points.astype(float), 112, IBUG68)  # from rounded points
    assert np.abs(crop.astype(int) - expected).max() <= 1
    assert list(face["pose"].values()) == pytest.approx(head_angles(points[None], IBUG68)[0].tolist(), abs=0.01)


def test_a_crop_of_ones_own_is_not_replaced(photos, capsys):
    Path("out").mkdir()
    Path("out/one-face1.png").write_bytes(b"mine")
    assert main(["predict", "photos", "--out", "out", "--crops", "256"]) == 1
    assert "one-face1.png is there and no result of facelm's" in capsys.readouterr().err
    assert Path("out/one-face1.png").read_bytes() == b"mine"


def test_faces_and_frames_a_second_are_said(monkeypatch):
    monkeypatch.setattr("facelm.commands.predict_job.Predictor", type("None_", (), {"load": lambda *a, **k: None}))
    names = (
        "boxes detector convention look checkpoint device network flip annotation_shift refine upright_only min_score"
    )
    args = SimpleNamespace(**dict.fromkeys(names.split()) | {"boxes": None, "detector": "dlib", "look": 2000})
    pytest.importorskip("dlib")
    job = Job(args)
    job.looked_at = 12
    assert job.speed(4.0) == "4.0 s: 3.0 faces a second"
    job.frames = 10
    assert job.speed(4.0) == "4.0 s: 3.0 faces and 2.5 frames a second"
    assert job.speed(0.5) == "", "too short to say"
