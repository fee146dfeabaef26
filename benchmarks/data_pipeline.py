"""Data pipeline: images a second a worker with the crop cache on and off, and the share of an epoch spent waiting.

python -m benchmarks.data_pipeline [--rounds N] [--quick]

The photographs are drawn here: JPEG files of smooth noise in three sizes (a small one of 50 kB; AFW's median; a
camera's). The work is an item of mmpose's augmentation, crop 256, in a loader's worker. Its speed is counted in the
worker's own CPU time, from batch to batch, so collating and sending are in it and other programs on the machine matter
less; files are in the page cache, as they are from the second epoch on. Cache off and on take turns.

The epoch is measured in wall time. The loop asks for a batch, then trains: a pause of known length stands for a GPU, a
small network on all cores for a CPU. The time inside `next(loader)`, an epoch's first batch included, is the time spent
waiting.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from benchmarks.timing import machine, options, ratio, spread
from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset, ImageSource, Key
from facelm.data.faces import Face
from facelm.data.storage.cache import CropCache, open_cache
from facelm.data.storage.framing import Surroundings
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68
from facelm.models import build_model
from facelm.models.inference import normalise

CROP_SIZE, CROP_SCALE, CACHE_SIZE = 256, 1.25, 512
AUGMENTATION = Augmentation(geometry=GeometricRanges())

Seconds = NDArray[np.float64]
Step = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Kind:
    """Photographs of `width` x `height` with faces `face` pixels large; `blur` sets the size of the files."""

    name: str
    width: int
    height: int
    blur: float
    face: int


KINDS = (
    Kind("small, 450 x 450", 450, 450, 3.0, 200),
    Kind("AFW's median, 1136 x 936", 1136, 936, 6.0, 230),
    Kind("large, 3000 x 2000", 3000, 2000, 6.0, 500),
)


class ClockedFaces(FaceDataset):
    """Items that carry the CPU time of their worker."""

    def __getitem__(self, key: Key) -> dict[str, Any]:
        item = super().__getitem__(key)
        return item | {"clock": time.process_time()}


def draw_photographs(folder: Path, kind: Kind, count: int) -> list[Face]:
    """`count` faces, each in a photograph of its own."""

    def draw(number: int) -> Face:
        rng = np.random.default_rng(number)
        noise = rng.integers(0, 256, (kind.height, kind.width, 3), np.uint8)
        image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), kind.blur), None, 0, 255, cv2.NORM_MINMAX)
        path = folder / f"{kind.width}_{number}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        corner = rng.uniform(0.2, 0.8, 2) * (kind.width - kind.face, kind.height - kind.face)
        landmarks = corner + rng.uniform(0, kind.face, (68, 2))
        return Face(f"afw/{path.stem}", path, landmarks, box_from_landmarks(landmarks), "afw")

    with ThreadPoolExecutor() as pool:
        return list(pool.map(draw, range(count)))


def training_faces(faces: Sequence[Face], source: ImageSource | None) -> ClockedFaces:
    """The faces as training sees them, from `source` or from the photographs."""
    return ClockedFaces(
        faces,
        crop_size=CROP_SIZE,
        crop_scale=CROP_SCALE,
        scheme=IBUG68,
        augmentation=AUGMENTATION,
        source=source,
    )


def loader(data: FaceDataset, *, batch_size: int, batches: int, workers: int) -> DataLoader[dict[str, Any]]:
    """Batches of an epoch, each face as often as it takes."""
    keys = [[(b, (b * batch_size + i) % len(data)) for i in range(batch_size)] for b in range(batches)]
    return DataLoader(
        data, batch_sampler=keys, num_workers=workers, persistent_workers=True, worker_init_fn=_one_opencv_thread
    )


def _one_opencv_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def worker_seconds(data: ClockedFaces, batches: int) -> float:
    """CPU seconds an image of one worker, by its clock at the ends of its first and last batch."""
    clocks = [batch["clock"][-1].item() for batch in loader(data, batch_size=64, batches=batches + 1, workers=1)]
    return float(clocks[-1] - clocks[0]) / batches / 64


def first_look(source: CropCache) -> float:
    """CPU seconds an image that a worker's first look at a face takes beyond later ones: its checksum."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        for index in range(len(source.faces)):
            source.load(index)
        seconds.append(time.process_time() - start)
    return (seconds[0] - seconds[1]) / len(source.faces)


def worker_table(faces: dict[Kind, list[Face]], folder: Path, rounds: int) -> None:
    """Prints images a second a worker for every kind of photograph."""
    print(f"\nOne worker, cache of {CACHE_SIZE} px: images a CPU second, median of {rounds} rounds, spread, and ratio")
    print(f"{'photographs':26}{'file':>9}{'cache off':>12}{'cache on':>16}{'ratio':>9}{'checksum':>13}{'building':>10}")
    for kind, drawn in faces.items():
        kilobytes = statistics.mean(face.image.stat().st_size for face in drawn) / 1e3
        start = time.perf_counter()
        source = crop_cache(drawn, folder)
        built = len(drawn) / (time.perf_counter() - start)
        plain, cached = training_faces(drawn, None), training_faces(drawn, source)
        look = first_look(source)
        off, on = zip(*((worker_seconds(plain, 1), worker_seconds(cached, 4)) for _ in range(rounds)), strict=True)
        print(
            f"{kind.name:26}{kilobytes:6.0f} kB{1 / statistics.median(off):7.0f} {spread(off):4.0%}"
            f"{1 / statistics.median(on):11.0f} {spread(on):4.0%}{ratio(off, on):8.1f}x"
            f"{look * 1e3:10.2f} ms{built:8.0f}/s",
            flush=True,
        )


def crop_cache(faces: Sequence[Face], folder: Path) -> CropCache:
    """The cache that `FaceDataModule` makes for training."""
    return open_cache(faces, Surroundings(CROP_SCALE * AUGMENTATION.geometry.reach, CACHE_SIZE), folder)


def gpu_step(seconds: float) -> Step:
    """A pause that leaves the cores to the workers."""
    return lambda batch: time.sleep(seconds)


def cpu_step() -> Step:
    """Forward and backward of the small test network, on all cores, which it shares with the workers."""
    net = build_model("hrnetv2_tiny").train()

    def step(batch: dict[str, Any]) -> None:
        net(normalise(batch["image"])).square().mean().backward()

    return step


def epoch_waits(data: FaceDataset, step: Step, *, batch_size: int, batches: int, workers: int, epochs: int) -> Seconds:
    """`[epochs, 2]`: seconds waited for data, and all seconds, of each epoch after the first."""
    source = loader(data, batch_size=batch_size, batches=batches, workers=workers)
    measured = []
    for _ in range(epochs + 1):
        start, waited = time.perf_counter(), 0.0
        iterator = iter(source)
        for _ in range(batches):
            asked = time.perf_counter()
            batch = next(iterator)
            waited += time.perf_counter() - asked
            step(batch)
        measured.append((waited, time.perf_counter() - start))
    return np.array(measured[1:])


def epoch_table(kind: Kind, faces: Sequence[Face], source: CropCache, epochs: int, quick: bool) -> None:
    """Prints the share of epochs spent waiting for data."""
    workers = min(4, os.cpu_count() or 1)
    print(f"\nAn epoch, {workers} workers on {os.cpu_count()} cores, {kind.name}: median of {epochs}, least, most")
    print(f"{'training step':48}{'cache':>6}{'epoch':>10}{'waiting for data':>25}")
    plain, cached = training_faces(faces, None), training_faces(faces, source)
    gpu, cpu = ((4, 2), (2, 1)) if quick else ((64, 50), (16, 10))  # faces a batch, batches
    for name, step, (batch_size, batches), data in (
        (f"GPU, {gpu[0]} faces in 60 ms (60 epochs: 3 minutes)", gpu_step(0.060), gpu, plain),
        (f"GPU, {gpu[0]} faces in 60 ms (60 epochs: 3 minutes)", gpu_step(0.060), gpu, cached),
        (f"GPU, {gpu[0]} faces in 30 ms (60 epochs: 90 seconds)", gpu_step(0.030), gpu, cached),
        (f"CPU, {cpu[0]} faces, hrnetv2_tiny", cpu_step(), cpu, plain),
        (f"CPU, {cpu[0]} faces, hrnetv2_tiny", cpu_step(), cpu, cached),
    ):
        waits = epoch_waits(data, step, batch_size=batch_size, batches=batches, workers=workers, epochs=epochs)
        share = waits[:, 0] / waits[:, 1]
        print(
            f"{name:48}{'off' if data is plain else 'on':>6}{np.median(waits[:, 1]):8.2f} s"
            f"{np.median(share):11.1%}{share.min():7.1%}{share.max():7.1%}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    """Prints both tables."""
    chosen = options(__doc__, arguments, rounds=5)
    kinds, count = (KINDS[:1], 4) if chosen.quick else (KINDS, 16)
    print(machine(chosen))
    with tempfile.TemporaryDirectory() as folder:
        faces = {kind: draw_photographs(Path(folder), kind, count) for kind in kinds}
        worker_table(faces, Path(folder), chosen.rounds)
        kind = kinds[len(kinds) // 2]
        epoch_table(kind, faces[kind], crop_cache(faces[kind], Path(folder)), 1 if chosen.quick else 3, chosen.quick)


if __name__ == "__main__":
    main()
