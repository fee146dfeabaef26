import cv2
import numpy as np
import pytest

from facelm.geometry.affine import crop_matrix, invert, mirror_about, transform, warp


class TestCropMatrix:
    def test_center_and_corners(self):
        matrix = crop_matrix((50.0, 40.0), 20.0, 256)
        points = np.array([[50.0, 40.0], [40.0, 30.0], [60.0, 50.0]])
        np.testing.assert_allclose(transform(matrix, points), [[128, 128], [0, 0], [256, 256]], atol=1e-9)

    def test_positive_rotation_turns_counter_clockwise_on_the_screen(self):
        matrix = crop_matrix((0.0, 0.0), 256.0, 256, rotation=90.0)
        right = transform(matrix, np.array([[10.0, 0.0]]))[0]
        np.testing.assert_allclose(right, [128, 118], atol=1e-9)  # a point to the right goes up

    @pytest.mark.parametrize("side", [0.0, -1.0, float("nan"), float("inf")])
    def test_impossible_side(self, side):
        with pytest.raises(ValueError, match="side > 0"):
            crop_matrix((0.0, 0.0), side, 256)


class TestInverse:
    def test_round_trip(self):
        matrix = crop_matrix((123.4, 77.7), 311.0, 256, rotation=33.0) @ mirror_about(100.0)
        points = np.random.default_rng(0).uniform(0, 500, (20, 2))
        np.testing.assert_allclose(transform(invert(matrix), transform(matrix, points)), points, atol=1e-9)


class TestWarp:
    def test_identity_keeps_pixels(self):
        image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        np.testing.assert_array_equal(warp(image, np.eye(3), 16), image)

    def test_pixels_and_points_move_together(self):
        image = np.zeros((64, 64, 3), np.uint8)
        image[20, 30] = 255  # x = 30, y = 20
        matrix = crop_matrix((32.0, 32.0), 64.0, 64, rotation=90.0)
        x, y = transform(matrix, np.array([[30.0, 20.0]]))[0]
        assert np.unravel_index(warp(image, matrix, 64)[..., 0].argmax(), (64, 64)) == (round(y), round(x))

    @pytest.mark.parametrize("side", [40, 400], ids=["by way of four channels", "directly"])
    def test_the_same_bytes_as_three_channels(self, side):
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        for rotation in (0.0, 33.0, -170.0):
            matrix = crop_matrix((side / 2 + 5, side / 2), side / 2, 64, rotation)
            np.testing.assert_array_equal(warp(image, matrix, 64), cv2.warpAffine(image, matrix[:2], (64, 64)))

    def test_black_outside(self):
        image = np.full((8, 8, 3), 200, np.uint8)
        assert warp(image, crop_matrix((4.0, 4.0), 32.0, 32), 32)[0, 0].tolist() == [0, 0, 0]
