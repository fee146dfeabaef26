"""What many faces cost: seconds until they are known, memory, a worker's own memory, the sampler.

python -m benchmarks.scale [--faces 3000 30000 150000 1000000] [--folder DIR] [--quick]

The faces are 64 drawn ones of 64 pixels under many names (hard links), in 300W's layout; trees and index lie in a
temporary folder, on the disk of DIR. Each row is of fresh processes: "first" reads every annotation and header, "next"
finds that no file has changed. Memory is what the process has more of than before it asked for faces; of it, what is
shared with other processes is the mapped index. "worker" is what a forked process that asks every face for its name,
box and landmarks has of its own afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from facelm.data.synthetic.dataset import draw_dataset
from facelm.data.w300.annotations import read_pts, write_pts

SIZE, DRAWN = 64, 64

CHILD = """
import gc, json, os, sys, time, warnings
from facelm.data.datamodule import FaceDataModule
from facelm.data.sampler import EpochBatches
warnings.simplefilter("ignore")

def held(*names):
    rows = (line.split() for file in ("status", "smaps_rollup") for line in open(f"/proc/self/{file}"))
    found = {row[0].rstrip(":"): int(row[1]) / 1024 for row in rows if len(row) > 2 and row[2] == "kB"}
    return sum(found[name] for name in names)

before = held("VmRSS"), held("RssFile")
start, busy = time.perf_counter(), sum(os.times()[:4])
data = FaceDataModule(root=sys.argv[1], crop_size=64, cache_dir=sys.argv[2])
data.setup()
took, cpu = time.perf_counter() - start, sum(os.times()[:4]) - busy
memory, peak, shared = held("VmRSS") - before[0], held("VmHWM") - before[0], held("RssFile") - before[1]
gc.collect()
read, write = os.pipe()
if os.fork() == 0:
    own = held("Private_Dirty")
    for face in data.train_faces:
        face.name, face.box, face.landmarks_image
    os.write(write, json.dumps(held("Private_Dirty") - own).encode())
    os._exit(0)
worker = json.loads(os.read(read, 100))
own = held("VmRSS")
start = time.perf_counter()
batches = iter(EpochBatches(len(data.train_faces), 16))
next(batches)
first_batch = time.perf_counter() - start
sampler = held("VmRSS") - own
for _ in batches:
    pass
epoch = time.perf_counter() - start
print(json.dumps([took, cpu, memory, peak, shared, worker, first_batch, epoch, sampler]))
"""


def small_faces(folder: Path) -> list[Path]:
    """Drawn photographs of SIZE pixels, each with its .pts beside it."""
    drawn = draw_dataset(folder / "drawn", counts={"train": DRAWN})
    made = []
    for number, path in enumerate(sorted(drawn.rglob("*.pts"))):
        image = cv2.imread(str(path.with_suffix(".jpg")))
        scale = SIZE / max(image.shape)
        made.append(folder / f"{number}.jpg")
        cv2.imwrite(str(made[-1]), cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        write_pts(made[-1].with_suffix(".pts"), ((read_pts(path) + 0.5) * scale - 0.5).round(4))
    return made


def make_tree(root: Path, count: int, photographs: list[Path]) -> None:
    """`count` faces under `root`, as afw/."""
    (root / "afw").mkdir(parents=True)
    for number in range(count):
        image = photographs[number % len(photographs)]
        os.link(image, root / f"afw/face{number:07}.jpg")
        os.link(image.with_suffix(".pts"), root / f"afw/face{number:07}.pts")


def start(root: Path, cache: Path) -> list[float]:
    """Seconds, CPU seconds, MB more, at most, and of them shared; a worker's own; the sampler's seconds and MB."""
    command = [sys.executable, "-c", CHILD, str(root), str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=[3000, 30_000, 150_000, 1_000_000], metavar="N")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--quick", action="store_true", help="few faces, to see whether it runs")
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start\n")
    print(f"{'faces':>10}{'start':>7}{'s':>8}{'CPU s':>8}{'MB':>7}{'peak':>7}{'shared':>8}{'worker':>8}", end="")
    print(f"{'sampler: first batch s':>24}{'epoch s':>9}{'MB':>6}")
    for count in [1200] if options.quick else options.faces:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="facelm-scale-") as folder:
            root = Path(folder, "root")
            make_tree(root, count, small_faces(Path(folder)))
            time.sleep(0 if options.quick else 2.5)  # files that changed just now are not trusted
            for what in ("first", "next"):
                took, cpu, memory, peak, shared, worker, batch, epoch, sampler = start(root, Path(folder, "cache"))
                print(f"{count:>10,}{what:>7}{took:>8.2f}{cpu:>8.2f}{memory:>7.0f}{peak:>7.0f}{shared:>8.0f}", end="")
                print(f"{worker:>8.1f}{batch:>24.4f}{epoch:>9.2f}{sampler:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
