"""Frames with their own times, what a cut file lacks, and films that keep both."""

import os
import struct
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import facelm.predict.frames as frames_module
from facelm.predict.film import Film
from facelm.predict.frames import USUAL_FPS, VideoReader, is_animated

av = pytest.importorskip("av")

TIMES = (0.0, 0.1, 0.2, 0.5, 0.9, 1.0)


def write_video(path, count=5, fps=10.0, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), (40 * i, 0, 200), np.uint8))  # blue rises, red is high
    writer.release()
    return path


def write_film(path, times=TIMES, size=(64, 48), sound=None):
    film = Film(path, 10.0, sound)
    for number, seconds in enumerate(times):
        film.add(np.full((size[1], size[0], 3), 10 * number, np.uint8), seconds)
    film.finish()
    film.release()
    return path


def write_with_sound(path, seconds=1.0):
    """A film with a tone, both starting at 0."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        tone = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(round(10 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(picture.encode(frame))
        for start in range(0, round(16000 * seconds), 1024):
            wave = np.sin(np.arange(start, start + 1024) / 9).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16000, start, Fraction(1, 16000)
            container.mux(tone.encode(block))
        container.mux(tone.encode(None))
        container.mux(picture.encode(None))
    return path


class TestReader:
    def test_frames_in_rgb_with_their_times(self, tmp_path):
        reader = VideoReader(write_video(tmp_path / "a.mp4"))
        frames = list(reader)
        assert [frame.number for frame in frames] == list(range(5))
        assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
        assert reader.cut == ""
        assert (reader.fps, reader.count) == (pytest.approx(10), 5)
        red, _, blue = frames[0].pixels.reshape(-1, 3).mean(axis=0)
        assert red > 150 > 50 > blue

    def test_names(self, tmp_path):
        write_video(tmp_path / "a.mp4")
        for name in (
            "with space.mp4",
            "顔 ü.mp4",
            "line\nbreak.mp4",
            "12:30.mp4",
            "~.mp4",
            "a",
            os.fsdecode(b"\xff.mp4"),
        ):
            (tmp_path / name).write_bytes((tmp_path / "a.mp4").read_bytes())
            assert len(list(VideoReader(tmp_path / name))) == 5

    @pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
    def test_no_video(self, tmp_path, content):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.mp4': a video without frames, or of a kind"):
            VideoReader(tmp_path / "a.mp4")

    def test_without_frames(self, tmp_path):
        with pytest.raises(ValueError, match="a video without frames"):
            VideoReader(write_video(tmp_path / "a.mp4", count=0))

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            VideoReader(tmp_path / "gone.mp4")

    def test_no_camera(self):
        with pytest.raises(ValueError, match=r"camera 97: there is none, or another program uses it"):
            VideoReader(97)

    @pytest.mark.parametrize("fps", [0.0, float("nan"), 1e9])
    def test_a_frame_rate_that_cannot_be(self, monkeypatch, fps):
        pictures = iter([(float("nan"), np.zeros((4, 4, 3), np.uint8))] * 2)
        source = SimpleNamespace(fps=fps, count=None, frames=lambda: pictures, lacks=lambda read: "")
        monkeypatch.setattr(frames_module, "_opened", lambda _: source)
        reader = VideoReader(0)
        assert reader.fps == USUAL_FPS
        assert [frame.seconds for frame in reader] == [0.0, pytest.approx(1 / USUAL_FPS)]

    def test_a_camera_keeps_its_own_time(self, monkeypatch):
        class Camera:
            def __init__(self, index):
                self.left = 4

            def isOpened(self):
                return True

            def read(self):
                self.left -= 1
                return self.left >= 0, np.zeros((10, 10, 3), np.uint8)

            def get(self, what):
                return -1.0

            def release(self):
                pass

        clock = iter([100.0, 100.0, 100.5, 102.0, 103.0])
        monkeypatch.setattr(cv2, "VideoCapture", Camera)
        monkeypatch.setattr(frames_module.time, "monotonic", lambda: next(clock))
        reader = VideoReader(0)
        assert reader.count is None
        assert [frame.seconds for frame in reader] == [0.0, 0.5, 2.0, 3.0]


class TestTruth:
    def test_times_are_those_of_the_file(self, tmp_path):
        reader = VideoReader(write_film(tmp_path / "a.mp4"))
        assert [frame.seconds for frame in reader] == pytest.approx(TIMES, abs=1e-4)
        assert reader.cut == ""

    def test_a_video_that_starts_late_starts_at_0(self, tmp_path):
        path = write_film(tmp_path / "a.mp4", [2 + seconds for seconds in TIMES])
        assert [frame.seconds for frame in VideoReader(path)] == pytest.approx(TIMES, abs=1e-4)

    def test_a_cut_avi_is_said_to_be(self, tmp_path):
        path = tmp_path / "a.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
        for number in range(60):
            writer.write(np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8))
        writer.release()
        assert self.cut(path) == ""
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
        assert "of 60 frames could be read: the file was cut short" in self.cut(path)

    @pytest.mark.parametrize("ending", [".mkv", ".mp4"])
    def test_a_cut_file_with_a_length_is_said_to_be(self, tmp_path, ending):
        path = tmp_path / f"a{ending}"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(60):
                noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            container.mux(stream.encode(None))
        assert self.cut(path) == ""
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "of 6.0 s could be read: the file was cut short" in self.cut(path)

    def cut(self, path):
        reader = VideoReader(path)
        assert sum(1 for _ in reader) > 0
        return reader.cut

    @pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
    def test_a_telephone_s_video_comes_out_upright(self, tmp_path, matrix, turns):
        path = tmp_path / "a.mp4"
        film = Film(path, 10.0)
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:24, :32] = 255
        film.add(picture, 0.0)
        film.finish()
        content = bytearray(path.read_bytes())
        place = content.index(b"tkhd") + 44  # the matrix of ISO 14496-12, section 8.3.2
        a, b, c, d = (65536 * value for value in matrix)
        content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
        (frame,) = VideoReader(path)
        assert np.abs(frame.pixels.astype(int) - np.rot90(picture, turns)).mean() < 12

    def test_without_pyav_the_cure_is_said(self, tmp_path):
        path = write_video(tmp_path / "a.mp4")
        code = "import sys; sys.modules['av'] = None; from pathlib import Path\n"
        code += "from facelm.predict.frames import VideoReader; VideoReader(Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
        assert "which is not installed. Run pip install 'facelm[video]'" in done.stderr


class TestAnimations:
    @pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
    def test_are_videos_with_times_of_their_own(self, tmp_path, ending):
        path = tmp_path / f"a{ending}"
        pictures = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "lime")]
        options = {"format": "PNG"} if ending == ".apng" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 400, 100], **options)
        assert is_animated(path)
        reader = VideoReader(path)
        frames = list(reader)
        assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.5])
        assert np.abs(frames[1].pixels.mean(axis=(0, 1)) - (0, 0, 255)).max() < 5
        assert (reader.count, reader.fps, reader.cut) == (3, pytest.approx(10), "")

    def test_a_still_picture_and_a_damaged_one_are_none(self, tmp_path):
        Image.new("RGB", (30, 20)).save(tmp_path / "a.gif")
        (tmp_path / "b.webp").write_bytes(b"RIFF")
        assert not is_animated(tmp_path / "a.gif")
        assert not is_animated(tmp_path / "b.webp")


class TestFilm:
    def test_odd_sides_and_a_change_of_size(self, tmp_path):
        film = Film(tmp_path / "a.mp4", 10.0)
        film.add(np.zeros((49, 65, 3), np.uint8), 0.0)
        film.add(np.zeros((98, 130, 3), np.uint8), 0.1)
        film.finish()
        assert [frame.pixels.shape for frame in VideoReader(tmp_path / "a.mp4")] == [(50, 66, 3)] * 2

    def test_browsers_play_it(self, tmp_path):
        with av.open(str(write_film(tmp_path / "a.mp4"))) as container:
            codec = container.streams.video[0].codec_context
            assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")

    def test_the_sound_goes_along_and_stays_in_step(self, tmp_path):
        source = write_with_sound(tmp_path / "source.mp4")
        reader = VideoReader(source)
        assert (len(list(reader)), reader.cut) == (10, "")
        write_film(tmp_path / "a.mp4", [number / 10 for number in range(5)], sound=source)
        with av.open(str(tmp_path / "a.mp4")) as container:
            packets = [packet for packet in container.demux(audio=0) if packet.pts is not None]
            times = [float(packet.pts * packet.time_base) for packet in packets]
        assert times[0] == pytest.approx(0, abs=0.07)
        assert times[-1] == pytest.approx(0.45, abs=0.1), "no longer than the pictures"

    def test_a_video_without_sound_has_none(self, tmp_path):
        source = write_video(tmp_path / "source.mp4")
        with av.open(str(write_film(tmp_path / "a.mp4", sound=source))) as container:
            assert not container.streams.audio
