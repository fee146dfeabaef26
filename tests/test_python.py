"""The parts without Hydra: docs/python.md's script, a plain DataLoader, and the package's public names."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import facelm
import facelm.predict.predictor as predictor_module
from facelm import FaceDataModule, LitLandmarks, ModelSpec
from facelm.training.schedule import WarmupCosine
from predict_folder import FACE, FixedDetector

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
SPEC = ModelSpec(architecture="hrnetv2_tiny", crop_size=64, codec={"name": "subpixel", "sigma": 1.5})
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def module(**options):
    recipe = {"optimizer": partial(torch.optim.AdamW, lr=1e-3), "schedule": WarmupCosine()} | options
    return LitLandmarks(spec=SPEC, net=SPEC.build_network(), **recipe)


def block(*holding):
    """The code of docs/python.md that holds a text, or of the first blocks that hold each of several."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return "".join(next(code for code in blocks if text in code) for text in holding)


def test_the_prediction_of_the_docs(photos, monkeypatch):
    """Every block on predictions, word for word, in a folder with such a photograph."""
    pytest.importorskip("pandas")
    (photos / "one.png").rename("photo.jpg")
    monkeypatch.setattr(predictor_module, "DlibDetector", FixedDetector)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    exec(block("prediction.save(", "read_image("), names)
    assert names["points"].shape == (1, 68, 2)
    assert np.allclose(names["points"][0], FACE, atol=0.5)
    assert np.array_equal(names["table"][["x", "y"]].to_numpy(), names["points"][0])
    assert list(names["table"].columns) == ["face", "point", "x", "y", "confidence"]
    assert names["image"].shape == (200, 240, 3)
    assert np.allclose(names["again"].landmarks, names["points"], atol=0.5)
    assert len(names["axes"].texts) == 68
    assert json.loads(Path("photo.json").read_text())["faces"][0]["score"] > 0.5


def test_the_script_of_the_docs(drawn_root, tmp_path, monkeypatch):
    code = block("LitLandmarks(")
    small = {"hrnetv2_w18": "hrnetv2_tiny", "crop_size=256": "crop_size=64", "data/300w": str(drawn_root),
             "max_epochs=60": 'max_epochs=1, accelerator="cpu", logger=False'}  # fmt: skip
    for was, now in small.items():
        assert was in code
        code = code.replace(was, now)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("batch_size=16", "batch_size=8, num_workers=0"), names)
    assert names["scores"][0]["test/nme"] > 0
    found = torch.cat([batch["landmarks_image"] for batch in names["predictions"]])
    assert found.shape == (14, 68, 2)  # common, challenge, test
    want, got = names["lit"].net.state_dict(), names["trained"].net.state_dict()
    assert all(torch.equal(want[key], got[key]) for key in want)


def test_a_plain_loader(drawn_root, tmp_path):
    data = FaceDataModule(root=str(drawn_root), crop_size=64, batch_size=8, num_workers=0)
    data.setup()
    dataset = data._dataset(data.train_faces[:8], None)
    loader = DataLoader([dataset[0, index] for index in range(8)], batch_size=4)
    trainer = L.Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    lit = module()
    trainer.fit(lit, loader, loader)
    assert trainer.global_step == 2
    assert trainer.test(lit, loader, verbose=False)[0]["test/nme"] == pytest.approx(
        float(trainer.validate(lit, loader, verbose=False)[0]["val/nme"])
    )
    assert sorted(trainer.predict(lit, loader)[0]) == ["confidence", "index", "landmarks_image"]
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    more = L.Trainer(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    more.fit(module(), loader, loader, ckpt_path=tmp_path / "mine.ckpt")
    assert more.global_step == 4


def test_what_cannot_be_is_said(drawn_root, tmp_path):
    with pytest.raises(ValueError, match="from_checkpoint"):
        LitLandmarks.load_from_checkpoint("x.ckpt")
    data = FaceDataModule(root=str(drawn_root), crop_size=64, num_workers=0)
    with pytest.raises(ValueError, match="optimizer="):
        L.Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(module(optimizer=None), data)
    several = SimpleNamespace(use_distributed_sampler=True)
    data.trainer = SimpleNamespace(world_size=2, global_rank=0, _accelerator_connector=several)
    with pytest.raises(ValueError, match="use_distributed_sampler=False"):
        data.train_dataloader()


def test_public_names():
    assert {"Predictor", "LitLandmarks", "load_model"} <= set(dir(facelm))
    assert all(getattr(facelm, name) is not None for name in dir(facelm))
    with pytest.raises(AttributeError, match="Predictor"):
        _ = facelm.Predicter
    code = "from facelm import Predictor; import sys; print('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
