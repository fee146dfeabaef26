import dataclasses
import sys

import numpy as np
import pytest
import torch

import facelm.predict.predictor as predictor_module
from facelm.geometry.affine import crop_matrix, transform
from facelm.geometry.boxes import CONVENTIONS, Box, BoxConvention, crop_from_image
from facelm.geometry.landmarks import IBUG68
from facelm.predict import Predictor
from facelm.predict.candidates import NO_FACE, distinct
from facelm.predict.photographs import Photograph
from facelm.predict.predictor import FaceLandmarks, refined_box
from perfect_network import SPEC, PerfectNetwork, box_of, face_landmarks, map_image

FACE = face_landmarks()
TIGHT = np.concatenate([FACE.min(axis=0), FACE.max(axis=0)])

NEAR = 0.3  # image pixels; the colours that say where a crop lies are whole numbers


def predictor(*faces, spec=SPEC, **options):
    network = PerfectNetwork(*(faces or (FACE,)), spec=spec)
    return Predictor(network, spec, device="cpu", **options)


class TestBackends:
    @pytest.mark.parametrize("flip", ["none", "shifted", "exact"])
    def test_fast_forms_find_the_same_landmarks_as_the_network(self, flip):
        spec = dataclasses.replace(SPEC, architecture="hrnetv2_tiny", crop_size=64)
        net = spec.build_network().eval()

        class AsItIs(torch.nn.Module):
            def forward(self, images):
                return net(images)

        expected = Predictor(AsItIs(), spec, device="cpu", flip=flip, refine=0)(map_image(), TIGHT)[0]
        for backend in ("auto", "torch"):
            found = Predictor(net, spec, device="cpu", flip=flip, refine=0, backend=backend)(map_image(), TIGHT)[0]
            assert np.abs(found.landmarks_image - expected.landmarks_image).max() < 0.01
            assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)

    def test_the_slow_form_is_not_what_runs(self):
        spec = dataclasses.replace(SPEC, architecture="hrnetv2_tiny", crop_size=64)
        net = spec.build_network()
        net.forward = None
        assert len(Predictor(net, spec, device="cpu")(map_image(), TIGHT)) == 1

    def test_unknown(self):
        spec = dataclasses.replace(SPEC, architecture="hrnetv2_tiny", crop_size=64)
        with pytest.raises(ValueError, match="unknown inference backend='fast'"):
            Predictor(spec.build_network(), spec, device="cpu", backend="fast")


class FixedDetector:
    """Finds what it is told to."""

    convention = CONVENTIONS["dlib"]

    def __init__(self, *boxes):
        self.boxes = np.array(boxes, float).reshape(-1, 4)

    def __call__(self, image):
        return self.boxes


class TestLandmarks:
    @pytest.mark.parametrize("flip", ["none", "exact"])
    def test_a_perfect_network_gives_the_landmarks_in_the_image(self, flip):
        face = predictor(flip=flip)(map_image(), TIGHT)[0]
        assert np.abs(face.landmarks_image - FACE).max() < NEAR
        assert face.landmarks_image.shape == (68, 2)
        assert face.landmarks_image.dtype == np.float64

    def test_flip_test_is_on_where_the_model_names_none(self):
        assert predictor().spec.flip == "exact"
        assert predictor(spec=dataclasses.replace(SPEC, flip="shifted")).spec.flip == "shifted"
        assert predictor(flip="none").spec.flip == "none"

    def test_all_faces_and_their_mirror_images_in_one_batch(self):
        other = face_landmarks((60, 60), 50, seed=1)
        model = predictor(FACE, other, refine=0)
        boxes = [TIGHT, box_of(other).xyxy]
        faces = model(map_image(), boxes)
        assert model.net.batches == [4]
        assert np.abs(faces[0].landmarks_image - FACE).max() < NEAR
        assert np.abs(faces[1].landmarks_image - other).max() < NEAR

    def test_more_faces_than_fit_into_one_batch(self, monkeypatch):
        monkeypatch.setattr(predictor_module, "_MOST_FACES", 2)
        model = predictor(refine=0)
        faces = model(map_image(), [TIGHT] * 5)
        assert model.net.batches == [4, 4, 2]
        assert all(np.abs(face.landmarks_image - FACE).max() < NEAR for face in faces)

    def test_weights_trained_on_stored_numbers_give_the_same_pixels(self):
        """Trained with pixel_origin=0, a network points one pixel below what it should: x is undone by mirroring."""
        spec = dataclasses.replace(SPEC, pixel_origin=0)
        model = predictor(FACE + np.array([0, 1]), spec=spec)
        assert np.abs(model(map_image(), TIGHT)[0].landmarks_image - FACE).max() < NEAR

    @pytest.mark.parametrize("turn", [0, 30])
    def test_the_annotators_shift_lies_along_the_head(self, turn):
        """A hundredth of the box to the face's left, which is to the right of the picture while the head is upright."""
        spec = dataclasses.replace(SPEC, annotation_shift=0.01)
        box = Box((120.0, 100.0), 80.0, rotation=turn)
        pairs = ((SPEC, "exact"), (spec, "exact"), (spec, "none"))
        photographs, boxes = [Photograph(map_image())], [[box]]
        still, moved, unflipped = (
            predictor(spec=s, flip=flip).faces_in_boxes(photographs, boxes, refine=0)[0][0].landmarks_image
            for s, flip in pairs
        )
        right = 0.8 * np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
        assert moved - still == pytest.approx(np.tile(right, (68, 1)), abs=1e-3)
        assert np.median(np.abs(unflipped - moved).max(axis=-1)) < NEAR

    def test_the_annotators_shift_can_be_taken_off(self):
        spec = dataclasses.replace(SPEC, annotation_shift=0.01)
        found = predictor(spec=spec, annotation_shift=0)(map_image(), TIGHT)[0].landmarks_image
        assert np.abs(found - FACE).max() < NEAR

    def test_confidence_is_the_peak_in_0_to_1(self):
        for peak in (0.6, 1.7):
            network = PerfectNetwork(FACE, peak=peak)
            face = Predictor(network, SPEC, device="cpu")(map_image(), TIGHT)[0]
            assert face.confidence.shape == (68,)
            assert face.confidence.min() > 0.8 * min(peak, 1)  # cells lie beside the peak's top
            assert face.confidence.max() <= min(peak, 1)

    def test_landmarks_equal_those_of_the_evaluation_crop(self):
        """The same crop as in training and evaluation: `square` boxes, no refinement."""
        from facelm.geometry.affine import invert, warp
        from facelm.models.inference import normalise, predict_landmarks

        torch.manual_seed(0)
        net = SPEC.build_network().eval()
        rng = np.random.default_rng(0)
        image = rng.integers(0, 255, (200, 240, 3), np.uint8)
        found = Predictor(net, SPEC, device="cpu", refine=0, flip="none")(image, box_of(FACE).xyxy, convention="square")
        matrix = crop_from_image(box_of(FACE), 64, 1.25)
        crop = torch.from_numpy(warp(image, matrix, 64))[None]
        with torch.inference_mode():
            landmarks_crop, _ = predict_landmarks(net, normalise(crop), SPEC.build_codec(), range(68), "none")
        expected = transform(invert(matrix), landmarks_crop[0].double().numpy())
        assert np.abs(found[0].landmarks_image - expected).max() < 1e-3


class TestRefinement:
    def test_second_crop_is_around_the_landmarks_found(self):
        off = TIGHT + np.array([6, -9, 16, 1])
        assert predictor(refine=0)(map_image(), off)[0].box == pytest.approx(
            CONVENTIONS["tight"].training_box(off).xyxy
        )
        face = predictor(refine=1)(map_image(), off)[0]
        assert np.abs(face.box - box_of(FACE).xyxy).max() < 5  # upright to a few degrees
        assert np.abs(face.landmarks_image - FACE).max() < NEAR

    def test_landmarks_beyond_the_first_crop_come_back(self):
        """A box on half the face: its crop cannot hold the other half, the later ones do."""
        half = np.array([TIGHT[0], TIGHT[1], TIGHT[0] + 50, TIGHT[1] + 50])
        first = predictor(refine=0)(map_image(), half)[0].landmarks_image
        second = predictor(refine=3)(map_image(), half)[0].landmarks_image
        assert np.abs(first - FACE).max() > 5
        assert np.abs(second - FACE).max() < NEAR

    def test_no_crop_around_what_cannot_be_a_face(self):
        box = Box((50.0, 50.0), 60.0)
        tiny, vast = 50 + 0.01 * (FACE - 100), 50 + 60 * (FACE - 100)
        assert refined_box(np.full((68, 2), 50.0), box, IBUG68.mirror) == box
        assert refined_box(tiny, box, IBUG68.mirror) == box
        assert refined_box(vast, box, IBUG68.mirror) == box
        assert refined_box(FACE, box, IBUG68.mirror).side == pytest.approx(box_of(FACE).side, abs=4)

    def test_the_second_crop_is_turned_with_the_head(self):
        turn = crop_matrix((120.0, 100.0), 1.0, 1, -35)[:2, :2]
        tilted = (FACE - (120, 100)) @ turn.T + (120, 100)
        model = predictor(tilted)
        face = model(map_image(), box_of(tilted).xyxy)[0]
        assert face.rotation == pytest.approx(35, abs=2)
        assert np.abs(face.landmarks_image - tilted).max() < NEAR
        shown = model.net.landmarks_crop[0]  # to the network, last
        upright = transform(crop_from_image(box_of(FACE), 64, 1.25), FACE)
        assert np.abs(shown - upright).max() < 3

    def test_negative(self):
        with pytest.raises(ValueError, match="refine=-1"):
            predictor(refine=-1)


class TestBoxes:
    def test_conventions_lead_to_the_training_box(self):
        model = predictor(refine=0)
        for name, convention in CONVENTIONS.items():
            truth = box_of(FACE)
            longer = truth.side / convention.scale
            center = np.array(truth.center) - longer * np.array(convention.shift)
            box = [*(center - longer / 2), *(center + longer / 2)]
            assert model(map_image(), box, convention=name)[0].box == pytest.approx(truth.xyxy)

    def test_a_measured_convention(self):
        convention = BoxConvention("mine", (0.1, -0.2), 2.0)
        face = predictor(refine=0)(map_image(), [100, 80, 140, 120], convention=convention)[0]
        assert face.box == pytest.approx([124 - 40, 92 - 40, 124 + 40, 92 + 40])

    def test_unknown_convention(self):
        with pytest.raises(ValueError, match=r"no box convention 'mtcnn'; known: .*dlib.*facelm calibrate"):
            predictor()(map_image(), TIGHT, convention="mtcnn")

    def test_the_detector_is_asked_where_no_boxes_are_given(self):
        square = box_of(FACE).xyxy + 5
        face = predictor(detector=FixedDetector(square), refine=0)(map_image())[0]
        assert face.box == pytest.approx(CONVENTIONS["dlib"].training_box(square).xyxy)

    def test_a_face_that_the_detector_finds_twice_is_one_face(self):
        """Two boxes on one face lead to the same landmarks; boxes of the caller are his affair."""
        square = box_of(FACE).xyxy
        twice = np.stack([square, square + 0.1 * np.ptp(square)])
        assert len(predictor(detector=FixedDetector(*twice))(map_image())) == 1
        assert len(predictor()(map_image(), twice, convention="square")) == 2

    def test_faces_beside_each_other_are_two(self):
        beside = FACE + np.array([0.6, 0.0]) * np.ptp(FACE, axis=0).max()
        faces = [FaceLandmarks(box_of(face).xyxy, face, np.ones(68)) for face in (FACE, beside, FACE + 1.0)]
        assert distinct(faces) == faces[:2]

    def test_no_face_is_an_empty_result_that_says_so(self):
        prediction = predictor(detector=FixedDetector())(map_image())
        assert len(prediction) == 0
        assert prediction.notes == (NO_FACE,)
        assert prediction.to_dict()["faces"] == []

    def test_no_boxes_at_all_is_an_empty_result(self):
        assert len(predictor()(map_image(), np.empty((0, 4)))) == 0
        assert len(predictor()(map_image(), [])) == 0

    def test_without_detector_and_boxes(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "dlib", None)
        with pytest.raises(ImportError, match=r"pip install 'facelm\[detect\]', give the boxes"):
            predictor()(map_image())

    def test_a_box_partly_outside_is_fine(self):
        assert len(predictor()(map_image(), [-30, -30, 60, 60])) == 1

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ([300, 10, 380, 90], r"box 0 \(300, 10, 380, 90\) lies outside the image of 240x200 pixels"),
            ([-90, 10, -10, 90], "lies outside the image"),
            ([90, 90, 20, 150], "is inverted.*Is it .x, y, width, height"),
            ([10, 10, np.nan, 90], "is not finite"),
            ([10, 10, np.inf, 90], "is not finite"),
            ([50, 50, 51, 51], "smaller than 4 pixels.*fractions"),
            ([0.2, 0.3, 0.6, 0.7], "smaller than 4 pixels.*fractions"),
        ],
    )
    def test_a_box_that_cannot_be(self, box, message):
        with pytest.raises(ValueError, match=message):
            predictor()(map_image(), box)

    def test_the_bad_box_is_named(self):
        with pytest.raises(ValueError, match="box 1 "):
            predictor()(map_image(), [TIGHT, [0, 0, 0, 0]])

    @pytest.mark.parametrize("boxes", ["face", [[1, 2, 3]], np.zeros((1, 2, 4)), [["a", "b", "c", "d"]]])
    def test_other_shapes(self, boxes):
        with pytest.raises(ValueError, match="boxes"):
            predictor()(map_image(), boxes)


class TestBatches:
    def test_a_list_of_images_goes_through_the_network_together(self):
        model = predictor(refine=0)
        predictions = model([map_image(), map_image(200, 180)], [[TIGHT, TIGHT], TIGHT])
        assert [len(prediction) for prediction in predictions] == [2, 1]
        assert [prediction.size for prediction in predictions] == [(240, 200), (200, 180)]
        assert model.net.batches == [6]

    def test_as_many_boxes_as_images(self):
        with pytest.raises(ValueError, match="2 images, but boxes for 1"):
            predictor()([map_image()] * 2, [TIGHT])

    def test_empty(self):
        assert predictor()([]) == []


class TestResult:
    def test_timing_and_plain_values(self):
        prediction = predictor()(map_image(), TIGHT)
        assert set(prediction.seconds) == {"read", "detect", "landmarks"}
        assert all(value >= 0 for value in prediction.seconds.values())
        plain = prediction.to_dict()
        assert (plain["width"], plain["height"]) == (240, 200)
        face = plain["faces"][0]
        assert np.allclose(face["landmarks"], prediction[0].landmarks_image, atol=5e-4)
        assert len(face["confidence"]) == 68
        assert isinstance(face["box"][0], float)
