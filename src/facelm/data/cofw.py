"""COFW: 1,852 faces with 29 points, each of which says whether it is hidden.

Source: Burgos-Artizzu et al., Robust face landmark estimation under occlusion, ICCV 2013. Its authors ship two MATLAB
files that hold photographs too; `unpack` writes both as files, in the form into which mmpose converts them, and that
form is read. A hidden point counts as all others; `Face.occluded` says which they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from facelm.data.published import PublishedFaceDataModule, PublishedFaces, converted
from facelm.files import write_whole
from facelm.geometry.affine import FloatArray, Image

MATS = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}
"""The authors' file of each split, and how the names of what it holds end."""

_POINTS = 29


class CofwFaces(PublishedFaces):
    """COFW's faces under `root`, see `PublishedFaces`."""

    title, points = "COFW", "cofw29"
    published = ("test",)
    validates = ("test", ("test",))
    official: ClassVar[Mapping[str, int]] = {"train": 1345, "test": 507}
    forms = converted("cofw_{}", {"train": ("train",), "test": ("test",)}, ("json",))

    def unpack(self, files: Sequence[Path], report: Callable[[str], object] = print) -> None:
        """See `unpack`."""
        for file in files:
            unpack(file, self.root, report)

    def prepare(self) -> None:
        """Unpacks the authors' files where their split has no annotations yet."""
        for split, (name, _) in MATS.items():
            if self._place(split) is None and (self.root / name).is_file():
                unpack(self.root / name, self.root)


def unpack(path: Path, out: Path, report: Callable[[str], object] = lambda _: None) -> int:
    """The number of faces of one of the authors' .mat files, after writing its photographs and annotations to `out`.

    `out/images/000001.png` and so on as mmpose numbers them (test faces follow the official number of training faces),
    lossless, and last `out/annotations/cofw_train.json` or `cofw_test.json`.

    Raises:
        ValueError: it is none of them, or what it holds cannot be used; or the reader of such files is not installed.
    """
    split = next((split for split, (name, _) in MATS.items() if name == path.name), None)
    if split is None:
        raise ValueError(f"'{path}' is called neither {' nor '.join(name for name, _ in MATS.values())}")
    images, annotations = [], []
    ending = MATS[split][1]
    first = 1 if split == "train" else CofwFaces.official["train"] + 1
    with _opened(path) as mat:
        points, boxes = (
            _numbers(mat, f"{key}{ending}", path, rows) for key, rows in (("phis", 3 * _POINTS), ("bboxes", 4))
        )
        references = mat[f"Is{ending}"]
        if len(boxes) != len(points) or references.size != len(points):
            raise ValueError(
                f"'{path}' holds {len(points)} faces, {len(boxes)} boxes and {references.size} photographs"
            )
        for number, (row, box, reference) in enumerate(zip(points, boxes, np.ravel(references), strict=True), first):
            pixels = np.asarray(mat[reference]).T
            name = f"{number:06d}.png"
            write_whole(out / "images" / name, _png(pixels, f"'{path}', face {number}"))
            height, width = pixels.shape[:2]
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            annotations.append(_annotation(number, row, box))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face", "keypoints": []}]}
    write_whole(out / "annotations" / f"cofw_{split}.json", json.dumps(content).encode())
    report(f"{path.name}: {len(annotations):,} faces unpacked")
    return len(annotations)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The HDF5 file that a .mat of MATLAB 7.3 is."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"'{path}' is a MATLAB 7.3 file, which h5py reads: pip install 'facelm[cofw]'") from error
    try:
        with h5py.File(path, "r") as mat:
            yield mat
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' is not COFW's file, or is damaged ({' '.join(str(error).split())[:200]}): take "
            f"{' and '.join(name for name, _ in MATS.values())} from COFW_color.zip"
        ) from error


def _numbers(mat: Any, key: str, path: Path, columns: int) -> FloatArray:
    """A matrix `[N, columns]`, a row a face; MATLAB's own order is the other way round."""
    values = np.asarray(mat[key], dtype=np.float64).T
    if values.ndim != 2 or values.shape[1] != columns or not np.isfinite(values).all() or abs(values).max() > 1e7:
        raise ValueError(f"'{path}': {key} has the shape {list(values.shape)}, and COFW's is [N, {columns}] of numbers")
    return values


def _png(pixels: Image, where: str) -> bytes:
    """A photograph `[H, W, 3]` RGB or `[H, W]` as a PNG file."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(
            f"{where}: its photograph is {pixels.dtype} {list(pixels.shape)}, and should be 8-bit grey or RGB"
        )
    done, content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels))
    if not done:
        raise ValueError(f"{where}: its photograph could not be written as PNG")
    return content.tobytes()


def _annotation(number: int, row: FloatArray, box: FloatArray) -> dict[str, Any]:
    """As mmpose's converter makes it: points from 0 and not left of or above the photograph; 1 is hidden, 2 is not."""
    x, y, hidden = row.reshape(3, _POINTS)
    keypoints = np.stack([np.maximum(x - 1, 0), np.maximum(y - 1, 0), np.where(hidden > 0, 1, 2)], axis=1)
    bbox = np.maximum(box, 0).tolist()
    entry = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": bbox}
    return {**entry, "keypoints": keypoints.ravel().tolist()}


class CofwFaceDataModule(PublishedFaceDataModule):
    """See `CofwFaces`."""

    reader = CofwFaces
