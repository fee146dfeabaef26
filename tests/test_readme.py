"""The commands in README.md and docs/ compose, its prediction runs; the demo is for the slow tests.

The program in docs/export.md that runs an ONNX file is run by `test_predict_export.py`.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import facelm.predict.detect as detect
import facelm.predict.predictor as predictor_module
from conftest import compose
from facelm.cli import main
from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.boxes import CONVENTIONS, box_from_landmarks
from facelm.models import download, save_weights
from facelm.models.cards import write_card
from perfect_network import SPEC
from predict_folder import written

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def commands(program: str) -> list[str]:
    """Every line of a code block that runs `program`, continued lines joined, comments left out."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if f"-m {program}" in line and not line.lstrip().startswith("#"):
                    found.append(re.split(r"\s#\s|\s\.\.\.$", line.strip())[0])
    return sorted(set(found))


def overrides(command: str, program: str) -> list[str]:
    words = shlex.split(command.split(f"-m {program}", 1)[1])
    return [word for word in words if "=" in word and not word.startswith(("hydra.", "resume="))]


def first_of_each(words: list[str]) -> list[str]:
    """A sweep's first job: `seed=1,2,3` becomes `seed=1`; launchers and sweepers are the sweep's own business."""
    kept = [word for word in words if not word.startswith(("sweep=", "launcher="))]
    return [word if "{" in word or "(" in word else word.split(",")[0] for word in kept]


@pytest.mark.parametrize("command", commands("facelm.train"))
def test_training_commands_compose(command):
    compose("train", *first_of_each(overrides(command, "facelm.train")))


@pytest.mark.parametrize("command", commands("facelm.evaluate"))
def test_evaluation_commands_compose(command):
    compose("evaluate", *overrides(command, "facelm.evaluate"))


def test_there_are_commands_to_check():
    assert len(commands("facelm.train")) >= 8
    assert len(commands("facelm.evaluate")) >= 2


def test_linked_files_exist():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert page != "README.md", f"README is PyPI's page, where {target} does not exist"
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
        for target in re.findall(r"https://github\.com/facelm/facelm/blob/main/([\w./-]+)", text):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


NAME = "hrnetv2_w18"


class TestPrediction:
    @pytest.fixture
    def photo(self, tmp_path, monkeypatch):
        """A folder with photo.jpg, a drawn face, which the detector finds; stand-in weights where none are shipped."""
        image, landmarks = draw_face(np.random.default_rng(0))
        cv2.imwrite(str(tmp_path / "photo.jpg"), image[..., ::-1])

        class Finder:
            convention = CONVENTIONS["square"]

            def __init__(self, *_):
                pass

            def __call__(self, image):
                return box_from_landmarks(landmarks).xyxy[None]

        for module in (detect, predictor_module):
            monkeypatch.setattr(module, "DlibDetector", Finder)
        if NAME not in download.shipped_names():
            monkeypatch.setattr(download, "SHIPPED", tmp_path)
            save_weights(SPEC.build_network(), tmp_path / f"{NAME}.safetensors")
            write_card(tmp_path / f"{NAME}.safetensors", SPEC)
        monkeypatch.chdir(tmp_path)
        return tmp_path / "photo.jpg"

    def test_the_three_lines_of_python(self, photo, capsys):
        code = self.block("python", "Predictor.load")
        assert len(code.splitlines()) == 3
        names: dict = {}
        exec(code, names)
        (face,) = names["faces"]
        assert (face.box.shape, face.landmarks_image.shape, face.confidence.shape) == ((4,), (68, 2), (68,))
        assert "array(" in capsys.readouterr().out

    def test_the_one_command(self, photo):
        (line,) = self.block("", "facelm predict").splitlines()
        program, *words = shlex.split(line)
        assert program == "facelm"
        assert main(words) == 0
        assert written() == ["landmarks.csv", "photo.jpg", "photo.json"]

    def test_it_says_whether_the_weights_are_there(self):
        said = "not in the repository yet" not in (ROOT / "README.md").read_text(encoding="utf-8")
        assert said == (NAME in download.shipped_names())

    def block(self, language, text):
        section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Prediction\n")[1].split("\n## ")[0]
        return next(
            code for kind, code in re.findall(r"```(\w*)\n(.*?)```", section, re.S) if kind == language and text in code
        )


def test_make_lists_its_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "check", "parity", "bench"):
        assert f"make {target}" in done.stdout


@pytest.mark.slow
def test_the_demo_whole(tmp_path):
    """Trains on drawn faces from nothing: common below 8 %, and at most half of the mean shape's."""
    command = [sys.executable, "-m", "facelm.train", "experiment=demo", "data.root=faces", "hydra.run.dir=run"]
    subprocess.run(command, check=True, cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    nme = summary["subsets"]["common"]["nme"]
    assert nme < 8
    assert nme <= summary["mean_shape"]["common"]["nme"] / 2
