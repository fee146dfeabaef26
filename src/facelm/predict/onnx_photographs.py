"""The network with cropping inside: a whole photograph and boxes in, landmarks in its pixels out, for `export`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facelm.models.spec import ModelSpec
from facelm.predict.onnx_check import FACES, OnnxCheck, drawn_faces

INPUTS = ("image", "boxes")

_NEEDED = 0.99  # of the points; on the flat maps of untrained networks rounding decides. Of the shipped one all agree

BOX_CONVENTION = (
    "boxes: (x1, y1, x2, y2) in pixels of the image, 0-based, pixel i centred on i, around the face's 68 landmarks, "
    "brows to chin. The square around a box's middle with its longer side is what the network was trained on; "
    "`facelm calibrate` measures how a detector's boxes differ from it"
)


class PhotographLandmarks(nn.Module):
    """From a uint8 RGB image `[H, W, 3]` and boxes `[N, 4]` to landmarks `[N, K, 2]` and confidences `[N, K]`.

    Each box is cut out as the predictor does it: bilinear, in whole grey levels, black beyond the image. There is no
    flip test and no second crop.

    Convention: boxes and landmarks are in image pixels (x, y), 0-based, pixel `i` centred on `i`.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net = net
        self.codec = spec.build_codec()
        self.spec = spec

    def forward(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(landmarks, confidences)."""
        spec, size = self.spec, self.spec.crop_size
        number = torch._shape_as_tensor(boxes)[0]
        # ONNX Runtime cannot reshape what is empty: of no boxes it gets one without a side, which is taken off.
        some = torch.cat([boxes, boxes.new_zeros(1, 4)])[: number.clamp(min=1)]
        offset = 1 - spec.pixel_origin
        center = (some[:, :2] + some[:, 2:]) / 2 + offset
        pixel = (some[:, 2:] - some[:, :2]).amax(dim=1, keepdim=True) * (spec.crop_scale / size)
        steps = (torch.arange(size) - size / 2)[None]
        crops = _cut(image, center[:, :1] + steps * pixel, center[:, 1:] + steps * pixel)
        inputs = (crops - crops.new_tensor(spec.mean)) / crops.new_tensor(spec.std)
        dtype = next(self.net.parameters()).dtype
        landmarks_crop, scores = self.codec.decode(self.net(inputs.to(dtype).permute(0, 3, 1, 2)))
        landmarks_crop = landmarks_crop.float() + landmarks_crop.new_tensor((spec.shift_crop, 0.0)).float()
        found = center[:, None] + (landmarks_crop - size / 2) * pixel[:, None]
        if spec.codec.get("name") == "hrnet" and spec.codec.get("integer_predictions", True):
            found = found.sign() * found.abs().floor() + 1  # as the HRNet authors do; ONNX has no trunc
        return (found - found.new_tensor((0.0, offset)))[:number], scores.clamp(0, 1)[:number]


def _cut(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`image` `[H, W, 3]` at columns `x` `[N, S]` and rows `y` `[N, S]`: `[N, S, S, 3]`, bilinear, black outside.

    They are whole grey levels, as OpenCV's are, which the predictor sees: without, points move by up to half a pixel
    of the crop, most of them by a hundredth. Only the pixels that are needed are touched, whatever the image's size.
    """
    height, width = torch._shape_as_tensor(image)[:2]
    flat = image.reshape(-1, 3)
    total: Tensor | float = 0.0
    for row in (torch.floor(y), torch.floor(y) + 1):
        for column in (torch.floor(x), torch.floor(x) + 1):
            weight = (1 - (y - row).abs())[:, :, None] * (1 - (x - column).abs())[:, None]
            inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
            # Whole numbers: a float32 does not count beyond 16 million pixels.
            rows, columns = row.clamp(min=0).long().minimum(height - 1), column.clamp(min=0).long().minimum(width - 1)
            total = total + flat[rows[:, :, None] * width + columns[:, None]] * (weight * inside)[..., None]
    return torch.as_tensor(total).round()


def check_photographs(session: Any, net: nn.Module, spec: ModelSpec, faces: int = FACES) -> OnnxCheck:
    """ONNX Runtime's `session` compared with PyTorch on drawn photographs and the boxes of their faces.

    Every photograph also comes with two boxes, which must give the same; points are compared in pixels of the crop.
    """
    module = PhotographLandmarks(net, spec).eval()
    differences, sure = [], 0.0
    for photograph, box in zip(*drawn_faces(faces), strict=True):
        boxes = np.stack([box.xyxy, box.xyxy + box.side / 10]).astype(np.float32)
        with torch.inference_mode():
            expected = [one.numpy() for one in module(torch.from_numpy(photograph.pixels), torch.from_numpy(boxes))]
        found = session.run(None, dict(zip(INPUTS, (photograph.pixels, boxes), strict=True)))
        pixel = box.side * spec.crop_scale / spec.crop_size
        differences += list(np.abs(found[0] - expected[0]).max(axis=-1) / pixel)
        sure = max(sure, float(np.abs(found[1] - expected[1]).max()))
    apart = np.array(differences, np.float64)
    return OnnxCheck(apart, sure, _NEEDED, np.zeros_like(apart), "PyTorch")
