"""`facelm landmarks`: what a scheme's points are, and a scheme from an annotation file."""

import cv2
import numpy as np
import pytest

from facelm.cli import main as facelm
from facelm.geometry.inferred import has_side, infer_scheme, mirror_name, region_of
from facelm.geometry.landmarks import get_scheme
from facelm.geometry.schemes import known_schemes
from own_data import MIRROR, NAMES, SCHEME, coco, photographs, write_coco


@pytest.mark.parametrize("name", known_schemes())
def test_every_scheme_has_a_list_and_a_picture(name, tmp_path, capsys):
    assert facelm(["landmarks", name, "--out", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out.splitlines()
    scheme = get_scheme(name)
    assert len(printed) == 2 + scheme.num_landmarks
    picture = cv2.imread(str(tmp_path / "x.png"))
    for region in ((picture == (200, 90, 30)).all(-1), (picture == (30, 60, 200)).all(-1)):
        assert region.any(), "both sides are drawn"
    places = np.array(scheme.shape)
    turned = places[list(scheme.mirror)] * [-1, 1]
    assert np.abs(places - turned).max() <= 1, "a plain face is its own mirror image"


def test_all_are_listed(capsys):
    assert facelm(["landmarks"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == known_schemes()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_eye", "right_eye"),
        ("Right Eye outer", "Left Eye outer"),
        ("EYE_LEFT", "EYE_RIGHT"),
        ("leftEye", "rightEye"),
        ("eye_l", "eye_r"),
        ("L-brow", "R-brow"),
    ],
)
def test_partners_by_name(name, other):
    assert mirror_name(name, {name, other, "nose"}) == other
    assert has_side(name)


@pytest.mark.parametrize("name", ["nose", "chin", "lower lip", "eyelid", "point 3"])
def test_names_without_a_side(name):
    assert not has_side(name)
    assert mirror_name(name, {name, "chin", "nose"}) is None


@pytest.mark.parametrize(("name", "region"), [("left_eyebrow", "brows"), ("upper lip", "mouth"), ("ear", "other")])
def test_regions_by_name(name, region):
    assert region_of(name) == region


def test_outer_eyes_are_put_in_the_image_s_order_and_single_ones_are_told():
    """Tools say left of the person or of the picture; where the points lie decides."""
    names = ["left_eye_outer", "right_eye_outer", "left_ear"]
    plain, alone = infer_scheme("x", names, [], np.array([[9.0, 0], [1, 0], [10, 5]]))
    assert plain["outer_eyes"] == [1, 0]
    assert alone == ["left_ear"]
    assert infer_scheme("x", ["nose"], [], np.zeros((1, 2)))[0]["normaliser"] == "box"


def test_infer_gives_a_scheme_that_reads_the_file(drawn_root, tmp_path, capsys):
    faces = photographs(drawn_root, tmp_path / "photos", count=3)
    annotations = write_coco(tmp_path / "faces.json", coco(faces, tmp_path / "photos", hidden={(0, 3)}))
    out = tmp_path / "mine.yaml"
    assert facelm(["landmarks", "infer", str(annotations), "--out", str(out)]) == 0
    scheme = get_scheme(out)
    assert scheme.names == tuple(NAMES)
    assert [[i, partner] for i, partner in enumerate(scheme.mirror) if i < partner] == MIRROR
    assert scheme.outer_eyes == tuple(SCHEME["outer_eyes"])
    assert (tmp_path / "mine.png").is_file()
    assert facelm(["landmarks", "infer", str(annotations), "--out", str(out)]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_names_that_are_other_numbers_are_told(drawn_root, tmp_path, capsys):
    faces = photographs(drawn_root, tmp_path / "photos", count=2)
    annotations = write_coco(
        tmp_path / "cvat.json", coco(faces, tmp_path / "photos", names=[str(i) for i in range(1, 21)])
    )
    assert facelm(["landmarks", "infer", str(annotations), "--out", str(tmp_path / "mine.yaml")]) == 0
    assert "the point called 1 is 0" in capsys.readouterr().out


def test_a_file_without_names_says_what_nobody_knows(drawn_root, tmp_path, capsys):
    faces = photographs(drawn_root, tmp_path / "photos", count=2)
    content = coco(faces, tmp_path / "photos")
    content["categories"][0]["keypoints"] = []
    annotations = write_coco(tmp_path / "faces.json", content)
    assert facelm(["landmarks", "infer", str(annotations), "--out", str(tmp_path / "mine.yaml")]) == 0
    assert "guessed" in capsys.readouterr().out
    assert get_scheme(tmp_path / "mine.yaml").num_landmarks == 20
