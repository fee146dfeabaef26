"""Overlays: where they are drawn, that they scale with the face, and what does not crash them."""

from __future__ import annotations

import numpy as np
import pytest

from facelm.evaluation.overlay import PREDICTED, TRUTH, draw_face_tile, draw_landmarks, in_resized, resized
from facelm.geometry.landmarks import IBUG68, LandmarkScheme
from perfect_network import face_landmarks

TWO_EYES = LandmarkScheme("two-eyes", 2, (1, 0), {"eyes": (0, 1)}, (0, 1), ((0,), (1,)), contours=())


def black(height: int = 200, width: int = 200) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def centroid(image: np.ndarray, near: tuple[float, float], reach: int = 12) -> np.ndarray:
    """Brightness-weighted mean position (x, y) within `reach` of a point."""
    x0, y0 = round(near[0]) - reach, round(near[1]) - reach
    weight = image[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1].astype(float).sum(axis=2)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([x0 + (x * weight).sum() / weight.sum(), y0 + (y * weight).sum() / weight.sum()])


def random_face(scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(40, 160, (68, 2)) * scale


class TestLandmarks:
    @pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.8])
    def test_dots_are_centred_on_the_landmark(self, offset: float) -> None:
        landmarks = np.array([[50.0 + offset, 60.0], [150.0, 140.0 + offset]])
        canvas = draw_landmarks(black(), landmarks, TWO_EYES)
        for point in landmarks:
            np.testing.assert_allclose(centroid(canvas, tuple(point)), point, atol=0.15)

    def test_contours_are_drawn_in_the_colour(self) -> None:
        landmarks = np.full((68, 2), 10.0)
        landmarks[27], landmarks[28] = (20.0, 100.0), (180.0, 100.0)  # the bridge of the nose
        line = draw_landmarks(black(), landmarks)[100, 60:140]
        np.testing.assert_allclose(
            line, np.broadcast_to(PREDICTED, line.shape), atol=32
        )  # antialiased, one pixel thick

    def test_a_hidden_point_of_the_truth_is_a_ring(self) -> None:
        truth = np.array([[50.0, 60.0], [150.0, 140.0]])
        canvas = draw_landmarks(black(), truth + 40, TWO_EYES, truth=truth, hidden=np.array([True, False]))
        assert tuple(canvas[60, 50]) == (0, 0, 0)
        assert tuple(canvas[140, 150]) == TRUTH
        np.testing.assert_allclose(centroid(canvas, (50.0, 60.0)), truth[0], atol=0.15)

    def test_truth_lies_below_in_its_own_colour(self) -> None:
        truth = np.array([[50.0, 60.0], [150.0, 140.0]])
        predicted = np.array([[50.0, 60.0], [120.0, 140.0]])
        canvas = draw_landmarks(black(), predicted, TWO_EYES, truth=truth)
        assert tuple(canvas[60, 50]) == PREDICTED
        assert tuple(canvas[140, 120]) == PREDICTED
        assert tuple(canvas[140, 150]) == TRUTH

    def test_photograph_is_left_alone(self) -> None:
        image = black()
        image.setflags(write=False)
        for view in (image, image[:, ::-1]):
            assert draw_landmarks(view, random_face()).any()
        assert not image.any()

    def test_large_and_small_photographs_look_alike(self) -> None:
        shares = [draw_landmarks(black(200 * k, 200 * k), random_face(k)).mean() for k in (4, 8, 16)]
        assert max(shares) < 1.5 * min(shares)  # 4 with lines of a fixed width

    def test_landmarks_that_are_no_points_are_left_out(self) -> None:
        landmarks = random_face()
        landmarks[5], landmarks[40], landmarks[50] = (np.nan, 3), (np.inf, 3), (-1e12, 1e12)
        assert draw_landmarks(black(), landmarks).any()
        assert not draw_landmarks(black(), np.full((68, 2), np.nan)).any()


class TestFaceTile:
    @pytest.mark.parametrize("side", [60, 900])
    def test_landmarks_stay_on_the_features_when_the_tile_is_scaled(self, side: int) -> None:
        """A blob halfway between two landmarks must be halfway between their dots: no half-pixel slip."""
        image = black(1200, 1200)
        landmarks = np.array([[100.0, 120.0], [100.0 + side, 120.0 + side]])
        middle = landmarks.mean(axis=0)
        y, x = np.mgrid[:1200, :1200]
        sigma = side / 40
        blob = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * sigma**2))
        image[:] = np.round(255 * blob)[..., None]
        tile = draw_face_tile(image, landmarks, TWO_EYES, size=320)
        assert tile.shape == (320, 320, 3)
        dots = [centroid(tile, (160 + at, 160 + at)) for at in (-100, 100)]
        np.testing.assert_allclose(dots[1] - dots[0], 320 / 1.6, atol=0.2)
        np.testing.assert_allclose(centroid(tile, (160, 160), 40), (dots[0] + dots[1]) / 2, atol=0.1)

    def test_face_partly_outside_the_photograph(self) -> None:
        tile = draw_face_tile(black(50, 50) + np.uint8(9), random_face(), size=100)
        assert tile.shape == (100, 100, 3)

    def test_prediction_that_is_not_a_number(self) -> None:
        tile = draw_face_tile(black(), np.full((68, 2), np.nan), truth=random_face(), size=100)
        assert tile.any()

    def test_no_face_to_cut_out(self) -> None:
        with pytest.raises(ValueError, match="side > 0"):
            draw_face_tile(black(), np.full((68, 2), 5.0))
        with pytest.raises(ValueError, match="finite"):
            draw_face_tile(black(), np.full((IBUG68.num_landmarks, 2), np.nan))

    def test_a_point_that_is_not_labelled_is_not_drawn(self):
        """Neither where it was predicted: a face of one's own may lack points."""
        truth = random_face()
        truth[5] = np.nan
        tiles = []
        for predicted in (random_face() + 1, random_face() + 1):
            predicted[5] += 20 * len(tiles)
            tiles.append(draw_face_tile(black(), predicted, truth=truth, size=100))
        assert tiles[0].any()
        assert np.array_equal(*tiles)


def test_what_is_drawn_can_be_chosen():
    image, points = np.zeros((200, 200, 3), np.uint8), face_landmarks(center=(100.0, 100.0), side=120.0)
    whole = draw_landmarks(image, points)
    dots, lines = draw_landmarks(image, points, contours=False), draw_landmarks(image, points, points=False)
    assert not np.array_equal(dots, lines)
    assert ((dots > 0) | (lines > 0) >= (whole > 0)).all()
    assert (draw_landmarks(image, points, points=False, contours=False) == 0).all()
    assert (draw_landmarks(image, points, points=False, contours=False, numbers=True) > 0).any()


@pytest.mark.parametrize(("size", "scale"), [((50, 100), 2.0), ((300, 150), 1.0), ((800, 200), 0.5)])
def test_resized_points_stay_on_their_pixels(size, scale):
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2, size[1] // 2] = 255
    small, got = resized(image, most=400, least=200)
    assert got == scale
    x, y = in_resized(np.array([size[1] // 2, size[0] // 2]), scale)
    middle = np.argwhere(small[..., 0] > small.max() / 2).mean(axis=0)
    assert middle == pytest.approx((y, x), abs=0.5)
