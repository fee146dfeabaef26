"""Named NumPy arrays in a section of a file, such that they are mapped and not read.

    magic, length of the list, checksum | list of the arrays as JSON | the arrays' bytes, each from a multiple of 64 on

A file may hold other things before and after. Nothing in it is unpickled, and whatever it says is checked.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from facelm import checked

ALIGNED = 64
"""Bytes: a section is to begin at a multiple of it."""

Arrays = dict[str, NDArray[Any]]

_MAGIC = b"facelm arrays 1\n"
_HEAD = struct.Struct("<16sQI4x")  # magic, bytes of the list, CRC of the list and the arrays
_TYPES = ("|u1", "|i1", "<u2", "<i4", "<i8", "<f8")
_MOST_ARRAYS, _LONGEST_LIST = 64, 2**16
_CHUNK = 2**22


@dataclass(frozen=True)
class Section:
    """Where arrays lie: the file, the section's first byte, the byte behind it, and its checksum."""

    path: Path
    start: int
    end: int
    checksum: int


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a section where `file` stands, a multiple of 64; `map_arrays` gives the arrays back."""
    whole = {name: np.ascontiguousarray(one, one.dtype.newbyteorder("<")) for name, one in arrays.items()}
    listed, at = [], 0
    for name, one in whole.items():
        listed.append([name, one.dtype.str, list(one.shape), at])
        at += _padded(one.nbytes)
    text = json.dumps(listed).encode()
    text += b" " * (_padded(_HEAD.size + len(text)) - _HEAD.size - len(text))
    checksum = zlib.crc32(text)
    for one in whole.values():
        checksum = zlib.crc32(bytes(_padded(one.nbytes) - one.nbytes), zlib.crc32(_bytes(one), checksum))
    file.write(_HEAD.pack(_MAGIC, len(text), checksum) + text)
    for one in whole.values():
        file.write(_bytes(one))
        file.write(bytes(_padded(one.nbytes) - one.nbytes))


def map_arrays(path: Path, start: int = 0, *, check: bool = True) -> tuple[Arrays, Section]:
    """The arrays of the section of `path` that begins at byte `start`, read-only, and where they lie.

    `check=False` saves reading all of them for their checksum.

    Raises:
        ValueError: no such section, or it is cut or damaged; the message starts with the path.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(start)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise ValueError(f"'{path}' holds no arrays of this version of facelm")
        _, length, checksum = _HEAD.unpack(head)
        if length > min(_LONGEST_LIST, size):
            raise ValueError(f"'{path}' is damaged: its list of arrays is too long")
        text = file.read(length)
        data = start + _HEAD.size + length
        try:
            listed = [_entry(one) for one in json.loads(text)[:_MOST_ARRAYS]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"'{path}' is damaged: {error}") from error
        end = data + max((at + _padded(prod(shape) * dtype.itemsize) for _, dtype, shape, at in listed), default=0)
        if end > size:
            raise ValueError(f"'{path}' is cut short")
        if check and _checksum(file, text, end - data) != checksum:
            raise ValueError(f"'{path}' is damaged: its checksum does not fit")
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {
        name: np.frombuffer(whole, dtype, prod(shape), data + at).reshape(shape) for name, dtype, shape, at in listed
    }
    return arrays, Section(path.absolute(), start, end, checksum)


def _entry(one: object) -> tuple[str, np.dtype[Any], list[int], int]:
    if not isinstance(one, list) or len(one) != 4 or one[1] not in _TYPES:
        raise ValueError(f"{checked.shown(one)} is no array")
    name, dtype, shape, at = one
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4:
        raise ValueError(f"{checked.shown(shape)} is no shape of an array")
    sizes = [checked.integer(size, "a size", 0, 2**40) for size in shape]
    return checked.text(name, "a name"), np.dtype(dtype), sizes, checked.integer(at, "an offset", 0, 2**50)


def _checksum(file: BinaryIO, text: bytes, length: int) -> int:
    """Read, not mapped: what is looked at through a mapping counts as this process's memory."""
    checksum = zlib.crc32(text)
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        checksum, length = zlib.crc32(chunk, checksum), length - len(chunk)
    return checksum


def _bytes(one: NDArray[Any]) -> memoryview:
    return one.reshape(-1).view(np.uint8).data


def _padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
