"""A video that browsers play, written frame by frame: H.264 in MP4, with the sound of the video it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facelm.geometry.affine import Image

_CODECS = ("libx264", "libopenh264", "mpeg4")  # the last plays everywhere but in browsers
_SOUNDS = ("aac", "mp3", "opus")  # what MP4 holds and browsers play
_TICK = Fraction(1, 60_000)  # seconds: whole in 24, 25, 30, 60 and 29.97 frames a second; MPEG-4 has 16 bits for it
_CURE = "Use --no-overlay"


class Film:
    """Writes `[H, W, 3]` RGB frames, all of one size, to an .mp4 file; a side that is odd gains a pixel, for H.264.

    Args:
        path: the file, made anew.
        fps: the usual frame rate; each frame has a time of its own.
        sound: a video file whose sound goes along, where it is AAC, MP3 or Opus.

    Raises:
        OSError: it cannot be written, the disk is full for one, or PyAV is not installed.
    """

    def __init__(self, path: Path, fps: float, sound: Path | None = None) -> None:
        try:
            import av
        except ImportError:
            raise OSError(
                f"videos are written with PyAV, which is not installed. Run pip install 'facelm[video]'. Or: {_CURE}"
            ) from None
        self._av = av
        self._fps = Fraction(fps).limit_denominator(60_000)
        self._tick = -1
        self._picture: Any = None
        self._source: Any = None
        self._sounds: Iterator[Any] = iter(())
        self._waiting: list[Any] = []  # the sound's next packet
        with self._said():
            self._container: Any = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
            if sound is not None:
                self._open_sound(sound)

    def add(self, pixels: Image, seconds: float) -> None:
        """Writes the next frame, which is later than the one before."""
        with self._said():
            if self._picture is None:
                self._picture = self._new_picture(pixels.shape[1], pixels.shape[0])
            frame = self._av.VideoFrame.from_ndarray(_of_size(pixels, self._picture), format="rgb24")
            self._tick = max(round(seconds / _TICK), self._tick + 1)
            frame.pts, frame.time_base = self._tick, _TICK
            self._container.mux(self._picture.encode(frame))
            self._copy_sound(seconds)

    def finish(self) -> None:
        """Ends the file.

        Raises:
            OSError: the disk is full.
        """
        with self._said():
            if self._picture is not None:
                self._container.mux(self._picture.encode(None))
                self._copy_sound(float(self._tick * _TICK + 1 / self._fps))
            self._container.close()

    def release(self) -> None:
        """Lets go of the files, also of one that was not ended well."""
        with suppress(self._av.FFmpegError):
            self._container.close()
        if self._source is not None:
            self._source.close()

    def _new_picture(self, width: int, height: int) -> Any:
        codec = next((name for name in _CODECS if name in self._av.codecs_available), _CODECS[-1])
        options = {"preset": "veryfast", "crf": "20"} if codec == "libx264" else {}
        picture = self._container.add_stream(codec, rate=self._fps, options=options)
        picture.width, picture.height, picture.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        picture.codec_context.time_base = _TICK
        if codec != "libx264":
            picture.bit_rate = max(1_000_000, 4 * width * height)
        return picture

    def _open_sound(self, path: Path) -> None:
        """Takes the sound of `path` along, if there is one that MP4 can hold; its times stay those of the video."""
        with suppress(self._av.FFmpegError, IndexError):
            self._source = self._av.open(f"file:{path}", metadata_errors="replace")
            sound = self._source.streams.best("audio")
            if sound is not None and sound.codec_context.name in _SOUNDS:
                self._copy = self._container.add_stream_from_template(sound)
                first = self._source.streams.video[0]
                self._begin = float((first.start_time or 0) * first.time_base)
                self._sounds = self._source.demux(sound)

    def _copy_sound(self, until: float) -> None:
        """Writes the sound up to that time, so that it lies beside its pictures; what comes before them is left out."""
        try:
            for packet in chain(self._waiting, self._sounds):
                self._waiting = []
                if packet.pts is None:  # the last is empty
                    break
                seconds = float(packet.pts * packet.time_base) - self._begin
                if seconds > until:
                    self._waiting = [packet]
                    break
                if seconds >= 0:
                    packet.pts -= round(self._begin / packet.time_base)
                    packet.dts, packet.stream = packet.pts, self._copy
                    self._container.mux(packet)
        except ValueError:  # damaged, or of times that MP4 does not take: silence from here on
            self._sounds = iter(())

    @contextmanager
    def _said(self) -> Iterator[None]:
        """FFmpeg's errors as OSErrors; of a full disk, as the system's own."""
        try:
            yield
        except (self._av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise OSError(error.errno, os.strerror(error.errno)) from error
            raise OSError(f"the video cannot be written ({error}). {_CURE}") from error


def _of_size(pixels: Image, picture: Any) -> Image:
    """`pixels` with an edge repeated where a side is odd; of another size than the first, they are scaled to it."""
    height, width = pixels.shape[:2]
    down, right = picture.height - height, picture.width - width
    if not (0 <= down < 2 and 0 <= right < 2):
        return np.asarray(cv2.resize(pixels, (picture.width, picture.height), interpolation=cv2.INTER_AREA), np.uint8)
    if down or right:
        pixels = np.asarray(cv2.copyMakeBorder(pixels, 0, down, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    return np.ascontiguousarray(pixels)
