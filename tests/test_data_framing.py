import math

import cv2
import numpy as np
import pytest

from facelm.data.augment import GeometricDraw, GeometricRanges
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.geometry.affine import transform, warp
from facelm.geometry.boxes import Box, crop_from_image

SCALE = 1.25
RANGES = {
    "mmpose": GeometricRanges(),
    "hrnet": GeometricRanges(rotation=30.0, distribution="uniform"),
    "strong": GeometricRanges(rotation=45.0, shift=0.05),
    "shift": GeometricRanges(zoom=0.0, rotation=0.0, shift=0.2, distribution="uniform"),
    "all round": GeometricRanges(rotation=180.0, shift=0.1, distribution="uniform"),
}
BOXES = {
    "inside": Box((450.0, 300.5), 110.0),
    "at the corner": Box((30.0, 570.0), 140.0),
    "larger than the photograph": Box((440.0, 300.0), 700.0),
}


def photograph(width=900, height=600):
    """Smooth noise, as detailed as a photograph is."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def surroundings(ranges, max_side=512):
    return Surroundings(SCALE * ranges.reach, max_side)


def extreme_draws(ranges):
    """Draws at the corners of the ranges, where the crop reaches furthest."""
    turn = min(ranges.rotation, 45.0)
    for zoom in (1 - ranges.zoom, 1 + ranges.zoom):
        for rotation in (0.0, turn, -turn, ranges.rotation):
            for x in (-ranges.shift, ranges.shift):
                for flip in (False, True):
                    yield GeometricDraw(zoom=zoom, rotation=rotation, shift=(x, ranges.shift), flip=flip)


def random_draws(ranges, count=10):
    return [ranges.draw(np.random.default_rng(i)) for i in range(count)]


def matrix(box, draw, crop_size=256):
    return crop_from_image(
        box, crop_size, SCALE, zoom=draw.zoom, rotation=draw.rotation, shift=draw.shift, flip=draw.flip
    )


def corners_in_sides(draw):
    """How far the corners of the crop's square lie from the box's centre along x or y, in evaluation crops."""
    image_from_crop = np.linalg.inv(matrix(Box((0.0, 0.0), 1.0), draw))
    corners = transform(image_from_crop, np.array([[0, 0], [256, 0], [0, 256], [256, 256]], float))
    return np.abs(corners).max() / SCALE


class TestReach:
    @pytest.mark.parametrize("name", RANGES)
    def test_of_a_draw_is_where_its_corners_lie(self, name):
        for draw in [*extreme_draws(RANGES[name]), *random_draws(RANGES[name])]:
            assert draw.reach >= corners_in_sides(draw) - 1e-12
            if not any(draw.shift):
                assert draw.reach == pytest.approx(corners_in_sides(draw))

    @pytest.mark.parametrize("name", RANGES)
    def test_of_the_ranges_is_that_of_the_furthest_draw(self, name):
        ranges = RANGES[name]
        furthest = max(draw.reach for draw in extreme_draws(ranges))
        assert ranges.reach == pytest.approx(furthest)
        assert max(draw.reach for draw in random_draws(ranges, 500)) <= ranges.reach

    def test_mmpose(self):
        assert GeometricRanges().reach == pytest.approx(1.25 * math.sqrt(0.5))  # a corner, at 45 degrees

    def test_a_rotation_that_is_never_drawn_does_not_count(self):
        assert GeometricRanges(rotation_probability=0.0, zoom=0.0).reach == pytest.approx(0.5)


class TestSurroundings:
    @pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
    @pytest.mark.parametrize("name", RANGES)
    def test_no_draw_looks_outside(self, name, box):
        """White everywhere: black in a crop is the photograph's outside, and must be black in both."""
        white = np.full((600, 900, 3), 255, np.uint8)
        picture, image_from_stored = surroundings(RANGES[name]).cut(white, box)
        for draw in [*extreme_draws(RANGES[name]), *random_draws(RANGES[name])]:
            crop = warp(picture, matrix(box, draw) @ image_from_stored, 256)
            original = warp(white, matrix(box, draw), 256)
            inside = cv2.erode((original == 255).astype(np.uint8), np.ones((7, 7)), borderValue=1) > 0
            assert (crop[inside] == 255).all(), draw

    @pytest.mark.parametrize("name", RANGES)
    def test_copied_pixels_give_the_same_crops(self, name):
        box, image = BOXES["inside"], photograph()
        picture, image_from_stored = surroundings(RANGES[name]).cut(image, box)
        assert max(picture.shape) < 512
        for draw in [*extreme_draws(RANGES[name]), *random_draws(RANGES[name])]:
            crop = warp(picture, matrix(box, draw) @ image_from_stored, 256).astype(int)
            difference = np.abs(crop - warp(image, matrix(box, draw), 256))
            # OpenCV 5 interpolates exactly; OpenCV 4 rounds positions to 1/32 of a pixel, from another origin here
            assert difference.max() <= 8
            assert difference.mean() < 0.1

    def test_reduced_pixels_stay_where_they_were(self):
        """A dot's centre, which averaging leaves in place: half a pixel of error here would be 0.4 % of NME."""
        box = Box((450.0, 300.0), 400.0)
        framing = Surroundings(SCALE * GeometricRanges().reach, 384)
        for spot in ([450, 300], [301, 222], [583, 471], [371, 401]):
            image = np.zeros((600, 900, 3), np.uint8)
            cv2.circle(image, spot, 12, (255, 255, 255), -1)
            picture, image_from_stored = framing.cut(image, box)
            assert max(picture.shape) == 384
            ys, xs = np.nonzero(np.ones(picture.shape[:2]))
            weight = picture[..., 0].ravel().astype(float)
            centre = np.array([xs @ weight, ys @ weight]) / weight.sum()
            np.testing.assert_allclose(transform(image_from_stored, centre), spot, atol=0.02)

    @pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
    @pytest.mark.parametrize("max_side", [64, 384])
    def test_size_is_known_without_the_pixels(self, box, max_side):
        framing = surroundings(GeometricRanges(), max_side)
        picture, _ = framing.cut(photograph(), box)
        assert framing.size(box, (900, 600)) == picture.shape[1::-1]
        assert max(picture.shape) <= max_side
        assert picture.flags.c_contiguous

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reach": 1.0, "max_side": 32}, "data.cache_size=32 .* at least 64"),
            ({"reach": 0.0, "max_side": 64}, "got 0"),
        ],
    )
    def test_impossible_settings(self, options, message):
        with pytest.raises(ValueError, match=message):
            Surroundings(**options)


class TestEvaluationCrop:
    @pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
    def test_the_same_bits(self, box):
        image = photograph()
        crop_from_img = crop_from_image(box, 256, SCALE)
        picture, image_from_stored = EvaluationCrop(256, SCALE).cut(image, box)
        np.testing.assert_array_equal(
            warp(picture, crop_from_img @ image_from_stored, 256), warp(image, crop_from_img, 256)
        )
