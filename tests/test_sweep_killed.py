"""A sweep whose own process is killed: its jobs stop, and what they came to is not lost."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from facelm.launch.jobs import own_process

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdout=sys.stdout)
child.wait()
"""
JOB = """
import signal, sys, time
from pathlib import Path
from facelm.launch.ddp import stop_with_parent
def saved(*_):
    Path(sys.argv[1]).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, saved)
stop_with_parent()
print("runs", flush=True)
time.sleep(100)
"""


def test_a_job_stops_as_sigterm_stops_it_when_the_sweep_is_gone(tmp_path):
    state = tmp_path / "state"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, JOB, str(state)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "runs\n"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state.read_text() == "saved"


@pytest.fixture
def sweeper(tmp_path):
    """A search whose database is in `tmp_path`."""
    pytest.importorskip("optuna")
    from hydra_plugins.facelm_optuna import OptunaSweeper

    return OptunaSweeper(n_trials=1)


def test_a_search_that_goes_on_has_the_results_of_the_one_that_was_killed(sweeper, tmp_path):
    import optuna

    study = sweeper._open_study(tmp_path)
    dead, alive = {**own_process(), "process_start": 1}, own_process()
    told = {"finished": (dead, 4.5), "failed": (dead, None), "lives": (alive, 4.0)}
    for name, (process, value) in told.items():
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.set_user_attr("folder", str(tmp_path / name))
        trial.set_user_attr("searched_by", process)
        (tmp_path / name).mkdir()
        record = {"status": "finished" if value else "failed", "val_nme": value}
        (tmp_path / name / "result.json").write_text(json.dumps(record))
    states = [(trial.state.name, trial.value) for trial in sweeper._open_study(tmp_path).trials]
    assert states == [("COMPLETE", 4.5), ("FAIL", None), ("RUNNING", None)]


def test_a_trial_that_was_asked_for_and_never_named_is_ended(sweeper, tmp_path):
    import optuna

    study = sweeper._open_study(tmp_path)
    for minutes in (0, 5):
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        trial.datetime_start -= timedelta(minutes=minutes)
        study.add_trial(trial)
    assert [trial.state.name for trial in sweeper._open_study(tmp_path).trials] == ["RUNNING", "FAIL"]
    (trial,) = sweeper._ask(study, {"x": optuna.distributions.FloatDistribution(0, 1)}, 1)
    assert trial.user_attrs["searched_by"] == own_process()


def test_a_search_that_is_stopped_keeps_what_its_jobs_beside_came_to(sweeper, tmp_path):
    import optuna
    from omegaconf import OmegaConf

    class Stopped:
        def launch(self, jobs, initial_job_idx):
            for number, status in enumerate(("finished", "stopped"), start=initial_job_idx):
                (tmp_path / str(number)).mkdir()
                record = {"status": status, "val_nme": 4.5 if status == "finished" else None}
                (tmp_path / str(number) / "result.json").write_text(json.dumps(record))
            raise KeyboardInterrupt

    sweeper.config, sweeper.launcher = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}), Stopped()
    sweeper.validate_batch_is_legal = lambda jobs: None
    study = sweeper._open_study(tmp_path)
    trials = [study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        sweeper._run(study, trials, [], 0)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [("COMPLETE", 4.5), ("FAIL", None)]


OPEN = """
import sys
from pathlib import Path
from hydra_plugins.facelm_optuna import OptunaSweeper
sweeper = OptunaSweeper(n_trials=1)
sys.stdin.readline()
sweeper._open_study(Path(sys.argv[1]))
"""


def test_two_searches_that_start_on_one_new_database(sweeper, tmp_path):
    command = [sys.executable, "-c", "import optuna\n" + OPEN, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.communicate(timeout=120)[1].count("Traceback") == 0
        assert process.returncode == 0


def test_an_interrupted_sweep_leaves_its_table(tmp_path):
    quick = tmp_path / "quick.py"
    quick.write_text(
        "import os, signal, hydra\n"
        "from facelm.launch.jobs import Job, recorded\n"
        "@hydra.main(version_base='1.3', config_path=None)\n"
        "def main(cfg):\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "    with recorded(Job.current()):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "main()\n"
    )
    command = [sys.executable, str(quick), "-m", "+x=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    command += ["+hydra.callbacks.table._target_=facelm.launch.sweeps.SweepTable"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "| stopped |" in (tmp_path / "sweep" / "sweep.md").read_text()
