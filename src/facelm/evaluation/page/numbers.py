"""What the page of a report shows, as plain values."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facelm import __version__
from facelm.addresses import shareable
from facelm.evaluation.faces_shown import Facet, chosen, facets, membership, numbers, point_errors
from facelm.evaluation.kept import Kept
from facelm.evaluation.metrics import IntArray, ced
from facelm.evaluation.page.pictures import in_thumbnails
from facelm.evaluation.scores import BoolArray, EvaluationResult
from facelm.geometry.landmarks import FloatArray, LandmarkScheme
from facelm.models.expected import ExpectedError
from facelm.models.spec import ModelSpec

NORMALISER = {"interocular": "inter-ocular distance", "interpupil": "inter-pupil distance", "box": "side of the box"}

ALL = "all"

CURVES = {
    "val/nme": "val NME, %",
    "train/loss": "train loss",
    "val/loss": "val loss",
    "train/lr": "learning rate",
    "train/images_per_second": "images a second",
    "train/data_wait": "data wait, % of the time",
}
"""Columns of metrics.csv that are drawn, and their titles."""

_MOST_DOTS = 600


def scheme_content(scheme: LandmarkScheme) -> dict[str, Any]:
    """What the page needs to know about the points."""
    return {
        "name": scheme.name,
        "points": scheme.num_landmarks,
        "names": list(scheme.names),
        "contours": [list(line) for line in scheme.contours],
        "unit": NORMALISER[scheme.normaliser],
    }


def ced_content(curves: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Named cumulative distributions of errors `[N]` (fractions), in percent: the share of faces at each of `x`."""
    known = np.concatenate([errors[np.isfinite(errors)] for errors in curves.values()] or [np.zeros(0)])
    limit = max(12.0, min(40.0, math.ceil(20 * float(np.quantile(known, 0.95))) * 5.0 if known.size else 12.0))
    x = np.linspace(0, limit, 241)
    series = {name: numbers(100 * ced(errors, x / 100), 3) for name, errors in curves.items()}
    return {"x": numbers(x, 3), "series": series}


def face_columns(
    kept: Mapping[str, Kept], rows: IntArray, found: Mapping[str, Facet], files: Sequence[str | None]
) -> dict[str, Any]:
    """The faces `rows` of runs that have the same: names, subsets, numbers, pictures and both sets of landmarks."""
    first = next(iter(kept.values()))
    result, occluded = first.result, first.origin.occluded
    return {
        "names": [result.names[row] for row in rows],
        "subsets": membership(result.masks, rows),
        "files": list(files),
        "facets": {
            name: {"label": one.label, "digits": one.digits, "values": numbers(one.values[rows], 4)}
            for name, one in found.items()
        },
        "annotated": in_thumbnails(result.predictions.target, result, rows),
        "predicted": [in_thumbnails(one.result.predictions.predicted, result, rows) for one in kept.values()],
        "hidden": [] if occluded is None else [np.flatnonzero(occluded[row]).tolist() for row in rows],
        "of": len(result.names),
    }


def error_facets(result: EvaluationResult, suffix: str = "") -> dict[str, Facet]:
    """The error of each face, whole and by region, in percent."""
    found = {"error": Facet(f"error{suffix}, %", 100 * result.errors.nme, 2)}
    if len(result.errors.regions) > 1:
        found |= {
            f"error of the {name}": Facet(f"error of the {name}{suffix}, %", 100 * values, 2)
            for name, values in result.errors.regions.items()
        }
    return found


def known_error(kept: Kept) -> ExpectedError | None:
    """What the evaluated model's spec says of its errors; None where it says nothing, or is about other points."""
    checkpoint = kept.facts.get("checkpoint")
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("spec"), Mapping):
        return None
    try:
        spec = ModelSpec.from_dict(checkpoint["spec"])
    except ValueError:  # of a later facelm, or damaged: the page does without
        return None
    return spec.known_error if spec.scheme == kept.result.scheme else None


def with_all(masks: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
    """`masks`, and before them one of all faces, unless there is but one: it holds all."""
    if len(masks) == 1:
        return dict(masks)
    return {ALL: np.ones(len(next(iter(masks.values()), ())), dtype=bool), **masks}


def report_rows(kept: Kept) -> IntArray:
    """The faces that a page shows, worst first."""
    return chosen(kept.result.errors.nme)


def report_content(
    kept: Kept,
    table: Mapping[str, Any],
    rows: IntArray,
    files: Sequence[str | None],
    sharp: FloatArray,
    curves: Mapping[str, Any],
) -> dict[str, Any]:
    """The page of one report; `sharp` follows `rows`, the faces that are shown, and `files` are their thumbnails."""
    result = kept.result
    found = error_facets(result) | facets(result.predictions, result.scheme, known_error(kept))
    if kept.origin.occluded is not None:
        found["hidden"] = Facet("hidden points", kept.origin.occluded.sum(axis=1).astype(np.float64), 0)
    if np.isfinite(sharp).any():
        every = np.full(len(result.names), np.nan)
        every[rows] = sharp
        found["sharpness"] = Facet("sharpness", every)
    groups = with_all(result.masks)
    regions = {name: numbers(np.array([*row.regions.values()]) * 100, 3) for name, row in result.subsets.items()}
    return {
        "kind": "report",
        "version": __version__,
        "lead": lead(result),
        "runs": ["predicted"],
        "subsets": list(result.masks),
        "scheme": scheme_content(result.scheme),
        "table": table,
        "ced": {"": ced_content({name: result.errors.nme[mask] for name, mask in result.masks.items()})},
        "regions": {"": {"names": list(result.errors.regions), "series": regions}},
        "points": {name: {"": point_errors(result.predictions, mask, result.scheme)} for name, mask in groups.items()},
        "curves": curves,
        "faces": face_columns({"predicted": kept}, rows, found, files),
        "about": about(kept.facts),
    }


def lead(result: EvaluationResult) -> str:
    """The page's first line: how many faces, and the error of each subset."""
    errors = [f"{name} {100 * row.nme:.2f} %" for name, row in result.subsets.items() if math.isfinite(row.nme)]
    return f"{len(result.names):,} faces, {result.scheme.num_landmarks} points. NME: {', '.join(errors) or 'none'}"


def learning_curves(folder: Path) -> dict[str, Any]:
    """The columns of `folder`/metrics.csv that are drawn, by step, and the best epoch; empty where there is none."""
    try:
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    found: dict[str, Any] = {}
    for column, title in CURVES.items():
        dots = [(_finite(line.get("step")), _finite(line.get(column))) for line in lines]
        known = [(x, y) for x, y in dots if x is not None and y is not None]
        if known:
            thin = known[:: max(1, -(-len(known) // _MOST_DOTS))]
            found[column] = {"title": title, "x": [x for x, _ in thin], "y": [float(f"{y:.5g}") for _, y in thin]}
    scored = [(nme, line) for line in lines if (nme := _finite(line.get("val/nme"))) is not None]
    if found and scored:
        nme, line = min(scored, key=lambda one: one[0])
        found["best"] = {"nme": round(nme, 3), "step": _finite(line.get("step")), "epoch": _finite(line.get("epoch"))}
    return found


def _finite(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def about(facts: Mapping[str, Any]) -> list[list[str]]:
    """What was evaluated, as pairs of a word and what to say; addresses are shareable ones."""
    facts = shareable(facts)
    checkpoint, data = _mapping(facts.get("checkpoint")), _mapping(facts.get("data"))
    spec = {name: value for name, value in _mapping(checkpoint.get("spec")).items() if name != "scheme"}
    pairs = {
        "checkpoint": checkpoint.get("path"),
        "SHA-256": checkpoint.get("sha256"),
        "model": spec or None,
        "data": data.get("root"),
        "faces": data.get("faces"),
        "fingerprints": data.get("fingerprints"),
        "command": " ".join(map(str, facts.get("command") or [])) or None,
        "commit": facts.get("commit"),
        "card": facts.get("card") or None,
        "the training's config": _mapping(facts.get("run")).get("config") or None,
    }
    return [[name, _said(value)] for name, value in pairs.items() if value is not None]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
