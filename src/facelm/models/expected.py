"""How far a point is expected to lie from where it belongs, by how high its heatmap and the face's others peak.

    expected error of point k = scale_k * peak ** -power * face ** -power_of_face     in percent of the normaliser

`face` is the geometric mean of the face's peaks. It is fitted to the errors of faces that were not trained on (`fit`),
as a Poisson regression: what is expected then sums up to what was measured, for each point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facelm import checked
from facelm.geometry.affine import FloatArray

LEAST_FACES = 30
"""From which on a fit is made: fewer say little about the highest and lowest peaks."""

_ENDS = 0.02, 0.999  # of the peaks: a face that was missed whole would decide the powers alone
_MOST_POWER = 8.0


@dataclass(frozen=True, kw_only=True)
class ExpectedError:
    """The fit for some weights: `scale` of each point, both powers, and the peaks `lowest` to `highest` it rests on.

    A peak beyond them counts as the nearest. `flip` is the flip test whose peaks these are, `faces` how many were
    measured. `rank_points` and `rank_faces` are the rank correlations of expected and measured errors over points and
    over faces' means, of faces that the fit did not know.

    Raises:
        ValueError: a number that is none, or out of range.
    """

    scale: tuple[float, ...]
    power: float
    power_of_face: float
    lowest: float
    highest: float
    flip: str
    faces: int
    rank_points: float
    rank_faces: float

    def __post_init__(self) -> None:
        count = len(self.scale) if isinstance(self.scale, tuple) else 1
        checked.numbers(self.scale, "expected_error.scale", count, 0, 1e4)
        for name in ("power", "power_of_face"):
            checked.number(getattr(self, name), f"expected_error.{name}", -_MOST_POWER, _MOST_POWER)
        checked.number(self.lowest, "expected_error.lowest", 1e-6, 10)
        checked.number(self.highest, "expected_error.highest", self.lowest, 10)
        checked.text(self.flip, "expected_error.flip", longest=20)
        checked.integer(self.faces, "expected_error.faces", 1, 2**40)
        for name in ("rank_points", "rank_faces"):
            checked.number(getattr(self, name), f"expected_error.{name}", -1, 1)

    @classmethod
    def from_dict(cls, plain: object) -> ExpectedError:
        """What `to_dict` gave.

        Raises:
            ValueError: an entry is missing, unknown or out of range.
        """
        known = [*cls.__dataclass_fields__]
        content = checked.mapping(plain, "expected_error", known)
        if missing := [name for name in known if name not in content]:
            raise ValueError(f"expected_error has no {' and no '.join(missing)}")
        if isinstance(content["scale"], list):
            content["scale"] = tuple(content["scale"])
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "scale": list(self.scale)}

    def of(self, peaks: FloatArray) -> FloatArray:
        """The expected errors `[..., K]` for peaks `[..., K]`, in percent; NaN where a peak is none."""
        terms = _terms(peaks, self.lowest, self.highest)
        return np.asarray(np.array(self.scale) * np.exp(terms @ [-self.power, -self.power_of_face]))


def fit(peaks: FloatArray, errors: FloatArray, groups: Sequence[str], flip: str, folds: int = 5) -> ExpectedError:
    """The fit to `errors` `[N, K]` in percent at `peaks` `[N, K]`; NaN in either says nothing.

    `groups` names the photograph of each face: those of one are never on both sides when the fit is tried on faces
    that it does not know.

    Raises:
        ValueError: fewer than `LEAST_FACES` faces, or a point without an error.
    """
    known = np.isfinite(peaks) & np.isfinite(errors)
    count = int(known.any(axis=1).sum())
    if count < LEAST_FACES or not known.any(axis=0).all():
        raise ValueError(
            f"{count} faces with peaks and errors, or a point that none of them has: an expected error needs "
            f"{LEAST_FACES} faces, better 200, which the weights were not trained on"
        )
    expected = cross_fitted(peaks, errors, groups, folds)
    both = known & np.isfinite(expected)
    mean = [np.nanmean(np.where(both, values, np.nan)[both.any(axis=1)], axis=1) for values in (expected, errors)]
    scale, powers, ends = _fitted(peaks, errors)
    return ExpectedError(
        scale=tuple(round(float(value), 4) for value in scale),
        power=round(float(powers[0]), 4),
        power_of_face=round(float(powers[1]), 4),
        lowest=round(ends[0], 4),
        highest=round(ends[1], 4),
        flip=flip,
        faces=count,
        rank_points=round(rank_correlation(expected[both], errors[both]), 3),
        rank_faces=round(rank_correlation(mean[0], mean[1]), 3),
    )


def cross_fitted(peaks: FloatArray, errors: FloatArray, groups: Sequence[str], folds: int = 5) -> FloatArray:
    """What is expected of each point `[N, K]` by a fit to the faces of other photographs alone."""
    names = np.unique(np.asarray(groups))
    fold_of = dict(
        zip(names.tolist(), (np.random.default_rng(0).permutation(len(names)) % folds).tolist(), strict=True)
    )
    fold = np.array([fold_of[name] for name in groups])
    expected: FloatArray = np.full(np.shape(peaks), np.nan)
    for one in range(folds):
        scale, powers, ends = _fitted(peaks[fold != one], errors[fold != one])
        expected[fold == one] = scale * np.exp(_terms(peaks[fold == one], *ends) @ -powers)
    return expected


def in_tenths(expected: FloatArray, errors: FloatArray) -> FloatArray:
    """Means of (expected, measured) errors `[10, 2]` over ten equal parts of the points, by what was expected.

    NaN in `expected` or `errors` `[N, K]` says nothing.
    """
    both = np.isfinite(expected) & np.isfinite(errors)
    order = np.argsort(expected[both], kind="stable")
    return np.array([(expected[both][one].mean(), errors[both][one].mean()) for one in np.array_split(order, 10)])


def over_expected(expected: FloatArray, errors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Measured errors in parts of what was expected: of each point that has both, and of each face's mean.

    NaN in `expected` or `errors` `[N, K]` says nothing.
    """
    both = np.isfinite(expected) & np.isfinite(errors)
    sums = [np.where(both, values, 0.0).sum(axis=1)[both.any(axis=1)] for values in (errors, expected)]
    return errors[both] / expected[both], sums[0] / sums[1]


def rank_over_faces(expected: FloatArray, errors: FloatArray) -> float:
    """The rank correlation over the faces for one point, mean over the points of `expected` and `errors` `[N, K]`."""
    both = np.isfinite(expected) & np.isfinite(errors)
    return float(
        np.mean([rank_correlation(expected[one, k], errors[one, k]) for k, one in enumerate(both.T) if one.any()])
    )


def _terms(peaks: FloatArray, lowest: float, highest: float) -> FloatArray:
    """Logarithms `[..., K, 2]` of the peaks, and of their geometric mean over the face; NaN where a peak is none."""
    logs = np.log(np.clip(np.asarray(peaks, dtype=np.float64), lowest, highest))
    known = np.isfinite(logs)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, logs, 0.0).sum(axis=-1, keepdims=True) / known.sum(axis=-1, keepdims=True)
    return np.stack([logs, np.broadcast_to(mean, logs.shape)], axis=-1)


def _fitted(peaks: FloatArray, errors: FloatArray) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """`scale` `[K]`, the two powers, and the ends of the peaks: the Poisson regression's, by Newton's method.

    For given powers the scales follow: what is expected of a point sums up to its errors.
    """
    known = np.isfinite(peaks) & np.isfinite(errors)
    low, high = (max(float(end), 1e-6) for end in np.quantile(peaks[known], _ENDS))
    terms = np.where(known[..., None], _terms(peaks, low, high), 0.0)
    measured = np.where(known, errors, 0.0)
    slopes = np.zeros(2)
    for _ in range(50):
        weight = known * np.exp(terms @ slopes)
        scale = measured.sum(axis=0) / weight.sum(axis=0)
        expected = scale * weight
        middle = (expected[..., None] * terms).sum(axis=0) / np.maximum(expected.sum(axis=0), 1e-12)[:, None]
        centred = np.where(known[..., None], terms - middle, 0.0)
        gradient = np.einsum("nk,nki->i", measured - expected, terms)
        curvature = np.einsum("nk,nki,nkj->ij", expected, centred, centred)
        step = np.linalg.lstsq(curvature, gradient, rcond=1e-9)[0].clip(-1, 1)  # peaks may all be alike
        slopes = (slopes + step).clip(-_MOST_POWER, _MOST_POWER)
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(scale), -slopes, (low, high)


def rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's of two rows of numbers; 0 where one of them is constant."""
    ranks = [np.argsort(np.argsort(values, kind="stable")).astype(float) for values in (first, second)]
    if len(ranks[0]) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
