"""The commands in README.md and docs/running.md compose; the demo is run whole by the slow tests."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import compose

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/running.md")


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
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


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
