"""What the fixture `photos` is made of, and what `facelm predict` wrote."""

from pathlib import Path

import cv2
import numpy as np

from facelm.geometry.boxes import CONVENTIONS
from facelm.predict.journal import JOURNAL
from perfect_network import box_of, face_landmarks, map_image

FACE = face_landmarks()


class FixedDetector:
    """Finds the face of a map image, and none in an image of another size."""

    def __init__(self, convention=CONVENTIONS["square"], side=2000):
        self.convention = convention

    def __call__(self, image):
        return box_of(FACE).xyxy[None] if image.shape[1] == 240 else np.empty((0, 4))


def write(path, image=None):
    image = map_image() if image is None else image
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


def written(folder="out"):
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != JOURNAL)
    return sorted(str(path.relative_to(folder)) for path in found)
