"""Faces cut out upright, as ArcFace and FFHQ have them."""

import numpy as np
import pytest

from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.affine import crop_matrix, transform
from facelm.geometry.align import aligned_crop, crop_from_landmarks
from facelm.geometry.landmarks import IBUG68, get_scheme

IMAGE, POINTS = draw_face(np.random.default_rng(3))


def five(points):
    return np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def test_arcface_has_eyes_nose_and_mouth_where_it_wants_them():
    found = transform(crop_from_landmarks(POINTS, 112, IBUG68), five(POINTS))
    wanted = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)]
    assert np.abs(found - wanted).mean() < 3


def test_ffhq_is_the_square_of_its_own_script():
    """Its lines on these landmarks, with numpy alone."""
    left, right = POINTS[36:42].mean(axis=0), POINTS[42:48].mean(axis=0)
    eyes, mouth = (left + right) / 2, (POINTS[48] + POINTS[54]) / 2
    x = (right - left) - np.flipud(mouth - eyes) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*(right - left)) * 2.0, np.hypot(*(mouth - eyes)) * 1.8)
    y, c = np.flipud(x) * [-1, 1], eyes + (mouth - eyes) * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    corners = transform(crop_from_landmarks(POINTS, 256, IBUG68), quad)
    assert np.allclose(corners, [(-0.5, -0.5), (-0.5, 255.5), (255.5, 255.5), (255.5, -0.5)])


@pytest.mark.parametrize("size", [112, 256])
def test_a_turned_face_gives_the_same_crop(size):
    turned = np.ascontiguousarray(np.rot90(IMAGE))
    points = np.column_stack([POINTS[:, 1], IMAGE.shape[1] - 1 - POINTS[:, 0]])
    straight, other = aligned_crop(IMAGE, POINTS, size, IBUG68), aligned_crop(turned, points, size, IBUG68)
    assert straight.shape == (size, size, 3)
    assert np.abs(straight.astype(int) - other).mean() < 1


def test_a_large_face_is_averaged_and_stays_in_its_place():
    """A ramp has its own values wherever it is looked at; a chessboard of single pixels becomes grey."""
    height, width = np.mgrid[:1000, :1000]
    ramp = np.repeat((width / 4)[..., None], 3, axis=2).astype(np.uint8)
    points = transform(crop_matrix((128.0, 128.0), 256.0, 900), POINTS)
    crop = aligned_crop(ramp, points, 112, IBUG68)
    x = transform(np.linalg.inv(crop_from_landmarks(points, 112, IBUG68)), np.array([[56.0, 60.0]]))[0, 0]
    assert crop[60, 56, 0] == pytest.approx(x / 4, abs=1.5)
    board = np.repeat((255 * ((height + width) % 2))[..., None], 3, axis=2).astype(np.uint8)
    assert np.ptp(aligned_crop(board, points, 112, IBUG68)[40:80, 40:80]) < 60


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(ValueError, match=r"112 \(ArcFace\) or 256 \(FFHQ\)"):
        aligned_crop(IMAGE, POINTS, 128, IBUG68)
    with pytest.raises(ValueError, match="need the 68 points"):
        aligned_crop(IMAGE, np.zeros((98, 2)), 112, get_scheme("wflw98"))
    with pytest.raises(ValueError, match="no finite numbers"):
        aligned_crop(IMAGE, POINTS * np.nan, 112, IBUG68)
