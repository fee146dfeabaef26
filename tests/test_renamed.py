"""The HRNet authors' recipe was called `release`: old files load, and who types it is told the new name."""

import json
import sys

import pytest
import torch

from facelm.codec import build_codec
from facelm.commands.describe import known_nme
from facelm.launch.recorded import restored
from facelm.models import build_model, save_weights
from facelm.models.cards import write_card
from facelm.models.loading import load_model
from facelm.models.spec import ModelSpec
from perfect_network import save_checkpoint

SPEC = ModelSpec(architecture="hrnetv2_tiny", crop_size=64, codec={"name": "hrnet", "sigma": 1.0})


def older(plain):
    return {**plain, "codec": {**plain["codec"], "name": "release"}}


def test_an_old_checkpoint_and_the_report_of_its_run(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    path = save_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", SPEC)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["facelm"]["spec"] = older(checkpoint["facelm"]["spec"])
    torch.save(checkpoint, path)
    model = load_model(path)
    assert model.spec == SPEC
    report = tmp_path / "run" / "report"
    report.mkdir()
    facts = {"sha256": model.sha256, "spec": older(SPEC.to_dict())}
    summary = {"checkpoint": {"checkpoint": facts}, "subsets": {"full": {"nme": 3.5}}}
    (report / "summary.json").write_text(json.dumps(summary))
    assert known_nme(model) == {"full": 3.5}


def test_an_old_card(tmp_path):
    path = tmp_path / "old.safetensors"
    save_weights(build_model("hrnetv2_tiny"), path)
    write_card(path, SPEC)
    card = path.with_suffix(".json")
    content = json.loads(card.read_text())
    card.write_text(json.dumps({**content, "spec": older(content["spec"])}))
    assert load_model(path).spec == SPEC


def test_an_old_run_goes_on():
    recorded = ["experiment=hrnetv2_w18_release", "codec=release", "+ablation=init_release", "name=release"]
    assert restored(recorded, []) == [
        "experiment=hrnetv2_w18_hrnet",
        "codec=hrnet",
        "+ablation=init_hrnet",
        "name=release",
    ]


def test_who_types_it_is_told(monkeypatch, capsys):
    with pytest.raises(ValueError, match="'release' is called 'hrnet' now"):
        build_codec({"name": "release"}, 256)
    with pytest.raises(ValueError, match="'release' is called 'hrnet' now"):
        build_model("hrnetv2_tiny", init="release")
    from facelm import train

    monkeypatch.setattr(sys, "argv", ["train", "experiment=hrnetv2_w18_release"])
    with pytest.raises(SystemExit):
        train.main()
    assert "'hrnetv2_w18_release' is called 'hrnetv2_w18_hrnet' now" in capsys.readouterr().err
