"""What independent computations found right stays right: scores, learning rates, secrets, kills at any time."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import warm
from conftest import TINY, compose
from facelm.evaluate import evaluation_data
from facelm.evaluation.predictions import predict_faces
from facelm.launch.jobs import read_record
from facelm.models.loading import load_model
from facelm.training.schedule import WarmupCosine, WarmupMultiStep

REGIONS = {"jaw": (0, 17), "brows": (17, 27), "nose": (27, 36), "eyes": (36, 48), "mouth": (48, 68)}


def test_the_report_s_numbers_from_the_pts_files_alone(trained_run, drawn_root):
    """Read, measured and resampled here with numpy; of facelm's, only the predicted landmarks are used."""
    loaded = load_model(trained_run)
    data = evaluation_data(compose("evaluate", f"checkpoint={trained_run}", "data.num_workers=0"), loaded, typed=[])
    faces, labels = data.evaluation_faces()
    predicted = predict_faces(loaded.net, loaded.spec, data.faces_loader(faces), torch.device("cpu")).predicted
    errors, regions = {}, {}
    for face, points in zip(faces, predicted, strict=True):
        lines = next(drawn_root.rglob(f"{face.name}.pts")).read_text().split("\n")
        truth = np.array([line.split() for line in lines[lines.index("{") + 1 : lines.index("}")]], float) - 1
        distances = np.sqrt(((points - truth) ** 2).sum(1)) / np.hypot(*(truth[36] - truth[45]))
        errors[face.name] = 100 * distances.mean()
        regions[face.name] = {name: 100 * distances[slice(*ends)].mean() for name, ends in REGIONS.items()}
    with (trained_run / "report/per_face.csv").open(newline="") as file:
        assert {row["name"]: float(row["nme"]) for row in csv.DictReader(file)} == pytest.approx(errors, abs=1e-4)
    said = json.loads((trained_run / "report/summary.json").read_text())["subsets"]
    for subset in ("common", "challenge", "test"):
        names = [face.name for face, label in zip(faces, labels, strict=True) if label == subset]
        own = np.array([errors[name] for name in names])
        assert said[subset]["nme"] == pytest.approx(own.mean(), abs=1e-4)
        assert said[subset]["fr@8"] == pytest.approx(100 * np.mean(own > 8))
        assert said[subset]["auc@10"] == pytest.approx(np.mean(np.maximum(0, 100 - 10 * own)), abs=1e-2)
        means = {name: np.mean([regions[one][name] for one in names]) for name in REGIONS}
        assert said[subset]["regions"] == pytest.approx(means, abs=1e-4)
        drawn = np.random.default_rng(5).choice(own, (20_000, len(own))).mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert said[subset]["nme_ci95"] == pytest.approx([low, high], abs=0.1 * (high - low))


@pytest.mark.parametrize("ramp", [0, 2, 7])
def test_learning_rates_are_torch_s(ramp):
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    parts = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 10, 10])]  # epochs of 2 steps: 3, 5 and 5
    if ramp:
        parts.append(torch.optim.lr_scheduler.LinearLR(optimizer, 0.001, total_iters=ramp - 1))
    ours = WarmupMultiStep(milestones=(3, 5, 5), warmup_iterations=ramp)
    for step in range(14):
        factor = ours.factor(step, iterations_per_epoch=2, total_iterations=14)
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        for part in parts:
            part.step()


def test_the_cosine_is_torch_s():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15, eta_min=0.1)
    ours = WarmupCosine(final=0.1, warmup_iterations=4)
    for step in range(4, 20):
        factor = ours.factor(step, iterations_per_epoch=5, total_iterations=20)
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        cosine.step()


def training(drawn_root, run, *more):
    """The command of a small training."""
    place = ["data=w300", f"data.root={drawn_root}", f"hydra.run.dir={run}"]
    return [sys.executable, "-m", "facelm.train", *TINY, *place, "trainer.max_epochs=3", *more]


def test_no_secret_of_the_environment_is_in_a_file(drawn_root, tmp_path):
    run, secret = tmp_path / "run", "s3cr3t" + "0" * 34
    names = ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "OPTUNA_PASSWORD")
    environment = os.environ | dict.fromkeys(names, secret) | {"WANDB_MODE": "offline"}
    _, *words = [one for one in training(drawn_root, run, "logger=wandb") if one != "logger=csv"]
    done = warm.run(words, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "s3cr3t" not in done.stdout + done.stderr
    files = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]


@pytest.mark.slow
def test_kills_at_any_time_change_nothing(drawn_root, tmp_path):
    """The same command, again and again, until it is done: bit for bit the weights of a run that nobody killed."""
    begun = time.monotonic()
    subprocess.run(training(drawn_root, tmp_path / "whole"), capture_output=True, check=True)
    lasts, draw = time.monotonic() - begun, random.Random()
    for _ in range(5):
        process = subprocess.Popen(
            training(drawn_root, tmp_path / "killed", "checkpoint.every_n_steps=1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said = process.communicate(timeout=draw.uniform(0.4, 1.0) * lasts)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            if read_record(tmp_path / "killed").get("status") == "finished":  # killed on its way out
                break
        else:
            assert process.returncode == 0, said
            break
    else:
        subprocess.run(
            training(drawn_root, tmp_path / "killed", "checkpoint.every_n_steps=1"), capture_output=True, check=True
        )
    one, other = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "killed")
    )
    assert all(torch.equal(other[key], value) for key, value in one.items())
