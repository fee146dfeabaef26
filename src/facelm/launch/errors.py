"""How a mistake reaches a person at the command line: one message and an exit code, without a traceback."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

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
            return job(*args, **kwargs)
        except MISTAKES as error:
            if os.environ.get("FACELM_TRACEBACK"):
                raise
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error(f"this job failed: {error}")
                raise JobFailed(f"error: {error}") from error
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    return run
