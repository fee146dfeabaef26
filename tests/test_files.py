"""Whole or not at all: what is left when a writer fails, is killed, or meets another."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from facelm import files
from facelm.files import replacing, typed, unfinished_folder, write_whole, writing


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    write_whole(tmp_path / "a" / "x.txt", "ä\r\n\n")
    assert (tmp_path / "a" / "x.txt").read_bytes() == "ä\r\n\n".encode()
    write_whole(tmp_path / "x.bin", b"\0\n")
    assert (tmp_path / "x.bin").read_bytes() == b"\0\n"


def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), writing(path, "w") as file:
        file.write("half")
        file.flush()
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_the_former_file_goes_on_reading_it(tmp_path):
    """The new one takes its name, and is not written over it: at no time is there half a file."""
    path = tmp_path / "x.txt"
    path.write_text("before")
    with path.open() as reading:
        write_whole(path, "after")
        assert reading.read() == "before"
    assert path.read_text() == "after"


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(OSError, match=r"x\.bin") as caught, writing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_the_disk_has_it_before_it_has_its_name_and_the_folder_afterwards(tmp_path, monkeypatch):
    seen = []

    def sync(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "x").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(tmp_path / "x", "1")
    assert seen == [(False, False), (True, True)]
    write_whole(tmp_path / "x", "2", sync=False)
    assert len(seen) == 2


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, writing(tmp_path / "x"):
        (tmp_path / "other").open("rb")
    assert caught.value.filename.endswith("other")


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "x[1].txt"
    code = (
        "import os, signal, sys; from facelm.files import writing\n"
        "with writing(sys.argv[1], 'w') as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert ".tmp." in left
    with writing(path, "w") as outer:
        assert left not in os.listdir(tmp_path)
        outer.write("outer")
        write_whole(path, "inner")
        assert path.read_text() == "inner"
    assert path.read_text() == "outer"
    assert os.listdir(tmp_path) == [path.name]


def test_nor_is_what_another_living_process_writes(tmp_path):
    code = (
        "import sys; from facelm.files import writing\n"
        "with writing(sys.argv[1], 'w') as file:\n"
        "    print('writes', flush=True); file.write(sys.stdin.readline())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "theirs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writes\n"
        write_whole(tmp_path / "ours", "1")
        other.communicate("2", timeout=60)
    assert other.returncode == 0
    assert (tmp_path / "theirs").read_text() == "2"


def test_the_temporary_path_has_the_same_ending(tmp_path):
    with replacing(tmp_path / "x.png") as path:
        assert path.suffix == ".png"
        assert path.parent == tmp_path
        path.write_bytes(b"1")
    assert (tmp_path / "x.png").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "." + "y" * 254, "ü" * 127, "a." + "z" * 253])
def test_a_name_may_be_as_long_as_the_file_system_has_room_for(tmp_path, name):
    write_whole(tmp_path / name, "1")
    write_whole(tmp_path / name, "2")
    assert (tmp_path / name).read_text() == "2"
    assert os.listdir(tmp_path) == [name]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_count", iter([7, 7]))
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("1")
    temporary.symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "x", "2")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "2"


def test_a_tilde_is_the_home_folder_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert str(typed("~/x")) == "/home/me/x"
    assert str(typed("~nobody-is-called-so/x")) == "~nobody-is-called-so/x"
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "x").write_text("")
    assert str(typed("~/x")) == "~/x"


def test_a_folder_is_there_whole_or_not_at_all_and_a_killed_one_is_removed(tmp_path):
    code = (
        "import os, signal, sys; from facelm.files import unfinished_folder\n"
        "with unfinished_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('1'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], check=False).returncode < 0
    (left,) = os.listdir(tmp_path)
    assert ".tmp." in left
    with unfinished_folder(tmp_path / "d") as folder:
        assert left not in os.listdir(tmp_path)
        folder.rename(tmp_path / "d")
    with pytest.raises(OSError, match=r"No space left.*/d'"), unfinished_folder(tmp_path / "d") as folder:
        (folder / "half").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "half"))
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == []
