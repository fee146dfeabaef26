"""Drawn faces as a person has annotated faces: photographs, and 20 points of each in a file of some tool's."""

import json
import shutil

import cv2
import numpy as np

from facelm.data.w300.index import index_faces

PICKED = [0, 8, 16, 17, 21, 22, 26, 30, 31, 35, 36, 39, 42, 45, 48, 51, 54, 57, 37, 44]
NAMES = [
    "jaw_left", "chin", "jaw_right", "left_brow_outer", "left_brow_inner", "right_brow_inner", "right_brow_outer",
    "nose_tip", "nose_left", "nose_right", "left_eye_outer", "left_eye_inner", "right_eye_inner", "right_eye_outer",
    "mouth_left", "mouth_top", "mouth_right", "mouth_bottom", "left_lid", "right_lid",
]  # fmt: skip
MIRROR = [[0, 2], [3, 6], [4, 5], [8, 9], [10, 13], [11, 12], [14, 16], [18, 19]]
SCHEME = {"name": "mine20", "points": NAMES, "mirror": MIRROR, "outer_eyes": [10, 13]}


def photographs(drawn_root, folder, count=12):
    """[(name, landmarks [20, 2])] of photographs copied into `folder`, with a space and an umlaut in the name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, face in enumerate(index_faces(drawn_root, "train")[:count]):
        name = f"Büro {number:02d}{face.image.suffix}"
        shutil.copy(face.image, folder / name)
        found.append((name, face.landmarks_image[PICKED]))
    return found


def coco(faces, folder, *, hidden=(), names=NAMES):
    """The COCO-keypoints content for `faces` of `photographs`; `hidden` are (face, point) that nobody has labelled."""
    images, annotations = [], []
    for number, (name, landmarks) in enumerate(faces):
        height, width = cv2.imdecode(np.fromfile(folder / name, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        keypoints = []
        for point, (x, y) in enumerate(landmarks.tolist()):
            keypoints += [0, 0, 0] if (number, point) in hidden else [x, y, 2]
        low, high = landmarks.min(axis=0), landmarks.max(axis=0)
        box = [*low.tolist(), *(high - low).tolist()]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints, "bbox": box})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face", "keypoints": names}]}


def write_coco(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
