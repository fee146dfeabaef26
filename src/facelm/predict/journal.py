"""What `facelm predict` has written into a folder, line by line beside the results: `.facelm-results.jsonl`.

It says which files are facelm's own, so that no other file is ever replaced, which inputs are done, so that a run that
was ended goes on, and holds what goes into `landmarks.csv`, `landmarks.parquet` and `landmarks.coco.json` until they
are written whole. Each line is a JSON list:

| line | says |
|---|---|
| `["facelm results", 1]` | the first line: what this file is, and its version |
| `["begin", NAME, STEM, {OPTION: HOW}, [BYTES, TIME]]` | an input, its files' stem, what made them, from what |
| `["file", PATH]` | of the input begun last: a file that is facelm's from now on, under the folder |
| `["row", [CELL, ...]]` | of the input begun last: a row of the table |
| `["done"]` | the input begun last has all its files; those of an earlier run that are not among them are gone |
| `["photograph", FOLDER, IMAGE, [ANNOTATION, ...]]` | of the input begun last: its COCO entries, see `coco` |
| `["table"]` | `landmarks.csv` is facelm's from now on |
| `["table", FILE]` | that one of `TABLES` is |
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from facelm import checked
from facelm.files import take_lock

JOURNAL, TABLE = ".facelm-results.jsonl", "landmarks.csv"
TABLES = {"csv": TABLE, "coco": "landmarks.coco.json", "parquet": "landmarks.parquet"}
"""The files that hold the results of all inputs, by the format that makes them."""

_FIRST = ["facelm results", 1]


@dataclass
class Entry:
    """What the journal says of one input; `line` is that of its last "begin", `former` its files of earlier runs."""

    stem: str
    made: Mapping[str, str]
    of: list[int]
    line: int
    files: set[str] = field(default_factory=set)
    former: set[str] = field(default_factory=set)
    done: bool = False


class Journal:
    """The journal of a folder as it stands, and what is added to it; nothing is written before `open`.

    One whose results are all gone counts as none.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.entries: dict[str, Entry] = {}
        self.tables: set[str] = set()
        self._current: Entry | None = None
        self._lines = self._size = 0  # what of the file counts
        self._seen = _size(self.path)
        self._file: IO[bytes] | None = None
        self._read()

    @property
    def stems(self) -> dict[str, str]:
        """The stem of each input by its name."""
        return {name: entry.stem for name, entry in self.entries.items()}

    @property
    def owned(self) -> set[str]:
        """The files that are facelm's, relative to the folder."""
        files = {file for entry in self.entries.values() for file in entry.files | entry.former}
        return files | self.tables

    def is_done(self, name: str) -> bool:
        """Whether the input's results are there, whole (a file of no bytes is what a power cut leaves)."""
        entry = self.entries.get(name)
        return entry is not None and entry.done and all(_size(self.folder / file) for file in entry.files)

    def open(self) -> None:
        """Makes the journal ready for more lines.

        Raises:
            FileExistsError: another process writes to this folder.
            OSError: it cannot be written.
        """
        self._file = self.path.open("ab")
        free = True
        with suppress(ImportError, OSError):  # where there are no locks, nothing is locked
            free = take_lock(self._file, wait=False)
        if not free or os.fstat(self._file.fileno()).st_size != self._seen:
            self.close()
            raise FileExistsError(
                f"another facelm predict writes to {str(self.folder)!r}: wait for its end, or choose another --out"
            )
        self._file.truncate(self._size)  # what a kill has cut
        if not self._size:
            self._add(*_FIRST)

    def close(self) -> None:
        """Ends the writing."""
        if self._file:
            with suppress(OSError):  # said already where the line was added
                self._file.close()

    def begin(self, name: str, stem: str, made: Mapping[str, str]) -> None:
        """Says that the results of an input are being made."""
        self._add("begin", name, stem, dict(made), identity(name))

    def claim(self, file: str) -> Path:
        """The path of a result that is to be written.

        Raises:
            FileExistsError: a file is there that is not facelm's.
        """
        path, entry = self.folder / file, self._current
        if entry is None:
            raise RuntimeError("claim() before begin()")
        if file not in entry.files:
            if os.path.lexists(path) and file not in entry.former and file not in self.owned:
                raise FileExistsError(f"{str(path)!r} is there and no result of facelm's; move it")
            self._add("file", file)
        return path

    def row(self, cells: list[Any]) -> None:
        """Adds a row to the table to come."""
        self._add("row", cells)

    def done(self) -> None:
        """Says that the input's files are all there, and removes what an earlier run had made of it besides."""
        if (entry := self._current) is not None:
            for file in entry.former - entry.files:
                if belongs(file, entry.stem):
                    (self.folder / file).unlink(missing_ok=True)
        self._add("done")

    def photograph(self, folder: str, image: Mapping[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Adds the COCO entries of the input, whose names start from `folder`."""
        self._add("photograph", folder, image, annotations)

    def claim_table(self, name: str = TABLE) -> Path:
        """The path of one of `TABLES`.

        Raises:
            FileExistsError: a file is there that is not facelm's.
        """
        if name not in self.tables:
            if os.path.lexists(self.folder / name):
                raise FileExistsError(f"{str(self.folder / name)!r} is there and no result of facelm's; move it")
            self._add("table", *([] if name == TABLE else [name]))
        return self.folder / name

    def rows(self) -> Iterator[list[Any]]:
        """The rows of every input that is done, its last ones."""
        return (line[1] for line in self._last("row"))

    def photographs(self) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
        """The COCO entries of every input that is done, its last ones."""
        return ((line[1], line[2], line[3]) for line in self._last("photograph"))

    def _last(self, kind: str) -> Iterator[list[Any]]:
        whole = {entry.line for entry in self.entries.values() if entry.done}
        wanted = False
        for number, line in enumerate(self._stored(), start=1):
            if line[0] == "begin":
                wanted = number in whole
            elif line[0] == kind and wanted:
                yield line

    def _add(self, *line: Any) -> None:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise type(error)(error.errno, os.strerror(error.errno or 0), str(self.path)) from error
        self._take(list(line))

    def _read(self) -> None:
        for line in self._stored():
            self._take(line)
        if not any(os.path.lexists(self.folder / file) for file in self.owned):
            self.entries, self._lines, self._size = {}, 0, 0
            self.tables = set()

    def _stored(self) -> Iterator[list[Any]]:
        """The lines that are whole; the last one may be cut."""
        if not self.path.is_file():
            return
        size = 0
        with self.path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                if not content.endswith(b"\n"):
                    break
                where = f"line {number} of {str(self.path)!r}"
                try:
                    line = json.loads(content)
                    if (number == 1) != (line == _FIRST) or not isinstance(line, list):
                        raise ValueError
                except (ValueError, RecursionError):
                    raise ValueError(
                        f"{where} is damaged, so it is not known which files are facelm's. Choose another --out, or "
                        "remove this file and the results"
                    ) from None
                size += len(content)
                yield line
        self._size = size

    def _take(self, line: list[Any]) -> None:
        """Takes in what a line says, whether it was read or is added."""
        self._lines += 1
        where = f"line {self._lines} of {str(self.path)!r}"
        match line:
            case ["begin", str() as name, str() as stem, made, of]:
                made = {key: checked.text(one, where) for key, one in checked.mapping(made, where).items()}
                former = self.entries.get(name)
                self._current = Entry(_below(stem, where), made, of, self._lines)
                if former:
                    self._current.former = former.files | former.former
                self.entries[name] = self._current
            case ["file", str() as file] if self._current:
                self._current.files.add(_below(file, where))
            case ["done"] if self._current:
                self._current.done = True
                self._current.former = set()
            case ["table"]:
                self.tables.add(TABLE)
            case ["table", str() as file] if file in TABLES.values():
                self.tables.add(file)
            case ["row", [*_]] | ["photograph", str(), {"file_name": str()}, [*_]] | ["facelm results", 1]:
                pass
            case _:
                raise ValueError(f"{where} is none that facelm {_FIRST[1]} knows: {checked.shown(line)}")


def identity(name: str) -> list[int]:
    """Size and time of the input's file, by which another of the same name is told; empty for a camera."""
    try:
        stat = os.stat(name)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def roots(stem: str) -> list[str]:
    """The stems of which `stem` may be a part: itself, and without the number of a face, of a frame, or of both."""
    face = re.sub(r"(?i)-face\d+\Z", "", stem)
    return list(dict.fromkeys([stem, face, re.sub(r"-\d{6,}\Z", "", face)]))


def belongs(file: str, stem: str) -> bool:
    """Whether a file may be a result of the input of that stem."""
    base, _, ending = file.rpartition(".")
    return ending in ("jpg", "json", "mp4", "png", "pts") and stem in roots(base)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _below(file: str, where: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{where} names {checked.shown(file)}, which leads out of the folder")
    return file
