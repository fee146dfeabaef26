"""Which faces are held out, by which rule, and what is said of it."""

import logging
from pathlib import Path

import numpy as np
import pytest

from facelm.data.faces import Face
from facelm.data.partition import hold_out, partition
from facelm.data.w300.index import index_faces
from facelm.data.w300.source import W300Faces
from facelm.geometry.boxes import Box
from w300_tree import write_tree


def faces(*names):
    return [Face(name, Path(name), np.zeros((68, 2)), Box((0.0, 0.0), 1.0), "afw") for name in names]


def divided(root, caplog):
    with caplog.at_level(logging.INFO):
        return partition(W300Faces(root))


@pytest.mark.parametrize(
    "group",
    [
        ("afw/111076519_1", "afw/111076519_2"),
        ("helen/trainset/100032540_1", "helen/trainset/100032540_12"),
        ("afw/clip1_00", "afw/clip1_01", "afw/clip1_11"),
    ],
)
def test_faces_of_one_photograph_stay_together(group):
    others = [f"afw/friend {number}" for number in range(10)]
    for share in (0.1, 0.3, 0.5, 0.8):
        _, held = hold_out(W300Faces(Path()), faces(*group, *others), share)
        assert {face.name for face in held} & set(group) in (set(), set(group))


@pytest.mark.parametrize("names", ["lfpw/trainset/image_{:04d}", "afw/IMG_{:04d}", "afw/anna_{:02d}", "afw/{} b"])
def test_other_names_are_photographs_of_their_own(names):
    _, held = hold_out(W300Faces(Path()), faces(*(names.format(number) for number in range(1, 41))), 0.1)
    assert len(held) == 4


def test_the_reason_is_said_where_clips_are_held_out_by_halves(tmp_path, caplog):
    write_tree(tmp_path, [f"afw/clip{clip}_{frame:02d}" for clip in (1, 2) for frame in range(4)])
    chosen = divided(tmp_path, caplog)
    assert {face.name[:9] for face in chosen.val}.isdisjoint(face.name[:9] for face in chosen.train)
    assert "4 of 8 training faces are held out, 1 of 2 photographs or clips" in caplog.text
    assert "PHOTO1_1" in caplog.text


def test_other_peoples_faces_are_no_incomplete_300w(tmp_path, recwarn):
    write_tree(tmp_path, ["afw/anna_1", "afw/IMG_0001"])
    assert len(index_faces(tmp_path, "train")) == 2
    assert not recwarn
    write_tree(tmp_path, ["afw/111076519_1"])
    with pytest.warns(UserWarning, match="300W is incomplete"):
        index_faces(tmp_path, "train")


@pytest.mark.parametrize("folder", ["faces", "my/faces", ""])
def test_faces_in_a_folder_of_another_name(tmp_path, folder):
    write_tree(tmp_path / folder, ["anna"])
    with pytest.raises(FileNotFoundError, match="There are .pts files in .*named afw/"):
        index_faces(tmp_path, "train")


@pytest.mark.parametrize("folder", ["afw", "helen/trainset"])
def test_a_root_that_is_one_of_the_folders(tmp_path, folder):
    write_tree(tmp_path, [f"{folder}/anna"])
    with pytest.raises(FileNotFoundError, match=f"This is the folder {folder}/ itself: set data.root='{tmp_path}'"):
        index_faces(tmp_path / folder, "train")


def test_the_reason_is_said_where_all_are_one_clip(tmp_path, caplog):
    write_tree(tmp_path, [f"afw/clip7_{frame:02d}" for frame in range(4)])
    with pytest.raises(ValueError, match="all 4 validate. Faces whose names differ only .*data.val_list=FILE"):
        divided(tmp_path, caplog)
