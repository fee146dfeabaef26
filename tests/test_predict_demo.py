"""What `facelm demo` answers, without a browser (`test_demo_browser.py` has one)."""

import sys

import numpy as np
import pytest

import facelm.predict.demo as demo_module
from facelm.cli import main
from facelm.evaluation.overlay import encoded
from facelm.predict import Predictor
from facelm.predict.demo import LEAST, Demo, draw_examples
from perfect_network import SPEC, PerfectNetwork, map_image
from predict_folder import FACE, FixedDetector, write

SCALE = LEAST / 240


@pytest.fixture
def demo(tmp_path):
    predictor = Predictor(PerfectNetwork(FACE), SPEC, device="cpu", backend="torch", detector=FixedDetector())
    return Demo(predictor, tmp_path)


def at(state, demo, x, y, corners=False):
    """A click on the result at a pixel of the photograph."""
    return demo.click(state, (x + 0.5) * SCALE - 0.5, (y + 0.5) * SCALE - 0.5, corners=corners)


def test_a_photograph(demo, tmp_path):
    state = demo.look(str(write(tmp_path / "photo.png")))
    assert "1 face" in state.said
    assert demo.picture(state, []).shape == (round(200 * SCALE), LEAST, 3)
    shown = [demo.picture(state, [what]) for what in ("points", "contours", "numbers", "boxes")]
    assert len({one.tobytes() for one in [*shown, demo.picture(state, [])]}) == 5
    assert len(demo.files(state)) == 4
    assert not set(demo.files(state)) & set(demo.files(state))


def test_a_box_by_hand(demo, tmp_path):
    blank = tmp_path / "blank.png"
    blank.write_bytes(encoded(map_image(239, 200), ".png"))  # in which the detector finds nothing
    state = demo.look(str(blank))
    assert "No face" in state.said
    assert [path.rpartition(".")[2] for path in demo.files(state)] == ["json"]
    x1, y1, x2, y2 = (*(FACE.min(axis=0)), *(FACE.max(axis=0)))
    state = at(at(state, demo, x2, y1), demo, x1, y2)  # from any corner to the opposite one
    assert np.allclose(state.prediction.landmarks, [FACE], atol=1)
    assert at(at(state, demo, 50, 50), demo, 51, 51).corner is None  # no box: both clicks in one place
    taken_up = at(state, demo, *state.prediction[0].box[:2], corners=True)
    assert len(taken_up.prediction) == 0
    assert taken_up.corner == tuple(state.prediction[0].box[2:])
    assert len(at(state, demo, *state.prediction[0].box[:2]).prediction) == 1  # boxes are not shown


def test_too_much(demo, tmp_path, monkeypatch):
    path = str(write(tmp_path / "photo.png"))
    monkeypatch.setattr(demo_module, "MOST_FACES", 0)
    with pytest.raises(ValueError, match="1 faces"):
        demo.look(path)
    monkeypatch.setattr(demo_module, "MOST_PIXELS", 47_999)
    with pytest.raises(ValueError, match="240 x 200"):
        demo.look(path)


def test_the_examples_are_drawn(tmp_path):
    assert [path.rpartition("/")[2] for path in draw_examples(tmp_path)] == [
        "drawn_1.png", "drawn_2.png", "drawn_3.png", "several.png",
    ]  # fmt: skip


def test_without_gradio(photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--no-browser"]) == 1
    assert "pip install 'facelm[demo]'" in capsys.readouterr().err
    assert main(["demo", "--most-megabytes", "0"]) == 1
