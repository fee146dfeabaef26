"""What a person looks at while a training runs: where the error lies, and the same faces again and again."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from facelm.data.faces import Face
from facelm.evaluation.metrics import (
    FacePredictions,
    labelled,
    nme,
    per_face_error,
    point_distances,
    region_errors,
)
from facelm.evaluation.overlay import cut_tile, draw_landmarks
from facelm.geometry.affine import Image, transform
from facelm.geometry.landmarks import FloatArray, LandmarkScheme, measurable, normaliser

log = logging.getLogger(__name__)

SHOWN_FACES = 8

MOST_SUBSETS = 8
"""Of the validation faces; more curves would be no help."""

Show = Callable[[Sequence[Image], Sequence[str], int], None]
"""Takes pictures `[H, W, 3]`, a line of text for each, and the step of the training."""


def validation_errors(
    faces: FacePredictions, scheme: LandmarkScheme, subsets: Mapping[str, Sequence[int]], name: str
) -> dict[str, float]:
    """`val/nme`, `val/nme_REGION` and `val/SUBSET/nme` (for `name` "val") in percent.

    `subsets` are the indices of the faces of each. What no face says anything about is left out.

    Raises:
        ValueError: there is no face to measure.
    """
    distances = point_distances(faces.predicted, faces.target)
    length = normaliser(faces.target, scheme, faces.side)
    seen, kept = labelled(faces.target), measurable(length, scheme, "val")
    errors = per_face_error(distances, length, seen)
    found = {f"{name}/nme": 100 * nme(errors[kept])}
    regions = region_errors(distances, length, scheme, seen) if len(scheme.regions) > 1 else {}
    parts = {f"{name}/nme_{region}": values[kept] for region, values in regions.items()}
    parts |= {
        f"{name}/{subset}/nme": errors[kept & np.isin(faces.index, indices)] for subset, indices in subsets.items()
    }
    known = {key: values[np.isfinite(values)] for key, values in parts.items()}
    return found | {key: 100 * nme(values) for key, values in known.items() if len(values)}


def subsets_of(faces: Sequence[Face]) -> dict[str, list[int]]:
    """Indices of `faces` by subset; where they have none, by folder. None where that would not tell faces apart.

    More than `MOST_SUBSETS` are none, and a name that would look odd in a metric's is left out.
    """
    found: dict[str, list[int]] = defaultdict(list)
    named = any(face.subsets for face in faces)
    for index, face in enumerate(faces):
        for name in face.subsets if named else (face.folder,):
            found[name].append(index)
    if not 1 < len(found) <= MOST_SUBSETS:
        return {}
    return {name: indices for name, indices in found.items() if re.fullmatch(r"[\w .-]{1,40}", name)}


class FacesWhileTraining(Callback):
    """Shows the same faces of the validation set with their predictions, after the first epoch and every `every`.

    `faces` are all that validate; `SHOWN_FACES` of them are taken, evenly spread. Photographs are read once. What goes
    wrong is said, and ends the pictures alone.
    """

    def __init__(self, faces: Sequence[Face], scheme: LandmarkScheme, show: Show, every: int) -> None:
        if every < 1:
            raise ValueError(f"pictures_every={every}: a number of epochs from 1 on, or null for no pictures")
        self.faces = faces
        self.scheme = scheme
        self.show = show
        self.every = every
        self._rows = np.unique(np.linspace(0, len(faces) - 1, SHOWN_FACES).astype(int)).tolist()
        self._tiles: list[tuple[Image, FloatArray]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws what was just measured, and gives it to the trackers."""
        lit: Any = pl_module
        epoch = trainer.current_epoch
        if not self._rows or lit.measured is None or (epoch and (epoch + 1) % self.every):
            return
        try:
            self.show(*self._drawn(lit.measured), trainer.global_step)
        except (OSError, ValueError) as error:
            log.warning(f"no more pictures of validation faces: {error}")
            self._rows = []

    def _drawn(self, found: FacePredictions) -> tuple[list[Image], list[str]]:
        if not self._tiles:
            self._tiles = [cut_tile(face.read(), face.landmarks_image, size=256) for face in self._chosen()]
        place = {index: row for row, index in enumerate(found.index.tolist())}
        length = normaliser(found.target, self.scheme, found.side)
        errors = 100 * per_face_error(point_distances(found.predicted, found.target), length, labelled(found.target))
        pictures, captions = [], []
        for index, (tile, tile_from_image) in zip(self._rows, self._tiles, strict=True):
            row = place[index]
            points = [transform(tile_from_image, one[row]) for one in (found.predicted, found.target)]
            pictures.append(draw_landmarks(tile, points[0], self.scheme, truth=points[1]))
            captions.append(f"{self.faces[index].name}: {errors[row]:.2f} %")
        return pictures, captions

    def _chosen(self) -> list[Face]:
        return [self.faces[index] for index in self._rows]
