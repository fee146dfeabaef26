"""The crop cache of JPEG-coded faces, what `auto` chooses, and files of earlier versions."""

import errno
import json
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from facelm.data.datamodule import FaceDataModule
from facelm.data.faces import Face
from facelm.data.storage import caching, crop_file
from facelm.data.storage.cache import CropCache, cache_path, open_cache
from facelm.data.storage.caching import chosen
from facelm.data.storage.coding import RAW, Jpeg
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.geometry.boxes import Box
from facelm.launch.resume import _with_its_cache
from test_data_cache import builds, flip_byte, the_file, written
from w300_tree import write_tree

TRAINING = Surroundings(1.1, 256)
JPEG = Jpeg(95)
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def faces(tmp_path):
    """Six smooth photographs of noise."""
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    made = []
    for i in range(6):
        image = cv2.GaussianBlur(rng.integers(0, 256, (210, 230, 3), np.uint8), (0, 0), 4)
        path = tmp_path / "photographs" / f"{i}.png"
        cv2.imwrite(str(path), cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX))
        made.append(Face(f"afw/{i}", path, rng.uniform(60, 150, (68, 2)), Box((110.0, 100.0 + i), 120.0), "afw"))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, logger="facelm")


def pictures(source, count=6):
    return [source.load(i)[0].copy() for i in range(count)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


class TestJpeg:
    def test_nearly_the_pixels_in_few_bytes(self, faces, folder):
        raw, coded = open_cache(faces, TRAINING, folder), open_cache(faces, TRAINING, folder, JPEG)
        for i in range(6):
            (a, one), (b, other) = raw.load(i), coded.load(i)
            np.testing.assert_array_equal(one, other)
            assert a.shape == b.shape
            assert np.abs(a.astype(int) - b).mean() < 4
        assert coded.path.stat().st_size < raw.path.stat().st_size / 5
        assert len(written(folder)) == 2

    def test_built_once(self, faces, folder, caplog):
        expected = pictures(open_cache(faces, TRAINING, folder, JPEG))
        assert_same(pictures(open_cache(faces, TRAINING, folder, JPEG)), expected)
        assert builds(caplog) == 1

    def test_a_damaged_face_is_cut_anew(self, faces, folder, caplog):
        expected = pictures(open_cache(faces, TRAINING, folder, JPEG))
        flip_byte(the_file(folder), the_file(folder).stat().st_size - 700)
        assert_same(pictures(open_cache(faces, TRAINING, folder, JPEG)), expected)
        assert "afw/5 is damaged" in caplog.text
        caplog.clear()
        assert_same(pictures(open_cache(faces, TRAINING, folder, JPEG)), expected)
        assert not caplog.messages

    def test_a_face_that_is_no_jpeg_any_more(self, faces, folder):
        """Where its checksum was seen to fit before it changed."""
        source = open_cache(faces, TRAINING, folder, JPEG)
        expected = pictures(source)
        start = int(source._rows["offset"][5])
        with source.path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(40))
        assert_same(pictures(source), expected)

    def test_a_jpeg_of_another_size_is_none(self):
        with pytest.raises(ValueError, match="no JPEG of 9 x 9 pixels"):
            JPEG.decode(JPEG.encode(np.zeros((8, 9, 3), np.uint8)), 9, 9)

    @pytest.mark.parametrize("quality", [49, 101])
    def test_a_quality_that_is_none(self, quality):
        with pytest.raises(ValueError, match="data.cache_quality"):
            FaceDataModule(root="x", crop_size=64, cache_quality=quality)


class TestRoom:
    @pytest.mark.parametrize("coding", [RAW, JPEG])
    def test_is_asked_for_before_the_first_byte(self, faces, folder, monkeypatch, coding):
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(crop_file.shutil, "disk_usage", lambda _: usage(1000))
        monkeypatch.setattr(os, "pwrite", None)
        cures = "data.cache_dir .*data.cache=jpeg .*data.cache_size.*data.cache=none"
        with pytest.raises(OSError, match=f"no room for the crop cache in .* 0 MB are free.*{cures}"):
            open_cache(faces, TRAINING, folder, coding)
        assert written(folder) == []

    def test_a_disk_that_fills_up(self, faces, folder, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="no room for the crop cache"):
            open_cache(faces, TRAINING, folder, JPEG)
        assert written(folder) == []

    def test_the_guess_is_near(self, faces, folder):
        size = open_cache(faces, TRAINING, folder, JPEG).path.stat().st_size
        assert size == pytest.approx(crop_file.estimated_bytes(faces, TRAINING, JPEG), rel=0.2)


class TestAuto:
    @pytest.fixture
    def parts(self, faces):
        return [(faces[:4], TRAINING), (faces[4:], EvaluationCrop(64, 1.25))]

    @pytest.mark.parametrize(("memory", "free", "kind"), [(1e9, 1e9, "raw"), (1e6, 1e9, "jpeg"), (1e9, 1e6, "jpeg")])
    def test_raw_while_it_is_small(self, parts, folder, monkeypatch, caplog, memory, free, kind):
        monkeypatch.setattr(caching, "memory", lambda: memory)
        monkeypatch.setattr(caching, "free_bytes", lambda _: free)
        assert chosen("auto", parts, str(folder)) == kind
        (said,) = caplog.messages
        assert f"data.cache=auto: {kind}, since" in said

    @pytest.mark.parametrize(("kind", "coding"), [("raw", RAW), ("jpeg", JPEG)])
    def test_what_is_there_is_used(self, parts, folder, monkeypatch, kind, coding):
        for part in parts:
            open_cache(*part, folder, coding)
        monkeypatch.setattr(caching, "memory", lambda: 1e9 if kind == "jpeg" else 0)
        assert chosen("auto", parts, str(folder)) == kind

    def test_memory_and_disk_are_known(self, folder):
        assert 2**28 < caching.memory() < 2**46
        assert caching.free_bytes(folder / "not" / "there") == pytest.approx(shutil.disk_usage("/tmp").free, rel=0.5)

    def test_the_run_says_what_it_came_to(self, tmp_path, monkeypatch):
        write_tree(tmp_path / "300w", [f"afw/{i}_1" for i in range(4)], ending=".png")
        data = FaceDataModule(
            root=str(tmp_path / "300w"), crop_size=64, num_workers=0, cache="auto", cache_dir=str(tmp_path / "cache")
        )
        monkeypatch.setattr(caching, "memory", lambda: 0)
        data.setup()
        assert data.cache == data.position()["cache"] == "jpeg"
        with pytest.raises(ValueError, match="cache raw, now jpeg"):
            data.go_on_from(data.position() | {"cache": "raw"})
        data.go_on_from(data.position())


class TestEarlierFiles:
    def test_a_raw_cache_of_version_1(self, tmp_path):
        """Its name, and two faces of 16 x 16 pixels with slopes of grey."""
        faces = []
        for i in range(2):
            image = tmp_path / f"{i}.png"
            image.write_bytes(bytes(1621))
            os.utime(image, ns=(10**18 + i, 10**18 + i))
            faces.append(Face(f"afw/{i}", image, np.full((68, 2), 20.0), Box((20.0 + i, 20.0), 24.0), "afw"))
        path = Path(shutil.copy(GOLDEN / "raw_cache_1.faces", tmp_path))
        picture, image_from_stored = CropCache(path, faces, EvaluationCrop(16, 1.25)).load(1)
        assert picture.shape == (16, 16, 3)
        assert (np.diff(picture[5, :, 2].astype(int)) > 0).all()
        assert image_from_stored[0, 0] == pytest.approx(30 / 16)
        elsewhere = [Face("afw/0", Path("/faces/0.png"), np.zeros((68, 2)), Box((20.0, 20.0), 24.0), "afw")]
        name = cache_path(elsewhere, EvaluationCrop(16, 1.25), tmp_path, RAW).name
        assert name == "6338fa28c9e95ae7d21f.faces"

    def test_disk_is_raw(self):
        assert FaceDataModule(root="x", crop_size=64, cache="disk").cache == "raw"


class TestResume:
    @pytest.mark.parametrize(
        ("facts", "asked", "expected"),
        [
            ({"cache": "jpeg"}, "auto", "jpeg"),
            ({"cache": "jpeg"}, "raw", "raw"),
            ({"cache": "../x"}, "auto", "auto"),
            ({}, "auto", "auto"),
        ],
    )
    def test_goes_on_with_what_it_came_to(self, tmp_path, facts, asked, expected):
        (tmp_path / "facts.json").write_text(json.dumps(facts))
        cfg = OmegaConf.create({"data": {"cache": asked}})
        assert _with_its_cache(cfg, tmp_path).data.cache == expected
