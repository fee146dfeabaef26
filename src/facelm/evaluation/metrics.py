"""Per-face errors, the numbers read out of them, and the metric that collects predictions across batches and ranks.

Definitions (fractions here; percent in whatever is written or logged):

    e      = mean over a face's landmarks of |predicted - target| / normaliser      [N], one error per face
    NME    = mean of e                  fr@t  = share of faces with e > t
    auc@t  = mean of max(0, 1 - e / t), which is the exact area under the CED up to t, divided by t

The normaliser of `nme` is inter-ocular (outer eye corners), as in every 300W table; `nme_interpupil` and `nme_box`
say theirs. Landmarks are never pooled over faces, except in `pooled_nme`, which is mmpose's number. `scores.py` makes
the rows of a table from these functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelm.geometry.landmarks import IBUG68, FloatArray, LandmarkScheme

IntArray = NDArray[np.int64]


# --- From landmarks to one error per face ---------------------------------------------------------------------------


def point_distances(predicted: FloatArray, target: FloatArray) -> FloatArray:
    """Euclidean distance of every landmark, `[N, K]` for landmarks `[N, K, 2]`.

    Convention: both in the same frame; the distances are in its pixels.

    Raises:
        ValueError: the shapes differ, or are not `[N, K, 2]`.
    """
    predicted, target = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if predicted.shape != target.shape or predicted.ndim != 3 or predicted.shape[-1] != 2:
        raise ValueError(f"landmarks must both be [N, K, 2]; predicted {predicted.shape}, target {target.shape}")
    return np.asarray(np.linalg.norm(predicted - target, axis=-1))


def per_face_error(distances: FloatArray, normaliser: FloatArray, visible: NDArray[Any] | None = None) -> FloatArray:
    """Each face's error, `[N]`: the mean of its `distances` `[N, K]` divided by its `normaliser` `[N]`.

    `visible` `[N, K]` (0 = masked) leaves landmarks out. A normaliser of 0 gives inf, as in the HRNet authors'
    `compute_nme`; a face without a visible landmark, or with a prediction that is not a number, gives nan.
    """
    seen = np.ones(distances.shape, dtype=bool) if visible is None else np.asarray(visible) != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(seen, distances, 0.0).sum(axis=1) / (normaliser * seen.sum(axis=1)))


def labelled(target: FloatArray) -> NDArray[np.bool_]:
    """Which landmarks of `target` `[N, K, 2]` are labelled, `[N, K]`."""
    return np.asarray(np.isfinite(target).all(axis=-1))


def region_errors(
    distances: FloatArray,
    normaliser: FloatArray,
    scheme: LandmarkScheme = IBUG68,
    visible: NDArray[Any] | None = None,
) -> dict[str, FloatArray]:
    """`per_face_error` over the landmarks of each region: name -> `[N]`."""
    seen = np.ones(distances.shape, dtype=bool) if visible is None else visible
    columns = {name: list(indices) for name, indices in scheme.regions.items()}
    return {name: per_face_error(distances[:, one], normaliser, seen[:, one]) for name, one in columns.items()}


# --- From errors to numbers -----------------------------------------------------------------------------------------


def _at_least_one(errors: FloatArray) -> FloatArray:
    if errors.size == 0:
        raise ValueError("no faces to measure: the subset is empty. Check data.root and the list files")
    return errors


def nme(errors: FloatArray) -> float:
    """Mean error over faces; inf or nan when a single face's error is."""
    return float(_at_least_one(errors).mean())


def failure_rate(errors: FloatArray, threshold: float) -> float:
    """Share of faces whose error exceeds `threshold` (strictly); an error that is not a number is a failure."""
    return float(np.mean(~(_at_least_one(errors) <= threshold)))


def auc(errors: FloatArray, threshold: float) -> float:
    """Area under the CED from 0 to `threshold`, divided by `threshold`: 0 to 1, exact, without a grid."""
    return float(np.fmax(0.0, 1.0 - _at_least_one(errors) / threshold).mean())  # fmax: nan counts as 0


def ced(errors: FloatArray, thresholds: FloatArray) -> FloatArray:
    """Cumulative error distribution: the share of faces with an error of at most each of `thresholds` `[T]`."""
    return np.asarray((_at_least_one(errors)[:, None] <= thresholds).mean(axis=0))


def pooled_nme(distances: FloatArray, normaliser: FloatArray, visible: NDArray[Any] | None = None) -> float:
    """The NME of mmpose: one mean over all visible (face, landmark) pairs, so faces with more of them weigh more.

    A face whose normaliser is 0 is dropped; 0.0 when nothing is left. Equal to `nme` while every face shows the
    same number of landmarks, as on 300W. Source: mmpose 1.3.2, `evaluation/functional/keypoint_eval.py`.
    """
    kept = np.broadcast_to((normaliser != 0)[:, None], distances.shape)
    if visible is not None:
        kept = kept & (np.asarray(visible) != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((distances / normaliser[:, None])[kept].sum() / max(1, kept.sum()))


class Interval(NamedTuple):
    """A mean with the two ends of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(errors: FloatArray, *, confidence: float = 0.95, samples: int = 5000, seed: int = 0) -> Interval:
    """The mean error with its percentile bootstrap interval: faces are drawn again, with replacement."""
    rng, n = np.random.default_rng(seed), len(_at_least_one(errors))
    with np.errstate(invalid="ignore"):
        means = np.array([errors[rng.integers(n, size=n)].mean() for _ in range(samples)])
        tail = (1 - confidence) / 2
        low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(errors.mean()), float(low), float(high))


def paired_bootstrap(
    errors_a: FloatArray, errors_b: FloatArray, *, confidence: float = 0.95, samples: int = 5000, seed: int = 0
) -> Interval:
    """The mean of `errors_b - errors_a` over the same faces, with its interval; below 0, b is the better one.

    A model's easy and hard faces are another model's too, so the paired interval is far narrower than the
    difference of two separate ones.

    Raises:
        ValueError: the two do not hold the same number of faces.
    """
    if errors_a.shape != errors_b.shape:
        raise ValueError(f"paired errors must be of the same faces: {errors_a.shape} against {errors_b.shape}")
    return bootstrap_interval(errors_b - errors_a, confidence=confidence, samples=samples, seed=seed)


# --- What learning nothing scores -----------------------------------------------------------------------------------


def mean_shape(landmarks: FloatArray, center: FloatArray, side: FloatArray) -> FloatArray:
    """The average face `[K, 2]` of landmarks `[N, K, 2]`, in units of each face's box; NaN (not labelled) is left out.

    Convention: (0, 0) is the box's centre and 1 its side, for boxes with `center` `[N, 2]` and `side` `[N]`.
    """
    shapes = (landmarks - center[:, None]) / side[:, None, None]
    if np.isfinite(shapes).all():
        return np.asarray(shapes.mean(axis=0))
    known = np.isfinite(shapes)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, shapes, 0.0).sum(axis=0) / known.sum(axis=0))


def mean_shape_in_box(shape: FloatArray, center: FloatArray, side: FloatArray) -> FloatArray:
    """`shape` `[K, 2]` put into each box, as landmarks `[N, K, 2]` in the frame of `center` `[N, 2]`, `side` `[N]`.

    With ground-truth boxes this is a predictor that has learned nothing but where a face's parts usually are.
    """
    return np.asarray(center[:, None] + shape * side[:, None, None])


# --- Keeping predictions through an evaluation loop -----------------------------------------------------------------


@dataclass(eq=False)  # not frozen: torchmetrics refuses to pass frozen dataclasses on
class FacePredictions:
    """Landmarks in the image, each face once, in the order of `index` `[N]`: `predicted`, `target` `[N, K, 2]`.

    A target of NaN is not labelled. `side` `[N]` is that of the faces' boxes in pixels, where it is known, and
    `confidence` `[N, K]` the peaks of the heatmaps.
    """

    index: IntArray
    predicted: FloatArray
    target: FloatArray
    side: FloatArray | None = None
    confidence: FloatArray | None = None


class LandmarkErrors(Metric):
    """Keeps every face's landmarks by index; `compute()` gives each face once, from all ranks.

    Metrics are read out of the result instead of being metrics of their own: in a `MetricCollection`, FR@8 and
    FR@10 that agree on the first batch are merged for ever. And distributed samplers pad: 7 faces on 2 ranks
    arrive as 8, so a repeated index is dropped.
    """

    full_state_update = False
    higher_is_better = False
    index: list[Tensor]
    predicted: list[Tensor]
    target: list[Tensor]
    side: list[Tensor]
    confidence: list[Tensor]

    def __init__(self, num_landmarks: int = IBUG68.num_landmarks, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_landmarks = num_landmarks
        # States are flat and of the metric's own dtype, since torchmetrics gathers an empty one-dimensional tensor
        # of that dtype from a rank that has seen no face; any other shape or dtype would hang or crash the others.
        self.set_dtype(torch.float64)
        for state in ("index", "predicted", "target", "side", "confidence"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(
        self,
        index: Tensor,
        predicted_image: Tensor,
        target_image: Tensor,
        side: Tensor | None = None,
        confidence: Tensor | None = None,
    ) -> None:
        """Adds a batch: `index` `[B]`, landmarks `[B, K, 2]`; `side` `[B]` of boxes, `confidence` `[B, K]` if known.

        Convention: landmarks are in image pixels.

        Raises:
            ValueError: the shapes do not fit together.
        """
        shape = (len(index), self.num_landmarks, 2)
        if predicted_image.shape != shape or target_image.shape != shape:
            raise ValueError(
                f"expected landmarks {shape} for {len(index)} faces; "
                f"predicted {tuple(predicted_image.shape)}, target {tuple(target_image.shape)}"
            )
        self.index.append(index.detach().double())  # exact up to 2^53 faces
        self.predicted.append(predicted_image.detach().double().flatten())
        self.target.append(target_image.detach().double().flatten())
        self.side.append((torch.full((len(index),), torch.nan) if side is None else side).to(self.index[-1]))
        peaks = torch.full(shape[:2], torch.nan) if confidence is None else confidence.detach()
        self.confidence.append(peaks.to(self.index[-1]).flatten())

    def compute(self) -> FacePredictions:
        """Every face that any rank has seen, once, sorted by index.

        Raises:
            ValueError: no face was seen.
        """
        if not len(self.index):
            raise ValueError("no faces were evaluated: update() was never called. Is the data loader empty?")
        index, first = np.unique(dim_zero_cat(self.index).cpu().numpy().astype(np.int64), return_index=True)
        predicted, target = (
            dim_zero_cat(state).cpu().numpy().reshape(-1, self.num_landmarks, 2)[first]
            for state in (self.predicted, self.target)
        )
        side = dim_zero_cat(self.side).cpu().numpy()[first]
        confidence = dim_zero_cat(self.confidence).cpu().numpy().reshape(-1, self.num_landmarks)[first]
        return FacePredictions(index, predicted, target, side, confidence)
