"""Photographs on disk: their size from the header, whether they are whole, and their pixels.

Checking 3,148 photographs before training by decoding them takes minutes. The header holds the size, and the end of
the file says whether it was cut, so a check reads a few hundred bytes of each. A PNG that is damaged in between is
found when it is decoded, by the checksums of its chunks, with its name in the message; `decoded_size` finds it before.
A JPEG, and many a WebP, so damaged decodes nevertheless, to other pixels: they hold no checksums.

A camera that was held upright writes the picture lying on its side, and into the header (EXIF) how a viewer should
turn it. Points placed in a viewer belong to the turned picture; 300W's were placed on the pixels as they are stored.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.beyond_opencv import DARK, eight_bits, is_of_the_box_kind, read_with_pillow
from facelm.geometry.affine import Image

IMAGE_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".tga"),
)
"""Endings of photographs, in lower case. Where two share a name, the earlier ending wins."""

_CURE = "Unpack or download it again, or set data.on_error=skip to leave unreadable faces out"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_JPEG_APP1 = 0xE1
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


AS_STORED = 1
"""The EXIF orientation of a photograph that a viewer does not turn."""

# How pixels [H, W, 3] as stored become upright, by EXIF orientation (EXIF 2.3, section 4.6.4).
_TURNS: dict[int, Callable[[Image], Image]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
_LIES_FROM = 5  # from here on, width and height are exchanged


def read_image(path: Path | str, orientation: int = AS_STORED) -> Image:
    """The photograph's pixels: uint8 RGB `[H, W, 3]`; a grey one has three equal channels.

    They are turned by `orientation`, as EXIF counts them; what the file itself says of it does not matter here.

    Raises:
        ValueError: empty, cut short, a PNG with a wrong checksum, HEIC without pillow-heif, or nothing that can be
            decoded; the message names the file.
        OSError: absent or not readable.
    """
    with open(path, "rb") as file:
        content = file.read()
    header_size(io.BytesIO(content), path)  # OpenCV 4 paints what a cut JPEG lacks in grey and says nothing
    if content.startswith(_PNG) and (chunk := _damaged_chunk(content)):
        raise ValueError(f"{path}: the image is damaged: the checksum of its {chunk} chunk does not fit. {_CURE}")
    try:
        pixels = decode(content, orientation)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if pixels is None:
        raise ValueError(f"{path}: the image cannot be decoded; it is damaged, or of no kind OpenCV reads. {_CURE}")
    return pixels


def decode(content: bytes, orientation: int = AS_STORED) -> Image | None:
    """The pixels `[H, W, 3]` uint8 RGB of an image file's bytes, turned by `orientation`; None where there are none.

    A 16-bit file whose values all fit in 8, 10, 12 or 14 bits is taken to hold so many: it would be black otherwise.

    Raises:
        ValueError: a damaged AVIF or HEIC; or HEIC, and pillow-heif is not installed.
    """
    if is_of_the_box_kind(content):
        return read_with_pillow(content)
    pixels = _decoded(content, cv2.IMREAD_COLOR)
    if pixels is None:
        return read_with_pillow(content)
    if pixels.max(initial=0) < DARK and (deep := _deep(content)) is not None:
        pixels = eight_bits(deep)
    cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # in place: large photographs are not held twice
    upright = turned(np.asarray(pixels, np.uint8), orientation)
    return np.ascontiguousarray(upright)


def turned(pixels: Image, orientation: int) -> Image:
    """A view of `pixels` `[H, W, 3]` that is turned as that EXIF orientation says; one that is none turns nothing."""
    turn = _TURNS.get(orientation)
    return turn(pixels) if turn else pixels


def _deep(content: bytes) -> NDArray[np.uint16] | None:
    """The pixels as uint16, BGR, of a file that holds 16 bits."""
    pixels = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return pixels if pixels is not None and pixels.dtype == np.uint16 else None


def _decoded(content: bytes, flags: int) -> Any:
    """What OpenCV makes of a file's bytes, not turned; None where that is nothing."""
    try:  # through memory, since cv2.imread does not open every path that Python opens
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def image_size(path: Path, orientation: int = AS_STORED, opened: BinaryIO | None = None) -> tuple[int, int]:
    """(width, height) of what `read_image` gives, from the header; a file that is empty or was cut is refused.

    JPEG, PNG and WebP are told by their first bytes; anything else is decoded. `opened` is the file, if it is open.

    Raises:
        ValueError: empty, cut short, or nothing that OpenCV can decode; the message names the file.
        OSError: absent or not readable.
    """
    with nullcontext(opened) if opened else path.open("rb") as stream:
        stream.seek(0)
        size = header_size(stream, path)
    if size is None:
        return decoded_size(path, orientation)
    return size if orientation < _LIES_FROM else size[::-1]


def decoded_size(path: Path, orientation: int = AS_STORED, opened: BinaryIO | None = None) -> tuple[int, int]:
    """As `image_size`, of a photograph that can be decoded; raises what `read_image` raises."""
    height, width, _ = read_image(path, orientation).shape
    return width, height


def exif_orientation(stream: BinaryIO) -> int:
    """How a JPEG, PNG or WebP says that it is to be turned, 1 to 8; 1 where it says nothing that can be read.

    Reads headers only. In a TIFF this is no remark for viewers but part of the format: OpenCV turns it in any case.
    """
    stream.seek(0)
    start = stream.read(12)
    try:
        if start.startswith(b"\xff\xd8"):
            places = (_exif_place(stream) for code in _segments(stream) if code == _JPEG_APP1)
            tiff = next(filter(None, places), None)
        elif start.startswith(_PNG):
            tiff = _chunk_place(stream, len(_PNG), b"eXIf")
        elif start.startswith(b"RIFF") and start[8:] == b"WEBP":
            tiff = _chunk_place(stream, 12, b"EXIF")
        else:
            tiff = None
        return AS_STORED if tiff is None else _orientation_tag(stream, tiff)
    except (EOFError, struct.error):
        return AS_STORED


def orientation_in(exif: bytes) -> int:
    """The orientation in a picture's EXIF, as Pillow has it in `image.info["exif"]`; 1 where none can be read."""
    try:
        return _orientation_tag(io.BytesIO(exif), 6 if exif.startswith(b"Exif\0\0") else 0)
    except (EOFError, struct.error):
        return AS_STORED


def header_size(stream: BinaryIO, path: Path | str, cure: str = _CURE) -> tuple[int, int] | None:
    """(width, height) as a JPEG's, PNG's or WebP's header has them; None for any other kind. Reads no pixels.

    Raises:
        ValueError: empty, or cut short; the message names `path` and ends in `cure`.
    """
    start = stream.read(12)
    if not start:
        raise ValueError(f"{path}: the image file is empty, as an interrupted download leaves it. {cure}")
    try:
        if start.startswith(b"\xff\xd8"):
            size = _jpeg_size(stream)
        elif start.startswith(_PNG):
            size = _png_size(stream)
        elif start.startswith(b"RIFF") and start[8:] == b"WEBP":
            size = _webp_size(stream)
        else:
            return None
    except EOFError:
        raise ValueError(f"{path}: the image is truncated, as an interrupted download leaves it. {cure}") from None
    if min(size) < 1:
        raise ValueError(f"{path}: the image header says {size[0]}x{size[1]} pixels; the file is damaged. {cure}")
    return size


def _take(stream: BinaryIO, count: int) -> bytes:
    """The next `count` bytes; EOFError where the file ends before."""
    taken = stream.read(count)
    if len(taken) < count:
        raise EOFError
    return taken


def _segments(stream: BinaryIO) -> Iterator[int]:
    """The markers of a JPEG's segments up to its first scan; the stream stands at the segment's content.

    Convention: ITU-T T.81, annex B.
    """
    code, end = 0, 2
    while code != _JPEG_SCAN:
        stream.seek(end)
        head, end = _take(stream, 4), end + 4
        while head[0] != 0xFF or head[1] in (0x00, 0xFF):  # fill bytes, and garbage that decoders pass over too
            head, end = head[1:] + _take(stream, 1), end + 1
        code = head[1]
        end += max((head[2] << 8 | head[3]) - 2, 0)
        yield code
    stream.seek(end)


def _jpeg_size(stream: BinaryIO) -> tuple[int, int]:
    """(width, height) of a JPEG that has its end marker."""
    size = (0, 0)
    for code in _segments(stream):
        if code in _JPEG_FRAMES:
            height, width = struct.unpack(">xHH", _take(stream, 5))
            size = (width, height)
    scan = stream.tell()
    stream.seek(-2, os.SEEK_END)
    if stream.read() != _JPEG_END:  # some cameras and editors write more after the end
        stream.seek(scan)
        if _JPEG_END not in stream.read():  # inside a scan, 0xFF is always followed by 0x00 or a restart marker
            raise EOFError
    return size


def _png_size(stream: BinaryIO) -> tuple[int, int]:
    """(width, height) of a PNG that has its end chunk (PNG specification, section 5)."""
    stream.seek(16)
    width, height = struct.unpack(">II", _take(stream, 8))
    stream.seek(-min(12, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    if stream.read() != _PNG_END:
        stream.seek(len(_PNG))
        kind = b""
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", _take(stream, 8))
            stream.seek(length + 4, os.SEEK_CUR)
    return width, height


def _damaged_chunk(png: bytes) -> str:
    """The kind of the first chunk with a wrong checksum, "" where all fit: decoders pass over it in many a chunk."""
    place, view = len(_PNG), memoryview(png)
    while place + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        end = place + 8 + length
        if end + 4 > len(png) or zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return str(kind, "ascii", "backslashreplace")
        if kind == b"IEND":
            break
        place = end + 4
    return ""


def _webp_size(stream: BinaryIO) -> tuple[int, int]:
    """(width, height) of a WebP as long as it says it is (RFC 9649, section 2)."""
    stream.seek(4)
    length = 8 + int.from_bytes(_take(stream, 4), "little")
    stream.seek(12)
    chunk, body = struct.unpack("<4s4x10s", _take(stream, 18))
    if stream.seek(0, os.SEEK_END) < length:
        raise EOFError
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<6xHH", body)
    return width & 0x3FFF, height & 0x3FFF


def _exif_place(stream: BinaryIO) -> int | None:
    """Where the EXIF of the segment or chunk starts that the stream stands at; None where it holds something else."""
    return stream.tell() if _take(stream, 6) == b"Exif\0\0" else None


def _chunk_place(stream: BinaryIO, place: int, wanted: bytes) -> int | None:
    """Where the EXIF starts in a PNG (`wanted` is b"eXIf") or a WebP (b"EXIF") whose chunks start at `place`."""
    of_png = wanted == b"eXIf"
    while True:
        stream.seek(place)
        start = stream.read(8)
        if len(start) < 8:
            return None
        length, kind = struct.unpack(">I4s", start) if of_png else struct.unpack("<4sI", start)[::-1]
        if kind == wanted:
            return _exif_place(stream) or place + 8  # some writers repeat the JPEG's mark
        place += 12 + length if of_png else 8 + length + length % 2


def _orientation_tag(stream: BinaryIO, tiff: int) -> int:
    """The orientation in the first directory of the TIFF structure that starts at `tiff`."""
    stream.seek(tiff)
    order = "<" if _take(stream, 2) == b"II" else ">"
    _, offset = struct.unpack(f"{order}HI", _take(stream, 6))
    stream.seek(tiff + offset)
    (count,) = struct.unpack(f"{order}H", _take(stream, 2))
    for _ in range(count):
        tag, kind, _, value = struct.unpack(f"{order}HHI4s", _take(stream, 12))
        if tag == 0x0112 and kind in (3, 4):
            number = int(struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", value)[0])
            return number if number in _TURNS else AS_STORED
    return AS_STORED
