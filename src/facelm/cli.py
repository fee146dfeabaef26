"""The command line: `facelm COMMAND ...`, or `python -m facelm.cli COMMAND ...`.

A command is a module of `facelm.commands`; only the one that is called is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from facelm import __version__

COMMANDS = {
    "predict": "landmarks of photographs, folders, videos or a camera",
    "calibrate": "the box convention of a face detector, measured on annotated faces",
}
"""Name and help line of every command, in the order of `facelm --help`."""

EPILOG = "Training and evaluation are Hydra jobs: python -m facelm.train --help, python -m facelm.evaluate --help"

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 all is well, 1 something failed, 2 wrong usage.

    A mistake of the user's ends in one `error:` line; `FACELM_TRACEBACK=1` shows the traceback instead.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="facelm", description="HRNetV2 facial landmarks.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"facelm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    module = None
    for name, summary in COMMANDS.items():
        about = summary[0].upper() + summary[1:] + "."
        way = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=summary, description=about, formatter_class=way)
        if arguments[:1] == [name]:
            module = import_module(f"facelm.commands.{name}")
            module.add_arguments(command)
    args = parser.parse_args(arguments)
    if module is None:  # options before the command: argparse has refused or answered all there are
        parser.error("give the command first")
    try:
        return int(module.run(args))
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("FACELM_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
