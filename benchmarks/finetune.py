"""What fine-tuning is worth on few faces: 100 drawn faces with 20 points, from scratch and from the shipped weights.

    python -m benchmarks.finetune --out FOLDER --epochs 30 --size 128   # as in docs/training.md

All trainings see the same faces in the same order, at the same size, for as many epochs: the cost is the same. The
points are 20 of the drawn 68; the rows differ in the weights that they start from, and in the rate of experiment=own or
experiment=finetune. Measured on 100 drawn faces that none has seen. One seed, so a difference of a tenth is none.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from facelm.data.synthetic.dataset import draw_dataset
from facelm.data.w300.index import index_faces

PICKED = [0, 8, 16, 17, 21, 22, 26, 30, 31, 35, 36, 39, 42, 45, 48, 51, 54, 57, 37, 44]
SCHEME = {
    "name": "picked20",
    "points": len(PICKED),
    "mirror": [[0, 2], [3, 6], [4, 5], [8, 9], [10, 13], [11, 12], [14, 16], [18, 19]],
    "outer_eyes": [10, 13],
}
SAME = {"schemes": ["picked20.yaml", "ibug68"], "same": {"all": [list(range(len(PICKED))), PICKED]}}
RUNS = {
    "from scratch": ["experiment=own"],
    "fine-tuned, new head": ["experiment=finetune"],
    "fine-tuned, head of the same points": ["experiment=finetune", "same_points=same.yaml"],
}


def write_faces(folder: Path) -> None:
    """100 faces to train on and 100 to measure, as tables of 20 points beside the drawn photographs."""
    root = draw_dataset(folder / "faces", counts={"train": 100, "common": 100})
    for name, split in (("train", "train"), ("test", "common")):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", *(f"{axis}{i}" for i in range(len(PICKED)) for axis in "xy")])
            for face in index_faces(root, split):
                points = np.round(face.landmarks_image[PICKED], 3).ravel().tolist()
                table.writerow([face.image.relative_to(root).as_posix(), *points])
    (folder / "picked20.yaml").write_text(yaml.safe_dump(SCHEME))
    (folder / "same.yaml").write_text(yaml.safe_dump(SAME))


def main() -> None:
    """Draws, trains, and prints a row for each training."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--size", type=int, default=64, help="pixels of a crop's side")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_faces(args.out)
    shared = ["data=folder", "data.root=faces", "data.train=train.csv", "data.test=test.csv", "data.hold_out=0"]
    shared += ["landmarks=file", "landmarks.file=picked20.yaml", "trainer=cpu", "native=true", f"crop.size={args.size}"]
    shared += [f"trainer.max_epochs={args.epochs}", f"seed={args.seed}", "data.num_workers=1", "data.cache=none"]
    print("| start | NME | 95 % interval |\n|---|---:|---:|")
    for name, typed in RUNS.items():
        run = name.replace(",", "").replace(" ", "_")
        commands = [
            ["train", *typed, *shared, "trainer.enable_progress_bar=false", f"hydra.run.dir={run}"],
            ["evaluate", f"checkpoint={run}", *shared[:4], f"report_dir={run}/report", "device=cpu"],
        ]
        for command, *overrides in commands:
            with (args.out / f"{run}.{command}.log").open("w") as log:
                line = [sys.executable, "-m", f"facelm.{command}", *overrides]
                subprocess.run(line, cwd=args.out, stdout=log, stderr=subprocess.STDOUT, check=True)
        row = json.loads((args.out / run / "report" / "summary.json").read_text())["subsets"]["test"]
        low, high = row["nme_ci95"]
        print(f"| {name} | {row['nme']:.2f} | {low:.2f}-{high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
