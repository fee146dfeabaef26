"""Work done ahead in other threads: the next photograph is read and looked at while the network has the one before."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

WAITING = 4
"""Results that wait for the one who takes them: enough to be ahead, few enough for large photographs."""


def helpers() -> int:
    """Threads that read and detect beside the network: half of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def ahead(
    items: Iterable[Item], work: Callable[[Item], Made], workers: int = 1, most: int = 1
) -> Generator[list[Made], None, None]:
    """`work(item)` of each item, in order, done before it is asked for; `items` are taken in another thread as well.

    They come in lists of what is ready: one at least, `most` at most. What `work` or the items raise is raised when its
    turn has come. Closing the iterator ends the threads.
    """
    waiting: Queue[Future[Made] | None] = Queue(WAITING)
    stopped = Event()

    def put(future: Future[Made] | None) -> None:
        while not stopped.is_set():
            with suppress(Full):
                waiting.put(future, timeout=0.1)
                return

    def feed() -> None:
        with ThreadPoolExecutor(workers, "facelm-ahead") as pool:
            try:
                for item in items:
                    put(pool.submit(work, item))
                    if stopped.is_set():
                        return
            except BaseException as error:  # it is raised where the results are taken
                failed: Future[Made] = Future()
                failed.set_exception(error)
                put(failed)
            put(None)

    feeder = Thread(target=feed, name="facelm-ahead", daemon=True)
    feeder.start()

    def is_ready() -> bool:
        with waiting.mutex:
            first = waiting.queue[0] if waiting.queue else None
        return first is not None and first.done() and first.exception() is None

    try:
        while (future := waiting.get()) is not None:
            made = [future.result()]
            while len(made) < most and is_ready() and (ready := waiting.get()) is not None:
                made.append(ready.result())
            yield made
    finally:
        stopped.set()
        while feeder.is_alive():
            with suppress(Empty):
                if (left := waiting.get(timeout=0.05)) is not None:
                    left.cancel()
