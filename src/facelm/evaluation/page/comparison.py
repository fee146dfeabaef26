"""The page of a comparison: two or more runs on the same faces, the first of them the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facelm import __version__
from facelm.evaluation.faces_shown import Facet, facets, point_errors
from facelm.evaluation.kept import Kept, Origin, confidences, read_predictions
from facelm.evaluation.metrics import FacePredictions, IntArray, paired_bootstrap
from facelm.evaluation.page.html import page_html
from facelm.evaluation.page.numbers import about, ced_content, face_columns, scheme_content, with_all
from facelm.evaluation.page.pictures import borrow_thumbnails, remove_others, write_thumbnails
from facelm.evaluation.page.write import FILE
from facelm.evaluation.scores import BoolArray, evaluate_faces
from facelm.files import write_whole
from facelm.geometry.landmarks import FloatArray

MOST_RUNS = 6
"""On a page: more lines cannot be told apart."""

MOST_FACES = 1200

HEADER = ["run", "subset", "n", "baseline", "NME", "difference", "95 % interval", "relative", ""]


def write_comparison_page(folder: Path, reports: Mapping[str, Path]) -> int:
    """Writes index.html and its thumbnails into `folder` for reports by their run; how many faces it counts.

    Thumbnails are those of the reports.

    Raises:
        FileNotFoundError: a report keeps no predictions.
        ValueError: the runs have other points, or not one face in common; or a file is damaged.
        OSError: a file cannot be written.
    """
    runs = on_same_faces({name: read_predictions(report) for name, report in reports.items()})
    first, other, *_ = runs.values()
    rows = changed_most(change_of(first, other))
    names = [first.result.names[row] for row in rows]
    borrow_thumbnails(folder, names, reports.values())
    files, sharp = write_thumbnails(folder, first.result, rows, None, write_whole)
    remove_others(folder, files)
    content = comparison_content(runs, rows, files, sharp)
    write_whole(folder / FILE, page_html(f"Comparison: {' and '.join(runs)}", content))
    return len(first.result.names)


def on_same_faces(runs: Mapping[str, Kept]) -> dict[str, Kept]:
    """`runs` with the faces that all have, in one order: of the same name, subsets apart, and the same annotation.

    Raises:
        ValueError: the schemes differ, or no face is left.
    """
    first = next(iter(runs.values()))
    for name, kept in runs.items():
        if kept.result.scheme != first.result.scheme:
            raise ValueError(
                f"{name} has the points of {kept.result.scheme.name}, {next(iter(runs))} those of "
                f"{first.result.scheme.name}: there is no page of both"
            )
    places = [{name: row for row, name in enumerate(kept.result.names)} for kept in runs.values()]
    shared = [name for name in places[0] if all(name in place for place in places)]
    same = [
        name for name in shared if _same_annotation([(k, p[name]) for k, p in zip(runs.values(), places, strict=True)])
    ]
    if not same:
        raise ValueError(
            f"{' and '.join(runs)} have no face in common with the same landmarks: there is no page of both"
        )
    subsets = [name for name in first.result.masks if all(name in kept.result.masks for kept in runs.values())]
    return {
        run: taken(kept, np.array([place[name] for name in same]), subsets)
        for (run, kept), place in zip(runs.items(), places, strict=True)
    }


def _same_annotation(found: Sequence[tuple[Kept, int]]) -> bool:
    first, *others = (kept.result.predictions.target[row] for kept, row in found)
    return all(np.array_equal(first, other, equal_nan=True) for other in others)


def taken(kept: Kept, rows: IntArray, subsets: Sequence[str]) -> Kept:
    """`kept` of the faces `rows` alone, with those of `subsets` that have one of them."""
    faces, origin = kept.result.predictions, kept.origin
    part = FacePredictions(
        np.arange(len(rows)),
        faces.predicted[rows],
        faces.target[rows],
        None if faces.side is None else faces.side[rows],
        confidences(faces)[rows],
    )
    masks = {name: kept.result.masks[name][rows] for name in subsets if kept.result.masks[name][rows].any()}
    names = [kept.result.names[row] for row in rows]
    result = evaluate_faces(part, names, masks, scheme=kept.result.scheme)
    images = tuple(origin.images[row] for row in rows)
    return replace(
        kept, result=result, origin=Origin(origin.boxes[rows], images, origin.orientations[rows], origin.mean_shape)
    )


def change_of(first: Kept, other: Kept) -> FloatArray:
    """The error of each face `[N]` in percent, that of `other` less that of `first`; NaN where one is not finite."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * (other.result.errors.nme - first.result.errors.nme))


def changed_most(change: FloatArray, most: int = MOST_FACES) -> IntArray:
    """Rows to show: all, or of more than `most` those that got worse most, those that got better, and a sample."""
    order = np.argsort(-np.nan_to_num(change, nan=np.inf, posinf=np.inf), kind="stable")
    if len(order) <= most:
        return np.asarray(order)
    end = most // 3
    others = np.random.default_rng(0).choice(np.arange(end, len(order) - end), most - 2 * end, replace=False)
    return np.concatenate([order[:end], order[np.sort(others)], order[len(order) - end :]])


def comparison_content(
    runs: Mapping[str, Kept], rows: IntArray, files: Sequence[str | None], sharp: FloatArray
) -> dict[str, Any]:
    """What the page shows, as plain values: `rows` are the faces on it, `files` their thumbnails."""
    names, (first, *others) = list(runs), runs.values()
    result, change = first.result, change_of(first, others[0])
    groups = with_all(result.masks)
    found = {f"error, {run}": Facet(f"error, {run}, %", 100 * one.result.errors.nme, 2) for run, one in runs.items()}
    found |= {
        "change": Facet(f"change to {names[1]}, points", change, 2),
        "changed by": Facet("change either way, points", np.abs(change), 2),
    }
    if len(result.errors.regions) > 1:
        for region, errors in result.errors.regions.items():
            moved = 100 * (others[0].result.errors.regions[region] - errors)
            found[f"change of the {region}"] = Facet(f"change of the {region}, points", moved, 2)
    found |= facets(result.predictions, result.scheme)
    if np.isfinite(sharp).any():
        every = np.full(len(result.names), np.nan)
        every[rows] = sharp
        found["sharpness"] = Facet("sharpness", every)
    table = paired_rows(runs, groups)
    return {
        "kind": "comparison",
        "version": __version__,
        "lead": f"{len(result.names):,} faces of both, {result.scheme.num_landmarks} points. {verdict(table, names)}",
        "runs": names,
        "subsets": list(result.masks),
        "scheme": scheme_content(result.scheme),
        "table": {
            "header": HEADER,
            "rows": table,
            "own": len(table),
            "captions": [
                f"Errors in percent. Difference: the run less {names[0]} on the same faces; below 0 is better. "
                "Interval: 95 % bootstrap, paired by face. Better or worse is said where it leaves out 0."
            ],
        },
        "ced": {
            group: ced_content({run: one.result.errors.nme[mask] for run, one in runs.items()})
            for group, mask in groups.items()
        },
        "regions": {group: _regions(runs, mask) for group, mask in groups.items()},
        "points": {
            group: {run: point_errors(one.result.predictions, mask, result.scheme) for run, one in runs.items()}
            for group, mask in groups.items()
        },
        "curves": {},
        "faces": face_columns(runs, rows, found, files),
        "about": [[f"{run}: {name}", said] for run, one in runs.items() for name, said in about(one.facts)],
    }


def _regions(runs: Mapping[str, Kept], mask: BoolArray) -> dict[str, Any]:
    """The mean error of each region in percent, by run; None where one face has no finite error."""
    means = {run: [values[mask].mean() for values in one.result.errors.regions.values()] for run, one in runs.items()}
    series = {run: [round(100 * one, 3) if np.isfinite(one) else None for one in found] for run, found in means.items()}
    return {"names": list(next(iter(runs.values())).result.errors.regions), "series": series}


def paired_rows(runs: Mapping[str, Kept], groups: Mapping[str, BoolArray]) -> list[list[str]]:
    """The table: each run but the first against the first, over the faces of each group that both have errors for."""
    (_, first), *others = runs.items()
    lines = []
    for run, other in others:
        for group, mask in groups.items():
            was, now = 100 * first.result.errors.nme[mask], 100 * other.result.errors.nme[mask]
            both = np.isfinite(was) & np.isfinite(now)
            if not both.any():
                continue
            mean, low, high = paired_bootstrap(was[both], now[both])
            base = float(was[both].mean())
            said = "better" if high < 0 else "worse" if low > 0 else ""
            lines.append([
                run, group, str(int(both.sum())), f"{base:.2f}", f"{base + mean:.2f}", f"{mean:+.3f}",
                f"{low:+.3f} to {high:+.3f}", f"{100 * mean / base:+.1f} %", said,
            ])  # fmt: skip
    return lines


def verdict(table: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """The first line of the table in words."""
    if not table:
        return ""
    run, _, _, was, now, difference, interval, _, said = table[0]
    end = f"the interval leaves out 0: it is {said}" if said else "the interval holds 0: no difference is shown"
    return f"{run} has {now} %, {names[0]} {was} %, a difference of {difference} ({interval}): {end}."
