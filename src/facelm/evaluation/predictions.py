"""Every subset measured in one pass over the faces on one device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from facelm.evaluation.metrics import FacePredictions, LandmarkErrors
from facelm.geometry.boxes import box_side_image
from facelm.geometry.correspondence import Correspondence
from facelm.models.fast import for_inference
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.spec import ModelSpec

Batch = dict[str, Tensor]


@torch.inference_mode()
def predict_faces(
    net: nn.Module,
    spec: ModelSpec,
    batches: Iterable[Batch],
    device: torch.device,
    same: Correspondence | None = None,
) -> FacePredictions:
    """Predictions and annotations of all faces in `batches`, in image pixels, each face once.

    `same` says which points of the model those of the annotations are, where they have another scheme; points that the
    model has not are predicted as NaN.

    Convention: landmarks are in image pixels (x, y) with the batch's own origin.
    """
    codec, mirror = spec.build_codec(), spec.landmark_scheme().mirror
    run = for_inference(net.to(device).eval(), crop_size=spec.crop_size)
    errors = LandmarkErrors((same.target if same else spec.scheme).num_landmarks).to(device)
    for batch in batches:
        inputs = normalise(batch["image"].to(device, non_blocking=True), spec.mean, spec.std, torch.float32)
        landmarks_crop, _ = predict_landmarks(run, inputs, codec, mirror, spec.flip, spec.shift_crop)
        image_from_crop = batch["image_from_crop"].to(device)
        predicted_image = codec.landmarks_in_image(landmarks_crop.double(), image_from_crop)
        if same:
            predicted_image = torch.from_numpy(same.mapped(predicted_image.cpu().numpy())).to(device)
        side = torch.from_numpy(box_side_image(batch["image_from_crop"].numpy(), spec.crop_size, spec.crop_scale))
        errors.update(batch["index"].to(device), predicted_image, batch["landmarks_image"].to(device), side)
    return errors.compute()
