"""What result.json says of a run whose process is gone."""

import json
import os
import subprocess
import sys

import pytest

from facelm.launch.jobs import Job, RankKilledError, is_killed, own_process, read_record, recorded
from facelm.launch.sweeps import read_run

GONE = """
import os, sys
from facelm.launch.jobs import Job, Path, recorded
running = recorded(Job((), Path(sys.argv[1])))
running.__enter__()
os._exit(9)
"""


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    assert subprocess.run([sys.executable, "-c", GONE, str(tmp_path)], check=False).returncode == 9
    assert read_record(tmp_path)["status"] == "running"
    assert read_run(tmp_path).status == "killed"


def test_a_run_that_lives_runs(tmp_path):
    with recorded(Job((), tmp_path)):
        assert read_run(tmp_path).status == "running"
        assert read_record(tmp_path)["process"] == os.getpid()
    assert read_run(tmp_path).status == "finished"


@pytest.mark.parametrize(
    ("change", "killed"),
    [
        ({"process_start": 1}, True),
        ({"host": "elsewhere", "process_start": 1}, False),
        ({"process": "7"}, False),
        ({"process": 10**30}, False),
    ],
)
def test_a_number_given_again_is_another_process_and_of_other_machines_nothing_is_said(change, killed):
    assert is_killed({"status": "running", **own_process(), **change}) == killed


def test_the_rank_that_a_signal_ended_is_the_cause(tmp_path):
    job = Job((), tmp_path)
    with pytest.raises(RankKilledError), recorded(job):
        record = read_record(tmp_path) | {"error": "rank 0: RuntimeError: Connection closed by peer"}
        (tmp_path / "result.json").write_text(json.dumps(record))
        raise RankKilledError("rank 1 of 2 was killed by SIGKILL")
    assert "SIGKILL" in read_record(tmp_path)["error"]
