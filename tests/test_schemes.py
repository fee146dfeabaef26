"""Landmark schemes as data: the files that come with facelm, one's own, and what is wrong with one."""

import numpy as np
import pytest
import yaml

from facelm.geometry.landmarks import get_scheme, interocular, interpupil, plain_scheme
from facelm.geometry.schemes import FOLDER, known_schemes

MINE = {
    "name": "mine5",
    "points": ["left eye", "right eye", "nose", "mouth left", "mouth right"],
    "mirror": [[0, 1], [3, 4]],
    "regions": {"eyes": ["0-1"], "rest": [2, "3-4"]},
    "outer_eyes": [0, 1],
    "contours": [[3, 4]],
}


@pytest.mark.parametrize("name", known_schemes())
def test_those_that_come_with_facelm(name):
    scheme = get_scheme(name)
    assert scheme.name == name
    assert get_scheme(plain_scheme(scheme)) == scheme, "what a checkpoint keeps gives the scheme again"
    assert str(scheme.num_landmarks) in name
    left, right = scheme.eyes
    assert {scheme.mirror[i] for i in left} == set(right)


def test_one_s_own_from_a_file_by_any_name(tmp_path):
    path = tmp_path / "mine of 5.yaml"
    path.write_text(yaml.safe_dump(MINE))
    for source in (path, str(path), {"file": str(path)}, MINE):
        scheme = get_scheme(source)
        assert scheme.mirror == (1, 0, 2, 4, 3)
        assert scheme.names[2] == "nose"
        assert scheme.regions == {"eyes": (0, 1), "rest": (2, 3, 4)}


def test_the_least_that_a_scheme_says():
    scheme = get_scheme({"name": "x", "points": 3, "normaliser": "box"})
    assert scheme.mirror == (0, 1, 2)
    assert scheme.regions == {"all": (0, 1, 2)}
    assert np.isnan(interocular(np.zeros((2, 3, 2)), scheme)).all()
    assert np.isnan(interpupil(np.zeros((2, 3, 2)), scheme)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mirror": [[0, 1], [1, 2]]}, "in one pair: see 1"),
        ({"mirror": [[0, 0]]}, "different points"),
        ({"mirror": [[0, 5]]}, "names point 5, and there are 5"),
        ({"mirror": 5}, "mirror is a list"),
        ({"regions": {"a": ["0-3"]}}, "leave out: 4"),
        ({"regions": {"a": ["0-5"]}}, "name points that the scheme has not: 5"),
        ({"regions": {"a": ["0-4", 2]}}, "name twice: 2"),
        ({"outer_eyes": [2, 2]}, "one point"),
        ({"outer_eyes": [0, 2]}, "mirror image"),
        ({"outer_eyes": None}, "needs outer_eyes"),
        ({"normaliser": "interpupil"}, "needs eyes"),
        ({"normaliser": "x"}, "interocular, interpupil, box"),
        ({"eyes": [[0], [0]]}, "different points"),
        ({"contours": [[7]]}, "out of range: 7"),
        (
            {
                "normaliser": "box",
                "points": ["a", "a"],
                "mirror": [],
                "regions": None,
                "contours": [],
                "outer_eyes": [],
            },
            "2 different ones",
        ),
        ({"points": 10**9}, "from 1 to 10000"),
        ({"points": True}, "points is"),
        ({"name": None}, "without `name`"),
        ({"mirrors": []}, "unknown entries: 'mirrors'"),
    ],
)
def test_each_mistake_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        get_scheme({**MINE, **change})


@pytest.mark.parametrize("content", ["[", "- 1", "name: x", "a: &a [*a]", "\x00"])
def test_a_file_that_is_none_names_itself(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        get_scheme(path)


def test_every_file_is_a_scheme():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*known_schemes()}
