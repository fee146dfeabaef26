"""Where the error of an evaluation is: by region and point, along and across the contours, by pose and size.

A point on a contour can be off in two ways. Across it the network misses the line; along it the point slides on the
line, where a photograph says little of its place and annotators differ. The slide of a line's points that they have in
common is told apart from the rest: it is one number of a face and a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from facelm.evaluation.faces_shown import Differences, Facet, differences, facets, mean_known
from facelm.evaluation.metrics import bootstrap_interval
from facelm.evaluation.scores import BoolArray, EvaluationResult
from facelm.evaluation.tables import table_lines
from facelm.geometry.landmarks import FloatArray, LandmarkScheme

ANGLES = (0.0, 10.0, 20.0, 30.0, 180.0)
"""Bounds of the groups by yaw and roll, degrees to either side."""

FEWEST = 5
"""Faces that a group needs: the mean of fewer says nothing."""


def where_markdown(result: EvaluationResult) -> str:
    """The page, over all faces that are in a subset. Numbers are percent of the scheme's normaliser."""
    measured = np.isfinite(result.errors.nme)
    for_any = np.any([measured & mask for mask in result.masks.values()], axis=0)
    if not for_any.any():
        return "# Where the error is\n\nNo face could be measured.\n"
    found = differences(result.predictions, for_any, result.scheme)
    nme = 100 * result.errors.nme[for_any].mean()
    lines = ["# Where the error is", "", f"{int(for_any.sum())} faces, NME {nme:.2f} %.", ""]
    lines += _regions(found, result.scheme)
    lines += _groups(result, for_any)
    lines += _points(found, result.scheme)
    return "\n".join(lines) + "\n"


def common_slide(found: Differences, scheme: LandmarkScheme) -> FloatArray:
    """What the points of each contour slide along it together `[N, K]`; 0 where no contour passes.

    The line through their parts along the contour, by least squares over the points in order: all the same way, and
    the two ends against each other. Of a closed contour the mean. A point of several contours counts to the first.
    """
    slide, taken = np.zeros(found.difference.shape[:2]), np.zeros(scheme.num_landmarks, bool)
    along = np.nan_to_num(found.along)
    for line in scheme.contours:
        points = [i for i in dict.fromkeys(line) if not taken[i]]
        order = np.arange(len(points)) * (line[0] != line[-1])
        shape = np.stack([np.ones(len(points)), order - order.mean()], axis=1) if points else np.empty((0, 2))
        slide[:, points] = along[:, points] @ np.linalg.pinv(shape).T @ shape.T
        taken[points] = True
    return slide


def _regions(found: Differences, scheme: LandmarkScheme) -> list[str]:
    off = np.linalg.norm(found.difference, axis=-1)
    slide = common_slide(found, scheme)
    without = np.linalg.norm(found.difference - slide[..., None] * np.nan_to_num(found.tangent), axis=-1)
    points = {**scheme.regions, "all": tuple(range(scheme.num_landmarks))}
    cells = []
    for name, indices in points.items():
        at = list(indices)
        along, total = found.along[:, at], np.nansum(off)
        numbers = [_mean(off[:, at]), _mean(np.abs(along)), _mean(np.abs(found.across[:, at])), _mean(without[:, at])]
        share = np.nansum(off[:, at]) / total if total else float("nan")
        cells.append([name, str(len(at)), *(_number(value) for value in numbers), f"{100 * share:.0f} %"])
    header = ("region", "points", "error", "along", "across", "without slide", "share of all")
    return [
        "## By region",
        "",
        *table_lines(header, cells, words=("region", "faces")),
        "",
        "`along` and `across` are the mean distances in the two directions of a contour. `without slide`: the error if "
        "every contour's points were moved back along it by what they slide together, a number that no prediction can "
        "reach: it says how much of the error that slide is.",
        "",
    ]


def _groups(result: EvaluationResult, measured: BoolArray) -> list[str]:
    found = facets(result.predictions, result.scheme)
    worst = max(result.errors.regions, key=lambda name: _mean(result.errors.regions[name][measured]), default=None)
    cells = []
    for facet in (found[name] for name in ("yaw", "roll", "size") if name in found):
        for label, inside in _parts(facet, measured):
            errors = result.errors.nme[inside]
            low, high = bootstrap_interval(errors)[1:]
            of_worst = [_number(100 * _mean(result.errors.regions[worst][inside]))] if worst else []
            interval = f"{100 * low:.2f} to {100 * high:.2f}"
            cells.append([label, str(len(errors)), _number(100 * errors.mean()), interval, *of_worst])
    if not cells:
        return []
    header = ("faces", "n", "NME", "95 % interval", *([worst] if worst else []))
    lines = table_lines(header, cells, words=("region", "faces"))
    return ["## By pose and size", "", *lines, "", f"Groups of fewer than {FEWEST} faces are left out.", ""]


def _parts(facet: Facet, measured: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    """The groups of faces by a facet: an angle to either side by ANGLES, another by its quarters."""
    name, _, unit = facet.label.partition(", ")
    angle = unit == "degrees"
    values = np.abs(facet.values) if angle else facet.values
    bounds = np.array(ANGLES) if angle else np.quantile(values[measured], [0, 0.25, 0.5, 0.75, 1])
    for low, high in pairwise(bounds):
        inside = measured & (values >= low) & ((values < high) | (high == bounds[-1]))
        if inside.sum() >= FEWEST:
            upper = "or more" if angle and high == bounds[-1] else f"to {high:.0f}"
            yield f"{name} {low:.0f} {upper} {unit}", inside


def _points(found: Differences, scheme: LandmarkScheme) -> list[str]:
    off = np.linalg.norm(found.difference, axis=-1)
    region = {i: name for name, indices in scheme.regions.items() for i in indices}
    columns = (off, np.abs(found.along), np.abs(found.across), found.difference[..., 0], found.difference[..., 1])
    means = [mean_known(column) for column in columns]
    cells = [
        [str(i), scheme.names[i] if scheme.names else "", region[i], *(_number(column[i]) for column in means)]
        for i in np.argsort(-np.nan_to_num(means[0]), kind="stable")
    ]
    header = ("point", "name", "region", "error", "along", "across", "mean x", "mean y")
    return [
        "## By point, the worst first",
        "",
        *table_lines(header, cells, words=("name", "region")),
        "",
        "`mean x` and `mean y`: the mean difference to the annotation on the upright face, x to the right, y down.",
    ]


def _mean(values: FloatArray) -> float:
    return float(mean_known(values.ravel()))


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
