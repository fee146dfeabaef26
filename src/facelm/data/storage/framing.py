"""What the crop cache stores of a photograph for one face: which pixels, and at which resolution.

A crop that is warped from the stored picture must look like one warped from the photograph. So an evaluation crop,
the same in every epoch, is stored as it is. For training the picture holds whatever the augmentation can reach, pixel
for pixel, and is reduced only where that is larger than `max_side`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from facelm.geometry.affine import FloatArray, Image, invert, warp
from facelm.geometry.boxes import Box, crop_from_image


class Framing(Protocol):
    """A rule that says what is stored. Its repr names every setting and is part of the cache's key."""

    @property
    def reach(self) -> float:
        """Crops may use the upright square this far around the box's centre, in sides of the box."""

    def size(self, box: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the stored picture for a face in a photograph of (width, height)."""

    def cut(self, photograph: Image, box: Box) -> tuple[Image, FloatArray]:
        """The stored picture `[h, w, 3]`, contiguous, and its `image_from_stored` `[3, 3]`."""


@dataclass(frozen=True)
class EvaluationCrop:
    """The crop that evaluation sees, as it is.

    Warping it once more changes nothing, so evaluation from the cache and from the photographs is the same to the bit.
    """

    crop_size: int
    crop_scale: float

    @property
    def reach(self) -> float:
        """Half the crop's side: only the undisturbed crop."""
        return self.crop_scale / 2

    def size(self, box: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """The crop's size, whatever the face."""
        return self.crop_size, self.crop_size

    def cut(self, photograph: Image, box: Box) -> tuple[Image, FloatArray]:
        """The crop, warped as ever."""
        crop_from_img = crop_from_image(box, self.crop_size, self.crop_scale)
        return warp(photograph, crop_from_img, self.crop_size), invert(crop_from_img)


@dataclass(frozen=True)
class Surroundings:
    """The pixels that augmented crops can touch, clipped to the photograph, at most `max_side` on the longer side.

    Up to `max_side` the pixels are copied, and crops agree but for rounding. A larger region is reduced by averaging
    areas: the picture then has fewer pixels than the crops of a close-up (zoom < 1) would want, and less of the
    aliasing that plain bilinear sampling of a large photograph brings. Beyond the photograph's edge a warp finds
    nothing in either and paints black.

    Raises:
        ValueError: a reach that is not positive, or `max_side` below 64.
    """

    reach: float
    max_side: int

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ValueError(f"a cache of faces needs a reach above 0, got {self.reach}")
        if self.max_side < 64:
            raise ValueError(
                f"data.cache_size={self.max_side} is the longer side of a stored face in pixels, at least 64; "
                "512 keeps what a crop of 256 pixels can show"
            )

    def size(self, box: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the region, reduced to `max_side` where it is larger."""
        left, top, right, bottom = self._region(box, image_size)
        width, height = right - left, bottom - top
        scale = min(1.0, self.max_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def cut(self, photograph: Image, box: Box) -> tuple[Image, FloatArray]:
        """The region's pixels, and the matrix that keeps pixel centres where they are when it was reduced."""
        image_size = photograph.shape[1], photograph.shape[0]
        left, top, right, bottom = self._region(box, image_size)
        region = photograph[top:bottom, left:right]
        width, height = self.size(box, image_size)
        x, y = (right - left) / width, (bottom - top) / height  # photograph pixels per stored pixel
        if (x, y) != (1.0, 1.0):
            region = np.asarray(cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        image_from_stored = np.array([[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2], [0, 0, 1.0]])
        return np.ascontiguousarray(region), image_from_stored

    def _region(self, box: Box, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom (exclusive) in whole photograph pixels."""
        half = self.reach * box.side
        # Bilinear sampling looks one stored pixel further, and the outermost ones stand for half a pixel of picture.
        margin = 1 + np.ceil(2 * max(1.0, 2 * half / self.max_side))
        low = np.floor(np.array(box.center) - half - margin)
        high = np.ceil(np.array(box.center) + half + margin) + 1
        left, top = np.clip(low, 0, np.array(image_size) - 1).astype(int)
        right, bottom = np.clip(high, (left + 1, top + 1), image_size).astype(int)
        return int(left), int(top), int(right), int(bottom)
