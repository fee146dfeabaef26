"""Whether an ONNX file gives the landmarks that PyTorch gives, on drawn faces, in ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm.boxes import box_from_landmarks, crop_from_image
from facelm.checkpoint import ModelSpec
from facelm.data.synthetic import draw_face
from facelm.geometry import FloatArray, Image, warp

TOLERANCE = 0.01
"""Pixels of the crop."""

QUARTER_STEP_CODECS = ("mmpose", "release")
"""They decode to the largest cell and a quarter cell towards its higher neighbour; rounding decides between equals."""

LEAST_AGREEING = 0.999
"""The share of points within TOLERANCE that these codecs need; all points with the others."""

BoolArray = NDArray[np.bool_]

FACES = 32
_LISTED = 10
_BATCHES = (1, 7)  # faces at a time: N is to be dynamic


@dataclass(frozen=True, eq=False)
class OnnxCheck:
    """How far two runs of the same faces are apart: `differences` `[N, K]` in pixels of the crop, and confidences'.

    `needed` is the share of points that have to agree to TOLERANCE. `rounding` `[N, K]` is how far PyTorch itself
    moves a point when it computes in float64: where a heatmap is so flat that rounding decides, no two programs
    agree, and the point does not count.
    """

    differences: FloatArray
    confidence_difference: float
    needed: float
    rounding: FloatArray

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
        head = (
            f"ONNX Runtime against PyTorch on {faces} drawn faces: {100 * len(agreeing) / self.differences.size:.2f} % "
            f"of {faces * points:,} points agree to {TOLERANCE} px of the crop ({100 * self.needed:g} % needed), the "
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


def check_onnx(session: Any, module: nn.Module, spec: ModelSpec, faces: int = FACES) -> OnnxCheck:
    """ONNX Runtime's `session` compared with `module` (see `export.CropLandmarks`) on crops of drawn faces."""
    crops = drawn_crops(spec, faces)
    found, confidence = _run(session, crops)
    expected, sure = _run_torch(module, crops)
    differences = np.abs(found - expected).max(axis=-1)
    rounding = np.zeros_like(differences)
    quarter_steps = spec.codec.get("name") in QUARTER_STEP_CODECS
    if not quarter_steps and len(rows := np.flatnonzero(~(differences <= TOLERANCE).all(axis=1))):
        exact, _ = _run_torch(copy.deepcopy(module).double(), crops[rows])
        rounding[rows] = np.abs(exact - expected[rows]).max(axis=-1)
    needed = LEAST_AGREEING if quarter_steps else 1.0
    return OnnxCheck(differences, float(np.abs(confidence - sure).max()), needed, rounding)


def drawn_crops(spec: ModelSpec, faces: int) -> Image:
    """Evaluation crops `[N, S, S, 3]` of drawn faces, the same ones every time."""
    crops = []
    for index in range(faces):
        image, landmarks_image = draw_face(np.random.default_rng(index))
        matrix = crop_from_image(box_from_landmarks(landmarks_image), spec.crop_size, spec.crop_scale)
        crops.append(warp(image, matrix, spec.crop_size))
    return np.stack(crops)


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


@torch.inference_mode()
def _run_torch(module: nn.Module, crops: Image) -> tuple[FloatArray, FloatArray]:
    outputs = [module(torch.from_numpy(part)) for part in _parts(crops)]
    landmarks, confidences = (torch.cat(parts).double().numpy() for parts in zip(*outputs, strict=True))
    return landmarks, confidences


def _parts(crops: Image) -> Iterator[Image]:
    """`crops` in batches of different sizes."""
    start, turn = 0, 0
    while start < len(crops):
        size = _BATCHES[turn % len(_BATCHES)]
        yield crops[start : start + size]
        start, turn = start + size, turn + 1
