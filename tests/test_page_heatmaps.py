"""Heatmaps on the page of a report: where they lie, of which faces they are, and when they are kept."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facelm import train
from facelm.cli import main
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.overlay import tile_matrix
from facelm.evaluation.page.heatmaps import COLUMNS, EACH, TILE, looked_at, sheet, tiles, write_heatmaps
from facelm.evaluation.page.pictures import SIZE, in_one_file
from facelm.evaluation.predictions import face_heatmaps, predict_faces
from facelm.evaluation.report import write_report
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks
from facelm.files import write_whole
from facelm.geometry.affine import invert, transform, warp
from facelm.geometry.boxes import Box, crop_from_image
from facelm.geometry.correspondence import correspondence
from facelm.geometry.landmarks import IBUG68
from facelm.models.spec import ModelSpec
from perfect_network import PerfectNetwork, face_landmarks, map_image
from test_page import data_of, drawn, grey

SPEC = ModelSpec(
    architecture="hrnetv2_tiny",
    crop_size=256,
    codec={"name": "subpixel", "sigma": 1.5},
    flip="none",
    annotation_shift=0.02,
)


def item(landmarks: np.ndarray, box: Box) -> dict:
    """As a data set gives it: a crop that need not stand upright."""
    crop = crop_from_image(box, SPEC.crop_size, SPEC.crop_scale)
    return {
        "image": torch.from_numpy(warp(map_image(), crop, SPEC.crop_size)),
        "landmarks_image": torch.from_numpy(landmarks),
        "image_from_crop": torch.from_numpy(invert(crop)),
        "index": 0,
    }


def peaks_of(drawn_sheet: np.ndarray, count: int) -> np.ndarray:
    """The middle `[count, 2]` of what is bright in each tile, in pixels of the thumbnail."""
    found = np.empty((count, 2))
    for point in range(count):
        y, x = TILE * (point // COLUMNS), TILE * (point % COLUMNS)
        tile = drawn_sheet[y : y + TILE, x : x + TILE].astype(float)
        assert tile.max() > 200
        weights = np.where(tile > 60, tile, 0)
        rows, columns = np.mgrid[:TILE, :TILE]
        found[point] = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    return (found + 0.5) * SIZE / TILE - 0.5


def test_a_peak_lies_where_its_point_was_predicted(tmp_path: Path) -> None:
    landmarks = face_landmarks()
    one = item(landmarks, Box((118.0, 102.0), 96.0, rotation=17.0))
    net = PerfectNetwork(landmarks, spec=SPEC)
    batch = {name: torch.as_tensor(value)[None] for name, value in one.items()}
    faces = predict_faces(net, SPEC, [batch], torch.device("cpu"))
    result = evaluate_faces(faces, ["face"], subset_masks(["x"]))
    shown = write_heatmaps(
        tmp_path, result, np.array([0]), lambda _: face_heatmaps(net, SPEC, one, torch.device("cpu")), write_whole
    )
    picture = cv2.imread(str(tmp_path / shown["files"][0]), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (7 * TILE, COLUMNS * TILE)
    predicted = transform(tile_matrix(landmarks, size=SIZE), faces.predicted[0])
    assert np.abs(peaks_of(picture, 68) - predicted).max() < 1
    assert shown["peaks"][0] == pytest.approx(faces.confidence[0], abs=1e-3)


def test_points_that_the_model_has_not(tmp_path: Path) -> None:
    same = correspondence(IBUG68, "cofw29")
    one = item(face_landmarks(), Box((120.0, 100.0), 84.0))
    net = PerfectNetwork(face_landmarks(), spec=SPEC)
    maps, matrix = face_heatmaps(net, SPEC, one, torch.device("cpu"), same)
    assert maps.shape == (29, 64, 64)
    assert np.isnan(maps).all(axis=(1, 2)).tolist() == (~same.compared).tolist()
    drawn_sheet = tiles(maps, matrix)
    for point in np.flatnonzero(~same.compared):
        y, x = TILE * (point // COLUMNS), TILE * (point % COLUMNS)
        assert not drawn_sheet[y : y + TILE, x : x + TILE].any()


def test_maps_without_a_peak_are_black() -> None:
    maps = np.zeros((3, 8, 8), np.float32)
    maps[1], maps[2, 3, 3] = -1, np.inf
    assert not tiles(maps, np.eye(3)).any()


def test_which_faces_have_them() -> None:
    errors = np.arange(100.0)[::-1].copy()
    errors[60] = np.nan
    found = looked_at(errors)
    assert len(found) == 3 * EACH
    assert {60, 0, EACH - 2, 99, 100 - EACH, 50} <= set(found)
    assert looked_at(np.array([np.nan, 2.0])) == [0, 1]
    assert looked_at(np.array([])) == []


class TestFiles:
    def write(self, folder: Path, result: EvaluationResult, heatmaps: bool = True) -> dict:
        """A report; what its page says of heatmaps."""
        maps = np.random.default_rng(0).random((68, 16, 16)).astype(np.float32)
        of = (lambda _: (maps, np.diag([20.0, 20.0, 1.0]))) if heatmaps else None
        write_report(folder, result, image_of=grey, heatmaps_of=of)
        return data_of(folder / "index.html")["faces"]["heatmaps"]

    def test_they_stay_with_their_predictions(self, tmp_path: Path) -> None:
        files = self.write(tmp_path, drawn(4))["files"]
        assert len(files) == 4
        (tmp_path / "index_files" / "mine.png").write_text("mine")
        assert main(["report", str(tmp_path)]) == 0
        assert data_of(tmp_path / "index.html")["faces"]["heatmaps"]["files"] == files
        assert all((tmp_path / file).is_file() for file in files.values())
        assert self.write(tmp_path, drawn(4, seed=1), heatmaps=False)["files"] == {}
        assert [file.name for file in (tmp_path / "index_files").glob("*.png")] == ["mine.png"]

    def test_a_page_of_one_file_has_none(self, tmp_path: Path) -> None:
        assert self.write(tmp_path, drawn(4))["files"]
        assert "index_files/" not in in_one_file(tmp_path / "index.html", 2)


def test_training_and_its_report_have_them(trained_run: Path) -> None:
    page = trained_run / "report" / "index.html"
    heatmaps = data_of(page)["faces"]["heatmaps"]
    assert len(heatmaps["files"]) == len(data_of(page)["faces"]["names"]) == 14
    assert all(len(peaks) == 68 for peaks in heatmaps["peaks"].values())
    assert all((page.parent / file).is_file() for file in heatmaps["files"].values())


def test_a_report_by_a_process_of_its_own_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        said.append(command)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(train.subprocess, "run", run)
    for wanted in (False, True):
        train.evaluate_apart(tmp_path / "best.ckpt", tmp_path, "cpu", heatmaps=wanted)
    assert ["report.heatmaps=true" in command for command in said] == [False, True]


def test_other_annotations_are_other_maps() -> None:
    """A thumbnail's frame follows the annotation."""
    result = drawn(1)
    faces = result.predictions
    moved = FacePredictions(faces.index, faces.predicted, faces.target + 1, faces.side, faces.confidence)
    assert sheet(result, 0) != sheet(evaluate_faces(moved, result.names, result.masks), 0)
