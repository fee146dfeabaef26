import io
from types import SimpleNamespace

import pytest
import rich.console

from facelm.commands.progress import progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 80 columns is shown; set `is_one` to False for a file or a pipe."""
    shown = SimpleNamespace(text=io.StringIO(), is_one=True)
    console = rich.console.Console

    def made(stderr):
        assert stderr, "results go to standard output, progress does not"
        return console(file=shown.text, force_terminal=shown.is_one, width=80)

    monkeypatch.setattr(rich.console, "Console", made)
    return shown


def work():
    with progress_bar(3) as bar:
        bar.start_video("holiday/[red]clip.mp4", 10)
        for _ in range(4):
            bar.finish_frame()
        bar._progress.refresh()  # a tenth of a second early
        bar.say("a.jpg: no face found", "[bold]b.jpg: odd name")
        bar.finish_input()


def test_inputs_and_frames_are_counted(terminal):
    work()
    text = terminal.text.getvalue()
    assert "1/3" in text
    assert "4/10" in text
    assert "[red]clip.mp4" in text, "a name is not read as markup"
    assert "a.jpg: no face found" in text


def test_no_bar_where_there_is_no_terminal(terminal):
    terminal.is_one = False
    work()
    assert terminal.text.getvalue() == "a.jpg: no face found\n[bold]b.jpg: odd name\n"
