"""metrics.csv, throughput, TensorBoard, who tracks, and whether W&B can be reached: all without wandb."""

from __future__ import annotations

import csv
import socket
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from conftest import compose
from facelm.launch.run_log import tracked
from facelm.loggers import MetricsCSV, RunPlan, TensorBoardTracker, Tracker, is_main_process
from facelm.loggers.server import answers, has_key, offline_because
from facelm.training.throughput import Throughput


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestMetricsCSV:
    def test_columns_grow_and_every_line_is_on_disk_at_once(self, tmp_path):
        logger = MetricsCSV(tmp_path)
        logger.log_metrics({"train/lr": 0.1}, step=0)
        assert rows(tmp_path) == [{"step": "0", "epoch": "", "train/lr": "0.1"}]
        logger.log_metrics({"val/nme": 3.5, "epoch": 0}, step=1)
        logger.log_metrics({"train/lr": 0.2}, step=2)
        assert list(rows(tmp_path)[0]) == ["step", "epoch", "train/lr", "val/nme"]
        assert [(row["step"], row["train/lr"], row["val/nme"]) for row in rows(tmp_path)] == [
            ("0", "0.1", ""), ("1", "", "3.5"), ("2", "0.2", ""),
        ]  # fmt: skip

    def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(self, tmp_path):
        def log(logger, steps):
            for step in steps:
                logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": step // 4}, step=step)
                if step % 4 == 3:
                    logger.log_metrics({"val/nme": 9.0 - step}, step=step)

        log(MetricsCSV(tmp_path / "whole"), range(12))
        log(MetricsCSV(tmp_path / "killed"), range(7))
        with (tmp_path / "killed" / "metrics.csv").open("a") as file:
            file.write("7,1")  # killed in the middle of a line
        log(MetricsCSV(tmp_path / "killed"), range(4, 12))  # from a checkpoint after step 3
        whole, resumed = ((tmp_path / name / "metrics.csv").read_text() for name in ("whole", "killed"))
        assert resumed == whole

    def test_a_new_run_in_the_same_folder_starts_a_new_file(self, tmp_path):
        MetricsCSV(tmp_path).log_metrics({"old": 1.0}, step=5)
        MetricsCSV(tmp_path).log_metrics({"new": 1.0}, step=0)
        assert rows(tmp_path) == [{"step": "0", "epoch": "", "new": "1.0"}]


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class SlowFaces(Dataset):
    """12 faces of 0.03 s each."""

    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.clock.now += 0.03
        return {"image": torch.zeros(2, 2, 3, dtype=torch.uint8)}


class SlowNet(L.LightningModule):
    """0.04 s a step, 5 s a validation."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.clock.now += 0.04
        loss = (self.weight - 1).square().sum()
        self.log("train/loss", loss, batch_size=4)
        return loss

    def validation_step(self, batch, batch_idx):
        self.clock.now += 5.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SlowSaves(Callback):
    """A second after each epoch."""

    def __init__(self, clock):
        self.clock = clock

    def on_validation_end(self, trainer, pl_module):
        self.clock.now += 1.0

    def on_train_epoch_end(self, trainer, pl_module):
        self.clock.now += 1.0


class TestThroughput:
    def fit(self, folder, *, saves_first=False, **options):
        clock = Clock()
        callbacks = [Throughput(clock), SlowSaves(clock)]
        trainer = L.Trainer(
            accelerator="cpu", logger=MetricsCSV(folder), enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, callbacks=callbacks[::-1] if saves_first else callbacks, **options,
        )  # fmt: skip
        loader = DataLoader(SlowFaces(clock), batch_size=4)
        trainer.fit(SlowNet(clock), loader, loader)
        return [row for row in rows(folder) if row["train/loss"]]

    @pytest.mark.parametrize("saves_first", [True, False])
    def test_counts_training_and_waiting_and_nothing_else(self, tmp_path, saves_first):
        logged = self.fit(tmp_path, max_epochs=3, log_every_n_steps=2, num_sanity_val_steps=0, saves_first=saves_first)
        assert [row["step"] for row in logged] == ["1", "3", "5", "7"]
        # a batch is 4 faces: 0.12 s of waiting, 0.04 s of work
        assert [float(row["train/images_per_second"]) for row in logged] == pytest.approx([4 / 0.16] * 4)
        assert [float(row["train/data_wait"]) for row in logged] == pytest.approx([75.0] * 4)

    def test_validation_within_an_epoch_is_left_out(self, tmp_path):
        logged = self.fit(tmp_path, max_epochs=2, log_every_n_steps=3, val_check_interval=1)
        assert [float(row["train/images_per_second"]) for row in logged] == pytest.approx([4 / 0.16] * 2)

    def test_an_epoch_shorter_than_the_interval_logs_once(self, tmp_path):
        assert [row["step"] for row in self.fit(tmp_path, max_epochs=2, log_every_n_steps=50)] == ["2", "5"]

    def test_a_run_shorter_than_an_epoch_logs_once(self, tmp_path):
        assert [row["step"] for row in self.fit(tmp_path, max_steps=2, log_every_n_steps=50)] == ["1"]

    def test_accumulated_batches_count_as_images_of_their_step(self, tmp_path):
        logged = self.fit(tmp_path, max_epochs=2, accumulate_grad_batches=3, log_every_n_steps=1)
        assert [float(row["train/images_per_second"]) for row in logged] == pytest.approx([4 / 0.16] * 2)

    def test_the_profiler_that_was_asked_for_still_works(self, tmp_path):
        profiler = L.pytorch.profilers.SimpleProfiler(dirpath=tmp_path, filename="profile")
        self.fit(tmp_path, max_epochs=1, profiler=profiler)
        assert "train_dataloader_next" in (tmp_path / "fit-profile.txt").read_text()


class TestWhoTracks:
    def test_the_only_process(self):
        assert is_main_process()

    def test_not_the_second_machine(self, monkeypatch):
        monkeypatch.setenv("NODE_RANK", "1")
        assert not is_main_process()

    def test_another_rank_opens_no_run(self, monkeypatch, tmp_path):
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with tracked(compose("train", "logger=wandb", f"run_dir={tmp_path}"), tmp_path, job_type="train") as tracker:
            assert type(tracker) is Tracker
            tracker.loggers()[0].log_metrics({"a": 1.0}, step=0)
        assert list(tmp_path.iterdir()) == []

    def test_every_logger_of_conf_is_a_tracker(self):
        from facelm.launch.run_log import build_tracker

        kinds = {name: build_tracker(compose("train", f"logger={name}")) for name in ("csv", "tensorboard", "wandb")}
        assert all(isinstance(tracker, Tracker) for tracker in kinds.values())
        assert compose("train", "experiment=demo").logger == compose("train", "logger=csv").logger
        for experiment in ("hrnetv2_w18", "hrnetv2_w18_hrnet"):
            assert compose("train", f"experiment={experiment}").logger.wandb.project == "facelm"


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (None, 0), (ValueError("x"), 1), (KeyboardInterrupt(), 1), (SystemExit(143), 143), (SystemExit("x"), 1),
            (SystemExit(None), 0), (SystemExit(0), 0),
        ],
    )  # fmt: skip
    def test_whatever_ends_the_run(self, monkeypatch, tmp_path, error, code):
        codes = []
        monkeypatch.setattr(Tracker, "finish", lambda self, exit_code: codes.append(exit_code))

        def run():
            with tracked(compose("train", f"run_dir={tmp_path}"), tmp_path, job_type="train"):
                if error is not None:
                    raise error

        if error is None:
            run()
        else:
            with pytest.raises(type(error)):
                run()
        assert codes == [code]


class TestTensorBoard:
    def test_scalars_texts_and_pictures(self, tmp_path, trained_run):
        event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        tracker = TensorBoardTracker()
        tracker.start(RunPlan(folder=tmp_path, experiment="demo", config={"seed": 7}))
        assert len(tracker.loggers()) == 2
        tracker.loggers()[1].log_metrics({"train/loss": 0.5}, step=3)
        tracker.log_facts({"commit": "abc"})
        tracker.log_report(trained_run / "report")
        for step in (3, 9):
            tracker.log_faces([np.zeros((8, 8, 3), np.uint8)] * 2, ["a", "b"], step, drawn=False)
        tracker.finish(0)
        events = event_files.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5)]
        assert set(events.Tags()["images"]) == {
            "report/ced",
            "report/regions",
            "report/worst",
            "val/face_1",
            "val/face_2",
        }
        assert [event.step for event in events.Images("val/face_2")] == [3, 9]
        texts = {f"{name}/text_summary" for name in ("config", "facts", "report/table")}
        assert texts <= set(events.Tags()["tensors"])

    def test_without_tensorboard_it_says_what_to_install(self, tmp_path, monkeypatch):
        def absent(*args, **kwargs):
            raise ModuleNotFoundError("tensorboard")

        monkeypatch.setattr("facelm.loggers.tensorboard.TensorBoardLogger", absent)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'facelm\[tensorboard\]'"):
            TensorBoardTracker().start(RunPlan(folder=tmp_path, experiment="demo"))


class TestReachingTheServer:
    @pytest.fixture(autouse=True)
    def nobody_logged_in(self, monkeypatch, tmp_path):
        for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def test_no_key(self):
        assert not has_key("https://api.wandb.ai")
        assert offline_because("https://api.wandb.ai").startswith("no key; WANDB_API_KEY or")

    def test_key_in_the_environment(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "k")
        assert has_key("https://api.wandb.ai")

    def test_key_in_netrc_belongs_to_its_host(self, tmp_path):
        (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k\n")
        assert has_key("https://api.wandb.ai")
        assert not has_key("https://wandb.example.org")

    def test_netrc_in_the_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("NETRC")
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "_netrc").write_text("machine api.wandb.ai login user password k\n")
        (tmp_path / "_netrc").chmod(0o600)
        assert has_key("https://api.wandb.ai")

    def test_a_damaged_netrc_holds_no_key(self, tmp_path):
        (tmp_path / "netrc").write_text("machine\n")
        assert not has_key("https://api.wandb.ai")

    def test_refused(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            begin = time.monotonic()
            assert not answers(f"http://127.0.0.1:{unused.getsockname()[1]}", 20)
            assert time.monotonic() - begin < 10

    def test_a_server_that_says_nothing_is_given_up(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "k")
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            begin = time.monotonic()
            assert offline_because(url, seconds=0.3) == f"{url} does not answer"
            assert time.monotonic() - begin < 10

    def test_a_name_whose_lookup_hangs_is_given_up(self, monkeypatch):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
        begin = time.monotonic()
        assert not answers("https://api.wandb.ai", 0.2)
        assert time.monotonic() - begin < 2

    def test_an_address_that_is_none(self):
        assert not answers("wandb.example.org")

    @pytest.mark.parametrize("status", [200, 404, 500])
    def test_any_answer_is_an_answer(self, status):
        from wandb_server import WandbServer

        server = WandbServer(status)
        assert answers(server.url)
        server.go_away()
