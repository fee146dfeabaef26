"""What a run of `facelm predict` does to files that are there: none is lost, mixed up, or left half written."""

import argparse
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

import facelm.predict.photographs as photographs
from facelm.cli import main
from facelm.predict import Predictor
from facelm.predict.inputs import expand_inputs
from facelm.predict.journal import JOURNAL, Journal
from perfect_network import map_image
from predict_folder import write, written


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def table(folder="out"):
    with open(f"{folder}/landmarks.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [row["input"] for row in csv.DictReader(file)]


@pytest.fixture
def no_model(monkeypatch):
    def load(*_, **__):
        raise AssertionError("refused too late: the model is loaded")

    monkeypatch.setattr(Predictor, "load", load)


class TestFilesOfOthers:
    @pytest.mark.parametrize("options", [[], ["--overwrite"], ["--skip-existing"]])
    @pytest.mark.parametrize("name", ["IMG_1.jpg", "img_1.JPG", "IMG_1.json", "landmarks.csv"])
    def test_are_never_replaced(self, photos, no_model, capsys, name, options):
        album = photos.parent / "album"
        (album / "2020").mkdir(parents=True)
        write(album / "2020" / "IMG_1.jpg")
        (album / name).write_bytes(b"mine")
        assert predict("album/2020/IMG_1.jpg", "--out", "album", *options) == 1
        assert "is there and no result of facelm's" in capsys.readouterr().err
        assert (album / name).read_bytes() == b"mine"
        assert written(album) == sorted([name, "2020/IMG_1.jpg"])

    def test_nor_in_the_folder_above(self, photos, no_model):
        mine = write(photos.parent / "one.jpg").read_bytes()
        assert predict("photos", "--out", ".") == 1
        assert Path("one.jpg").read_bytes() == mine

    def test_nor_where_they_came_meanwhile(self, photos, monkeypatch, capsys):
        read = photographs.read_photograph

        def meanwhile(source, **options):
            Path("out/one.json").write_bytes(b"mine")
            return read(source)

        monkeypatch.setattr(photographs, "read_photograph", meanwhile)
        assert predict("photos", "--out", "out") == 1
        assert "photos/one.png: 'out/one.json' is there and no result of facelm's" in capsys.readouterr().err
        assert Path("out/one.json").read_bytes() == b"mine"
        assert table() == ["photos/two.png"]

    def test_nor_inputs_that_were_results_once(self, photos, capsys):
        (photos / "sub").mkdir()
        write(photos / "sub" / "a.png")
        assert predict("photos", "--out", "out") == 0
        before = Path("out/sub/a.jpg").read_bytes()
        assert predict("out/sub", "photos", "--out", "out", "--overwrite") == 1
        assert "its result out/sub/a.jpg is an input" in capsys.readouterr().err
        assert Path("out/sub/a.jpg").read_bytes() == before


class TestApart:
    def stems(self, names, former=None):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"x")
        return [item.stem for item in expand_inputs(names, Path("out"), former)[0]]

    @pytest.mark.parametrize(
        "names",
        [
            ["group.jpg", "group-face2.jpg"],
            ["group-Face2.jpg", "GROUP.png"],
            ["clip.mp4", "clip-000012.jpg"],
            ["clip.mp4", "clip-000012-face2.jpg"],
            ["caf\u00e9.jpg", "cafe\u0301.png"],
            ["group", "group-face2"],
            ["a.jpg", "a.png", "a.png.jpg"],
        ],
    )
    def test_no_two_results_have_one_name(self, tmp_path, monkeypatch, names):
        monkeypatch.chdir(tmp_path)
        results = [
            unicodedata.normalize("NFC", f"{stem}{more}").casefold()
            for stem in self.stems(names)
            for more in ("", "-face2", "-000012", "-000012-face2")
        ]
        assert len(set(results)) == len(results)

    def test_those_of_earlier_runs_included(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        former = {"old/group.png": "group", "b.png": "here"}
        assert self.stems(["group-face2.jpg", "group.jpg", "b.png"], former) == ["group-face2.jpg", "group-2", "here"]

    def test_a_folder_that_is_called_as_a_result(self, photos):
        (photos / "one.jpg").mkdir()
        write(photos / "one.jpg" / "two.png")
        assert predict("photos", "--out", "out", "--format", "json") == 0
        assert "one.jpg" in written()
        assert "one.jpg_/two.json" in written()

    def test_names_of_every_length(self, photos):
        for name in ("x" * 251 + ".png", "x" * 250 + "y.png"):
            write(photos / name)
        assert predict("photos", "--out", "out", "--format", "json,pts") == 0
        assert len(written()) == 4 * 3


class TestAgain:
    def test_results_of_an_earlier_run_are_not_mixed_with_new_ones_unseen(self, photos, capsys, monkeypatch):
        assert predict("photos/one.png", "--out", "out", "--format", "json") == 0
        before = Path("out/one.json").read_bytes()
        for name in ("one", "two"):
            assert predict(f"photos/{name}.png", "--out", "out", "--format", "json") == 1
            assert "--skip-existing" in capsys.readouterr().err
        assert Path("out/one.json").read_bytes() == before
        assert written() == ["one.jpg", "one.json"]

    def test_a_folder_whose_results_were_removed_is_a_new_one(self, photos):
        assert predict("photos/one.png", "--out", "out") == 0
        for name in written():
            Path("out", name).unlink()
        assert predict("photos/two.png", "--out", "out") == 0
        assert table() == ["photos/two.png"]

    def test_skip_existing_does_what_is_not_there_yet(self, photos, capsys, monkeypatch):
        assert predict("photos/one.png", "--out", "out") == 0
        before = os.stat("out/one.json").st_mtime_ns
        assert predict("photos", "--out", "out", "--skip-existing") == 0
        assert "2 of 2 inputs, 1 faces (1 inputs were there)" in capsys.readouterr().out
        assert os.stat("out/one.json").st_mtime_ns == before
        assert table() == ["photos/one.png", "photos/two.png"]
        Path("out/two.json").write_bytes(b"")  # as a power cut leaves it
        assert predict("photos", "--out", "out", "--skip-existing") == 0
        assert json.loads(Path("out/two.json").read_text())["image"] == "photos/two.png"
        assert table() == ["photos/one.png", "photos/two.png"]

    def test_skip_existing_takes_no_other_file_s_results_for_those_of_this_one(self, photos, no_model, capsys):
        self.once(photos)
        write(photos / "one.png", map_image(200, 100))
        assert predict("photos", "--out", "out", "--skip-existing") == 1
        assert "photos/one.png: its results in out are of another file" in capsys.readouterr().err

    def test_skip_existing_takes_no_other_options_results(self, photos, no_model, capsys):
        self.once(photos)
        assert predict("photos", "--out", "out", "--skip-existing", "--flip", "none") == 1
        assert "were made with other options (--flip)" in capsys.readouterr().err

    def once(self, photos):
        """Results of a run, without a model."""
        from facelm.commands.predict import _options, add_arguments
        from facelm.geometry.landmarks import IBUG68
        from facelm.predict.files import ResultFolder
        from facelm.predict.predictor import Prediction

        parser = argparse.ArgumentParser()
        add_arguments(parser)
        made = _options(parser.parse_args(["photos", "--out", "out"]))
        with ResultFolder(Path("out"), IBUG68, made=made) as results:
            results.write_image("photos/one.png", "one", map_image(), Prediction((), (240, 200)))

    def test_overwrite_replaces_the_given_and_keeps_the_others(self, photos):
        options = ["--format", "json,csv,pts", "--boxes", "boxes.csv"]
        Path("boxes.csv").write_text("one.png,80,60,160,140\none.png,82,62,162,142\ntwo.png,80,60,160,140\n")
        assert predict("photos", "--out", "out", *options) == 0
        assert "one-face2.pts" in written()
        assert table() == ["photos/one.png"] * 2 + ["photos/two.png"]
        Path("out/one-face3.pts").write_text("mine")
        Path("boxes.csv").write_text("one.png,80,60,160,140\n")
        assert predict("photos/one.png", "--out", "out", *options, "--overwrite") == 1
        Path("out/one-face3.pts").unlink()
        assert predict("photos/one.png", "--out", "out", *options, "--overwrite") == 0
        assert "one-face2.pts" not in written()
        assert "two.pts" in written()
        assert sorted(table()) == ["photos/one.png", "photos/two.png"]

    def test_a_run_that_was_stopped_goes_on(self, photos, monkeypatch):
        read = photographs.read_photograph

        def stopped(source, **options):
            if source.name == "two.png":
                raise KeyboardInterrupt
            return read(source)

        with monkeypatch.context() as patch:
            patch.setattr(photographs, "read_photograph", stopped)
            assert predict("photos", "--out", "out") == 130
        assert table() == ["photos/one.png"]
        with (Path("out") / JOURNAL).open("ab") as file:
            file.write(b'["row", ["half')
        assert predict("photos", "--out", "out", "--skip-existing") == 0
        assert table() == ["photos/one.png", "photos/two.png"]

    def test_two_at_once(self, photos, capsys):
        Path("out").mkdir()
        first = Journal(Path("out"))
        first.open()
        assert predict("photos", "--out", "out") == 1
        assert "another facelm predict writes to 'out'" in capsys.readouterr().err
        first.close()

    @pytest.mark.parametrize(
        "line",
        ['["begin", "a", "../a", {}, []]', '["begin", "a", "/a", {}, []]', "[]", "{}", "nonsense", '["file", "x"]',
         '["begin", 1, "a", {}, []]', '["begin", "a", "a", [], []]', "[" * 10_000],
    )  # fmt: skip
    def test_a_damaged_journal_is_a_sentence(self, photos, no_model, capsys, line):
        Path("out").mkdir()
        (Path("out") / JOURNAL).write_text(f'["facelm results", 1]\n{line}\n')
        assert predict("photos", "--out", "out") == 1
        assert "line 2 of 'out/.facelm-results.jsonl'" in capsys.readouterr().err


KILLED_OR_FULL = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from facelm.cli import main
from facelm.geometry.landmarks import IBUG68
from facelm.predict.files import ResultFolder
from facelm.predict.frames import Frame
from facelm.predict.predictor import FaceLandmarks, Prediction
from facelm.predict.video import TrackedFace

way = sys.argv[1]
if way == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
face = FaceLandmarks(np.arange(4.0), np.random.rand(68, 2) * 100, np.ones(68))
noise = np.random.randint(0, 255, (120, 120, 3), np.uint8)
with ResultFolder(Path("out"), IBUG68) as results:
    results.write_image("a.png", "a", noise[:20, :20], Prediction((face,), (20, 20)))
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    with results.open_video("v.mov", "v", 10.0) as video:
        for number in range(30):
            video.add(Frame(number, number / 10, np.roll(noise, 7 * number, 1)), [])
"""


class TestWhole:
    def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(self, photos, monkeypatch, capsys):
        def full(path, content, **_):
            with path.open("wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_text", full)
        assert predict("photos", "--out", "out") == 1
        assert "out/one.json: No space left on device. Make room" in capsys.readouterr().err
        assert written() == ["landmarks.csv", "one.jpg"]
        assert table() == []

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
    def test_a_video_that_the_disk_cannot_hold_is_an_error(self, tmp_path):
        done = self.subprocess(tmp_path, "full")
        assert done.returncode == 1
        assert "File too large: 'out/v.mp4'" in done.stderr
        assert written(tmp_path / "out") == ["a.jpg", "a.json", "landmarks.csv"]

    def test_a_kill_leaves_the_earlier_table_whole(self, tmp_path):
        assert self.subprocess(tmp_path, "whole").returncode == 0
        before = (tmp_path / "out" / "landmarks.csv").read_bytes()
        assert before.count(b"a.png") == 1
        assert self.subprocess(tmp_path, "kill").returncode == -signal.SIGKILL
        assert (tmp_path / "out" / "landmarks.csv").read_bytes() == before

    def subprocess(self, folder, way):
        command = [sys.executable, "-c", KILLED_OR_FULL, way]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
