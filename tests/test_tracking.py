"""What W&B is told about runs, read back from the files that offline runs leave."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
import yaml

from conftest import TINY, compose
from facelm.addresses import shareable
from facelm.data.faces import data_fingerprint
from facelm.data.w300.index import index_faces
from facelm.models import build_model, count_macs
from wandb_offline import OfflineRun, offline_runs, read_offline_run
from wandb_plan import plan, tracker

OWN_SCORES = ["train/loss", "train/lr", "train/images_per_second", "train/data_wait", "train/grad_norm"]
OWN_SCORES += ["val/nme", "val/loss", "val/nme_jaw", "val/nme_mouth"]


def in_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a command that believes a person sits before it."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    output = b""
    while True:
        try:
            output += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    os.close(master)
    return process.wait(), output.decode(errors="replace")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, drawn_root: Path) -> SimpleNamespace:
    """A sweep of two jobs without a key, in a terminal; the first job fails."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("sweep") / "lr"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(home), "COLUMNS": "1000"}
    overrides = [
        "experiment=demo",
        *TINY,
        "data=w300",
        f"data.root={drawn_root}",
        "trainer.max_epochs=2",
        "logger=wandb",
    ]
    overrides += ["logger.wandb.notes=two jobs", "logger.wandb.tags=[drawn]", "optim.optimizer.lr=1e30,0.002"]
    command = [sys.executable, "-m", "facelm.train", "-m", *overrides, f"hydra.sweep.dir={folder}"]
    exit_code, output = in_a_terminal(command, environment)
    runs = {run.path.relative_to(folder).parts[0]: run for run in map(read_offline_run, offline_runs(folder))}
    assert list(runs) == ["0", "1"], output[-3000:]
    return SimpleNamespace(
        exit_code=exit_code, output=output, home=home, folder=folder, failed=runs["0"], good=runs["1"]
    )


@pytest.fixture(scope="module")
def good(sweep: SimpleNamespace) -> OfflineRun:
    return sweep.good


@pytest.fixture(scope="module")
def run_dir(sweep: SimpleNamespace) -> Path:
    """The run folder of the job that did not fail."""
    return sweep.folder / "1"


class TestSweep:
    def test_each_job_is_a_run_of_its_own(self, sweep):
        assert sweep.failed.id != sweep.good.id
        assert sweep.failed.config["optim"]["optimizer"]["lr"] == 1e30
        assert sweep.good.config["optim"]["optimizer"]["lr"] == 0.002

    def test_exit_codes(self, sweep):
        assert (sweep.failed.exit_code, sweep.good.exit_code) == (1, 0)
        assert sweep.exit_code != 0

    def test_names(self, sweep):
        for run, lr in ((sweep.failed, "optimizer.lr=1e+30"), (sweep.good, "optimizer.lr=0.002")):
            assert (run.project, run.job_type, run.notes, run.group) == ("facelm", "train", "two jobs", "demo lr")
            assert run.name.startswith("demo ")
            assert run.name.endswith(f"trainer.max_epochs=2 {lr}")
            assert {"demo", "drawn", "crop.size=64", lr} <= set(run.tags)
            assert not any("logger" in tag or "experiment" in tag for tag in run.tags)

    def test_asks_nothing_and_says_once_a_run_that_it_is_offline(self, sweep):
        assert sweep.output.count("W&B is offline (no key; WANDB_API_KEY or `wandb login` gives one)") == 2
        assert not re.search(
            r"(?<![.\w])wandb:", sweep.output
        )  # its banner and questions; ours is facelm.loggers.wandb
        assert str(sweep.good.path.parent) in sweep.output

    def test_everything_of_wandb_is_inside_the_run_folder(self, sweep):
        assert not [path for path in sweep.home.rglob("*") if "wandb" in str(path)]
        for run, folder in ((sweep.failed, "0"), (sweep.good, "1")):
            assert run.path.is_relative_to(sweep.folder / folder / "wandb")
        local = [file for artifact in sweep.good.artifacts for file in artifact["files"].values()]
        assert all(file.is_file() and file.is_relative_to(sweep.folder / "1") for file in local)


class TestConfig:
    def test_the_resolved_config_as_plain_values(self, good, run_dir):
        for key, value in yaml.safe_load((run_dir / "config.yaml").read_text()).items():
            assert good.config[key] == shareable(value), key

    def test_facts(self, good, run_dir, drawn_root):
        facts = good.config["facts"]
        assert facts == json.loads((run_dir / "facts.json").read_text())
        assert "optim.optimizer.lr=0.002" in facts["overrides"]
        fingerprint = data_fingerprint(index_faces(drawn_root, "train"))
        assert facts["data"]["train"] == {"faces": 24, "fingerprint": fingerprint}
        net = build_model("hrnetv2_tiny")
        assert facts["parameters"] == sum(parameter.numel() for parameter in net.parameters())
        assert facts["gflops"] == 2 * facts["gmacs"] == pytest.approx(2e-9 * count_macs(net, 64))

    def test_the_commit_is_that_of_facelm(self, good):
        root = Path(__file__).resolve().parents[1]
        if not (root / ".git").exists():
            assert good.config["facts"]["commit"] is None
            return
        commit = good.config["facts"]["commit"].rstrip("+")
        ancestor = ["git", "-C", str(root), "merge-base", "--is-ancestor", commit, "HEAD"]
        assert subprocess.run(ancestor, check=False).returncode == 0


class TestCurves:
    def test_all_numbers_are_there_for_a_run_shorter_than_the_logging_interval(self, good, run_dir):
        with (run_dir / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["log_every_n_steps"] > 6
        for name in OWN_SCORES:
            steps, values = good.curve(name)
            assert steps == [3, 6], name  # 24 faces in batches of 8, two epochs
            written = {int(row["step"]) + 1: float(row[name]) for row in rows if row[name]}
            assert written == pytest.approx(dict(zip(steps, values, strict=True)))
        assert all(0 < share < 100 for share in good.curve("train/data_wait")[1])

    def test_val_nme_is_summarised_by_its_minimum(self, good):
        assert good.metrics["val/nme"] == {"step": "trainer/global_step", "summary": ["min"]}
        assert good.summary["val/nme"] == {"min": min(good.curve("val/nme")[1])}
        assert good.metrics["*"]["step"] == "trainer/global_step"


class TestFaces:
    def test_the_same_eight_with_their_predictions(self, good):
        rows = [row for row in good.history if "val/faces" in row]
        assert [row["trainer/global_step"] for row in rows] == [3]  # the first epoch; the next would be the fifth
        shown = rows[0]["val/faces"]
        assert len(shown["captions"]) == 8
        assert all(said.endswith(" %") for said in shown["captions"])
        files = [good.path.parent / "files" / name for name in shown["filenames"]]
        assert {cv2.imread(str(file)).shape for file in files} == {(256, 256, 3)}

    def test_the_data_are_named(self, good):
        (artifact,) = [artifact for artifact in good.artifacts if artifact["type"] == "dataset"]
        assert artifact["name"] == "faces"
        assert artifact["metadata"] == (data := good.config["facts"]["data"])
        assert artifact["references"]["train"] == f"facelm-faces://{data['train']['fingerprint']}"


class TestReport:
    def test_the_table(self, good, run_dir):
        columns, rows = good.table("report/table")
        subsets = json.loads((run_dir / "report" / "summary.json").read_text())["subsets"]
        assert [row[0] for row in rows[: len(subsets)]] == list(subsets)
        assert rows[len(subsets)][0] == "mean shape, common"
        for name, row in zip(subsets, rows, strict=False):
            assert dict(zip(columns, row, strict=True)).items() >= {"subset": name, "n": subsets[name]["n"]}.items()
            assert row[columns.index("fr@8")] == pytest.approx(subsets[name]["fr@8"])
            assert good.summary[f"test/{name}/nme"] == pytest.approx(subsets[name]["nme"])
        assert good.summary["test/full/fr@8"] == pytest.approx(subsets["full"]["fr@8"])

    def test_the_page_is_one_file(self, good):
        html = good.picture("report/page").read_text(encoding="utf-8")
        assert html.count("data:image/jpeg;base64,") == 14  # common, challenge, test
        assert "index_files/" not in html

    @pytest.mark.parametrize("name", ["ced", "regions"])
    def test_pictures_are_those_in_the_run_folder(self, good, run_dir, name):
        assert good.picture(f"report/{name}").read_bytes() == (run_dir / "report" / f"{name}.png").read_bytes()

    def test_worst_faces_with_overlays(self, good, run_dir):
        columns, rows = good.table("report/worst")
        with (run_dir / "report" / "worst.csv").open() as file:
            written = list(csv.DictReader(file))
        assert columns == ["rank", "face", "subset", "nme", "overlay"]
        assert [row[1] for row in rows] == [row["name"] for row in written]
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
        for row, ours in zip(rows, written, strict=True):
            assert row[4].read_bytes() == (run_dir / "report" / ours["file"]).read_bytes()


class TestCheckpoints:
    def test_artifact_with_aliases_and_nme(self, good, run_dir):
        versions = [artifact for artifact in good.artifacts if artifact["type"] == "model"]
        assert {artifact["name"] for artifact in versions} == {f"model-{good.id}"}
        by_alias = {alias: artifact for artifact in versions for alias in artifact["aliases"]}
        _, nme = good.curve("val/nme")
        for alias, expected in (("best", min(nme)), ("last", nme[-1])):
            path = run_dir / "checkpoints" / f"{alias}.ckpt"
            metadata = by_alias[alias]["metadata"]
            assert metadata["val/nme"] == pytest.approx(expected)
            content = torch.load(by_alias[alias]["files"]["model.ckpt"], weights_only=True)
            assert content["global_step"] == metadata["global_step"]
            assert by_alias[alias]["files"]["model.ckpt"].parent == path.parent
        best = by_alias["best"]["metadata"]
        assert best["sha256"] == hashlib.sha256((run_dir / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()
        assert best["test/full/nme"] == pytest.approx(good.summary["test/full/nme"])

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [({"best": 3, "last": 6}, [(["last"], 4.0), (["best"], 3.5)]), ({"last": 6}, [(["last"], 4.0)])],
        ids=["best-and-last-differ", "nothing-validated"],
    )
    def test_a_version_of_each(self, no_key, run_dir, tmp_path, steps, expected):
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        for alias, step in steps.items():
            content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
            torch.save(content | {"global_step": step}, folder / f"{alias}.ckpt")
        logged = []
        ours = tracker()
        ours._run = SimpleNamespace(
            id="abc", project="facelm", entity="", log_artifact=lambda a, aliases: logged.append((a, aliases))
        )
        ours.log_checkpoints(folder, {"best": 3.5, "last": 4.0})
        assert [(aliases, artifact.metadata["val/nme"]) for artifact, aliases in logged] == expected

    def test_the_run_is_named_in_them(self, good, run_dir):
        content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        expected = {"tracker": "wandb", "id": good.id, "project": "facelm", "artifact": f"model-{good.id}"}
        assert content["facelm"]["run"] == expected


class TestResuming:
    def test_goes_on_in_the_same_run(self, good, run_dir, drawn_root, tmp_path):
        from facelm.train import train

        resume = f"resume={run_dir / 'checkpoints' / 'last.ckpt'}"
        overrides = ["experiment=demo", *TINY, "data=w300", f"data.root={drawn_root}", "trainer.max_epochs=3", resume]
        train(compose("train", *overrides, "optim.optimizer.lr=0.002", "logger=wandb", f"run_dir={tmp_path}"))
        (path,) = offline_runs(tmp_path)
        run = read_offline_run(path)
        assert (run.id, run.exit_code) == (good.id, 0)
        assert run.curve("val/nme")[0] == [9]


@pytest.mark.slow
class TestCommandLine:
    def test_two_ranks_of_a_sweeps_job_are_one_run(self, drawn_root, tmp_path):
        overrides = ["experiment=demo", *TINY, "data=w300", f"data.root={drawn_root}", "trainer.max_epochs=1"]
        overrides += ["trainer.devices=2", "trainer.strategy=ddp", "logger=wandb", "seed=1"]
        command = [sys.executable, "-m", "facelm.train", "-m", *overrides, f"hydra.sweep.dir={tmp_path / 'seeds'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = map(read_offline_run, offline_runs(tmp_path))
        assert (run.group, run.exit_code) == ("demo seeds", 0)
        assert "seed=1" in run.tags
        assert run.curve("train/loss")[0] == [2]
        assert run.table("report/table")[1][0][0] == "common"
        assert {"best", "last", "latest"} == {
            a for one in run.artifacts if one["type"] == "model" for a in one["aliases"]
        }

    def test_an_evaluation_says_what_it_evaluated(self, good, run_dir, tmp_path):
        command = [sys.executable, "-m", "facelm.evaluate", f"checkpoint={run_dir}", "logger=wandb"]
        command += [f"hydra.run.dir={tmp_path}", f"report_dir={tmp_path / 'report'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = map(read_offline_run, offline_runs(tmp_path))
        best = run_dir / "checkpoints" / "best.ckpt"
        assert (run.job_type, run.exit_code) == ("evaluate", 0)
        assert run.config["source"] == {
            "name": f"model-{good.id}", "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
        }  # fmt: skip
        assert run.table("report/table") == good.table("report/table")


class TestOfflineFile:
    def test_a_file_cut_short_gives_what_was_written_whole(self, good, tmp_path):
        whole = good.path.read_bytes()
        (tmp_path / "run-x.wandb").write_bytes(whole[: len(whole) // 2])
        run = read_offline_run(tmp_path / "run-x.wandb")
        assert run.id == good.id
        assert run.exit_code is None
        assert len(run.history) < len(good.history)

    def test_another_file_is_an_error(self, tmp_path):
        (tmp_path / "x.wandb").write_text("step,loss\n")
        with pytest.raises(ValueError, match="x.wandb is no file of an offline W&B run"):
            read_offline_run(tmp_path / "x.wandb")

    def test_records_longer_than_a_block(self, no_key, tmp_path):
        ours = tracker(mode="offline")
        ours.start(plan(tmp_path, config={"long": "x" * 100_000}))
        ours.finish(0)
        run = read_offline_run(offline_runs(tmp_path)[0])
        assert run.config["long"] == "x" * 100_000
        assert run.exit_code == 0
