"""Small trees in 300W's layout for tests, in all three annotation formats. The faces are numbers, nobody's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from facelm.geometry.landmarks import IBUG68

NAMES = {
    "train": ["afw/11_1", "afw/11_2", "helen/trainset/5_1", "lfpw/trainset/image_0001"],
    "common": ["helen/testset/7_1", "lfpw/testset/image_0001"],
    "challenge": ["ibug/image_003_1"],
    "test": ["01_Indoor/indoor_001", "02_Outdoor/outdoor_001"],
}
NAMES["full"] = sorted(NAMES["common"] + NAMES["challenge"])
ALL = sorted({name for names in NAMES.values() for name in names})
"""A few faces for each split, and all of them."""

Stored = np.ndarray
"""Landmarks [68, 2] as files hold them: 1-based."""

POINT_COLUMNS = [f"original_{i}_{axis}" for i in range(68) for axis in "xy"]
CSV_COLUMNS = ["image_name", "scale", "center_w", "center_h", *POINT_COLUMNS]


def some_landmarks(seed: int = 0, low: float = 20.0, high: float = 75.0) -> Stored:
    """A face of 68 points that fills the square from `low` to `high` roughly, with up to four decimals as in 300W."""
    frontal = np.array(IBUG68.shape)
    plain = (frontal - frontal.min(0)) / np.ptp(frontal, axis=0)
    shaken = plain + np.random.default_rng(seed).uniform(-0.05, 0.05, (68, 2))
    return (low + (high - low) * shaken.clip(0, 1)).round(4)


def pts_text(stored: Stored) -> str:
    points = "\n".join(f"{x} {y}" for x, y in stored.tolist())
    return f"version: 1\nn_points: {len(stored)}\n{{\n{points}\n}}\n"


def write_image(path: Path, width: int = 100, height: int = 90, seed: int = 0) -> Path:
    """A noisy picture in the format of the path's ending."""
    channels = 1 if path.suffix.lower() == ".pgm" else 3
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())
    return path


def write_tree(root: Path, names: Iterable[str], ending: str = ".jpg") -> dict[str, Stored]:
    """A picture and a .pts for each name such as `afw/1`; what the .pts hold, by name."""
    faces = {name: some_landmarks(seed) for seed, name in enumerate(names)}
    for name, stored in faces.items():
        write_image(root / f"{name}{ending}")
        (root / f"{name}.pts").write_text(pts_text(stored))
    return faces


def published_box(stored: Stored) -> tuple[list[float], float]:
    """(center, scale) as the published files have them, written out anew."""
    (left, top), (right, bottom) = np.floor(stored.min(0)), np.ceil(stored.max(0))
    return [float(left + right) / 2, float(top + bottom) / 2], float(max(right - left, bottom - top)) / 200


def write_json(path: Path, faces: Mapping[str, Stored]) -> Path:
    """mmpose's COCO-style file of the faces by image name."""
    images, annotations = [], []
    for number, (image_name, stored) in enumerate(faces.items()):
        center, scale = published_box(stored)
        keypoints = np.column_stack([stored, np.ones(len(stored))]).ravel().tolist()
        images.append({"id": number, "file_name": image_name, "height": 90, "width": 100})
        annotations.append(
            {"id": number, "image_id": number, "keypoints": keypoints, "num_keypoints": 68, "iscrowd": 0}
            | {"category_id": 1, "center": center, "scale": scale}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"categories": [], "images": images, "annotations": annotations}))
    return path


def write_csv(path: Path, faces: Mapping[str, Stored]) -> Path:
    """The HRNet authors' file of the faces by image name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        for image_name, stored in faces.items():
            center, scale = published_box(stored)
            writer.writerow([image_name, scale, *center, *stored.ravel().tolist()])
    return path


WRITERS = {"json": write_json, "csv": write_csv}
