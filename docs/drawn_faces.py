"""Makes docs/drawn_faces.png, the README's picture: faces that facelm draws, with their 68 landmarks.

python docs/drawn_faces.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from facelm.geometry.boxes import box_from_landmarks
from facelm.data.synthetic.variation import DIFFICULTIES
from facelm.data.synthetic.dataset import draw_face
from facelm.evaluation.overlay import draw_face_tile

COLUMNS, ROWS, TILE, GAP, MARGIN = 6, 3, 160, 4, 1.62
SEED = 11  # chosen by eye
COMMON = replace(DIFFICULTIES["common"], degradation=0.3)  # noise and blur make a small picture muddy, and large
CHALLENGE = replace(DIFFICULTIES["challenge"], degradation=0.3, occlusion=1.0)


def main() -> None:
    """Draws COLUMNS x ROWS faces, every third of them a hard one, and writes the sheet as a palette PNG."""
    sheet = np.full((ROWS * (TILE + GAP) - GAP, COLUMNS * (TILE + GAP) - GAP, 3), 255, np.uint8)
    rng = np.random.default_rng(SEED)
    for number in range(COLUMNS * ROWS):
        row, column = divmod(number, COLUMNS)
        tile = draw_tile(rng, hard=(row + column) % 3 == 2)
        sheet[row * (TILE + GAP) :, column * (TILE + GAP) :][:TILE, :TILE] = tile
    target = Path(__file__).with_suffix(".png")
    picture = Image.fromarray(sheet)
    palette = picture.quantize(256)  # Pillow dithers only onto a palette that is given
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def draw_tile(rng: np.random.Generator, *, hard: bool) -> np.ndarray:
    """The next drawn face that fills a tile and is neither dark nor pale, with its landmarks, `[TILE, TILE, 3]`."""
    while True:
        image, landmarks = draw_face(rng, CHALLENGE if hard else COMMON)
        height, width = image.shape[:2]
        box = box_from_landmarks(landmarks)
        x, y = box.center
        fills = min(x, y, width - x, height - y) >= MARGIN / 2 * box.side
        if fills and 100 < image.mean() < 190:
            tile = draw_face_tile(image, landmarks, size=2 * TILE, margin=MARGIN)
            return np.asarray(cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
