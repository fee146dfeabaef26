import re
import shlex
import zipfile

import pytest

from conftest import TINY, compose
from facelm.cli import main
from facelm.data.w300.index import index_faces
from facelm.launch.build import build_data
from w300_tree import pts_text, some_landmarks, write_image


def files_in(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class TestArchives:
    def test_unpacked_and_counted(self, tmp_path, capsys):
        picture = write_image(tmp_path / "a.jpg").read_bytes()
        with zipfile.ZipFile(tmp_path / "ibug.zip", "w") as archive:
            archive.writestr("ibug/image_003_1.jpg", picture)
            archive.writestr("ibug/image_003_1.pts", pts_text(some_landmarks()))
        assert main(["prepare", str(tmp_path / "ibug.zip"), "--out", str(tmp_path / "a folder")]) == 0
        said = capsys.readouterr().out
        assert "ibug.zip: 2 files unpacked" in said
        assert re.search(r"challenge +1 +135", said)
        folder = tmp_path / "a folder"
        assert shlex.join(["python", "-m", "facelm.train", "experiment=hrnetv2_w18", f'data.root="{folder}"']) in said
        assert (tmp_path / "a folder" / "ibug" / "image_003_1.jpg").read_bytes() == picture

    def test_mistakes(self, tmp_path, capsys):
        (tmp_path / "broken.zip").write_bytes(b"PK and then nothing")
        (tmp_path / "file").write_text("")
        with zipfile.ZipFile(tmp_path / "afw.zip", "w") as archive:
            archive.writestr("afw/1_1.pts", pts_text(some_landmarks()))
        for arguments, message in [
            ([], "nothing to prepare: name iBUG's archives"),
            ([tmp_path / "absent.zip"], "no archive"),
            ([tmp_path / "broken.zip"], "damaged or cut short"),
            ([tmp_path / "afw.zip", "--drawn"], "--drawn draws faces and needs no archive"),
            ([tmp_path / "afw.zip", "--seed", "1"], "--seed: that is for drawn faces; add --drawn"),
            ([tmp_path / "afw.zip", "--out", tmp_path / "file" / "x"], "Not a directory"),
        ]:
            assert main(["prepare", "--out", str(tmp_path / "out"), *map(str, arguments)]) == 1
            assert message in capsys.readouterr().err


class TestDrawn:
    def test_drawn_once_and_found_by_the_command_that_is_printed(self, tmp_path, capsys):
        root = tmp_path / "my faces"
        arguments = ["prepare", "--drawn", "--out", str(root), "--counts", "train=6, challenge=2", "--seed", "3"]
        assert main([*arguments, "--processes", "1"]) == 0
        said = capsys.readouterr().out
        assert "train 6, challenge 2" in said
        assert len(index_faces(root, "challenge")) == 2
        before = files_in(root)
        assert main([*arguments, "--processes", "1"]) == 0
        assert "(there already)" in capsys.readouterr().out

        command = re.search(r"python -m facelm.train (.*)", said)[1]
        cfg = compose("train", *shlex.split(command), *TINY)
        build_data(cfg).prepare_data()
        assert files_in(root) == before, "training drew them anew"

    def test_mistakes(self, tmp_path, capsys):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        for arguments, message in [
            (["--counts", "train=2", "--out", str(tmp_path / "mine")], "holds other files than drawn faces"),
            (["--counts", "full=2"], "counts name 'full'"),
            (["--counts", "train=0"], "ask for no face"),
            (["--counts", "train=2", "--seed", "-1"], "seed=-1 must be a whole number from 0 on"),
            (["--counts", "train=2", "--processes", "0"], "at least one has to draw"),
        ]:
            assert main(["prepare", "--drawn", "--out", str(tmp_path / "out"), *arguments]) == 1
            assert message in capsys.readouterr().err
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"

    def test_counts_that_cannot_be_read(self, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(["prepare", "--drawn", "--counts", "train:5"])
        assert exit_.value.code == 2
        assert "'train:5' is not a list such as train=1200,common=120" in capsys.readouterr().err
