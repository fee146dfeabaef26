"""A user's photograph, in whatever form it comes, as upright RGB pixels.

Decoded as annotated photographs are, by `facelm.data.images`, and always turned as their EXIF says: a photograph of
one's own should come out as a viewer shows it, while 300W was annotated on the pixels as they are stored.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.images import decode, exif_orientation, header_size
from facelm.files import typed
from facelm.geometry.affine import Image

MOST_PIXELS = 200_000_000
"""Larger files are refused before they are decoded: at 3 bytes a pixel they would take more than 0.6 GB."""

Source = str | os.PathLike[str] | NDArray[Any] | Any
"""A path, an array, or a PIL image."""

_CURE = "Copy or export it again"
_FIRST_FRAME = "animated or of several pages: only the first is used"


@dataclass(frozen=True, eq=False)
class Photograph:
    """`pixels` `[H, W, 3]` uint8 RGB, upright; `notes` say what a reader of the results should know about them."""

    pixels: Image
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_photograph(source: Source) -> Photograph:
    """The photograph that `source` is: a path, an array or a PIL image.

    A file or PIL image is turned as its EXIF orientation says (of AVIF files, it is not known). Alpha is
    dropped, grey and CMYK become RGB, 16 bits become 8, and of an animation the first frame is taken, with a note. An
    array is `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`, uint8 or uint16, in RGB order (OpenCV's own is BGR).

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, damaged, cut short, larger than `MOST_PIXELS`, or no image at all.
        OSError: not readable.
    """
    if isinstance(source, Photograph):
        return source
    if isinstance(source, np.ndarray):
        return Photograph(_from_array(source))
    if isinstance(source, str | os.PathLike):
        return _from_file(typed(source))
    if hasattr(source, "getexif") and hasattr(source, "convert"):  # PIL's, without importing PIL
        return _from_pil(source)
    raise ValueError(f"an image is a path, a numpy array or a PIL image; got {type(source).__name__}")


def _from_file(path: Path) -> Photograph:
    if not path.is_file():
        kind = "a folder, not an image" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"{str(path)!r}: {kind}")
    content = path.read_bytes()
    name = repr(str(path))
    size = header_size(io.BytesIO(content), name, _CURE)
    _check_size(size, name)
    pixels = decode(content, exif_orientation(io.BytesIO(content)))
    if pixels is None:
        raise ValueError(
            f"{name}: no image that OpenCV can decode; it is damaged, or of another kind (HEIC, RAW, PDF, 32-bit "
            "float). Save it as JPEG or PNG"
        )
    _check_size((pixels.shape[1], pixels.shape[0]), name)
    return Photograph(pixels, (_FIRST_FRAME,) if _is_animated(content) else ())


def _check_size(size: tuple[int, int] | None, name: str) -> None:
    if size and size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"{name}: {size[0]}x{size[1]} pixels; at most {MOST_PIXELS // 10**6} million are read. Shrink it or cut "
            "the faces out"
        )


def _is_animated(content: bytes) -> bool:
    """Whether a GIF, PNG, WebP or TIFF holds a second frame or page."""
    marked = (
        content[:4] == b"GIF8",
        content[:4] == b"\x89PNG" and b"acTL" in content[:4096],
        content[:4] == b"RIFF" and content[12:16] == b"VP8X" and bool(content[20] & 2),
    )
    buffer = np.frombuffer(content, np.uint8)
    if any(marked) and hasattr(cv2, "imdecodeanimation"):  # OpenCV 4.11
        found, animation = cv2.imdecodeanimation(buffer, 0, 2)
        return bool(found) and len(animation.frames) > 1
    if content[:4] in (b"II*\0", b"MM\0*"):
        found, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_REDUCED_GRAYSCALE_8, range=(1, 2))
        return bool(found) and len(pages) > 0
    return any(marked)


def _from_pil(image: Any) -> Photograph:
    from PIL import ImageOps

    notes = (_FIRST_FRAME,) if getattr(image, "n_frames", 1) > 1 else ()
    try:
        if notes:
            image.seek(0)
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # PIL's own conversion to RGB would clip 16 bits to 255
            return Photograph(_from_array(np.asarray(upright).clip(0, 65535).astype(np.uint16)), notes)
        if upright.mode == "F":
            raise ValueError("a PIL image of mode 'F' has no known range; convert it to 'L' or 'RGB' first")
        return Photograph(_from_array(np.array(upright.convert("RGB"))), notes)
    except OSError as error:
        raise ValueError(f"the PIL image cannot be decoded ({error}). {_CURE}") from error


def _from_array(array: NDArray[Any]) -> Image:
    shape = "x".join(map(str, array.shape))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        turned = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        cure = "Put the channels last: image.transpose(1, 2, 0)" if turned else "Several images are given as a list"
        raise ValueError(f"an image array is [H, W], [H, W, 3] or [H, W, 4]; got {shape}. {cure}")
    if 0 in array.shape:
        raise ValueError(f"the image is empty: {shape} pixels. Was a crop taken outside its image?")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)  # as OpenCV does with 16-bit files
    if array.dtype != np.uint8:
        raise ValueError(
            f"an image array is uint8 (0 to 255) or uint16; got {array.dtype}. For floats from 0 to 1: "
            "(image * 255).round().astype(numpy.uint8)"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array[:, :, :3] if array.shape[2] >= 3 else np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(channels)
