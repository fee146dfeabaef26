"""One predictor in several threads, pickled, in spawned and in forked processes: always the same landmarks."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facelm.data.synthetic.dataset import draw_face
from facelm.predict import Predictor
from facelm.predict.detect import DlibDetector
from perfect_network import SPEC
from tiny_networks import tiny


def predictor() -> Predictor:
    return Predictor(tiny(), SPEC, device="cpu")


def photographs(count: int) -> list:
    return [draw_face(np.random.default_rng(seed))[0] for seed in range(count)]


def landmarks(prediction):
    return [face.landmarks_image.tolist() for face in prediction.faces]


def in_another_process(packed: bytes, image: np.ndarray, boxes: list, out) -> None:
    out.put(landmarks(pickle.loads(packed)(image, boxes)))


def test_four_threads_find_what_one_finds():
    pytest.importorskip("dlib")
    one, images = predictor(), photographs(4)
    expected = [landmarks(one(image)) for image in images]
    assert any(expected)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda image: landmarks(one(image)), images)) == expected


def test_a_detector_can_be_pickled():
    pytest.importorskip("dlib")
    detector = DlibDetector()
    (image,) = photographs(1)
    assert np.array_equal(pickle.loads(pickle.dumps(detector))(image), detector(image))


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_another_process_finds_the_same(how):
    one, (image,) = predictor(), photographs(1)
    boxes = [[10.0, 10.0, 200.0, 200.0]]
    expected = landmarks(one(image, boxes))
    context = multiprocessing.get_context(how)
    out = context.Queue()
    process = context.Process(target=in_another_process, args=(pickle.dumps(one), image, boxes, out))
    process.start()
    found = out.get(timeout=120)
    process.join(timeout=60)
    np.testing.assert_allclose(found, expected, atol=0.01)
