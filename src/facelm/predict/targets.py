"""Which inputs are still to be done, and whether their results may be written where they would go."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from facelm.predict.inputs import Input, folded, shown
from facelm.predict.journal import TABLES, Journal, identity, roots

Again = Literal["refuse", "overwrite", "skip"]
"""What is done where a folder has results: nothing, the same inputs anew, or those that are not there yet."""


def to_do(
    inputs: Sequence[Input],
    journal: Journal,
    *,
    formats: Collection[str],
    overlay: bool,
    crops: int | None = None,
    made: Mapping[str, str],
    again: Again = "refuse",
) -> list[Input]:
    """The inputs whose results are to be made. Nothing is written.

    Args:
        inputs: with the stems of their results.
        journal: that of the output folder.
        formats: of `files.FORMATS`.
        overlay: whether pictures and videos are written.
        crops: their size, if faces are cut out.
        made: the options that decide what the results are, by name.
        again: what results of an earlier run mean.

    Raises:
        FileExistsError: the folder has results and `again` is "refuse"; a file that is not facelm's is where a result
            would go; or results that would be skipped are of another file or were made with other options.
    """
    if again == "refuse" and journal.owned:
        raise FileExistsError(
            f"{shown(journal.folder)} holds the results of an earlier run. --skip-existing goes on with the inputs "
            "that are not there yet, --overwrite makes those given anew; both keep the others. Or choose another --out"
        )
    left = []
    for item in inputs:
        if again == "skip" and journal.is_done(item.name):
            _check_same(item, journal, made)
        else:
            left.append(item)
    files = {os.path.realpath(item.path) for item in inputs}
    _check_targets(left, files, journal, ({"json", "pts"} & {*formats}) | ({"png"} if crops else set()), overlay)
    for name in (TABLES[one] for one in TABLES if one in formats):
        if os.path.lexists(journal.folder / name) and name not in journal.tables:
            raise FileExistsError(_not_ours(journal.folder / name))
    return left


def _check_same(item: Input, journal: Journal, made: Mapping[str, str]) -> None:
    entry = journal.entries[item.name]
    if entry.of != identity(item.name):
        raise FileExistsError(
            f"{item.shown}: its results in {shown(journal.folder)} are of another file of this name, or it was changed "
            "since. --overwrite makes them anew; or choose another --out"
        )
    others = [name for name in made if made[name] != entry.made.get(name)]
    if others:
        raise FileExistsError(
            f"{item.shown}: its results in {shown(journal.folder)} were made with other options "
            f"({', '.join(others)}). --overwrite makes them anew; or choose another --out"
        )


def _check_targets(
    inputs: Sequence[Input], files: Collection[str], journal: Journal, formats: Collection[str], overlay: bool
) -> None:
    """Refuses inputs of which a result would replace a file that is not facelm's, or one of the inputs' `files`."""
    owned = journal.owned
    folders: dict[Path, Mapping[str, Sequence[str]]] = {}
    for item in inputs:
        stem = journal.folder / item.stem
        if stem.parent not in folders:
            folders[stem.parent] = _by_stem(stem.parent)
        endings = {*formats, ("jpg" if item.kind == "image" else "mp4") if overlay else ""}
        for name in folders[stem.parent].get(folded(stem.name), ()):
            path = stem.with_name(name)
            if name.rpartition(".")[2].lower() not in endings:
                continue
            if path.relative_to(journal.folder).as_posix() not in owned:
                raise FileExistsError(f"{item.shown}: {_not_ours(path)}")
            if os.path.realpath(path) in files:
                raise FileExistsError(f"{item.shown}: its result {shown(path)} is an input. Choose another --out")


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """Names in a folder by the folded stems whose results they could be."""
    named: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        base, _, ending = name.rpartition(".")
        for root in roots(base) if ending.lower() in ("pts", "png") else [base]:
            named.setdefault(folded(root), []).append(name)
    return named


def _not_ours(path: Path) -> str:
    return f"{shown(path)} is there and no result of facelm's, so it is not replaced. Move it, or choose another --out"
