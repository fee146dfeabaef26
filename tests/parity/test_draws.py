"""Flip, zoom and rotation as drawn through the real DataLoader with workers, against the references' distributions."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from scipy import stats
from torch.utils.data import DataLoader

from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset
from facelm.data.faces import Face
from facelm.data.sampler import EpochBatches
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68

DRAWS = 20_000 if os.environ.get("FACELM_PARITY") else 4_000
RECIPES = {
    "mmpose": (GeometricRanges(), stats.truncnorm(-1, 1), 60.0),
    "hrnet": (GeometricRanges(distribution="uniform", rotation=30.0), stats.uniform(-1, 2), 30.0),
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    landmarks = np.random.default_rng(0).uniform(0, 100, (68, 2))
    return [Face("afw/tiny", path, landmarks, box_from_landmarks(landmarks), "afw")] * 1000


def draws(faces, ranges):
    """(flip, zoom, rotation) of every crop, read off the matrices that come out of the loader."""
    augmentation = Augmentation(geometry=ranges)
    dataset = FaceDataset(faces, crop_size=32, crop_scale=1.25, scheme=IBUG68, augmentation=augmentation, seed=1)
    batches = EpochBatches(len(faces), 100, seed=1)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=2)
    flips, zooms, rotations = [], [], []
    for epoch in range(DRAWS // len(faces)):
        batches.set_epoch(epoch)
        for batch in loader:
            for matrix in np.linalg.inv(batch["image_from_crop"].numpy())[:, :2, :2]:
                flip = np.linalg.det(matrix) < 0
                unflipped = matrix @ np.diag([-1, 1]) if flip else matrix
                flips.append(flip)
                zooms.append(32 / np.sqrt(np.linalg.det(unflipped)) / (faces[0].box.side * 1.25))
                rotations.append(np.rad2deg(np.arctan2(unflipped[0, 1], unflipped[0, 0])))
    return np.array(flips), np.array(zooms), np.array(rotations)


@pytest.fixture(scope="module", params=list(RECIPES))
def drawn(request, faces):
    """(recipe, flips, zooms, rotations), drawn once for all folders of reference numbers."""
    return request.param, *draws(faces, RECIPES[request.param][0])


def test_distributions(drawn, golden, agree):
    recipe, flips, zooms, rotations = drawn
    golden.json("aug_stats.json")
    _, deviate, largest = RECIPES[recipe]
    turned = np.abs(rotations) > 1e-9
    p_values = {
        "flip share": stats.binomtest(int(flips.sum()), len(flips), 0.5).pvalue,
        "share without rotation": stats.binomtest(int((~turned).sum()), len(turned), 0.4).pvalue,
        "zoom": stats.kstest((zooms - 1) / 0.25, deviate.cdf).pvalue,
        "rotation": stats.kstest(rotations[turned] / largest, deviate.cdf).pvalue,
    }
    for what, p in p_values.items():
        # As a difference: 1 - p stays below 0.99 while p > 0.01.
        agree(f"{len(flips)} draws, {recipe}: {what} (1 - p)", 1 - p, 0, atol=0.99)
    correlation = np.corrcoef(zooms, rotations)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(zooms))


def test_uniform_is_told_from_truncated_normal(faces):
    """The test above has the power to see the wrong distribution."""
    _, zooms, _ = draws(faces, GeometricRanges(distribution="uniform"))
    assert stats.kstest((zooms - 1) / 0.25, stats.truncnorm(-1, 1).cdf).pvalue < 0.001


def test_reference_summary(golden, agree):
    """The closed form that the draws are tested against is the one behind mmpose's own 100,000 draws."""
    reference = golden.json("aug_stats.json")
    quantiles = 1 + 0.25 * stats.truncnorm(-1, 1).ppf([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    agree("quantiles of zoom, closed form", quantiles, reference["scale"]["q01_05_25_50_75_95_99"], atol=0.004)
    agree("spread of zoom, closed form", 0.25 * stats.truncnorm(-1, 1).std(), reference["scale"]["std"], atol=0.001)
