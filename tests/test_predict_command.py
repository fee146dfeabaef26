"""`facelm predict` on photographs, run as a person runs it; videos: test_predict_command_video.py."""

import csv
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import facelm.predict.photographs as photographs
from facelm.cli import main
from facelm.data.w300.annotations import read_pts
from facelm.geometry.boxes import CONVENTIONS
from facelm.predict import Predictor
from perfect_network import map_image, save_checkpoint
from predict_folder import FACE, write, written


class TestImages:
    def test_overlays_json_and_csv(self, photos, capsys):
        assert main(["predict", "photos", "--out", "out"]) == 0
        assert written() == ["landmarks.csv", "one.jpg", "one.json", "two.jpg", "two.json"]
        assert capsys.readouterr().out.startswith("2 of 2 inputs, 2 faces -> out\n")
        face = json.loads((photos.parent / "out/one.json").read_text())["faces"][0]
        assert np.abs(np.array(face["landmarks"]) - FACE).max() < 0.3
        with (photos.parent / "out/landmarks.csv").open(newline="") as file:
            assert [row["input"] for row in csv.DictReader(file)] == ["photos/one.png", "photos/two.png"]

    @pytest.mark.parametrize("listed", ["names.txt", "-"])
    def test_a_list_of_inputs(self, photos, monkeypatch, capsys, listed):
        write(photos / "caf\udce9.png")
        (photos.parent / "names.txt").write_bytes(b"photos/caf\xe9.png\r\n\nphotos/two.png")
        monkeypatch.setattr(sys, "stdin", (photos.parent / "names.txt").open())
        assert main(["predict", "photos/one.png", "--list", listed, "--out", "out"]) == 0
        assert capsys.readouterr().out.startswith("3 of 3 inputs, 3 faces -> out\n")
        assert main(["predict", "--out", "out"]) == 1
        assert "--list FILE" in capsys.readouterr().err

    def test_the_shipped_weights_are_the_default(self, photos, monkeypatch):
        load, asked = Predictor.load, []
        monkeypatch.setattr(
            Predictor, "load", lambda source, *rest, **more: asked.append(source) or load(source, *rest, **more)
        )
        assert main(["predict", "photos/one.png", "--out", "out"]) == 0
        assert main(["predict", "photos/one.png", "--out", "mine", "--checkpoint", "my.ckpt"]) == 0
        assert asked == ["hrnetv2_w18", "my.ckpt"]

    def test_the_time_that_reading_took_is_in_the_result(self, photos, monkeypatch):
        read = photographs.read_photograph
        monkeypatch.setattr(photographs, "read_photograph", lambda source, **how: time.sleep(0.02) or read(source))
        assert main(["predict", "photos/one.png", "--out", "out"]) == 0
        seconds = json.loads((photos.parent / "out/one.json").read_text())["seconds"]
        assert set(seconds) == {"read", "detect", "landmarks"}
        assert seconds["read"] >= 0.02

    def test_an_image_that_memory_does_not_hold_is_listed(self, photos, monkeypatch, capsys):
        read = photographs.read_photograph

        def full(source, **how):
            if getattr(source, "name", "") == "one.png":
                raise MemoryError
            return read(source)

        monkeypatch.setattr(photographs, "read_photograph", full)
        assert main(["predict", "photos", "--out", "out"]) == 1
        assert capsys.readouterr().err.endswith("failed:\n  photos/one.png: MemoryError\n")
        assert "two.json" in written()

    def test_pts_without_overlays(self, photos):
        assert main(["predict", "photos/one.png", "--out", "out", "--format", "pts", "--no-overlay"]) == 0
        assert written() == ["one.pts"]
        assert np.abs(read_pts(photos.parent / "out/one.pts") - FACE).max() < 0.3

    def test_names_with_spaces_unicode_and_newlines(self, photos):
        names = ["with space.png", "顔 ü.png", "line\nbreak.png"]
        for name in names:
            write(photos / name)
        assert main(["predict", *(f"photos/{name}" for name in names), "--out", "out", "--format", "json"]) == 0
        assert written() == sorted(f"{name[:-4]}{ending}" for name in names for ending in (".jpg", ".json"))

    def test_no_face_is_said_and_is_no_failure(self, photos, capsys):
        write(photos / "empty.png", map_image(200, 100))
        assert main(["predict", "photos", "--out", "out"]) == 0
        output = capsys.readouterr()
        assert "photos/empty.png: no face found" in output.out + output.err
        assert "3 of 3 inputs, 2 faces" in output.out
        assert json.loads((photos.parent / "out/empty.json").read_text())["faces"] == []

    def test_of_several_pages_the_first_is_used_and_that_is_said(self, photos, capsys):
        from PIL import Image

        frames = [Image.fromarray(map_image())] * 2 + [Image.fromarray(map_image()[::-1])]
        frames[0].save(photos / "pages.tif", save_all=True, append_images=frames[1:])
        assert main(["predict", "photos/pages.tif", "--out", "out"]) == 0
        output = capsys.readouterr()
        assert "pages.tif: animated or of several pages: only the first is used" in output.out + output.err

    def test_unreadable_inputs_are_listed_at_the_end_and_the_others_done(self, photos, capsys):
        (photos / "broken.jpg").write_bytes(b"broken")
        (photos / "cut.png").write_bytes((photos / "one.png").read_bytes()[:300])
        (photos / "clip.mp4").write_bytes(b"")
        assert main(["predict", "photos", "gone.jpg", "--out", "out"]) == 1
        output = capsys.readouterr()
        assert "2 of 6 inputs, 2 faces -> out\n" in output.out
        title, *lines = output.err.splitlines()[-5:]
        assert title == "failed:"
        for line, (name, reason) in zip(
            lines,
            [
                ("gone.jpg", "there is no such file"),
                ("photos/broken.jpg", "no image that OpenCV can decode"),
                ("photos/clip.mp4", "a video without frames"),
                ("photos/cut.png", "the image is truncated"),
            ],
            strict=True,
        ):
            assert line.startswith(f"  {name}: {reason}")
        assert "one.json" in written()

    def test_nothing_at_all_to_do(self, photos, capsys):
        assert main(["predict", "gone.jpg", "--out", "out"]) == 1
        assert "gone.jpg: there is no such file" in capsys.readouterr().err
        assert not (photos.parent / "out").exists()


class TestBoxes:
    def test_of_a_file(self, photos):
        tight = [*FACE.min(axis=0), *FACE.max(axis=0)]
        (photos.parent / "boxes.csv").write_text("one.png," + ",".join(map(str, tight)) + "\n")
        assert main(["predict", "photos/one.png", "--out", "out", "--boxes", "boxes.csv", "--refine", "0"]) == 0
        box = json.loads((photos.parent / "out/one.json").read_text())["faces"][0]["box"]
        assert box == pytest.approx(CONVENTIONS["tight"].training_box(np.array(tight)).xyxy, abs=2e-3)

    def test_a_bad_box_or_none_fails_its_image_only(self, photos, capsys):
        write(photos / "three.png")
        (photos.parent / "boxes.csv").write_text("one.png,80,60,160,140\ntwo.png,160,140,80,60\n")
        assert main(["predict", "photos", "--out", "out", "--boxes", "boxes.csv"]) == 1
        errors = capsys.readouterr().err
        assert "photos/two.png: box 0 (160, 140, 80, 60) is inverted" in errors
        assert "photos/three.png: the box file has no row for it" in errors
        assert "one.json" in written()

    def test_convention_by_numbers(self, photos):
        options = ["--convention=0.5,0,2", "--refine", "0"]
        assert main(["predict", "photos/one.png", "--out", "out", *options]) == 0
        box = json.loads((photos.parent / "out/one.json").read_text())["faces"][0]["box"]
        assert box == pytest.approx([80, 20, 240, 180])

    def test_the_annotators_shift(self, photos):
        """A hundredth of the box, whatever its size."""
        found = []
        for out, options in (("out", []), ("moved", ["--annotation-shift", "0.01"])):
            assert main(["predict", "photos/one.png", "--out", out, "--refine", "0", *options]) == 0
            face = json.loads((photos.parent / out / "one.json").read_text())["faces"][0]
            found.append(np.array(face["landmarks"]))
        side = face["box"][2] - face["box"][0]
        assert found[1] - found[0] == pytest.approx(np.tile([0.01 * side, 0], (68, 1)), abs=2e-3)

    @pytest.mark.parametrize(
        "options",
        [["--convention", "mtcnn"], ["--convention=1,2"], ["--convention=0,0,-1"], ["--format", "xml"],
         ["--format", ","], ["--refine", "-1"], ["--refine", "x"], ["--flip", "maybe"], ["--detect-every", "0"], []],
    )  # fmt: skip
    def test_wrong_usage_is_code_2(self, options, capsys):
        arguments = ["predict", "a.jpg", "--out", "out", *options] if options else ["predict", "a.jpg"]
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "usage: facelm predict" in capsys.readouterr().err


class TestMistakes:
    def test_no_write_permission(self, photos, capsys):
        (photos.parent / "taken").write_text("")
        assert main(["predict", "photos", "--out", "taken"]) == 1
        assert "error: cannot write to the folder 'taken'" in capsys.readouterr().err

    def test_out_among_the_inputs(self, photos, capsys):
        assert main(["predict", "photos/one.png", "--out", "photos"]) == 1
        assert "error: --out photos is the folder of the input" in capsys.readouterr().err

    def test_detector_that_is_not_there(self, photos, capsys):
        assert main(["predict", "photos", "--out", "out", "--detector", "model.onnx"]) == 1
        assert "error: no YuNet model 'model.onnx'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "error: no weights at 'model.ckpt'"),
        (b"", "error: 'model.ckpt' (0 bytes) is damaged or no weight file"),
        (b"this is no model", "error: 'model.ckpt' (16 bytes) is damaged or no weight file"),
    ],
)
def test_a_missing_or_foreign_checkpoint(tmp_path, monkeypatch, capsys, content, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("a.png,40,30,160,150\n")
    if content is not None:
        (tmp_path / "model.ckpt").write_bytes(content)
    options = ["--checkpoint", "model.ckpt", "--boxes", "boxes.csv"]
    assert main(["predict", "a.png", "--out", "out", *options]) == 1
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists()


def test_as_a_program(tmp_path):
    """The whole command with a real (untrained) network, in a process of its own."""
    checkpoint = save_checkpoint(tmp_path / "tiny.ckpt")
    write(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("a.png,40,30,160,150\n")
    command = [sys.executable, "-m", "facelm.cli", "predict", "a.png", "gone.png", "--out", "out"]
    options = ["--checkpoint", str(checkpoint), "--boxes", "boxes.csv", "--device", "cpu", "--format", "json,csv,pts"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("1 of 2 inputs, 1 faces -> out\n")
    unsure, *failed = done.stderr.splitlines()
    assert unsure.startswith("a.png: face 1 is unsure, and may be none"), "the network is not trained"
    assert failed == ["failed:", "  gone.png: there is no such file, folder or camera"]
    assert written(tmp_path / "out") == ["a.jpg", "a.json", "a.pts", "landmarks.csv"]
