"""Faces as network inputs: one matrix, one warp, landmarks that move with the pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from facelm.data.augment import Augmentation, GeometricDraw
from facelm.data.faces import Face
from facelm.geometry.affine import FloatArray, Image, invert, transform, warp
from facelm.geometry.boxes import crop_from_image
from facelm.geometry.landmarks import LandmarkScheme

Key = tuple[int, int]
"""(epoch, index of the face)."""

_LARGEST = 2**14  # pixels of a photograph's side that is made up for a picture


class ImageSource(Protocol):
    """Where pixels come from: the photographs themselves, or a cache of them."""

    @property
    def reach(self) -> float:
        """Crops may show the upright square this far around the box's centre, in sides of the box."""

    def load(self, index: int) -> tuple[Image, FloatArray]:
        """The stored picture `[H, W, 3]` of face `index` and its `image_from_stored` matrix `[3, 3]`."""


class Originals(ImageSource, Protocol):
    """Where faces are measured: what can also say which photograph each is of."""

    def content(self, index: int) -> bytes:
        """The SHA-256 of the bytes of face `index`'s photograph."""


class Photographs:
    """The original files, decoded every time."""

    reach = math.inf

    def __init__(self, faces: Sequence[Face]) -> None:
        self.faces = faces

    def load(self, index: int) -> tuple[Image, FloatArray]:
        """The whole photograph; stored and image pixels are the same."""
        return self.faces[index].read(), np.eye(3)

    def content(self, index: int) -> bytes:
        """Of the file; raises OSError."""
        with self.faces[index].image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


def in_photograph(picture: Image, image_from_stored: FloatArray) -> Image:
    """A stored picture `[h, w, 3]` where it lies in its photograph, black around it: as large as that takes."""
    if np.array_equal(image_from_stored, np.eye(3)):
        return picture
    height, width = picture.shape[:2]
    corners = transform(image_from_stored, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    size = np.clip(np.ceil(corners.max(axis=0)), 1, _LARGEST).astype(int)
    turned = cv2.warpPerspective(picture, image_from_stored, (int(size[0]), int(size[1])))
    return np.asarray(turned, np.uint8)


class FaceDataset(Dataset[dict[str, Any]]):
    """Crops of faces with their landmarks, keyed by (epoch, index).

    An item holds `image` uint8 `[S, S, 3]` RGB, `landmarks_crop` float32 `[K, 2]`, `landmarks_image` float64 `[K, 2]`,
    `image_from_crop` float64 `[3, 3]` and `index`. With an `augmentation` the draw is a function of (seed, epoch,
    index) alone; without one the item is the evaluation crop.

    Convention: crop and image pixels are 0-based and centred on integers. A mirrored crop has its landmarks permuted
    by the scheme, so index 36 is the eye corner at the left of the crop in every item; `landmarks_image` stays in
    the photograph's order and pixels.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        *,
        crop_size: int,
        crop_scale: float,
        scheme: LandmarkScheme,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        source: ImageSource | None = None,
    ) -> None:
        self.faces = faces
        self.crop_size = crop_size
        self.crop_scale = crop_scale
        self.scheme = scheme
        self._mirror = np.array(scheme.mirror)
        self.augmentation = augmentation
        self.seed = seed
        self.source = source or Photographs(faces)

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        face = self.faces[index]
        rng = np.random.default_rng((self.seed, epoch, index + 1))  # + 1: stream 0 of an epoch is its order
        draw = self.augmentation.geometry.draw(rng) if self.augmentation else GeometricDraw()
        self._check_reach(face, draw)
        crop_from_img = crop_from_image(
            face.box,
            self.crop_size,
            self.crop_scale,
            zoom=draw.zoom,
            rotation=draw.rotation,
            shift=draw.shift,
            flip=draw.flip,
        )
        stored, image_from_stored = self.source.load(index)
        crop = warp(stored, crop_from_img @ image_from_stored, self.crop_size)
        landmarks_crop = transform(crop_from_img, face.landmarks_image)
        if draw.flip:
            landmarks_crop = landmarks_crop[self._mirror]
        if self.augmentation:
            crop = self.augmentation.paint(crop, rng)
        return {
            "image": torch.from_numpy(crop),
            "landmarks_crop": torch.from_numpy(landmarks_crop.astype(np.float32)),
            "landmarks_image": torch.from_numpy(face.landmarks_image),
            "image_from_crop": torch.from_numpy(invert(crop_from_img)),
            "index": index,
        }

    def _check_reach(self, face: Face, draw: GeometricDraw) -> None:
        """Raise where the crop would show what the source does not hold, and paint it black without a word."""
        reach = self.crop_scale * draw.reach
        if reach > self.source.reach + 1e-9:
            raise ValueError(
                f"{face.name}: {draw} reaches {reach:.4f} sides of the face's box from its centre; the crop cache was "
                f"made for {self.source.reach:.4f}. The augmentation is wider than the one the cache was made for: "
                "build the cache with it, or set data.cache=none"
            )
