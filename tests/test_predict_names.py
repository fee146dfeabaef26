"""Names of any bytes go through `facelm predict` and come back from its table; `~` is a home in what was typed only."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from facelm.files import cell
from facelm.predict.box_table import boxes_of, read_box_table
from predict_folder import write, written
from test_predict_results import predict, table


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["~.png", "~root.png", " lead.png", "u\u2028.png", "bell\x07\x1c\x85.png", "line\r.png", '"q".png', "-x.png",
         "=1+1.png", "@x.png", "+x.png", os.fsdecode(b"\xff\xfe.png")],
    )  # fmt: skip
    def test_are_read_and_written_as_they_are(self, photos, monkeypatch, name):
        monkeypatch.chdir(photos)
        for old in photos.iterdir():
            old.unlink()
        write(photos / name)
        assert predict(".", "--out", "../out") == 0
        (row,) = table("../out")
        assert Path(row) == Path(cell(name))
        assert row[0] not in "=+-@"
        assert not any(unicodedata.category(sign) == "Cc" for sign in row)
        assert boxes_of(read_box_table(Path("../out/landmarks.csv")), Path(name)).shape == (1, 4)
        assert json.loads(Path("../out", name).with_suffix(".json").read_text())["image"] == name

    def test_a_home_is_for_what_was_typed(self, photos, monkeypatch):
        monkeypatch.setenv("HOME", str(photos))
        assert predict("~/one.png", "--out", "~/new") == 0
        assert "one.json" in written(photos / "new")
        Path("~").mkdir()
        write(Path("~") / "own.png")
        assert predict("~/own.png", "--out", "out") == 0
        assert table() == ["~/own.png"]
