"""Every subset measured in one pass over the faces on one device."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from facelm.evaluation.metrics import FacePredictions, LandmarkErrors
from facelm.geometry.affine import FloatArray
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
    *,
    total: int | None = None,
) -> FacePredictions:
    """Predictions and annotations of all faces in `batches`, in image pixels, each face once.

    `same` says which points of the model those of the annotations are, where they have another scheme; points that the
    model has not are predicted as NaN. A terminal shows how many of `total` faces are done, and how many a second.

    Convention: landmarks are in image pixels (x, y) with the batch's own origin.
    """
    codec, mirror = spec.build_codec(), spec.landmark_scheme().mirror
    run = for_inference(net.to(device).eval(), crop_size=spec.crop_size)
    errors = LandmarkErrors((same.target if same else spec.scheme).num_landmarks).to(device)
    for batch in with_bar(batches, total):
        inputs = normalise(batch["image"].to(device, non_blocking=True), spec.mean, spec.std, torch.float32)
        landmarks_crop, confidence = predict_landmarks(run, inputs, codec, mirror, spec.flip, spec.shift_crop)
        image_from_crop = batch["image_from_crop"].to(device)
        predicted_image = codec.landmarks_in_image(landmarks_crop.double(), image_from_crop)
        if same:
            predicted_image = torch.from_numpy(same.mapped(predicted_image.cpu().numpy())).to(device)
            confidence = torch.from_numpy(same.mapped(confidence.cpu().numpy()[..., None])[..., 0]).to(device)
        side = torch.from_numpy(box_side_image(batch["image_from_crop"].numpy(), spec.crop_size, spec.crop_scale))
        index, target_image = batch["index"].to(device), batch["landmarks_image"].to(device)
        errors.update(index, predicted_image, target_image, side, confidence)
    return errors.compute()


@torch.inference_mode()
def face_heatmaps(
    net: nn.Module, spec: ModelSpec, item: Mapping[str, Any], device: torch.device, same: Correspondence | None = None
) -> tuple[NDArray[np.float32], FloatArray]:
    """The heatmaps `[K, H, W]` of one face, an item of a `FaceDataset`, and `image_from_heatmap` `[3, 3]`.

    Those of the crop as it is: what a flip test adds is not in them. The matrix holds the spec's shift, so that a peak
    lies where its point was predicted. With `same` they are of its target's points, NaN where the model has none.
    """
    inputs = normalise(item["image"][None].to(device), spec.mean, spec.std, torch.float32)
    maps = net.to(device).eval()(inputs)[0].float().cpu().numpy()
    if same:
        maps = same.mapped(maps.reshape(len(maps), -1)).reshape(-1, *maps.shape[1:])
    stride = spec.build_codec().stride
    crop_from_heatmap = np.array([[stride, 0, spec.shift_crop], [0, stride, 0], [0, 0, 1]])
    return maps.astype(np.float32), item["image_from_crop"].numpy() @ crop_from_heatmap


def with_bar(batches: Iterable[Batch], total: int | None) -> Iterator[Batch]:
    """`batches`, and a bar of the faces in them on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task, start, done = progress.add_task("faces", total=total, rate=""), time.monotonic(), 0
        for batch in batches:
            yield batch
            done += len(batch["index"])
            rate = done / max(time.monotonic() - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:.1f} faces/s")
