import cv2
import numpy as np
import pytest

from facelm.data.synthetic.camera import HEAD_PIVOT, Camera, rotation
from facelm.data.synthetic.mesh import HAIRLINE, TEMPLATE, skin
from facelm.data.synthetic.render import render_skin
from facelm.data.synthetic.texture import TEXTURE_SIZE, texture_from_template
from facelm.data.synthetic.variation import draw_expression, draw_identity
from facelm.geometry.landmarks import IBUG68

NEUTRAL = np.concatenate([TEMPLATE, HAIRLINE])


class TestLandmarksAreExact:
    """The texture's own coordinates, painted as colours, must come out where the camera puts the landmarks."""

    def camera(self, yaw=0.0, pitch=0.0, roll=0.0):
        return Camera(rotation(yaw, pitch, roll), HEAD_PIVOT, 900.0, 2.0, np.array([201.3, 207.8]))

    def texture_seen_at(self, camera, face, landmarks):
        """The texture coordinates `[n, 2]` that are seen in the image where these landmarks are."""
        x, y = np.meshgrid(np.arange(TEXTURE_SIZE[0]), np.arange(TEXTURE_SIZE[1]))
        texture = np.stack([x, (y - 5).clip(0), np.zeros_like(x)], axis=2).astype(np.uint8)
        image = np.zeros((420, 420, 3), np.uint8)
        turned = camera.turned(skin().follow @ face)
        render_skin(image, texture, turned, camera, np.ones(len(turned)))
        places = camera.project(face[landmarks]).astype(np.float32)
        seen = cv2.remap(image, places[:, None], None, cv2.INTER_LINEAR)[:, 0].astype(float)
        return seen[:, :2] + (0, 5)

    @pytest.mark.parametrize("pose", [(0, 0, 0), (12, -8, 20), (-12, 5, -30)])
    def test_features_are_at_the_landmarks(self, pose):
        inner = np.arange(17, 68)
        error = self.texture_seen_at(self.camera(*pose), NEUTRAL, inner) - texture_from_template(TEMPLATE[inner])
        assert np.abs(error.mean(axis=0)).max() < 0.2, "no shift; a texture pixel is 0.8 mm"
        assert np.quantile(np.abs(error), 0.9) < 0.8
        assert np.abs(error).max() < 4.0, "below the nose, seen from above, many of them share an image pixel"

    @pytest.mark.parametrize("seed", range(6))
    def test_so_they_are_on_a_face_with_an_expression(self, seed):
        rng = np.random.default_rng(seed)
        face, inner = draw_expression(rng, draw_identity(rng), 1.5), np.arange(18, 60)
        error = np.abs(
            self.texture_seen_at(self.camera(15, 5, 10), face, inner) - texture_from_template(TEMPLATE[inner])
        )
        assert np.quantile(error, 0.85) < 1.5, "but for shut eyes and lips, where all of them lie on one line"

    def test_landmarks_are_vertices_of_the_skin(self):
        rng = np.random.default_rng(5)
        face = draw_expression(rng, draw_identity(rng), 1.5)
        np.testing.assert_allclose((skin().follow @ face)[:68], face[:68], atol=1e-9)
        np.testing.assert_array_equal(skin().vertices[:68, :2], TEMPLATE[:, :2])

    def test_the_outline_is_the_jaw(self):
        camera, image = self.camera(), np.zeros((400, 400, 3), np.uint8)
        turned = camera.turned(skin().follow @ NEUTRAL)
        white = np.full((TEXTURE_SIZE[1], TEXTURE_SIZE[0], 3), 255, np.uint8)
        render_skin(image, white, turned, camera, np.ones(len(turned)))
        jaw, covered = camera.project(NEUTRAL[:17]), image[..., 0] / 255
        row = round(float(jaw[2, 1]))
        columns = np.arange(400) * covered[row] / covered[row].sum()
        assert columns.sum() == pytest.approx(jaw[[2, 14], 0].mean(), abs=0.3)
        assert covered[row].sum() == pytest.approx(jaw[14, 0] - jaw[2, 0], abs=1.5)
        assert np.flatnonzero(covered.max(axis=1) > 0.5).max() == pytest.approx(jaw[8, 1], abs=1.5)

    def test_the_far_side_is_hidden(self):
        seen = self.texture_seen_at(self.camera(yaw=70), NEUTRAL, [41, 46])  # hides the picture's right half
        near, far = np.linalg.norm(seen - texture_from_template(TEMPLATE[[41, 46]]), axis=1)
        assert near < 2.5
        assert far > 20


class TestAnatomy:
    @pytest.mark.parametrize("seed", range(40))
    def test_order_of_the_points(self, seed):
        rng = np.random.default_rng(seed)
        face = draw_expression(rng, draw_identity(rng), 1.5)
        x, y = face[:, 0], face[:, 1]
        assert (np.diff(x[2:15]) > 0).all(), "the jaw runs from left to right"
        assert (np.diff(x[17:27]) > 0).all(), "so do the brows"
        assert (np.diff(y[27:31]) > 0).all(), "the ridge of the nose runs down"
        assert y[17:27].max() < y[[41, 40, 46, 47]].min(), "brows above eyes"
        assert (y[[41, 40, 47, 46]] - y[[37, 38, 43, 44]] >= -1e-9).all(), "lids do not cross"
        assert (y[[67, 66, 65]] - y[[61, 62, 63]] > -2).all(), "nor do lips"
        assert y[57] > y[66] > y[51] > y[33]
        assert y[8] > y[57] + 8, "the chin is below the mouth"

    def test_the_template_is_its_own_mirror_image(self):
        np.testing.assert_array_equal(TEMPLATE[list(IBUG68.mirror)] * (-1, 1, 1), TEMPLATE)

    def test_yaw_turns_the_nose_to_the_right(self):
        nose = Camera(rotation(30, 0, 0), HEAD_PIVOT, 900, 1.0, np.zeros(2)).project(TEMPLATE[[30, 0, 16]])
        assert nose[0, 0] - nose[1, 0] > nose[2, 0] - nose[0, 0]
