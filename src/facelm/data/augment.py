"""What happens to a training face: one geometric draw, then photometric and occluding transforms on the crop.

Every draw is a function of the random generator it is given, and `FaceDataset` makes that generator from (run seed,
epoch, face index). So any number of workers and ranks, and a resumed run, see the same crops.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np

from facelm.geometry.affine import Image

Distribution = Literal["truncated_normal", "uniform"]


@dataclass(frozen=True)
class GeometricDraw:
    """How one training crop differs from the evaluation crop; the arguments of `boxes.crop_from_image`.

    `zoom` multiplies the crop's side, `rotation` is in degrees, `shift` in units of the crop's side.
    """

    zoom: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False

    @property
    def reach(self) -> float:
        """How far the crop goes from the box's centre along x or y, in sides of the evaluation crop.

        A square of side 1 turned by r is |cos r| + |sin r| wide.
        """
        turn = math.radians(self.rotation)
        width = abs(math.cos(turn)) + abs(math.sin(turn))
        return self.zoom * (width / 2 + max(abs(shift) for shift in self.shift))


@dataclass(frozen=True, kw_only=True)
class GeometricRanges:
    """The distribution of `GeometricDraw`s.

    zoom = 1 + `zoom` v; rotation = `rotation` v degrees with `rotation_probability`, else 0; shift = `shift` v on each
    axis; flip with `flip_probability`. Each v is drawn anew: a standard normal truncated to [-1, 1] (mmpose's
    `RandomBBoxTransform`) or uniform on [-1, 1] (the HRNet authors').

    Raises:
        ValueError: a probability outside [0, 1], a zoom range that reaches 0, or an unknown distribution.
    """

    flip_probability: float = 0.5
    zoom: float = 0.25
    rotation: float = 60.0
    rotation_probability: float = 0.6
    shift: float = 0.0
    distribution: Distribution = "truncated_normal"

    def __post_init__(self) -> None:
        for name in ("flip_probability", "rotation_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.geometry.{name} is a probability in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.zoom < 1:
            raise ValueError(f"augment.geometry.zoom must lie in [0, 1) (the side is 1 +- zoom), got {self.zoom}")
        if self.distribution not in get_args(Distribution):
            known = ", ".join(get_args(Distribution))
            raise ValueError(f"augment.geometry.distribution is one of {known}; got {self.distribution!r}")

    def draw(self, rng: np.random.Generator) -> GeometricDraw:
        """One draw; always takes the same number of variates from `rng`."""
        flip, turn = rng.random(2)
        zoom, rotation, shift_x, shift_y = (self._deviate(u) for u in rng.random(4))
        return GeometricDraw(
            zoom=1 + self.zoom * zoom,
            rotation=self.rotation * rotation if turn < self.rotation_probability else 0.0,
            shift=(self.shift * shift_x, self.shift * shift_y),
            flip=bool(flip < self.flip_probability),
        )

    @property
    def reach(self) -> float:
        """The largest `GeometricDraw.reach` that can be drawn; a turned square is widest at 45 degrees."""
        turn = min(abs(self.rotation), 45.0) if self.rotation_probability else 0.0
        return GeometricDraw(zoom=1 + self.zoom, rotation=turn, shift=(self.shift, self.shift)).reach

    def _deviate(self, uniform: float) -> float:
        """`uniform` in [0, 1) mapped to [-1, 1] through the inverse of the distribution function."""
        if self.distribution == "uniform":
            return 2.0 * uniform - 1.0
        return _NORMAL.inv_cdf(_BELOW + float(uniform) * (1.0 - 2.0 * _BELOW))


_NORMAL = NormalDist()
_BELOW = _NORMAL.cdf(-1.0)  # the part that truncation to [-1, 1] cuts off at either end


MOST_DISPLACED = 0.25
"""Pixels by which a photometric transform may move a dot; MotionBlur moves it by 1 unless told not to."""


class Augmentation:
    """Geometric ranges, and albumentations transforms applied to the crop after the warp.

    The transforms see the image alone, so none of them may move pixels: that is refused, because albumentations would
    leave the landmarks behind (and its flips never swap left and right). Each is tried on a painted dot, see
    `displacement`. They give what they get, uint8 of one size.
    """

    def __init__(self, *, geometry: GeometricRanges, transforms: Sequence[Any] = ()) -> None:
        self.geometry = geometry
        self._compose = _compose(transforms) if transforms else None

    def paint(self, crop: Image, rng: np.random.Generator) -> Image:
        """`crop` `[S, S, 3]` after the photometric and occluding transforms."""
        if self._compose is None:
            return crop
        # albumentations keeps random streams of its own, the same in every worker: it is given one each time. Given a
        # seed instead, every transform would start that stream anew, and all of them act on the same faces.
        seed = int(rng.integers(2**31))
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        painted = np.asarray(self._compose(image=crop)["image"])
        if painted.dtype != np.uint8 or painted.shape != crop.shape:
            raise ValueError(
                f"augment.transforms turn a crop of uint8 {crop.shape} into {painted.dtype} {painted.shape}. The model "
                "normalises, not they"
            )
        return painted


def _compose(transforms: Sequence[Any]) -> Any:
    """An albumentations Compose of transforms that leave every pixel where it is."""
    import albumentations as A  # a second of import time that runs without photometric transforms do not pay

    compose = A.Compose(list(transforms))
    for transform in _leaves(compose):
        stays = isinstance(transform, (A.ImageOnlyTransform, A.CoarseDropout, A.ConstrainedCoarseDropout, A.NoOp))
        if not stays:
            raise ValueError(
                f"augment.transforms holds {type(transform).__name__}, which moves pixels but not the landmarks. "
                "Flip, scale, rotation and shift belong to augment.geometry"
            )
        moved = 0.0 if isinstance(transform, A.CoarseDropout | A.ConstrainedCoarseDropout) else displacement(transform)
        if moved > MOST_DISPLACED:
            raise ValueError(
                f"augment.transforms holds {type(transform).__name__}, which moves a painted dot by {moved:.1f} pixels "
                "(mean of its draws) and leaves the landmarks where they are. MotionBlur stays in place with "
                "allow_shifted=false and direction_range=[0, 0]"
            )
    return compose


def displacement(transform: Any) -> float:
    """How far a photometric transform moves a dot in a grey picture: mean over 15 draws, in pixels.

    The dot is what the picture with it has more than the one without, under the same draw, smoothed; so light, contrast
    and noise do not count. It lies where no flip, turn or zoom of the picture leaves it.
    """
    import cv2  # which a training without photometric transforms does not wait for

    side, (dot_x, dot_y) = 129, (37, 84)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    bump = 120 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * 2.0**2))
    flat = np.full((side, side, 3), 90, np.uint8)
    dotted = (flat + bump[..., None]).round().astype(np.uint8)
    distances = []
    for seed in range(15):
        seen = []
        for picture in (flat, dotted):
            transform.set_random_seed(seed)
            seen.append(np.asarray(transform(image=picture, force_apply=True)["image"]).astype(np.float64))
        more = seen[1] - seen[0]
        more -= np.median(more, axis=(0, 1))  # a stretched contrast makes all the rest darker
        weight = np.abs(cv2.GaussianBlur(more, (0, 0), 2.0)).reshape(*more.shape[:2], -1).sum(axis=2)
        weight[weight < 0.5 * weight.max()] = 0.0
        if weight.any():
            center = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
            distances.append(np.linalg.norm(center - (dot_x, dot_y)))
    return float(np.mean(distances)) if distances else 0.0


def _leaves(transform: Any) -> Iterator[Any]:
    """The transforms inside nested containers (Compose, OneOf, ...)."""
    if hasattr(transform, "transforms"):
        for inner in transform.transforms:
            yield from _leaves(inner)
    else:
        yield transform
