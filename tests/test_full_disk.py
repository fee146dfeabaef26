"""A disk that is full while `facelm predict` writes: no half file, the path in the message, exit code 1."""

import os
import subprocess

import cv2
import numpy as np
import pytest

import warm
from perfect_network import save_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="root alone mounts a tmpfs"),
]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_predict_on_a_full_disk(small_disk, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    boxes = "".join(f"{number}.png,100,100,300,300\n" for number in range(3))
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), noise)
    (tmp_path / "boxes.csv").write_text(boxes)
    checkpoint = save_checkpoint(tmp_path / "a.ckpt")
    inputs = [str(tmp_path / f"{number}.png") for number in range(3)]
    command = ["-m", "facelm.cli", "predict", *inputs, "--out", str(small_disk / "out")]
    command += ["--checkpoint", str(checkpoint), "--boxes", str(tmp_path / "boxes.csv"), "--device", "cpu"]
    done = warm.run(command)
    assert done.returncode == 1
    assert str(small_disk / "out") in done.stderr
    assert "Traceback" not in done.stderr
    for path in (small_disk / "out").iterdir():
        if path.suffix == ".jpg":
            assert cv2.imread(str(path)) is not None, f"{path.name} is cut"
        assert ".tmp." not in path.name
