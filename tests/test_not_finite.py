"""NaN and infinity are said, never turned into numbers: in heatmaps, weights, losses and validations."""

from __future__ import annotations

import csv
import json
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch

import warm
from conftest import TINY
from facelm.cli import main
from facelm.codec import build_codec
from facelm.data.datamodule import FaceDataModule
from facelm.models import load_weights, save_weights
from facelm.predict import Predictor
from facelm.training.callbacks import BestCheckpoint, DivergedError, FiniteLoss, LastCheckpoint
from facelm.training.lit import LitLandmarks
from tiny_networks import tiny

CODECS = {"mmpose": 1.5, "dark": 2.0, "hrnet": 1.0, "subpixel": 1.5}


@pytest.mark.parametrize("name", CODECS)
class TestDecoding:
    def test_a_map_with_nan_has_no_point_and_the_others_keep_theirs(self, name):
        codec = build_codec({"name": name, "sigma": CODECS[name]}, 64)
        heatmaps, _ = codec.encode(torch.tensor([[[20.0, 30.0], [40.0, 12.0], [33.0, 33.0], [50.0, 50.0]]]))
        clean, _ = codec.decode(heatmaps)
        heatmaps[0, 0] = torch.nan
        heatmaps[0, 1, 15, 0] = torch.nan  # far from the peak
        heatmaps[0, 2, 3, 3] = torch.inf
        points, scores = codec.decode(heatmaps)
        assert torch.isnan(points[0, :3]).all()
        assert not torch.isfinite(scores[0, :3]).any()
        assert torch.equal(points[0, 3], clean[0, 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    net = tiny()
    with torch.no_grad():
        net.head[0].weight[0, 0] = bad
    path = tmp_path / "damaged.safetensors"
    save_weights(net, path)
    untouched = tiny(seed=1)
    before = untouched.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"head\.0\.weight are not finite"):
        load_weights(untouched, path)
    assert torch.equal(untouched.conv1.weight, before)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("conv1.weight", lambda weight: weight.int()),
        ("conv1.weight", lambda weight: weight.to(torch.complex64)),
        ("conv1.weight", lambda weight: weight.to_sparse()),
        ("conv1.weight", lambda weight: weight.to("meta")),
        ("bn1.running_var", lambda variance: variance - 5),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, key, change):
    state = tiny().state_dict()
    torch.save({**state, key: change(state[key])}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=key):
        load_weights(tiny(seed=1), tmp_path / "odd.pth")


def test_a_run_s_checkpoint_too(trained_run, tmp_path):
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["net.conv1.weight"][0] = math.nan
    torch.save(checkpoint, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"conv1\.weight are not finite"):
        Predictor.load(tmp_path / "best.ckpt")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_at_its_step(bad):
    """Not only at the next checkpoint, which looks at the weights."""
    trainer, lit = SimpleNamespace(global_step=3, log_every_n_steps=50), SimpleNamespace(device=torch.device("cpu"))
    FiniteLoss().on_train_batch_end(trainer, lit, {"loss": torch.tensor(1.0)}, None, 2)
    with pytest.raises(DivergedError, match="the loss is not a finite number after step 3"):
        FiniteLoss().on_train_batch_end(trainer, lit, {"loss": torch.tensor(bad)}, None, 2)


def test_weights_that_are_not_finite_do_not_replace_last_ckpt(tmp_path):
    net = tiny()
    with torch.no_grad():
        net.conv1.weight[0] = math.nan
    with pytest.raises(DivergedError, match=r"conv1\.weight"):
        LastCheckpoint(tmp_path / "last.ckpt")._save(SimpleNamespace(global_step=3), net)


def test_a_broken_off_epoch_is_no_best_one_where_there_is_another(tmp_path):
    best = BestCheckpoint(tmp_path)
    broken_off = SimpleNamespace(is_last_batch=False, callback_metrics={"val/nme": torch.tensor(1.0)})
    assert best._counts(broken_off)
    best.best_model_path = "best.ckpt"
    assert not best._counts(broken_off)


def test_a_validation_that_is_not_finite_ends_the_run(drawn_root, trained_run):
    lit = LitLandmarks.from_checkpoint(trained_run / "checkpoints" / "last.ckpt")
    with torch.no_grad():
        lit.net.head[-1].weight.fill_(math.nan)
    data = FaceDataModule(root=str(drawn_root), crop_size=64, num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(ValueError, match="10 of 10 faces have no finite landmarks"):
        trainer.validate(lit, data)


def test_a_training_that_diverges_fails_and_keeps_what_it_had(drawn_root, tmp_path):
    run = tmp_path / "run"
    command = [
        "-m",
        "facelm.train",
        *TINY,
        "data=w300",
        f"data.root={drawn_root}",
        f"hydra.run.dir={run}",
    ]
    command += ["optim.optimizer.lr=1e30", "checkpoint.every_n_steps=1", "trainer.max_epochs=4"]
    done = warm.run(command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    for path in (run / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values()), path


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_at_once(loss):
    trainer = SimpleNamespace(global_step=3, log_every_n_steps=10)
    module = SimpleNamespace(device=torch.device("cpu"))
    FiniteLoss().on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, None, 0)
    with pytest.raises(DivergedError, match="the loss is not a finite number after step 3"):
        FiniteLoss().on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, 0)


def test_weights_that_are_no_numbers_replace_no_checkpoint(tmp_path):
    """The loss of the step before may have been finite."""
    written = []
    trainer = SimpleNamespace(is_last_batch=True, global_step=3, save_checkpoint=lambda path, **_: written.append(path))
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.bias[1] = math.nan
    with pytest.raises(DivergedError, match="the weight bias"):
        LastCheckpoint(tmp_path / "last.ckpt").on_train_epoch_end(trainer, net)
    assert written == []


def test_faces_without_numbers_are_said_and_written_as_nothing(photos, monkeypatch, capsys):
    """JSON has no NaN: a strict reader would refuse the whole file."""
    look = Predictor._look

    def damaged(self, *args, **options):
        faces = look(self, *args, **options)
        for face in faces:
            face.landmarks_image[5] = math.nan
        return faces

    monkeypatch.setattr(Predictor, "_look", damaged)
    assert main(["predict", "photos", "--out", "out"]) == 0
    assert "one.png: 1 of 1 faces have no finite landmarks" in capsys.readouterr().err
    content = (photos.parent / "out" / "one.json").read_text()
    points = json.loads(content, parse_constant=pytest.fail)["faces"][0]["landmarks"]
    assert points[5] == [None, None]
    assert None not in points[4]
    with (photos.parent / "out" / "landmarks.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["5_x"], row["5_y"]) == ("", "")
    assert float(row["4_x"]) == pytest.approx(points[4][0])
