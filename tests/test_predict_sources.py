"""What programs hand over in place of a path."""

import io
import weakref

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from facelm.predict import Predictor, photographs
from facelm.predict.photographs import read_photograph
from perfect_network import SPEC, PerfectNetwork, box_of, map_image
from predict_folder import FACE, FixedDetector

COLOURS = np.zeros((40, 60, 3), np.uint8)
COLOURS[:20, :30], COLOURS[:20, 30:], COLOURS[20:, :30] = (255, 0, 0), (0, 200, 0), (255, 255, 0)


def png():
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "source",
    [png(), bytearray(png()), memoryview(png()), io.BytesIO(png()), torch.from_numpy(COLOURS),
     torch.from_numpy(COLOURS).permute(2, 0, 1), torch.from_numpy(COLOURS).requires_grad_(False)],
    ids=["bytes", "bytearray", "memoryview", "file", "HWC", "CHW", "tensor"],
)  # fmt: skip
def test_the_same_pixels_from_all(source):
    pixels = read_photograph(source).pixels
    assert (pixels == COLOURS).all()
    assert pixels.flags.c_contiguous


def test_a_matrix_is_a_grey_picture():
    pixels = read_photograph(np.matrix(COLOURS[..., 0])).pixels
    assert type(pixels) is np.ndarray
    assert (pixels == COLOURS[..., :1]).all()


def test_bgr_is_for_arrays_and_tensors():
    assert (read_photograph(COLOURS[..., ::-1], bgr=True).pixels == COLOURS).all()
    tensor = torch.from_numpy(np.ascontiguousarray(COLOURS[..., ::-1])).permute(2, 0, 1)
    assert (read_photograph(tensor, bgr=True).pixels == COLOURS).all()
    assert (read_photograph(png(), bgr=True).pixels == COLOURS).all()


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        (torch.zeros(3, 8, 8), r"got torch\.float32\. For floats from 0 to 1: \(image \* 255\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "Several images are given as a list"),
        (io.StringIO("text"), r"open\(path, 'rb'\)"),
        (io.BytesIO(), "is empty"),
        (b"no image", "the image given as bytes: no image"),
        ("https://hans:secret@example.org/a.jpg", r"an address is not read\. Give its bytes"),
    ],
    ids=["floats", "batch", "text", "read already", "no image", "address"],
)
def test_what_is_refused_names_the_cure(source, cure):
    with pytest.raises((ValueError, FileNotFoundError), match=cure) as error:
        read_photograph(source)
    assert "secret" not in str(error.value)


class TestLists:
    IMAGES = (map_image(), "gone.jpg", map_image(), np.zeros((4, 4, 3)))

    def predictor(self):
        return Predictor(PerfectNetwork(FACE), SPEC, device="cpu", detector=FixedDetector(), flip="none")

    def test_a_bad_image_is_named_by_its_index(self):
        with pytest.raises(
            FileNotFoundError, match=r"image 1 of 4, counted from 0: 'gone\.jpg': there is no such file"
        ):
            self.predictor()(self.IMAGES)
        with pytest.raises(ValueError, match="image 1 of 2, counted from 0: .*float64"):
            self.predictor()([self.IMAGES[0], self.IMAGES[3]])

    def test_few_images_of_a_long_list_are_held_at_once(self, tmp_path, monkeypatch):
        read, alive, most = photographs.read_photograph, weakref.WeakSet(), [0]

        def counted(source, **how):
            alive.add(one := read(source, **how))
            most[0] = max(most[0], len(alive))
            return one

        cv2.imwrite(str(tmp_path / "a.png"), map_image()[..., ::-1])
        monkeypatch.setattr(photographs, "read_photograph", counted)
        predictions = self.predictor()([str(tmp_path / "a.png")] * 40)
        assert most[0] < 20
        assert all(np.abs(one[0].landmarks_image - FACE).max() < 1 for one in predictions)
        with pytest.raises(FileNotFoundError, match="image 20 of 21, counted from 0"):
            self.predictor()([str(tmp_path / "a.png")] * 20 + ["gone.jpg"])

    def test_the_others_can_be_had(self):
        predictions = self.predictor()(self.IMAGES, on_error="skip")
        assert [len(prediction) for prediction in predictions] == [1, 0, 1, 0]
        assert [bool(prediction.error) for prediction in predictions] == [False, True, False, True]
        assert "there is no such file" in predictions[1].error
        assert np.abs(predictions[2][0].landmarks_image - FACE).max() < 1

    def test_boxes_that_are_none_too(self):
        boxes = [box_of(FACE).xyxy[None], [[5, 5, 1, 1]]]
        with pytest.raises(ValueError, match="image 1 of 2"):
            self.predictor()([map_image()] * 2, boxes, convention="square")
        found = self.predictor()([map_image()] * 2, boxes, convention="square", on_error="skip")
        assert [len(one) for one in found] == [1, 0]

    def test_a_single_image_can_be_skipped_and_has_no_index(self):
        assert self.predictor()("gone.jpg", on_error="skip").error.startswith("'gone.jpg'")
        with pytest.raises(FileNotFoundError, match=r"^'gone\.jpg'"):
            self.predictor()("gone.jpg")

    def test_bgr(self):
        (face,) = self.predictor()(map_image()[..., ::-1], bgr=True)
        assert np.abs(face.landmarks_image - FACE).max() < 1

    def test_no_such_way(self):
        with pytest.raises(ValueError, match="on_error='ignore'"):
            self.predictor()([map_image()], on_error="ignore")
