"""Many texts as two arrays: NAME_bytes uint8 [B], one behind the other, and NAME_ends int64 [M], where each ends."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from facelm.data.storage.array_file import Arrays

_AT_ONCE = 1000


def pack_texts(name: str, texts: Iterable[bytes]) -> Arrays:
    """The two arrays of these texts."""
    texts = list(texts)
    ends = np.cumsum([len(text) for text in texts], dtype="<i8")
    return {f"{name}_bytes": np.frombuffer(b"".join(texts), np.uint8), f"{name}_ends": ends}


def text_at(arrays: Arrays, name: str, number: int) -> bytes:
    """One of them, by its number from 0."""
    ends = arrays[f"{name}_ends"]
    return arrays[f"{name}_bytes"][ends[number - 1] if number else 0 : ends[number]].tobytes()


def texts_at(arrays: Arrays, name: str, numbers: NDArray[np.int64]) -> list[bytes]:
    """Those with these numbers `[N]`; many at once take less than half of what each alone takes."""
    ends, whole, texts = arrays[f"{name}_ends"], arrays[f"{name}_bytes"].data, []
    for start in range(0, len(numbers), _AT_ONCE):  # no lists of a million numbers
        some = numbers[start : start + _AT_ONCE]
        starts = np.where(some > 0, ends[some - 1], 0)
        texts += [bytes(whole[one:end]) for one, end in zip(starts.tolist(), ends[some].tolist(), strict=True)]
    return texts


def all_texts(arrays: Arrays, name: str) -> list[str]:
    """All of them, decoded: undecodable bytes as Python keeps those of file names."""
    numbers = np.arange(len(arrays[f"{name}_ends"]))
    return [text.decode("utf-8", "surrogateescape") for text in texts_at(arrays, name, numbers)]
