"""What a run came to, the table of many, one GPU a worker, and Optuna's trials."""

import csv
import json
import logging
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from conftest import TINY
from facelm.cli import main as facelm
from facelm.launch import jobs
from facelm.launch.jobs import Job, claim_gpu, read_record, recorded
from facelm.launch.sweeps import Row, in_order, read_run, run_folders, table, write_table


def make_run(folder, overrides=(), status="finished", val=None, nme=None, **more):
    folder.mkdir(parents=True)
    record = {"status": status, "overrides": list(overrides), "val_nme": val, "seconds": 90.0, "error": None, **more}
    (folder / "result.json").write_text(json.dumps(record))
    if nme:
        (folder / "report").mkdir()
        subsets = {name: {"n": 5, "nme": value} for name, value in nme.items()}
        (folder / "report" / "summary.json").write_text(json.dumps({"subsets": subsets}))


@pytest.fixture
def seeds(tmp_path):
    """A sweep over three seeds and a failed fourth."""
    for number, (seed, val) in enumerate([(1, 3.6), (2, 3.4), (3, 3.5)]):
        overrides = ["experiment=demo", "sweep=seeds", "logger=csv", f"seed={seed}"]
        make_run(tmp_path / str(number), overrides, val=val, nme={"common": val - 0.5, "challenge": val + 2})
    overrides = ["experiment=demo", "sweep=seeds", "logger=csv", "seed=4"]
    make_run(tmp_path / "3", overrides, status="failed", error="ValueError: no data\nmore")
    (tmp_path / "not_a_run").mkdir()
    return tmp_path


class TestRecord:
    job = Job(overrides=("seed=1",))

    def test_of_a_run_that_ends_well(self, tmp_path):
        with recorded(Job(("seed=1",), tmp_path)) as record:
            assert read_record(tmp_path)["status"] == "running"
            record["val_nme"] = 3.5
        content = read_record(tmp_path)
        assert (content["status"], content["val_nme"], content["overrides"]) == ("finished", 3.5, ["seed=1"])
        assert content["seconds"] >= 0

    @pytest.mark.parametrize(
        ("error", "status"),
        [(ValueError("no data"), "failed"), (SystemExit(143), "stopped"), (KeyboardInterrupt(), "stopped")],
    )
    def test_of_one_that_does_not(self, tmp_path, error, status):
        with pytest.raises(type(error)), recorded(Job((), tmp_path)):
            raise error
        assert read_record(tmp_path)["status"] == status
        assert type(error).__name__ in read_record(tmp_path)["error"]

    def test_the_rank_that_failed_has_said_why(self, tmp_path):
        with pytest.raises(ChildProcessError), recorded(Job((), tmp_path)):
            (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "error": "ValueError: no data"}))
            raise ChildProcessError("rank 0 of 2 ended with exit code 1")
        assert read_record(tmp_path)["error"] == "ValueError: no data"

    def test_time_adds_up_when_a_run_goes_on(self, tmp_path):
        (tmp_path / "result.json").write_text('{"seconds": 1000.0}')
        with recorded(Job((), tmp_path)):
            pass
        assert read_record(tmp_path)["seconds"] >= 1000


class TestTable:
    def test_sorted_with_mean_and_deviation_over_seeds(self, seeds):
        write_table(seeds, [read_run(run) for run in run_folders(seeds)], "Sweep x")
        rows = list(csv.DictReader((seeds / "sweep.csv").open()))
        assert [row["run"] for row in rows] == ["1", "2", "0", "3"]
        assert rows[0]["common_nme"] == "2.9"
        assert rows[0]["overrides"] == "experiment=demo seed=2"
        assert rows[3]["status"] == "failed"
        text = (seeds / "sweep.md").read_text()
        assert "4 runs: 3 finished, 1 failed" in text
        assert "All with `experiment=demo`" in text
        assert "| 1 | `seed=2` | finished | 3.40 | 2.90 | 5.40 | 1.5 |" in text
        assert "|  | 3 | 3.50 ± 0.10 | 3.00 ± 0.10 | 5.50 ± 0.10 |" in text
        assert "- 3: ValueError: no data\n" in text

    def test_groups_of_seeds(self):
        rows = [
            Row(f"{lr}{seed}", (f"lr={lr}", f"seed={seed}"), "finished", lr + seed)
            for lr in (10, 20)
            for seed in (1, 2)
        ]
        assert "| `lr=10` | 2 | 11.50 ± 0.71 |" in table(rows)
        assert "| `lr=20` | 2 | 21.50 ± 0.71 |" in table(rows)
        assert "±" not in table([Row("a", ("seed=1",), "finished", 1.0), Row("b", ("lr=1", "seed=1"), "finished", 1.0)])

    def test_order(self):
        rows = [Row("failed"), Row("evaluated", nme={"full": 1.0}), Row("worse", val=3.0), Row("better", val=2.0)]
        assert [row.name for row in in_order(rows)] == ["better", "worse", "evaluated", "failed"]

    def test_a_report_that_evaluation_left_is_a_row_and_val_one_of_its_subsets(self, tmp_path):
        """`facelm.evaluate report_dir=FOLDER` puts the report there; of two columns for `val` one would be lost."""
        (tmp_path / "flip_none").mkdir()
        spec = {"codec": {"name": "dark"}, "flip": "none", "annotation_shift": 0.0}
        facts = {"checkpoint": {"path": "a.ckpt", "spec": spec}}
        summary = {"subsets": {"val": {"nme": 3.3}}, "checkpoint": facts}
        (tmp_path / "flip_none" / "summary.json").write_text(json.dumps(summary))
        assert run_folders(tmp_path / "flip_none") == [tmp_path / "flip_none"]
        write_table(tmp_path, [read_run(tmp_path / "flip_none"), Row("b", val=4.4, nme={"val": 4.5})], "Two")
        rows = {row["run"]: row for row in csv.DictReader((tmp_path / "sweep.csv").open())}
        assert rows["flip_none"]["overrides"] == "checkpoint=a.ckpt codec.name=dark flip=none annotation_shift=0.0"
        assert (rows["flip_none"]["best_val"], rows["flip_none"]["val_nme"]) == ("", "3.3")
        assert (rows["b"]["best_val"], rows["b"]["val_nme"]) == ("4.4", "4.5")
        assert "| run | overrides | status | best val | val | minutes |" in (tmp_path / "sweep.md").read_text()

    def test_no_run_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no run folder"):
            read_run(tmp_path)

    def test_compare_command(self, seeds, tmp_path, capsys):
        assert facelm(["compare", str(seeds / "0"), str(seeds), "--out", str(tmp_path / "out")]) == 0
        assert "3.50 ± 0.10" in capsys.readouterr().out
        rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").open()))
        assert len(rows) == 4  # a run that is named twice counts once
        assert facelm(["compare", str(tmp_path / "not_a_run")]) == 1


class TestOneGpuForEachWorker:
    def test_claims(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_held", [])
        assert [claim_gpu(tmp_path, ["0", "3"]) for _ in range(3)] == ["0", "3", None]

    def test_is_freed_when_the_process_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_held", [])
        code = "import sys; from pathlib import Path; from facelm.launch.jobs import claim_gpu; "
        code += "print(claim_gpu(Path(sys.argv[1]), ['0']))"
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == "0"

    def test_the_worker_sees_its_gpu_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_held", [])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        jobs.take_a_gpu(tmp_path)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
        jobs.take_a_gpu(tmp_path)  # the worker's next job
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        jobs.take_a_gpu(tmp_path)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        with pytest.raises(ValueError, match="2 GPUs and more jobs than that.*n_jobs to 2"):
            jobs.take_a_gpu(tmp_path)


def quick(cfg):
    if cfg.kind == "bad":
        raise ValueError("bad luck")
    return (cfg.x - 3.0) ** 2 if "x" in cfg else float(cfg.a)


@pytest.fixture
def search(tmp_path, monkeypatch, capfd):
    """Runs a Hydra sweep of a quick function in this process; a call gives the study's trials and what was printed."""
    optuna = pytest.importorskip("optuna")
    sweep = tmp_path / "sweep"

    def run(*arguments, fails=False):
        command = ["quick.py", "-m", "hydra/sweeper=facelm_optuna", f"hydra.sweep.dir={sweep}", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        GlobalHydra.instance().clear()
        handlers, level = logging.root.handlers[:], logging.root.level
        try:
            with pytest.raises(SystemExit) if fails else nullcontext():
                hydra.main(version_base="1.3", config_path=str(tmp_path))(quick)()
        finally:  # Hydra's handlers write to a standard output that pytest closes
            logging.root.handlers[:], logging.root.level = handlers, level
            GlobalHydra.instance().clear()
        printed = capfd.readouterr()
        if fails:
            return SimpleNamespace(text=printed.err)
        study = optuna.load_study(study_name="facelm", storage=f"sqlite:///{sweep / 'optuna.db'}")
        return SimpleNamespace(trials=study.trials, text=printed.out + printed.err, sweep=sweep)

    return run


class TestOptuna:
    def test_a_second_call_adds_new_points_and_a_failed_trial_ends_nothing(self, search):
        arguments = ["hydra.sweeper.n_trials=4", "hydra.sweeper.seed=1", "+x=interval(0,6)", "+kind=choice(good,bad)"]
        first, second = search(*arguments), search(*arguments)
        points = [tuple(trial.params.values()) for trial in second.trials]
        assert len(first.trials) == 4
        assert len(points) == len(set(points)) == 8
        for trial in second.trials:
            assert trial.state.name == ("FAIL" if trial.params["+kind"] == "bad" else "COMPLETE")
        jobs = sorted(trial.user_attrs["job"] for trial in second.trials)
        assert jobs == list(range(8))
        assert sorted(int(p.name) for p in second.sweep.iterdir() if p.name.isdigit()) == jobs
        assert "best of" in second.text

    def test_few_points_are_tried_once_each(self, search):
        found = search("hydra.sweeper.n_trials=9", "+a=1,2,3,4", "+kind=good")
        tried = [t.params["+a"] for t in found.trials if "repeats" not in t.user_attrs]
        assert sorted(tried) == ["1", "2", "3", "4"]
        assert "every point of the search space was tried: 4 trials instead of 9" in found.text

    def test_integers_batches_and_a_logarithm(self, search):
        arguments = ["hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2", "+kind=good"]
        found = search(*arguments, "+a=tag(int,interval(1,100))", "+lr=tag(log,interval(1e-5,1e-1))")
        assert all(isinstance(t.params["+a"], int) and 1e-5 <= t.params["+lr"] <= 1e-1 for t in found.trials)
        assert len(found.trials) == 5

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["+a=1"], "nothing to search"),
            (["+a=1,2", "hydra.sweeper.n_trials=0"], "n_trials and n_jobs are at least 1"),
            (["+kind=bad", "+a=1,2"], "none of the 2 trials came to a result"),
        ],
    )
    def test_mistakes(self, search, arguments, message):
        said = search(*arguments, fails=True).text
        assert message in said


class TestJoblib:
    def test_two_jobs_side_by_side_then_mean_and_deviation(self, drawn_root, tmp_path):
        pytest.importorskip("joblib")
        sweep = tmp_path / "sweep"
        command = [sys.executable, "-m", "facelm.train", "-m", *TINY, "data=w300", f"data.root={drawn_root}"]
        command += ["codec=subpixel", "trainer.max_epochs=1", "sweep=seeds", "seed=1,2", "launcher=joblib"]
        done = subprocess.run([*command, f"hydra.sweep.dir={sweep}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        text = (sweep / "sweep.md").read_text()
        assert "2 runs: 2 finished" in text
        assert "|  | 2 | " in text
        assert {"common", "challenge", "full", "test"} <= set(text.split())
        assert [read_run(run).nme["full"] for run in run_folders(sweep)][0] > 0
