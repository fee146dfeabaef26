"""Start-up: seconds to import the predictor, and from there to the first landmarks, in fresh processes.

python -m benchmarks.startup [--rounds N] [--cpu-time] [--quick]

"empty cache" compiles the native kernels on the way, as a machine does once; "warm cache" finds them; "torch" forbids
them. The photograph and its box are drawn, the weights random: nothing is downloaded or detected.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.networks import size_of
from benchmarks.timing import machine, options, spread

CHILD = """
import sys, time
start = time.perf_counter()
from facelm.models.spec import ModelSpec
from facelm.predict import Predictor
imported = time.perf_counter()
import numpy as np
spec = ModelSpec(architecture=sys.argv[1], crop_size=int(sys.argv[2]))
predictor = Predictor(spec.build_network(), spec, device="cpu")
faces = predictor(np.zeros((300, 300, 3), np.uint8), boxes=[[60, 60, 240, 240]])
done = time.perf_counter()
predictor(np.zeros((300, 300, 3), np.uint8), boxes=[[60, 60, 240, 240]])
print(imported - start, done - imported, time.perf_counter() - done)
"""


def fresh_process(name: str, size: int, threads: int, **environment: str) -> list[float]:
    """Seconds for the import, from there to the first result, and for the second result."""
    command = [sys.executable, "-c", CHILD, name, str(size)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.split()]


def main(arguments: list[str] | None = None) -> None:
    """Prints the table; always wall time."""
    chosen = options(__doc__, arguments, rounds=5)
    name, size = size_of(chosen.quick)
    print(machine(chosen))
    print(f"\n{name}, a new process, refine 1\n{'':16}{'import':>9}{'first result':>14}{'spread':>9}{'second':>9}")
    with tempfile.TemporaryDirectory() as warm:
        fresh_process(name, size, chosen.threads, FACELM_CACHE=warm)
        measured: dict[str, list[list[float]]] = {"empty cache": [], "warm cache": [], "torch": []}
        for _ in range(chosen.rounds):
            with tempfile.TemporaryDirectory() as empty:
                measured["empty cache"].append(fresh_process(name, size, chosen.threads, FACELM_CACHE=empty))
            measured["warm cache"].append(fresh_process(name, size, chosen.threads, FACELM_CACHE=warm))
            measured["torch"].append(fresh_process(name, size, chosen.threads, FACELM_NATIVE="0"))
    for what, rows in measured.items():
        imported, first, second = (sorted(column) for column in zip(*rows, strict=True))
        middle = len(first) // 2
        print(
            f"{what:16}{imported[middle]:7.2f} s{first[middle]:12.2f} s{spread(first):9.0%}{second[middle]:7.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
