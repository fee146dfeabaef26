"""`facelm check`: what is said of good, doubtful and unusable faces, and the sheet of them."""

import cv2
import numpy as np
import pytest

from facelm.cli import main
from facelm.data.plausible import doubt
from w300_tree import pts_text, some_landmarks, write_image, write_json, write_tree


def exchanged_eyes(points):
    return np.vstack([points[:36], points[42:48], points[36:42], points[48:]])


def astray(points):
    return np.vstack([points[:30], [[2.0, 2.0]], points[31:]])


def on_its_side(points):
    return np.column_stack([95 - points[:, 1], points[:, 0]])


def check(*arguments) -> int:
    return main(["check", *map(str, arguments)])


@pytest.fixture
def tree(tmp_path):
    """Ten good faces; `spoil(name, change)` replaces the points of one."""
    faces = write_tree(tmp_path / "data", [f"afw/{number}" for number in range(10)])

    def spoil(name, change):
        (tmp_path / f"data/{name}.pts").write_text(pts_text(change(faces[name])))
        return tmp_path / "data"

    return spoil


def test_good_faces(tree, tmp_path, capsys):
    root = tree("afw/1", lambda points: points)
    assert check(root, "--out", tmp_path / "sheet.png") == 0
    assert "train: 10 faces can be used, 0 are refused, 0 are in doubt" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [(exchanged_eyes, "two parts exchanged"), (astray, "point 30 lies"), (on_its_side, "tilted by")],
)
def test_doubtful_faces_are_named_and_taken(tree, capsys, change, reason):
    assert check(tree("afw/3", change)) == 0
    told = capsys.readouterr().out
    assert "10 faces can be used, 0 are refused, 1 are in doubt" in told
    assert "in doubt afw/3: " in told
    assert reason in told


def test_refused_faces_and_the_sheet(tree, tmp_path, capsys):
    tree("afw/3", exchanged_eyes)
    tree("afw/4", lambda points: points[:40])
    tree("afw/5", lambda points: points * [1, -1] + [0, 90])
    root = tree("afw/6", lambda points: points)
    (root / "afw/6.jpg").unlink()
    (root / "afw/7.jpg").write_bytes(b"")
    assert check(root, "--out", tmp_path / "sheets/suspects.png", "--columns", 2) == 1
    told = capsys.readouterr().out
    assert "6 faces can be used, 4 are refused, 1 are in doubt" in told  # which is among the 6
    assert all(f"refused afw/{number}: " in told for number in (4, 5, 6, 7))
    sheet = cv2.imread(str(tmp_path / "sheets/suspects.png"))
    assert sheet.shape[1] < 2 * 256 + 30
    assert sheet.shape[0] > 3 * 256


def test_the_sheet_shows_a_face_whose_points_are_one(tree, tmp_path):
    assert check(tree("afw/1", lambda points: 0 * points + 20), "--out", tmp_path / "sheet.png") == 1
    assert (tmp_path / "sheet.png").exists()


def test_photographs_of_one_name(tree, capsys):
    root = tree("afw/1", lambda points: points)
    write_image(root / "afw/1.png")
    assert check(root) == 0
    assert "afw/1: 1.png is used, not 1.jpg" in capsys.readouterr().out


def test_options_are_those_of_training(tmp_path, capsys):
    stored = some_landmarks(1, 0.6, 80.0) - 1
    write_image(tmp_path / "afw/a.jpg")
    write_json(tmp_path / "faces.json", {"afw/a.jpg": stored})
    options = ("--annotations", "json", "--annotations-at", tmp_path / "faces.json", "--first-pixel", 0)
    assert check(tmp_path, *options) == 0
    assert "1 faces can be used" in capsys.readouterr().out


def test_nothing_to_check(tmp_path, capsys):
    assert check(tmp_path / "gone") == 1
    assert "no such folder" in capsys.readouterr().err


def test_plain_faces_raise_no_doubt():
    assert not any(doubt(some_landmarks(seed, 20, 300)) for seed in range(20))
