"""Whether an ONNX file, in ONNX Runtime, gives the landmarks that the `Predictor` gives, on drawn faces.

The file's crops are cut, and its landmarks taken back into the photograph, as its metadata say; so the check also
notices a file whose normalisation, crop or pixel origin is not the predictor's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.affine import FloatArray, Image, invert, warp
from facelm.geometry.boxes import Box, box_from_landmarks, crop_from_image
from facelm.models.inference import normalise
from facelm.models.spec import ModelSpec
from facelm.predict.photographs import Photograph
from facelm.predict.predictor import Predictor

TOLERANCE = 0.01
"""Pixels of the crop."""

QUARTER_STEP_CODECS = ("mmpose", "hrnet")
"""They decode to the largest cell and a quarter cell towards its higher neighbour; rounding decides between equals."""

LEAST_AGREEING = 0.999
"""The share of points within TOLERANCE that these codecs need; all points with the others."""

BoolArray = NDArray[np.bool_]

FACES = 32
_LISTED = 10
_BATCHES = (1, 7)  # faces at a time: N is to be dynamic


@dataclass(frozen=True, eq=False)
class OnnxCheck:
    """How far the file is from the predictor: `differences` `[N, K]` in pixels of the crop, and confidences'.

    `needed` is the share of points that have to agree to TOLERANCE. `rounding` `[N, K]` is how far PyTorch itself
    moves a point when it computes in float64: where a heatmap is so flat that rounding decides, no two programs
    agree, and the point does not count.
    """

    differences: FloatArray
    confidence_difference: float
    needed: float
    rounding: FloatArray
    against: str = "the Predictor"

    @property
    def passed(self) -> bool:
        """Whether enough points agree; one that is not a number does not."""
        agreeing, undecided = self._agreeing, self.rounding > TOLERANCE / 10
        share = (agreeing | undecided).mean()
        return bool(share >= self.needed and self.confidence_difference < 1e-3)

    @property
    def _agreeing(self) -> BoolArray:
        return np.asarray(self.differences <= TOLERANCE)

    def report(self) -> str:
        """What was found, in a line, and a line for each of the first points that do not agree."""
        faces, points = self.differences.shape
        agreeing = self.differences[self._agreeing]
        others = [(i, k) for i, k in np.argwhere(~self._agreeing).tolist()]
        largest = f"{agreeing.max():.5f}" if len(agreeing) else "-"
        share = 100 * len(agreeing) / self.differences.size
        head = (
            f"ONNX Runtime against {self.against} on {faces} drawn faces: {share:.2f} % of {faces * points:,} points "
            f"agree to {TOLERANCE} px of the crop ({100 * self.needed:g} % needed), the "
            f"largest difference among them is {largest} px; confidences differ by up to "
            f"{self.confidence_difference:.0e}"
        )
        rows = [self._row(i, k) for i, k in others[:_LISTED]]
        more = [f"  and {len(others) - _LISTED} more"] if len(others) > _LISTED else []
        return "\n".join([head, *rows, *more])

    def _row(self, face: int, landmark: int) -> str:
        moved = self.rounding[face, landmark]
        excuse = f" (in float64 PyTorch itself differs by {moved:.2g} px)" if moved > TOLERANCE / 10 else ""
        return f"  face {face} landmark {landmark}: {self.differences[face, landmark]:.2g} px{excuse}"


def check_onnx(session: Any, net: nn.Module, spec: ModelSpec, faces: int = FACES) -> OnnxCheck:
    """ONNX Runtime's `session` compared with the `Predictor` of `net` on drawn faces, in their annotated boxes.

    The predictor makes no flip test and no second crop here, as the file makes none.
    """
    photographs, boxes = drawn_faces(faces)
    crops, image_from_crop = cut_crops(photographs, boxes, spec)
    landmarks_crop, confidence = _run(session, crops)
    found = landmarks_in_photograph(landmarks_crop, image_from_crop, spec)
    predictor = Predictor(net, spec, device="cpu", flip="none")
    predicted = [face for (face,) in predictor.faces_in_boxes(photographs, [[box] for box in boxes], refine=0)]
    expected, sure = (
        np.stack([getattr(face, name) for face in predicted]) for name in ("landmarks_image", "confidence")
    )
    pixel = np.array([box.side for box in boxes]) * spec.crop_scale / spec.crop_size  # of the crop, in the photograph
    differences = np.abs(found - expected).max(axis=-1) / pixel[:, None]
    rounding = np.zeros_like(differences)
    quarter_steps = spec.codec.get("name") in QUARTER_STEP_CODECS
    if not quarter_steps and len(rows := np.flatnonzero(~(differences <= TOLERANCE).all(axis=1))):
        rounding[rows] = _rounding(net, spec, crops[rows])
    needed = LEAST_AGREEING if quarter_steps else 1.0
    return OnnxCheck(differences, float(np.abs(confidence - sure).max()), needed, rounding)


def drawn_faces(count: int) -> tuple[list[Photograph], list[Box]]:
    """Drawn photographs of a face each, the same ones every time, and the faces' training boxes."""
    drawn = [draw_face(np.random.default_rng(index)) for index in range(count)]
    return [Photograph(image) for image, _ in drawn], [box_from_landmarks(landmarks) for _, landmarks in drawn]


def cut_crops(photographs: Sequence[Photograph], boxes: Sequence[Box], spec: ModelSpec) -> tuple[Image, FloatArray]:
    """The crops `[N, S, S, 3]` of the boxes, cut as `export.how_to_crop` says, and `image_from_crop` `[N, 3, 3]`."""
    offset = 1 - spec.pixel_origin
    moved = [replace(box, center=(box.center[0] + offset, box.center[1] + offset)) for box in boxes]
    matrices = [crop_from_image(box, spec.crop_size, spec.crop_scale) for box in moved]
    pairs = zip(photographs, matrices, strict=True)
    crops = np.stack([warp(photograph.pixels, matrix, spec.crop_size) for photograph, matrix in pairs])
    return crops, np.stack([invert(matrix) for matrix in matrices])


def landmarks_in_photograph(landmarks_crop: FloatArray, image_from_crop: FloatArray, spec: ModelSpec) -> FloatArray:
    """Landmarks `[N, K, 2]` in pixels of the photograph, brought back as `export.how_to_go_back` says."""
    back = spec.build_codec().landmarks_in_image(torch.from_numpy(landmarks_crop), torch.from_numpy(image_from_crop))
    return np.asarray(back.numpy() - spec.stored_offset_image, np.float64)


@torch.inference_mode()
def _rounding(net: nn.Module, spec: ModelSpec, crops: Image) -> FloatArray:
    """How far `net` moves each point `[N, K]`, in pixels of the crop, when it computes in float64."""
    codec, images = spec.build_codec(), torch.from_numpy(crops)
    single, double = (
        codec.decode(kind(normalise(images, spec.mean, spec.std, dtype)))[0].double()
        for kind, dtype in ((net, torch.float32), (copy.deepcopy(net).double(), torch.float64))
    )
    return np.asarray((single - double).abs().amax(dim=-1).numpy())


def open_onnx(path: str | Path) -> Any:
    """An ONNX Runtime session on the CPU of a file that `facelm export` wrote.

    Raises:
        FileNotFoundError: no such file.
        ImportError: onnxruntime is not installed.
        ValueError: damaged, no ONNX, or not written by `facelm export`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file {str(path)!r}")
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "reading ONNX needs onnxruntime, which is not installed. Run pip install 'facelm[export]'"
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for every way to be damaged
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{str(path)!r} ({path.stat().st_size:,} bytes) is damaged or no ONNX file: {reason}. Export it again"
        ) from error
    if onnx_facts(session).get("producer") != "facelm":
        inputs = ", ".join(f"{i.name} {i.shape}" for i in session.get_inputs())
        raise ValueError(
            f"{str(path)!r} was not written by facelm export: it has no metadata of facelm's (its inputs: {inputs})"
        )
    return session


def onnx_facts(session: Any) -> dict[str, str]:
    """The metadata of an ONNX file; see `export.metadata`."""
    return dict(session.get_modelmeta().custom_metadata_map)


def _run(session: Any, crops: Image) -> tuple[FloatArray, FloatArray]:
    outputs = [session.run(None, {session.get_inputs()[0].name: part}) for part in _parts(crops)]
    landmarks, confidences = (np.concatenate(parts).astype(np.float64) for parts in zip(*outputs, strict=True))
    return landmarks, confidences


def _parts(crops: Image) -> Iterator[Image]:
    """`crops` in batches of different sizes."""
    start, turn = 0, 0
    while start < len(crops):
        size = _BATCHES[turn % len(_BATCHES)]
        yield crops[start : start + size]
        start, turn = start + size, turn + 1
