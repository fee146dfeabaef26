"""Any bytes in place of a file: a reader returns a checked value, or says what is wrong; what was found stays here.

The slow target draws damage with hypothesis, the same every time: flips, cuts, splices, hostile values, other files.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm.addresses import CUT
from facelm.data.face_arrays import FaceArrays
from facelm.data.images import image_size, read_image
from facelm.data.storage.kept_index import read_index
from facelm.data.w300.annotations import CSV_COLUMNS, JSON_FIELDS, read_annotations, read_pts
from facelm.data.w300.archives import prepare_archives
from facelm.data.w300.index import _read_list
from facelm.launch.jobs import read_record
from facelm.launch.recorded import with_places
from facelm.models.cards import card_path, read_card, write_card
from facelm.models.loading import load_model
from facelm.models.spec import checkpoint_facts, write_checkpoint
from facelm.models.weights import save_weights
from facelm.predict.box_table import read_box_table
from perfect_network import SPEC, face_landmarks

POINTS = face_landmarks() + 0.5
HOSTILE = (
    b"", b"\0", b"nan", b"-inf", b"1e999", b"9" * 5000, b"[" * 20000, b'{"a":' * 20000, b'"' + b"x" * 200_000 + b'"',
    b"x" * 200_000, b"-1e308", b"0", b"-1", b"1e400", b"null", b"{}", b"[]", b"${oc.env:HOME}", b"../../x", b"\xff\xfe",
    b"\r", b"\xe2\x80\xa8", b"true", b"1_0", b"!!python/name:os.system", b"\xff" * 64, b"9" * 400, b"&a [*a]",
)  # fmt: skip
"""Put in place of any part of a file."""


# --- The readers, each with a file that it accepts and what its value must be ----------------------------------------


def pts() -> bytes:
    """A .pts file."""
    return b"version: 1\nn_points: 68\n{\n" + b"".join(b"%.3f %.3f\n" % tuple(point) for point in POINTS) + b"}\n"


def annotations_json() -> bytes:
    """One face in mmpose's form."""
    face = dict.fromkeys(JSON_FIELDS, 1) | {
        "keypoints": [v for x, y in POINTS.tolist() for v in (x, y, 2)],
        "image_id": 1,
    }
    face |= {"center": [120.0, 100.0], "scale": 0.5}
    return json.dumps({"images": [{"id": 1, "file_name": "afw/1_1.jpg"}], "annotations": [face]}).encode()


def annotations_csv() -> bytes:
    """One face in the HRNet authors' form."""
    row = {"image_name": "afw/1_1.jpg"} | dict.fromkeys(("scale", "center_w", "center_h"), "1.5")
    row |= {f"original_{i}_{axis}": f"{v:.2f}" for i, p in enumerate(POINTS) for axis, v in zip("xy", p, strict=True)}
    return ",".join(CSV_COLUMNS).encode() + b"\n" + ",".join(row[name] for name in CSV_COLUMNS).encode() + b"\n"


def picture(ending: str) -> bytes:
    """A small photograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    return cv2.imencode(ending, pixels)[1].tobytes()


def archive(method: int) -> bytes:
    """A zip with one face of 300W."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("afw/1_1.pts", pts())
        file.writestr("afw/1_1.png", picture(".png"))
    return stream.getvalue()


def model(ending: str, folder: Path) -> bytes:
    """A model file, with its card where it may have one."""
    path, net = folder / f"w{ending}", SPEC.build_network()
    if ending == ".ckpt":
        state = {f"net.{key}": value for key, value in net.state_dict().items()}
        write_checkpoint({"state_dict": state, "facelm": checkpoint_facts(SPEC, {"data": {"root": "x"}})}, path)
    else:
        save_weights(net, path)
        write_card(path, SPEC)
    return path.read_bytes()


def card(folder: Path) -> bytes:
    """The card of a model."""
    model(".safetensors", folder)
    return card_path(folder / "w.safetensors").read_bytes()


def _finite(points: np.ndarray) -> None:
    assert np.isfinite(points).all()
    assert abs(points).max() < 1e6


def _faces(path: Path, kind: str) -> None:
    for face in read_annotations(path, kind):
        _finite(face.read(1))


def _picture(path: Path) -> None:
    width, height = image_size(path)
    assert read_image(path).shape == (height, width, 3)


def _archive(path: Path) -> None:
    out = path.parent / "out"
    try:
        prepare_archives([path], out, report=lambda _: None)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _record(path: Path) -> None:
    record = read_record(path.parent)
    assert isinstance(record.get("status", ""), str)
    assert all(isinstance(one, str) for one in record.get("overrides", []))


def index(_: Path) -> bytes:
    """An index of three faces."""
    return (Path(__file__).parent / "golden/index-1.index").read_bytes()


def _index(path: Path) -> None:
    """As another process opens it, without asking for its checksum."""
    for face in FaceArrays.mapped(path, check=False):
        repr((face, face.image, face.landmarks_image, face.box, face.subsets, face.occluded))


RECORD = json.dumps({"status": "finished", "overrides": ["a=1"], "val_nme": 3.2, "seconds": 5, "process": 7}).encode()

LISTED = {"afw/1_1", "afw/2_1"}

READERS = {
    "pts": ("1.pts", lambda _: pts(), lambda path: _finite(read_pts(path)), 400),
    "json": ("a.json", lambda _: annotations_json(), lambda path: _faces(path, "json"), 400),
    "csv": ("a.csv", lambda _: annotations_csv(), lambda path: _faces(path, "csv"), 400),
    "list": ("a.txt", lambda _: b"afw/1_1\nafw/2_1 # x\n", lambda path: _read_list(path, LISTED, "train"), 300),
    "boxes": ("b.csv", lambda _: b"image,x1,y1,x2,y2\na.png,1,2,30,40\n",
              lambda path: [_finite(boxes) for boxes in read_box_table(path).values()], 400),
    "png": ("1_1.png", lambda _: picture(".png"), _picture, 300),
    "jpg": ("1_1.jpg", lambda _: picture(".jpg"), _picture, 300),
    "webp": ("1_1.webp", lambda _: picture(".webp"), _picture, 200),
    "ckpt": ("w.ckpt", lambda folder: model(".ckpt", folder), load_model, 100),
    "pth": ("w.pth", lambda folder: model(".pth", folder), load_model, 100),
    "safetensors": ("w.safetensors", lambda folder: model(".safetensors", folder), load_model, 100),
    "card": ("w.safetensors.json", card, lambda path: read_card(path.with_suffix("")), 300),
    "record": ("result.json", lambda _: RECORD, _record, 300),
    "config": ("config.yaml", lambda _: b"data: {root: /home/me/faces, hold_out: 0.1, seed: 1}",
               lambda path: with_places({"root": CUT + "faces"}, path.parent), 300),
    "index": ("a.index", index, _index, 400),
    "checked index": ("a.index", index, read_index, 200),
    "zip": ("afw.zip", lambda _: archive(zipfile.ZIP_DEFLATED), _archive, 200),
    "lzma": ("afw.zip", lambda _: archive(zipfile.ZIP_LZMA), _archive, 200),
}  # fmt: skip
"""File name, its content (of a folder), the reader with its check, and how many damages are tried."""


def read(reader, path: Path) -> Exception | None:
    """What the reader said, None for a value; fails where it is neither in words nor within half a minute."""

    def late(*_: object) -> None:
        pytest.fail("the reader hangs", pytrace=False)

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(path)
    except (ValueError, OSError) as error:
        return error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    return None


@pytest.mark.parametrize("kind", READERS)
def test_what_is_whole_is_read(tmp_path, kind):
    """Else the tests below would refuse everything for nothing."""
    name, content, reader, _ = READERS[kind]
    (tmp_path / name).write_bytes(content(tmp_path))
    assert read(reader, tmp_path / name) is None


# --- What was found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("json", b"[" * 100_000, "no JSON"),  # RecursionError
        (
            "json",
            annotations_json().replace(b"%r" % POINTS.tolist()[3][0], b"1" + b"0" * 400),
            "point 3",
        ),  # OverflowError
        ("csv", annotations_csv() + b"x" * 200_000, "no CSV"),  # csv.Error
        ("boxes", b"a.png,1,2,3," + b"4" * 200_000, "no CSV"),
        ("boxes", b"a.png,1,2,nan,4", "line 1"),
        ("boxes", b"a.png,1,2,1e300,4", "line 1"),
        ("lzma", archive(zipfile.ZIP_LZMA).replace(b"\x5d\0\0", b"\xff\xff\xff", 1), "damaged"),  # lzma.LZMAError
    ],
)
def test_found(tmp_path, kind, name, said):
    path = tmp_path / READERS[kind][0]
    path.write_bytes(name)
    assert said in str(read(READERS[kind][2], path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_any_damage_is_said(tmp_path, kind):
    damaged_anyhow(tmp_path, *READERS[kind])


def damaged_anyhow(tmp_path, name, content, reader, examples):
    """Reads `examples` damages of a file `name` of that content (of a folder)."""
    hypothesis = pytest.importorskip("hypothesis", reason="pip install -e .[dev]")
    some = pytest.importorskip("hypothesis.strategies")
    whole, path = content(tmp_path), tmp_path / name
    place = some.integers(0, len(whole))
    change = some.tuples(place, some.integers(0, 40), some.sampled_from(["flip", "cut", "splice", "repeat", *HOSTILE]))

    @hypothesis.settings(
        max_examples=examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(some.lists(change, min_size=1, max_size=3), some.binary(max_size=40), some.booleans())
    def tried(changes, noise, alone):
        data = bytearray(whole)
        for at, length, how in changes:
            damage(data, min(at, len(data)), length, how, noise)
        path.write_bytes(noise if alone and not changes[0][0] else data)
        read(reader, path)

    tried()


def damage(data: bytearray, at: int, length: int, how: str | bytes, noise: bytes) -> None:
    """Changes `data` in place."""
    if isinstance(how, bytes):
        data[at : at + length] = how
    elif how == "flip" and at < len(data):
        data[at] ^= 1 << length % 8
    elif how == "cut":
        del data[at : None if length > 20 else at + length]
    elif how == "splice":
        data[at : at + length] = noise
    elif how == "repeat":
        data[at:at] = data[max(0, at - 5 * length) : at]
