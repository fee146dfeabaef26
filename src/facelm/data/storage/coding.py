"""How the pixels of a stored crop lie in a file: as they are, or as JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.data.images import header_size
from facelm.geometry.affine import Image

_PLACED: list[Any] = [
    ("offset", "<u8"),
    ("width", "<u4"),
    ("height", "<u4"),
    ("checksum", "<u4"),
    ("image_from_stored", "<f8", (3, 3)),
]


class Coding(Protocol):
    """How crops are coded.

    `row` says what a cache file holds of each, `magic` begins such a file (the number in it counts layouts of the file
    and changes of what framings store), `ending` ends its name.
    """

    row: np.dtype[np.void]
    magic: bytes

    @property
    def ending(self) -> str:
        """The end of a cache file's name."""

    def encode(self, picture: Image) -> NDArray[np.uint8]:
        """The bytes `[B]` that stand for a picture `[h, w, 3]`."""

    def decode(self, stored: NDArray[np.uint8], width: int, height: int) -> Image:
        """The picture `[height, width, 3]` of `stored` `[B]`.

        Raises:
            ValueError: there is none of that size in it.
        """


@dataclass(frozen=True)
class Raw:
    """Pixel for pixel: a view of the file, three bytes a pixel."""

    row = np.dtype(_PLACED)
    magic = b"facelm faces 1\n\0"

    @property
    def ending(self) -> str:
        """As it ever was."""
        return ".faces"

    def encode(self, picture: Image) -> NDArray[np.uint8]:
        """The pixels in their order."""
        return np.ascontiguousarray(picture).reshape(-1)

    def decode(self, stored: NDArray[np.uint8], width: int, height: int) -> Image:
        """A view; read-only where the file is."""
        if stored.size != width * height * 3:
            raise ValueError(f"a crop of {width} x {height} pixels has {stored.size:,} bytes")
        return stored.reshape(height, width, 3)


@dataclass(frozen=True)
class Jpeg:
    """As JPEG, decoded at each look: about a tenth of the bytes, and other pixels by a grey level or two.

    Raises:
        ValueError: a quality that is none.
    """

    quality: int

    row = np.dtype([*_PLACED, ("length", "<u8")])
    magic = b"facelm jpegs 1\n\0"

    def __post_init__(self) -> None:
        checked.integer(self.quality, "data.cache_quality (of JPEG-coded faces)", 50, 100)

    @property
    def ending(self) -> str:
        """With the quality: files of several may lie side by side."""
        return f"-jpeg{self.quality}.faces"

    def encode(self, picture: Image) -> NDArray[np.uint8]:
        """A JPEG file's bytes."""
        done, coded = cv2.imencode(
            ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        )
        if not done:
            raise ValueError(f"OpenCV cannot write a picture of {picture.shape[1]} x {picture.shape[0]} pixels as JPEG")
        return np.asarray(coded, np.uint8).reshape(-1)

    def decode(self, stored: NDArray[np.uint8], width: int, height: int) -> Image:
        """Decoded anew, outside Python's lock; its header is asked first, so that no file can ask for any memory."""
        said = header_size(io.BytesIO(stored.tobytes()), "the stored crop")
        pixels = cv2.imdecode(stored, cv2.IMREAD_COLOR) if said == (width, height) else None
        if pixels is None:
            raise ValueError(f"the stored crop is no JPEG of {width} x {height} pixels")
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


RAW = Raw()

QUALITY = 95
"""Of JPEG-coded crops where nothing else is said; docs/data.md has what it was chosen by."""


def coding_of(name: str, quality: int = QUALITY) -> Coding:
    """The coding that `raw` or `jpeg` names.

    Raises:
        ValueError: the quality is none.
    """
    return RAW if name == "raw" else Jpeg(quality)
