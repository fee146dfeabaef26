"""As test_hostile_files, for what is a person's own: data, schemes, networks; and for what runs and reports say."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from facelm import checked
from facelm.commands.describe import known_nme
from facelm.data.coco import read_coco
from facelm.data.own import OwnFaces
from facelm.data.storage.pack import Pack
from facelm.data.table import read_table
from facelm.evaluation.compare import read_face_errors
from facelm.geometry.landmarks import LandmarkScheme, get_scheme
from facelm.launch.local import read_local
from facelm.launch.recorded import recorded_root
from facelm.launch.sweeps import SweepTable, read_run, run_folders, table
from facelm.models.spec import ModelSpec
from facelm.predict.files import ResultFolder
from facelm.predict.journal import Journal
from test_hostile_files import damaged_anyhow, picture, read

NAMES = ("a", "b", "c", "d")
PLACES = ((4.0, 5.0), (15.0, 5.0), (4.0, 18.0), (15.5, 18.5))
SCHEME = get_scheme({"name": "four", "points": list(NAMES), "normaliser": "box"})


class Net(nn.Module):
    """A network of a person's own, of two arguments."""

    def __init__(self, num_landmarks: int = 4, width: int = 8, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        if width > 1000:
            raise ValueError("a network wider than that fills the memory")
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, num_landmarks, 3, 2, 1))
        self.names = [name.lower() for name in names]

    def forward(self, images):
        return self.layers(images)


def content(**changes):
    """The smallest COCO file, with other entries of its one annotation, image or category."""
    parts = {
        "images": {"id": 1, "file_name": "1_1.png", "width": 20, "height": 24},
        "annotations": {"id": 1, "image_id": 1, "keypoints": [v for x, y in PLACES for v in (x, y, 2)]},
        "categories": {"id": 1, "name": "face", "keypoints": list(NAMES), "skeleton": [[1, 2], [3, 4]]},
    }
    parts["annotations"]["bbox"] = [3, 4, 14, 16]
    for part, entries in changes.items():
        parts[part] |= entries
    return json.dumps({name: [entry] for name, entry in parts.items()}).encode()


def with_picture(folder, made):
    """`made`, with the photograph that it names beside it."""
    (folder / "1_1.png").write_bytes(picture(".png"))
    return made


def rows():
    """A table of one face."""
    header = ",".join(["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
    return f"{header}\n1_1.png,{','.join(str(v) for place in PLACES for v in place)}\n".encode()


SCHEME_FILE = (
    b"name: four\npoints: [a, b, c, d]\nmirror: [[0, 1], [2, 3]]\nregions: {eyes: [0-1], mouth: [2, 3]}\n"
    b"normaliser: interocular\nouter_eyes: [0, 1]\neyes: [[0], [1]]\ncontours: [[0-1], [2, 3, 2]]\n"
    b"shape: [[-1, -1], [1, -1.5], [-1, 10], [1, 1]]\n"
)

SUMMARY = {
    "subsets": {"common": {"n": 3, "nme": 3.5}, "test": {"n": 1, "nme": None}},
    "checkpoint": {
        "checkpoint": {"path": "best.ckpt", "sha256": "0" * 64, "spec": {"flip": "none", "codec": {"name": "dark"}}},
        "data": {"fingerprints": {"common": "12ab"}},
    },
}

JOURNAL = (
    b"\n".join(
        json.dumps(line).encode()
        for line in (
            ["facelm results", 1],
            ["begin", "x/one.png", "one", {"--flip": "none", "scheme": "ibug68"}, [5, 6]],
            ["file", "one.jpg"],
            ["row", ["x/one.png", "", 1, 2.5]],
            ["done"],
            ["table"],
            [],
        )[:-1]
    )
    + b"\n"
)


def own_spec(_):
    """What a checkpoint of a network of one's own says of it."""
    spec = ModelSpec(architecture="tests.Net", arguments={"width": 8}, scheme=SCHEME, crop_size=32)
    return json.dumps(spec.to_dict()).encode()


def _own_network(path: Path) -> None:
    ModelSpec.from_dict(checked.read_json(path)).build_network(Net)


def _scheme(path: Path) -> None:
    scheme = get_scheme(path)
    assert isinstance(scheme, LandmarkScheme)
    assert sum(map(len, scheme.contours)) <= 100_000


def _coco(path: Path) -> None:
    found = read_coco(path)
    assert all(isinstance(one, str) and len(one) < 1000 for one in found.problems)
    assert all(np.isfinite(one.landmarks).any() and one.box.side > 0 for one in found.faces)


def _faces(path: Path) -> None:
    for face in OwnFaces(path.parent, SCHEME, {"train": path.name}).faces("train"):
        labelled = np.isfinite(face.landmarks_image).all(axis=1)
        assert labelled.any()
        assert abs(face.landmarks_image[labelled]).max() < 1e6


def _pack(path: Path) -> None:
    pack = Pack(path)
    assert all(face.box.side > 0 for face in pack.faces)
    pack.damaged()


def _report(path: Path) -> None:
    for folder in run_folders(path.parent):
        assert table([read_run(folder)])


def _results(path: Path) -> None:
    (path.parent / "one.jpg").touch()
    journal = Journal(path.parent)
    ResultFolder(path.parent, get_scheme("ibug68"), journal=journal)
    assert all(isinstance(row, list) for row in journal.rows())


READERS = {
    "coco": ("a.json", lambda _: content(), _coco, 500),
    "own coco": ("a.json", lambda folder: with_picture(folder, content()), _faces, 300),
    "table": ("a.csv", lambda _: rows(), lambda path: read_table(path, 4), 500),
    "own table": ("a.csv", lambda folder: with_picture(folder, rows()), _faces, 300),
    "own list": ("l.txt", lambda folder: (folder / "a.csv").write_bytes(with_picture(folder, rows())) and b"1_1\n",
                 lambda path: OwnFaces(path.parent, SCHEME, {"train": "a.csv"}).faces("train", str(path)), 200),
    "scheme": ("s.yaml", lambda _: SCHEME_FILE, _scheme, 800),
    "own network": ("spec.json", own_spec, _own_network, 400),
    "summary": ("summary.json", lambda _: json.dumps(SUMMARY).encode(), _report, 500),
    "per face": ("per_face.csv", lambda _: b"name,subset,nme\na/1,common+full,3.5\nb,test,4\n",
                 lambda path: read_face_errors(path.parent), 300),
    "results": (".facelm-results.jsonl", lambda _: JOURNAL, _results, 400),
    "pack": ("a.pack", lambda _: (Path(__file__).parent / "golden" / "pack_1.pack").read_bytes(), _pack, 300),
    "local": ("local.yaml", lambda _: b"data: {root: /x, batch_size: 3}\nlogger: [csv]\n", read_local, 400),
}  # fmt: skip
"""As in test_hostile_files."""


@pytest.mark.parametrize("kind", READERS)
def test_what_is_whole_is_read(tmp_path, kind):
    name, made, reader, _ = READERS[kind]
    (tmp_path / name).write_bytes(made(tmp_path))
    assert read(reader, tmp_path / name) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_any_damage_is_said(tmp_path, kind):
    damaged_anyhow(tmp_path, *READERS[kind])


# --- What was found --------------------------------------------------------------------------------------------------

SEXAGESIMAL = b"points: " + b":".join([b"1"] * 300) + b".5"

FOUND = {
    "categories that name no list": ("coco", content(categories={"keypoints": 5}), "list of texts"),
    "numbers as texts": ("own coco", content(annotations={"keypoints": ["1", "2", "2"] * 4}), "no number: '1'"),
    "a truth value": ("own coco", content(annotations={"keypoints": [True, 2, 2] * 4}), "no number: True"),
    "a cell of 200 kB": ("table", rows() + b"x" * 200_000, "no CSV"),
    "a key that is no truth value": ("scheme", b"name: !!bool x", "no YAML"),
    "an empty whole number": ("scheme", b"points: !!int ''", "no YAML"),
    "no time": ("scheme", b"name: !!timestamp x", "no YAML"),
    "base 60": ("scheme", SEXAGESIMAL, "no YAML"),
    "billions of points": ("scheme", b"name: x\npoints: 3\ncontours: [[" + b"0-99999," * 5000 + b"]]", "more than"),
    "billions by alias": ("scheme", b"name: x\npoints: 3\ncontours: [&a [0-9999]," + b"*a," * 9000 + b"]",
                          "more than"),
    "a scheme that names itself": ("scheme", b"file: s.yaml", "names no other file"),
    "base 60 on this machine": ("local", SEXAGESIMAL, "local.yaml"),
    "no subsets": ("summary", b'{"subsets": [1]}', "subsets is a mapping"),
    "a subset of no entries": ("summary", b'{"subsets": {"a": 5}}', "mapping"),
    "a list of errors": ("summary", b'{"subsets": {"a": {"nme": [1]}}}', "number from"),
    "an endless error": ("summary", b'{"subsets": {"a": {"nme": 1e999}}}', "number from"),
    "a summary that is a number": ("summary", b"5", "mapping"),
    "a deep summary": ("summary", b"[" * 100_000, "nested too deeply"),
    "a codec that is a list": ("summary", b'{"checkpoint": {"checkpoint": {"spec": {"codec": [1]}}}}', "codec"),
    "a fingerprint that is a number": ("summary", b'{"checkpoint": {"data": {"fingerprints": {"a": 5}}}}',
                                      "fingerprint"),
    "no column": ("per face", b"name,nme\na,1\n", "columns"),
    "an error that is no number": ("per face", b"name,subset,nme\na,common,inf\n", "line 2"),
    "a name of 200 kB": ("per face", b"name,subset,nme\n" + b"x" * 200_000 + b",common,1\n", "field larger"),
    "options that are lists": ("results", JOURNAL.replace(b'"ibug68"', b"[1]"), "line 2"),
    "a width that is a text": ("own network", b'"width": "8"', "cannot be made"),
    "a width below nothing": ("own network", b'"width": -8', "cannot be made"),
    "names that are numbers": ("own network", b'"width": 8, "names": [5]', "cannot be made"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOUND)
def test_found(tmp_path, what):
    kind, damaged, said = FOUND[what]
    name, made, reader, _ = READERS[kind]
    whole = made(tmp_path)
    (tmp_path / name).write_bytes(whole.replace(b'"width": 8', damaged) if kind == "own network" else damaged)
    assert said in str(read(reader, tmp_path / name))


def test_a_damaged_job_costs_a_sweep_no_table(tmp_path):
    for name, said in (("0", {"status": "finished", "val_nme": 3.5}), ("1", {"status": 5})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(said))
    SweepTable()._write(tmp_path)
    said = (tmp_path / "sweep.md").read_text()
    assert "3.50" in said
    assert "was not written by facelm" in said


def test_a_name_of_any_bytes_is_compared(tmp_path):
    (tmp_path / "per_face.csv").write_bytes(b"name,subset,nme\n\xff\xfe,common,3\n")
    assert list(read_face_errors(tmp_path)["common"].values()) == [3.0]


def test_a_damaged_report_says_nothing_of_the_model(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.json").write_text('{"subsets": [1]}')

    class Model:
        published, path, sha256, spec = None, tmp_path / "checkpoints" / "best.ckpt", "", None

    assert known_nme(Model()) == {}


@pytest.mark.parametrize("root", ["${oc.env:HOME}", "x/${facelm.new_folder:y}", "$\\{oc.env:HOME}"])
def test_the_root_in_a_run_folder_is_not_interpolated(tmp_path, monkeypatch, root):
    """It is a folder on disk, whatever it is called, and what the config would make of it is another."""
    monkeypatch.chdir(tmp_path)
    Path(root).mkdir(parents=True)
    (tmp_path / "result.json").write_text(json.dumps({"status": "stopped", "data_root": root}))
    assert "type data.root=" in str(read(partial(recorded_root), tmp_path))
