import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset
from facelm.data.faces import Face
from facelm.data.storage.cache import default_folder, open_cache
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68

AUGMENTATION = Augmentation(geometry=GeometricRanges())
TRAINING = Surroundings(1.25 * AUGMENTATION.geometry.reach, 256)
EVALUATION = EvaluationCrop(64, 1.25)


@pytest.fixture
def faces(tmp_path):
    """Six noisy photographs; the first three faces fit the cache as they are, the others are reduced."""
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    made = []
    for i in range(6):
        high = 120 if i < 3 else 250
        landmarks = rng.uniform(60, high, (68, 2))
        image = cv2.GaussianBlur(rng.integers(0, 256, (330, 310, 3), np.uint8), (0, 0), 1.5)
        path = tmp_path / "photographs" / f"{i}.png"
        cv2.imwrite(str(path), image)
        made.append(Face(f"afw/{i}", path, landmarks, box_from_landmarks(landmarks), "afw"))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def dataset(faces, *, source=None, augmentation=None):
    return FaceDataset(faces, crop_size=64, crop_scale=1.25, scheme=IBUG68, augmentation=augmentation, source=source)


def crops(faces, source=None, augmentation=AUGMENTATION, epoch=0):
    data = dataset(faces, source=source, augmentation=augmentation)
    return np.stack([data[epoch, i]["image"].numpy() for i in range(len(faces))]).astype(int)


def written(folder):
    """The cache files there, without locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def the_file(folder):
    (name,) = written(folder)
    return folder / name


def flip_byte(path, position):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


def builds(caplog):
    return sum("photographs once" in message for message in caplog.messages)


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, logger="facelm")


class TestAgreement:
    def test_evaluation_crops_are_the_same_bits(self, faces, folder):
        source = open_cache(faces, EVALUATION, folder)
        np.testing.assert_array_equal(crops(faces, source, None), crops(faces, None, None))

    @pytest.mark.parametrize("epoch", range(3))
    def test_training_crops(self, faces, folder, epoch):
        source = open_cache(faces, TRAINING, folder)
        difference = np.abs(crops(faces, source, epoch=epoch) - crops(faces, epoch=epoch))
        assert difference[:3].max() <= 8  # rounding; 1 with OpenCV 5
        assert difference[:3].mean() < 0.1
        assert np.sqrt((difference[3:] ** 2).mean()) < 12  # noise has more detail than any photograph

    def test_landmarks_are_untouched(self, faces, folder):
        source = open_cache(faces, TRAINING, folder)
        cached, original = (dataset(faces, source=s, augmentation=AUGMENTATION)[2, 4] for s in (source, None))
        for name in ("landmarks_crop", "landmarks_image", "image_from_crop"):
            torch.testing.assert_close(cached[name], original[name], rtol=0, atol=0)

    def test_pictures_cannot_be_written_to(self, faces, folder):
        picture, _ = open_cache(faces, TRAINING, folder).load(0)
        with pytest.raises(ValueError, match="read-only"):
            picture[0] = 0

    def test_a_draw_beyond_the_margin_is_an_error(self, faces, folder):
        source = open_cache(faces, TRAINING, folder)
        wider = dataset(faces, source=source, augmentation=Augmentation(geometry=GeometricRanges(shift=0.1)))
        seen = "afw/.: GeometricDraw.* reaches .* sides of the face's box .*data.cache=none"
        with pytest.raises(ValueError, match=seen):
            [wider[epoch, index] for epoch in range(100) for index in range(6)]

    def test_evaluation_crops_serve_no_augmentation(self, faces, folder):
        source = open_cache(faces, EVALUATION, folder)
        with pytest.raises(ValueError, match="reaches"):
            crops(faces, source, Augmentation(geometry=GeometricRanges(zoom=0.0)))


class TestReuse:
    def test_built_once(self, faces, folder, caplog):
        for _ in range(2):
            open_cache(faces, TRAINING, folder)
        assert builds(caplog) == 1

    def test_other_settings_or_faces_have_their_own_file(self, faces, folder):
        open_cache(faces, TRAINING, folder)
        open_cache(faces, EVALUATION, folder)
        open_cache(faces[:4], TRAINING, folder)
        assert len(written(folder)) == 3

    def test_a_changed_photograph_is_decoded_again(self, faces, folder, caplog):
        before = crops(faces, open_cache(faces, TRAINING, folder))
        image = cv2.imread(str(faces[2].image))
        cv2.imwrite(str(faces[2].image), 255 - image)
        os.utime(faces[2].image, ns=(1, 1))
        after = crops(faces, open_cache(faces, TRAINING, folder))
        assert "photographs have changed" in caplog.text
        assert builds(caplog) == 2
        assert len(written(folder)) == 1
        np.testing.assert_array_equal(after, np.where(np.arange(6)[:, None, None, None] == 2, after, before))
        assert np.abs(after[2] - before[2]).mean() > 10

    def test_in_the_environments_folder_by_default(self, faces, tmp_path, monkeypatch):
        monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "elsewhere"))
        assert open_cache(faces, EVALUATION).path.parent == default_folder() == tmp_path / "elsewhere" / "faces"


class TestWorkers:
    def test_a_copy_opens_the_file_and_not_the_pixels(self, faces, folder):
        source = open_cache(faces, TRAINING, folder)
        sent = pickle.dumps(source)
        assert len(sent) < 20_000
        np.testing.assert_array_equal(crops(faces, pickle.loads(sent)), crops(faces, source))

    def test_loader(self, faces, folder):
        data = dataset(faces, source=open_cache(faces, TRAINING, folder), augmentation=AUGMENTATION)
        keys = [[(0, i) for i in range(6)]]
        loader = DataLoader(data, batch_sampler=keys, num_workers=2)
        (batch,) = loader
        np.testing.assert_array_equal(batch["image"].numpy(), crops(faces, data.source))


class TestDamage:
    def test_a_flipped_pixel_byte_is_put_right(self, faces, folder, caplog):
        expected = crops(faces, open_cache(faces, TRAINING, folder))
        flip_byte(the_file(folder), the_file(folder).stat().st_size - 5000)
        np.testing.assert_array_equal(crops(faces, open_cache(faces, TRAINING, folder)), expected)
        assert "afw/5 is damaged and is cut out of" in caplog.text
        caplog.clear()
        np.testing.assert_array_equal(crops(faces, open_cache(faces, TRAINING, folder)), expected)
        assert not caplog.messages

    def test_in_a_file_that_may_not_be_written(self, faces, folder, monkeypatch, caplog):
        expected = crops(faces, open_cache(faces, TRAINING, folder))
        flip_byte(the_file(folder), the_file(folder).stat().st_size - 5000)
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write whatever the mode says
        source = open_cache(faces, TRAINING, folder)
        for _ in range(2):
            np.testing.assert_array_equal(crops(faces, source), expected)
        assert "may only be read here" in caplog.text

    @pytest.mark.parametrize("position", [3, 20, 60, 100, 300], ids=["magic", "photographs", "digest", "row", "matrix"])
    def test_a_flipped_byte_elsewhere_is_rebuilt(self, faces, folder, caplog, position):
        expected = crops(faces, open_cache(faces, TRAINING, folder))
        flip_byte(the_file(folder), position)
        np.testing.assert_array_equal(crops(faces, open_cache(faces, TRAINING, folder)), expected)
        assert builds(caplog) == 2

    @pytest.mark.parametrize("size", [0, 50, 300, -1000, +1000])
    def test_another_length_is_rebuilt(self, faces, folder, caplog, size):
        expected = crops(faces, open_cache(faces, TRAINING, folder))
        path = the_file(folder)
        os.truncate(path, size if size in (0, 50, 300) else path.stat().st_size + size)
        np.testing.assert_array_equal(crops(faces, open_cache(faces, TRAINING, folder)), expected)
        assert "the file is damaged" in caplog.text
        assert builds(caplog) == 2


class TestFailures:
    @pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
    def test_a_full_disk(self, faces, folder, monkeypatch, call):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(
            OSError, match=r"no room for the crop cache in .*: it takes 1 MB, .* MB are free.*data.cache_dir"
        ):
            open_cache(faces, TRAINING, folder)
        assert written(folder) == []
        monkeypatch.undo()
        open_cache(faces, TRAINING, folder)

    def test_a_disk_that_fills_up_in_the_middle_of_a_picture(self, faces, folder, monkeypatch):
        pwrite, left = os.pwrite, [100_000]

        def nearly_full(descriptor, data, offset):
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = min(len(data), left[0])
            left[0] -= count
            return pwrite(descriptor, data[:count], offset)

        monkeypatch.setattr(os, "pwrite", nearly_full)
        with pytest.raises(OSError, match="no room for the crop cache"):
            open_cache(faces, TRAINING, folder)
        assert written(folder) == []

    def test_writes_that_are_cut_short_are_continued(self, faces, folder, monkeypatch):
        expected = crops(faces, open_cache(faces, TRAINING, folder / "whole"))
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: pwrite(descriptor, data[:10_000], at))
        np.testing.assert_array_equal(crops(faces, open_cache(faces, TRAINING, folder / "parts")), expected)

    def test_without_reserved_space(self, faces, folder, monkeypatch):
        def not_here(*_):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "posix_fallocate", not_here)
        crops(faces, open_cache(faces, TRAINING, folder))

    def test_a_folder_that_cannot_be_made(self, faces, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"no crop cache can be written to .*file.cache .*data.cache_dir"):
            open_cache(faces, TRAINING, tmp_path / "file" / "cache")

    def test_a_photograph_that_cannot_be_decoded(self, faces, folder):
        content = faces[3].image.read_bytes()
        faces[3].image.write_bytes(content[:200] + bytes(len(content) - 220) + content[-20:])
        with pytest.raises(ValueError, match=r"3\.png"):
            open_cache(faces, TRAINING, folder)
        assert written(folder) == []


CHILD = """
import logging, pickle, sys, time
import facelm.data.storage.cache as cache
import facelm.data.faces as faces_module
logging.basicConfig(level="INFO", stream=sys.stdout)
faces, framing, folder = pickle.load(sys.stdin.buffer)
read = faces_module.read_image
faces_module.read_image = lambda *how: (time.sleep({pause}), read(*how))[1]
source = cache.open_cache(faces, framing, folder)
print("crc", sum(int(source.load(i)[0].sum()) for i in range(len(faces))))
"""


def child(faces, folder, pause):
    """A process that opens the cache, `pause` seconds slower at each photograph."""
    command = [sys.executable, "-c", CHILD.format(pause=pause)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(pickle.dumps((faces, TRAINING, folder)))
    process.stdin.flush()
    return process


class TestProcesses:
    def test_killed_while_building(self, faces, folder, caplog):
        process = child(faces, folder, pause=30)
        deadline = time.monotonic() + 60
        while not any(name.endswith(".partial") for name in written(folder)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [name.rpartition(".")[2] for name in written(folder)] == ["partial"]
        source = open_cache(faces, TRAINING, folder)
        assert [name.rpartition(".")[2] for name in written(folder)] == ["faces"]
        assert np.abs(crops(faces, source) - crops(faces))[:3].max() <= 8

    def test_two_at_once(self, faces, folder):
        processes = [child(faces, folder, pause=0.5) for _ in range(2)]
        outputs = [process.communicate()[0].decode() for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert sum("photographs once" in output for output in outputs) == 1
        assert len({output.rpartition("crc")[2] for output in outputs}) == 1
        assert len(written(folder)) == 1

    def test_rebuilding_leaves_those_who_read_alone(self, faces, folder):
        reader = open_cache(faces, TRAINING, folder)
        before = crops(faces, reader)
        os.utime(faces[0].image, ns=(1, 1))
        open_cache(faces, TRAINING, folder)
        np.testing.assert_array_equal(crops(faces, reader), before)
