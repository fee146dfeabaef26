"""The benchmark's perturbations, and its claim: a second crop undoes what a wrong box did."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm.data.faces import Face
from facelm.geometry.boxes import CONVENTIONS, box_from_landmarks
from facelm.predict import Predictor
from perfect_network import SPEC, PerfectNetwork, face_landmarks, map_image

FACE = face_landmarks((120, 100), 60)


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import benchmarks.box_robustness as module

    sys.path.pop(0)
    return module


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "a.png"
    cv2.imwrite(str(path), cv2.cvtColor(map_image(), cv2.COLOR_RGB2BGR))
    return Face("afw/a", path, FACE, box_from_landmarks(FACE), "afw")


def perturbed(benchmark, face, name):
    return dict(benchmark.perturbations())[name](face, np.random.default_rng(0))


class TestPerturbations:
    @pytest.mark.parametrize(("name", "amount"), [("shift 5%", 0.05), ("shift 20%", 0.2), ("annotated box", 0)])
    def test_shift(self, benchmark, face, name, amount):
        box = perturbed(benchmark, face, name).box
        assert np.linalg.norm(np.subtract(box.center, face.box.center)) == pytest.approx(amount * face.box.side)
        assert box.side == face.box.side

    @pytest.mark.parametrize("factor", [0.8, 1.25])
    def test_scale(self, benchmark, face, factor):
        box = perturbed(benchmark, face, f"scale {factor:g}").box
        assert (box.center, box.side) == (face.box.center, factor * face.box.side)

    def test_turn_moves_photograph_and_landmarks_alike(self, benchmark, face):
        sample = perturbed(benchmark, face, "turn 30")
        eyes = sample.landmarks_image[45] - sample.landmarks_image[36]
        before = FACE[45] - FACE[36]
        angle = np.degrees(np.arctan2(*eyes[::-1]) - np.arctan2(*before[::-1]))
        assert abs(angle) == pytest.approx(30, abs=0.01)
        x, y = sample.landmarks_image[30].round().astype(int)
        assert np.abs(sample.photograph.pixels[y, x, :2] - FACE[30]).max() < 2  # the colours say where it was

    def test_dlib_s_distribution(self, benchmark, face):
        rng = np.random.default_rng(0)
        boxes = [benchmark.drawn_like_dlib(face, rng).box for _ in range(500)]
        covariance = np.array(CONVENTIONS["dlib"].covariance)
        log_sides = np.log([box.side / face.box.side for box in boxes])
        assert log_sides.mean() == pytest.approx(0, abs=0.02)
        assert log_sides.std() == pytest.approx(np.sqrt(covariance[2, 2]), rel=0.1)
        shifts = np.array([np.subtract(box.center, face.box.center) for box in boxes]) / face.box.side
        assert np.abs(shifts.mean(axis=0)).max() < 0.02


class TestTable:
    def test_a_second_crop_undoes_what_the_box_did(self, benchmark, face):
        """A perfect network sees what its crop shows: points beyond it are lost at first, then come into view."""
        predictor = Predictor(PerfectNetwork(FACE), SPEC, device="cpu", flip="none")
        nme, missed = benchmark.measure(predictor, [face] * 4, benchmark.shifted(0.35), passes=3, seed=0, batch=3)
        assert missed == 0
        assert nme[0] > 2 * nme[2]
        assert nme[2] < 1

    def test_faces_that_were_not_found_are_counted(self, benchmark, face):
        predictor = Predictor(PerfectNetwork(FACE), SPEC, device="cpu", flip="none")
        nobody = benchmark.measure(
            predictor, [face] * 4, lambda face, rng: benchmark.Sample(None, FACE, None), passes=2, seed=0
        )
        assert nobody[1] == 4
        assert np.isnan(nobody[0]).all()

    @pytest.mark.filterwarnings("ignore:300W is incomplete")
    def test_the_script(self, benchmark, tmp_path, capsys):
        from perfect_network import save_checkpoint
        from w300_tree import NAMES, write_tree

        write_tree(tmp_path / "data", NAMES["train"])
        checkpoint = save_checkpoint(tmp_path / "a.ckpt")
        benchmark.main(
            ["--checkpoint", str(checkpoint), "--data", str(tmp_path / "data"), "--limit", "2", "--device", "cpu"]
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "inter-ocular NME in percent, 2 faces, flip test exact"
        assert "| box | refine=0 | refine=1 | faces without box |" in lines
        rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
        assert rows[:2] == ["annotated box", "shift 5%"]
        assert "dlib, drawn" in rows
