"""ONNX files that take a whole photograph and boxes."""

import numpy as np
import pytest
import torch

from facelm.cli import main
from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.affine import crop_matrix, warp
from facelm.geometry.boxes import box_from_landmarks
from facelm.models.loading import load_model
from facelm.predict import Predictor
from facelm.predict.export import export_onnx
from facelm.predict.onnx_check import onnx_facts, open_onnx
from facelm.predict.onnx_photographs import PhotographLandmarks, _cut
from test_predict_export import CODECS, PUBLISHED_ORIGIN, lively_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def model_with(codec):
    return lively_model(codec, pixel_origin=PUBLISHED_ORIGIN.get(codec, 1))


@pytest.fixture(scope="module", params=CODECS)
def exported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "whole.onnx"
    model = model_with(request.param)
    return model, path, export_onnx(model, path, takes="photographs")


def test_the_file_gives_what_torch_gives_for_any_number_of_boxes(exported):
    model, path, check = exported
    assert check.passed
    session = open_onnx(path)
    image, points = draw_face(np.random.default_rng(9))
    box = box_from_landmarks(points).xyxy
    boxes = np.array([box, box + 4, box - [0, 0, 9, 0]], np.float32)
    for number in (0, 1, 3):
        landmarks, confidences = session.run(None, {"image": image, "boxes": boxes[:number]})
        assert landmarks.shape == (number, 68, 2)
        assert confidences.shape == (number, 68)
        with torch.inference_mode():
            module = PhotographLandmarks(model.net, model.spec).eval()
            expected = module(torch.from_numpy(image), torch.from_numpy(boxes[:number]))[0].numpy()
        assert (np.abs(landmarks - expected) < 0.05).sum() >= 0.98 * expected.size


def test_the_metadata_say_what_boxes_are(exported):
    facts = onnx_facts(open_onnx(exported[1]))
    assert facts["takes"] == "photographs"
    assert facts["box_convention"].startswith("boxes: (x1, y1, x2, y2) in pixels of the image, 0-based")


def test_the_shipped_network_agrees_with_the_predictor():
    model = load_model("hrnetv2_w18")
    module = PhotographLandmarks(model.net, model.spec).eval()
    predictor = Predictor(model.net, model.spec, device="cpu", flip="none", refine=0)
    for seed in (1, 2):
        image, points = draw_face(np.random.default_rng(seed))
        box = box_from_landmarks(points)
        with torch.inference_mode():
            found = module(torch.from_numpy(image), torch.from_numpy(box.xyxy[None].astype(np.float32)))[0][0].numpy()
        (face,) = predictor(image, box.xyxy, convention="square")
        apart = np.abs(found - face.landmarks_image) / (box.side * 1.25 / 256)  # in pixels of the crop
        assert np.quantile(apart, 0.98) < 0.01
        assert apart.max() < 0.05  # where a grey level is rounded the other way a doubtful point moves


def test_cutting_is_what_the_warp_does_up_to_the_last_grey_level():
    image, _ = draw_face(np.random.default_rng(4))
    matrix = crop_matrix((100.3, 40.7), 150.0, 64)  # reaches beyond the upper edge
    x, y = (torch.from_numpy(c + (np.arange(64) - 32) * 150 / 64).float()[None] for c in (100.3, 40.7))
    cut = _cut(torch.from_numpy(image), x, y)[0].numpy()
    difference = np.abs(cut - warp(image, matrix, 64))  # older versions of OpenCV round to a 32nd of a pixel
    assert difference.max() <= 4
    assert (cut == cut.round()).all()


def test_a_photograph_of_more_pixels_than_a_float_counts():
    image = torch.zeros((4200, 4200, 3), dtype=torch.uint8)
    image[4190, 4000:4010] = torch.arange(1, 11, dtype=torch.uint8)[:, None]
    cut = _cut(image, torch.arange(4000.0, 4010)[None], torch.tensor([[4190.0]]).expand(1, 10))
    assert cut[0, 0, :, 0].tolist() == list(range(1, 11))


def test_on_the_command_line(trained_run, tmp_path, capsys):
    command = ["export", "--checkpoint", str(trained_run), "--takes", "photographs"]
    assert main([*command, "--out", str(tmp_path / "whole.onnx")]) == 0
    assert "agree to 0.01 px of the crop" in capsys.readouterr().out
