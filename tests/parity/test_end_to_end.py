"""Two photographs of 300W's test set, from file to NME, with the recipe weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm.codec import build_codec
from facelm.data.images import read_image
from facelm.evaluation.metrics import nme, per_face_error, point_distances
from facelm.geometry.affine import invert, transform, warp
from facelm.geometry.boxes import box_from_landmarks, crop_from_image
from facelm.geometry.landmarks import IBUG68, interocular
from facelm.models.inference import IMAGENET_MEAN, IMAGENET_STD, normalise, predict_landmarks
from facelm.training.losses import HeatmapMSE
from parity.recipe import recipe_net


@pytest.fixture
def case(golden):
    """(arrays, crops uint8 [2, 256, 256, 3], image_from_crop [2, 3, 3], landmarks as stored [2, 68, 2])."""
    arrays = golden.npz("e2e.npz")
    photographs, stored = golden.photographs(), golden.test_faces()
    crops, back, landmarks = [], [], []
    for name in arrays["names"]:
        # data.pixel_origin=0: both references use the 1-based numbers as they are.
        points = stored[str(name)]
        matrix = crop_from_image(box_from_landmarks(points), 256, 1.25)
        crops.append(warp(read_image(photographs / str(name)), matrix, 256))
        back.append(invert(matrix))
        landmarks.append(points)
    return arrays, torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(back)), np.stack(landmarks)


@pytest.mark.parametrize("flip", ["none", "shifted"])
def test_image_to_nme(case, agree, flip):
    arrays, crops, image_from_crop, landmarks = case
    codec = build_codec({"name": "mmpose", "sigma": 1.5}, 256)
    inputs = normalise(crops, IMAGENET_MEAN, IMAGENET_STD)
    with torch.inference_mode():
        landmarks_crop, scores = predict_landmarks(recipe_net(), inputs, codec, IBUG68.mirror, flip)
    predicted = codec.landmarks_in_image(landmarks_crop.double(), image_from_crop).numpy()
    tag = "flip" if flip == "shifted" else "noflip"
    agree(f"network input, mean of each channel, {tag}", inputs.mean((2, 3)), arrays["inputs_mean"], atol=5e-3)
    agree(f"landmarks in the image (px), {tag}", predicted, arrays[f"{tag}_keypoints"], atol=1e-2)
    agree(f"scores, {tag}", scores, arrays[f"{tag}_scores"], atol=1e-2)
    agree("annotations", landmarks, arrays["gt_keypoints"], atol=1e-4)
    error = nme(per_face_error(point_distances(predicted, landmarks), interocular(landmarks)))
    agree(f"NME (fraction), {tag}", error, arrays[f"{tag}_nme"], atol=1e-5)


def test_training_loss(case, agree):
    arrays, crops, image_from_crop, landmarks = case
    codec = build_codec({"name": "mmpose", "sigma": 1.5}, 256)
    crop_points = [transform(invert(m.numpy()), p) for m, p in zip(image_from_crop, landmarks, strict=True)]
    landmarks_crop = torch.from_numpy(np.stack(crop_points)).float()
    target, weight = codec.encode(landmarks_crop)
    with torch.inference_mode():
        output = recipe_net()(normalise(crops, IMAGENET_MEAN, IMAGENET_STD))
        loss = HeatmapMSE()(output, target, weight, landmarks_crop / 4)
    agree("training loss of the two faces", float(loss), arrays["loss"], rtol=1e-4)
