"""The frames of videos and cameras, each with the time that the file gives it.

Files are read with PyAV, which is FFmpeg's libraries: it knows the time of each frame, while OpenCV tells the frame
rate alone, which a telephone's video does not keep. Animated GIF, WebP and PNG are read with Pillow, cameras with
OpenCV.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from facelm.geometry.affine import Image

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts", ".ts"),
    *(".3gp", ".3g2", ".ogv", ".vob", ".asf"),
)
"""Endings of videos, in lower case."""

ANIMATED_ENDINGS = (".gif", ".webp", ".apng")
"""Endings of pictures that may move, in lower case: with a second frame they are videos."""

USUAL_FPS = 25.0
"""Frames a second of a video that does not say it."""

_LACKS = 0.02  # of a video's length: so much of it may lack before it is called cut; headers round
_NO_VIDEO = "a video without frames, or of a kind that PyAV (FFmpeg) does not read. Convert it to .mp4 (H.264)"
_NO_CAMERA = "there is none, or another program uses it. Cameras count from 0"


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame: its number, counted from 0, its time in seconds, and `pixels` `[H, W, 3]` RGB."""

    number: int
    seconds: float
    pixels: Image


class VideoReader:
    """The frames of a video file, of an animated picture, or of a camera given by its index.

    `fps` is the mean frame rate, or `USUAL_FPS` where the file has none; `count` the number of frames, where it is
    known. Times are the file's, from its first frame on, and rise from frame to frame; a camera's are those at which
    its frames came. Frames are turned as the file says. `cut` is "" or, after the last frame, a sentence on what the
    file lacks of what its header says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video that FFmpeg reads, without frames, no such camera, or PyAV is not installed.
    """

    def __init__(self, source: Path | int) -> None:
        if isinstance(source, Path) and not source.is_file():
            raise FileNotFoundError(f"{str(source)!r}: there is no such file")
        self.is_camera = isinstance(source, int)
        self.cut = ""
        name = f"camera {source}" if self.is_camera else repr(str(source))
        self._source = _opened(source)
        self._frames = self._source.frames()
        self._next = next(self._frames, None)
        if self._next is None:
            self.close()
            raise ValueError(f"{name}: {_NO_CAMERA if self.is_camera else _NO_VIDEO}")
        fps = self._source.fps
        self.fps = fps if math.isfinite(fps) and 1 <= fps <= 1000 else USUAL_FPS
        self.count = self._source.count

    def __iter__(self) -> Iterator[Frame]:
        number, last = 0, -1 / self.fps
        while self._next is not None:
            seconds, pixels = self._next
            last = seconds if seconds > last else last + 1 / self.fps  # no time, or one that goes back
            yield Frame(number, last, pixels)
            self._next = next(self._frames, None)
            number += 1
        self.cut = self._source.lacks(number)

    def close(self) -> None:
        """Lets go of the file or the camera."""
        self._source.close()


class _Source(Protocol):
    fps: float
    count: int | None

    def frames(self) -> Iterator[tuple[float, Image]]:
        """Times (NaN where there is none) and pixels."""

    def lacks(self, read: int) -> str: ...

    def close(self) -> None: ...


def _opened(source: Path | int) -> _Source:
    if isinstance(source, int):
        return _Camera(source)
    return _Animation(source) if is_animated(source) else _Film(source)


class _Film:
    """A video file, read with PyAV."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise ValueError(
                f"{str(path)!r}: videos are read with PyAV, which is not installed. Run pip install 'facelm[video]'"
            ) from None
        self._av = av
        self._lost = 0
        self._end = 0.0
        try:
            # With "file:" a colon in the name is no protocol.
            self._container: Any = av.open(f"file:{path}", metadata_errors="replace")
            best: Any = self._container.streams.best("video")
        except av.FFmpegError as error:
            raise ValueError(f"{str(path)!r}: {_NO_VIDEO}") from error
        if best is None:
            self.close()
            raise ValueError(f"{str(path)!r}: {_NO_VIDEO}")
        self._stream: Any = best
        self._stream.thread_type = "AUTO"
        self.fps = float(self._stream.average_rate or 0)
        self.count: int | None = self._stream.frames or None

    def frames(self) -> Iterator[tuple[float, Image]]:
        """Frames from the first on, at 0 s."""
        start = None
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except self._av.FFmpegError:
                self._lost += 1
                continue
            for frame in decoded:
                seconds = math.nan if frame.time is None else frame.time
                start = seconds if start is None else start
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield seconds - start if math.isfinite(start) else math.nan, np.ascontiguousarray(pixels)

    def _packets(self) -> Iterator[Any]:
        """The video's packets; of the others, only when they end is noted."""
        start = (self._container.start_time or 0) / self._av.time_base
        try:
            for packet in self._container.demux():
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start
                    self._end = max(self._end, end)
                if packet.stream.index == self._stream.index:
                    yield packet
        except self._av.FFmpegError:
            self._lost += 1

    def lacks(self, read: int) -> str:
        """A sentence where frames are damaged, or fewer than the header says.

        Of a cut AVI, FFmpeg puts the length right by the file's size; the number of frames stays. In an MP4 it is the
        other way round: frames that were trimmed away are counted, and the length says what is to be shown.
        """
        length = (self._container.duration or 0) / self._av.time_base
        there = ""
        if "avi" in self._container.format.name:
            if read < (1 - _LACKS) * (self._stream.frames or 0) - 1:
                there = f"only {read} of {self._stream.frames} frames"
        elif self._end < (1 - _LACKS) * length - 0.2:
            there = f"only {self._end:.1f} of {length:.1f} s"
        elif self._lost:
            there = f"all but {self._lost} damaged part{'s' * (self._lost > 1)}"
        cure = "could be read: the file was cut short or is damaged. The results hold what is there; copy it again"
        return f"{there} {cure}" if there else ""

    def close(self) -> None:
        self._container.close()


class _Animation:
    """An animated GIF, WebP or PNG, read with Pillow."""

    def __init__(self, path: Path) -> None:
        import PIL.Image

        image: Any = PIL.Image.open(path)
        self._image = image
        self.count: int | None = int(self._image.n_frames)
        self.fps = 1 / self._duration()

    def frames(self) -> Iterator[tuple[float, Image]]:
        seconds = 0.0
        for number in range(self.count or 0):
            try:
                self._image.seek(number)
                pixels = np.array(self._image.convert("RGB"))
            except (EOFError, OSError, ValueError):
                return
            yield seconds, pixels
            seconds += self._duration()

    def _duration(self) -> float:
        """Seconds of the frame at hand; as browsers do, a tenth where the file says none that a screen could show."""
        self._image.load()
        duration = float(self._image.info.get("duration") or 0)
        return duration / 1000 if duration > 10 else 0.1

    def lacks(self, read: int) -> str:
        return (
            f"only {read} of {self.count} frames could be read: the file is damaged" if read < (self.count or 0) else ""
        )

    def close(self) -> None:
        self._image.close()


class _Camera:
    """A camera, read with OpenCV; its clock starts when it is opened."""

    count: int | None = None

    def __init__(self, index: int) -> None:
        self._capture = cv2.VideoCapture(index)
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))

    def frames(self) -> Iterator[tuple[float, Image]]:
        start = time.monotonic()
        while self._capture.isOpened():
            read, pixels = self._capture.read()
            if not read:
                return
            yield time.monotonic() - start, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)

    def lacks(self, read: int) -> str:
        return ""

    def close(self) -> None:
        self._capture.release()


def is_animated(path: Path) -> bool:
    """Whether the file is a picture that moves, by its ending and its content; False where it cannot be read."""
    if path.suffix.lower() not in ANIMATED_ENDINGS:
        return False
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError):
        return False
