"""Photographs that ask viewers to turn them: landmarks of the turned picture, and of the pixels as stored."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from facelm.commands.contact_sheet import write_png
from facelm.data.dataset import FaceDataset
from facelm.data.faces import data_fingerprint
from facelm.data.images import exif_orientation, image_size, read_image
from facelm.data.storage.cache import open_cache
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.data.w300.index import index_faces
from facelm.geometry.affine import transform
from facelm.geometry.landmarks import IBUG68
from facelm.predict.photographs import read_photograph
from w300_tree import pts_text, some_landmarks, write_tree

pytestmark = pytest.mark.filterwarnings("ignore:300W is incomplete")

TURNED_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By which a camera turns what a viewer turns back."""


def painted(stored, width=180, height=140):
    """A dark picture with a bright dot at each landmark of the viewer's picture, 1-based as in files."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for x, y in (stored - 1).round().astype(int):
        canvas[y - 1 : y + 2, x - 1 : x + 2] = 255
    return Image.fromarray(canvas)


def save(path, picture, orientation, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = picture.transpose(TURNED_BY[orientation]) if orientation in TURNED_BY else picture
    lying.save(path, exif=exif, **options)
    return path


def tree(root, orientation=6, name="afw/friend", spread=(40.0, 110.0)):
    """A face whose points were placed in a viewer, its photograph lying as the camera stored it."""
    stored = some_landmarks(1, *spread)
    save(root / f"{name}.jpg", painted(stored), orientation, quality=95)
    (root / f"{name}.pts").write_text(pts_text(stored))
    return root


def brightness(face):
    """Of the pixels under the landmarks, 0 to 255."""
    x, y = face.landmarks_image.round().astype(int).T
    return face.read()[y, x].mean()


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
    def test_training_sees_what_the_predictor_and_a_viewer_see(self, tmp_path, orientation, ending):
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)).resize((70, 50), 0)
        path = save(tmp_path / f"a{ending}", picture, orientation)
        with path.open("rb") as stream:
            assert exif_orientation(stream) == orientation
        upright = read_image(path, orientation)
        np.testing.assert_array_equal(upright, read_photograph(path).pixels)
        assert image_size(path, orientation) == (upright.shape[1], upright.shape[0]) == (70, 50)
        assert abs(upright.astype(int) - np.array(picture)).mean() < 12  # JPEG and WebP lose a little

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_byte_orders_and_other_segments_before(self, order):
        import struct

        tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 8, 0, 0)
        segments = [b"\xe0JFIF\0", b"\xe1http://ns.adobe.com/xap/1.0/\0", b"\xe1Exif\0\0" + tiff]
        jpeg = b"\xff\xd8" + b"".join(b"\xff" + s[:1] + struct.pack(">H", len(s) + 1) + s[1:] for s in segments)
        assert exif_orientation(io.BytesIO(jpeg)) == 8

    @pytest.mark.parametrize("cut", range(0, 120, 7))
    def test_damaged_exif_turns_nothing_or_as_it_said(self, tmp_path, cut):
        content = save(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), 6).read_bytes()
        assert exif_orientation(io.BytesIO(content[:cut])) in (1, 6)
        assert exif_orientation(io.BytesIO(content.replace(b"\x01\x12", b"\xff\xff"))) == 1


class TestFaces:
    @pytest.mark.parametrize("orientation", [3, 6, 8])
    def test_points_placed_in_a_viewer_are_found_again(self, tmp_path, orientation):
        (face,) = index_faces(tree(tmp_path, orientation), "train")
        assert face.orientation == orientation
        assert brightness(face) > 200

    def test_points_placed_on_the_stored_pixels(self, tmp_path):
        stored = some_landmarks(1, 40.0, 110.0)
        exif = Image.Exif()
        exif[0x0112] = 6
        (tmp_path / "afw").mkdir()
        painted(stored).save(tmp_path / "afw/friend.jpg", exif=exif, quality=95)
        (tmp_path / "afw/friend.pts").write_text(pts_text(stored))
        (face,) = index_faces(tmp_path, "train", exif="ignore")
        assert face.orientation == 1
        assert brightness(face) > 200

    def test_300ws_own_are_left_as_they_are_stored(self, tmp_path):
        root = tree(tmp_path, name="afw/111076519_1")
        assert [face.orientation for face in index_faces(root, "train")] == [1]
        assert [face.orientation for face in index_faces(root, "train", exif="apply")] == [6]

    @pytest.mark.parametrize("name", ["20240131_12", "20091205_1", "IMG_0001", "image_0001 b"])
    def test_a_cameras_names_are_not_300ws(self, tmp_path, name):
        """A day is a number of eight digits, too."""
        assert [face.orientation for face in index_faces(tree(tmp_path, name=f"afw/{name}"), "train")] == [6]

    def test_size_is_that_of_the_turned_picture(self, tmp_path):
        root = tree(tmp_path, spread=(60.0, 172.0))  # 180 wide when turned, 140 as stored
        stored = some_landmarks(1, 60.0, 138.0) + np.array([38, 0])
        (root / "afw/friend.pts").write_text(pts_text(stored))
        assert len(index_faces(root, "train")) == 1
        with pytest.raises(ValueError, match="far outside the 140x180 pixels"):
            index_faces(root, "train", exif="ignore")

    @pytest.mark.parametrize(("exif", "done"), [("auto", "1 were turned"), ("ignore", "1 left as stored")])
    def test_they_are_counted_in_the_log(self, tmp_path, caplog, exif, done):
        write_tree(tmp_path, ["afw/other"])
        with caplog.at_level(logging.INFO):
            index_faces(tree(tmp_path), "train", exif=exif)
        (said,) = [record.message for record in caplog.records if "EXIF" in record.message]
        assert "photographs of 1 faces" in said
        assert done in said
        assert "data.exif" in said

    def test_nothing_is_said_where_nothing_lies(self, tmp_path, caplog):
        write_tree(tmp_path, ["afw/other"])
        with caplog.at_level(logging.INFO):
            index_faces(tmp_path, "train")
        assert not caplog.records

    def test_an_unknown_choice(self, tmp_path):
        with pytest.raises(ValueError, match="data.exif='maybe' is none of auto, apply, ignore"):
            index_faces(tree(tmp_path), "train", exif="maybe")

    def test_other_pixels_are_other_data(self, tmp_path):
        root = tree(tmp_path)
        prints = {exif: data_fingerprint(index_faces(root, "train", exif=exif)) for exif in ("apply", "ignore", "auto")}
        assert prints["apply"] == prints["auto"] != prints["ignore"]


class TestCache:
    @pytest.mark.parametrize("framing", [EvaluationCrop(64, 1.25), Surroundings(1.2, 512)])
    def test_each_choice_has_a_cache_of_its_own(self, tmp_path, framing):
        root = tree(tmp_path)
        dots = {}
        for exif in ("apply", "ignore"):
            faces = index_faces(root, "train", exif=exif)
            source = open_cache(faces, framing, tmp_path / "cache")
            picture, image_from_stored = source.load(0)
            at = transform(np.linalg.inv(image_from_stored), faces[0].landmarks_image).round().astype(int)
            dots[exif] = picture[at[:, 1], at[:, 0]].mean()
        assert dots["apply"] > 100 > dots["ignore"]
        assert len(list((tmp_path / "cache").glob("*.faces"))) == 2

    def test_crops_from_photographs_and_cache_agree(self, tmp_path):
        faces = index_faces(tree(tmp_path), "train")
        options = {"crop_size": 64, "crop_scale": 1.25, "scheme": IBUG68}
        cached = FaceDataset(faces, source=open_cache(faces, EvaluationCrop(64, 1.25), tmp_path / "cache"), **options)
        assert (FaceDataset(faces, **options)[0, 0]["image"] == cached[0, 0]["image"]).all()


def test_the_picture_of_a_png_without_exif(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    with (tmp_path / "a.png").open("rb") as stream:
        assert exif_orientation(stream) == 1
