"""How OpenMP's threads should wait: speed of prediction and training alone, and beside a second process of the kind.

    python -m benchmarks.waiting [--rounds N] [--seconds S] [--quick]

A thread that has nothing to do either spins, which starts it again at once, or sleeps, which leaves its core to others.
Libgomp spins for a number of times and sleeps then.
Each way is a fresh process, since OpenMP reads its environment when torch is loaded; ways take turns in every round.
"beside" means two processes of the same kind and way at the same time, the speed of one of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

import torch

from benchmarks.timing import processor

WAYS: dict[str, dict[str, str]] = {
    "OpenMP's default": {},
    "spins on and on": {"OMP_WAIT_POLICY": "ACTIVE"},
    **{f"spins {count:,} times": {"GOMP_SPINCOUNT": str(count)} for count in (30_000, 10_000, 3000, 1000, 300)},
    "sleeps": {"OMP_WAIT_POLICY": "PASSIVE"},
    "sleeps, one thread less": {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "less"},
}
"""What each sets. facelm spins 3,000 times where nothing is set; libgomp is what torch's wheels for Linux bring."""

WORK = ("predict", "train", "train tiny")

CHILD = """
import select, sys, time
import torch  # first: facelm would set how its threads wait
from benchmarks.networks import trained_like
from benchmarks.train_step import step_of
from facelm.models import build_model
from facelm.models.native.training import for_training
from facelm.models.spec import ModelSpec
from facelm.predict import Predictor
import numpy as np
work, seconds, quick = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "quick"
name = "hrnetv2_tiny" if quick or work == "train tiny" else "hrnetv2_w18"
if work == "predict":
    spec = ModelSpec(architecture=name, crop_size=64 if quick else 256)
    predictor, images = Predictor(trained_like(name), spec, device="cpu"), 1
    photograph = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    run = lambda: predictor(photograph, boxes=[[60, 60, 240, 240]])
else:
    images, size = (2, 64) if quick else (16, 128)
    net = build_model(name, init="kaiming").train().to(memory_format=torch.channels_last)
    for_training(net)
    crops = torch.randn(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    run = step_of(net, crops, torch.rand(images, 68, 2) * size, fused=True)
for _ in range(1 if quick else 3):
    run()
print("ready", flush=True)
sys.stdin.readline()
count, start = 0, time.perf_counter()
while (took := time.perf_counter() - start) < seconds:
    run()
    count += 1
print(count * images / took, flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:  # the other one still measures
    run()
"""


def speeds(work: str, way: dict[str, str], processes: int, seconds: float, quick: bool) -> list[float]:
    """Images a second of each of so many processes that start together."""
    threads = torch.get_num_threads()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_NUM_THREADS": str(threads)} | way
    if environment["OMP_NUM_THREADS"] == "less":
        environment["OMP_NUM_THREADS"] = str(max(1, threads - 1))
    command = [sys.executable, "-c", CHILD, work, str(seconds), "quick" if quick else ""]
    running = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in running:
        if _line(one) != "ready":
            raise SystemExit(f"the process for {work!r} ended")
    for one in running:
        _go_on(one)
    answers = [float(_line(one)) for one in running]
    for one in running:
        one.communicate("\n")
    return answers


def _line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip() if process.stdout else ""


def _go_on(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round: whether it runs")
    args = parser.parse_args(arguments)
    seconds, rounds = (0.2, 1) if args.quick else (args.seconds, args.rounds)
    print(f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print("images a second (batch 16 at 128 px in training); times the default")
    for work in WORK[:1] if args.quick else WORK:
        print(f"\n| {work} | alone | | beside | |\n|---|---:|---:|---:|---:|")
        measured: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                for processes, found in zip((1, 2), measured[name], strict=True):
                    found.append(statistics.mean(speeds(work, way, processes, seconds, args.quick)))
        first = next(iter(measured.values()))
        for name, columns in measured.items():
            cells = []
            for found, usual in zip(columns, first, strict=True):
                ratio = statistics.median(one / other for one, other in zip(found, usual, strict=True))
                cells.append(f"{statistics.median(found):.1f} | {ratio:.2f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
