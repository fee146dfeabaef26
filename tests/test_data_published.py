"""Published data sets: the same faces from every form in which they come, and what is wrong with such files."""

import json
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from conftest import compose
from facelm.data.cofw import unpack
from facelm.data.faces import data_fingerprint
from facelm.data.storage import all_cores
from facelm.geometry.boxes import Box, cut_box
from facelm.geometry.landmarks import get_scheme
from facelm.launch.build import build_data, plain
from published_trees import COUNTS, FORMS, size_of, tight, write_tree


@pytest.fixture(scope="module")
def trees(drawn_root, tmp_path_factory):
    """A function: the root and the drawn faces by split of a data set in one of its forms."""
    made = {}

    def tree(name, form):
        if form == "mat" and name == "cofw":
            pytest.importorskip("h5py")
        if (name, form) not in made:
            root = tmp_path_factory.mktemp(f"{name}_{form}")
            made[name, form] = root, write_tree(drawn_root, root, name, form)
        return made[name, form]

    return tree


def source_of(name, root, *overrides):
    data = build_data(compose("train", f"data={name}", f"data.root={root}", "data.cache=none", *overrides))
    data.prepare_data()
    return data.source


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_gives_the_drawn_faces(trees, name, form):
    root, splits = trees(name, form)
    source = source_of(name, root)
    there = ["train"] if (name, form) == ("w300lp", "mat") else list(splits)
    assert source.subsets() == [split for split in there if split != "train"]
    for split in there:
        found = source.faces(split)
        assert [face.name for face in found] == sorted(drawn.name for drawn in splits[split])
        for face, drawn in zip(found, sorted(splits[split], key=lambda one: one.name), strict=True):
            box = drawn.box if name in ("wflw", "aflw") else cut_at_edge(drawn)
            assert np.allclose(face.landmarks_image, drawn.points, atol=1e-9)
            assert np.allclose([*face.box.center, face.box.side], [*box.center, box.side], atol=1e-9)
            assert face.subsets == drawn.subsets
            assert face.read().shape[1::-1] == size_of(drawn)
            if name == "cofw":
                assert (face.occluded == drawn.hidden).all()
                assert np.isfinite(face.landmarks_image).all()


def test_attributes_of_training_faces_are_no_subsets(trees, tmp_path):
    root, splits = trees("wflw", "txt")
    shutil.copytree(root, tmp_path / "wflw")
    for test in (tmp_path / "wflw").rglob("*_test.txt"):
        shutil.copy(test, test.with_name(test.name.replace("_test", "_train")))
    assert any(drawn.subsets for drawn in splits["test"])
    found = source_of("wflw", tmp_path / "wflw").faces("train")
    assert len(found) == len(splits["test"])
    assert not any(face.subsets for face in found)


def test_a_photograph_elsewhere_is_taken_where_there_is_one_of_its_name(trees, tmp_path):
    root, splits = trees("aflw", "json")
    shutil.copytree(root, tmp_path / "aflw")
    (tmp_path / "aflw" / "images").rename(tmp_path / "aflw" / "moved")
    found = source_of("aflw", tmp_path / "aflw").faces("full")
    assert [face.name for face in found] == sorted(drawn.name for drawn in splits["full"])
    shutil.copytree(tmp_path / "aflw" / "moved", tmp_path / "aflw" / "again")
    with pytest.raises(ValueError, match="is there 2 times"):
        source_of("aflw", tmp_path / "aflw").faces("full")


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_all_cores_give_the_same(trees, name, form, monkeypatch):
    source = source_of(name, trees(name, form)[0])
    alone = source.faces("train")
    monkeypatch.setattr(all_cores, "LEAST", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    together = source.faces("train")
    assert data_fingerprint(together) == data_fingerprint(alone)
    assert [face.image for face in together] == [face.image for face in alone]


def cut_at_edge(drawn):
    """mmpose's box where it is made of `bbox`."""
    left, top, width, height = tight(drawn.points)
    (right, bottom), (last_x, last_y) = (left + width, top + height), (size - 1 for size in size_of(drawn))
    left, right, top, bottom = max(left, 0), min(right, last_x), max(top, 0), min(bottom, last_y)
    return Box(((left + right) / 2, (top + bottom) / 2), max(right - left, bottom - top))


def test_a_box_is_cut_at_the_edge_of_the_photograph():
    assert cut_box(np.array([-10.0, 4, 30, 60]), (50, 40)) == Box((15.0, 21.5), 35.0)


def test_faces_of_one_photograph_stay_together(trees):
    root, splits = trees("w300lp", "mat")
    source = source_of("w300lp", root)
    face = source.faces("train")[0]
    turned = [replace(face, name=f"AFW_134212_{number}") for number in ("1_0", "1_17", "2_3")]
    assert {source.group(one) for one in turned} == {"AFW_134212"}
    assert len({source.group(one) for one in source.faces("train")}) == len(splits["train"])


@pytest.mark.parametrize("name", COUNTS)
def test_the_config_chooses_the_scheme(name):
    for config, more in (("train", []), ("train", ["experiment=own"]), ("evaluate", ["checkpoint=x"])):
        cfg = compose(config, f"data={name}", *more)
        assert get_scheme(plain(cfg.landmarks)).num_landmarks == COUNTS[name]


# --- Mistakes -------------------------------------------------------------------------------------------------------


def line(number, change):
    """Changes one line of a text file, given as its cells."""

    def damage(path):
        lines = path.read_text().splitlines()
        cells = lines[number].split()
        change(cells)
        lines[number] = " ".join(cells)
        path.write_text("\n".join(lines))

    return damage


def gone(path):
    path.unlink()


MAT = "AFW/AFW_3_1_0.mat"
POINTS = "train/landmarks/train003_0.txt"
LIST = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
MISTAKES = {
    "a short row": ("wflw", "txt", LIST, line(1, lambda c: c.pop()), "line 2 has 206 entries"),
    "no number": ("wflw", "txt", LIST, line(1, lambda c: c.__setitem__(3, "1_0")), "line 2: y of point 1 is '1_0'"),
    "not finite": ("wflw", "txt", LIST, line(0, lambda c: c.__setitem__(2, "nan")), "line 1: x of point 1 is 'nan'"),
    "no attribute": ("wflw", "txt", LIST, line(0, lambda c: c.__setitem__(200, "7")), "line 1: an attribute is 0 or 1"),
    "no photograph": (
        "wflw", "txt", "WFLW_images/1--Parade/1_Parade_train_3.jpg", gone, "_Parade_train_3.jpg' is not there",
    ),
    "out of the folder": ("wflw", "txt", LIST, line(0, lambda c: c.__setitem__(-1, "../x.jpg")), "no path within"),
    "another count": ("lapa", "txt", POINTS, line(0, lambda c: c.__setitem__(0, "68")), "106"),
    "cut short": (
        "lapa", "txt", POINTS, lambda p: p.write_text(p.read_text()[:900]), "LaPa's have 106",
    ),
    "no .mat": ("w300lp", "mat", MAT, gone, "there is no"),
    "a broken .mat": ("w300lp", "mat", MAT, lambda p: p.write_bytes(b"MATLAB 5.0 MAT"), "no .mat of 300W"),
    "columns missing": (
        "aflw", "csv", "face_landmarks_aflw_train.csv",
        lambda p: p.write_text(p.read_text().replace("original_18_y", "y")), "columns for 18 points",
    ),
    "a short json": (
        "cofw", "json", "annotations/cofw_train.json",
        lambda p: p.write_text(json.dumps(shorter(json.loads(p.read_text())))), "28 points, and there are to be 29",
    ),
}  # fmt: skip


def shorter(content):
    del content["annotations"][1]["keypoints"][-3:]
    return content


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_named(trees, tmp_path, what):
    name, form, file, damage, said = MISTAKES[what]
    root = tmp_path / "tree"
    shutil.copytree(trees(name, form)[0], root)
    damage(root / file)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        source_of(name, root).faces("train")
    if what in ("a short row", "no photograph", "cut short", "no .mat"):
        with pytest.warns(UserWarning, match="1 of 6"):
            assert len(source_of(name, root, "data.on_error=skip").faces("train")) == 5


def test_a_points_matrix_of_another_shape(trees, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(trees("w300lp", "mat")[0], root)
    savemat(root / MAT, {"pt2d": np.zeros((2, 21))})
    with pytest.raises(ValueError, match=r"shape \[2, 21\]"):
        source_of("w300lp", root).faces("train")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.annotations=mat"], "none of auto, txt, json, csv"),
        (["landmarks=ibug68"], "WFLW has 98 points, and the scheme ibug68 has 68"),
        (["data.root=nowhere"], "no WFLW annotations of 'train' under data.root=nowhere"),
    ],
)
def test_settings_that_do_not_fit(trees, overrides, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        source_of("wflw", trees("wflw", "txt")[0], *overrides).faces("train")


def test_cofw_without_its_reader(trees, monkeypatch):
    root, _ = trees("cofw", "mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install 'facelm\[cofw\]'"):
        unpack(root / "COFW_train_color.mat", root)


def test_a_mat_file_that_is_not_cofw_s(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "COFW_train_color.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ValueError, match="is not COFW's file, or is damaged"):
        unpack(path, tmp_path)
    with h5py.File(path, "w") as mat:
        mat["phisTr"] = np.zeros((58, 3))
    with pytest.raises(ValueError, match=r"phisTr has the shape \[3, 58\]"):
        unpack(path, tmp_path)
    assert not (tmp_path / "annotations").exists()
