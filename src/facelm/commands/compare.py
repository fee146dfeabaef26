"""`facelm compare RUN...`: what runs came to, in one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facelm.evaluation.compare import paired_table
from facelm.evaluation.kept import FILE as KEPT
from facelm.evaluation.stored import in_report
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
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="writes sweep.md, sweep.csv and a page, index.html, there too"
    )
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
        write_page(args.out, list(dict.fromkeys([*([args.baseline.resolve()] if args.baseline else []), *rows])))
    return 0


def write_page(out: Path, runs: Sequence[Path]) -> None:
    """The page of the runs that have a report, the first of them the baseline; says why where there is none."""
    from facelm.evaluation.page.comparison import MOST_RUNS, write_comparison_page

    reports = {run: found.parent for run in runs if (found := in_report(run, "summary.json"))}
    kept = [run for run, report in reports.items() if (report / KEPT).is_file()]
    if without := [run.name for run in reports if run not in kept]:
        print(
            f"warning: not on the page: {', '.join(without)}: no {KEPT} in the report, evaluate again", file=sys.stderr
        )
    chosen = kept[:MOST_RUNS]
    if len(chosen) < len(kept):
        print(f"warning: the page shows the first {MOST_RUNS} of {len(kept)} runs", file=sys.stderr)
    if len(chosen) < 2:
        return
    count = write_comparison_page(out, dict(zip(short_names(chosen), (reports[run] for run in chosen), strict=True)))
    print(f"\npage of {count} faces: {out / 'index.html'}")


def short_names(runs: Sequence[Path]) -> list[str]:
    """A name for each folder without the folders before it, which say whose machine it is; no two the same."""
    names = [run.parent.name if run.name == "report" else run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


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
