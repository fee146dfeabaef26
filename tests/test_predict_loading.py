"""Loading a predictor: from what, onto which device, with which packages, and how fast."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from facelm.models.device import pick_device
from facelm.predict import Predictor
from perfect_network import SPEC, box_of, face_landmarks, map_image, save_checkpoint

TIGHT = box_of(face_landmarks()).xyxy


class TestLoad:
    def test_checkpoint(self, tmp_path):
        model = Predictor.load(save_checkpoint(tmp_path / "a.ckpt"), device="cpu", refine=0)
        assert model.spec.architecture == "hrnetv2_tiny"
        assert len(model(map_image(), TIGHT)) == 1

    def test_unknown_name_lists_what_is_shipped(self):
        with pytest.raises(FileNotFoundError, match=r"no weights at 'hrnetv3'\. (Shipped models|This installation)"):
            Predictor.load("hrnetv3")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no weights at .*gone\.ckpt"):
            Predictor.load(tmp_path / "gone.ckpt")

    @pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, {"state_dict": {"fc.weight": torch.zeros(2)}}])
    def test_foreign_checkpoint(self, tmp_path, content):
        torch.save(content, tmp_path / "foreign.pth")
        with pytest.raises(ValueError, match="no HRNetV2 weights"):
            Predictor.load(tmp_path / "foreign.pth")

    def test_weights_without_meaning(self, tmp_path):
        torch.save(SPEC.build_network().state_dict(), tmp_path / "bare.pth")
        with pytest.raises(ValueError, match=r"not what they mean.*facelm convert"):
            Predictor.load(tmp_path / "bare.pth")

    def test_no_such_device(self):
        with pytest.raises(ValueError, match=r"device='(cuda:77|warp)'.*auto or cpu"):
            pick_device("warp")
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="device='cuda:77'"):
                pick_device("cuda:77")

    def test_auto_is_a_device_of_this_machine(self):
        expected = "cuda" if torch.cuda.is_available() else "cpu"
        assert pick_device("auto").type == expected


LIGHT = """
import sys, time

class Blocked:
    names = {names}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"blocked: {{name}}")

sys.meta_path.insert(0, Blocked())
import cv2, numpy as np, safetensors.torch, torch, yaml
before = {{name.split(".")[0] for name in sys.modules}} | sys.stdlib_module_names | {{"facelm"}}
from facelm.predict import Predictor
image = np.zeros((300, 300, 3), np.uint8)
wall, cpu = time.perf_counter(), time.process_time()
prediction = Predictor.load(sys.argv[1], device="cpu")(image, [50, 50, 250, 250], convention="dlib")
seconds = min(time.perf_counter() - wall, time.process_time() - cpu)
print(len(prediction), seconds, *sorted({{name.split(".")[0] for name in sys.modules}} - before))
"""
HEAVY = {
    "lightning", "pytorch_lightning", "hydra", "omegaconf", "albumentations", "wandb", "matplotlib", "torchmetrics",
    "rich", "scipy", "PIL", "dlib", "onnxruntime",
}  # fmt: skip


def test_light_and_fast(tmp_path):
    """torch, numpy, OpenCV, YAML and safetensors suffice, and W18's first result comes two seconds after the import.

    On a machine that is busy with other things the process's own time counts, twice that; compiling takes a minute.
    """
    spec = dataclasses.replace(SPEC, architecture="hrnetv2_w18", crop_size=256)
    path = save_checkpoint(tmp_path / "a.ckpt", spec)
    code = LIGHT.format(names=HEAVY)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    faces, seconds, *others = done.stdout.split()
    assert (faces, others) == ("1", [])
    assert float(seconds) < 4
