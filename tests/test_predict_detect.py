from pathlib import Path

import numpy as np
import pytest

import facelm.predict.detect as detect
from facelm.data.images import read_image
from facelm.data.w300.index import index_faces
from facelm.geometry.boxes import CONVENTIONS, BoxConvention
from facelm.predict.calibrate import calibrate
from facelm.predict.detect import DlibDetector, YuNetDetector, copies_to_look_at, look, merged, to_image_pixels


class TestCopies:
    @pytest.mark.parametrize(
        ("size", "sides"),
        [
            ((4000, 3000), [1000, 2000]),  # shrunk twice
            ((1500, 900), [1000, 2000]),
            ((1000, 400), [1000, 2000]),
            ((400, 300), [400, 800]),  # as it is, then enlarged
            ((1, 1), [1, 2]),
        ],
    )
    def test_sides(self, size, sides):
        image = np.zeros((size[1], size[0], 3), np.uint8)
        found = list(copies_to_look_at(image))
        assert [max(copy.shape[:2]) for copy, _ in found] == sides
        assert [scale for _, scale in found] == [side / size[0] for side in sides]

    def test_boxes_come_back_to_where_they_were_seen(self):
        """A bright square is found by its edges in every copy."""
        image = np.zeros((1200, 1600, 3), np.uint8)
        image[400:800, 600:1000] = 255
        for copy, scale in copies_to_look_at(image):
            rows, columns = np.nonzero(copy[..., 0] > 127)
            edges = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
            assert to_image_pixels(edges, scale)[0] == pytest.approx([599.5, 399.5, 999.5, 799.5], abs=1)


class Rectangle:
    """What dlib gives: the last pixel belongs to it."""

    def __init__(self, *sides):
        self.sides = sides

    left, top, right, bottom = (lambda self, i=i: self.sides[i] for i in range(4))


class FakeDlib:
    """Finds its rectangles, in grey images."""

    def __init__(self, rectangles, scores):
        self.answer = rectangles, scores, [0] * len(scores)

    def run(self, image, upsample, threshold):
        assert image.ndim == 2
        self.looked_at = image.shape
        return self.answer


@pytest.fixture
def dlib_with(monkeypatch):
    def make(fake):
        dlib = pytest.importorskip("dlib")
        monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: fake)
        return DlibDetector()

    return make


class TestDlib:
    def test_boxes_with_the_surest_first(self, dlib_with):
        detector = dlib_with(FakeDlib([Rectangle(10, 20, 49, 59), Rectangle(100, 100, 179, 179)], [0.2, 1.5]))
        boxes = detector(np.zeros((1500, 2000, 3), np.uint8))
        assert np.allclose(boxes, [[99.5, 99.5, 179.5, 179.5], [9.5, 19.5, 49.5, 59.5]])

    def test_it_looks_at_a_copy_of_its_side(self, dlib_with):
        fake = FakeDlib([Rectangle(0, 0, 99, 99)], [1.0])
        boxes = dlib_with(fake)(np.zeros((3000, 4000, 3), np.uint8))
        assert fake.looked_at == (1500, 2000)
        assert np.allclose(boxes, [[-0.5, -0.5, 199.5, 199.5]])
        faster = DlibDetector(side=1000)
        assert np.allclose(faster(np.zeros((3000, 4000, 3), np.uint8)), [[-0.5, -0.5, 399.5, 399.5]])
        assert fake.looked_at == (750, 1000)
        with pytest.raises(ValueError, match="no face in a copy of less than 80"):
            DlibDetector(side=40)

    def test_what_dlib_only_suspects_comes_last_and_counts_as_unsure(self, dlib_with):
        detector = dlib_with(FakeDlib([Rectangle(10, 20, 49, 59), Rectangle(100, 100, 179, 179)], [-0.2, 0.1]))
        image = np.zeros((1500, 2000, 3), np.uint8)
        boxes, sure = look(detector, image)
        assert np.allclose(boxes, [[99.5, 99.5, 179.5, 179.5], [9.5, 19.5, 49.5, 59.5]])
        assert sure == len(detector(image)) == 1

    def test_no_face(self, dlib_with):
        boxes = dlib_with(FakeDlib([], []))(np.zeros((300, 400, 3), np.uint8))
        assert boxes.shape == (0, 4)

    def test_the_real_one_finds_nothing_in_noise(self):
        pytest.importorskip("dlib")
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
        detector = DlibDetector()
        assert detector(noise).shape == (0, 4)
        assert detector.convention == CONVENTIONS["dlib"]

    def test_its_convention_can_be_replaced(self):
        pytest.importorskip("dlib")
        assert DlibDetector(BoxConvention("mine", (0, 0.2))).convention.shift == (0, 0.2)


def test_looks_are_merged_and_a_face_in_two_of_them_is_one():
    """The surest box stays; a smaller face that one look alone shows is there too."""
    first = np.array([[0.0, 0, 100, 100]]), np.array([0.5])
    closer = np.array([[2.0, 0, 104, 100], [400, 400, 450, 450]]), np.array([1.0, 0.2])
    boxes, scores = merged([first, closer])
    assert boxes.tolist() == closer[0].tolist()
    assert scores.tolist() == [1.0, 0.2]
    assert merged([])[0].shape == (0, 4)


class FakeYuNet:
    """Gives two faces on an image 200 pixels wide, none on its enlarged copy."""

    def setInputSize(self, size):
        self.size = size

    def detect(self, image):
        assert image.shape[:2] == self.size[::-1]
        assert image[0, 0].tolist() == [3, 2, 1]  # BGR
        faces = np.zeros((2, 15), np.float32)
        faces[:, :4], faces[:, -1] = [[10, 20, 30, 40], [50, 60, 20, 20]], [0.8, 0.9]
        return (1, faces) if self.size[0] == 200 else (0, None)


class TestYuNet:
    def test_boxes_with_the_surest_first(self, tmp_path, monkeypatch):
        (tmp_path / "model.onnx").write_bytes(b"x")
        image = np.full((100, 200, 3), (1, 2, 3), np.uint8)

        class Maker:
            @staticmethod
            def create(path, config, size, threshold):
                fake = FakeYuNet()
                fake.detect = lambda image: (0, None)  # for the look that checks the model
                return fake

        monkeypatch.setattr(detect.cv2, "FaceDetectorYN", Maker)
        detector = YuNetDetector(tmp_path / "model.onnx")
        assert detector(image).shape == (0, 4)
        del detector._detect.detect
        assert np.allclose(detector(image), [[49.5, 59.5, 69.5, 79.5], [9.5, 19.5, 39.5, 59.5]])
        assert detector.convention == CONVENTIONS["square"]

    def test_missing_model(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no YuNet model .*gone\.onnx.*model zoo"):
            YuNetDetector(tmp_path / "gone.onnx")

    def test_foreign_onnx_file(self, tmp_path):
        (tmp_path / "other.onnx").write_bytes(b"this is no model")
        with pytest.raises(ValueError, match=r"other\.onnx' is no YuNet face detector that this OpenCV"):
            YuNetDetector(tmp_path / "other.onnx")


ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "300w_originals"


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason=f"no released photographs in {ORIGINALS}")
@pytest.mark.filterwarnings("ignore:300W is incomplete")
def test_the_convention_of_dlib_holds_on_whole_photographs():
    """It was measured on faces cut out of 300W; 24 photographs as released agree, within three standard errors."""
    pytest.importorskip("dlib")
    detector = DlibDetector()
    faces = index_faces(ORIGINALS, "train", check_images=False)
    result = calibrate("dlib", faces, lambda face: detector(read_image(face.image)), "originals")
    assert result.found >= 0.8 * len(faces)
    stored = CONVENTIONS["dlib"]
    errors = np.sqrt(np.diag(np.array(stored.covariance)) / result.found)
    measured = np.array([*result.convention.shift, np.log(result.convention.scale)])
    assert (np.abs(measured - [*stored.shift, np.log(stored.scale)]) < 3 * errors).all()
