"""What programs hand over in place of a path."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from facelm.predict.photographs import read_photograph

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
