import numpy as np
import pytest

from facelm.geometry.affine import transform
from facelm.geometry.boxes import Box, box_from_landmarks, crop_from_image


class TestBoxFromLandmarks:
    def test_published_example(self):
        # Face 197 of 300W's test set: extremes as published, center and scale as published.
        box = box_from_landmarks(np.array([[268.0, 265.0], [710.702, 741.209]]))
        assert box == Box(center=(489.5, 503.5), side=477.0)  # scale 2.385

    def test_moves_with_whole_pixels(self):
        landmarks = np.random.default_rng(0).uniform(0, 400, (68, 2))
        moved = box_from_landmarks(landmarks - 1.0)
        box = box_from_landmarks(landmarks)
        assert moved == Box((box.center[0] - 1, box.center[1] - 1), box.side)


class TestCropFromImage:
    box = Box((100.0, 80.0), 100.0)

    def test_shows_crop_scale_times_the_box(self):
        matrix = crop_from_image(self.box, 250, 1.25)
        np.testing.assert_allclose(transform(matrix, np.array([[100 - 62.5, 80 - 62.5]])), [[0, 0]], atol=1e-9)

    def test_zoom_above_one_makes_the_face_smaller(self):
        point = np.array([[120.0, 80.0]])
        plain = transform(crop_from_image(self.box, 250, 1.25), point)[0, 0] - 125
        zoomed = transform(crop_from_image(self.box, 250, 1.25, zoom=1.25), point)[0, 0] - 125
        assert zoomed == pytest.approx(plain / 1.25)

    def test_flip_mirrors_about_the_center_and_then_turns(self):
        # mmpose flips the photograph first, then rotates: a point right of the center comes to the left, then turns.
        matrix = crop_from_image(self.box, 250, 1.25, flip=True, rotation=90.0)
        np.testing.assert_allclose(transform(matrix, np.array([[110.0, 80.0]])), [[125, 145]], atol=1e-9)

    def test_flip_keeps_the_center(self):
        matrix = crop_from_image(self.box, 250, 1.25, flip=True)
        np.testing.assert_allclose(transform(matrix, np.array([[100.0, 80.0]])), [[125, 125]], atol=1e-9)

    def test_shift_is_in_units_of_the_crop(self):
        matrix = crop_from_image(self.box, 250, 1.25, shift=(0.1, 0.0))
        np.testing.assert_allclose(transform(matrix, np.array([[100.0, 80.0]])), [[100, 125]], atol=1e-9)
