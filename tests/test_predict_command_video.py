"""`facelm predict` on videos and cameras, run as a person runs it."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from facelm.cli import main
from perfect_network import map_image, save_checkpoint
from predict_folder import FACE, written

pytest.importorskip("av")


class TestVideos:
    def video(self, path, count=6):
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (240, 200))
        for _ in range(count):
            writer.write(cv2.cvtColor(map_image(), cv2.COLOR_RGB2BGR))
        writer.release()

    def test_overlay_and_landmarks_by_frame(self, photos, capsys):
        self.video(photos / "clip.avi")
        assert main(["predict", "photos/clip.avi", "--out", "out"]) == 0
        assert written() == ["clip.json", "clip.mp4", "landmarks.csv"]
        assert "1 of 1 inputs, 1 faces" in capsys.readouterr().out
        frames = json.loads((photos.parent / "out/clip.json").read_text())["frames"]
        assert [len(frame["faces"]) for frame in frames] == [1] * 6
        landmarks = np.array(frames[-1]["faces"][0]["landmarks"])
        assert np.abs(landmarks - FACE).mean() < 1  # colours, and so the map, went through JPEG

    def test_seconds(self, photos):
        self.video(photos / "clip.avi")
        assert main(["predict", "photos/clip.avi", "--out", "out", "--seconds", "0.25", "--no-overlay"]) == 0
        assert len(json.loads((photos.parent / "out/clip.json").read_text())["frames"]) == 3

    @pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "long"])
    def test_seconds_that_are_none(self, photos, capsys, seconds):
        with pytest.raises(SystemExit) as ended:
            main(["predict", "photos", "--out", "out", f"--seconds={seconds}"])
        assert ended.value.code == 2
        assert "is not a number of seconds above 0" in capsys.readouterr().err

    def test_a_cut_video_keeps_its_results_and_fails(self, photos, capsys):
        self.video(photos / "clip.avi", count=60)
        content = (photos / "clip.avi").read_bytes()
        (photos / "clip.avi").write_bytes(content[: len(content) // 4])
        assert main(["predict", "photos/clip.avi", "--out", "out", "--no-overlay"]) == 1
        assert "of 60 frames could be read" in capsys.readouterr().err
        result = json.loads((photos.parent / "out/clip.json").read_text())
        assert len(result["frames"]) > 3
        assert "of 60 frames could be read" in result["notes"][0]

    def test_an_animated_picture_is_a_video(self, photos):
        still = Image.fromarray(map_image())
        still.save(photos / "moving.webp", save_all=True, append_images=[still.rotate(5)], duration=250)
        assert main(["predict", "photos/moving.webp", "--out", "out", "--no-smoothing"]) == 0
        assert written() == ["landmarks.csv", "moving.json", "moving.mp4"]
        frames = json.loads((photos.parent / "out/moving.json").read_text())["frames"]
        assert [frame["seconds"] for frame in frames] == [0.0, 0.25]

    def test_a_camera_is_recorded_until_it_is_stopped(self, photos, monkeypatch, capsys):
        files = cv2.VideoCapture

        class Camera:
            def __new__(cls, source):
                return files(source) if isinstance(source, str) else super().__new__(cls)

            def __init__(self, index):
                self.index, self.count = index, 0

            def isOpened(self):
                return True

            def read(self):
                self.count += 1
                if self.count > 4:
                    raise KeyboardInterrupt
                return True, cv2.cvtColor(map_image(), cv2.COLOR_RGB2BGR)

            def get(self, what):
                return -1.0

            def release(self):
                pass

        monkeypatch.setattr(cv2, "VideoCapture", Camera)
        assert main(["predict", "1", "--out", "out", "--no-smoothing"]) == 0
        assert written() == ["camera1.json", "camera1.mp4", "landmarks.csv"]
        assert len(json.loads((photos.parent / "out/camera1.json").read_text())["frames"]) == 4
        output = capsys.readouterr()
        assert "camera 1: stopped" in output.out + output.err

    def test_a_camera_that_is_not_there(self, photos, capsys):
        assert main(["predict", "97", "photos/one.png", "--out", "out"]) == 1
        output = capsys.readouterr()
        assert output.err.endswith(
            "failed:\n  camera 97: there is none, or another program uses it. Cameras count from 0\n"
        )
        assert output.out.startswith("1 of 2 inputs, 1 faces -> out\n")

    def test_boxes_are_for_images(self, photos, capsys):
        self.video(photos / "clip.avi")
        (photos.parent / "boxes.csv").write_text("clip,0,0,50,50\n")
        assert main(["predict", "photos/clip.avi", "--out", "out", "--boxes", "boxes.csv"]) == 1
        assert "clip.avi: --boxes are for images" in capsys.readouterr().err


def test_a_broken_video_is_said_once(tmp_path):
    """FFmpeg's own complaint is kept back; in a process of its own, since FFmpeg asks only once how loud it may be."""
    pytest.importorskip("dlib")
    checkpoint = save_checkpoint(tmp_path / "tiny.ckpt")
    (tmp_path / "clip.mp4").write_bytes((20).to_bytes(4, "big") + b"ftypisom" + bytes(8))
    command = [sys.executable, "-m", "facelm.cli", "predict", "clip.mp4", "--out", "out", "--checkpoint", checkpoint]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    title, line = done.stderr.splitlines()
    assert (title, line.split(",")[0]) == ("failed:", "  clip.mp4: a video without frames")
