"""Data-loader workers and signals: deaf to those that are sent to a whole job, not to their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
from torch.utils.data import DataLoader

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a training to save and to end. SLURM and a terminal send them to every process of a job."""


class PatientLoader(DataLoader[dict[str, Any]]):
    """A `DataLoader` whose workers outlive the signals that tell the training to save.

    A run whose workers are gone could not reach the end of its batch. A worker ends when its parent sends SIGTERM
    (torch and multiprocessing do so for workers that must go) and within a second after its parent is gone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("worker_init_fn", start_worker)
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Any:
        """Signals that come while workers start are kept for afterwards: a worker has no handler of its own yet."""
        with _held():
            return super().__iter__()


def start_worker(worker_id: int) -> None:
    """What a worker does first.

    One OpenCV thread: threads of a forked OpenCV fight each other, and the workers are the parallelism.
    """
    cv2.setNumThreads(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()
    if parent and parent.pid:
        threading.Thread(target=_listen_to, args=(parent.pid, os.getppid()), daemon=True).start()


def _listen_to(parent: int, created_by: int) -> None:
    """Ends this process when `parent` asks for it, or when the process that made it is gone."""
    while os.getppid() == created_by:
        signals = signal.sigtimedwait(STOP_SIGNALS, 1.0)
        if signals and signals.si_signo == signal.SIGTERM and signals.si_pid == parent:
            break
    os._exit(0)


@contextmanager
def _held() -> Iterator[None]:
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
