"""Kinds of photographs that OpenCV does not read, or not rightly, through the decoder of training and prediction."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from facelm.data.images import read_image
from facelm.predict.photographs import read_photograph

COLOURS = np.zeros((40, 60, 3), np.uint8)
COLOURS[:20, :30], COLOURS[:20, 30:], COLOURS[20:, :30] = (255, 0, 0), (0, 200, 0), (255, 255, 0)


def near(pixels, expected, most=12):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < most


def exif(orientation):
    data = Image.Exif()
    data[0x112] = orientation
    return data


def readers():
    """The ways into a file: training's, prediction's, as bytes, as an open file, and through Pillow."""
    return {
        "training": lambda path: read_image(path),
        "path": lambda path: read_photograph(path).pixels,
        "bytes": lambda path: read_photograph(path.read_bytes()).pixels,
        "file": lambda path: read_photograph(io.BytesIO(path.read_bytes())).pixels,
        "pil": lambda path: read_photograph(Image.open(path)).pixels,
    }


class TestKinds:
    @pytest.mark.parametrize("way", readers())
    @pytest.mark.parametrize("orientation", [1, 6, 3])
    def test_avif_is_turned_as_its_format_says(self, tmp_path, way, orientation):
        Image.fromarray(COLOURS).save(tmp_path / "a.avif", exif=exif(orientation))
        expected = np.rot90(COLOURS, {1: 0, 6: -1, 3: 2}[orientation])
        near(readers()[way](tmp_path / "a.avif"), expected)

    @pytest.mark.parametrize("way", ["training", "path", "bytes", "file"])
    def test_heic(self, tmp_path, way):
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(COLOURS)).save(tmp_path / "a.heic", quality=95)
        near(readers()[way](tmp_path / "a.heic"), COLOURS)

    @pytest.mark.parametrize("way", readers())
    def test_tga(self, tmp_path, way):
        Image.fromarray(COLOURS).save(tmp_path / "a.tga")
        near(readers()[way](tmp_path / "a.tga"), COLOURS, 0.1)

    def test_mpo_is_its_first_picture_without_a_word(self, tmp_path):
        picture = Image.fromarray(COLOURS)
        picture.save(tmp_path / "a.mpo", save_all=True, append_images=[picture.rotate(180)], quality=95)
        for source in (tmp_path / "a.mpo", Image.open(tmp_path / "a.mpo")):
            photograph = read_photograph(source)
            near(photograph.pixels, COLOURS)
            assert photograph.notes == ()

    def test_damaged_heic_and_avif_are_a_sentence(self, tmp_path):
        pytest.importorskip("pillow_heif")
        for name, brand in (("a.heic", b"heic"), ("a.avif", b"avif")):
            (tmp_path / name).write_bytes(b"\x00\x00\x00\x14ftyp" + brand + bytes(4) + brand + bytes(100))
            with pytest.raises(ValueError, match=rf"{name}.*picture is damaged or cut short"):
                read_photograph(tmp_path / name)

    def test_heic_without_pillow_heif_names_the_cure(self, tmp_path):
        (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x14ftypheic" + bytes(4) + b"heic" + bytes(100))
        code = "import sys; sys.modules['pillow_heif'] = None; from pathlib import Path\n"
        code += "from facelm.data.images import read_image; read_image(Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, tmp_path / "a.heic"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "a.heic: HEIC is read with pillow-heif, which is not installed. Run pip install" in done.stderr


class TestFewBitsInSixteen:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    @pytest.mark.parametrize("ending", [".png", ".tif"])
    @pytest.mark.parametrize("way", ["training", "path"])
    def test_are_read_by_their_largest_value(self, tmp_path, bits, ending, way):
        deep = COLOURS[..., ::-1].astype(np.uint16) << (bits - 8)
        cv2.imwrite(str(tmp_path / f"a{ending}"), deep)
        near(readers()[way](tmp_path / f"a{ending}"), COLOURS, 0.1)

    def test_arrays_and_grey_pil_images_too(self):
        grey = np.linspace(0, 4095, 2400).astype(np.uint16).reshape(40, 60)
        expected = np.repeat((grey >> 4).astype(np.uint8)[..., None], 3, axis=2)
        near(read_photograph(grey).pixels, expected, 0.1)
        near(read_photograph(Image.fromarray(grey)).pixels, expected, 0.1)

    def test_a_dark_photograph_of_8_bits_stays_dark(self, tmp_path):
        dark = COLOURS // 16
        cv2.imwrite(str(tmp_path / "a.png"), dark[..., ::-1])
        near(read_photograph(tmp_path / "a.png").pixels, dark, 0.1)


BROKEN = {  # a TIFF structure as EXIF has it, and the orientation that can still be read in it
    "a rational of -1/0": (b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
                           b"\x1a\x01\x05\0\x01\0\0\0\x26\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0", 6),
    "garbage": (b"garbage!" * 8, 1),
    "cut": (b"II*\0\x08\0\0\0\x05\0\x12\x01", 1),
    "no such orientation": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0", 1),
    "a directory that is nowhere": (b"II*\0\xff\xff\xff\x7f", 1),
}  # fmt: skip


@pytest.mark.parametrize("way", ["path", "bytes", "file", "pil"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_exif_turns_the_same_through_every_way(tmp_path, name, way):
    tiff, orientation = BROKEN[name]
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0" + tiff)
    near(readers()[way](tmp_path / "a.jpg"), np.rot90(COLOURS, -1) if orientation == 6 else COLOURS)
