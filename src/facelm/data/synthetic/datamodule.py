"""Drawn faces as Lightning sees them."""

from __future__ import annotations

from typing import Any

from facelm.data.datamodule import FaceDataModule
from facelm.data.synthetic.dataset import draw_dataset


class DrawnFaceDataModule(FaceDataModule):
    """Drawn faces in 300W's layout, made under `root` when they are not there yet."""

    def __init__(self, *, drawing_seed: int = 0, counts: dict[str, int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.drawing_seed = drawing_seed
        self.counts = counts

    def prepare_data(self) -> None:
        """Draws the faces; Lightning calls this on one process of a machine."""
        draw_dataset(self.root, counts=self.counts, seed=self.drawing_seed)
