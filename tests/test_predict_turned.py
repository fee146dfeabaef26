"""Faces in photographs that lie on their side or stand on their head, and faces that may be none."""

import numpy as np
import pytest

from facelm.geometry.boxes import CONVENTIONS
from facelm.predict import Predictor
from facelm.predict.candidates import notes
from facelm.predict.photographs import Photograph
from facelm.predict.prediction import LEAST_SCORE, FaceLandmarks
from facelm.predict.turned import boxes_in_turned
from perfect_network import SPEC, PerfectNetwork, box_of, face_landmarks, map_image

FACE = face_landmarks((150, 70))


class UprightDetector:
    """Finds the face where the map image, turned back by `quarters`, stands upright; else what `otherwise` says."""

    convention = CONVENTIONS["square"]

    def __init__(self, quarters, otherwise=()):
        self.quarters, self.otherwise, self.looks = quarters, np.array(otherwise, float).reshape(-1, 4), 0

    def __call__(self, image):
        self.looks += 1
        found = np.array_equal(image, np.rot90(map_image(), self.quarters))
        return box_of(turned(FACE, self.quarters)).xyxy[None] if found else self.otherwise


def turned(points, quarters, size=(240, 200)):
    """Points of an image of that (width, height) where numpy.rot90 brings them."""
    for _ in range(quarters % 4):
        points = np.column_stack([points[:, 1], size[0] - 1 - points[:, 0]])
        size = size[::-1]
    return points


def predictor(detector, peak=1.0, **options):
    return Predictor(PerfectNetwork(FACE, peak=peak), SPEC, device="cpu", detector=detector, flip="none", **options)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_boxes_lie_where_the_face_is(quarters):
    model = predictor(UprightDetector(quarters))
    (box,) = boxes_in_turned(Photograph(map_image()), lambda photograph: model.candidates(photograph).boxes)
    assert box.center == pytest.approx(box_of(FACE).center, abs=1)
    assert box.rotation % 360 == 90 * quarters
    (face,) = model.faces_in_boxes([Photograph(map_image())], [[box]], refine=0)[0]
    assert np.abs(face.landmarks_image - FACE).max() < 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_face_is_found(quarters):
    prediction = predictor(UprightDetector(quarters))(map_image())
    assert len(prediction) == 1
    assert np.abs(prediction[0].landmarks_image - FACE).max() < 1
    assert prediction.notes == ()


def test_nothing_is_turned_where_there_is_a_sure_face_or_it_is_not_wanted():
    detector = UprightDetector(0)
    predictor(detector)(map_image())
    assert detector.looks == 1
    detector = UprightDetector(2)
    assert len(predictor(detector, upright_only=True)(map_image())) == 0
    assert detector.looks == 1


def test_boxes_that_were_given_are_what_counts():
    detector = UprightDetector(2)
    predictor(detector, peak=0.1)(map_image(), box_of(FACE).xyxy)
    assert detector.looks == 0


def test_an_unsure_face_is_kept_with_a_note():
    (face,) = prediction = predictor(UprightDetector(0), peak=0.3)(map_image())
    assert face.score < LEAST_SCORE
    assert prediction.notes == (f"face 1 is unsure, and may be none: its score is 0.{int(100 * face.score)}",)
    assert face.to_dict()["score"] == pytest.approx(face.score, abs=1e-3)


def test_an_unsure_face_gives_way_to_a_sure_one():
    """As upside down, where the detector takes something else for a face."""
    model = predictor(UprightDetector(2, otherwise=(0, 0, 30, 30)))
    scores = iter([0.2, 0.2, 0.2, 0.9])  # as it is, then the boxes of three turned ones
    look = model._look

    def scored(photographs, boxes, last):
        faces = look(photographs, boxes, last)
        return [type(face)(face.box, face.landmarks_image, face.confidence * 0 + next(scores)) for face in faces]

    model.refine, model._look = 0, scored
    (face,) = model(map_image())
    assert face.score == pytest.approx(0.9)
    assert np.abs(face.landmarks_image - FACE).max() < 1


def test_faces_below_the_least_score_are_left_out_with_a_note():
    prediction = predictor(UprightDetector(0), peak=0.3, min_score=0.5, upright_only=True)(map_image())
    assert len(prediction) == 0
    assert "left out: faces below the least score, 1 of them" in prediction.notes
    with pytest.raises(ValueError, match="min_score=2: scores are from 0 to 1"):
        predictor(UprightDetector(0), min_score=2)


@pytest.mark.parametrize(("peak", "faces"), [(1.0, 1), (0.3, 0)])
def test_what_the_detector_only_suspects_is_a_face_where_the_network_is_sure(peak, faces):
    detector = UprightDetector(0)
    detector.look = lambda image: (detector(image), 0)
    assert len(predictor(detector, peak=peak, upright_only=True)(map_image())) == faces


def test_a_score_below_the_limit_does_not_read_as_the_limit():
    face = FaceLandmarks(np.zeros(4), FACE, np.full(len(FACE), LEAST_SCORE - 0.001))
    (note,) = notes(Photograph(map_image()), "", [face], left_out=0)
    assert float(note.split()[-1]) < LEAST_SCORE
