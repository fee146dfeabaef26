"""A run folder is of one process and of one run: two that meet, a used one, and the same command typed again."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import warm
from conftest import TINY, compose
from facelm.launch.build import build_network, model_spec
from facelm.launch.jobs import Job, own_process, read_record, recorded
from facelm.launch.paths import new_folder
from facelm.launch.resume import continued
from facelm.launch.run_folder import (
    LEAVING,
    REQUEUED,
    _patience,
    held,
    require_own,
    require_unused,
    score_of_the_same_job,
    to_go_on_with,
)
from facelm.models.loading import load_model

HOLDER = """
import sys
from pathlib import Path
from facelm.launch.jobs import Job, recorded
from facelm.launch.run_folder import held
with held(Path(sys.argv[1])), recorded(Job((), Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""
COMMAND = ("experiment=x", "seed=3")


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def a_run(folder, status, *, overrides=COMMAND, state=True, **record):
    """A folder in which a run with `overrides` came to `status`."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": status, "overrides": list(overrides), **record}))
    if state:
        (folder / "checkpoints" / "last.ckpt").touch()
    return folder


class TestHeld:
    def test_by_one_process_at_a_time(self, tmp_path, other):
        with pytest.raises(ValueError, match=f"process {other.pid} on"), held(tmp_path / "run"):
            pass
        other.kill()
        other.wait()
        with held(tmp_path / "run"):
            pass

    @pytest.mark.parametrize(
        ("record", "job", "seconds"),
        [
            ({"slurm_job": "7", "host": "lost"}, "7", REQUEUED),
            ({"slurm_job": "7", "host": "lost"}, "8", 0),
            ({"host": "other"}, None, 0),
            ({"process": 10**9, "host": socket.gethostname()}, None, LEAVING),
        ],
        ids=["requeued", "another-job", "another-machine", "killed"],
    )
    def test_how_long_a_lock_is_waited_for(self, monkeypatch, record, job, seconds):
        """The disk may hold the lock of a node that was lost; a job that runs again knows that its own is gone."""
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
            assert own_process()["slurm_job"] == job
        assert _patience({"status": "running", **record}) == seconds

    def test_a_rank_that_was_started_here_does_not_wait_for_whoever_started_it(self, tmp_path, other, monkeypatch):
        monkeypatch.setenv("FACELM_STARTED_BY", str(other.pid))
        with held(tmp_path / "run"):
            pass

    def test_without_locks_a_run_starts_and_says_so(self, tmp_path, monkeypatch, caplog):
        def no_locks(*_, **__):
            raise OSError(37, "No locks available")

        monkeypatch.setattr("facelm.launch.run_folder.take_lock", no_locks)
        with held(tmp_path):
            pass
        assert "No locks available" in caplog.text


class TestAuto:
    def test_begins_in_a_new_folder(self, tmp_path):
        assert to_go_on_with(tmp_path, COMMAND) is None

    @pytest.mark.parametrize("status", ["stopped", "failed", "running"])
    def test_goes_on_with_what_the_same_command_left_unfinished(self, tmp_path, status):
        run = a_run(tmp_path / "run", status, overrides=(*COMMAND, "resume=old"), process=1, host="gone")
        assert to_go_on_with(run, ["seed=3", "experiment=x"]) == run

    def test_begins_again_where_nothing_was_saved_yet(self, tmp_path):
        assert to_go_on_with(a_run(tmp_path / "run", "failed", state=False), COMMAND) is None

    @pytest.mark.parametrize(
        ("status", "overrides", "said"),
        [
            ("finished", COMMAND, "finished"),
            ("stopped", ("experiment=x", "seed=4"), r"seed=4 \(now seed=3\)"),
            ("failed", ("experiment=x",), r"no seed \(now seed=3\)"),
        ],
    )
    def test_refuses_every_other_state(self, tmp_path, status, overrides, said):
        with pytest.raises(ValueError, match=said):
            to_go_on_with(a_run(tmp_path / "run", status, overrides=overrides), COMMAND)

    @pytest.mark.parametrize("trace", ["checkpoints/best.ckpt", "report/summary.json", "metrics.csv"])
    def test_refuses_what_nobody_has_recorded(self, tmp_path, trace):
        (tmp_path / trace).parent.mkdir(exist_ok=True)
        (tmp_path / trace).touch()
        with pytest.raises(ValueError, match=r"no result\.json"):
            to_go_on_with(tmp_path, COMMAND)
        with pytest.raises(ValueError, match="holds a run already"):
            require_unused(tmp_path)

    @pytest.mark.parametrize("resume", [None, "other"])
    def test_a_run_of_its_own_and_one_of_another_folder_are_refused_in_it(self, tmp_path, monkeypatch, resume):
        run, other = a_run(tmp_path / "run", "stopped"), a_run(tmp_path / "other", "stopped")
        monkeypatch.setattr(Job, "current", classmethod(lambda _: Job(COMMAND, run)))
        with pytest.raises(ValueError, match="holds a run already"):
            continued(OmegaConf.create({"resume": resume and str(other)}))

    def test_keys_in_an_address_are_not_compared(self, tmp_path):
        typed = ["model.weights=https://host/x.ckpt?key=2"]
        run = a_run(tmp_path / "run", "stopped", overrides=["model.weights=https://host/x.ckpt"])
        assert to_go_on_with(run, typed) == run


class TestSweeps:
    def test_a_job_that_is_finished_is_not_trained_again(self, tmp_path):
        run = a_run(tmp_path / "0", "finished", val_nme=4.5)
        assert score_of_the_same_job(Job(COMMAND, run, tmp_path), "auto") == 4.5

    @pytest.mark.parametrize(
        ("status", "overrides", "sweep", "resume"),
        [
            ("failed", COMMAND, True, "auto"),
            ("finished", ("seed=4",), True, "auto"),
            ("finished", COMMAND, False, "auto"),
            ("finished", COMMAND, True, None),
        ],
    )
    def test_any_other_is(self, tmp_path, status, overrides, sweep, resume):
        run = a_run(tmp_path / "0", status, overrides=overrides, val_nme=4.5)
        assert score_of_the_same_job(Job(COMMAND, run, tmp_path if sweep else None), resume) is None


class TestNewFolders:
    def test_two_runs_of_one_second_have_one_each(self, tmp_path):
        path = str(tmp_path / "a" / "12-00-00")
        assert [Path(new_folder(path)).name for _ in range(3)] == ["12-00-00", "12-00-00-2", "12-00-00-3"]

    def test_a_job_that_asks_twice_has_one(self, tmp_path):
        cfg = OmegaConf.create({"dir": f"${{facelm.new_folder:{tmp_path}/x}}", "again": "${dir}/${dir}"})
        assert cfg.dir == cfg.dir == f"{tmp_path}/x"
        assert cfg.again == f"{tmp_path}/x/{tmp_path}/x"

    def test_other_ranks_make_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FACELM_STARTED_BY", "1")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert new_folder(str(tmp_path / "x")) == str(tmp_path / "x")
        assert not (tmp_path / "x").exists()


def test_the_command_line_from_a_used_folder_to_its_end(drawn_root, tmp_path):
    """Another run is refused before it changes anything; the same command goes on, and when finished is refused too."""
    tests = Path(__file__).parent
    run = tmp_path / "run"
    how = [*TINY, "data=w300", f"data.root={drawn_root}", "trainer.max_epochs=2", f"hydra.run.dir={run}"]

    def train(*more, hit=""):
        return warm.run([tests / "killed_run.py", *how, *more], cwd=tests, env={"HIT": hit, "PATH": "/usr/bin:/bin"})

    first = train(hit="SIGKILL 4")
    assert first.returncode == -9, first.stderr[-2000:]
    assert read_record(run)["status"] == "running"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "train.log"}
    other = train("seed=7")
    assert other.returncode == 1
    assert "seed=7" in other.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    (run / "report").mkdir()
    (run / "report" / "summary.json").write_text("{}")
    again = train()
    assert again.returncode == 0, again.stderr[-2000:]
    assert not (run / "report" / "summary.json").exists(), "numbers of the weights before; this job makes no report"
    assert read_record(run)["status"] == "finished"
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps == 6, "24 faces in batches of 8, twice"
    assert OverridesParser.create().parse_overrides(read_record(run)["overrides"])
    assert "finished" in train().stderr


def test_a_new_run_starts_from_the_weights_that_it_names(trained_run):
    """`resume=auto`, the default, is no run to go on with."""
    cfg = compose("train", *TINY, "codec=subpixel", f"model.weights={trained_run}")
    built = build_network(cfg, model_spec(cfg)).state_dict()
    expected = load_model(trained_run).net.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.items())


def test_a_run_that_fails_shows_no_earlier_number(tmp_path):
    run = a_run(tmp_path / "run", "finished", val_nme=4.5)
    with pytest.raises(RuntimeError), recorded(Job(COMMAND, run)):
        raise RuntimeError("out of memory")
    assert read_record(run)["val_nme"] is None


def test_a_run_writes_into_no_folder_but_the_one_it_took(tmp_path):
    command = [*TINY, f"hydra.run.dir={tmp_path / 'taken'}", f"run_dir={tmp_path / 'other'}"]
    done = warm.run(["-m", "facelm.train", *command])
    assert done.returncode == 1
    assert f"hydra.run.dir={tmp_path / 'other'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "other").exists()
    require_own(f"{tmp_path}/taken", tmp_path / "taken")
