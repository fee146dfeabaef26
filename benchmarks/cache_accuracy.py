"""What the crop cache does to a model's landmarks: crops warped from the cache against crops of the photographs.

python -m benchmarks.cache_accuracy --checkpoint NAME_OR_FILE --data ROOT [--list dev.txt]

Every face is seen undisturbed, and once as mmpose's augmentation draws it, from the photographs and from caches of
several sizes. A cache size is given for crops of 256 pixels and scales with the checkpoint's crop, so that a smaller
model answers the same question. Training sees what the second row of a size shows. Validation and reports do not: they
take their crops from the photographs, or from a cache of those very crops.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset, ImageSource
from facelm.data.faces import Face
from facelm.data.sampler import EpochBatches
from facelm.data.storage.cache import open_cache
from facelm.data.storage.framing import Surroundings
from facelm.data.w300.index import index_faces
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import interocular
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.loading import LoadedModel, load_model
from facelm.models.spec import ModelSpec

CACHE_SIZES = (256, 384, 512, 768)
UNDISTURBED = Augmentation(geometry=GeometricRanges(flip_probability=0, zoom=0, rotation_probability=0))
DRAWS = {"undisturbed": UNDISTURBED, "mmpose's draws": Augmentation(geometry=GeometricRanges())}
REACH = max(augmentation.geometry.reach for augmentation in DRAWS.values())


@torch.inference_mode()
def predictions(
    model: LoadedModel, faces: Sequence[Face], augmentation: Augmentation, source: ImageSource | None
) -> tuple[FloatArray, FloatArray]:
    """(predicted, true) landmarks `[N, K, 2]` in crop pixels."""
    spec = model.spec
    data = FaceDataset(
        faces,
        crop_size=spec.crop_size,
        crop_scale=spec.crop_scale,
        scheme=spec.landmark_scheme(),
        augmentation=augmentation,
        source=source,
    )
    codec, mirror = spec.build_codec(), spec.landmark_scheme().mirror
    predicted, true = [], []
    for batch in DataLoader(data, batch_sampler=EpochBatches(len(faces), 16, shuffle=False)):
        inputs = normalise(batch["image"], spec.mean, spec.std, torch.float32)
        predicted.append(predict_landmarks(model.net, inputs, codec, mirror, spec.flip)[0])
        true.append(batch["landmarks_crop"])
    return torch.cat(predicted).double().numpy(), torch.cat(true).double().numpy()


def nme(predicted: FloatArray, true: FloatArray) -> FloatArray:
    """Inter-ocular NME of each face in percent `[N]`."""
    return 100 * np.linalg.norm(predicted - true, axis=2).mean(axis=1) / interocular(true)


def compare(model: LoadedModel, faces: Sequence[Face], folder: str) -> None:
    """Prints a row for every cache size and kind of draw."""
    spec: ModelSpec = model.spec
    print(f"{len(faces)} faces, crop {spec.crop_size}; landmark differences in pixels of a crop of 256")
    print(
        f"{'cache, px':>10}  {'crops':16}{'copied':>8}{'median':>9}{'rms':>8}{'NME':>9}{'from cache':>12}{'change':>18}"
    )
    for name, augmentation in DRAWS.items():
        original, true = predictions(model, faces, augmentation, None)
        for cache_size in CACHE_SIZES:
            framing = Surroundings(spec.crop_scale * REACH, cache_size * spec.crop_size // 256)
            cache = open_cache(faces, framing, folder)
            copied = np.mean([cache.load(i)[1][0, 0] == 1 for i in range(len(faces))])
            cached, _ = predictions(model, faces, augmentation, cache)
            moved = np.linalg.norm(cached - original, axis=2) * 256 / spec.crop_size
            before, after = nme(original, true), nme(cached, true)
            error = (after - before).std(ddof=1) / len(faces) ** 0.5
            print(
                f"{cache_size:10}  {name:16}{copied:8.0%}{np.median(moved):9.3f}{np.sqrt((moved**2).mean()):8.3f}"
                f"{before.mean():9.3f}{after.mean():12.3f}{(after - before).mean():+10.4f} +-{error:.4f}",
                flush=True,
            )


def main() -> None:
    """Loads the model and the faces, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True, help="300W's folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--list", help="text file with the faces to use")
    options = parser.parse_args()
    model = load_model(options.checkpoint)
    faces = index_faces(options.data, options.split, pixel_origin=model.spec.pixel_origin, list_file=options.list)
    with tempfile.TemporaryDirectory() as folder:
        compare(model, faces, folder)


if __name__ == "__main__":
    main()
