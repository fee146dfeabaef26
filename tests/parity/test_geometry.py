"""Boxes, crop matrices and warped crops against mmpose and the HRNet authors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm.data.images import read_image
from facelm.geometry.affine import crop_matrix, invert, transform, warp
from facelm.geometry.boxes import Box, box_from_landmarks, crop_from_image
from facelm.geometry.landmarks import IBUG68

LARGE = 60.0
"""Boxes smaller than this many pixels leave the references' own float32 rounding above 0.003 px."""


def corners(size: float = 256.0) -> np.ndarray:
    return np.array([[0, 0], [size, 0], [0, size], [size, size], [size / 2, size / 2]])


class TestMatrices:
    def test_crop_matrix(self, golden, agree):
        arrays = golden.npz("geometry.npz")
        cases = zip(
            arrays["center"],
            arrays["json_scale"],
            arrays["rotation"],
            arrays["warp"],
            arrays["hr_get_transform"],
            strict=True,
        )
        ours, mmpose, authors = [], [], []
        for center, scale, rotation, matrix, original in cases:
            if scale * 200 < LARGE:
                continue
            box = Box((float(center[0]), float(center[1])), float(scale) * 200)
            crop_from_img = crop_from_image(box, 256, 1.25, rotation=float(rotation))
            # Compared where the crop is: at the image points that land on its corners and centre.
            points = transform(invert(crop_from_img), corners())
            ours.append(transform(crop_from_img, points))
            mmpose.append(transform(np.vstack([matrix, [0, 0, 1]]), points))
            authors.append(transform(original, points))
        agree("crop matrix, mmpose (px)", ours, mmpose, atol=0.003)
        agree("crop matrix, authors (px)", ours, authors, atol=0.003)

    def test_the_way_back(self, golden, agree):
        arrays = golden.npz("geometry.npz")
        large = arrays["json_scale"] * 200 >= LARGE
        ours = [
            transform(invert(crop_from_image(Box(tuple(map(float, c)), float(s) * 200), 256, 1.25)), p.astype(float))
            for c, s, p in zip(arrays["center"], arrays["json_scale"], arrays["pred_in_input_space"], strict=True)
        ]
        expected = arrays["pred_in_image_space"]
        agree("predictions back in the image (px)", np.array(ours)[large], expected[large], atol=0.003)


class TestBoxes:
    def test_box_of_landmarks(self, golden, agree, test_faces):
        arrays = golden.npz("geometry.npz")
        for name, landmarks in test_faces.items():
            box = box_from_landmarks(landmarks)
            agree("box of the landmarks: center", box.center, arrays[f"val_{name}_input_center"])
            side = np.full(2, box.side * 1.25, np.float32)
            agree("box of the landmarks: crop side", side, arrays[f"val_{name}_input_scale"])


@pytest.fixture
def test_faces(golden):
    """name -> landmarks as stored, of the two faces of 300W's test set beside the folder."""
    return {name.removesuffix(".png"): landmarks for name, landmarks in golden.test_faces().items()}


class TestWarps:
    def compare(self, golden, agree, what, crop, name):
        expected = read_image(golden.path(name)).astype(int)
        difference = np.abs(crop.astype(int) - expected)
        agree(f"{what}: largest (grey levels)", difference.max(), 0, atol=4)
        agree(f"{what}: mean (grey levels)", difference.mean(), 0, atol=0.1)

    def test_evaluation_crops(self, golden, agree, test_faces):
        arrays = golden.npz("geometry.npz")
        for name, landmarks in test_faces.items():
            image = read_image(golden.photographs() / f"{name}.png")
            matrix = crop_from_image(box_from_landmarks(landmarks), 256, 1.25)
            agree("annotations as stored", landmarks, arrays[f"val_{name}_keypoints"], atol=1e-4)
            self.compare(golden, agree, "evaluation crop", warp(image, matrix, 256), f"warp_val_{name}.png")

    @pytest.mark.parametrize(
        ("tag", "flip", "zoom", "rotation"),
        [("a", True, 1.1, 25.0), ("b", False, 0.8, -47.5), ("c", True, 1.25, 0.0), ("d", False, 1.0, 60.0)],
    )
    def test_training_crops(self, golden, agree, test_faces, tag, flip, zoom, rotation):
        arrays = golden.npz("geometry.npz")
        for name, landmarks in test_faces.items():
            box = box_from_landmarks(landmarks)
            matrix = crop_from_image(box, 256, 1.25, zoom=zoom, rotation=rotation, flip=flip)
            moved = transform(matrix, landmarks)
            moved = moved[list(IBUG68.mirror)] if flip else moved
            agree("landmarks in training crops (px)", moved, arrays[f"train_{tag}_{name}_kpts"], atol=0.003)
            if not (golden.folder / f"warp_train_{tag}_{name}.png").exists():
                continue
            image = read_image(golden.photographs() / f"{name}.png")
            crop = warp(image, matrix, 256)
            self.compare(golden, agree, "training crop", crop, f"warp_train_{tag}_{name}.png")


def test_opencv_interpolates_bilinearly():
    """Half a pixel between 0 and 200 is 100: what every crop relies on, in OpenCV 4 and 5 alike."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2] = 200
    half = np.array([[1.0, 0, -0.5], [0, 1, 0], [0, 0, 1]])
    assert abs(int(cv2.warpAffine(image, half[:2], (4, 4))[1, 2, 0]) - 100) <= 4
    assert crop_matrix((2, 2), 4, 4).tolist() == np.eye(3).tolist()
