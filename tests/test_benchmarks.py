"""The benchmarks run, at a tiny size; their numbers mean nothing there."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from facelm.data.synthetic.dataset import draw_face

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _from_the_checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class TestTiming:
    def test_ratio_is_taken_round_by_round(self):
        from benchmarks.timing import ratio

        # The machine was ten times slower in the second round: medians of each alone would say 1.0 or worse.
        assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0

    def test_runs_take_turns_and_the_first_round_does_not_count(self):
        from benchmarks.timing import take_turns

        calls, now = [], iter(range(100))
        seconds = take_turns(
            {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, clock=lambda: next(now)
        )
        assert calls == ["a", "b"] * 3
        assert seconds == {"a": [1, 1], "b": [1, 1]}

    def test_table(self, capsys):
        from benchmarks.timing import print_table

        print_table("forward", {"eager": [0.4, 0.4, 0.4], "fast": [0.1, 0.1, 0.1]}, images=2)
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].split() == ["fast", "50.0", "0%", "4.00x"]

    def test_machine_names_the_instruction_sets(self):
        from benchmarks.timing import machine, options

        line = machine(options("", ["--threads", "1"]))
        assert torch.backends.cpu.get_cpu_capability() in line
        assert f"torch {torch.__version__}, 1 thread," in line

    def test_a_variant_that_differs_is_not_timed(self):
        from benchmarks.networks import require_equal

        with pytest.raises(ValueError, match="folded differs from the baseline"):
            require_equal("folded", torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.1]))


@pytest.mark.parametrize(
    ("name", "tables"),
    [("forward", 2), ("predict", 2), ("train_step --mixed", 1), ("data_pipeline", 2), ("nan_cost", 2)],
    ids=["forward", "predict", "train_step", "data_pipeline", "nan_cost"],
)
def test_cpu_benchmark(name, tables, capsys):
    name, *arguments = name.split()
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    module.main(["--quick", *arguments])
    assert capsys.readouterr().out.count("ratio") == tables


@pytest.mark.slow
def test_scale_benchmark(capsys):
    from benchmarks.scale import main

    main(["--quick"])
    first, later = capsys.readouterr().out.splitlines()[-2:]
    assert (first.split()[:2], later.split()[:2]) == (["1,200", "first"], ["1,200", "next"])


def test_caches(drawn_root, capsys):
    from benchmarks.cache import main

    main(["--data", str(drawn_root), "--count", "8", "--rounds", "1", "--workers", "1"])
    said = capsys.readouterr().out
    assert said.count("cold") == said.count("warm") == 3
    assert "ms of one thread" in said


@pytest.mark.slow
def test_ways_of_waiting(capsys):
    from benchmarks.waiting import WAYS, main

    main(["--quick"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in rows] == list(WAYS)
    assert all(float(cell.rstrip(" |")) > 0 for row in rows for cell in row[1:])


def test_onnx_of_photographs(trained_run, capsys):
    pytest.importorskip("onnxruntime")
    from benchmarks.onnx_photographs import main

    main(["--checkpoint", str(trained_run / "checkpoints/last.ckpt"), "--faces", "1", "--rounds", "1"])
    said = capsys.readouterr().out
    assert all(f"  {what} " in said for what in ("decoding with Pillow", "making the session", "one face"))
    assert 0 <= float(said.partition("1 drawn faces: at most ")[2].split()[0]) < 0.1


class TestOtherPackages:
    """Stand-ins answer as face-alignment and mediapipe document it: neither is needed, nor are their weights."""

    @staticmethod
    def found(name, samples):
        from benchmarks.packages import PACKAGES
        from benchmarks.wild import measure

        count = measure(PACKAGES[name](), samples, 0.0, None)
        return count.faces, count.found, count.others

    @pytest.fixture
    def sample(self):
        image, points = draw_face(np.random.default_rng(3))
        return "a", image, [points]

    def test_face_alignment(self, sample, monkeypatch):
        points = sample[2][0]

        class FaceAlignment:
            def __init__(self, kind, device):
                assert (kind, device) == ("2D", "cpu")

            def get_landmarks(self, image):
                return [points.astype(np.float32), points + 500] if image.any() else None

        package = SimpleNamespace(FaceAlignment=FaceAlignment, LandmarksType=SimpleNamespace(TWO_D="2D"))
        monkeypatch.setitem(sys.modules, "face_alignment", package)
        black = ("b", np.zeros_like(sample[1]), [])
        assert self.found("face-alignment", [sample, black]) == (1, 1, 1)

    def test_mediapipe(self, sample, monkeypatch):
        from benchmarks.packages import _IBUG68_IN_MEDIAPIPE

        _, image, (points,) = sample
        height, width = image.shape[:2]
        mesh = np.zeros((468, 2))
        mesh[list(_IBUG68_IN_MEDIAPIPE)] = (points + 0.5) / [width, height]  # 0 and 1 are the photograph's edges
        landmark = [SimpleNamespace(x=x, y=y) for x, y in mesh]

        class FaceMesh:
            def __init__(self, static_image_mode, max_num_faces):
                assert static_image_mode

            def process(self, image):
                return SimpleNamespace(multi_face_landmarks=[SimpleNamespace(landmark=landmark)])

        solutions = SimpleNamespace(face_mesh=SimpleNamespace(FaceMesh=FaceMesh))
        monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(solutions=solutions))
        assert self.found("mediapipe", [sample]) == (1, 1, 0)
        from benchmarks.packages import PACKAGES

        np.testing.assert_allclose(PACKAGES["mediapipe"]()(image)[0].landmarks_image, points)


def test_gpu_benchmark_on_the_cpu(tmp_path, capsys):
    from benchmarks.gpu import SETTINGS, main

    main(["--quick", "--device", "cpu", "--output", str(tmp_path / "gpu.md")])
    table = (tmp_path / "gpu.md").read_text()
    assert table.startswith("CPU (a test of the script), torch")
    assert all(f"| {setting.name} |" in table for setting in SETTINGS)


def test_gpu_benchmark_needs_little():
    """It runs where hydra, albumentations, lightning and OpenCV are missing."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['hydra', 'albumentations', 'wandb', 'lightning', 'cv2']))\n"
        "import benchmarks.gpu"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_everything_refuses_unknown_options():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--fast"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "unknown: --fast" in done.stderr
