"""A job of a sweep that a mistake ended."""

from __future__ import annotations

import logging

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

log = logging.getLogger(__name__)


class JobFailed(CompactHydraException):
    """A mistake ended a job of a sweep; its message is shown alone when the sweep is over."""


def in_a_sweep() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_failed(said: str) -> JobFailed:
    """The error that goes on to the launcher; said in the job's log at once."""
    log.error(f"this job failed: {said}")
    return JobFailed(f"error: {said}")
