"""All benchmarks of a CPU machine, one after the other: python -m benchmarks [--quick].

`--quick` runs each at a tiny size, to see whether it works. Its numbers mean nothing. The data pipeline is left out
then. gpu.py and compare_mmpose.py need what not every machine has and are run on their own.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPTS = ("forward", "train_step", "predict", "startup", "data_pipeline")


def main() -> None:
    """Runs every script in a process of its own; exits with the number that failed."""
    if unknown := set(sys.argv[1:]) - {"--quick"}:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    quick = "--quick" in sys.argv[1:]
    scripts = [name for name in SCRIPTS if not (quick and name == "data_pipeline")]
    failed = 0
    for name in scripts:
        print(f"\n== {name} ==", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
        failed += subprocess.run(command, check=False).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
