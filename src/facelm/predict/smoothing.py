"""The One-Euro filter: landmarks of a still face held still, without lagging behind a moving one."""

from __future__ import annotations

import math

import numpy as np

from facelm.geometry.affine import FloatArray


class OneEuro:
    """A low-pass filter of one face's points over time whose cutoff rises with their speed.

    The cutoff of a point, in Hz, is `min_cutoff + beta * (the face's speed) + own_beta * (the point's speed within the
    face)`, in face sides a second. The face's velocity is the mean of its points', so it has an eighth of one point's
    noise: at equal lag, a still face keeps half of the jitter that a filter of single points leaves. A lower
    `min_cutoff` takes off more jitter; a higher `beta` lets a moving face lag less, by at most 1 / (2 pi beta) sides at
    a steady speed. `face_cutoff` and `own_cutoff` smooth the velocities. Measured in `tests/test_predict_smoothing.py`.

    Source: Casiez, Roussel and Vogel, "1 euro filter", CHI 2012; there every coordinate is filtered on its own.
    """

    def __init__(
        self,
        min_cutoff: float = 1.0,
        beta: float = 30.0,
        own_beta: float = 10.0,
        face_cutoff: float = 5.0,
        own_cutoff: float = 1.0,
    ) -> None:
        self.min_cutoff, self.beta, self.own_beta = min_cutoff, beta, own_beta
        self.face_cutoff, self.own_cutoff = face_cutoff, own_cutoff
        self._seconds = -math.inf
        self._raw = self._smooth = self._own = np.zeros(0)
        self._velocity = np.zeros(2)

    def __call__(self, points: FloatArray, seconds: float, side: float) -> FloatArray:
        """The smoothed `points` `[K, 2]` of a face `side` pixels large at that time; the first come out as they are.

        Raises:
            ValueError: `seconds` is not later than before.
        """
        step = seconds - self._seconds
        if not step > 0:
            raise ValueError(f"the One-Euro filter needs rising times, got {seconds} s after {self._seconds} s")
        if math.isinf(step):
            self._smooth, self._own = points, np.zeros_like(points)
        else:
            velocity = (points - self._raw) / (step * side)
            shared = velocity.mean(axis=0)
            self._velocity = self._velocity + _weight(self.face_cutoff, step) * (shared - self._velocity)
            self._own = self._own + _weight(self.own_cutoff, step) * (velocity - shared - self._own)
            own_speed = np.linalg.norm(self._own, axis=-1, keepdims=True)
            cutoff = self.min_cutoff + self.beta * np.linalg.norm(self._velocity) + self.own_beta * own_speed
            self._smooth = self._smooth + _weight(cutoff, step) * (points - self._smooth)
        self._raw, self._seconds = points, seconds
        return self._smooth


def _weight(cutoff: FloatArray | float, step: float) -> FloatArray:
    """The weight of a new sample in exponential smoothing with that cutoff, in Hz, after `step` seconds."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff) * step)))
