"""Face boxes, the one function from a box to the crop that the network sees, and what other boxes mean.

Training, evaluation and prediction all call `crop_from_image`, so a face is framed the same way everywhere. Boxes of
other origin, a detector's above all, are brought to the training box by a `BoxConvention` first: that the two differ
is the usual reason why results on one's own photographs are worse than the published table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from facelm.geometry.affine import FloatArray, crop_matrix, invert, mirror_about, transform

LEAST_SIDE = 4.0
"""Image pixels; a smaller box shows no face."""


@dataclass(frozen=True)
class Box:
    """A square around a face: `center` (x, y) and `side`, in image pixels, and its `rotation` in degrees.

    `side` is 200 times the `scale` column of the published annotation files. Their boxes stand upright: `rotation` is
    0. A tilted one is cropped so that it stands upright in the crop; positive: the picture is turned counter-clockwise.
    """

    center: tuple[float, float]
    side: float
    rotation: float = 0.0

    @property
    def xyxy(self) -> FloatArray:
        """Left, top, right and bottom `[4]` before it is rotated about its centre, in image pixels."""
        x, y = self.center
        half = self.side / 2
        return np.array([x - half, y - half, x + half, y + half])


def box_from_landmarks(landmarks_image: FloatArray) -> Box:
    """300W's ground-truth box of one face's landmarks `[K, 2]`.

    center = (floor(min) + ceil(max)) / 2 and side = the larger of ceil(max) - floor(min): the published `center` and
    `scale` of all 1,289 valid and test rows, exactly. Moving landmarks by whole pixels moves the box with them, so
    the formula holds for 1-based and 0-based coordinates alike.

    Convention: landmarks and box are in image pixels (x, y).
    """
    low, high = np.floor(landmarks_image.min(axis=0)), np.ceil(landmarks_image.max(axis=0))
    x, y = (low + high) / 2
    return Box(center=(float(x), float(y)), side=float((high - low).max()))


def cut_box(xyxy: FloatArray, size: tuple[int, int]) -> Box:
    """The square around a rectangle `[4]` that is cut at the edge of a photograph of `size` (width, height) first.

    What mmpose makes of `bbox`; `side` is 0 for a rectangle outside. Convention: image pixels (x, y).
    """
    left, top, right, bottom = np.clip(xyxy, 0, np.array([*size, *size]) - 1.0)
    return Box((float(left + right) / 2, float(top + bottom) / 2), float(max(right - left, bottom - top)))


def box_side_image(image_from_crop: FloatArray, crop_size: int, crop_scale: float) -> FloatArray:
    """The side `[N]` in image pixels of the boxes that evaluation crops with `image_from_crop` `[N, 3, 3]` show."""
    area = np.abs(np.linalg.det(np.asarray(image_from_crop, dtype=np.float64)[..., :2, :2]))
    return np.asarray(np.sqrt(area) * crop_size / crop_scale)


def upright_box(landmarks_image: FloatArray, mirror: Sequence[int]) -> Box:
    """The box of landmarks `[K, 2]` along the head's own axes, rotated as the head is tilted.

    The tilt is that of the sum of the lines from each landmark on the image's left to its `mirror` partner. Of a head
    that is held upright this is `box_from_landmarks`, up to a pixel: a tilt of a fraction of a degree moves landmarks
    across the whole numbers to which the box is rounded. A tilted one gets the same crop as if it were upright, up to
    that pixel, while the upright box of its landmarks would be larger and lie elsewhere.

    Convention: landmarks and box are in image pixels (x, y).
    """
    left = [i for i, partner in enumerate(mirror) if i < partner]
    right = [mirror[i] for i in left]
    x, y = (landmarks_image[right] - landmarks_image[left]).sum(axis=0)
    rotation = float(np.degrees(np.arctan2(y, x)))
    upright_from_image = crop_matrix((0.0, 0.0), 1.0, 1, rotation)
    upright = box_from_landmarks(transform(upright_from_image, landmarks_image))
    x, y = transform(invert(upright_from_image), np.array(upright.center))
    return Box(center=(float(x), float(y)), side=upright.side, rotation=rotation)


def crop_from_image(
    box: Box,
    crop_size: int,
    crop_scale: float,
    *,
    zoom: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> FloatArray:
    """The 3x3 matrix from image pixels to the pixels of a `crop_size` x `crop_size` crop around `box`.

    The crop shows `crop_scale * zoom` times the box's side (so zoom > 1 makes the face smaller), its centre moved
    by `shift` times that side, turned by `rotation` degrees beyond the box's own (positive: counter-clockwise). `flip`
    mirrors the photograph about the box's centre first, as mmpose does, so the centre lands on the same crop pixel
    either way. With the defaults this is mmpose's and the HRNet authors' crop.

    Convention: image and crop pixels are 0-based and centred on integers.
    """
    side = box.side * crop_scale * zoom
    x, y = box.center
    turn = rotation - box.rotation if flip else rotation + box.rotation
    matrix = crop_matrix((x + shift[0] * side, y + shift[1] * side), side, crop_size, turn)
    return matrix @ mirror_about(x) if flip else matrix


@dataclass(frozen=True)
class BoxConvention:
    """How a kind of box lies on faces, as the way from it to the training box.

    The training box's centre is the box's middle plus `shift` times its longer side; its side is `scale` times the
    longer side. `covariance` `[3, 3]` is what remains of (shift x, shift y, log scale) from face to face;
    `benchmarks/box_robustness.py` draws from it. `source` says where the numbers are from.

    Convention: y points down, so a negative second shift means that the training box lies higher.

    Raises:
        ValueError: `scale` is not a positive number, or a number is not finite.
    """

    name: str
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    covariance: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),) * 3
    source: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite([*self.shift, self.scale]).all() and len(self.shift) == 2 and self.scale > 0):
            raise ValueError(
                f"box convention {self.name!r}: shift={self.shift}, scale={self.scale}; two finite shifts and a scale "
                "above 0 are needed. `facelm calibrate` measures them"
            )

    def training_box(self, xyxy: FloatArray) -> Box:
        """The training box of the face in the box `[4]`."""
        middle, longer = (xyxy[:2] + xyxy[2:]) / 2, float((xyxy[2:] - xyxy[:2]).max())
        x, y = middle + longer * np.array(self.shift)
        return Box(center=(float(x), float(y)), side=longer * self.scale)

    def draw_box(self, truth: Box, rng: np.random.Generator) -> Box:
        """What `training_box` would make of a box of this kind around a face whose training box is `truth`."""
        dx, dy, dlog = rng.multivariate_normal(np.zeros(3), np.array(self.covariance))
        longer = truth.side / (self.scale * np.exp(dlog))
        x, y = truth.center
        return Box(center=(x - dx * longer, y - dy * longer), side=longer * self.scale)


CONVENTIONS: Mapping[str, BoxConvention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            BoxConvention("square", source="300W's own box: the published center and scale"),
            BoxConvention(
                "tight",
                scale=1.0051,
                covariance=(
                    (1.23e-06, 6.71e-09, 2.66e-08),
                    (6.71e-09, 1.27e-06, -8.68e-08),
                    (2.66e-08, -8.68e-08, 8.79e-06),
                ),
                source="2,019 faces of 300W train (afw 337, helen 872, lfpw 810), from their landmarks",
            ),
            BoxConvention(
                "dlib",
                shift=(0.0077, 0.0877),
                scale=0.9808,
                covariance=(
                    (8.49e-03, 2.21e-04, 2.40e-04),
                    (2.21e-04, 2.72e-03, 5.93e-07),
                    (2.40e-04, 5.93e-07, 9.11e-03),
                ),
                source="dlib 20.0.1 on the same faces: 1,939 found, 80 (4 %) not. `facelm calibrate --detector dlib`",
            ),
        )
    }
)
"""Known conventions.

`square` is the square box of 300W's annotation files, the training box itself. `tight` is the smallest rectangle
around the 68 landmarks; the training box has whole pixels, hence the half percent. `dlib` is the box of
`dlib.get_frontal_face_detector()`, from the forehead's middle to the chin: the training box lies 9 % lower. From face
to face its middle varies by 9 % in x and 5 % in y and its size by 10 % (one standard deviation), as the detector's
windows lie on a coarse grid; on 24 released photographs in full the means were (-0.004, 0.095) and 0.988 with 3 missed.
"""


def get_convention(name: str) -> BoxConvention:
    """The convention of that name.

    Raises:
        ValueError: no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(
            f"no box convention {name!r}; known: {', '.join(CONVENTIONS)}. `facelm calibrate` measures that of any "
            "other detector"
        )
    return CONVENTIONS[name]


def measure_convention(name: str, xyxy: FloatArray, truth: list[Box], source: str = "") -> BoxConvention:
    """The convention of boxes `[N, 4]` around faces whose training boxes are `truth` (N).

    Raises:
        ValueError: fewer than two boxes.
    """
    if len(xyxy) < 2:
        raise ValueError(f"a convention cannot be measured on {len(xyxy)} face(s); 100 or more give a steady one")
    longer = (xyxy[:, 2:] - xyxy[:, :2]).max(axis=1)
    centers, sides = np.array([box.center for box in truth]), np.array([box.side for box in truth])
    shifts = (centers - (xyxy[:, :2] + xyxy[:, 2:]) / 2) / longer[:, None]
    offsets = np.column_stack([shifts, np.log(sides / longer)])
    x, y, log_scale = (round(float(value), 4) for value in offsets.mean(axis=0))
    covariance = np.cov(offsets.T)
    rows = tuple((float(f"{a:.3g}"), float(f"{b:.3g}"), float(f"{c:.3g}")) for a, b, c in covariance)
    return BoxConvention(name, (x, y), round(float(np.exp(log_scale)), 4), rows, source)


def overlaps(xyxy: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of every box `[N, 4]` with every other box `[M, 4]`: `[N, M]`."""
    low = np.maximum(xyxy[:, None, :2], others[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    area, other_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (xyxy, others))
    return np.asarray(shared / np.maximum(area[:, None] + other_area[None] - shared, 1e-12))


def check_boxes(boxes: object, width: int, height: int) -> FloatArray:
    """`boxes` as an array `[N, 4]`, every one of them usable on an image of that size.

    Convention: (x1, y1, x2, y2) in image pixels, 0-based; a box may reach beyond the image, but must meet it.

    Raises:
        ValueError: another shape, or a box that is not finite, inverted, smaller than `LEAST_SIDE`, or outside.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes are numbers [[x1, y1, x2, y2], ...], one row a face; got {boxes!r}") from error
    array = array.reshape(1, 4) if array.shape == (4,) else array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes have the shape [N, 4], one row (x1, y1, x2, y2) a face; got {list(array.shape)}")
    for index, box in enumerate(array):
        if problem := _problem(box, width, height):
            shown = ", ".join(f"{value:g}" for value in box)
            raise ValueError(f"box {index} ({shown}) {problem}")
    return array


def _problem(box: FloatArray, width: int, height: int) -> str:
    """What is wrong with a box, or nothing."""
    if not np.isfinite(box).all():
        return "is not finite; leave out faces that a detector did not find"
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        return "is inverted: boxes are (x1, y1, x2, y2) with x2 > x1 and y2 > y1. Is it (x, y, width, height)?"
    if max(x2 - x1, y2 - y1) < LEAST_SIDE:
        return f"is smaller than {LEAST_SIDE:g} pixels. Are its numbers fractions of the image? They must be pixels"
    if x1 > width or y1 > height or x2 < 0 or y2 < 0:
        return f"lies outside the image of {width}x{height} pixels. Does it belong to another image or size?"
    return ""
