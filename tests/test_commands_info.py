import re
import shutil
from pathlib import Path

import pytest
import torch

from facelm.cli import main
from facelm.models import build_model


def info(*arguments, capsys) -> dict[str, str]:
    assert main(["info", *map(str, arguments)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:14].strip(): line[15:] for line in lines}


class TestNetworks:
    def test_by_name(self, capsys):
        rows = info("hrnetv2_tiny", "--crop-size", 64, capsys=capsys)
        assert rows["network"] == "hrnetv2_tiny"
        assert rows["parameters"] == f"{sum(p.numel() for p in build_model('hrnetv2_tiny').parameters()):,}"
        assert rows["GMACs"].endswith("for a crop of 64 px")
        assert re.match(
            r"[\d.]+ ms for one crop \(median of \d+; CPU, \d+ threads; float32, no flip test\)", rows["forward"]
        )

    def test_the_published_sizes(self, capsys, monkeypatch):
        monkeypatch.setattr("facelm.models.download.SHIPPED", Path("nothing is shipped"))
        monkeypatch.setattr("facelm.commands.info.forward_time", lambda *args: "")
        rows = info("hrnetv2_w18", capsys=capsys)
        assert (rows["parameters"], rows["GMACs"]) == ("9,654,398", "4.66 for a crop of 256 px")


class TestCheckpoints:
    def test_a_run(self, trained_run, capsys):
        rows = info(trained_run, capsys=capsys)
        assert rows["network"] == "hrnetv2_tiny"
        assert rows["trained for"].startswith("codec subpixel (sigma 1.5")
        assert "pixel origin 1 (0-based coordinates)" in rows["trained for"]
        assert rows["NME, %"].startswith("common ")
        assert len(rows["sha256"]) == 64
        assert "trainer.max_epochs=2" in rows["trained with"]
        assert rows["GMACs"].endswith("for a crop of 64 px")

    def test_the_config_of_a_run(self, trained_run, capsys):
        assert main(["info", str(trained_run / "checkpoints" / "last.ckpt"), "--config"]) == 0
        assert "\ncrop:\n  size: 64\n" in capsys.readouterr().out

    def test_a_report_of_other_weights_says_nothing(self, trained_run, tmp_path, capsys):
        run = shutil.copytree(trained_run, tmp_path / "run")
        assert info(run, capsys=capsys)["NME, %"].startswith("common ")
        best = run / "checkpoints" / "best.ckpt"
        torch.save({**torch.load(best, weights_only=True), "epoch": 99}, best)
        assert info(run, capsys=capsys)["NME, %"] == "not known"

    def test_the_card_of_the_shipped_weights(self, capsys, monkeypatch):
        monkeypatch.setattr("facelm.commands.info.forward_time", lambda *args: "")
        rows = info("hrnetv2_w18", capsys=capsys)
        assert rows["data"].startswith("300W: ")
        assert rows["licence"].startswith("research only")
        assert "experiment=hrnetv2_w18_cpu" in rows["recipe"]

    def test_mistakes(self, tmp_path, capsys):
        (tmp_path / "notes.ckpt").write_text("hello")
        for arguments, message in [
            (["hrnetv2_w19"], "no weights at 'hrnetv2_w19'"),
            ([tmp_path / "absent.ckpt"], "absent.ckpt"),
            ([tmp_path / "notes.ckpt"], "damaged or no weight file"),
            (["hrnetv2_tiny", "--crop-size", "100"], "--crop-size 100: a multiple of 32"),
            (["hrnetv2_tiny", "--crop-size", "32", "--device", "abacus"], "is not to be had here"),
        ]:
            assert main(["info", *map(str, arguments)]) == 1
            assert message in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("facelm.commands.info._SECONDS", 0.05)
