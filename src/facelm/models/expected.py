"""How far a point is expected to lie from where it belongs, by how high its heatmap peaks.

    expected error of point k = scale_k * peak ** -power      in percent of the scheme's normaliser

Two numbers a point would follow noise, one power for all does not. It is fitted to the errors of faces that were not
trained on (`fit`), as a Poisson regression: what is expected then sums up to what was measured, for each point.
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

_POWERS = 0.0, 8.0
_LEAST_PEAK = 0.01  # of the fit: what peaks lower is no face, and would decide the power alone


@dataclass(frozen=True, kw_only=True)
class ExpectedError:
    """The fit for some weights: `scale` of each point, `power`, and the peaks `lowest` to `highest` it rests on.

    A peak beyond them counts as the nearest. `flip` is the flip test whose peaks these are, `faces` how many were
    measured. `rank_points` and `rank_faces` are the rank correlations of expected and measured errors over points and
    over faces' means, of faces that the fit did not know.

    Raises:
        ValueError: a number that is none, or out of range.
    """

    scale: tuple[float, ...]
    power: float
    lowest: float
    highest: float
    flip: str
    faces: int
    rank_points: float
    rank_faces: float

    def __post_init__(self) -> None:
        count = len(self.scale) if isinstance(self.scale, tuple) else 1
        checked.numbers(self.scale, "expected_error.scale", count, 0, 1e4)
        checked.number(self.power, "expected_error.power", *_POWERS)
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
        known = np.clip(np.asarray(peaks, dtype=np.float64), self.lowest, self.highest)
        return np.asarray(np.array(self.scale) * known**-self.power)


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
    scale, power = _fitted(peaks, errors)
    low, high = np.quantile(peaks[known], (0.001, 0.999))
    return ExpectedError(
        scale=tuple(round(float(value), 4) for value in scale),
        power=round(power, 4),
        lowest=round(max(float(low), _LEAST_PEAK), 4),
        highest=round(float(high), 4),
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
        scale, power = _fitted(peaks[fold != one], errors[fold != one])
        expected[fold == one] = scale * np.maximum(peaks[fold == one], _LEAST_PEAK) ** -power
    return expected


def in_tenths(expected: FloatArray, errors: FloatArray) -> FloatArray:
    """Means of (expected, measured) errors `[10, 2]` over ten equal parts of the points, by what was expected.

    NaN in `expected` or `errors` `[N, K]` says nothing.
    """
    both = np.isfinite(expected) & np.isfinite(errors)
    order = np.argsort(expected[both], kind="stable")
    return np.array([(expected[both][one].mean(), errors[both][one].mean()) for one in np.array_split(order, 10)])


def _fitted(peaks: FloatArray, errors: FloatArray) -> tuple[FloatArray, float]:
    """`scale` `[K]` and `power`: the Poisson regression's, by halving the range in which the power lies.

    For a power the scales follow: what is expected of a point sums up to its errors. The slope of the likelihood in the
    power is then the sum of log(peak) * (expected - error).
    """
    known = np.isfinite(peaks) & np.isfinite(errors)
    log_peak = np.log(np.where(known, np.maximum(peaks, _LEAST_PEAK), 1.0))
    measured = np.where(known, errors, 0.0)

    def scale(power: float) -> FloatArray:
        return np.asarray(measured.sum(axis=0) / np.maximum((known * np.exp(-power * log_peak)).sum(axis=0), 1e-12))

    low, high = _POWERS
    for _ in range(40):
        middle = (low + high) / 2
        expected = known * scale(middle) * np.exp(-middle * log_peak)
        if (log_peak * (expected - measured)).sum() > 0:
            low = middle
        else:
            high = middle
    return scale(low), low


def rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's of two rows of numbers; 0 where one of them is constant."""
    ranks = [np.argsort(np.argsort(values, kind="stable")).astype(float) for values in (first, second)]
    if len(ranks[0]) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
