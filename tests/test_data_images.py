import cv2
import numpy as np
import pytest

from facelm.data.images import IMAGE_ENDINGS, image_size, read_image
from w300_tree import write_image

# A TIFF-style EXIF block that says orientation 6: "turn by 90 degrees to show".
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
ORIENTED = b"\xff\xe1" + (len(EXIF) + 2).to_bytes(2, "big") + EXIF


def encoded(ending, pixels, *options):
    return cv2.imencode(ending, pixels, list(options))[1].tobytes()


PIXELS = np.random.default_rng(0).integers(0, 255, (90, 100, 3), np.uint8)
WEBP_LOSSY = (cv2.IMWRITE_WEBP_QUALITY, 80)


class TestImageSize:
    @pytest.mark.parametrize("ending", [*filter(cv2.haveImageWriter, IMAGE_ENDINGS), ".JPG", ".PNG"])
    def test_width_and_height_of_every_format(self, tmp_path, ending):
        assert image_size(write_image(tmp_path / f"a{ending}", 100, 90)) == (100, 90)

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(encoded(".jpg", PIXELS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), id="progressive"),
            pytest.param(encoded(".jpg", PIXELS, cv2.IMWRITE_JPEG_RST_INTERVAL, 2), id="restart markers"),
            pytest.param(encoded(".jpg", PIXELS[:, :, 0]), id="grey"),
            pytest.param(encoded(".jpg", PIXELS) + b"\0" * 5000, id="written on after the end"),
            pytest.param(encoded(".png", PIXELS) + b"\0" * 5000, id="png written on after the end"),
            pytest.param(encoded(".png", PIXELS), id="png under another ending"),
            pytest.param(encoded(".webp", PIXELS, *WEBP_LOSSY), id="lossy webp"),
            pytest.param(encoded(".webp", np.dstack([PIXELS, PIXELS[..., 0]]), *WEBP_LOSSY), id="extended webp"),
        ],
    )
    def test_variants(self, tmp_path, content):
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        assert image_size(path) == (100, 90)
        assert read_image(path).shape == (90, 100, 3)

    def test_a_thumbnail_is_not_the_photograph(self, tmp_path):
        thumbnail = encoded(".jpg", PIXELS[:16, :24])
        photo = encoded(".jpg", PIXELS)
        segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
        (tmp_path / "a.jpg").write_bytes(photo[:2] + segment + photo[2:])
        assert image_size(tmp_path / "a.jpg") == (100, 90)
        (tmp_path / "a.jpg").write_bytes((photo[:2] + segment + photo[2:])[:-100])
        with pytest.raises(ValueError, match="truncated"):
            image_size(tmp_path / "a.jpg")

    def test_only_the_ends_are_read(self, tmp_path, monkeypatch):
        path = write_image(tmp_path / "a.jpg", 600, 500)
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
        assert image_size(path) == (600, 500)


class TestDamage:
    @pytest.mark.parametrize("read", [image_size, read_image])
    @pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
    @pytest.mark.parametrize("kept", [0.0005, 0.01, 0.3, 0.9, 0.9999])
    def test_truncated(self, tmp_path, ending, kept, read):
        path = write_image(tmp_path / f"cut{ending}", 200, 150)
        content = path.read_bytes()
        path.write_bytes(content[: max(13, int(kept * len(content)))])
        with pytest.raises(ValueError, match=rf"cut\{ending}: the image is truncated.*data\.on_error=skip"):
            read(path)

    @pytest.mark.parametrize("read", [image_size, read_image])
    @pytest.mark.parametrize("ending", [".bmp", ".tif"])
    def test_truncated_in_formats_that_are_decoded(self, tmp_path, ending, read):
        path = write_image(tmp_path / f"cut{ending}", 200, 150)
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises(ValueError, match=rf"cut\{ending}: the image cannot be decoded"):
            read(path)

    @pytest.mark.parametrize("read", [image_size, read_image])
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "a.jpg: the image file is empty"),
            (b"<html>404 not found</html>", "a.jpg: the image cannot be decoded"),
            (b"\xff\xd8", "a.jpg: the image is truncated"),
            (b"short", "a.jpg: the image cannot be decoded"),
        ],
    )
    def test_no_image(self, tmp_path, content, message, read):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.jpg")

    @pytest.mark.parametrize("read", [image_size, read_image])
    def test_absent(self, tmp_path, read):
        with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
            read(tmp_path / "absent.jpg")

    def test_damage_inside_is_found_by_decoding(self, tmp_path):
        path = write_image(tmp_path / "inside.png", 200, 150)
        content = bytearray(path.read_bytes())
        content[100:2000] = bytes(1900)
        path.write_bytes(content)
        assert image_size(path) == (200, 150)
        with pytest.raises(ValueError, match=r"inside\.png: the image is damaged"):
            read_image(path)


class TestReadImage:
    def test_rgb(self, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(encoded(".png", PIXELS[..., ::-1]))  # OpenCV writes BGR
        np.testing.assert_array_equal(read_image(path), PIXELS)

    @pytest.mark.parametrize("grey", [PIXELS[..., 0], PIXELS[..., 0] * np.uint16(257)], ids=["8 bit", "16 bit"])
    def test_grey_becomes_rgb(self, tmp_path, grey):
        (tmp_path / "a.png").write_bytes(encoded(".png", grey))
        image = read_image(tmp_path / "a.png")
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.repeat(PIXELS[..., :1], 3, axis=2))

    def test_orientation_is_not_applied(self, tmp_path):
        photo = encoded(".jpg", PIXELS)
        path = tmp_path / "a.jpg"
        path.write_bytes(photo[:2] + ORIENTED + photo[2:])
        turned = cv2.imread(str(path))
        assert turned.shape[:2] == (100, 90), "the EXIF block of this test is not understood"
        assert read_image(path).shape == (90, 100, 3)
        assert image_size(path) == (100, 90)

    def test_a_segment_ends_where_it_says_whatever_is_filled_in_before(self, tmp_path):
        """Fill bytes are not part of it; what follows in it looks like another frame's header."""
        frame = bytes.fromhex("ffc0000b080001000101011100")
        comment = b"\xff" * 20 + b"\xff\xfe" + (2 + 20 + len(frame)).to_bytes(2, "big") + bytes(20) + frame
        jpeg = encoded(".jpg", PIXELS)
        scan = jpeg.index(b"\xff\xda")
        (tmp_path / "a.jpg").write_bytes(jpeg[:scan] + comment + jpeg[scan:])
        assert image_size(tmp_path / "a.jpg") == (100, 90)

    def test_names_in_any_script(self, tmp_path):
        path = write_image(tmp_path / "Gesichter äöü 顔" / "face é 1.jpg", 30, 20)
        assert read_image(path).shape == (20, 30, 3)
        assert image_size(path) == (30, 20)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_png_with_one_flipped_bit_is_refused(tmp_path, place):
    path = write_image(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: the image is damaged: the checksum"):
        read_image(path)
