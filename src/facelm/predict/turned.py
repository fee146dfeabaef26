"""Faces in photographs that lie on their side or stand on their head: a detector finds upright ones only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from facelm.geometry.boxes import Box
from facelm.predict.photographs import Photograph

_QUARTERS = (1, 3, 2)  # turned by 90 degrees one way and the other, then by 180


def boxes_in_turned(photograph: Photograph, find: Callable[[Photograph], Sequence[Box]]) -> list[Box]:
    """The boxes that `find` gives for the photograph turned by 90, 270 and 180 degrees, as they lie in it as it is."""
    boxes = []
    for quarters in _QUARTERS:
        turned = Photograph(np.ascontiguousarray(np.rot90(photograph.pixels, quarters)))
        boxes += [turned_back(box, quarters, photograph.size) for box in find(turned)]
    return boxes


def turned_back(box: Box, quarters: int, size: tuple[int, int]) -> Box:
    """A box of a photograph of `size` (width, height) that was turned counter-clockwise, in the photograph as it is."""
    (x, y), (width, height) = box.center, size
    center = {1: (width - 1 - y, x), 2: (width - 1 - x, height - 1 - y), 3: (y, height - 1 - x)}[quarters]
    rotation = (box.rotation + 90 * quarters + 180) % 360 - 180
    return replace(box, center=center, rotation=rotation)
