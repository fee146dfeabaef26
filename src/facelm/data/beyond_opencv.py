"""Photographs that OpenCV does not read, or not rightly: HEIC, AVIF and TGA, and 10 or 12 bits in a 16-bit file."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm.geometry.affine import Image

DARK = 65
"""Where the 8 bits that OpenCV makes of a file are all below this, it may be a 16-bit one that holds fewer bits."""

_BITS = (8, 10, 12, 14, 16)  # what cameras and scanners write
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_of_the_box_kind(content: bytes) -> bool:
    """Whether an image file's bytes are AVIF or HEIC; how such a picture is turned is part of its format."""
    return _is_avif(content) or _is_heic(content)


def read_with_pillow(content: bytes) -> Image | None:
    """The upright pixels `[H, W, 3]` uint8 RGB of an AVIF, HEIC or TGA file's bytes; None where it is none of them.

    Raises:
        ValueError: a damaged AVIF or HEIC; or HEIC, and pillow-heif is not installed.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # how large is asked elsewhere
            if _is_heic(content):
                picture = _heic(content)  # turned already
            else:
                kind = "AVIF" if _is_avif(content) else "TGA"
                picture = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content), formats=[kind]))
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, EOFError, IndexError, RuntimeError, PIL.Image.DecompressionBombError) as error:
        if not is_of_the_box_kind(content):
            return None
        kind = "AVIF" if _is_avif(content) else "HEIC"
        raise ValueError(f"the {kind} picture is damaged or cut short ({error}). Copy or export it again") from error


def eight_bits(deep: NDArray[Any]) -> Image:
    """The upper 8 of the bits that an array of uint16 holds: by its largest value, 8, 10, 12, 14 or 16."""
    largest = int(deep.max(initial=0))
    bits = next(bits for bits in _BITS if largest < 1 << bits)
    return (deep >> (bits - 8)).astype(np.uint8)


def _heic(content: bytes) -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise ValueError(
            "HEIC is read with pillow-heif, which is not installed. Run pip install 'facelm[heic]', or save it as JPEG"
        ) from None
    try:
        return pillow_heif.open_heif(io.BytesIO(content)).to_pillow()
    except ValueError as error:  # its own for what is damaged
        raise OSError(str(error)) from error


def _is_avif(content: bytes) -> bool:
    return b"avif" in _brands(content) or b"avis" in _brands(content)


def _is_heic(content: bytes) -> bool:
    return not _is_avif(content) and any(brand in _HEIC for brand in _brands(content))


def _brands(content: bytes) -> list[bytes]:
    """What the first box of an ISO file (ISO 14496-12, section 4.3) says that the file is; none of another file."""
    if content[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(content[:4], "big"), 256)
    return [content[place : place + 4] for place in (8, *range(16, end, 4))]
