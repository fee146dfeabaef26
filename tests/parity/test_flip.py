"""The flip test against mmpose's, and the mirror permutation against both references' tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from facelm.codec import MMPoseCodec
from facelm.geometry.affine import mirror_about, transform
from facelm.geometry.landmarks import IBUG68
from facelm.models.inference import flip_heatmaps, predict_landmarks


def test_mirror_permutation(golden: Any, agree: Any) -> None:
    tables = golden.json("flip.json")
    for name in ("300w", "hrnet_300W"):
        if name in tables:
            agree(f"flip table of {name}", IBUG68.mirror, tables[name]["flip_indices"])


def test_heatmaps_mirrored_back(golden: Any, agree: Any) -> None:
    arrays = golden.npz("flip.npz")
    mirrored = torch.from_numpy(arrays["heat_of_mirrored"])
    for name, shift in (("unshifted", False), ("shifted", True)):
        agree(
            f"flip test, mirrored back, {name}",
            flip_heatmaps(mirrored, IBUG68.mirror, shift),
            arrays[f"flipped_{name}"],
        )


def test_averaged_heatmaps(golden: Any, agree: Any) -> None:
    arrays = golden.npz("flip.npz")
    heatmaps, mirrored = (torch.from_numpy(arrays[name]) for name in ("heat", "heat_of_mirrored"))
    for name, shift in (("unshifted", False), ("shifted", True)):
        averaged = (heatmaps + flip_heatmaps(mirrored, IBUG68.mirror, shift)) * 0.5
        agree(f"flip test, averaged, {name}", averaged, arrays[f"averaged_{name}"])


def test_predictions_are_those_of_the_averaged_heatmaps(golden: Any, agree: Any) -> None:
    """Through `predict_landmarks`, with a network that answers the reference's maps."""
    arrays = golden.npz("flip.npz")
    heatmaps = square(np.concatenate([arrays["heat"], arrays["heat_of_mirrored"]]))
    codec = MMPoseCodec(crop_size=4 * heatmaps.shape[-1])
    inputs = torch.zeros(len(heatmaps) // 2, 3, codec.crop_size, codec.crop_size)
    landmarks_crop, scores = predict_landmarks(lambda _: heatmaps, inputs, codec, IBUG68.mirror, "shifted")
    expected_crop, expected_scores = codec.decode(square(arrays["averaged_shifted"]))
    agree("flip test, predicted points", landmarks_crop, expected_crop)
    agree("flip test, scores", scores, expected_scores)


def square(heatmaps: np.ndarray) -> torch.Tensor:
    """`heatmaps` with blank rows added below; the kept copy holds the first rows only."""
    missing = heatmaps.shape[-1] - heatmaps.shape[-2]
    return torch.from_numpy(np.pad(heatmaps, ((0, 0), (0, 0), (0, missing), (0, 0))))


def test_mirrored_landmarks(golden: Any, agree: Any) -> None:
    """mmpose mirrors an image of 450 columns by x -> 449 - x, the authors by x -> 450 - x."""
    arrays = golden.npz("flip.npz")
    landmarks = arrays["keypoints"].reshape(68, 2).astype(np.float64)[list(IBUG68.mirror)]
    for name, axis, bound in (("keypoints_flipped_w450", 449 / 2, 1e-4), ("hr_keypoints_flipped_w450", 225.0, 0.0)):
        expected = arrays[name].reshape(68, 2)
        agree(f"flip of landmarks: {name} (px)", transform(mirror_about(axis), landmarks), expected, atol=bound)
