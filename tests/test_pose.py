"""Angles of heads, on drawn faces whose angles are known."""

import numpy as np
import pytest

from facelm.data.synthetic.camera import HEAD_PIVOT, Camera, draw_camera, rotation
from facelm.data.synthetic.mesh import TEMPLATE
from facelm.data.synthetic.variation import DIFFICULTIES, draw_expression, draw_identity
from facelm.geometry.landmarks import IBUG68, get_scheme
from facelm.geometry.pose import RIGID, head_angles


def seen(yaw, pitch, roll, distance=1e6):
    return Camera(rotation(yaw, pitch, roll), HEAD_PIVOT, distance, 1.0, np.array([128.0, 128.0])).project(TEMPLATE)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, -40), (-60, 15, 25), (10, -25, 170)])
def test_a_plain_head_from_afar_has_its_own_angles(angles):
    assert head_angles(seen(*angles)[None], IBUG68)[0] == pytest.approx(angles, abs=0.05)


def test_the_stiff_face_is_that_of_the_drawn_ones():
    assert all((TEMPLATE[index] == point).all() for index, point in RIGID.items())


@pytest.mark.parametrize(("difficulty", "limits"), [("common", (1.6, 1.7, 0.4)), ("challenge", (2.2, 1.8, 0.6))])
def test_the_error_on_drawn_faces_is_as_stated(difficulty, limits):
    points, truth = [], []
    for index in range(1000):
        rng = np.random.default_rng([7, index])
        face = draw_expression(rng, draw_identity(rng), DIFFICULTIES[difficulty].expression)
        camera = draw_camera(rng, face, DIFFICULTIES[difficulty], 256, 256)
        points.append(camera.project(face[:68]))
        turn = camera.turn
        yaw, roll = np.arctan2(-turn[2, 0], turn[2, 2]), np.arctan2(-turn[0, 1], turn[1, 1])
        truth.append(np.degrees([yaw, np.arcsin(-turn[2, 1]), roll]))
    error = np.abs(head_angles(np.array(points), IBUG68) - truth).mean(axis=0)
    assert (error < limits).all()


def test_points_without_numbers_and_other_schemes_have_no_angles():
    points = np.stack([seen(10, 5, 0)] * 2)
    points[0, 30] = np.nan
    angles = head_angles(points, IBUG68)
    assert np.isnan(angles[0]).all()
    assert np.isfinite(angles[1]).all()
    assert np.isnan(head_angles(np.zeros((1, 98, 2)), get_scheme("wflw98"))).all()
