"""The command line: `facelm COMMAND ...`, or `python -m facelm.cli COMMAND ...`.

A command is a module of `facelm.commands`; only the one that is called is imported. `train` and `evaluate` are Hydra
jobs: what follows them goes to Hydra as it is.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from facelm import __version__
from facelm.launch.errors import end_at_once, nobody_reads, say

JOBS = {
    "train": "a training: experiment=NAME and key=value, see facelm train --help",
    "evaluate": "the error of a checkpoint, a run or shipped weights: checkpoint=PATH and key=value",
}
"""Name and help line of the Hydra jobs: `facelm train ...` is `python -m facelm.train ...`."""

COMMANDS = {
    "resume": "the newest unfinished training of outputs/, or the one that is named, goes on",
    "predict": "landmarks of photographs, folders, videos or a camera",
    "demo": "a local page to try a model on photographs",
    "calibrate": "the box convention of a face detector, measured on annotated faces",
    "export": "a model as one ONNX file that takes crops and gives landmarks, checked",
    "convert": "weights of mmpose, the HRNet authors or timm in and out, and what they were trained for",
    "info": "size, speed and meaning of a model, a checkpoint, a run or an ONNX file; what is in a pack",
    "browse": "a sheet of training faces as the network sees them, for any experiment",
    "check": "annotated faces before they are trained on: what cannot be used, and what is worth a look",
    "compare": "what runs came to, in one table: the jobs of a sweep, or any runs",
    "report": "a report, its page and figures, made again from the predictions that it keeps",
    "landmarks": "the points of a scheme, as a list and a picture; a scheme from an annotation file",
    "pack": "a data set as one file, faces and crops, which trains without the photographs",
    "prepare": "300W from iBUG's archives, or drawn faces in its place",
}
"""Name and help line of every command, in the order of `facelm --help`."""

EPILOG = 'Completion of commands and of their config keys in bash and zsh: eval "$(facelm -sc install=bash)"'

FAILED, USAGE, INTERRUPTED, UNREAD = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 all is well, 1 something failed, 2 wrong usage.

    A mistake of the user's ends in one `error:` line; `FACELM_TRACEBACK=1` shows the traceback instead. Where nobody
    reads what it prints any more (`| head`), a command ends without a word, as others do.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["-sc"]:
        from facelm.launch.completion import complete

        return complete(arguments, commands=[*JOBS, *COMMANDS])
    if arguments and arguments[0] in JOBS:
        sys.argv = [f"facelm {arguments[0]}", *arguments[1:]]
        import_module(f"facelm.{arguments[0]}").main()
        return 0
    parser = argparse.ArgumentParser(prog="facelm", description="HRNetV2 facial landmarks.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"facelm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    module = None
    for name, summary in {**JOBS, **COMMANDS}.items():
        about = summary[0].upper() + summary[1:] + "."
        way = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=summary, description=about, formatter_class=way)
        if arguments[:1] == [name]:
            module = import_module(f"facelm.commands.{name}")
            module.add_arguments(command)
    end_at_once()
    args, further = parser.parse_known_args(arguments)
    if further and hasattr(args, "overrides") and not any(text.startswith("-") for text in further):
        args.overrides += further  # argparse gathers these up to the first option only
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if module is None:  # options before the command: argparse has refused or answered all there are
        parser.error("give the command first")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say
            code = int(module.run(args))
        sys.stdout.flush()
        return code
    except Exception as error:
        return UNREAD if isinstance(error, BrokenPipeError) and nobody_reads() else say(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _say(message: Warning | str, *where: object, **further: object) -> None:
    """Prints a warning as a person wants to read it, without the line of code that gave it."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
