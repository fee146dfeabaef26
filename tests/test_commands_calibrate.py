"""`facelm calibrate`: what a detector's boxes mean."""

import numpy as np
import pytest

import facelm.predict.detect as detect
from facelm.cli import main
from facelm.geometry.boxes import box_from_landmarks
from w300_tree import NAMES, write_tree


@pytest.mark.filterwarnings("ignore:300W is incomplete")
class TestCalibrate:
    def test_boxes_of_a_file(self, tmp_path, capsys):
        stored = write_tree(tmp_path / "data", NAMES["train"])
        boxes = {name: box_from_landmarks(points - 1).xyxy for name, points in stored.items()}
        rows = [f"{name}.jpg,{','.join(map(str, box))}" for name, box in boxes.items()]
        (tmp_path / "mine.csv").write_text("\n".join(rows))
        assert main(["calibrate", str(tmp_path / "mine.csv"), "--data", str(tmp_path / "data")]) == 0
        output = capsys.readouterr().out
        assert "4 of 4 faces found (100.0%), 0 not" in output
        assert "BoxConvention(\n    'mine',\n    shift=(0, 0),\n    scale=1," in output

    def test_a_detector(self, tmp_path, monkeypatch, capsys):
        stored = write_tree(tmp_path / "data", NAMES["train"])
        truth = np.array([box_from_landmarks(points - 1).xyxy for points in stored.values()])
        monkeypatch.setattr(detect, "DlibDetector", lambda *_: lambda image: truth)
        assert main(["calibrate", "--detector", "dlib", "--data", str(tmp_path / "data")]) == 0
        assert "4 of 4 faces found" in capsys.readouterr().out

    @pytest.mark.parametrize("arguments", [[], ["boxes.csv", "--detector", "dlib"]])
    def test_either_boxes_or_a_detector(self, arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["calibrate", *arguments])
        assert exit_.value.code == 2

    def test_no_data(self, tmp_path, capsys):
        (tmp_path / "boxes.csv").write_text("a.png,1,2,30,40\n")
        assert main(["calibrate", str(tmp_path / "boxes.csv"), "--data", str(tmp_path)]) == 1
        assert "error: no 300W images under" in capsys.readouterr().err
