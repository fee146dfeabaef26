"""Published data sets: the same faces from every form in which they come, and what is wrong with such files."""

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import compose
from facelm.data.cofw import unpack
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import get_scheme
from facelm.launch.build import build_data
from published_trees import COUNTS, FORMS, SPLITS, size_of, tight, write_tree


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
    there = [split for split in SPLITS.get(name, ("train", "test")) if form != "mat" or name != "w300lp" or split == "train"]
    assert sorted(source.subsets()) == sorted(split for split in there if split != "train")
    for split in there:
        found = {face.name: face for face in source.faces(split)}
        ordered = sorted(splits[split], key=lambda one: box_from_landmarks(one.points).center[0])
        assert len(found) == len(splits[split])
        for drawn in splits[split]:
            same = [one for one in ordered if one.image == drawn.image]
            number = same.index(drawn) + 1
            face = found[Path(drawn.image).stem + (f":{number}" if number > 1 else "")]
            assert np.allclose(face.landmarks_image, drawn.points, atol=1e-9)
            left, top, width, height = tight(drawn.points)
            expected = drawn.box if name in ("wflw", "aflw") else cut([left, top, left + width, top + height], drawn)
            assert np.allclose([*face.box.center, face.box.side], [*expected], atol=1e-9) if isinstance(
                expected, list
            ) else np.allclose([*face.box.center, face.box.side], [*expected.center, expected.side], atol=1e-9)
            assert face.subsets == drawn.subsets
            if name == "cofw":
                assert (face.occluded == drawn.hidden).all()
            assert face.read().shape[1::-1] == size_of(drawn)


def cut(xyxy, drawn):
    """Centre and side of mmpose's box: the rectangle cut at the photograph's edge."""
    width, height = size_of(drawn)
    left, top, right, bottom = np.clip(xyxy, 0, [width - 1, height - 1] * 2)
    return [(left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)]
