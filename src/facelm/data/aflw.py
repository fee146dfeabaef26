"""AFLW: 24,386 faces with 19 points, all of which count; the test faces that look ahead are a subset of their own.

Sources: Koestinger et al., Annotated Facial Landmarks in the Wild, ICCV workshops 2011; the split and the box, whose
side divides errors, are Zhu et al.'s, CVPR 2016, as mmpose and the HRNet authors ship them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from facelm.data.published import PublishedFaceDataModule, PublishedFaces, converted


class AflwFaces(PublishedFaces):
    """AFLW's faces under `root`, see `PublishedFaces`."""

    title, points = "AFLW", "aflw19"
    published = ("full", "frontal")
    validates = ("full", ("full",))
    official: ClassVar[Mapping[str, int]] = {"train": 20000, "full": 4386}
    forms = converted("face_landmarks_aflw_{}", {"train": ("train",), "full": ("test",)})
    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {"full": {"frontal": "frontal"}}


class AflwFaceDataModule(PublishedFaceDataModule):
    """See `AflwFaces`."""

    reader = AflwFaces
