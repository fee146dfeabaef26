"""The rows of a table: one per subset, read out of per-face errors in one pass over all faces.

A subset is a mask over the faces, so `full` needs no second run over `common` and `challenge`. Scores are fractions;
`SubsetScores.percent()` gives them the names and the unit in which they are logged and written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm.evaluation.metrics import (
    FacePredictions,
    Interval,
    auc,
    bootstrap_interval,
    failure_rate,
    labelled,
    nme,
    per_face_error,
    point_distances,
    region_errors,
)
from facelm.geometry.landmarks import IBUG68, FloatArray, LandmarkScheme, box_size, interpupil, measurable, normaliser

BoolArray = NDArray[np.bool_]

THRESHOLDS = (0.08, 0.10)
"""The thresholds of FR and AUC in every table: 8 % and 10 % of the inter-ocular distance."""


@dataclass(frozen=True)
class FaceErrors:
    """The errors `[N]` of N faces under each normaliser, and those of each region; `nme` has the scheme's own."""

    nme: FloatArray
    nme_interpupil: FloatArray
    nme_box: FloatArray
    regions: Mapping[str, FloatArray]

    def of(self, mask: BoolArray) -> FaceErrors:
        """Those of the faces in `mask` `[N]`."""
        regions = {name: values[mask] for name, values in self.regions.items()}
        return FaceErrors(self.nme[mask], self.nme_interpupil[mask], self.nme_box[mask], regions)


def face_errors(
    predicted: FloatArray,
    target: FloatArray,
    scheme: LandmarkScheme = IBUG68,
    side: FloatArray | None = None,
    compared: BoolArray | None = None,
) -> FaceErrors:
    """All errors of faces with landmarks `[N, K, 2]`; the normalisers come from `target`, or `side` `[N]` of the boxes.

    Landmarks whose `target` is NaN are not labelled and do not count, nor do those that are not `compared` `[K]`;
    regions without any that is have no error.

    Convention: both in the same frame. Published errors are measured in image pixels.
    """
    distances, length, seen = point_distances(predicted, target), normaliser(target, scheme, side), labelled(target)
    if compared is not None:
        seen = seen & compared
    return FaceErrors(
        nme=per_face_error(distances, length, seen),
        nme_interpupil=per_face_error(distances, interpupil(target, scheme), seen),
        nme_box=per_face_error(distances, box_size(target), seen),
        regions={
            name: errors
            for name, errors in region_errors(distances, length, scheme, seen).items()
            if compared is None or compared[list(scheme.regions[name])].any()
        },
    )


@dataclass(frozen=True)
class Score:
    """A column of the table: its title there, and its value, a fraction, of any set of faces."""

    title: str
    of: Callable[[FaceErrors], float]


def _mean(values: FloatArray, errors: FaceErrors) -> float:
    """Over the faces that are labelled for it: those without a landmark of the region, say, have no error there."""
    kept = values[np.isfinite(values) | ~np.isfinite(errors.nme)]
    return nme(kept) if kept.size else float("nan")


def _at(threshold: float, name: str, of: Callable[[FloatArray, float], float]) -> Score:
    """A score of `nme` at a threshold."""
    return Score(f"{name}@{100 * threshold:g}", lambda errors: of(errors.nme, threshold))


SCORES: Mapping[str, Score] = {
    "nme": Score("NME", lambda errors: nme(errors.nme)),
    "nme_interpupil": Score("inter-pupil", lambda errors: _mean(errors.nme_interpupil, errors)),
    "nme_box": Score("box", lambda errors: _mean(errors.nme_box, errors)),
    **{f"fr@{100 * t:g}": _at(t, "FR", failure_rate) for t in THRESHOLDS},
    **{f"auc@{100 * t:g}": _at(t, "AUC", auc) for t in THRESHOLDS},
}
"""Every score, by the name under which it is logged and written. A line here is a column of table, summary and W&B."""


@dataclass(frozen=True)
class SubsetScores:
    """One row, in fractions; `interval` is the 95 % bootstrap interval of `nme`, None when not asked for.

    Of the `n` faces `unmeasured` have no finite error. They are neither dropped nor replaced by a number: `nme` and the
    regions, means over all faces, are nan or inf then; each is a failure at every threshold and adds 0 to AUC.
    """

    n: int
    scores: Mapping[str, float]
    regions: Mapping[str, float]
    interval: Interval | None = None
    unmeasured: int = 0

    @property
    def nme(self) -> float:
        """The NME under the scheme's own normaliser."""
        return self.scores["nme"]

    def percent(self) -> dict[str, Any]:
        """The row in percent (but for `n`), under the names that are logged and written: `nme`, `fr@8`, ..."""
        row: dict[str, Any] = {"n": self.n} | {name: 100 * value for name, value in self.scores.items()}
        row |= {"unmeasured": self.unmeasured} if self.unmeasured else {}
        if self.interval is not None:
            row["nme_ci95"] = [100 * self.interval.low, 100 * self.interval.high]
        row["regions"] = {name: 100 * value for name, value in self.regions.items()}
        return row


def subset_scores(errors: FaceErrors, mask: BoolArray, *, interval: bool = False) -> SubsetScores:
    """The row of the faces in `mask` `[N]`.

    Raises:
        ValueError: the mask holds no face.
    """
    chosen = errors.of(mask)
    return SubsetScores(
        n=len(chosen.nme),
        scores={name: score.of(chosen) for name, score in SCORES.items()},
        regions={name: _mean(values, chosen) for name, values in chosen.regions.items()},
        interval=bootstrap_interval(chosen.nme) if interval else None,
        unmeasured=int(np.sum(~np.isfinite(chosen.nme))),
    )


def subset_masks(
    labels: Sequence[str], further: Sequence[Sequence[str]] = (), order: Sequence[str] = ()
) -> dict[str, BoolArray]:
    """A mask `[N]` for each subset named in `labels` (one per face), and `full` where common and challenge are there.

    `further` are subsets of each face beside its label, any number of them: a face counts in all of its own. Rows come
    in the order of 300W's published table, then of `order`; other names (a list file's) in order of appearance.
    """
    column = np.asarray(labels, dtype=object)
    masks = {name: np.asarray(column == name, dtype=bool) for name in dict.fromkeys(labels)}
    for name in dict.fromkeys(name for names in further for name in names if name not in masks):
        masks[name] = np.array([name in names for names in further], dtype=bool)
    if {"common", "challenge"} <= masks.keys():
        masks["full"] = masks["common"] | masks["challenge"]
    published = [name for name in ("common", "challenge", "full", "test", *order) if name in masks]
    return {name: masks[name] for name in dict.fromkeys((*published, *masks))}


@dataclass(frozen=True)
class EvaluationResult:
    """Everything a report shows. Row i of `predictions` and `errors` is the face `names[i]`.

    `subsets` are the rows of the table, `masks` their faces; `mean_shape` holds the rows of the mean shape in the
    ground-truth box, empty when it is not known. `left_out` faces are in no subset: what their errors would be divided
    by is not labelled.
    """

    names: tuple[str, ...]
    predictions: FacePredictions
    scheme: LandmarkScheme
    errors: FaceErrors
    masks: Mapping[str, BoolArray]
    subsets: Mapping[str, SubsetScores]
    mean_shape: Mapping[str, SubsetScores]
    left_out: int = 0


def evaluate_faces(
    predictions: FacePredictions,
    names: Sequence[str],
    masks: Mapping[str, BoolArray],
    *,
    scheme: LandmarkScheme = IBUG68,
    mean_shape_image: FloatArray | None = None,
    compared: BoolArray | None = None,
) -> EvaluationResult:
    """Errors of all faces and a row for each subset in `masks` (name -> `[N]`, see `subset_masks`).

    `names` and `masks` follow the rows of `predictions`. `mean_shape_image` `[N, K, 2]` is the mean shape in each
    face's ground-truth box (see `metrics.mean_shape_in_box`). `compared` `[K]` leaves out landmarks.

    Convention: all landmarks are in image pixels.

    Raises:
        ValueError: the lengths do not agree, a subset is empty, or no face of it has what errors are divided by.
    """
    n = len(predictions.index)
    wrong = {name: len(mask) for name, mask in masks.items() if len(mask) != n}
    if len(names) != n or wrong:
        raise ValueError(
            f"{n} predictions, {len(names)} names, masks of another length: {wrong or 'none'}. "
            "Was every face predicted? Names and masks must follow the rows of the predictions"
        )
    side, target = predictions.side, predictions.target
    length = normaliser(target, scheme, side)
    masks = {name: mask & measurable(length, scheme, name, mask) for name, mask in masks.items()}
    errors = face_errors(predictions.predicted, target, scheme, side, compared)
    baseline = None if mean_shape_image is None else face_errors(mean_shape_image, target, scheme, side, compared)
    return EvaluationResult(
        names=tuple(names),
        predictions=predictions,
        scheme=scheme,
        errors=errors,
        masks=dict(masks),
        subsets={name: subset_scores(errors, mask, interval=True) for name, mask in masks.items()},
        mean_shape={} if baseline is None else {name: subset_scores(baseline, mask) for name, mask in masks.items()},
        left_out=int((~(length > 0)).sum()),
    )
