"""A model as one ONNX file that takes crops and gives landmarks: normalising, the network and decoding are inside.

The file needs nothing of facelm to run; what a program has to know beside it, above all which crop to cut and how
landmarks go back into the photograph, is in its metadata. It is written under another name, checked against the
`Predictor` (`onnx_check.py`), and gets its name only when it agrees.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facelm.files import replacing
from facelm.geometry.landmarks import plain_scheme
from facelm.models.inference import normalise
from facelm.models.loading import LoadedModel
from facelm.models.spec import ModelSpec
from facelm.predict.files import check_writable
from facelm.predict.onnx_check import OnnxCheck, check_onnx, open_onnx
from facelm.predict.onnx_photographs import BOX_CONVENTION, INPUTS, PhotographLandmarks, check_photographs

INPUT = "crops"
OUTPUTS = ("landmarks", "confidences")

Takes = Literal["crops", "photographs"]
"""What a file takes: crops that the program cuts, or a photograph and the boxes of its faces."""

OPSET = 17
"""Of 2022: read by ONNX Runtime 1.12 and later, and by what converts ONNX further."""


class CropLandmarks(nn.Module):
    """From uint8 RGB crops `[N, S, S, 3]` to landmarks `[N, K, 2]` in pixels of the crop and confidences `[N, K]`.

    The confidences are the heatmaps' peaks within 0..1. There is no flip test: a program that wants one passes the
    mirrored crop as well.

    Convention: landmarks are (x, y), 0-based, pixel `i` centred on `i`.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net = net
        self.codec = spec.build_codec()
        self.mean, self.std, self.shift_crop = spec.mean, spec.std, spec.shift_crop

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(landmarks, confidences)."""
        dtype = next(self.net.parameters()).dtype
        number = torch._shape_as_tensor(crops)[0]
        # ONNX Runtime cannot reshape what is empty: of no crops it gets a black one, whose landmarks are taken off.
        some = torch.cat([crops, crops.new_zeros(1, *crops.shape[1:])])[: number.clamp(min=1)]
        landmarks_crop, scores = self.codec.decode(self.net(normalise(some, self.mean, self.std, dtype)))
        landmarks_crop = landmarks_crop + landmarks_crop.new_tensor((self.shift_crop, 0.0))
        return landmarks_crop[:number], scores.clamp(0, 1)[:number]


def export_onnx(
    model: LoadedModel, path: str | Path, *, nme: Mapping[str, float] | None = None, takes: Takes = "crops"
) -> OnnxCheck:
    """The check of the ONNX file that was written to `path`; `nme` in percent by subset goes into its metadata.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        OSError: `path` cannot be written.
        ValueError: `path` does not end in .onnx, or the file does not agree with the Predictor and was thrown
            away.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"{str(path)!r} should end in .onnx, by which programs know such a file")
    _require_packages()
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; name a file in it: --out {path / 'model.onnx'}")
    check_writable(path.parent)
    whole = takes == "photographs"
    module = (PhotographLandmarks if whole else CropLandmarks)(model.net.cpu(), model.spec).eval()
    facts = metadata(model, nme or {}) | (photograph_facts(model.spec) if whole else {})
    with suppress(FileNotFoundError):
        path.stat()  # a name that cannot be is found out before the work
    with replacing(path) as unchecked:
        _write(module, model.spec, facts, unchecked)
        check = (check_photographs if whole else check_onnx)(open_onnx(unchecked), model.net, model.spec)
        if not check.passed:
            raise ValueError(f"the ONNX file does not agree with the Predictor and was not kept: {check.report()}")
    return check


def metadata(model: LoadedModel, nme: Mapping[str, float]) -> dict[str, str]:
    """What stands in the file beside the network; numbers, lists and mappings as JSON, the rest as plain text."""
    spec = model.spec
    facts: dict[str, Any] = {
        "producer": "facelm",
        **spec.to_dict(),
        "scheme": spec.scheme.name,
        "landmark_scheme": plain_scheme(spec.scheme),
        "num_landmarks": spec.landmark_scheme().num_landmarks,
        "nme": dict(nme),
        "title": model.title,
        "weights_sha256": model.sha256,
        "input": f"{INPUT}: uint8 RGB [N, {spec.crop_size}, {spec.crop_size}, 3]; normalised inside with mean and std",
        "output": "landmarks: (x, y) in pixels of the crop, 0-based, pixel centres, the annotators' shift included; "
        "confidences: 0 to 1",
        "how_to_crop": how_to_crop(spec),
        "how_to_go_back": how_to_go_back(spec),
        "how_to_average": f"a flip test, from outside: the x of the landmarks of the mirrored crop becomes "
        f"{_mirror_sum(spec):g} - x, landmark mirror[k] takes the place of k, then the mean with those of the crop",
        "mirror": list(spec.landmark_scheme().mirror),
    }
    facts["nme_flip"] = facts.pop("flip")  # the flip test is not in the file, but in the NME
    del facts["annotation_shift"]  # it is in the file
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def photograph_facts(spec: ModelSpec) -> dict[str, str]:
    """What the metadata of a file that takes photographs say otherwise."""
    points = spec.landmark_scheme().num_landmarks
    return {
        "takes": "photographs",
        "input": "image: uint8 RGB [H, W, 3] of any size; boxes: float32 [N, 4], N also 0",
        "output": f"landmarks: [N, {points}, 2], (x, y) in pixels of the image, 0-based, pixel centres; "
        f"confidences: [N, {points}], 0 to 1",
        "box_convention": BOX_CONVENTION,
        "how_to_crop": "the file crops; it has no flip test and no second crop",
        "how_to_go_back": "landmarks are in pixels of the image",
        "how_to_average": "not from outside",
    }


def how_to_crop(spec: ModelSpec) -> str:
    """Which square of a photograph the network wants to see, in words."""
    offset = " + (1, 1)" if spec.pixel_origin == 0 else ""
    return (
        f"box: square of side b around c, both from the face's landmarks: c = (floor(min) + ceil(max)) / 2, b = the "
        f"larger of ceil(max) - floor(min). crop pixel p shows image point c{offset} + (p - {spec.crop_size // 2}) * "
        f"{spec.crop_scale} * b / {spec.crop_size}, bilinear, black outside the image"
    )


def how_to_go_back(spec: ModelSpec) -> str:
    """How landmarks of the crop become landmarks of the photograph, in words."""
    back = f"c + (landmarks - {spec.crop_size // 2}) * {spec.crop_scale} * b / {spec.crop_size}"
    if spec.pixel_origin == 0:
        back = back.replace("c + ", "c + (1, 1) + ")
    if spec.codec.get("name") == "hrnet" and spec.codec.get("integer_predictions", True):
        back = f"truncate({back}) + 1"
    return f"image landmarks = {back}{' - (0, 1)' if spec.pixel_origin == 0 else ''}"


def _mirror_sum(spec: ModelSpec) -> float:
    """What a landmark's x and that of its image in the mirrored crop add up to: the shift does not turn round."""
    return spec.crop_size - 1 + 2 * spec.shift_crop


def _write(module: nn.Module, spec: ModelSpec, facts: Mapping[str, str], path: Path) -> None:
    import onnx

    axes = {name: {0: "N"} for name in OUTPUTS}
    if facts.get("takes") == "photographs":
        names = list(INPUTS)
        given: tuple[Tensor, ...] = (
            torch.zeros(48, 64, 3, dtype=torch.uint8),
            torch.tensor([[8.0, 8, 40, 40], [0.0, 0, 32, 32]]),
        )
        axes |= {names[0]: {0: "H", 1: "W"}, names[1]: {0: "N"}}
    else:
        names = [INPUT]
        given = (torch.zeros(2, spec.crop_size, spec.crop_size, 3, dtype=torch.uint8),)
        axes |= {INPUT: {0: "N"}}
    options = {"input_names": names, "output_names": list(OUTPUTS), "dynamic_axes": axes}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every check of a shape
        # The older of torch's two exporters: 3 seconds of a core instead of a minute, the same numbers, and it needs
        # no further package. Tracing is safe here, since nothing in the network depends on the pixels' values.
        torch.onnx.export(module, given, str(path), dynamo=False, opset_version=OPSET, **options)  # type: ignore[arg-type]
    graph = onnx.load(str(path))
    landmarks = spec.landmark_scheme().num_landmarks
    for output, sizes in zip(graph.graph.output, ((landmarks, 2), (landmarks,)), strict=True):
        for size, dimension in zip(sizes, output.type.tensor_type.shape.dim[1:], strict=True):
            dimension.dim_value = size
    onnx.helper.set_model_props(graph, dict(facts))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting needs onnx and onnxruntime, and {error.name} is not installed. Run pip install 'facelm[export]'"
        ) from error
