import csv
import json
import os
import sys

import cv2
import numpy as np
import pytest

from facelm.data.w300.annotations import read_pts
from facelm.evaluation.overlay import encoded
from facelm.geometry.landmarks import IBUG68
from facelm.predict import film
from facelm.predict.files import LONGEST_OVERLAY, ResultFolder, check_writable
from facelm.predict.frames import Frame
from facelm.predict.predictor import FaceLandmarks, Prediction
from facelm.predict.video import TrackedFace
from perfect_network import face_landmarks, map_image
from predict_folder import written

FACES = tuple(
    FaceLandmarks(np.array([1.0, 2, 3, 4]), face_landmarks(center, 60, seed), np.full(68, 0.5))
    for seed, center in enumerate([(60, 60), (150, 120)])
)
PREDICTION = Prediction(FACES, (240, 200))


class TestImages:
    def test_what_was_asked_for(self, tmp_path):
        for formats, overlay, expected in [
            (("json",), False, ["a.json"]),
            (("pts",), True, ["a-face2.pts", "a.jpg", "a.pts"]),
            (("csv",), False, ["landmarks.csv"]),
            (("json", "csv", "pts"), True, ["a-face2.pts", "a.jpg", "a.json", "a.pts", "landmarks.csv"]),
        ]:
            out = tmp_path / "-".join(formats)
            with ResultFolder(out, IBUG68, formats=formats, overlay=overlay) as results:
                results.write_image("a.png", "a", map_image(), PREDICTION)
            assert written(out) == expected

    def test_pts_are_1_based_and_come_back(self, tmp_path):
        with ResultFolder(tmp_path, IBUG68, formats=("pts",), overlay=False) as results:
            results.write_image("a.png", "a", map_image(), PREDICTION)
        assert np.allclose(read_pts(tmp_path / "a.pts"), FACES[0].landmarks_image)
        assert np.allclose(read_pts(tmp_path / "a.pts", 0), FACES[0].landmarks_image + 1)
        assert np.allclose(read_pts(tmp_path / "a-face2.pts"), FACES[1].landmarks_image)

    def test_json_and_csv_are_0_based(self, tmp_path):
        with ResultFolder(tmp_path, IBUG68, overlay=False) as results:
            results.write_image("sub/a.png", "sub/a", map_image(), PREDICTION)
        content = json.loads((tmp_path / "sub" / "a.json").read_text())
        assert content["image"] == "sub/a.png"
        assert (content["width"], content["height"]) == (240, 200)
        assert np.allclose(content["faces"][1]["landmarks"], FACES[1].landmarks_image, atol=1e-3)
        rows = list(csv.DictReader((tmp_path / "landmarks.csv").open(newline="")))
        assert [(row["input"], row["frame"], row["face"]) for row in rows] == [
            ("sub/a.png", "", "1"),
            ("sub/a.png", "", "2"),
        ]
        assert float(rows[1]["67_y"]) == pytest.approx(FACES[1].landmarks_image[67, 1], abs=1e-3)
        assert float(rows[1]["67_confidence"]) == 0.5
        assert float(rows[0]["x1"]) == 1

    def test_the_overlay_shows_the_landmarks(self, tmp_path):
        grey = np.full((200, 240, 3), 128, np.uint8)
        with ResultFolder(tmp_path, IBUG68, formats=()) as results:
            results.write_image("a.png", "a", grey, PREDICTION)
        drawn = cv2.imread(str(tmp_path / "a.jpg")).astype(int)
        changed = np.abs(drawn - 128).sum(axis=2) > 60
        for face in FACES:
            x, y = face.landmarks_image.round().astype(int).T
            assert changed[y, x].mean() > 0.9
        assert changed.mean() < 0.3

    def test_overlays_of_huge_photographs_are_shrunk_with_their_landmarks(self, tmp_path):
        huge = np.full((50, 2 * LONGEST_OVERLAY, 3), 128, np.uint8)
        face = FaceLandmarks(np.zeros(4), face_landmarks((6000.5, 24.5), 40), np.ones(68))
        with ResultFolder(tmp_path, IBUG68, formats=()) as results:
            results.write_image("a.png", "a", huge, Prediction((face,), (2 * LONGEST_OVERLAY, 50)))
        drawn = cv2.imread(str(tmp_path / "a.jpg")).astype(int)
        assert drawn.shape == (25, LONGEST_OVERLAY, 3)
        columns = np.nonzero((np.abs(drawn - 128).sum(axis=2) > 60).any(axis=0))[0]
        assert columns.mean() == pytest.approx(3000, abs=3)

    def test_a_photograph_without_faces(self, tmp_path):
        with ResultFolder(tmp_path, IBUG68, formats=("json", "csv", "pts")) as results:
            results.write_image("a.png", "a", map_image(), Prediction((), (240, 200), notes=("no face found",)))
        assert written(tmp_path) == ["a.jpg", "a.json", "landmarks.csv"]
        content = json.loads((tmp_path / "a.json").read_text())
        assert (content["faces"], content["notes"]) == ([], ["no face found"])

    @pytest.mark.parametrize("name", ["line\nbreak", "with space", "顔 ü", os.fsdecode(b"\xff\xfe")])
    def test_names(self, tmp_path, name):
        with ResultFolder(tmp_path, IBUG68, formats=("json", "csv", "pts")) as results:
            results.write_image(f"{name}.png", name, map_image(), PREDICTION)
        assert len(written(tmp_path)) == 5
        assert json.loads((tmp_path / f"{name}.json").read_text())["image"] == f"{name}.png"
        table = (tmp_path / "landmarks.csv").open(newline="", errors="surrogateescape")
        assert next(csv.DictReader(table))["input"] == f"{name}.png".replace("\n", "\\x0a")


class TestVideos:
    def frames(self, count=3, width=241):
        return [Frame(i, i / 10, np.full((120, width, 3), 40 * i, np.uint8)) for i in range(count)]

    def test_overlay_json_csv_and_pts(self, tmp_path):
        face = TrackedFace(np.arange(4.0), FACES[0].landmarks_image, np.ones(68), track=7)
        folder = ResultFolder(tmp_path, IBUG68, formats=("json", "csv", "pts"))
        with folder as results, results.open_video("v.mov", "v", 10.0) as video:
            for frame in self.frames():
                video.add(frame, [face] if frame.number else [])
        assert written(tmp_path) == ["landmarks.csv", "v-000001.pts", "v-000002.pts", "v.json", "v.mp4"]
        content = json.loads((tmp_path / "v.json").read_text())
        assert (content["video"], content["fps"]) == ("v.mov", 10)
        assert [(frame["frame"], frame["seconds"], len(frame["faces"])) for frame in content["frames"]] == [
            (0, 0.0, 0), (1, 0.1, 1), (2, 0.2, 1),
        ]  # fmt: skip
        assert content["frames"][1]["faces"][0]["track"] == 7
        rows = list(csv.DictReader((tmp_path / "landmarks.csv").open(newline="")))
        assert [(row["input"], row["frame"], row["face"]) for row in rows] == [("v.mov", "1", "7"), ("v.mov", "2", "7")]
        capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
        read, pixels = capture.read()
        assert read
        assert pixels.shape[0] == 120

    def test_an_interrupted_video_leaves_no_file(self, tmp_path):
        def interrupted():
            folder = ResultFolder(tmp_path, IBUG68, formats=("json",))
            with folder as results, results.open_video("v.mov", "v", 10.0) as video:
                video.add(self.frames()[0], [])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert written(tmp_path) == []

    def test_no_codec(self, tmp_path, monkeypatch):
        monkeypatch.setattr(film, "_CODECS", ("wmv2",))  # which MP4 does not hold
        with (
            pytest.raises(OSError, match=r"cannot be written.*Use --no-overlay"),
            ResultFolder(tmp_path, IBUG68, formats=()) as results,
            results.open_video("v.mov", "v", 10.0) as video,
        ):
            video.add(self.frames()[0], [])


class TestWritable:
    def test_makes_the_folder(self, tmp_path):
        check_writable(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
        assert written(tmp_path) == []

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "a").write_text("")
        for folder in (tmp_path / "a", tmp_path / "a" / "b"):
            with pytest.raises(OSError, match=r"cannot write to the folder .*Choose another --out"):
                check_writable(folder)

    @pytest.mark.skipif(sys.platform != "linux", reason="a folder that even root may not write to")
    def test_no_permission(self, tmp_path):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        locked = folder if os.geteuid() else tmp_path.__class__("/sys")
        with pytest.raises(OSError, match=r"cannot write to the folder '.*': .*(denied|not permitted|Read-only)"):
            check_writable(locked / "out")

    def test_unknown_format(self, tmp_path):
        with pytest.raises(ValueError, match="no format 'xml'; choose of json, csv, pts"):
            ResultFolder(tmp_path, IBUG68, formats=("xml",))


def test_a_picture_that_no_jpeg_holds_is_said():
    """OpenCV says by a flag that it has written nothing."""
    with pytest.raises(ValueError, match="70000 x 2 pixels as .jpg"):
        encoded(np.zeros((2, 70_000, 3), np.uint8), ".jpg")
