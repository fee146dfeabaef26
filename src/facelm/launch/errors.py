"""How a mistake reaches a person at the command line: one sentence and an exit code, without a traceback.

What counts as a mistake of a user, a file or an environment, and what is said of it, is decided in `sentence`, for
every command. It knows other packages' errors by name, so that it imports none of them.
"""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from facelm.addresses import public
from facelm.files import write_whole
from facelm.launch.quoted import unreadable

Result = TypeVar("Result")

MISTAKES = (
    "builtins.ValueError",
    "builtins.OSError",
    "builtins.ImportError",
    "hydra.errors.HydraException",
    "lightning.fabric.utilities.exceptions.MisconfigurationException",
    "omegaconf.errors.OmegaConfBaseException",
    "torch.OutOfMemoryError",
)
"""Errors, and their heirs, that something outside the code caused: facelm raises the first three for that only."""

FOREIGN = (
    (
        r"(?s).*(?:(?:out of|insufficient) shared mem|unable to (?:allocate|open|resize|mmap) .*shm|/torch_\d+_\d+).*",
        "the workers that load faces are out of shared memory: /dev/shm is too small (docker run --shm-size=2g makes "
        "more). Or use data.num_workers=0, fewer workers, or a smaller data.batch_size",
    ),
    (
        r"(?s)Too many open files\. Communication with the workers.*",  # torch's own, in place of EMFILE
        "too many files are open: raise the limit (ulimit -n 4096), or use fewer data.num_workers",
    ),
    (
        r"(?s)DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: \w+|exited unexpectedly).*",
        "a worker that loads faces was ended from outside, most often by the system because memory ran out (`dmesg` "
        "says so). Use fewer data.num_workers or a smaller data.batch_size; resume=RUN goes on from what was saved",
    ),
    (
        r"(?s).*(?:Connection closed by peer|Connection reset by peer|GLHF|NCCL.*remote process exited).*",
        "another rank of this training is gone (its own message, or rank_N.log, says why; a node that was lost says "
        "nothing). resume=RUN goes on from what was saved",
    ),
    (
        r"Could not determine home directory.*",
        "this user has no home folder: HOME is not set, and the system does not know the user's number. Set HOME, or "
        "FACELM_CACHE to a folder for caches and write paths without ~",
    ),
    (
        r"(?s)Missing mandatory value: (\S+).*",
        r"\1= is missing: it has no default and must be given, as in \1=VALUE (--help says what it takes)",
    ),
    (
        r"(?s)(Early stopping conditioned on metric `.*?`) which is not available.*",
        r"\1, which this run does not log. Set callbacks.early_stopping.monitor to val/nme (with faces that validate) "
        "or train/loss",
    ),
)
"""Errors of no class of their own: a pattern for the whole message, and what is said instead."""

CURES = {
    errno.EACCES: "this user may not read or write there: give another folder, or the rights",
    errno.EROFS: "the disk cannot be written to: give another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder: give another folder",
    errno.ENOSPC: "make room, or give another folder",
    errno.EDQUOT: "make room, or give another folder",
    errno.ENOLCK: "this file system has no locks (NFS without its lock service, say). Put what is locked on another: "
    "FACELM_CACHE or data.cache_dir for caches, hydra.run.dir or hydra.sweep.dir for runs",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096), or use fewer data.num_workers",
}
"""What helps against an error of the operating system."""


def sentence(error: BaseException) -> str | None:
    """What a person is told of `error`; None for a fault of the code, which keeps its traceback."""
    said = public(str(error).strip())
    if worker := re.match(r"(?s)Caught \w+ in DataLoader worker process.*\n[\w.]+: (.*)", said):
        said = worker[1].strip()
    for pattern, instead in FOREIGN:
        if re.fullmatch(pattern, said):
            return re.sub(pattern, instead, said)
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    if not kinds & set(MISTAKES):
        return None
    if isinstance(error, UnicodeEncodeError):
        return f"{said}. The console's encoding lacks the character: set PYTHONUTF8=1"
    if isinstance(error, OSError) and error.errno in CURES and said.startswith("[Errno"):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{os.strerror(error.errno)}. {CURES[error.errno][0].upper()}{CURES[error.errno][1:]}"
    if "hydra.errors.OverrideParseException" in kinds:
        return unreadable(str(getattr(error, "override", "")), said)
    said = re.sub(r"(?s)\s*Config search path:.*", "", said)  # folders of this installation, below the names there are
    cause = error.__cause__
    if any(kind.startswith("hydra.errors.") for kind in kinds) and cause and str(cause).split("\n")[0] not in said:
        said = re.sub(r"\s*To append to your config use .*", "", said)  # where nothing would read it
        said += f" ({str(cause).splitlines()[0] if str(cause) else type(cause).__name__})"
    return said or type(error).__name__


def end_at_once() -> None:
    """Lets the program end without a last search for cycles: among the objects of torch and Lightning it takes seconds.

    Registered first, it is done last, after what others have to do at the end.
    """
    atexit.register(gc.freeze)


def nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left; what is still to be printed then goes nowhere."""
    try:
        output, pipe = sys.stdout.fileno(), select.poll()
    except (AttributeError, OSError, ValueError):  # Windows, which has other pipes; no output, or none of the system's
        return False
    pipe.register(output, 0)  # errors are told unasked
    if not any(event & select.POLLERR for _, event in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def say(error: BaseException) -> int:
    """Prints the sentence on `error` and returns the exit code, 1; raises it where a traceback is due.

    `FACELM_TRACEBACK=1` asks for the traceback.
    """
    said = sentence(error)
    if said is None or os.environ.get("FACELM_TRACEBACK"):
        raise error
    print(said if said.startswith("error: ") else f"error: {said}", file=sys.stderr)
    return 1


def command_line(job: Callable[..., Result]) -> Callable[..., Result]:
    """`job` as a Hydra job whose config is checked, and whose mistakes end in `error: ...` and exit code 1.

    In a sweep the error is said, and goes on to the launcher, so that the other jobs run.
    """

    @functools.wraps(job)
    def run(cfg: object, *args: object) -> Result:
        from facelm.launch.config_check import check_config  # with Hydra, which a command without a config spares
        from facelm.launch.job_failed import in_a_sweep, job_failed

        try:
            cut_hydra_s_record()
            check_config(cfg)
            return job(cfg, *args)
        except Exception as error:
            said = sentence(error)
            if said is not None and in_a_sweep() and not os.environ.get("FACELM_TRACEBACK"):
                raise job_failed(said) from error
            sys.exit(say(error))

    return run


def program(main: Callable[[], Result]) -> Callable[[], Result]:
    """Hydra's `main`, whose mistakes outside of the job (keys, folders) are one sentence too."""

    @functools.wraps(main)
    def run(*args: object) -> Result:
        if not __debug__:
            print("error: Hydra does not run under python -O or PYTHONOPTIMIZE: start Python without", file=sys.stderr)
            sys.exit(1)
        end_at_once()
        asked = os.environ.get("HYDRA_FULL_ERROR")
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
        try:
            return main(*args)
        except KeyboardInterrupt:
            print(
                "error: interrupted by Ctrl-C. resume=RUN goes on from what was saved, if anything was", file=sys.stderr
            )
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if asked:
                raise
            from facelm.launch.key_names import with_nearest

            code = say(error)
            for hint in with_nearest(error, sys.argv[1:]):
                print(hint, file=sys.stderr)
            sys.exit(code)
        finally:
            os.environ.pop("HYDRA_FULL_ERROR")
            if asked is not None:
                os.environ["HYDRA_FULL_ERROR"] = asked

    return run


def cut_hydra_s_record() -> None:
    """Cuts user, password and query out of the addresses in what Hydra has written of this job and its sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    files = list((Path(hydra.runtime.output_dir) / hydra.output_subdir).glob("*.yaml")) if hydra.output_subdir else []
    if hydra.mode == RunMode.MULTIRUN:
        files.append(Path(hydra.sweep.dir) / "multirun.yaml")
    for file in filter(Path.is_file, files):
        text = file.read_text(encoding="utf-8")
        if (cut := public(text)) != text:
            write_whole(file, cut)
