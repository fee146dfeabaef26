"""A job of a sweep that a mistake ended."""

from __future__ import annotations

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from facelm.addresses import without_keys

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


class CutOverrides(Callback):
    """Cuts keys out of the addresses in a job's overrides, which Hydra says of one that failed."""

    def on_job_end(self, config: object, job_return: JobReturn, **_: Any) -> None:
        """The job has ended, in this process or in a worker of a launcher."""
        job_return.overrides = without_keys(list(job_return.overrides or []))
