import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import facelm.predict.photographs as photographs
from facelm.predict.photographs import MOST_PIXELS, Photograph, read_photograph

COLOURS = np.zeros((40, 60, 3), np.uint8)  # four rectangles: red, green / yellow, blue
COLOURS[:20, :30], COLOURS[:20, 30:], COLOURS[20:, :30], COLOURS[20:, 30:] = (
    (255, 0, 0), (0, 200, 0), (255, 255, 0), (0, 0, 255),
)  # fmt: skip
PIL_COLOURS = Image.fromarray(COLOURS)
ORIENTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def write(path, image, **options):
    """A PIL image as a file, whatever characters the name holds."""
    stream = io.BytesIO()
    image.save(stream, **options)
    path.write_bytes(stream.getvalue())
    return path


def exif(orientation):
    data = Image.Exif()
    data[0x112] = orientation
    return data


def near(pixels, expected, most=12):
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).mean() < most


class TestSources:
    @pytest.mark.parametrize("as_type", [str, lambda path: path])
    def test_path(self, tmp_path, as_type):
        near(read_photograph(as_type(write(tmp_path / "a.png", PIL_COLOURS, format="PNG"))).pixels, COLOURS, 0.1)

    def test_array_and_pil(self):
        near(read_photograph(COLOURS).pixels, COLOURS, 0.1)
        near(read_photograph(PIL_COLOURS).pixels, COLOURS, 0.1)

    def test_a_photograph_stays_itself(self):
        photograph = Photograph(COLOURS)
        assert read_photograph(photograph) is photograph

    @pytest.mark.parametrize("source", [None, 3, [COLOURS]])
    def test_anything_else(self, source):
        with pytest.raises(ValueError, match="an image is a path, bytes, an open file, .* got"):
            read_photograph(source)

    @pytest.mark.parametrize("name", ["with space.png", "smörgåsbord 顔.png", "line\nbreak.png", "quote'\".png"])
    def test_file_names(self, tmp_path, name):
        near(read_photograph(write(tmp_path / name, PIL_COLOURS, format="PNG")).pixels, COLOURS, 0.1)

    def test_bytes_that_are_no_text_in_the_name(self, tmp_path):
        path = tmp_path / os.fsdecode(b"\xff\xfe.png")
        near(read_photograph(write(path, PIL_COLOURS, format="PNG")).pixels, COLOURS, 0.1)

    def test_missing_and_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            read_photograph(tmp_path / "gone.jpg")
        with pytest.raises(FileNotFoundError, match="a folder, not an image"):
            read_photograph(tmp_path)


class TestOrientation:
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_a_file_comes_out_upright(self, tmp_path, orientation):
        path = write(tmp_path / "a.jpg", PIL_COLOURS, format="JPEG", quality=95, exif=exif(orientation))
        near(read_photograph(path).pixels, ORIENTATIONS[orientation](COLOURS))

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    def test_of_other_kinds_too(self, tmp_path, kind):
        path = write(tmp_path / "a", PIL_COLOURS, format=kind, exif=exif(6))
        near(read_photograph(path).pixels, np.rot90(COLOURS, -1))

    def test_a_pil_image_comes_out_upright(self, tmp_path):
        path = write(tmp_path / "a.jpg", PIL_COLOURS, format="JPEG", quality=95, exif=exif(6))
        near(read_photograph(Image.open(path)).pixels, np.rot90(COLOURS, -1))


class TestKinds:
    @pytest.mark.parametrize("as_pil", [False, True])
    @pytest.mark.parametrize(
        ("mode", "options"),
        [("CMYK", {"format": "JPEG", "quality": 95}), ("RGBA", {"format": "PNG"}), ("P", {"format": "PNG"}),
         ("YCbCr", {"format": "JPEG"}), ("CMYK", {"format": "TIFF"}), ("RGB", {"format": "BMP"}),
         ("RGB", {"format": "WEBP"})],
    )  # fmt: skip
    def test_colour(self, tmp_path, mode, options, as_pil):
        path = write(tmp_path / "a", PIL_COLOURS.convert(mode), **options)
        near(read_photograph(Image.open(path) if as_pil else path).pixels, COLOURS)

    @pytest.mark.parametrize("as_pil", [False, True])
    def test_alpha_is_dropped(self, tmp_path, as_pil):
        clear = PIL_COLOURS.convert("RGBA")
        clear.putalpha(0)
        path = write(tmp_path / "a.png", clear, format="PNG")
        near(read_photograph(Image.open(path) if as_pil else path).pixels, COLOURS, 0.1)

    @pytest.mark.parametrize("as_pil", [False, True])
    @pytest.mark.parametrize("mode", ["L", "LA", "1"])
    def test_grey(self, tmp_path, mode, as_pil):
        path = write(tmp_path / "a.png", PIL_COLOURS.convert(mode), format="PNG")
        expected = np.array(PIL_COLOURS.convert(mode).convert("RGB"))
        near(read_photograph(Image.open(path) if as_pil else path).pixels, expected, 1)

    @pytest.mark.parametrize("as_pil", [False, True])
    @pytest.mark.parametrize("ending", [".png", ".tif"])
    def test_sixteen_bits(self, tmp_path, ending, as_pil):
        deep = np.linspace(0, 65535, 2400).astype(np.uint16).reshape(40, 60)
        path = tmp_path / f"a{ending}"
        cv2.imwrite(str(path), deep)
        expected = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2)
        near(read_photograph(Image.open(path) if as_pil else path).pixels, expected, 1)

    def test_sixteen_bits_in_colour_and_with_alpha(self, tmp_path):
        blue_first = COLOURS[..., ::-1].astype(np.uint16) * 257
        for name, deep in [("a.png", blue_first), ("b.png", np.dstack([blue_first, blue_first[..., 0]]))]:
            cv2.imwrite(str(tmp_path / name), deep)
            near(read_photograph(tmp_path / name).pixels, COLOURS, 1)

    def test_arrays(self):
        grey = COLOURS[..., 0]
        expected = np.repeat(grey[..., None], 3, axis=2)
        near(read_photograph(grey).pixels, expected, 0.1)
        near(read_photograph(grey[..., None]).pixels, expected, 0.1)
        near(read_photograph(np.dstack([COLOURS, grey])).pixels, COLOURS, 0.1)
        near(read_photograph(COLOURS.astype(np.uint16) * 256).pixels, COLOURS, 0.1)
        near(read_photograph(COLOURS[:, ::-1]).pixels, COLOURS[:, ::-1], 0.1)

    @pytest.mark.parametrize(
        "options",
        [{"format": "GIF"}, {"format": "PNG"}, {"format": "WEBP", "lossless": True}, {"format": "TIFF"}],
        ids=lambda options: options["format"],
    )
    @pytest.mark.parametrize("as_pil", [False, True])
    def test_of_an_animation_the_first_frame_and_a_note(self, tmp_path, options, as_pil):
        more = [Image.fromarray(np.roll(COLOURS, shift, axis=1)) for shift in (10, 20)]
        moving = write(tmp_path / "moving", PIL_COLOURS, save_all=True, append_images=more, **options)
        photograph = read_photograph(Image.open(moving) if as_pil else moving)
        near(photograph.pixels, COLOURS)
        assert photograph.notes == ("animated or of several pages: only the first is used",)
        still = write(tmp_path / "still", PIL_COLOURS, **options)
        assert read_photograph(Image.open(still) if as_pil else still).notes == ()


class TestDamage:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    def test_truncated(self, tmp_path, kind):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8))
        path = write(tmp_path / "a", noise, format=kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"(truncated|cannot|can decode).*(again|as JPEG or PNG)"):
            read_photograph(path)

    def test_truncated_pil(self, tmp_path):
        path = write(tmp_path / "a.jpg", Image.effect_noise((200, 200), 50), format="JPEG")
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match="the PIL image cannot be decoded"):
            read_photograph(Image.open(path))

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"")
        with pytest.raises(ValueError, match=r"is empty.*Copy or export it again$"):
            read_photograph(tmp_path / "a.jpg")

    def test_no_image(self, tmp_path):
        (tmp_path / "a.jpg").write_text("I am a text")
        with pytest.raises(ValueError, match=r"a\.jpg.*no image that OpenCV can decode.*RAW"):
            read_photograph(tmp_path / "a.jpg")

    @pytest.mark.parametrize("shape", [(0, 0, 3), (0, 10, 3), (10, 0), (10, 0, 3)])
    def test_zero_size(self, shape):
        with pytest.raises(ValueError, match="the image is empty"):
            read_photograph(np.zeros(shape, np.uint8))

    def test_zero_size_file(self, tmp_path):
        content = bytearray(write(tmp_path / "a.png", PIL_COLOURS, format="PNG").read_bytes())
        content[16:20] = b"\0\0\0\0"
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match="the image header says 0x40 pixels"):
            read_photograph(tmp_path / "a.png")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((3, 40, 60), np.uint8), r"got 3x40x60\. Put the channels last"),
            (np.zeros((2, 40, 60, 3), np.uint8), "Several images are given as a list"),
            (np.zeros((40, 60, 2), np.uint8), "got 40x60x2"),
            (np.zeros((40, 60, 3), np.float32), r"got float32\. For floats from 0 to 1"),
            (np.zeros((40, 60, 3), bool), "got bool"),
            (np.zeros(5, np.uint8), "got 5"),
        ],
    )
    def test_arrays_that_are_no_image(self, array, message):
        with pytest.raises(ValueError, match=message):
            read_photograph(array)

    def test_float_pil(self):
        with pytest.raises(ValueError, match="mode 'F'"):
            read_photograph(Image.fromarray(np.zeros((4, 4), np.float32)))


HUGE = """
import resource, sys
from facelm.predict.photographs import read_photograph
from facelm.predict.detect import copies_to_look_at
from facelm.predict.predictor import Predictor
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photograph = read_photograph(sys.argv[1])
copies = [copy.shape for copy, _ in copies_to_look_at(photograph.pixels)]
print(photograph.size, copies, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


class TestHuge:
    def test_100_megapixels_take_less_than_a_gigabyte(self, tmp_path):
        """And a detector looks at no more than 4 megapixels of them."""
        path = tmp_path / "huge.jpg"
        cv2.imwrite(str(path), np.full((10_000, 10_000), 128, np.uint8))
        done = subprocess.run([sys.executable, "-c", HUGE, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("(10000, 10000) [(1000, 1000, 3), (2000, 2000, 3)] ")
        assert float(done.stdout.split()[-1]) < 900

    def test_beyond_the_limit_nothing_is_decoded(self, tmp_path, monkeypatch):
        content = bytearray(write(tmp_path / "a.png", PIL_COLOURS, format="PNG").read_bytes())
        content[16:24] = (30_000).to_bytes(4, "big") * 2
        (tmp_path / "a.png").write_bytes(content)
        monkeypatch.setattr(photographs.cv2, "imdecode", None)
        with pytest.raises(ValueError, match=r"30000x30000 pixels; at most 200 million are read\. Shrink it"):
            read_photograph(tmp_path / "a.png")
        assert MOST_PIXELS < 30_000**2
