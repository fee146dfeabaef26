"""What is looked at while a training runs: pictures, where the error lies; and that the training is the same."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from conftest import TINY, compose
from facelm.data.faces import Face
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.overlay import encoded
from facelm.geometry.landmarks import IBUG68
from facelm.train import train
from facelm.training.watch import FacesWhileTraining, subsets_of, validation_errors
from perfect_network import box_of, face_landmarks, map_image
from wandb_plan import tracker

ROOT = Path(__file__).resolve().parents[1]


def faces(folder: Path, count: int = 20, **options) -> list[Face]:
    (folder / "photo.png").write_bytes(encoded(map_image(), ".png"))
    points = [face_landmarks(seed=seed) for seed in range(count)]
    return [Face(f"f{i % 3}/{i}", folder / "photo.png", one, box_of(one), f"f{i % 3}", **options)
            for i, one in enumerate(points)]  # fmt: skip


def predicted(those: list[Face], off: float = 2.0) -> FacePredictions:
    target = np.array([face.landmarks_image for face in those])
    return FacePredictions(np.arange(len(those)), target + off, target)


class TestErrors:
    def test_by_region_and_subset(self, tmp_path):
        those = faces(tmp_path, 6)
        found = predicted(those)
        found.predicted[[0, 3]] = found.target[[0, 3]]  # those of folder f0
        errors = validation_errors(found, IBUG68, subsets_of(those), "val")
        assert errors["val/f0/nme"] == 0
        assert errors["val/nme"] == pytest.approx((errors["val/f1/nme"] + errors["val/f2/nme"]) / 3)
        assert {f"val/nme_{region}" for region in IBUG68.regions} <= errors.keys()

    def test_a_part_that_nobody_labelled_is_left_out(self, tmp_path):
        found = predicted(faces(tmp_path, 3))
        jaw = list(IBUG68.regions["jaw"])
        found.target[:, jaw] = np.nan
        assert "val/nme_jaw" not in validation_errors(found, IBUG68, {"nobody": []}, "val")

    def test_subsets(self, tmp_path):
        assert {name: len(rows) for name, rows in subsets_of(faces(tmp_path)).items()} == {"f0": 7, "f1": 7, "f2": 6}
        assert subsets_of(faces(tmp_path, 1)) == {}  # the whole once more
        assert list(subsets_of(faces(tmp_path, 4, subsets=("pose", "a\nb")))) == ["pose"]
        many = [SimpleNamespace(subsets=(), folder=str(i)) for i in range(100)]
        assert subsets_of(many) == {}


class TestPictures:
    def test_every_few_epochs_the_same_faces(self, tmp_path):
        those, shown = faces(tmp_path), []
        callback = FacesWhileTraining(those, IBUG68, lambda *what: shown.append(what), every=5)
        lit = SimpleNamespace(measured=predicted(those))
        for epoch in range(12):
            callback.on_validation_end(SimpleNamespace(current_epoch=epoch, global_step=10 * epoch), lit)
        assert [step for *_, step in shown] == [0, 40, 90]
        assert {len(pictures) for pictures, *_ in shown} == {8}
        names = [[said.split(":")[0] for said in captions] for _, captions, _ in shown]
        assert names[0] == names[1] == names[2]
        assert names[0][0] == "f0/0"
        assert names[0][-1] == those[-1].name

    def test_what_cannot_be_read_ends_them_alone(self, tmp_path, caplog):
        those = faces(tmp_path)
        (tmp_path / "photo.png").unlink()
        callback = FacesWhileTraining(those, IBUG68, lambda *_: None, every=1)
        for _ in range(2):
            callback.on_validation_end(
                SimpleNamespace(current_epoch=0, global_step=0), SimpleNamespace(measured=predicted(those))
            )
        assert caplog.text.count("no more pictures") == 1

    def test_zero_epochs(self):
        with pytest.raises(ValueError, match="pictures_every=0"):
            FacesWhileTraining([], IBUG68, lambda *_: None, every=0)

    def test_faces_of_somebody_go_to_wandb_only_when_asked(self, monkeypatch):
        for pictures, drawn in ((False, False), (False, True), (True, False)):
            logged = []
            ours = tracker(pictures=pictures)
            ours._run = SimpleNamespace(log=logged.append)
            ours.log_faces([np.zeros((8, 8, 3), np.uint8)], ["a"], 3, drawn=drawn)
            assert ours.shows_faces(drawn=drawn) == bool(logged) == (pictures or drawn)


def test_the_training_is_the_same_with_pictures_and_without(drawn_root, tmp_path):
    weights = {}
    for every, logger in (("1", "tensorboard"), ("null", "csv")):
        folder = tmp_path / logger
        options = [f"data.root={drawn_root}", f"run_dir={folder}", "trainer.max_epochs=2", f"pictures_every={every}"]
        train(compose("train", "data=w300", *TINY, f"logger={logger}", *options))
        weights[logger] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["val/loss"]) > 0 for row in rows if row["val/loss"]] == [True] * 2
        assert [float(row["train/grad_norm"]) > 0 for row in rows if row["train/grad_norm"]]
    assert all(torch.equal(weights["csv"][name], one) for name, one in weights["tensorboard"].items())


def test_the_agents_of_a_sweep_get_lines_that_compose():
    content = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    assert content["metric"]["name"] == "val/nme"
    for choose in (0, -1):
        values = {
            key: one["value"] if "value" in one else (one.get("values") or [one["min"], one["max"]])[choose]
            for key, one in content["parameters"].items()
        }
        line = [f"{key}={value}" for key, value in values.items()]  # what ${args_no_hyphens} stands for
        cfg = compose("train", *line)
        assert cfg.optim.optimizer.lr == values["optim.optimizer.lr"]
    command = [word for word in content["command"] if not re.match(r"\$\{", word)]
    assert command == ["facelm", "train"]
