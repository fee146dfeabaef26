"""The pictures of a report: CED curve, bars per region, worst faces. Each comes as PNG bytes.

The only file that imports matplotlib. Figures are made without pyplot, so nothing is shared between threads and no
display is asked for; `faces_axes` alone uses it, where a notebook is to show what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes as Axes
from matplotlib.figure import Figure

from facelm.evaluation.metrics import ced
from facelm.evaluation.overlay import PREDICTED, TRUTH, draw_face_tile
from facelm.evaluation.scores import SCORES, THRESHOLDS, BoolArray, EvaluationResult
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.landmarks import LandmarkScheme
from facelm.models.expected import in_tenths

ImageOf = Callable[[int], Image]
"""Gives the RGB photograph `[H, W, 3]` of the face with that index (`FacePredictions.index`)."""

_SUBSET_COLORS = {"common": "#0077bb", "challenge": "#cc3311", "full": "#33424f", "test": "#ee7733", "val": "#009988"}
_OTHER_COLORS = ("#009988", "#aa3377", "#66761e", "#4477aa")
_GREY = "#6b7280"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _color(subset: str, position: int) -> str:
    return _SUBSET_COLORS.get(subset, _OTHER_COLORS[position % len(_OTHER_COLORS)])


def _clean(axes: Axes, title: str) -> None:
    """Title on the left, no box, faint horizontal lines."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _percent_text(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "-"


def ced_plot(result: EvaluationResult) -> bytes:
    """The share of faces below each error, one curve per subset, with AUC and FR at 8 and 10 % in the legend."""
    errors = result.errors.nme[np.isfinite(result.errors.nme)]
    limit = max(0.12, min(0.4, math.ceil(20 * float(np.quantile(errors, 0.9))) / 20 if errors.size else 0.12))
    grid: FloatArray = np.linspace(0.0, limit, 1001)
    figure = _figure(8, 5)
    axes = figure.subplots()
    widest = max(map(len, result.subsets), default=0)
    for position, (name, row) in enumerate(result.subsets.items()):
        marks = "  ".join(
            f"{SCORES[key].title} {_percent_text(row.scores[key], 1):>4}"
            for t in THRESHOLDS
            for key in (f"auc@{100 * t:g}", f"fr@{100 * t:g}")
        )
        label = f"{name:<{widest}} n {row.n:<4} NME {_percent_text(row.nme):>5}  {marks}"
        curve = 100 * ced(result.errors.nme[result.masks[name]], grid)
        axes.plot(100 * grid, curve, color=_color(name, position), linewidth=2, label=label)
        axes.plot(
            100 * np.array(THRESHOLDS),
            [100 - 100 * row.scores[f"fr@{100 * t:g}"] for t in THRESHOLDS],
            "o",
            color=_color(name, position),
            markersize=4.5,
        )
    for threshold in THRESHOLDS:
        axes.axvline(100 * threshold, color=_GREY, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    _clean(axes, "Cumulative error distribution")
    axes.set(xlim=(0, 100 * limit), ylim=(0, 102))
    axes.set_xlabel("error of a face, % of the inter-ocular distance")
    axes.set_ylabel("share of faces, %")
    figure.legend(loc="outside lower left", frameon=False, prop={"family": "monospace", "size": 8})
    return _png(figure)


def regions_plot(result: EvaluationResult) -> bytes:
    """Mean error of each facial region, a bar per subset."""
    regions = list(result.errors.regions)
    figure = _figure(8, 4)
    axes = figure.subplots()
    width = 0.8 / max(1, len(result.subsets))
    for position, (name, row) in enumerate(result.subsets.items()):
        heights = [100 * value if math.isfinite(value) else 0.0 for value in row.regions.values()]
        x = np.arange(len(regions)) - 0.4 + width * (position + 0.5)
        bars = axes.bar(x, heights, width * 0.92, color=_color(name, position), label=f"{name} (n {row.n})")
        labels = [_percent_text(value, 1) for value in row.regions.values()]
        axes.bar_label(bars, labels, fontsize=7.5, padding=1, color="#374151")
    _clean(axes, "Error per region")
    axes.set_xticks(range(len(regions)), regions)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("NME, % of the inter-ocular distance")
    figure.legend(loc="outside lower left", frameon=False, ncols=4, fontsize=8.5)
    return _png(figure)


def worst_faces(result: EvaluationResult, count: int) -> list[int]:
    """Rows of the `count` faces with the largest error, worst first; an error that is not a number is the worst.

    Faces of no subset, which are not measured, are not among them.
    """
    errors = np.nan_to_num(result.errors.nme, nan=np.inf, posinf=np.inf)
    measured = np.any(list(result.masks.values()), axis=0)
    return [int(row) for row in np.argsort(-errors, kind="stable") if measured[row]][:count]


def worst_plot(
    result: EvaluationResult, image_of: ImageOf, *, occluded: BoolArray | None = None, count: int = 12
) -> bytes:
    """The worst faces with their predicted and annotated landmarks; NME and name stand under each.

    `occluded` `[N, K]` are points that are annotated though hidden: rings.
    """
    rows, columns = worst_faces(result, count), 4
    lines = math.ceil(len(rows) / columns)
    width, height = 2.6 * columns, 3.1 * lines + 0.4  # inches; a tile is square, 0.5 inches of text below it
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    grid = figure.subplots(lines, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.5 / height, 0.99, 1 - 0.4 / height, wspace=0.03, hspace=0.5 / 2.6)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        faces, name = result.predictions, result.names[row]
        image = image_of(int(faces.index[row]))
        landmarks, truth, hidden = faces.predicted[row], faces.target[row], None if occluded is None else occluded[row]
        axes.imshow(draw_face_tile(image, landmarks, result.scheme, truth=truth, hidden=hidden))
        text = f"NME {_percent_text(result.errors.nme[row])} %"
        axes.text(0, -0.03, text, transform=axes.transAxes, va="top", fontsize=9, fontweight="bold")
        short = name if len(name) <= 36 else f"...{name[-33:]}"
        axes.text(0, -0.105, short, transform=axes.transAxes, va="top", fontsize=7.5, color=_GREY, parse_math=False)
    baseline = 1 - 0.26 / height
    figure.text(0.01, baseline, "Worst faces", fontsize=11, fontweight="bold")
    legend = [(0.13, "■", "predicted", PREDICTED), (0.24, "■", "annotated", TRUTH)]
    if occluded is not None:
        legend.append((0.35, "○", "annotated, hidden", TRUTH))
    for x, sign, label, color in legend:
        figure.text(x, baseline, sign, fontsize=11, color=[channel / 255 for channel in color])
        figure.text(x + 0.017, baseline, label, fontsize=9)
    return _png(figure)


def expected_error_plot(expected: FloatArray, errors: FloatArray, unit: str) -> bytes:
    """Expected against measured errors `[N, K]` in percent: means of ten equal parts of the points, and of each face.

    NaN says nothing.
    """
    whole = (np.isfinite(expected) & np.isfinite(errors)).all(axis=1)
    means = np.column_stack([values[whole].mean(axis=1) for values in (expected, errors)])
    figure = _figure(8, 4)
    left, right = figure.subplots(1, 2)
    drawn = ((left, "Points, a tenth of them a dot", in_tenths(expected, errors), 7), (right, "Faces", means, 3))
    for axes, title, pairs, size in drawn:
        end = 1.05 * float(pairs.max(initial=1.0))
        axes.plot([0, end], [0, end], color=_GREY, linewidth=1, linestyle=(0, (2, 3)))
        axes.plot(pairs[:, 0], pairs[:, 1], "o", color=_OTHER_COLORS[0], markersize=size)
        _clean(axes, title)
        axes.set(xlim=(0, end), ylim=(0, end), xlabel="expected error, %", ylabel=f"measured, % of the {unit}")
    return _png(figure)


def faces_axes(
    axes: Axes | None,
    image: Image,
    faces: Sequence[FloatArray],
    scheme: LandmarkScheme,
    *,
    boxes: Sequence[FloatArray] = (),
    numbers: bool = False,
    contours: bool = True,
) -> Axes:
    """`image` `[H, W, 3]` and the landmarks `[K, 2]` of its faces on `axes`, or on those of a new pyplot figure.

    `boxes` `[4]` are drawn as rectangles (x1, y1, x2, y2). A point that is not finite is left out, and the contours
    that pass it are interrupted. Convention: landmarks are in image pixels (x, y), centred on integers.
    """
    if axes is None:
        from matplotlib import pyplot

        axes = pyplot.figure(layout="constrained").add_subplot()
    color = tuple(channel / 255 for channel in PREDICTED)
    axes.imshow(image)
    axes.set_axis_off()
    for landmarks in faces:
        for line in scheme.contours if contours else ():
            axes.plot(*landmarks[list(line)].T, color=color, linewidth=1)
        axes.plot(*landmarks.T, ".", color=color, markersize=4, markeredgecolor="black", markeredgewidth=0.3)
        for number in np.flatnonzero(np.isfinite(landmarks).all(axis=1)).tolist() if numbers else ():
            axes.annotate(str(number), landmarks[number], fontsize=6, color="white", clip_on=True)
    for x1, y1, x2, y2 in boxes:
        axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="white", linewidth=1, linestyle=":")
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    return axes
