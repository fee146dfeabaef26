"""Other face data sets against mmpose 1.3.2, on its own JSON and photographs: `FACELM_SAMPLES`, or shared/samples.

A folder of the same form with other predictions does as well: make parity SAMPLES=FOLDER.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from facelm.data.aflw import AflwFaces
from facelm.data.cofw import CofwFaces
from facelm.data.lapa import LapaFaces
from facelm.data.own import OwnFaces
from facelm.data.w300lp import W300LpFaces
from facelm.data.wflw import WflwFaces
from facelm.evaluation.metrics import labelled, point_distances, pooled_nme
from facelm.geometry.affine import transform, warp
from facelm.geometry.boxes import crop_from_image
from facelm.geometry.landmarks import get_scheme, normaliser

SAMPLES = Path(os.environ.get("FACELM_SAMPLES") or Path(__file__).resolve().parents[3] / "shared" / "samples")

SCHEMES = {
    "wflw": "wflw98",
    "cofw": "cofw29",
    "aflw": "aflw19",
    "lapa": "lapa106",
    "300wlp": "ibug68",
    "coco_wholebody_face": "ibug68",
}
READERS = {"wflw": WflwFaces, "cofw": CofwFaces, "aflw": AflwFaces, "lapa": LapaFaces, "300wlp": W300LpFaces}
"""Those of which there are samples."""

WITHOUT_PAIRS = ("300wlp",)
"""mmpose names no mirror pairs for these; ours are those of the points that they have."""


@pytest.fixture(scope="module")
def golden_samples():
    if not (SAMPLES / "golden.json").is_file():
        pytest.skip(f"no golden.json in {SAMPLES}")
    with np.load(SAMPLES / "golden.npz", allow_pickle=False) as arrays:
        return json.loads((SAMPLES / "golden.json").read_text()), dict(arrays)


def readers(name):
    """`data=coco`, and the data set's own reader, on the samples' JSON."""
    (file,) = (SAMPLES / name).glob("*.json")
    own = READERS[name](SAMPLES / name, annotations="json")
    own.forms = {"json": {"train": (file.name,)}}
    return OwnFaces(SAMPLES / name, get_scheme(SCHEMES[name]), {"train": str(file)}), own


def sample_faces(source, facts, arrays, name):
    """The faces that a reader gives, in the order of the reference."""
    found = source.faces("train")
    ordered = []
    for number, sample in enumerate(facts["samples"]):
        expected = arrays[f"{name}/{number}/landmarks"]
        near = [f for f in found if f.image.name == sample["image"] and np.abs(f.landmarks_image - expected).max() < 1]
        assert len(near) == 1, sample
        ordered.append(near[0])
    return ordered


@pytest.mark.parametrize("name", SCHEMES)
def test_the_scheme(golden_samples, agree, name):
    facts, scheme = golden_samples[0][name], get_scheme(SCHEMES[name])
    assert scheme.num_landmarks == facts["num_landmarks"]
    if name in WITHOUT_PAIRS:
        assert facts["mirror"] == list(range(68)), "mmpose has pairs now: compare them"
    else:
        agree(f"{name}: mirror", scheme.mirror, facts["mirror"])
    mode = facts["normaliser"]["norm_mode"]
    assert (scheme.normaliser == "box") == (mode == "use_norm_item")
    if mode == "keypoint_distance":
        agree(
            f"{name}: normalising points",
            scheme.outer_eyes,
            facts["default_indices"] or facts["normaliser"]["keypoint_indices"],
        )


@pytest.mark.parametrize("reader", [0, 1], ids=["coco", "own reader"])
@pytest.mark.parametrize("name", READERS)
def test_faces_crops_and_error(golden_samples, agree, name, reader):
    everything, arrays = golden_samples
    facts = everything[name]
    faces, scheme = sample_faces(readers(name)[reader], facts, arrays, name), get_scheme(SCHEMES[name])
    predicted = np.stack([arrays[f"{name}/{number}/predicted"] for number in range(len(faces))])
    for number, (face, sample) in enumerate(zip(faces, facts["samples"], strict=True)):
        agree(
            f"{name}: box",
            [*face.box.center, face.box.side],
            [*sample["center"], sample["scale_after_padding"][0] / 1.25],
            rtol=1e-6,
        )
        agree(f"{name}: landmarks (px)", face.landmarks_image, arrays[f"{name}/{number}/landmarks"], atol=1e-4)
        matrix = crop_from_image(face.box, 256, 1.25)
        agree(
            f"{name}: landmarks in the crop (px)",
            transform(matrix, face.landmarks_image),
            arrays[f"{name}/{number}/landmarks_crop"],
            atol=0.003,
        )
        difference = np.abs(warp(face.read(), matrix, 256)[..., ::-1].astype(int) - arrays[f"{name}/{number}/crop_bgr"])
        agree(f"{name}: crop, largest (grey levels)", difference.max(), 0, atol=4)
        agree(f"{name}: crop, mean (grey levels)", difference.mean(), 0, atol=0.1)
    target = np.stack([face.landmarks_image for face in faces])
    length = normaliser(target, scheme, np.array([face.box.side for face in faces]))
    error = pooled_nme(point_distances(predicted, target), length, labelled(target))
    agree(f"{name}: NME", error, facts["nme_of_predicted"]["NME"], atol=1e-6)
