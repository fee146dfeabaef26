"""facelm against mmpose itself: forward, training step and predict with the flip test, in processes that take turns.

    python -m benchmarks.compare_mmpose --python ENVIRONMENT/bin/python [--quick]

mmpose 1.3.2 is no longer maintained; an environment for it, beside facelm's, with the same torch:

    python3.11 -m venv ENVIRONMENT
    PIP="ENVIRONMENT/bin/pip install"
    $PIP torch "setuptools<80" six wheel cython numpy opencv-python-headless scipy matplotlib pyyaml rich
    $PIP --no-deps mmpose==1.3.2 mmengine mmcv-lite json_tricks addict yapf termcolor platformdirs munkres
    $PIP --no-deps --no-build-isolation --no-binary xtcocotools xtcocotools

`mmcv-lite` has no compiled operations, mmdet is not installed, and on a CPU-only torch an installed torchvision fails
to register its `nms`. `mmpose_process.py`, which this script starts there, puts stubs in place of what this
configuration imports and never calls. Both sides get the same weights, which mmpose reads under its own names, and
the heatmaps must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.networks import require_equal, size_of, trained_like
from benchmarks.timing import Run, machine, options, print_table, take_turns
from benchmarks.train_step import CODEC, step_of
from facelm.codec import build_codec
from facelm.geometry.landmarks import IBUG68
from facelm.models import save_weights
from facelm.models.fast import for_inference
from facelm.models.hrnet import HRNetV2
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.native.training import for_training


class OtherProcess:
    """mmpose in its own process: told what to do by a line of JSON, it answers with one."""

    def __init__(self, python: str, script: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, task: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a task. Raises RuntimeError if the process ended; its errors are on the screen."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:  # mmengine prints too
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the mmpose process ended during {task!r}, exit code {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)


def channels_of(net: HRNetV2) -> dict[str, Any]:
    """What mmpose's config needs to know to build the same network."""
    config = net.config
    return {
        "channels": config.channels,
        "modules": config.modules,
        "blocks": config.blocks,
        "stem_blocks": config.stem_blocks,
        "landmarks": net.num_landmarks,
    }


def our_runs(net: HRNetV2, crops: torch.Tensor, landmarks_crop: torch.Tensor) -> dict[str, Run]:
    """What facelm does for the same three tasks."""
    size = crops.shape[1]
    fast, codec = for_inference(net, crop_size=size), build_codec(CODEC, size)
    trained = trained_like_again(net)
    inputs = normalise(crops)
    step = step_of(trained, inputs, landmarks_crop, fused=True)
    return {
        "forward": lambda: fast(inputs),
        "predict": lambda: predict_landmarks(fast, normalise(crops), codec, IBUG68.mirror, "shifted"),
        "train": step,
    }


def trained_like_again(net: HRNetV2) -> HRNetV2:
    """A copy for training, native where that can be had."""
    copy = HRNetV2(net.config, net.num_landmarks)
    copy.load_state_dict(net.state_dict())
    for_training(copy)
    return copy.to(memory_format=torch.channels_last).train()


def compare(other: OtherProcess, net: HRNetV2, batch: int, folder: Path, rounds: int) -> None:
    """Checks the heatmaps, then prints a table for each task at this batch size."""
    size = 256
    crops = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    landmarks_crop = torch.rand(batch, net.num_landmarks, 2) * size
    np.save(folder / "inputs.npy", normalise(crops).contiguous().numpy())
    np.save(folder / "landmarks.npy", landmarks_crop.numpy())
    other("load", folder=str(folder))
    ours = our_runs(net, crops, landmarks_crop)
    heatmaps = torch.from_numpy(np.load(other("heatmaps", folder=str(folder))["file"]))
    with torch.inference_mode():
        require_equal("facelm's heatmaps", heatmaps, torch.as_tensor(ours["forward"]()))
    for task in ("forward", "predict", "train"):
        theirs: Callable[[], object] = lambda task=task: other(task)  # noqa: E731
        seconds = take_turns({"mmpose": theirs, "facelm": ours[task]}, rounds)
        print_table(f"{task}, batch {batch}", seconds, images=batch)


def main() -> None:
    """Prints the tables; wall time, since two processes cannot share a CPU clock."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--python", required=True)
    given, rest = parser.parse_known_args()
    chosen = options(__doc__, rest)
    net = trained_like(size_of(False)[0])
    print(machine(chosen))
    other = OtherProcess(given.python, Path(__file__).with_name("mmpose_process.py"), chosen.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_weights(net, folder / "weights.pth", "mmpose-1.x")
        (folder / "network.json").write_text(json.dumps(channels_of(net)), encoding="utf-8")
        for batch in (1,) if chosen.quick else (1, 16):
            compare(other, net, batch, folder, chosen.rounds)
    other.close()


if __name__ == "__main__":
    main()
