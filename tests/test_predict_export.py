import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68
from facelm.models import build_model
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.loading import LoadedModel
from facelm.models.spec import ModelSpec
from facelm.predict import Predictor
from facelm.predict import export as export_module
from facelm.predict.export import export_onnx
from facelm.predict.onnx_check import (
    OnnxCheck,
    check_onnx,
    cut_crops,
    drawn_faces,
    landmarks_in_photograph,
    onnx_facts,
    open_onnx,
)

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "export.md"
CODECS = {"mmpose": 1.5, "dark": 2.0, "hrnet": 1.0, "subpixel": 1.5}
PUBLISHED_ORIGIN = {"mmpose": 0, "hrnet": 0}


def lively_model(codec="subpixel", seed=0, **spec) -> LoadedModel:
    """A network whose heatmaps have peaks all over, though it has learned nothing."""
    torch.manual_seed(seed)
    net = build_model("hrnetv2_tiny", init="kaiming").eval()
    torch.nn.init.normal_(net.head[3].weight, std=0.3)
    known = {"name": codec, "sigma": CODECS[codec]}
    spec = ModelSpec(architecture="hrnetv2_tiny", crop_size=64, codec=known, **spec)
    return LoadedModel(net, spec, Path("tiny.ckpt"), "0" * 64, "tiny")


def drawn_crops(spec, faces):
    return cut_crops(*drawn_faces(faces), spec)[0]


@pytest.fixture(scope="module", params=CODECS)
def exported(request, tmp_path_factory):
    """(model, file, check) for each codec; each pair of conventions that is published is among them."""
    model = lively_model(request.param, pixel_origin=PUBLISHED_ORIGIN.get(request.param, 1))
    path = tmp_path_factory.mktemp("onnx") / "tiny model.onnx"
    return model, path, export_onnx(model, path, nme={"common": 3.25})


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(lively_model(), path)
    return path


class TestTheFile:
    def test_any_number_of_crops_gives_what_torch_gives(self, exported):
        model, path, _ = exported
        session = open_onnx(path)
        for number in (1, 2, 5):
            crops = drawn_crops(model.spec, 8)[-number:]
            landmarks, confidences = session.run(["landmarks", "confidences"], {"crops": crops})
            with torch.inference_mode():
                inputs = normalise(torch.from_numpy(crops))
                expected, scores = predict_landmarks(model.net, inputs, model.spec.build_codec(), IBUG68.mirror)
            assert landmarks.shape == (number, 68, 2)
            assert landmarks.dtype == confidences.dtype == np.float32
            assert (np.abs(landmarks - expected.numpy()).max(-1) <= 0.01).mean() > 0.98
            np.testing.assert_allclose(confidences, scores.clamp(0, 1), atol=1e-5)

    def test_no_crops_at_all_give_no_landmarks(self, exported):
        landmarks, confidences = open_onnx(exported[1]).run(None, {"crops": np.zeros((0, 64, 64, 3), np.uint8)})
        assert (landmarks.shape, confidences.shape) == ((0, 68, 2), (0, 68))

    def test_onnxruntime_1_15_reads_it(self, one_file):
        """Which knows operators up to 19 and files up to version 9."""
        onnx = pytest.importorskip("onnx")
        model = onnx.load(str(one_file))
        assert model.ir_version <= 9
        assert [operators.version for operators in model.opset_import] == [17]

    def test_the_landmarks_tell_crops_apart(self, exported):
        model, path, _ = exported
        landmarks, _ = open_onnx(path).run(None, {"crops": drawn_crops(model.spec, 2)})
        assert np.abs(landmarks[0] - landmarks[1]).mean() > 1

    def test_shapes_are_declared(self, exported):
        session = open_onnx(exported[1])
        assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
            ("crops", ["N", 64, 64, 3], "tensor(uint8)")
        ]
        assert [(o.name, o.shape) for o in session.get_outputs()] == [
            ("landmarks", ["N", 68, 2]),
            ("confidences", ["N", 68]),
        ]

    def test_metadata(self, exported):
        model, path, _ = exported
        facts = onnx_facts(open_onnx(path))
        spec = model.spec
        assert json.loads(facts["codec"]) == dict(spec.codec)
        assert json.loads(facts["nme"]) == {"common": 3.25}
        assert [facts["scheme"], facts["crop_size"], facts["crop_scale"]] == ["ibug68", "64", "1.25"]
        assert (facts["pixel_origin"], facts["version"]) == (str(spec.pixel_origin), spec.version)
        assert json.loads(facts["mean"]) == list(spec.mean)
        assert json.loads(facts["std"]) == list(spec.std)

    def test_the_check_passed(self, exported):
        model, _, check = exported
        assert check.passed
        assert check.differences.shape == (32, 68)
        assert check.needed == (0.999 if model.spec.codec["name"] in ("mmpose", "hrnet") else 1.0)


class TestTheAnnotatorsShift:
    def test_it_is_in_the_file_and_the_flip_test_from_outside_keeps_it(self, tmp_path):
        """`how_to_average`, followed to the letter, is the Predictor's exact flip test."""
        model = lively_model(annotation_shift=0.03)
        assert export_onnx(model, tmp_path / "a.onnx").passed
        session = open_onnx(tmp_path / "a.onnx")
        photographs, boxes = drawn_faces(3)
        crops, image_from_crop = cut_crops(photographs, boxes, model.spec)
        direct, mirrored = (session.run(None, {"crops": c})[0] for c in (crops, crops[:, :, ::-1].copy()))
        facts = onnx_facts(session)
        assert "annotation_shift" not in facts
        total = float(re.search(r"becomes ([\d.]+) - x", facts["how_to_average"])[1])
        back = (mirrored * (-1, 1) + (total, 0))[:, json.loads(facts["mirror"])]
        found = landmarks_in_photograph((direct + back) / 2, image_from_crop, model.spec)
        predictor = Predictor(model.net, model.spec, device="cpu", flip="exact")
        predicted = predictor.faces_in_boxes(photographs, [[box] for box in boxes], refine=0)
        expected = np.stack([own[0].landmarks_image for own in predicted])
        assert np.median(np.abs(found - expected).max(axis=-1)) < 0.01


class TestTheExampleOfTheReadme:
    def test_it_finds_what_the_predictor_finds(self, exported, tmp_path):
        model, path, _ = exported
        found = run_example(path, tmp_path)
        image, box = photograph()
        predictor = Predictor(model.net, model.spec, device="cpu", flip="none", refine=0)
        expected = predictor(image, [box], convention="square")[0].landmarks_image
        away = np.abs(np.array(found) - expected).max(axis=-1)
        assert np.median(away) < 0.1, "image pixels; a pixel of the crop is about 4 here"
        assert (away < 2.5).mean() > 0.95

    def test_it_needs_numpy_and_onnxruntime_alone(self):
        imported = set(re.findall(r"^(?:import|from) (\w+)", example(), re.MULTILINE))
        assert imported == {"json", "sys", "numpy", "onnxruntime"}
        assert len(example().splitlines()) < 40


def example() -> str:
    return re.search(
        r"tests/test_predict_export.py -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )[1]


def photograph():
    image, landmarks_image = draw_face(np.random.default_rng(5))
    return image, box_from_landmarks(landmarks_image).xyxy.tolist()


def run_example(path, folder):
    image, box = photograph()
    np.save(folder / "photograph.npy", image)
    command = [sys.executable, "-c", example(), str(path), str(folder / "photograph.npy"), *map(str, box)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def made(differences, needed=1.0, confidence=0.0, rounding=None):
    return OnnxCheck(differences, confidence, needed, np.zeros_like(differences) if rounding is None else rounding)


class TestTheCheck:
    def test_another_network_does_not_pass(self, one_file):
        other = lively_model(seed=1)
        check = check_onnx(open_onnx(one_file), other.net, other.spec, faces=2)
        assert not check.passed
        assert "face 0 landmark" in check.report()
        assert "and 1" in check.report().splitlines()[-1]

    def test_other_pixels_do_not_pass(self, one_file):
        model = lively_model()
        shifted = replace(model.spec, mean=tuple(value + 20 for value in model.spec.mean))
        assert not check_onnx(open_onnx(one_file), model.net, shifted, faces=2).passed

    def test_it_is_the_predictor_that_the_file_is_compared_with(self, one_file, monkeypatch):
        """Had the predictor another way from crop to photograph, the file would not pass."""
        model = lively_model()
        assert check_onnx(open_onnx(one_file), model.net, model.spec, faces=2).passed
        found = Predictor.faces_in_boxes

        def shifted(self, *arguments, **options):
            faces = found(self, *arguments, **options)
            return [[replace(face, landmarks_image=face.landmarks_image + 0.1) for face in own] for own in faces]

        monkeypatch.setattr(Predictor, "faces_in_boxes", shifted)
        check = check_onnx(open_onnx(one_file), model.net, model.spec, faces=2)
        assert not check.passed
        assert 0.01 < np.median(check.differences) < 0.1, "pixels of the crop, each of them several of the photograph"

    def test_a_quarter_step_may_flip_where_it_is_due(self):
        differences = np.zeros((20, 100))
        differences[3, 7] = 1.0
        assert made(differences, needed=0.999).passed
        assert not made(differences, needed=1.0).passed
        report = made(differences, needed=0.999).report()
        assert "99.95 % of 2,000 points agree" in report
        assert report.endswith("face 3 landmark 7: 1 px")

    def test_what_is_no_number_does_not_agree(self):
        assert not made(np.full((2, 68), np.nan)).passed
        assert not made(np.zeros((2, 68)), confidence=np.nan).passed

    def test_points_that_rounding_decides_do_not_count(self):
        differences, rounding = np.zeros((2, 68)), np.zeros((2, 68))
        differences[1, 4], rounding[1, 4] = 3.0, 0.2
        assert made(differences, rounding=rounding).passed
        assert (
            "face 1 landmark 4: 3 px (in float64 PyTorch itself differs by 0.2 px)"
            in made(differences, rounding=rounding).report()
        )
        differences[0, 0] = 0.02
        assert not made(differences, rounding=rounding).passed

    def test_a_file_that_fails_is_not_kept_and_the_last_one_is(self, one_file, tmp_path, monkeypatch):
        target = tmp_path / "tiny.onnx"
        target.write_bytes(one_file.read_bytes())
        failed = made(np.ones((2, 68)))
        monkeypatch.setattr(export_module, "check_onnx", lambda *args: failed)
        with pytest.raises(ValueError, match=r"does not agree with the Predictor and was not kept: .* 0.00 % of 136"):
            export_onnx(lively_model(seed=2), target)
        assert target.read_bytes() == one_file.read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


class TestMistakes:
    def test_ending(self, tmp_path):
        with pytest.raises(ValueError, match=r"should end in \.onnx"):
            export_onnx(lively_model(), tmp_path / "model.pt")

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
    def test_without_the_packages(self, package, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{package} is not installed. Run pip install 'facelm\[export\]'"):
            export_onnx(lively_model(), tmp_path / "model.onnx")

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.onnx").mkdir()
        for place, message in [
            (tmp_path / "file" / "model.onnx", "cannot write to the folder"),
            (Path("/sys/model.onnx"), "cannot write to the folder"),
            (tmp_path / "folder.onnx", "is a folder"),
            (tmp_path / f"{'x' * 251}.onnx", "File name too long"),
        ]:
            with pytest.raises(OSError, match=message):
                export_onnx(lively_model(), place)

    def test_foreign_files(self, one_file, tmp_path):
        import onnx

        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
        foreign = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
        for name, content, message in [
            ("text.onnx", b"not a network", r"text.onnx' \(13 bytes\) is damaged or no ONNX file"),
            ("empty.onnx", b"", "damaged or no ONNX file"),
            ("half.onnx", one_file.read_bytes()[:50_000], "damaged or no ONNX file"),
            ("foreign.onnx", foreign.SerializeToString(), r"not written by facelm export.*its inputs: x \[1\]"),
        ]:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=message):
                open_onnx(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=r"no ONNX file '.*absent.onnx'"):
            open_onnx(tmp_path / "absent.onnx")
