"""How a mistake reaches a person at the command line: one message and an exit code, without a traceback."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

from facelm.addresses import public
from facelm.files import write_whole

log = logging.getLogger(__name__)

Result = TypeVar("Result")
MISTAKES = (ValueError, OSError, ImportError)
"""What facelm raises for something that a user, a file or a config got wrong."""


class JobFailed(CompactHydraException):
    """A mistake ended a job of a sweep; Hydra shows the message alone when the sweep is over."""


def command_line(job: Callable[..., Result]) -> Callable[..., Result]:
    """`job` as a Hydra job whose mistakes end in `error: ...` and exit code 1.

    `FACELM_TRACEBACK=1` shows the traceback instead. In a sweep the error is said, and goes on to the launcher, so that
    the other jobs run.
    """

    @functools.wraps(job)
    def run(*args: object, **kwargs: object) -> Result:
        try:
            cut_hydra_s_record()
            return job(*args, **kwargs)
        except MISTAKES as error:
            if os.environ.get("FACELM_TRACEBACK"):
                raise
            said = public(str(error))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error(f"this job failed: {said}")
                raise JobFailed(f"error: {said}") from error
            print(f"error: {said}", file=sys.stderr)
            sys.exit(1)

    return run


def cut_hydra_s_record() -> None:
    """Cuts user, password and query out of the addresses in what Hydra has written of this job and its sweep."""
    hydra = HydraConfig.get()
    files = list((Path(hydra.runtime.output_dir) / hydra.output_subdir).glob("*.yaml")) if hydra.output_subdir else []
    if hydra.mode == RunMode.MULTIRUN:
        files.append(Path(hydra.sweep.dir) / "multirun.yaml")
    for file in filter(Path.is_file, files):
        text = file.read_text(encoding="utf-8")
        if (cut := public(text)) != text:
            write_whole(file, cut)
