"""Work on many faces in parts, on all cores of this process."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from facelm.data.workers import start_worker

Result = TypeVar("Result")

LEAST = 2000
"""Faces of a part. Fewer are not worth a process."""

_lock = threading.Lock()
_work: Callable[[int, int], Any]  # what forked processes find here


def over_cores(work: Callable[[int, int], Result], count: int) -> list[Result]:
    """`work(start, stop)` of the parts of `range(count)`, in their order; in forked processes where there is a fork.

    `work` is not sent to them, so it may be anything; what it returns is, and so is what it raises.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    forks = "fork" in multiprocessing.get_all_start_methods() and not multiprocessing.current_process().daemon
    if count <= LEAST or cores == 1 or not forks:
        return [work(0, count)]
    global _work
    starts = range(0, count, LEAST)
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12, about threads: children use none of them
        _work = work
        pool = ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), start_worker, (0,))
        try:
            return list(pool.map(_part, starts, [min(start + LEAST, count) for start in starts]))
        except BrokenProcessPool:  # one was killed, for memory perhaps
            return [work(0, count)]
        finally:
            pool.shutdown(cancel_futures=True)


def _part(start: int, stop: int) -> Any:
    return _work(start, stop)
