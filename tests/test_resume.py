"""Killed in the middle of an epoch and resumed: the same weights, bit for bit, as one that was never interrupted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY
from killed_run import fit

TESTS = Path(__file__).resolve().parent
EPOCHS, STEPS = 3, 4  # 24 faces in batches of 6


def overrides(root, run_dir, *more):
    tiny = ["data=w300", f"data.root={root}", "data.batch_size=6", "optim=adamw_cosine", "codec=subpixel"]
    return [*TINY, *tiny, f"run_dir={run_dir}", f"trainer.max_epochs={EPOCHS}", "checkpoint.every_n_steps=1", *more]


def killed(number, step, arguments):
    command = [sys.executable, str(TESTS / "killed_run.py"), number.name, str(step), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS)


def last(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(one, other, path=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{path}: {(one - other).abs().max()}"
    else:
        assert one == other, path


STATE = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step", "loops")


class TestSameWeights:
    @pytest.mark.parametrize(
        ("number", "step", "workers", "decay"),
        [(signal.SIGKILL, 6, 0, "null"), (signal.SIGKILL, 5, 2, 0.9), (signal.SIGTERM, 6, 1, 0.9)],
    )
    def test_as_never_interrupted(self, drawn_root, tmp_path, number, step, workers, decay):
        ema = f"ema.decay={decay}"
        fit(overrides(drawn_root, tmp_path / "whole", ema))
        broken = tmp_path / "broken"
        arguments = overrides(drawn_root, broken, ema, f"data.num_workers={workers}")
        if number == signal.SIGTERM:  # nothing but the signal writes a checkpoint
            arguments.append("checkpoint.every_n_steps=null")
        done = killed(number, step, arguments)
        assert done.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 143), done.stderr[-3000:]
        stopped = last(broken)
        assert stopped["global_step"] == (step if number == signal.SIGKILL else step + 1)
        assert stopped["facelm"]["position"]["batches"] == stopped["global_step"] % STEPS
        fit([*arguments, f"resume={broken}"])
        one, other = last(tmp_path / "whole"), last(broken)
        assert one["global_step"] == EPOCHS * STEPS
        for key in STATE:
            assert (key in one) == (key in other)
            if key in one:
                assert_same(one[key], other[key], key)
