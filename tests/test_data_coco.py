"""A COCO-keypoints file: which points are hidden, and what is refused before any photograph is looked at."""

import json
from pathlib import Path

import numpy as np
import pytest

from facelm.data import coco
from facelm.data.own import OwnFaces
from facelm.geometry.landmarks import get_scheme
from own_data import NAMES, SCHEME, photographs, write_coco
from own_data import coco as content_of


@pytest.fixture
def content(drawn_root, tmp_path):
    """Of three photographs in photos/."""
    return content_of(photographs(drawn_root, tmp_path / "photos", count=3), tmp_path / "photos")


def test_hidden_points_keep_their_flag_in_the_order_of_the_scheme(content, tmp_path):
    content["annotations"][1]["keypoints"][2 + 3 * 5] = 1
    content["categories"][0]["keypoints"] = NAMES[::-1]
    for one in content["annotations"]:
        one["keypoints"] = np.reshape(one["keypoints"], (-1, 3))[::-1].ravel().tolist()
    files = {"train": str(write_coco(tmp_path / "turned.json", content)), "val": None, "test": None}
    faces = OwnFaces(tmp_path / "photos", get_scheme(SCHEME), files).faces("train")
    assert [np.flatnonzero(face.occluded).tolist() for face in faces] == [[], [5], []]


def refused(content: object, path: Path) -> str:
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        coco.read_coco(path)
    return str(caught.value)


def test_two_kinds_of_faces_in_a_file(content, tmp_path):
    content["categories"].append({"id": 2, "name": "cat", "keypoints": NAMES[:5]})
    assert "'face', 'cat' have different points" in refused(content, tmp_path / "two.json")


@pytest.mark.parametrize("first", [0, 1])
def test_lines_between_points_counted_from_0_or_1(content, tmp_path, first):
    content["categories"][0]["skeleton"] = [[first, 1 + first], [4 + first, 5 + first]]
    assert coco.read_coco(write_coco(tmp_path / "lines.json", content)).skeleton == ((0, 1), (4, 5))


def test_several_files_and_a_photograph_in_two_of_them(content, tmp_path, caplog):
    first, second = [content["annotations"][i:] for i in (0, 2)]
    paths = [
        str(write_coco(tmp_path / f"{i}.json", {**content, "annotations": part}))
        for i, part in enumerate((first, second))
    ]
    faces = OwnFaces(tmp_path / "photos", get_scheme(SCHEME), {"train": paths}).faces("train")
    assert [face.name for face in faces] == ["Büro 00", "Büro 01", "Büro 02", "Büro 02:2"]
    assert "1 names of photographs stand in more than one file of data.train, for example 'Büro 02" in caplog.text
    caplog.clear()
    OwnFaces(tmp_path / "photos", get_scheme(SCHEME), {"train": paths[:1]}).faces("train")
    assert "more than one file" not in caplog.text


def test_a_point_that_is_named_twice(content, tmp_path):
    content["categories"][0]["keypoints"] = [*NAMES[:-1], NAMES[0]]
    assert f"names a point twice: {NAMES[0]}" in refused(content, tmp_path / "twice.json")


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    (path := tmp_path / "large.json").write_bytes(b" " * 1001)
    monkeypatch.setattr(coco, "MOST_BYTES", 1000)
    monkeypatch.setattr(Path, "open", None)
    with pytest.raises(ValueError, match="seven times that in memory"):
        coco.read_coco(path)
