"""NME against mmpose (pooled over visible landmarks) and the HRNet authors (mean of faces)."""

from __future__ import annotations

from typing import Any

import numpy as np

from facelm.evaluation.metrics import failure_rate, per_face_error, point_distances, pooled_nme
from facelm.geometry.landmarks import interocular


def measure(arrays: Any, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances `[N, K]`, inter-ocular distances `[N]` and visibility `[N, K]` of one case."""
    predicted, target = (arrays[f"{case}_{name}"].astype(np.float64) for name in ("pred", "gt"))
    return point_distances(predicted, target), interocular(target), arrays[f"{case}_vis"]


def agree_pooled(agree: Any, actual: float, expected: float) -> None:
    """Within 1e-7: absolute below 1, relative above, since mmpose sums in float32 (3.5 is stored to 2.4e-7)."""
    bound = {"rtol": 1e-7} if abs(expected) > 1 else {"atol": 1e-7}
    agree("NME pooled over visible landmarks, as mmpose", actual, expected, **bound)


def test_pooled_as_mmpose(golden: Any, agree: Any) -> None:
    arrays = golden.npz("nme.npz")
    for row in golden.json("nme.json")["batches"]:
        case = f"b{row['batch']}"
        actual = pooled_nme(*measure(arrays, case))
        for reference in ("mm_functional", "mm_metric"):
            agree_pooled(agree, actual, float(arrays[f"{case}_{reference}"]))


def test_per_face_as_the_authors(golden: Any, agree: Any) -> None:
    arrays = golden.npz("nme.npz")
    for row in golden.json("nme.json")["batches"]:
        case = f"b{row['batch']}"
        distances, normaliser, _ = measure(arrays, case)
        errors = per_face_error(distances, normaliser)
        agree("NME per face, as the HRNet authors", errors, arrays[f"{case}_hr_per_face"], atol=1e-7)
        agree("NME, mean of faces, as the HRNet authors", errors.mean(), float(row["hr_mean"]), atol=1e-7)
        rates = [failure_rate(errors, 0.08), failure_rate(errors, 0.10)]
        agree("failure rates at 8 and 10 %", rates, [row["hr_fr_08"], row["hr_fr_10"]])


def test_where_the_two_differ(golden: Any, agree: Any) -> None:
    """Faces with different numbers of visible landmarks: pooling lets the fuller face weigh more."""
    arrays = golden.npz("nme.npz")
    distances, normaliser, visible = measure(arrays, "pool")
    agree_pooled(agree, pooled_nme(distances, normaliser, visible), float(arrays["pool_mm"]))
    errors = per_face_error(distances, normaliser, visible)
    agree("NME per face, as the HRNet authors", errors, arrays["pool_per_face"], atol=1e-7)
