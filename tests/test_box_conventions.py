import numpy as np
import pytest

from facelm.geometry.affine import crop_matrix, transform
from facelm.geometry.boxes import (
    CONVENTIONS,
    Box,
    BoxConvention,
    box_from_landmarks,
    check_boxes,
    crop_from_image,
    get_convention,
    measure_convention,
    overlaps,
    upright_box,
)
from facelm.geometry.landmarks import IBUG68

RNG = np.random.default_rng(0)


def random_boxes(count):
    low = RNG.uniform(0, 300, (count, 2))
    return [
        Box((float(x), float(y)), float(side)) for (x, y), side in zip(low, RNG.uniform(50, 300, count), strict=True)
    ]


class TestTilt:
    FACE = np.random.default_rng(3).uniform(50, 150, (68, 2))

    @pytest.fixture
    def upright(self):
        """A face [68, 2] whose pairs lie level."""
        face = self.FACE.copy()
        mirror = np.array(IBUG68.mirror)
        left = np.flatnonzero(np.arange(68) < mirror)
        face[mirror[left]] = face[left] + np.column_stack([RNG.uniform(5, 40, len(left)), np.zeros(len(left))])
        return face

    def test_of_an_upright_head_it_is_the_published_box(self, upright):
        box, published = upright_box(upright, IBUG68.mirror), box_from_landmarks(upright)
        assert box.rotation == pytest.approx(0, abs=1e-9)
        assert box.center == pytest.approx(published.center, abs=0.5)  # whole pixels
        assert box.side == pytest.approx(published.side, abs=1)

    @pytest.mark.parametrize("degrees", [-150, -40, 20, 90])
    def test_a_tilted_head_gets_the_same_crop(self, upright, degrees):
        expected = transform(crop_from_image(box_from_landmarks(upright), 128, 1.25), upright)
        tilted = transform(crop_matrix((90.0, 110.0), 128.0, 128, degrees), upright)
        box = upright_box(tilted, IBUG68.mirror)
        assert (box.rotation + degrees + 180) % 360 == pytest.approx(180)
        crop = transform(crop_from_image(box, 128, 1.25), tilted)
        assert np.abs(crop - expected).max() < 1.5  # boxes have whole pixels, and the turn moved the landmarks between

    def test_rotation_adds_to_that_of_the_augmentation_in_a_mirrored_crop_too(self):
        box = Box((60.0, 50.0), 80.0, 25.0)
        assert np.allclose(
            crop_from_image(box, 64, 1.25, rotation=10), crop_from_image(Box((60, 50), 80), 64, 1.25, rotation=35)
        )
        mirrored = crop_from_image(box, 64, 1.25, flip=True)
        point = np.array([[75.0, 20.0]])
        x, y = transform(crop_from_image(box, 64, 1.25), point)[0]
        assert np.allclose(transform(mirrored, point), [[64 - x, y]])


class TestConvention:
    def test_by_hand(self):
        convention = BoxConvention("a", (0.1, -0.2), 1.5)
        box = convention.training_box(np.array([10.0, 20.0, 50.0, 40.0]))  # middle (30, 30), longer side 40
        assert box == Box((34.0, 22.0), 60.0)

    def test_square_is_the_training_box(self):
        box = Box((31.5, 40.0), 77.0)
        assert get_convention("square").training_box(box.xyxy) == box

    def test_tight_is_the_landmarks_rectangle(self):
        landmarks = RNG.uniform(20, 180, (68, 2))
        tight = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
        box, truth = get_convention("tight").training_box(tight), box_from_landmarks(landmarks)
        assert box.side == pytest.approx(truth.side, abs=1.5)
        assert box.center == pytest.approx(truth.center, abs=1)

    def test_dlib_lies_higher_than_the_training_box(self):
        """From the forehead to the chin; 300W's points begin at the brows."""
        box = get_convention("dlib").training_box(np.array([0.0, 0.0, 100.0, 100.0]))
        assert box.center[1] > 55
        assert 90 < box.side < 105

    @pytest.mark.parametrize("name", CONVENTIONS)
    def test_every_number_has_a_source(self, name):
        assert CONVENTIONS[name].source
        assert CONVENTIONS[name].name == name
        assert np.linalg.eigvalsh(np.array(CONVENTIONS[name].covariance)).min() >= 0

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"no box convention 'retina'; known: square, tight, dlib.*calibrate"):
            get_convention("retina")

    @pytest.mark.parametrize("numbers", [((0, 0), 0), ((0, 0), -1), ((np.nan, 0), 1), ((0, 0), np.inf), ((0,), 1)])
    def test_numbers_that_cannot_be(self, numbers):
        with pytest.raises(ValueError, match="box convention 'bad'"):
            BoxConvention("bad", *numbers)


class TestMeasuring:
    def test_drawn_boxes_give_their_distribution_back(self):
        """`draw_box` and `measure_convention` are each other's inverse, on average."""
        true = CONVENTIONS["dlib"]
        faces = random_boxes(4000)
        rng = np.random.default_rng(1)
        given = []
        for face in faces:
            box = true.draw_box(face, rng)  # as mapped to the training box: go back to the detector's
            longer = box.side / true.scale
            middle = np.array(box.center) - longer * np.array(true.shift)
            given.append([*(middle - longer / 2), *(middle + longer / 2)])
        measured = measure_convention("again", np.array(given), faces)
        assert np.allclose(measured.shift, true.shift, atol=0.006)
        assert measured.scale == pytest.approx(true.scale, abs=0.006)
        assert np.allclose(measured.covariance, true.covariance, atol=6e-4)

    def test_boxes_that_always_lie_alike(self):
        faces = random_boxes(20)
        given = np.array([face.xyxy + 0.1 * face.side for face in faces])
        measured = measure_convention("a", given, faces)
        assert measured.shift == pytest.approx((-0.1, -0.1))
        assert measured.scale == pytest.approx(1)
        assert np.abs(measured.covariance).max() < 1e-9

    def test_too_few(self):
        with pytest.raises(ValueError, match=r"on 1 face\(s\)"):
            measure_convention("a", np.ones((1, 4)), random_boxes(1))


class TestOverlaps:
    def test_by_hand(self):
        boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30.0]])
        others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [100, 100, 110, 110.0]])
        assert np.allclose(overlaps(boxes, others), [[1, 1 / 3, 0], [0, 0, 0]])

    def test_none(self):
        assert overlaps(np.empty((0, 4)), np.ones((2, 4))).shape == (0, 2)


class TestCheck:
    def test_one_box_is_a_list_of_one(self):
        assert check_boxes([1, 2, 30, 40], 100, 100).shape == (1, 4)
        assert check_boxes([], 100, 100).shape == (0, 4)

    def test_all_are_checked(self):
        with pytest.raises(ValueError, match=r"box 2 \(nan, 0, 5, 5\) is not finite"):
            check_boxes([[0, 0, 9, 9], [1, 1, 9, 9], [np.nan, 0, 5, 5]], 100, 100)
