"""`facelm compare RUN...`: what runs came to, in one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facelm.evaluation.compare import paired_table
from facelm.launch.same_faces import BEST, of_other_faces
from facelm.launch.sweeps import Row, in_order, read_run, run_folders, table, write_table

EXAMPLES = """
examples:
  facelm compare outputs/demo/*
  facelm compare outputs/demo/sweep_2025-01-31_12-00-00 outputs/other/2025-02-01_09-30-00 --out comparison
  facelm compare outputs/new/2025-02-01_09-30-00 --baseline outputs/old/2025-01-31_12-00-00
  facelm compare outputs/evaluate    # every evaluation that was not of a run's own kind
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run or report folder, or a sweep's: all its jobs"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="writes sweep.md and sweep.csv there too")
    help_ = "adds the paired differences to this run over the same faces, with bootstrap intervals"
    parser.add_argument("--baseline", type=Path, metavar="RUN", help=help_)


def run(args: argparse.Namespace) -> int:
    """Prints the table as Markdown: best validation first, mean and standard deviation where only the seed differs."""
    rows = {}
    for path in args.runs:
        folders = run_folders(path) or [path]
        for folder in folders:
            name = folder.name if len(args.runs) == 1 else str(folder)
            try:
                rows[folder.resolve()] = read_run(folder, name)
            except FileNotFoundError as error:
                print(f"warning: left out: {error}", file=sys.stderr)
    if not rows:
        raise FileNotFoundError("nothing to compare")
    baseline = [] if args.baseline is None else [read_run(args.baseline, str(args.baseline))]
    require_same_faces([*baseline, *rows.values()])
    print(table(in_order(list(rows.values()))), end="")
    if args.baseline is not None:
        others = [(row, path) for path, row in rows.items() if path != args.baseline.resolve()]
        print("\n" + paired_table(args.baseline, [(row.name, path) for row, path in others if row.nme]), end="")
        if without := [row.name for row, _ in others if not row.nme]:
            print(f"warning: without a report, so without a difference: {', '.join(without)}", file=sys.stderr)
    if args.out is not None:
        write_table(args.out, list(rows.values()), "Comparison")
    return 0


def require_same_faces(rows: Sequence[Row]) -> None:
    """Refuses a table whose columns would hold numbers of different faces.

    Raises:
        ValueError: two reports of one subset were made on different faces, or other landmarks or photographs of them.
    """
    for column, (one, other) in of_other_faces((row.name, row.faces) for row in rows).items():
        if column != BEST:  # which the table says: runs may be validated apart and reported together
            raise ValueError(
                f"{one} and {other} were not measured on the same faces of '{column}', or not with the same landmarks "
                "or photographs: evaluate them on the same (facelm.evaluate checkpoint=RUN data.root=... "
                "data.val_list=...), or compare each kind by itself"
            )
