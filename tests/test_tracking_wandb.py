"""W&B never gets in the way: names, servers that refuse or go away, keys that are none, loggers that break."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from wandb_offline import offline_runs, read_offline_run
from wandb_plan import plan, tracker
from wandb_server import WandbServer


class TestNames:
    def test_what_the_config_gives_wins(self, no_key, tmp_path):
        given = {"group": "g", "job_type": "j", "name": "n", "notes": "why", "id": "myid", "entity": "team"}
        ours = tracker(**given, tags=["t"])
        ours.start(
            plan(tmp_path, sweep="a sweep", resumed={"id": "old"}, overrides=("x=" + "y" * 100, "x=" + "y" * 99))
        )
        identity = ours.identity()
        ours.log_source({"path": Path("weights/hr18.pth"), "sha256": "0f3a", "run": {}})
        ours.finish(143)
        run = read_offline_run(offline_runs(tmp_path)[0])
        assert (run.group, run.job_type, run.name, run.notes, run.id) == ("g", "j", "n", "why", "myid")
        assert run.tags == ("demo", ("x=" + "y" * 100)[:64], "t")  # two overrides that are one after 64 letters
        assert identity["entity"] == "team"
        assert run.exit_code == 143
        # Offline, an evaluation says which checkpoint it used, in its config.
        assert run.config["source"] == {"name": "hr18.pth", "sha256": "0f3a"}
        assert "WANDB_DATA_DIR" not in os.environ

    def test_short_overrides(self):
        overrides = ("experiment=demo", "optim.optimizer.lr=0.1", "+trainer.profiler=simple", "logger.wandb.project=x",
                     "data.root='/a/b/300w/'", "hydra.sweep.dir=/x", "codec=dark", "~ema", "resume=a.ckpt")  # fmt: skip
        short = plan(Path(), overrides=overrides).short_overrides()
        assert short == ["optimizer.lr=0.1", "trainer.profiler=simple", "data.root=300w", "codec=dark", "~ema"]

    def test_a_name_without_room_loses_its_longest_parts(self, no_key, tmp_path):
        asked = {}
        no_key.setattr(wandb, "init", lambda **options: asked.update(options) or 1 / 0)
        overrides = (f"data.counts={'x' * 70}", "crop.size=64", f"model.name={'y' * 30}", "seed=3")
        ours = tracker(mode="offline")
        ours.start(plan(tmp_path, overrides=overrides))
        ours.finish(0)
        assert asked["name"] == f"demo crop.size=64 model.name={'y' * 30} seed=3"
        long = ("data.counts=" + "x" * 70)[:64], "model.name=" + "y" * 30
        assert asked["tags"] == ["demo", long[0], "crop.size=64", long[1], "seed=3"]

    def test_an_unknown_mode_is_an_error(self):
        with pytest.raises(
            ValueError, match=r"logger\.wandb\.mode is one of online, offline, disabled or null, got 'of'"
        ):
            tracker(mode="of")

    def test_disabled_records_nothing(self, tmp_path):
        ours = tracker(mode="disabled")
        ours.start(plan(tmp_path))
        assert len(ours.loggers()) == 1
        assert ours.identity() == {}
        ours.finish(0)
        assert not (tmp_path / "wandb").exists()


class TestOnline:
    def test_a_server_that_refuses(self, no_key, tmp_path, caplog):
        no_key.setenv("WANDB_API_KEY", "k" * 40)
        no_key.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        caplog.set_level("INFO")
        ours = tracker()
        ours.start(plan(tmp_path))
        ours.finish(0)
        assert caplog.text.count("W&B is offline (http://127.0.0.1:9 does not answer)") == 1
        assert read_offline_run(offline_runs(tmp_path)[0]).exit_code == 0

    def test_a_server_that_does_not_take_the_key(self, no_key, tmp_path, caplog):
        server = WandbServer(status=401)
        no_key.setenv("WANDB_API_KEY", "k" * 40)
        no_key.setenv("WANDB_BASE_URL", server.url)
        caplog.set_level("INFO")
        ours = tracker(init_timeout=20)
        ours.start(plan(tmp_path))
        ours.finish(0)
        server.go_away()
        assert caplog.text.count("W&B is offline (") == 1
        assert len(offline_runs(tmp_path)) == 1

    def test_a_key_that_cannot_be_one(self, no_key, tmp_path, caplog):
        server = WandbServer()
        no_key.setenv("WANDB_API_KEY", "short")
        no_key.setenv("WANDB_BASE_URL", server.url)
        caplog.set_level("INFO")
        ours = tracker()
        ours.start(plan(tmp_path))
        ours.finish(0)
        server.go_away()
        assert "API key must have 40+ characters, has 5" in caplog.text

    def test_a_server_that_goes_away_neither_stops_nor_slows(self, no_key, tmp_path, capsys):
        server = WandbServer()
        no_key.setenv("WANDB_API_KEY", "k" * 40)
        no_key.setenv("WANDB_BASE_URL", server.url)
        ours = tracker(finish_timeout=1)
        ours.start(plan(tmp_path, config={"seed": 7}, sweep="demo lr"))
        assert ours.identity()["entity"] == "team"
        assert ours.identity()["project"] == "facelm"
        sent = next(variables for operation, variables in server.requests if operation == "UpsertBucket")
        assert (sent["displayName"], sent["groupName"], sent["tags"]) == ("demo seed=1", "demo lr", ["demo", "seed=1"])
        server.go_away()
        logger = ours.loggers()[-1]
        begin = os.times().elapsed
        for step in range(100):
            logger.log_metrics({"train/loss": 1.0}, step=step)
        assert os.times().elapsed - begin < 10
        begin = os.times().elapsed
        ours.finish(0)
        assert os.times().elapsed - begin < 30


class TestNothingStopsTraining:
    def test_a_logger_that_breaks_warns_once(self, no_key, tmp_path, caplog):
        ours = tracker()
        ours.folder = tmp_path

        def broken(*args, **kwargs):
            raise ConnectionResetError("Connection lost")

        ours._run = SimpleNamespace(id="x", project="p", entity="", offline=True, dir="d", log=broken, finish=broken)
        logger = ours.loggers()[-1]
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0}, step=step)
        assert caplog.text.count("W&B: nothing more is logged (ConnectionResetError: Connection lost)") == 1
        ours.log_report(tmp_path)
        (tmp_path / "last.ckpt").touch()
        ours.log_checkpoints(tmp_path, {"last": 1.0})
        ours.log_facts({"a": 1})
        ours.finish(0)
        ours.log_faces([], [], 0, drawn=True)
        ours.log_facts({"data": {"train": {"fingerprint": "0f"}}})
        assert caplog.text.count("W&B: ") == 8

    def test_wandb_that_cannot_start(self, no_key, tmp_path, caplog):
        no_key.setattr(wandb, "init", lambda **_: 1 / 0)
        ours = tracker(mode="offline")
        ours.start(plan(tmp_path))
        assert len(ours.loggers()) == 1
        assert "W&B: the run is not recorded (ZeroDivisionError" in caplog.text
        ours.finish(0)
        assert "WANDB_DATA_DIR" not in os.environ


class TestSource:
    """An evaluation that is online links to the artifact of its checkpoint, if that is the very file."""

    ORIGIN = {"tracker": "wandb", "id": "abc", "project": "facelm", "entity": "team", "artifact": "model-abc"}

    def link(self, monkeypatch, sha256):
        asked, used = [], []
        artifact = SimpleNamespace(name="model-abc:v1", metadata={"sha256": "0f3a"})
        monkeypatch.setattr(
            wandb, "Api", lambda **_: SimpleNamespace(artifact=lambda name: asked.append(name) or artifact)
        )
        ours = tracker()
        ours._run = SimpleNamespace(
            offline=False, use_artifact=used.append, config=SimpleNamespace(update=lambda *_, **__: 0)
        )
        ours.log_source({"path": Path("run/checkpoints/best.ckpt"), "sha256": sha256, "run": self.ORIGIN})
        return asked, [one.name for one in used]

    def test_links(self, monkeypatch):
        assert self.link(monkeypatch, "0f3a") == (["team/facelm/model-abc:best"], ["model-abc:v1"])

    def test_another_file_is_not_linked(self, monkeypatch, caplog):
        assert self.link(monkeypatch, "beef") == (["team/facelm/model-abc:best"], [])
        assert "not linked to the artifact model-abc (ValueError: it holds another file" in caplog.text
