"""What an evaluation leaves behind: the table on the console, and a folder of numbers and pictures.

    summary.json   the table's rows in percent, and what was evaluated
    per_face.csv   one line per face, in percent
    predictions.npz landmarks, annotations, confidences, boxes: see `kept`; `facelm report` makes all of this from it
    table.md       the table as Markdown
    where.md       where the error is: by region and point, along and across the contours, by pose and size
    ced.png regions.png worst.png
    index.html     all of it to explore in a browser, and index_files/ with thumbnails of the faces
    worst.csv      the worst faces, and worst/ with a picture of each: predicted and annotated landmarks

Numbers are written before pictures, each file whole or not at all.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from facelm.evaluation.kept import FILE, Kept, Origin, no_origin, write_predictions
from facelm.evaluation.overlay import draw_face_tile, encoded
from facelm.evaluation.page.heatmaps import HeatmapsOf
from facelm.evaluation.page.write import write_report_page
from facelm.evaluation.plots import ImageOf, ced_plot, regions_plot, worst_faces, worst_plot
from facelm.evaluation.scores import SCORES, BoolArray, EvaluationResult, SubsetScores
from facelm.evaluation.where import where_markdown
from facelm.files import cell, write_whole

Published = Mapping[str, Mapping[str, float]]
"""Numbers to stand beside ours: source -> subset -> inter-ocular NME in percent."""

MEAN_SHAPE = "mean shape"
"""Names the rows of a predictor that puts the average training face into each ground-truth box."""

NORMALISED = {"interocular": "inter-ocular", "interpupil": "inter-pupil", "box": "by the side of the face's box"}
"""How a caption calls each of `geometry.landmarks.NORMALISERS`."""

_DISPENSABLE = ("inter-pupil", "box", "AUC@10", "FR@10", "n", "AUC@8")
"""Columns that a narrow terminal loses, the first one first."""


def write_report(
    folder: Path | str,
    result: EvaluationResult,
    *,
    facts: Mapping[str, object] | None = None,
    published: Published | None = None,
    notes: Sequence[str] = (),
    image_of: ImageOf | None = None,
    origin: Origin | None = None,
    heatmaps_of: HeatmapsOf | None = None,
) -> Path:
    """Writes all files of the report into `folder` (made if need be) and returns it.

    `facts` says what was evaluated (plain values; `checkpoint` in summary.json). `image_of` gives the RGB photograph
    of a face by its index; without it there is no worst.png. `origin` says where the faces come from, for
    predictions.npz. `heatmaps_of` gives a face's by its index; without it those of these predictions stay.

    Raises:
        OSError: a file cannot be written; the message names it. Files of an earlier report stay as they are.
    """
    folder = Path(folder)
    try:
        (folder if image_of is None else folder / "worst").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    origin, published = origin or no_origin(len(result.names)), published or {}
    kept = Kept(result, origin, dict(_plain(dict(facts or {}))), _plain(published), tuple(notes))
    _write(folder / "summary.json", _json(summary(result, facts=facts, published=published, notes=notes)))
    _write(folder / "per_face.csv", per_face_csv(result).encode(errors="surrogateescape"))
    _write(folder / "table.md", markdown_table(result, published=published, notes=notes).encode())
    _write(folder / "where.md", where_markdown(result).encode())
    try:
        write_predictions(folder / FILE, kept)
    except OSError as error:
        raise _cannot_write(folder / FILE, error) from error
    _write(folder / "ced.png", ced_plot(result))
    _write(folder / "regions.png", regions_plot(result))
    if image_of is not None:
        _write(folder / "worst.png", worst_plot(result, image_of, occluded=origin.occluded))
        _write_worst_faces(folder, result, image_of, origin.occluded)
    lines = {"header": _header(published), "rows": list(_rows(result, published))}
    table = {**lines, "captions": _captions(result, published, notes), "own": len(result.subsets)}
    write_report_page(folder, kept, table, image_of, _write, heatmaps_of)
    return folder


# --- Numbers --------------------------------------------------------------------------------------------------------


def summary(
    result: EvaluationResult,
    *,
    facts: Mapping[str, object] | None = None,
    published: Published | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of summary.json, plain values only; a number that is not finite is None.

    A subset says `unmeasured` where some of its faces have no finite error, and `notes` what that does to its numbers.
    """
    content = {
        "unit": "percent",
        "subsets": {name: row.percent() for name, row in result.subsets.items()},
        "mean_shape": {name: row.percent() for name, row in result.mean_shape.items()},
        "checkpoint": dict(facts or {}),
        "published": dict(published or {}),
        "notes": [*_unmeasured(result), *notes],
    }
    plain = _plain(content)
    return dict(plain)


def _plain(value: object) -> Any:
    """`value` as JSON holds it: no numpy, no paths, no NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def per_face_csv(result: EvaluationResult) -> str:
    """One line per face in percent: name, its subsets joined by `+`, each error; empty where it is not finite."""
    errors = result.errors
    columns = {"nme": errors.nme, "nme_interpupil": errors.nme_interpupil, "nme_box": errors.nme_box}
    columns |= {f"nme_{region}": values for region, values in errors.regions.items()}
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "subset", *columns])
    for row, name in enumerate(result.names):
        subsets = "+".join(subset for subset, mask in result.masks.items() if mask[row])
        values = (100 * float(column[row]) for column in columns.values())
        writer.writerow([cell(name), subsets, *(f"{value:.6f}" if math.isfinite(value) else "" for value in values)])
    return text.getvalue()


def _write_worst_faces(
    folder: Path, result: EvaluationResult, image_of: ImageOf, occluded: BoolArray | None, count: int = 12
) -> None:
    """worst.csv, worst face first, and the picture that each of its lines names."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "name", "subset", "nme", "file"])
    for rank, row in enumerate(worst_faces(result, count), start=1):
        faces, error = result.predictions, 100 * float(result.errors.nme[row])
        image = image_of(int(faces.index[row]))
        hidden = None if occluded is None else occluded[row]
        tile = draw_face_tile(image, faces.predicted[row], result.scheme, truth=faces.target[row], hidden=hidden)
        file = f"worst/{rank:02d}.png"
        _write(folder / file, encoded(tile, ".png"))
        subsets = "+".join(subset for subset, mask in result.masks.items() if mask[row])
        writer.writerow([rank, cell(result.names[row]), subsets, f"{error:.6f}" if math.isfinite(error) else "", file])
    _write(folder / "worst.csv", text.getvalue().encode(errors="surrogateescape"))


# --- The table ------------------------------------------------------------------------------------------------------


def _number(value: float | None, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "-"


def _cells(name: str, row: SubsetScores) -> list[str]:
    percent = row.percent()
    interval = percent.get("nme_ci95")
    return [
        name,
        str(row.n),
        _number(percent["nme"]),
        "" if interval is None else f"{_number(interval[0])}-{_number(interval[1])}" if not row.unmeasured else "-",
        *(_number(percent[name]) for name in SCORES if name != "nme"),
    ]


def _header(published: Published) -> list[str]:
    others = [score.title for name, score in SCORES.items() if name != "nme"]
    return ["subset", "n", SCORES["nme"].title, "interval", *others, *published]


def _rows(result: EvaluationResult, published: Published) -> Iterator[list[str]]:
    """The table's cells: a row per subset with the published NME beside it, then the mean shape's rows."""
    for name, row in result.subsets.items():
        yield _cells(name, row) + [_number(numbers.get(name)) for numbers in published.values()]
    for name, row in result.mean_shape.items():
        yield _cells(f"{MEAN_SHAPE}, {name}", row) + [""] * len(published)


def _captions(result: EvaluationResult, published: Published, notes: Sequence[str]) -> list[str]:
    length = NORMALISED[result.scheme.normaliser]
    captions = [f"Percent. NME, FR and AUC: {length}. Interval: 95 % bootstrap interval of the NME over faces."]
    if published:
        captions.append(f"{', '.join(published)}: published NME.")
    if result.mean_shape:
        captions.append("Mean shape: the average training face in the ground-truth box; what learning nothing scores.")
    return [*captions, *_unmeasured(result), *notes]


def _unmeasured(result: EvaluationResult) -> list[str]:
    """What is said of faces without a finite error: how many of each subset, and what their row does with them."""
    rows = {name: row for name, row in result.subsets.items() if row.unmeasured}
    told = []
    if result.left_out:
        told.append(
            f"{result.left_out} faces are left out: no labels for what divides their errors "
            f"({NORMALISED[result.scheme.normaliser]})."
        )
    if not rows:
        return told
    counts = ", ".join(f"{row.unmeasured} of {row.n} faces ({name})" for name, row in rows.items())
    return [
        *told,
        f"No finite landmarks: {counts}. They are not dropped: NME and interval of these rows have no value (-), FR "
        "counts them as failures, AUC as 0; their errors in per_face.csv are empty.",
    ]


def markdown_table(result: EvaluationResult, *, published: Published | None = None, notes: Sequence[str] = ()) -> str:
    """The table as Markdown, with what its columns mean and the notes below."""
    published = published or {}
    header = _header(published)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *_rows(result, published)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return "\n\n".join([table, *_captions(result, published, notes)]) + "\n"


def print_table(
    result: EvaluationResult,
    *,
    published: Published | None = None,
    notes: Sequence[str] = (),
    title: str | None = None,
    console: Console | None = None,
) -> None:
    """Prints the table: in a terminal the columns that fit, in a log file all of them."""
    published = published or {}
    console = console or Console()
    unlimited = console.options.update(max_width=10_000)
    captions = _captions(result, published, notes)
    for hidden in range(len(_DISPENSABLE) + 1):
        table = _console_table(result, published, title, _DISPENSABLE[:hidden])
        needed = Measurement.get(console, unlimited, table).maximum
        if needed <= console.width or not console.is_terminal:
            break
    if hidden:
        captions.append(f"Not shown in {console.width} columns: {', '.join(_DISPENSABLE[:hidden])}; see table.md.")
    if not console.is_terminal:
        console.width = max(console.width, needed)
    console.print(table)
    for caption in captions:
        console.print(caption, style="dim", markup=False, highlight=False)


def _console_table(result: EvaluationResult, published: Published, title: str | None, hidden: Sequence[str]) -> Table:
    """The table for the console, without the columns in `hidden`."""
    header = _header(published)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    shown = [position for position, column in enumerate(header) if column not in hidden]
    for column in (header[position] for position in shown):
        side: Literal["left", "right"] = "left" if column == "subset" else "right"
        table.add_column(Text(column), justify=side, no_wrap=True, style="bold" if column == "NME" else "")
    for number, cells in enumerate(_rows(result, published), start=1):
        style = "" if number <= len(result.subsets) else "dim"
        table.add_row(*(Text(cells[i]) for i in shown), style=style, end_section=number == len(result.subsets))
    return table


# --- Files ----------------------------------------------------------------------------------------------------------


def _write(path: Path, content: bytes) -> None:
    """Writes `content` whole or not at all: a full disk leaves the file of an earlier report as it was."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: PurePath, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    return type(error)(
        f"cannot write the report to '{path}': {reason}. Is it a folder that you may write to, on a disk with space "
        "left? Choose another with report_dir=PATH"
    )
