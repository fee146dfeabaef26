"""All benchmarks of a CPU machine, one after the other: python -m benchmarks [--quick].

`--quick` runs each at a tiny size, to see whether it works. Its numbers mean nothing. Run on their own are gpu.py and
compare_mmpose.py, which need what not every machine has; cache_accuracy.py, cache.py, box_robustness.py and
annotation_shift.py, which need a checkpoint and faces; onnx_photographs.py, wild.py and throughput.py, which need
extras; scale.py and waiting.py, which take long and want the machine for themselves.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPTS = ("forward", "train_step", "nan_cost", "predict", "startup", "data_pipeline")


def main() -> None:
    """Runs every script in a process of its own; exits with the number that failed."""
    if unknown := set(sys.argv[1:]) - {"--quick"}:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    quick = "--quick" in sys.argv[1:]
    failed = 0
    for name in SCRIPTS:
        print(f"\n== {name} ==", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
        failed += subprocess.run(command, check=False).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
