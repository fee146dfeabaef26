"""Work on many faces in parts, on all cores of this process."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from facelm.data.workers import start_worker

Result = TypeVar("Result")

LEAST = 2000
"""Faces of a part. Fewer are not worth a process."""

_lock = threading.Lock()
_work: Callable[..., Any]  # what forked processes find here


def over_cores(work: Callable[[int, int], Result], count: int) -> list[Result]:
    """`work(start, stop)` of the parts of `range(count)`, in their order; in forked processes where there is a fork.

    `work` is not sent to them, so it may be anything; what it returns is, and so is what it raises.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if count <= LEAST or cores == 1 or not _forks():
        return [work(0, count)]
    parts = [(start, min(start + LEAST, count)) for start in range(0, count, LEAST)]
    try:
        return _forked(work, parts, cores)
    except BrokenProcessPool:  # one was killed, for memory perhaps
        return [work(0, count)]


def apart(work: Callable[[], Result]) -> Result:
    """`work()` in a forked process, with which all the memory ends that it took; in this one where there is no fork."""
    if not _forks():
        return work()
    try:
        return _forked(work, [()], 1)[0]
    except BrokenProcessPool:
        return work()


def _forks() -> bool:
    return "fork" in multiprocessing.get_all_start_methods() and not multiprocessing.current_process().daemon


def _forked(work: Callable[..., Result], parts: Sequence[tuple[int, ...]], processes: int) -> list[Result]:
    global _work
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12, about threads: children use none of them
        _work = work
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin)
        try:
            return list(pool.map(_part, parts))
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A forked process may fork again: its parent's lock is not held by any thread of its own."""
    global _lock
    _lock = threading.Lock()
    start_worker(0)


def _part(part: tuple[int, ...]) -> Any:
    return _work(*part)
