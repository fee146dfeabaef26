"""Faces are read by several processes as by one."""

import os
import signal
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm.data.faces import data_fingerprint
from facelm.data.storage import all_cores, kept_index
from facelm.data.storage.kept_index import KeptSource
from facelm.data.w300.index import index_faces
from facelm.data.w300.source import W300Faces
from w300_tree import pts_text, some_landmarks, write_tree

FACES = 60


@pytest.fixture
def root(tmp_path) -> Path:
    write_tree(tmp_path, [f"afw/face{number:02d}" for number in range(FACES)])
    return tmp_path


def test_all_cores_read_the_same(root, monkeypatch):
    (root / "afw/face50.pts").write_text("nothing")
    (root / "afw/face59.pts").write_text(pts_text(some_landmarks(59)[np.roll(np.arange(68), 1)]))
    alone = index_faces_and_warnings(root)
    monkeypatch.setattr(all_cores, "LEAST", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert index_faces_and_warnings(root) == alone


def index_faces_and_warnings(root: Path) -> tuple[str, list[str]]:
    with pytest.warns(UserWarning, match="cannot be used") as warned:
        faces = index_faces(root, "train", on_error="skip")
    return data_fingerprint(faces), [str(one.message) for one in warned]


def test_a_worker_that_is_killed_costs_only_time(monkeypatch):
    monkeypatch.setattr(all_cores, "LEAST", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    here = os.getpid()

    def work(start: int, stop: int) -> list[int]:
        if os.getpid() != here and start == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(range(start, stop))

    assert list(chain(*all_cores.over_cores(work, 4))) == [0, 1, 2, 3]


def test_opencv_does_not_hang_in_forked_readers(root, monkeypatch):
    cv2.setNumThreads(4)
    cv2.blur(np.zeros((2000, 2000), np.uint8), (9, 9))  # OpenCV's threads run
    monkeypatch.setattr(all_cores, "LEAST", 40)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert len(index_faces(root, "train", on_error="skip")) == FACES


class TestApart:
    """Reading in a process of its own, within which all cores read."""

    @pytest.fixture(autouse=True)
    def many(self, monkeypatch):
        monkeypatch.setattr(kept_index, "MANY", 1)
        monkeypatch.setattr(kept_index, "FEWEST", 1)
        monkeypatch.setattr(all_cores, "LEAST", 7)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    @pytest.mark.parametrize("settled", [-3600.0, 3600.0], ids=["kept", "not kept"])
    def test_gives_the_same_faces(self, root, tmp_path, monkeypatch, settled):
        monkeypatch.setattr(kept_index, "SETTLED", settled)
        source = W300Faces(root)
        for _ in range(2):
            faces = KeptSource(source, tmp_path / "cache").faces("train")
            assert data_fingerprint(faces) == data_fingerprint(source.faces("train"))

    def test_says_the_same(self, root, tmp_path):
        (root / "afw/face50.pts").write_text("nothing")
        source = W300Faces(root, on_error="skip")
        with pytest.warns(UserWarning, match="face50"):
            KeptSource(source, tmp_path / "cache").faces("train")

    def test_raises_the_same(self, root, tmp_path):
        (root / "afw/face50.pts").write_text("nothing")
        with pytest.raises(ValueError, match="face50"):
            KeptSource(W300Faces(root), tmp_path / "cache").faces("train")

    def test_what_is_killed_is_done_here(self):
        here = os.getpid()

        def work() -> int:
            if os.getpid() != here:
                os.kill(os.getpid(), signal.SIGKILL)
            return os.getpid()

        assert all_cores.apart(work) == here
        assert all_cores.apart(os.getpid) != here
