"""Photographs whose pixels say where they are, and a network that reads it: predictions that can be checked exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from facelm.geometry.boxes import Box, box_from_landmarks
from facelm.geometry.landmarks import IBUG68
from facelm.models.inference import IMAGENET_MEAN, IMAGENET_STD
from facelm.models.spec import ModelSpec, checkpoint_facts

SPEC = ModelSpec(architecture="hrnetv2_tiny", crop_size=64, codec={"name": "subpixel", "sigma": 1.5}, flip="none")


def map_image(width: int = 240, height: int = 200) -> np.ndarray:
    """[height, width, 3] uint8: red is x, green is y, blue is full everywhere inside."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


def face_landmarks(center=(120.0, 100.0), side: float = 80.0, seed: int = 0) -> np.ndarray:
    """68 points [68, 2] in a square; mirrored partners lie on either side of the middle, as on a face."""
    rng = np.random.default_rng(seed)
    points = np.empty((68, 2))
    for i, j in enumerate(IBUG68.mirror):
        if i <= j:
            x, y = (0.0 if i == j else rng.uniform(0.05, 0.5)), rng.uniform(-0.5, 0.5)
            points[i], points[j] = (-x, y), (x, y + rng.uniform(-0.02, 0.02))
    points[0], points[16], points[8] = (-0.5, -0.3), (0.5, -0.3), (0.0, 0.5)
    points[27] = (0.0, -0.5)
    return np.asarray(center) + side * points


def box_of(landmarks: np.ndarray) -> Box:
    return box_from_landmarks(landmarks)


class PerfectNetwork(torch.nn.Module):
    """Heatmaps of the landmarks `[K, 2]` of faces in a `map_image`, whatever the crop: the nearest face's.

    It finds out from the colours how the crop lies in the image. A mirrored crop shows a mirrored face, so it gives
    each landmark's partner, as a trained network does. `peak` scales the maps; `landmarks_crop` are those of the last
    batch.
    """

    def __init__(self, *faces: np.ndarray, spec: ModelSpec = SPEC, peak: float = 1.0) -> None:
        super().__init__()
        self.faces = [np.asarray(face, float) for face in faces]
        self.codec = spec.build_codec()
        self.peak = peak
        self.batches: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(inputs))
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        crops = (inputs * std + mean).permute(0, 2, 3, 1).double().numpy()
        self.landmarks_crop = np.stack([self._landmarks_crop(crop) for crop in crops])
        heatmaps, _ = self.codec.encode(torch.from_numpy(self.landmarks_crop).float())
        return heatmaps * self.peak

    def _landmarks_crop(self, crop: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(crop[..., 2] > 254.5)
        if len(rows) < 10:
            return np.full((68, 2), -100.0)
        here = np.column_stack([columns, rows, np.ones(len(rows))])
        image_from_crop = np.linalg.lstsq(here, crop[rows, columns, :2], rcond=None)[0].T
        linear, offset = image_from_crop[:, :2], image_from_crop[:, 2]
        half = crop.shape[0] / 2
        center = linear @ (half, half) + offset
        face = min(self.faces, key=lambda face: np.linalg.norm(face.mean(axis=0) - center))
        points = (face - offset) @ np.linalg.inv(linear).T
        return points[list(IBUG68.mirror)] if np.linalg.det(linear) < 0 else points


def save_checkpoint(path: Path, spec: ModelSpec = SPEC, seed: int = 0) -> Path:
    """A training checkpoint of a network with random weights; a tiny one unless `spec` says otherwise."""
    torch.manual_seed(seed)
    state = {f"net.{key}": value for key, value in spec.build_network().state_dict().items()}
    torch.save({"state_dict": state, "facelm": checkpoint_facts(spec, {})}, path)
    return path
