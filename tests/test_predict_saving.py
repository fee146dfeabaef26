"""What a prediction is turned into: an array, a table, a figure, files by their ending."""

import csv
import json

import cv2
import numpy as np
import pytest

from facelm import read_image
from facelm.data.w300.annotations import read_pts
from facelm.geometry.landmarks import IBUG68
from facelm.predict import Prediction, Predictor
from facelm.predict.files import ResultFolder
from perfect_network import SPEC, PerfectNetwork, box_of, face_landmarks, map_image
from predict_folder import write

FACES = face_landmarks(center=(80, 90), side=60), face_landmarks(center=(170, 100), side=60)


@pytest.fixture
def photo(tmp_path):
    return write(tmp_path / "photo.png")


@pytest.fixture
def prediction(photo):
    return found_in(photo)


def found_in(source, *faces):
    predictor = Predictor(PerfectNetwork(*FACES), SPEC, device="cpu", backend="torch")
    return predictor(source, [box_of(face).xyxy for face in (faces or FACES)], convention="square")


def test_the_array(prediction):
    assert np.allclose(prediction.landmarks, FACES, atol=0.5)
    assert Prediction((), (10, 10)).landmarks.shape == (0, 68, 2)


class TestSave:
    def test_each_ending(self, prediction, photo, tmp_path):
        for ending in ("json", "csv", "jpg", "PNG"):
            assert prediction.save(str(tmp_path / f"out.{ending}")) == [tmp_path / f"out.{ending}"]
        content = json.loads((tmp_path / "out.json").read_text())
        assert (content["image"], content["scheme"]) == (str(photo), "ibug68")
        assert np.allclose([face["landmarks"] for face in content["faces"]], prediction.landmarks, atol=0.001)
        drawn = read_image(tmp_path / "out.PNG")
        assert drawn.shape == map_image().shape
        assert (drawn != map_image()).any()

    def test_a_face_a_file_of_points(self, prediction, tmp_path):
        written = prediction.save(tmp_path / "out.pts")
        assert written == [tmp_path / "out.pts", tmp_path / "out-face2.pts"]
        assert np.allclose([read_pts(path) for path in written], prediction.landmarks)

    def test_the_table_is_that_of_a_folder(self, prediction, photo, tmp_path):
        prediction.save(tmp_path / "out.csv")
        with ResultFolder(tmp_path / "folder", IBUG68, formats=["csv"], overlay=False) as results:
            results.write_image(str(photo), "photo", map_image(), prediction)
        assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "folder" / "landmarks.csv").read_bytes()
        with (tmp_path / "out.csv").open(newline="") as file:
            assert [row["face"] for row in csv.DictReader(file)] == ["1", "2"]

    @pytest.mark.parametrize("name", ["out.txt", "out"])
    def test_other_endings(self, prediction, tmp_path, name):
        with pytest.raises(ValueError, match=r"\.json, \.csv, \.pts"):
            prediction.save(tmp_path / name)

    def test_no_face(self, photo, tmp_path):
        nobody = Prediction((), (240, 200), source=photo)
        with pytest.raises(ValueError, match="no face"):
            nobody.save(tmp_path / "out.pts")
        nobody.save(tmp_path / "out.csv")
        nobody.save(tmp_path / "out.png")
        assert np.array_equal(read_image(tmp_path / "out.png"), map_image())


class TestPicture:
    def test_is_that_of_what_was_given(self, photo, tmp_path):
        content = photo.read_bytes()
        with photo.open("rb") as file:
            sources = [photo, str(photo), content, file, map_image()]
            found = [found_in(source) for source in sources]
        bgr = cv2.cvtColor(map_image(), cv2.COLOR_RGB2BGR)
        predictor = Predictor(PerfectNetwork(*FACES), SPEC, device="cpu", backend="torch")
        found.append(predictor(bgr, [box_of(FACES[0]).xyxy], convention="square", bgr=True))
        for one in found:
            shown = one.plot().images[0].get_array()
            assert np.array_equal(shown, map_image())

    def test_is_asked_for_where_it_is_not_known(self):
        nobody = Prediction((), (240, 200))
        with pytest.raises(ValueError, match="image="):
            nobody.plot()
        assert nobody.plot(image=map_image()).images

    def test_a_file_of_another_kind(self, prediction, photo):
        photo.write_text("no picture")
        with pytest.raises(ValueError, match="photo"):
            prediction.plot()


def test_the_figure(prediction):
    axes = prediction.plot(boxes=True)
    assert prediction.plot(axes, numbers=True, contours=False) is axes
    assert len(axes.texts) == 2 * 68
    bare = prediction.plot(contours=False)
    assert len(bare.lines) == 2
    assert np.allclose(np.array(bare.lines[0].get_data()).T, prediction.landmarks[0])


def test_the_table(prediction):
    pytest.importorskip("pandas")
    table = prediction.to_dataframe()
    assert len(table) == 2 * 68
    assert np.array_equal(table[table.face == 1][["x", "y"]].to_numpy(), prediction.landmarks[1])
    assert Prediction((), (10, 10)).to_dataframe().empty
