"""A pack on the node's own disk: copied once, used again where it is the same, and nothing hostile in it believed."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from facelm.data.storage import crop_file
from facelm.data.storage.array_file import map_arrays, write_arrays
from facelm.data.storage.pack import HEAD, MAGIC, Pack
from facelm.data.storage.packed import PackedFaces
from facelm.data.storage.staging import staged
from test_data_cache import flip_byte

GOLDEN = Path(__file__).parent / "golden" / "pack_1.pack"


@pytest.fixture
def pack(tmp_path):
    return Path(shutil.copy(GOLDEN, tmp_path / "faces.pack"))


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, logger="facelm")


class TestStaging:
    def test_copied_once(self, pack, tmp_path, caplog):
        copies = [staged(pack, tmp_path / "node") for _ in range(2)]
        assert copies[0] == copies[1]
        assert copies[0].read_bytes() == pack.read_bytes()
        assert sum("copying" in said for said in caplog.messages) == 1
        assert sorted(path.suffix for path in (tmp_path / "node").iterdir()) == [".lock", ".pack"]

    @pytest.mark.parametrize("damage", ["cut", "index", "longer"])
    def test_a_copy_that_is_another_is_made_again(self, pack, tmp_path, damage):
        copy = staged(pack, tmp_path / "node")
        if damage == "index":
            flip_byte(copy, copy.stat().st_size - 2000)
        else:
            os.truncate(copy, copy.stat().st_size + (-10 if damage == "cut" else 10))
        assert staged(pack, tmp_path / "node") == copy
        assert copy.read_bytes() == pack.read_bytes()

    def test_another_pack_has_another_copy(self, pack, tmp_path):
        first = staged(pack, tmp_path / "node")
        arrays, head = read(pack)
        arrays["landmarks"] = arrays["landmarks"] + 1
        write(pack, arrays, head)
        assert staged(pack, tmp_path / "node") != first

    def test_four_processes_copy_once(self, pack, tmp_path):
        code = (
            "import sys, logging; logging.basicConfig(level='INFO', stream=sys.stdout)\n"
            "from pathlib import Path; from facelm.data.storage.staging import staged\n"
            "print('copy', staged(Path(sys.argv[1]), Path(sys.argv[2])))"
        )
        command = [sys.executable, "-c", code, str(pack), str(tmp_path / "node")]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        outputs = [process.communicate()[0] for process in processes]
        assert sum(output.count("copying") for output in outputs) == 1
        assert len({output.rpartition("copy ")[2] for output in outputs}) == 1

    def test_no_room(self, pack, tmp_path, monkeypatch):
        monkeypatch.setattr(crop_file.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
        with pytest.raises(OSError, match="no room for a copy of .*data.stage_to=null"):
            staged(pack, tmp_path / "node")
        assert not list((tmp_path / "node").glob("*.pack"))

    def test_a_folder_that_cannot_be_made(self, pack, tmp_path):
        with pytest.raises(OSError, match="no copy of .* can be written to .*data.stage_to"):
            staged(pack, pack / "node")

    def test_a_damaged_pack_is_copied_as_it_is(self, pack, tmp_path):
        """Its damaged faces are named when they are read; a disk that damages others is not trusted."""
        flip_byte(pack, 500)
        assert len(Pack(staged(pack, tmp_path / "node")).damaged()) == 1

    def test_a_disk_that_gives_other_bytes_back(self, pack, tmp_path, monkeypatch):
        def copy(source, target, _):
            target.write(source.read())
            target.seek(500)
            target.write(b"\0\0\0")

        monkeypatch.setattr(shutil, "copyfileobj", copy)
        with pytest.raises(ValueError, match="1 damaged faces that the pack has not"):
            staged(pack, tmp_path / "node")
        assert not list((tmp_path / "node").glob("*.pack"))

    def test_the_copy_is_read(self, pack, tmp_path):
        scheme = Pack(pack).facts.scheme
        source = PackedFaces(pack, scheme, pixel_origin=1, stage_to=tmp_path / "node", on_error="raise")
        assert source.pack.path.parent == tmp_path / "node"
        assert len(source.faces("train")) == 2


# --- What a pack may say ---------------------------------------------------------------------------------------------


def read(path):
    """Its arrays, and all bytes before them."""
    start = HEAD.unpack_from(path.read_bytes())[1]
    return {name: one.copy() for name, one in map_arrays(path, start)[0].items()}, path.read_bytes()[:start]


def write(path, arrays, head):
    """A pack with all checksums right."""
    with path.open("wb") as file:
        file.write(head)
        write_arrays(file, arrays)
        end = file.tell()
        file.seek(0)
        file.write(HEAD.pack(MAGIC, len(head), end))


def with_fact(**changes):
    def change(arrays):
        facts = json.loads(arrays["facts"].tobytes()) | changes
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)

    return change


def with_value(name, value, at=(0,)):
    def change(arrays):
        arrays[name][at] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_value("surroundings_offset", 2**50),
        with_value("surroundings_offset", -5),
        with_value("crop_length", 2**40),
        with_value("crop_length", 0),
        with_value("crop_row", 2**40),
        with_value("crop_row", -2),
        with_value("crop_size", (2**30, 2**30)),
        with_value("crop_matrix", np.nan),
        with_value("split", 7),
        with_value("landmarks", np.inf),
        with_value("landmarks", 1e300),
        with_value("box", -1.0),
        with_value("box", np.nan),
        lambda arrays: arrays.pop("group"),
        lambda arrays: arrays.update(split=arrays["split"][:2]),
        lambda arrays: arrays.update(contents=arrays["contents"][:, :4]),
        lambda arrays: arrays.update(facts=np.frombuffer(b"[" * 5000, np.uint8)),
        with_fact(scheme={"file": "/etc/passwd"}),
        with_fact(scheme="no such scheme"),
        with_fact(scheme="wflw98"),
        with_fact(splits=5),
        with_fact(validates=["full"]),
        with_fact(pixel_origin=True),
        with_fact(quality=7),
        with_fact(crop={"size": 10**9, "scale": 1.25}),
        with_fact(surroundings={}),
    ],
)
def test_what_no_writer_writes_is_refused(pack, change):
    arrays, head = read(pack)
    change(arrays)
    write(pack, arrays, head)
    with pytest.raises(ValueError, match="is no pack that can be used"):
        Pack(pack)


def test_a_crop_that_asks_for_more_than_it_says(pack):
    """Its checksum fits, its header is of 60,000 x 60,000 pixels."""
    arrays, head = read(pack)
    at, length = int(arrays["crop_offset"][0]), int(arrays["crop_length"][0])
    jpeg = bytearray(head[at : at + length])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    arrays["crop_checksum"][0] = zlib.crc32(jpeg)
    write(pack, arrays, head[:at] + bytes(jpeg) + head[at + length :])
    with pytest.raises(ValueError, match="cannot be read .*no JPEG of 32 x 32"):
        Pack(pack).load("crop", 0)
