"""Crops in rows and columns, with the landmarks and heatmaps that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from facelm.codec import Codec
from facelm.evaluation.overlay import PREDICTED, TRUTH, draw_landmarks, encoded
from facelm.files import write_whole
from facelm.geometry.affine import Image
from facelm.geometry.landmarks import LandmarkScheme

GAP = 6
_BACKGROUND = 24


def contact_sheet(tiles: Sequence[Image], titles: Sequence[str], columns: int) -> Image:
    """The `tiles` `[T, T, 3]` row by row on one picture, a line of text below each.

    Raises:
        ValueError: there are no tiles.
    """
    if not tiles:
        raise ValueError("a contact sheet of no faces")
    size = tiles[0].shape[0]
    text = max(12, size // 14)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = size + text + GAP, size + GAP
    sheet = np.full((GAP + rows * height, GAP + columns * width, 3), _BACKGROUND, np.uint8)
    for number, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        row, column = divmod(number, columns)
        top, left = GAP + row * height, GAP + column * width
        sheet[top : top + size, left : left + size] = tile
        _write_line(sheet[top + size : top + size + text, left : left + size], title)
    return sheet


def _write_line(strip: Image, text: str) -> None:
    """Writes `text` into `strip`, its end if it does not fit: names of faces differ there."""
    font = ImageFont.load_default(0.8 * strip.shape[0])
    plain = text.encode("utf-8", "replace").decode()  # a name may hold any bytes
    while plain and font.getlength(plain) > strip.shape[1]:
        plain = plain[1:]
    line = PIL.Image.fromarray(strip)
    ImageDraw.Draw(line).text((0, 0.45 * strip.shape[0]), plain, (220, 220, 220), font, anchor="lm")
    strip[:] = np.asarray(line)


def training_tile(item: Mapping[str, Any], scheme: LandmarkScheme, size: int, codec: Codec | None = None) -> Image:
    """An item of `FaceDataset` as `[size, size, 3]`: the crop, its landmarks, and with a `codec` its target heatmaps.

    Landmarks are amber, and cyan where they belong to the person's right eye (its outer corner, where the scheme says
    no more of it): it lies on the left of every face, in mirrored crops too, or left and right were not exchanged.
    """
    landmarks_crop = item["landmarks_crop"].double().numpy()
    crop = item["image"].numpy()
    scale = size / crop.shape[0]
    half = (scale - 1) / 2  # cv2.resize aligns the corners of pixels, not their centres
    tile = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    tile = np.asarray(tile, dtype=np.uint8)
    if codec is not None:
        heatmaps, _ = codec.encode(item["landmarks_crop"][None])
        return overlay_heat(tile, heatmaps[0].amax(dim=0).numpy(), codec.stride * scale, half)
    landmarks_tile = landmarks_crop * scale + half
    right_eye = np.full_like(landmarks_tile, np.nan)
    of_it = list(scheme.eyes[0] if scheme.eyes else scheme.outer_eyes[:1])
    right_eye[of_it] = landmarks_tile[of_it]
    return draw_landmarks(tile, right_eye, scheme, truth=landmarks_tile, color=PREDICTED, truth_color=TRUTH)


def overlay_heat(image: Image, heat: NDArray[np.float32], pixels_of_a_cell: float, first_cell: float) -> Image:
    """`image`, darkened, with `heat` `[h, w]` in 0..1 laid over it, from red by yellow to white.

    Convention: cell `i` of the map is centred on pixel `first_cell + i * pixels_of_a_cell`.
    """
    height, width = image.shape[:2]
    matrix = np.array([[pixels_of_a_cell, 0.0, first_cell], [0.0, pixels_of_a_cell, first_cell]])
    large = cv2.warpAffine(heat.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)
    colors = cv2.applyColorMap(np.round(large.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_HOT)[..., ::-1]
    share = 0.8 * large.clip(0, 1)[..., None]
    mixed = (1 - share) * (0.7 * image) + share * colors
    return np.asarray(mixed.round().clip(0, 255), dtype=np.uint8)


def write_png(path: Path, picture: Image) -> None:
    """Writes `picture` (RGB), whole or not at all.

    Raises:
        OSError: it cannot be written.
        ValueError: it is too large.
    """
    write_whole(path, encoded(picture, ".png"))
