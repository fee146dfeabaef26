"""A user's photograph, in whatever form it comes, as upright RGB pixels.

Decoded as annotated photographs are, by `facelm.data.images`, and always turned as their EXIF says: a photograph of
one's own should come out as a viewer shows it, while 300W was annotated on the pixels as they are stored.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Generic, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.beyond_opencv import eight_bits
from facelm.data.images import AS_STORED, decode, exif_orientation, header_size, orientation_in, turned
from facelm.files import typed
from facelm.geometry.affine import Image

MOST_PIXELS = 200_000_000
"""Larger files are refused before they are decoded: at 3 bytes a pixel they would take more than 0.6 GB."""

Source = str | os.PathLike[str] | bytes | NDArray[Any] | Any
"""A path, a file's bytes, an open file, an array, a torch tensor, or a PIL image."""

OnError = Literal["raise", "skip"]
"""What one image that cannot be read means for the others."""

Where = TypeVar("Where")

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


_NOTHING = Photograph(np.zeros((0, 0, 3), np.uint8))  # stands for one that cannot be read


def read_photograph(source: Source, *, bgr: bool = False) -> Photograph:
    """The photograph that `source` is: a path, a file's bytes, an open file, an array, a torch tensor or a PIL image.

    A file or PIL image is turned as its EXIF orientation says (AVIF and HEIC as their format says). Alpha is dropped,
    grey and CMYK become RGB, 16 bits become 8 (of the 8, 10, 12, 14 or 16 that the largest value takes), and of an
    animation the first frame is taken, with a note. An array is `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`,
    uint8 or uint16, a tensor also `[C, H, W]`. They are in RGB order; `bgr` says that they are in OpenCV's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, damaged, cut short, larger than `MOST_PIXELS`, HEIC without pillow-heif, or no image at all.
        OSError: not readable.
    """
    if isinstance(source, Photograph):
        return source
    if hasattr(source, "is_floating_point") and hasattr(source, "detach"):  # torch's
        source = _from_tensor(source)
    if isinstance(source, np.ndarray):
        pixels = _from_array(np.asarray(source))  # a matrix stays two-dimensional in everything that is done with it
        return Photograph(np.ascontiguousarray(pixels[:, :, ::-1]) if bgr else pixels)
    if isinstance(source, str | os.PathLike):
        return _from_file(source)
    if hasattr(source, "getexif") and hasattr(source, "convert"):  # PIL's, without importing PIL
        return _from_pil(source)
    if hasattr(source, "read"):
        source = _read(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_content(bytes(source), "the image given as bytes")
    raise ValueError(
        f"an image is a path, bytes, an open file, a numpy array, a torch tensor or a PIL image; got "
        f"{type(source).__name__}"
    )


def read_image(source: Source, *, bgr: bool = False) -> Image:
    """The pixels `[H, W, 3]`, uint8 RGB, of a photograph as a viewer shows it; see `read_photograph`."""
    return read_photograph(source, bgr=bgr).pixels


@dataclass(frozen=True)
class Seen(Generic[Where]):
    """A photograph, where the faces in it are, the seconds for reading and for these, and why it could not be read."""

    photograph: Photograph
    where: Where
    seconds: dict[str, float]
    error: str = ""


def see(source: Source, find: Callable[[Photograph], Where], *, bgr: bool = False) -> Seen[Where]:
    """The photograph with what `find` gives for it. Raises what `read_photograph` and `find` raise."""
    start = perf_counter()
    photograph = read_photograph(source, bgr=bgr)
    read = perf_counter()
    where = find(photograph)
    return Seen(photograph, where, {"read": read - start, "detect": perf_counter() - read})


def see_each(
    sources: Sequence[Source],
    given: Sequence[Any],
    find: Callable[..., Where],
    nothing: Where,
    *,
    bgr: bool,
    on_error: OnError,
    number: tuple[int, int] | None,
) -> list[Seen[Where]]:
    """Every photograph with what `find(photograph, xyxy=boxes)` makes of it and the boxes `given` with it.

    One that cannot be read, or whose boxes are none, is empty and has `nothing` with `on_error="skip"`; else the error
    is raised, with the photograph's number before it, where `number` is that of the first and how many there are.

    Raises:
        ValueError: `on_error` is none; and what `read_photograph` and `find` raise.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: it is 'raise' or 'skip'")
    seen: list[Seen[Where]] = []
    for index, (source, boxes) in enumerate(zip(sources, given, strict=True)):
        start = perf_counter()
        try:
            seen.append(see(source, partial(find, xyxy=boxes), bgr=bgr))
        except (ValueError, OSError) as error:
            if on_error == "skip":
                seen.append(Seen(_NOTHING, nothing, {"read": perf_counter() - start, "detect": 0.0}, str(error)))
            elif number is None:
                raise
            else:
                kinds = (FileNotFoundError, OSError, ValueError)
                kind = next(kind for kind in kinds if isinstance(error, kind))
                raise kind(f"image {number[0] + index} of {number[1]}, counted from 0: {error}") from error
    return seen


def _from_file(source: str | os.PathLike[str]) -> Photograph:
    path = typed(source)
    if not path.exists() and (address := re.match(r"\w[\w+.-]+://", os.fspath(source))):
        raise FileNotFoundError(
            f"{address[0]}...: an address is not read. Give its bytes: urllib.request.urlopen(ADDRESS).read()"
        )
    if not path.is_file():
        kind = "a folder, not an image" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"{str(path)!r}: {kind}")
    return _from_content(path.read_bytes(), repr(str(path)))


def _read(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError("an image's file was opened as text. Open it with open(path, 'rb'); of sys.stdin take .buffer")
    return content


def _from_content(content: bytes, name: str) -> Photograph:
    size = header_size(io.BytesIO(content), name, _CURE)
    _check_size(size, name)
    try:
        pixels = decode(content, exif_orientation(io.BytesIO(content)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if pixels is None:
        raise ValueError(
            f"{name}: no image that OpenCV can decode; it is damaged, or of another kind (RAW, PDF, 32-bit float). "
            "Save it as JPEG or PNG"
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
    several = (
        getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    )  # a telephone's JPEG with a second, lesser one
    notes = (_FIRST_FRAME,) if several else ()
    try:
        if several:
            image.seek(0)
        # Its own exif_transpose writes the EXIF anew, which fails where that is broken.
        orientation = orientation_in(exif) if (exif := image.info.get("exif")) else _pil_orientation(image)
        if image.mode.startswith("I"):  # PIL's own conversion to RGB would clip 16 bits to 255
            pixels = _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16))
        elif image.mode == "F":
            raise ValueError("a PIL image of mode 'F' has no known range; convert it to 'L' or 'RGB' first")
        else:
            pixels = _from_array(np.array(image.convert("RGB")))
    except OSError as error:
        raise ValueError(f"the PIL image cannot be decoded ({error}). {_CURE}") from error
    return Photograph(np.ascontiguousarray(turned(pixels, orientation)), notes)


def _pil_orientation(image: Any) -> int:
    """The orientation of an image whose EXIF stands in tags of the format, as a TIFF's does."""
    try:
        return int(image.getexif().get(0x0112, AS_STORED))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return AS_STORED


def _from_tensor(tensor: Any) -> NDArray[Any]:
    """A torch tensor `[H, W]`, `[C, H, W]` or `[H, W, C]` as an array with the channels last."""
    if tensor.is_floating_point():
        raise ValueError(
            f"an image tensor is uint8 (0 to 255); got {tensor.dtype}. For floats from 0 to 1: "
            "(image * 255).round().to(torch.uint8)"
        )
    array = np.asarray(tensor.detach().cpu().numpy())
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in (1, 3, 4) else array


def _from_array(array: NDArray[Any]) -> Image:
    shape = "x".join(map(str, array.shape))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        turned = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        cure = "Put the channels last: image.transpose(1, 2, 0)" if turned else "Several images are given as a list"
        raise ValueError(f"an image array is [H, W], [H, W, 3] or [H, W, 4]; got {shape}. {cure}")
    if 0 in array.shape:
        raise ValueError(f"the image is empty: {shape} pixels. Was a crop taken outside its image?")
    if array.dtype == np.uint16:
        array = eight_bits(array)
    if array.dtype != np.uint8:
        raise ValueError(
            f"an image array is uint8 (0 to 255) or uint16; got {array.dtype}. For floats from 0 to 1: "
            "(image * 255).round().astype(numpy.uint8)"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array[:, :, :3] if array.shape[2] >= 3 else np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(channels)
