"""Landmarks found go out as COCO keypoints, and what an annotator sends back trains: the same faces and points."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facelm.cli import main
from facelm.data.own import OwnFaces
from facelm.geometry.landmarks import IBUG68, get_scheme
from facelm.predict.files import ResultFolder
from facelm.predict.predictor import FaceLandmarks, Prediction
from own_data import SCHEME
from perfect_network import face_landmarks, map_image
from predict_folder import FACE, write, written

BOX = np.array([1.0, 2, 3, 4])
MINE = replace(IBUG68, name="mine68", shape=())  # the fixture's face is no face: ibug68 would refuse it


def predict(*arguments):
    return main(["predict", *map(str, arguments), "--format", "coco", "--no-overlay"])


def content(folder="out"):
    return json.loads(Path(folder, "landmarks.coco.json").read_text())


def trained_on(root, scheme=MINE, file="out/landmarks.coco.json"):
    """The faces that `data=coco data.root=ROOT data.train=FILE` trains on, by name."""
    source = OwnFaces(Path(root), scheme, {"train": str(file), "val": None, "test": None})
    return {face.name: face for face in source.faces("train")}


@pytest.fixture
def nested(photos):
    (photos / "Büro" / "顔").mkdir(parents=True)
    write(photos / "Büro" / "顔" / "ß 1.png")
    write(photos / "empty.png", map_image(200, 100))
    return photos


def test_what_was_found_trains_again(nested, capsys):
    assert predict("photos", "--out", "out") == 0
    assert written() == ["landmarks.coco.json"]
    assert f"photographs are named from {nested}" in capsys.readouterr().out
    faces = trained_on(nested)
    assert set(faces) == {"one", "two", "Büro/顔/ß 1"}
    found = content()
    assert [image["file_name"] for image in found["images"]] == ["empty.png", "one.png", "two.png", "Büro/顔/ß 1.png"]
    assert {(image["width"], image["height"]) for image in found["images"]} == {(240, 200), (200, 100)}
    assert len(found["annotations"]) == 3  # none on the photograph without a face
    for one in found["annotations"]:
        keypoints = np.array(one["keypoints"]).reshape(-1, 3)
        assert (keypoints[:, 2] == 2).all()
        assert np.abs(keypoints[:, :2] - FACE).max() < 0.3
        assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3], abs=0.01)
        assert 0 < one["score"] <= 1
        np.testing.assert_allclose(one["bbox"][:2], keypoints[:, :2].min(axis=0))
    written_points = [np.array(one["keypoints"]).reshape(-1, 3)[:, :2] for one in found["annotations"]]
    for name, points in zip(["one", "two", "Büro/顔/ß 1"], written_points, strict=True):
        np.testing.assert_array_equal(faces[name].landmarks_image, points)


def test_points_with_names_several_faces_and_one_that_is_nowhere(tmp_path):
    write(tmp_path / "a.png")
    scheme = get_scheme({**SCHEME, "contours": [[10, 18, 11], [12, 19, 13, 12]]})
    points = [face_landmarks(center, 60, seed)[:20] for seed, center in enumerate([(60, 60), (150, 120)])]
    points[1][4] = np.nan
    faces = tuple(FaceLandmarks(BOX, one, np.full(20, 0.5)) for one in points)
    with ResultFolder(tmp_path / "out", scheme, formats=["coco"], overlay=False) as results:
        results.write_image(str(tmp_path / "a.png"), "a", map_image(), Prediction(faces, (240, 200)))
    category = content(tmp_path / "out")["categories"][0]
    assert category["keypoints"] == SCHEME["points"]
    assert category["skeleton"] == [[11, 19], [12, 19], [13, 20], [14, 20], [13, 14]]
    read = trained_on(tmp_path, scheme, tmp_path / "out" / "landmarks.coco.json")
    assert np.abs(read["a"].landmarks_image - points[0]).max() < 0.001
    assert np.isnan(read["a:2"].landmarks_image[4]).all()
    assert np.abs(np.delete(read["a:2"].landmarks_image - points[1], 4, axis=0)).max() < 0.001


def test_a_face_without_extent_has_the_box_that_was_cropped(tmp_path):
    face = FaceLandmarks(BOX, np.full((68, 2), 2.5), np.full(68, np.nan))
    with ResultFolder(tmp_path / "out", IBUG68, formats=["coco"], overlay=False) as results:
        results.write_image("a.png", "a", map_image(), Prediction((face,), (240, 200)))
    found = content(tmp_path / "out")["annotations"][0]
    assert (found["bbox"], found["score"]) == ([1, 2, 2, 2], 0)


class TestFolders:
    def test_two_of_them_are_named_from_the_one_that_holds_both(self, photos):
        (photos.parent / "more").mkdir()
        write(photos.parent / "more" / "one.png")
        assert predict("photos", "more", "--out", "out") == 0
        assert set(trained_on(".")) == {"photos/one", "photos/two", "more/one"}

    def test_a_second_run_adds_to_the_first_from_wherever_it_starts(self, nested, monkeypatch):
        assert predict("photos/Büro", "--out", "out") == 0
        assert set(trained_on("photos/Büro")) == {"顔/ß 1"}
        before = content()["annotations"][0]["keypoints"]
        monkeypatch.chdir(nested)
        assert predict("one.png", "Büro/../Büro/顔/ß 1.png", "--out", "../out", "--overwrite") == 0
        monkeypatch.chdir(nested.parent)
        assert set(trained_on("photos")) == {"one", "Büro/顔/ß 1"}  # the same photograph by another path is one
        assert content()["annotations"][0]["keypoints"] == before

    def test_skip_existing_goes_on(self, photos):
        assert predict("photos/one.png", "--out", "out") == 0
        assert predict("photos", "--out", "out", "--skip-existing") == 0
        ids = [one["id"] for one in content()["images"]]
        assert (set(trained_on("photos")), ids) == ({"one", "two"}, [1, 2])


class TestOtherFiles:
    def test_are_not_replaced(self, photos, capsys):
        Path("out").mkdir()
        Path("out/landmarks.coco.json").write_text("mine")
        assert predict("photos", "--out", "out") == 1
        assert "is there and no result of facelm's" in capsys.readouterr().err
        assert Path("out/landmarks.coco.json").read_text() == "mine"

    def test_a_photograph_that_is_called_like_the_file(self, photos):
        write(photos / "landmarks.coco.png")
        arguments = ["photos", "--out", "out", "--format", "coco,json", "--no-overlay"]
        assert main(["predict", *arguments]) == 0
        assert len(content()["images"]) == 3
        assert len(written()) == 4

    def test_a_video_has_no_such_file(self, photos, capsys):
        import cv2

        clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 5, (240, 200))
        clip.write(map_image())
        clip.release()
        assert predict("clip.mp4", "photos", "--out", "out") == 1
        assert "clip.mp4: coco is for photographs" in capsys.readouterr().err
        assert len(content()["images"]) == 2
