"""Landmarks drawn on photographs with OpenCV: the overlays of reports, of `predict` and of `browse`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.geometry.affine import FloatArray, Image, crop_matrix, transform, warp
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68, LandmarkScheme, box_size

Color = tuple[int, int, int]

PREDICTED: Color = (0, 229, 255)
TRUTH: Color = (255, 196, 0)
"""Cyan and amber: told apart on any skin, in the dark, and by colour-blind readers."""

DOUBTFUL: Color = (255, 80, 60)
"""Points that are expected to be far off."""

_SUBPIXEL_BITS = 4  # OpenCV takes coordinates as integers with that many fractional bits
_FAR = 1e6  # pixels; beyond it OpenCV's integers overflow


def draw_landmarks(
    image: Image,
    landmarks_image: FloatArray,
    scheme: LandmarkScheme = IBUG68,
    *,
    truth: FloatArray | None = None,
    hidden: NDArray[np.bool_] | None = None,
    doubtful: NDArray[np.bool_] | None = None,
    color: Color = PREDICTED,
    truth_color: Color = TRUTH,
    points: bool = True,
    contours: bool = True,
    numbers: bool = False,
) -> Image:
    """A copy of `image` `[H, W, 3]` (RGB) with the landmarks `[K, 2]` and the scheme's contours drawn on it.

    `truth` `[K, 2]` is drawn below in a colour of its own, `hidden` `[K]` of its points as rings. Lines and dots are
    antialiased, placed to 1/16 pixel, and as thick as the face is large, so that overlays of small and large
    photographs look alike. A landmark that is not a finite number is left out; `doubtful` `[K]` ones are red dots.
    `points`, `contours` and `numbers` say what is drawn; numbers count from 0.

    Convention: landmarks are in image pixels (x, y), 0-based and centred on integers.
    """
    canvas = np.ascontiguousarray(image).copy()
    measured = landmarks_image if truth is None else truth
    measured = measured[np.isfinite(measured).all(axis=-1)]
    face = min(float(box_size(measured)), float(max(canvas.shape[:2]))) if len(measured) else 0.0
    if truth is not None:
        _draw_face(canvas, truth, scheme, truth_color, face, points, contours, hidden)
    _draw_face(canvas, landmarks_image, scheme, color, face, points, contours, doubtful=doubtful)
    if numbers:
        _draw_numbers(canvas, landmarks_image, face)
    return canvas


def draw_faces(
    image: Image,
    faces: Sequence[FloatArray],
    scheme: LandmarkScheme = IBUG68,
    *,
    doubtful: Sequence[NDArray[np.bool_] | None] | None = None,
    points: bool = True,
    contours: bool = True,
    numbers: bool = False,
) -> Image:
    """`image` with the landmarks `[K, 2]` of each of `faces` drawn on it, as `draw_landmarks` does."""
    draw = partial(draw_landmarks, scheme=scheme, points=points, contours=contours, numbers=numbers)
    for landmarks_image, unsure in zip(faces, doubtful or [None] * len(faces), strict=True):
        image = draw(image, landmarks_image, doubtful=unsure)
    return image


def resized(image: Image, *, most: int, least: int = 1) -> tuple[Image, float]:
    """`image` with `least` to `most` pixels on its longer side, and by what it was scaled: 1 where it has these."""
    longer = max(image.shape[:2])
    scale = min(max(longer, least), most) / longer
    if scale == 1:
        return image, scale
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8), scale


def in_resized(landmarks_image: FloatArray, scale: float) -> FloatArray:
    """Where points of an image lie when it was scaled: pixel centres stay pixel centres, (x + 1/2) scale - 1/2."""
    return (landmarks_image + 0.5) * scale - 0.5


def encoded(image: Image, ending: str, options: Sequence[int] = ()) -> bytes:
    """`image` `[H, W, 3]` (RGB) or `[H, W]` as a file of that ending, such as .png; imwrite does not open every path.

    Raises:
        ValueError: OpenCV cannot encode it, a JPEG of more than 65,500 pixels on a side for one.
    """
    try:
        written, content = cv2.imencode(
            ending, image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [*options]
        )
    except cv2.error:
        written = False
    if not written:
        raise ValueError(f"OpenCV cannot write a picture of {image.shape[1]} x {image.shape[0]} pixels as {ending}")
    return bytes(content.tobytes())


def _draw_numbers(canvas: Image, landmarks: FloatArray, face: float) -> None:
    """Writes each point's number beside it, as large as the face lets it; white with a dark rim."""
    size, thick = max(0.28, face / 700), max(1, round(face / 500))
    for number in np.flatnonzero(np.isfinite(landmarks).all(axis=-1)).tolist():
        x, y = np.round(landmarks[number].clip(-_FAR, _FAR) + face / 90).astype(int).tolist()
        for color, width in (((0, 0, 0), 2 * thick + 1), ((255, 255, 255), thick)):
            cv2.putText(canvas, str(number), (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)


def _draw_face(
    canvas: Image,
    landmarks: FloatArray,
    scheme: LandmarkScheme,
    color: Color,
    face: float,
    points: bool,
    contours: bool,
    hidden: NDArray[np.bool_] | None = None,
    doubtful: NDArray[np.bool_] | None = None,
) -> None:
    """Draws contours, then dots with a dark rim, into `canvas`; `face` is the face's size in pixels.

    `hidden` points `[K]` are rings about what lies there, `doubtful` ones `[K]` have a colour of their own.
    """
    known = np.asarray(np.isfinite(landmarks).all(axis=-1))
    thickness, radius = max(1, round(face / 180)), max(1.0, face / 100)
    fixed = np.round(np.nan_to_num(landmarks).clip(-_FAR, _FAR) * 2**_SUBPIXEL_BITS).astype(int).tolist()
    for contour in scheme.contours if contours else ():
        for start, end in pairwise(contour):
            if known[start] and known[end]:
                cv2.line(canvas, fixed[start], fixed[end], color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    for i in np.flatnonzero(known).tolist() if points else ():
        if hidden is not None and hidden[i]:
            ring = round(2.2 * radius * 2**_SUBPIXEL_BITS)
            cv2.circle(canvas, fixed[i], ring, color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
            continue
        own = DOUBTFUL if doubtful is not None and doubtful[i] else color
        rim = tuple(channel // 4 for channel in own)
        for dot_radius, dot_color in ((1.45 * radius, rim), (radius, own)):
            fixed_radius = round(dot_radius * 2**_SUBPIXEL_BITS)
            cv2.circle(canvas, fixed[i], fixed_radius, dot_color, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_face_tile(
    image: Image,
    landmarks_image: FloatArray,
    scheme: LandmarkScheme = IBUG68,
    *,
    truth: FloatArray | None = None,
    hidden: NDArray[np.bool_] | None = None,
    size: int = 480,
    margin: float = 1.6,
) -> Image:
    """The face cut out of `image` as `[size, size, 3]` with its landmarks `[K, 2]` drawn at that size.

    The cut is a square of `margin` times the face's box, that of `truth` where it is given; black outside the image.
    Points that are NaN in `truth` are not drawn, those `hidden` in it are rings.

    Convention: landmarks are in image pixels.

    Raises:
        ValueError: the landmarks that say where the face is are not finite, or all in one place.
    """
    place = landmarks_image
    if truth is not None:  # a point that is not labelled is not shown: there is nothing to compare it with
        labelled = np.asarray(np.isfinite(truth).all(axis=-1))
        landmarks_image, place = np.where(labelled[:, None], landmarks_image, np.nan), truth
    tile, tile_from_image = cut_tile(image, place, size=size, margin=margin)
    return draw_landmarks(
        tile,
        transform(tile_from_image, landmarks_image),
        scheme,
        truth=None if truth is None else transform(tile_from_image, truth),
        hidden=hidden,
    )


def cut_tile(
    image: Image, landmarks_image: FloatArray, *, size: int = 480, margin: float = 1.6
) -> tuple[Image, FloatArray]:
    """The face with those landmarks `[K, 2]` cut out of `image` as `[size, size, 3]`, and `tile_from_image` `[3, 3]`.

    As `draw_face_tile`, which draws on it.

    Raises:
        ValueError: the landmarks that say where the face is are not finite, or all in one place.
    """
    cut_from_image, side, tile_from_cut = _tile(landmarks_image, size, margin)
    cut = warp(image, cut_from_image, side)  # no change of scale: OpenCV's warp does not antialias
    tile = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return np.asarray(tile, dtype=np.uint8), tile_from_cut @ cut_from_image


def tile_matrix(landmarks_image: FloatArray, *, size: int = 480, margin: float = 1.6) -> FloatArray:
    """`tile_from_image` `[3, 3]` of `cut_tile`, which raises the same."""
    cut_from_image, _, tile_from_cut = _tile(landmarks_image, size, margin)
    return np.asarray(tile_from_cut @ cut_from_image)


def _tile(landmarks_image: FloatArray, size: int, margin: float) -> tuple[FloatArray, int, FloatArray]:
    """`cut_from_image`, the cut's side in pixels of the image, and `tile_from_cut`."""
    known = landmarks_image[np.isfinite(landmarks_image).all(axis=-1)]
    if not len(known):
        raise ValueError("no landmark is a finite number, so nothing says where the face is")
    box = box_from_landmarks(known)
    side = round(box.side * margin) if np.isfinite(box.side) else 0
    cut_from_image = crop_matrix(box.center, side, side)
    scale = size / side
    half = (scale - 1) / 2  # cv2.resize aligns the corners of pixels, not their centres
    return cut_from_image, side, np.array([[scale, 0, half], [0, scale, half], [0, 0, 1]])
