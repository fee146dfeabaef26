"""The same faces from exports as CVAT, Label Studio, Roboflow and mmpose write them: their folders, keys and habits."""

import csv
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import TINY
from facelm.cli import main as facelm
from facelm.data.own import OwnFaceDataModule, OwnFaces
from facelm.data.partition import partition
from facelm.data.w300.annotations import write_pts
from facelm.geometry.inferred import mirror_by_place
from facelm.geometry.landmarks import get_scheme
from own_data import MIRROR, NAMES, SCHEME, photographs

COUNT = 6
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def drawn(drawn_root, tmp_path_factory):
    """(folder, faces): photographs with a space and an umlaut in their names."""
    folder = tmp_path_factory.mktemp("drawn")
    return folder, photographs(drawn_root, folder, count=COUNT)


def entries(drawn, *, called=lambda name: name, first_id=0, rounded=False):
    """(images, annotations) that all tools have in common."""
    folder, faces = drawn
    images, annotations = [], []
    for number, (name, landmarks) in enumerate(faces, start=first_id):
        height, width = cv2.imdecode(np.fromfile(folder / name, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        images.append({"id": number, "file_name": called(name), "width": width, "height": height})
        points = landmarks.round() if rounded else landmarks
        low, size = points.min(axis=0), np.ptp(points, axis=0)
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*low.tolist(), *size.tolist()],
                "keypoints": np.column_stack([points, np.full(len(points), 2)]).ravel().tolist(),
                "num_keypoints": len(points),
            }
        )
    return images, annotations


def put(drawn, folder, files):
    """The photographs in `folder`, and files of JSON by their path."""
    folder.mkdir(parents=True)
    for name, _ in drawn[1]:
        shutil.copy(drawn[0] / name, folder / name)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def cvat(drawn, root):
    """COCO Keypoints 1.0: images/default/, a category for each point, points called 1, 2, ... unless renamed."""
    images, annotations = entries(drawn, first_id=1)
    names = [str(i + 1) for i in range(20)]
    categories = [{"id": 1, "name": "face", "supercategory": "", "keypoints": names, "skeleton": [[4, 5], [6, 7]]}]
    for number, name in enumerate(names, start=2):
        empty = {"keypoints": [], "skeleton": []}
        categories.append({"id": number, "name": name, "supercategory": "face", **empty})
    images = [{**one, "license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0} for one in images]
    more = {"segmentation": [], "area": 1.0, "attributes": {"occluded": False, "rotation": 0.0}}
    rectangle = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0, **more}
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": categories,
        "images": images,
        "annotations": [{**one, **more} for one in annotations] + [rectangle],
    }
    path = root / "annotations" / "person_keypoints_default.json"
    put(drawn, root / "images" / "default", {path: content})
    return path


def label_studio(drawn, root):
    """Paths of its server in file_name, ids from 0, whole numbers, a rectangle beside each face."""
    images, annotations = entries(drawn, called=lambda name: f"..\\..\\media\\upload\\7\\{name}", rounded=True)
    boxes = [{"id": 100 + one["id"], "image_id": one["image_id"], "category_id": 0} for one in annotations]
    boxes = [{**one, "segmentation": [], "bbox": [1, 1, 9, 9], "ignore": 0, "iscrowd": 0, "area": 81} for one in boxes]
    kind = {"id": 1, "name": "default", "supercategory": "default", "keypoints": NAMES, "skeleton": []}
    content = {"images": images, "categories": [{"id": 0, "name": "face"}, kind], "annotations": annotations + boxes}
    put(drawn, root / "images", {root / "result.json": content})
    return root / "result.json"


def roboflow(drawn, root):
    """A folder for each split, the file among its photographs, a category of points below one without."""
    images, annotations = entries(drawn)
    kind = {"id": 1, "name": "face", "supercategory": "faces", "keypoints": NAMES, "skeleton": [[1, 2]]}
    content = {
        "info": {"year": "2024", "version": "1"},
        "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
        "categories": [{"id": 0, "name": "faces", "supercategory": "none"}, kind],
        "images": [{**one, "license": 1, "date_captured": "2024-09-10", "extra": {"name": "x"}} for one in images],
        "annotations": [{**one, "area": 9, "segmentation": []} for one in annotations],
    }
    put(drawn, root / "train", {root / "train" / "_annotations.coco.json": content})
    put(drawn, root / "valid", {root / "valid" / "_annotations.coco.json": content})
    return root / "train" / "_annotations.coco.json"


def mmpose(drawn, root):
    """No names of points, v of 1, its own center and scale."""
    images, annotations = entries(drawn)
    for one in annotations:
        one["keypoints"][2::3] = [1] * 20
        left, top, width, height = one["bbox"]
        one |= {"center": [left + width / 2, top + height / 2], "scale": max(width, height) / 200}
    kind = {"supercategory": "person", "id": 1, "name": "face", "keypoints": [], "skeleton": []}
    content = {"categories": [kind], "images": images, "annotations": annotations}
    put(drawn, root / "images", {root / "annotations" / "face_landmarks_train.json": content})
    return root / "annotations" / "face_landmarks_train.json"


TOOLS = {"cvat": cvat, "label_studio": label_studio, "roboflow": roboflow, "mmpose": mmpose}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_scheme_is_inferred_and_reads_the_faces(drawn, tmp_path, tool, capsys):
    path = TOOLS[tool](drawn, tmp_path / "export")
    scheme = tmp_path / "mine.yaml"
    assert facelm(["landmarks", "infer", str(path), "--out", str(scheme)]) == 0
    said = capsys.readouterr().out
    assert ("guessed" in said) == (tool in ("cvat", "mmpose")), "no name has a side"
    found = get_scheme(scheme)
    assert [[i, partner] for i, partner in enumerate(found.mirror) if i < partner] == MIRROR
    source = OwnFaces(tmp_path / "export", found, {"train": str(path)})
    faces = source.faces("train")
    assert len(faces) == COUNT
    within = 0.5 if tool == "label_studio" else 1e-9
    for face, (name, landmarks) in zip(faces, drawn[1], strict=True):
        assert face.image.name == name
        assert np.abs(face.landmarks_image - landmarks).max() <= within


def test_of_two_photographs_of_a_name_the_one_beside_the_file_counts(drawn, tmp_path):
    """train/ and valid/ of Roboflow's may hold the same names."""
    path = roboflow(drawn, tmp_path / "export")
    files = {"train": str(path), "val": "valid/_annotations.coco.json"}
    source = OwnFaces(tmp_path / "export", get_scheme(SCHEME), files)
    assert {face.image.parent.name for face in source.faces("train")} == {"train"}
    assert {face.image.parent.name for face in source.faces("val")} == {"valid"}
    shutil.move(path, tmp_path / "alone.json")
    with pytest.raises(ValueError, match=r"may be .*train.* or .*valid"):
        OwnFaces(tmp_path / "export", get_scheme(SCHEME), {"train": str(tmp_path / "alone.json")}).faces("train")


def test_a_scheme_from_a_table_and_from_pts_files(drawn, tmp_path, capsys):
    folder = tmp_path / "deep" / "er"
    put(drawn, folder, {})
    for name, landmarks in drawn[1]:
        write_pts((folder / name).with_suffix(".pts"), landmarks)
    with (tmp_path / "faces.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(f"{axis}{i}" for i in range(20) for axis in "xy")])
        writer.writerows([f"deep/er/{name}", *landmarks.ravel().tolist()] for name, landmarks in drawn[1])
    read = []
    for told, files in ((tmp_path / "faces.csv", {"train": "faces.csv"}), (tmp_path / "deep", {"train": None})):
        out = tmp_path / f"{told.stem}.yaml"
        assert facelm(["landmarks", "infer", str(told), "--out", str(out)]) == 0
        assert "data=folder" in capsys.readouterr().out
        scheme = get_scheme(out)
        assert [[i, partner] for i, partner in enumerate(scheme.mirror) if i < partner] == MIRROR
        read.append(OwnFaces(tmp_path, scheme, files).faces("train"))
    assert np.allclose(*([face.landmarks_image for face in faces] for faces in read))
    assert [face.name for face in read[0]] == [face.name for face in read[1]]


def test_partners_by_place_on_a_tilted_face_and_those_without():
    places = np.array(get_scheme("ibug68").shape)
    turn = np.radians(20)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pairs, alone = mirror_by_place(places @ matrix.T)
    mirror = list(range(68))
    for one, other in pairs:
        mirror[one], mirror[other] = other, one
    assert (tuple(mirror), alone) == (get_scheme("ibug68").mirror, [])
    pairs, alone = mirror_by_place(np.array([[0.0, 0], [10, 0], [5, 5], [0.0, 10], [10, 10], [9.0, 1]]))
    assert (pairs, alone) == ([(0, 1), (3, 4)], [5])


def test_a_scheme_without_pairs_is_said_before_training(drawn, caplog):
    folder, _ = drawn
    with caplog.at_level(logging.WARNING):
        OwnFaceDataModule(
            root=str(folder), crop_size=64, landmarks={**SCHEME, "mirror": [], "outer_eyes": None, "normaliser": "box"}
        )
    assert "mirror" in caplog.text


def table(drawn, path, splits):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "part", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
        for (name, landmarks), split in zip(drawn[1], splits, strict=True):
            writer.writerow([name, split, *landmarks.ravel().tolist()])


def split_by_column(drawn, tmp_path, splits):
    table(drawn, tmp_path / "faces.csv", splits)
    files = {"train": str(tmp_path / "faces.csv"), "val": None, "test": None}
    return OwnFaces(drawn[0], get_scheme(SCHEME), files, split_column="part")


def test_a_column_says_which_faces_train_validate_and_test(drawn, tmp_path):
    source = split_by_column(drawn, tmp_path, ["train", "Train", "train", "valid", "test", "test"])
    assert source.subsets() == ["val", "test"]
    assert [len(source.faces(split)) for split in ("train", "val", "test")] == [3, 1, 2]
    chosen = partition(source)
    assert (len(chosen.train), len(chosen.val), chosen.val_name) == (3, 1, "val")


def test_a_column_that_is_not_there_or_says_something_else(drawn, tmp_path):
    source = split_by_column(drawn, tmp_path, ["train"] * 5 + ["fold 2"])
    with pytest.raises(ValueError, match="'fold 2'"):
        source.faces("train")
    files = {"train": str(tmp_path / "faces.csv"), "val": None, "test": None}
    with pytest.raises(ValueError, match="no column 'fold'"):
        OwnFaces(drawn[0], get_scheme(SCHEME), files, split_column="fold").faces("train")
    with pytest.raises(ValueError, match="leave out"):
        OwnFaces(drawn[0], get_scheme(SCHEME), {**files, "val": "x.csv"}, split_column="part")


@pytest.mark.parametrize("how", ["files", "lists"])
def test_a_photograph_on_both_sides_is_said(drawn, tmp_path, how, caplog):
    """Two files that name a photograph, or lists that part its two faces."""
    path = label_studio(drawn, tmp_path / "export")
    content = json.loads(path.read_text())
    content["annotations"] += [{**one, "id": 200 + one["id"]} for one in content["annotations"][:COUNT]]
    path.write_text(json.dumps(content))
    if how == "files":
        source = OwnFaces(tmp_path / "export", get_scheme(SCHEME), {"train": str(path), "val": str(path)})
        lists = {}
    else:
        source = OwnFaces(tmp_path / "export", get_scheme(SCHEME), {"train": str(path)})
        (tmp_path / "val.txt").write_text("Büro 00:2\nBüro 03\nBüro 03:2\n", encoding="utf-8")
        lists = {"val_list": str(tmp_path / "val.txt")}
    with caplog.at_level(logging.WARNING):
        partition(source, **lists)
    assert f"{COUNT if how == 'files' else 1} photographs have faces that train and faces that validate" in caplog.text


@pytest.mark.slow
def test_the_three_commands_of_the_docs_lead_from_an_export_to_overlays(drawn, tmp_path):
    """As docs/data.md has them, word for word but for the names of files and a tiny network."""
    cvat(drawn, tmp_path / "export")
    block = re.search(
        r"## Your own faces.*?```\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    commands = block.strip().splitlines()
    assert len(commands) == 3
    names = {
        "faces.json": "export/annotations/person_keypoints_default.json",
        "NEW_PHOTOGRAPHS": "export/images/default",
        "PHOTOGRAPHS": "export",
    }
    for command, more in zip(commands, ([], [*TINY, "trainer.max_epochs=1"], []), strict=True):
        for name, path in names.items():
            command = command.replace(name, path)
        if "/TIME" in command:
            command = command.replace("outputs/finetune/TIME", str(next((tmp_path / "outputs/finetune").iterdir())))
        program, *words = shlex.split(command)
        start = [sys.executable, *words] if program == "python" else [sys.executable, "-m", "facelm.cli", *words]
        done = subprocess.run([*start, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "mine.png").is_file()
    assert any(path.suffix in (".png", ".jpg") for path in (tmp_path / "results").rglob("*"))
    found = json.loads(next((tmp_path / "results").rglob("*.json")).read_text(encoding="utf-8"))
    assert "landmarks" in json.dumps(found)
