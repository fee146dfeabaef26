"""`facelm resume [RUN]`: goes on with the newest training of outputs/ that is not finished, or with RUN."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facelm.launch.jobs import RECORD, is_killed, key_of, read_record
from facelm.launch.quoted import as_value

OUTPUTS = Path("outputs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run and the overrides."""
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="a run folder or a last.ckpt; by default the newest unfinished one")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="what changes from here on: trainer.max_epochs=90 ...")


def run(args: argparse.Namespace) -> int:
    """Says which run goes on, and trains; the exit code is `facelm train`'s.

    Raises:
        ValueError: `resume=` is typed beside it.
        FileNotFoundError: no run is unfinished.
    """
    named, overrides = args.run, list(args.overrides)
    if named is not None and "=" in named and not Path(named).exists():
        named, overrides = None, [named, *overrides]
    if "resume" in map(key_of, overrides):
        raise ValueError("resume= is what this command sets: facelm resume RUN goes on with RUN")
    found = Path(named).expanduser() if named else newest_unfinished(OUTPUTS)
    print(f"resuming {found}", file=sys.stderr, flush=True)
    from facelm.train import main

    sys.argv = ["facelm resume", f"resume={as_value(found)}", *overrides]
    main()
    return 0


def newest_unfinished(outputs: Path) -> Path:
    """The run folder below `outputs` whose state was saved last, of those that stopped, failed or were killed.

    What says "running" on another machine may well run, so it is not chosen.

    Raises:
        FileNotFoundError: there is none.
    """
    states = [(file.stat().st_mtime_ns, file.parent.parent) for file in outputs.rglob("checkpoints/last.ckpt")]
    skipped: dict[str, int] = {}
    for _, folder in sorted(states, reverse=True):
        record = read_record(folder)
        status = str(record.get("status", f"without {RECORD}"))
        if status in ("stopped", "failed") or is_killed(record):
            return folder
        skipped[status] = skipped.get(status, 0) + 1
    there = ", ".join(f"{count} {status}" for status, count in skipped.items()) or "no run with checkpoints/last.ckpt"
    raise FileNotFoundError(
        f"nothing in {outputs.absolute()} to go on with ({there}). A run somewhere else, or one that was killed on "
        "another machine, is named: facelm resume RUN"
    )
