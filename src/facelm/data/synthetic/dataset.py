"""Drawn faces: photographs of people who do not exist, their 68 landmarks exact, in 300W's own folders.

Whoever has no 300W trains, tests and shows facelm on them. How a face comes about is in `drawing/`, in the order that
its first line gives; here a whole photograph is put together, and a data set is written.
"""

from __future__ import annotations

import logging
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np

from facelm.data.synthetic.appearance import draw_look
from facelm.data.synthetic.camera import draw_camera
from facelm.data.synthetic.folder import Drawing, already_there, put_in_place
from facelm.data.synthetic.head import Head
from facelm.data.synthetic.mesh import NUM_LANDMARKS, TEMPLATE, skin
from facelm.data.synthetic.photo import develop, paint_background, paint_occluder, random_colour
from facelm.data.synthetic.render import render_skin, shading
from facelm.data.synthetic.texture import paint_texture
from facelm.data.synthetic.variation import DIFFICULTIES, Difficulty, draw_expression, draw_identity
from facelm.data.w300.annotations import write_pts
from facelm.files import unfinished_folder
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.landmarks import IBUG68

logger = logging.getLogger(__name__)

DEFAULT_COUNTS: Mapping[str, int] = MappingProxyType({"train": 1200, "common": 120, "challenge": 60, "test": 60})
"""Faces of each split: enough for the demo, drawn in about ten seconds."""

# The share of a folder's faces that are drawn as hard as ibug's; AFW and the private test lie between the others.
_HARD: Final = {
    "afw": 0.35,
    "ibug": 1.0,
    "01_Indoor": 0.3,
    "02_Outdoor": 0.3,
    "helen/trainset": 0.06,
    "lfpw/trainset": 0.06,
}
_SIZES: Final = (224, 289)  # sides of the photographs, in pixels
_BATCH: Final = 32  # faces that a process draws before it reports


def draw_face(rng: np.random.Generator, difficulty: str | Difficulty = "common") -> tuple[Image, FloatArray]:
    """A photograph of a face that does not exist, RGB uint8 `[H, W, 3]`, and its landmarks `[68, 2]` float64.

    Everything is drawn from `rng` and nothing else. The landmarks are where the painted features are, to rounding;
    those that the head itself or something before it hides are where they would be. The face takes up half to two
    thirds of the photograph. `difficulty` is "common", "challenge", or one of your own.

    Convention: landmarks are in image pixels (x, y), 0-based and centred on integers.

    Raises:
        ValueError: no difficulty of that name.
    """
    if isinstance(difficulty, str):
        if difficulty not in DIFFICULTIES:
            raise ValueError(f"no difficulty {difficulty!r}; known: {', '.join(DIFFICULTIES)}")
        difficulty = DIFFICULTIES[difficulty]
    width, height = (int(side) for side in rng.integers(*_SIZES, size=2))
    face = draw_expression(rng, draw_identity(rng), difficulty.expression)
    camera = draw_camera(rng, face, difficulty, width, height)
    look = draw_look(rng)
    light = np.array([rng.normal(0, 0.6), rng.normal(-0.4, 0.3), 1.0])
    light /= np.linalg.norm(light)
    eye_stretch, mouth_opening = (_eye_sizes(face) / _USUAL_EYES).tolist(), float(face[66, 1] - face[62, 1])

    image = paint_background(rng, width, height)
    head = Head(image, look, camera, face, light)
    head.paint_behind(rng, cloth=random_colour(rng))
    turned = camera.turned(skin().follow @ face)
    texture = paint_texture(rng, look, eye_stretch, mouth_opening)
    render_skin(image, texture, turned, camera, shading(turned, light, ambient=float(rng.uniform(0.4, 0.7))))
    head.paint_in_front(rng)
    if rng.random() < difficulty.occlusion:
        paint_occluder(rng, image, look, camera, face)
    return develop(rng, image, difficulty.degradation), camera.project(face[:NUM_LANDMARKS])


def _eye_sizes(face: FloatArray) -> FloatArray:
    """Width and opening of both eyes, `[2, 2]` in millimetres."""
    eyes = face[np.array(IBUG68.eyes)]  # [2, 6, 3]: corner, two of the upper lid, corner, two of the lower
    return np.stack([eyes[:, 3, 0] - eyes[:, 0, 0], (eyes[:, 4:, 1] - eyes[:, 1:3, 1]).sum(axis=1) / 2], axis=1)


_USUAL_EYES: Final = _eye_sizes(TEMPLATE)


def draw_dataset(
    root: str | Path,
    *,
    counts: Mapping[str, int] | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Drawn faces under `root` in 300W's folders, `root` itself as a Path; drawn now unless they are there already.

    `counts` says how many faces each split has ("train", "common", "challenge", "test"; one that is left out has
    none; null: DEFAULT_COUNTS); a split's folders share them as iBUG's do. Face number i of a folder is a function of
    (seed, folder, i) alone, so more faces, another order or any number of `processes` change none of them; several
    need the usual `if __name__ == "__main__"` in the script that asks for them. `progress(done, total)` is called now
    and then.

    The tree appears under its name only when it is complete. A folder that holds anything else than faces drawn
    here is never touched.

    Raises:
        ValueError: an unknown split, a count that is no number from 0 on, no face at all, or a negative seed.
        FileExistsError: `root` holds files that were not drawn here, or is no folder.
    """
    drawing = Drawing.of(DEFAULT_COUNTS if counts is None else counts, seed)
    root = Path(root)
    if already_there(root, drawing):
        return root
    jobs = [(folder, index) for folder, count in drawing.folders().items() for index in range(count)]
    logger.info("drawing %d faces under %s", len(jobs), root)
    with unfinished_folder(root) as unfinished:
        for folder in drawing.folders():
            drawing.path(unfinished, folder).mkdir(parents=True)
        done = 0
        for drawn in _draw_all(partial(_draw_batch, unfinished, drawing), jobs, processes):
            done += drawn
            if progress is not None:
                progress(done, len(jobs))
        put_in_place(unfinished, root, drawing)
    return root


Job = tuple[str, int]


def _draw_all(draw: Callable[[list[Job]], int], jobs: list[Job], processes: int) -> Iterator[int]:
    """Draw all `jobs`, here or in other processes; yields how many were drawn each time some are done."""
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    if processes <= 1:
        yield from map(draw, batches)
        return
    fresh = multiprocessing.get_context("spawn")  # a forked OpenCV waits for ever for threads that it has not
    with ProcessPoolExecutor(min(processes, len(batches)), mp_context=fresh) as pool:
        yield from pool.map(draw, batches)


def _draw_batch(unfinished: Path, drawing: Drawing, jobs: list[Job]) -> int:
    """Draw and write the faces of `jobs`, (folder, index) each; their number."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are too small to share, and the processes are the parallelism
    try:
        for folder, index in jobs:
            _draw_file(unfinished, drawing, folder, index)
    finally:
        cv2.setNumThreads(threads)
    return len(jobs)


def _draw_file(unfinished: Path, drawing: Drawing, folder: str, index: int) -> None:
    """Draw face number `index` of `folder` and write its photograph and its .pts."""
    rng = np.random.default_rng([drawing.seed, zlib.crc32(folder.encode()), index])
    difficulty = "challenge" if rng.random() < _HARD.get(folder, 0.0) else "common"
    image, landmarks_image = draw_face(rng, difficulty)
    quality = int(rng.integers(70, 97))
    path = drawing.image_path(unfinished, folder, index)
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    pixels = image[..., 0] if grey else image[..., ::-1]
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    written, content = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)
    if not written:
        raise RuntimeError(f"OpenCV could not encode {path}")
    path.write_bytes(content.tobytes())
    write_pts(path.with_suffix(".pts"), landmarks_image)
