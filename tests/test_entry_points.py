"""`facelm train`, `evaluate` and `resume` beside `python -m facelm.train`, and TAB after them."""

import json
import os
import subprocess
import sys

import pytest

from conftest import TINY
from facelm.cli import main
from facelm.commands.resume import newest_unfinished
from facelm.launch.jobs import own_process, read_record


@pytest.fixture(autouse=True)
def command_line(monkeypatch, tmp_path):
    """A folder to start in, and a `sys.argv` that the command may change."""
    monkeypatch.setattr(sys, "argv", ["facelm"])
    monkeypatch.chdir(tmp_path)


def a_run(folder, age, **record):
    """A run folder whose state was saved `age` seconds ago."""
    state = folder / "checkpoints" / "last.ckpt"
    state.parent.mkdir(parents=True)
    state.touch()
    os.utime(state, (1e9 - age, 1e9 - age))
    (folder / "result.json").write_text(json.dumps(record))
    return folder


class TestHydraJobs:
    def test_overrides_and_flags_go_to_hydra(self, capsys):
        assert main(["train", "--cfg", "job", "experiment=demo", "seed=41"]) == 0
        shown = capsys.readouterr().out
        assert "seed: 41" in shown
        assert "name: demo" in shown
        assert main(["evaluate", "checkpoint=x", "-c", "job"]) == 0
        assert "checkpoint: x" in capsys.readouterr().out

    def test_help_is_hydra_s(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["train", "--help"])
        assert ended.value.code == 0
        assert "experiment: " in (said := capsys.readouterr().out)
        assert " demo," in said

    @pytest.mark.parametrize("arguments", [["train", "sead=1"], ["evaluate", "checkpoint=nowhere/x.ckpt"]])
    def test_a_mistake_ends_as_with_python_m(self, arguments, capsys):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith("error: ")


class TestResume:
    def test_the_newest_of_those_that_are_not_finished(self, tmp_path):
        a_run(tmp_path / "a" / "old", 9, status="failed")
        killed = a_run(tmp_path / "a" / "sweep" / "0", 5, status="running", **own_process() | {"process_start": -1})
        a_run(tmp_path / "b" / "runs", 4, status="running", **own_process())
        a_run(tmp_path / "b" / "elsewhere", 3, status="running", host="another", process=1)
        a_run(tmp_path / "b" / "done", 2, status="finished")
        assert newest_unfinished(tmp_path) == killed

    def test_none(self, tmp_path):
        a_run(tmp_path / "done", 2, status="finished")
        with pytest.raises(FileNotFoundError, match="1 finished"):
            newest_unfinished(tmp_path)
        assert main(["resume"]) == 1

    @pytest.mark.parametrize(
        ("typed", "passed"),
        [
            ([], ['resume="outputs/a/x=1"']),
            (["seed=2", "~ema"], ['resume="outputs/a/x=1"', "seed=2", "~ema"]),
            (["RUN", "seed=2"], ['resume="RUN"', "seed=2"]),
            (["outputs/a/x=1"], ['resume="outputs/a/x=1"']),
        ],
    )
    def test_what_is_typed_goes_on_to_the_training(self, typed, passed, tmp_path, monkeypatch, capsys):
        a_run(tmp_path / "outputs" / "a" / "x=1", 1, status="stopped")
        said = []
        monkeypatch.setattr("facelm.train.main", lambda: said.append((sys.argv[1:], capsys.readouterr().err)))
        assert main(["resume", *typed]) == 0
        assert said[0][0] == passed
        assert passed[0][8:-1] in said[0][1], "its name is said first"

    def test_resume_is_not_typed_twice(self):
        assert main(["resume", "resume=x"]) == 1

    def test_a_training_that_goes_on(self, drawn_root, tmp_path):
        how = ["data=w300", f"data.root={drawn_root}", *TINY]
        assert main(["train", *how, "trainer.max_epochs=1"]) == 0
        run = next(tmp_path.glob("outputs/train/*/result.json")).parent
        record = read_record(run)
        assert record["status"] == "finished"
        (run / "result.json").write_text(json.dumps(record | {"status": "stopped"}))
        assert main(["resume", "trainer.max_epochs=2"]) == 0
        again = read_record(run)
        assert again["status"] == "finished"
        assert "trainer.max_epochs=2" in again["overrides"]
        assert "crop.size=64" in again["overrides"]


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("facelm tr", {"train"}),
            ("facelm re", {"report", "resume"}),
            ("facelm train experiment=dem", {"experiment=demo"}),
            ("facelm train -m experiment=demo crop.si", {"crop.size="}),
            ("facelm evaluate checkp", {"checkpoint="}),
            ("facelm resume outputs/run crop.si", {"crop.size="}),
            ("facelm predict --ou", set()),
            ("facelm train crop.size=[ crop.si", set()),
        ],
    )
    def test_bash(self, line, offered, tmp_path):
        """As bash does it: the installed function is called with the words of the line."""
        program = tmp_path / "bin" / "facelm"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m facelm.cli "$@"\n')
        program.chmod(0o755)
        script = f"""eval "$(facelm -sc install=bash)"
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD={line.count(" ")}
hydra_bash_completion && complete -p facelm >/dev/null && printf '%s\\n' "${{COMPREPLY[@]}}" """
        path = f"{program.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
        )
        assert (set(done.stdout.split()), done.stderr) == (offered, "")

    def test_looking_for_a_folder_makes_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COMP_LINE", "facelm train hydra.sweep.dir=")
        subprocess.run([sys.executable, "-m", "facelm.cli", "-sc", "query=bash"], check=True, stdout=subprocess.DEVNULL)
        assert not list(tmp_path.iterdir())

    def test_tab_does_not_wait_for_torch(self, monkeypatch):
        code = (
            "import sys; from facelm.cli import main\n"
            "main(['-sc', 'query=bash'])\n"
            "print({'torch', 'lightning', 'cv2'} & set(sys.modules))"
        )
        monkeypatch.setenv("COMP_LINE", "facelm train experiment=dem")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["experiment=demo", "set()"]


def test_a_program_that_ends_does_not_search_all_objects_once_more():
    program = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()))\n"
        "from facelm.cli import main; main(['landmarks'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) > 1000
