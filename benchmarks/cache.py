"""Crop caches of raw and JPEG-coded faces: bytes a face, a model's NME on them, and images a second.

python -m benchmarks.cache --data ROOT [--checkpoint NAME_OR_FILE --list dev.txt] [--count 600] [--rounds 3]

NME: every face of the list once as evaluation sees it, and once as mmpose's augmentation draws it from its
surroundings, which is what training sees; from raw pixels and from JPEG. Differences are of the same faces and draws.

Images a second: an epoch of training items (mmpose's augmentation) in batches of 32, by wall time, after the workers
have started; with a cold page cache the file's pages are given back to the system before. Variants take turns.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.cache_accuracy import nme
from benchmarks.timing import processor
from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset, ImageSource
from facelm.data.faces import Face
from facelm.data.sampler import EpochBatches
from facelm.data.storage.cache import cache_path, open_cache
from facelm.data.storage.coding import RAW, Coding, Jpeg
from facelm.data.storage.framing import EvaluationCrop, Framing, Surroundings
from facelm.data.w300.index import index_faces
from facelm.data.workers import start_worker
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import IBUG68
from facelm.models.fast import for_inference
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.loading import LoadedModel, load_model

CODINGS: dict[str, Coding] = {"raw": RAW, "JPEG 95": Jpeg(95), "JPEG 90": Jpeg(90)}
DRAWN = Augmentation(geometry=GeometricRanges())
BATCH, CACHE_SIZE = 32, 512


@torch.inference_mode()
def errors_of(
    model: LoadedModel, faces: Sequence[Face], augmentation: Augmentation | None, source: ImageSource
) -> FloatArray:
    """The NME of each face in percent `[N]`, measured as an evaluation does, in crop pixels."""
    spec = model.spec
    scheme, codec = spec.landmark_scheme(), spec.build_codec()
    data = FaceDataset(
        faces,
        crop_size=spec.crop_size,
        crop_scale=spec.crop_scale,
        scheme=scheme,
        augmentation=augmentation,
        source=source,
    )
    net = for_inference(model.net.eval(), crop_size=spec.crop_size)
    predicted, true = [], []
    for batch in DataLoader(data, batch_sampler=EpochBatches(len(faces), 16, shuffle=False)):
        inputs = normalise(batch["image"], spec.mean, spec.std, torch.float32)
        predicted.append(predict_landmarks(net, inputs, codec, scheme.mirror, spec.flip, spec.shift_crop)[0])
        true.append(batch["landmarks_crop"])
    return nme(torch.cat(predicted).double().numpy(), torch.cat(true).double().numpy())


def accuracy_table(model: LoadedModel, faces: Sequence[Face], folder: str) -> None:
    """Prints the NME from each coding, and how much it differs from raw's."""
    spec = model.spec
    print(f"\nNME in percent, {len(faces)} faces, {model.title}, crop {spec.crop_size}, flip {spec.flip}")
    print(f"{'crops':18}{'stored':10}{'kB a face':>10}{'NME':>9}{'change':>10}{'+-':>8}")
    kinds: dict[str, tuple[Framing, Augmentation | None]] = {
        "evaluation's": (EvaluationCrop(spec.crop_size, spec.crop_scale), None),
        "training's draws": (Surroundings(spec.crop_scale * DRAWN.geometry.reach, CACHE_SIZE), DRAWN),
    }
    for kind, (framing, augmentation) in kinds.items():
        before: FloatArray | None = None
        for name, coding in CODINGS.items():
            source = open_cache(faces, framing, folder, coding)
            errors = errors_of(model, faces, augmentation, source)
            before = errors if before is None else before
            change = errors - before
            spread = change.std(ddof=1) / len(faces) ** 0.5
            size = source.path.stat().st_size / len(faces) / 1e3
            print(f"{kind:18}{name:10}{size:10.0f}{errors.mean():9.4f}{change.mean():+10.4f}{spread:8.4f}", flush=True)


def items(faces: Sequence[Face], framing: Framing, coding: Coding, folder: str) -> FaceDataset:
    """Training items from a cache."""
    return FaceDataset(
        faces,
        crop_size=256,
        crop_scale=1.25,
        scheme=IBUG68,
        augmentation=DRAWN,
        source=open_cache(faces, framing, folder, coding),
    )


def milliseconds(data: FaceDataset) -> float:
    """CPU time of one thread for an item, the second time that each is looked at."""
    cv2.setNumThreads(0)
    for epoch in range(2):
        start = time.thread_time()
        for index in range(len(data)):
            data[epoch, index]
    return 1e3 * (time.thread_time() - start) / len(data)


def images_a_second(
    faces: Sequence[Face], framing: Framing, coding: Coding, folder: str, workers: int, cold: bool
) -> float:
    """Of an epoch over all faces."""
    if cold:
        _forget(cache_path(faces, framing, folder, coding))
    data = items(faces, framing, coding, folder)
    order = np.random.default_rng(0).permutation(len(faces)).tolist()
    keys = [[(0, index) for index in order[i : i + BATCH]] for i in range(0, len(order), BATCH)]
    batches = iter(DataLoader(data, batch_sampler=keys, num_workers=workers, worker_init_fn=start_worker))
    first = len(next(batches)["index"])
    start = time.perf_counter()
    for _ in batches:
        pass
    return (len(faces) - first) / (time.perf_counter() - start)


def _forget(path: Path) -> None:
    """Gives the pages of a file back to the system; those that a process has mapped would stay."""
    gc.collect()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def speed_table(faces: Sequence[Face], folder: str, rounds: int, workers: Sequence[int]) -> None:
    """Prints medians over `rounds`, least and most."""
    framing = Surroundings(1.25 * DRAWN.geometry.reach, CACHE_SIZE)
    codings = {name: CODINGS[name] for name in ("raw", "JPEG 95", "JPEG 90")}
    sizes = {name: open_cache(faces, framing, folder, coding).path.stat().st_size for name, coding in codings.items()}
    print(f"\nimages a second, {len(faces)} faces, {os.cpu_count()} cores, median of {rounds}, least, most")
    print(f"{'stored':10}{'MB':>7}  {'page cache':12}" + "".join(f"{f'{count} workers':>22}" for count in workers))
    for name, coding in codings.items():
        print(f"{name}: {milliseconds(items(faces, framing, coding, folder)):.2f} ms of one thread's CPU time an item")
    found: dict[tuple[str, bool, int], list[float]] = {}
    for _ in range(rounds):
        for cold in (False, True):
            for count in workers:
                for name, coding in codings.items():
                    speed = images_a_second(faces, framing, coding, folder, count, cold)
                    found.setdefault((name, cold, count), []).append(speed)
    for cold in (False, True):
        for name in codings:
            cells = [found[name, cold, count] for count in workers]
            shown = "".join(f"{statistics.median(s):10.0f} {min(s):5.0f} {max(s):5.0f}" for s in cells)
            print(f"{name:10}{sizes[name] / 1e6:7.0f}  {'cold' if cold else 'warm':12}{shown}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="300W's folder")
    add("--checkpoint", help="measure its NME on the faces of --list")
    add("--list", help="text file with the faces to measure on")
    add("--count", type=int, default=600, help="training faces for the speed; 0: none is measured")
    add("--rounds", type=int, default=3)
    add("--workers", default="1,2,4")
    chosen = parser.parse_args(arguments)
    print(processor())
    with tempfile.TemporaryDirectory() as folder:
        if chosen.checkpoint:
            model = load_model(chosen.checkpoint)
            faces = index_faces(chosen.data, "train", pixel_origin=model.spec.pixel_origin, list_file=chosen.list)
            accuracy_table(model, faces, folder)
        if chosen.count:
            faces = index_faces(chosen.data, "train")
            faces = faces[:: max(1, len(faces) // chosen.count)][: chosen.count]
            speed_table(faces, folder, chosen.rounds, [int(count) for count in chosen.workers.split(",")])


if __name__ == "__main__":
    main()
