"""COCO-WholeBody's faces: 68 points each, several in a photograph, those alone that its authors mark as valid.

Source: Jin et al., Whole-Body Human Pose Estimation in the Wild, ECCV 2020, https://github.com/jin-s13/COCO-WholeBody
"""

from __future__ import annotations

from facelm.data.coco import Keys
from facelm.data.published import PublishedFaceDataModule, PublishedFaces, converted


class CocoWholeBodyFaces(PublishedFaces):
    """COCO-WholeBody's faces under `root`, see `PublishedFaces`."""

    title, points = "COCO-WholeBody", "ibug68"
    published = ("val",)
    forms = converted(
        "coco_wholebody_{}", {split: (f"{split}_v1.0", f"{split}_v1") for split in ("train", "val")}, ("json",)
    )
    photographs = ("train2017", "val2017", "images", "")
    keys = Keys("face_kpts", "face_box", "face_valid", cut=True)


class CocoWholeBodyFaceDataModule(PublishedFaceDataModule):
    """See `CocoWholeBodyFaces`."""

    reader = CocoWholeBodyFaces
