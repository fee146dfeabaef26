"""`facelm check`: what is said of good, doubtful and unusable faces, and the sheet of them."""

import shutil

import cv2
import numpy as np
import pytest
import yaml

from facelm.cli import main
from facelm.data.plausible import doubt
from facelm.data.suspicious import doubts
from facelm.data.w300.annotations import write_pts
from facelm.data.w300.index import index_faces
from facelm.geometry.landmarks import get_scheme
from own_data import SCHEME, coco, photographs, write_coco
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
    assert sheet.shape[1] < 2 * 384 + 30
    assert sheet.shape[0] > 3 * 384


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


@pytest.mark.parametrize("option", ["--train", "--split-column"])
def test_options_of_one_s_own_faces_need_their_points(tmp_path, capsys, option):
    assert check(tmp_path, option, "x.json") == 1
    assert f"{option} is about faces of your own: --landmarks" in capsys.readouterr().err


def test_nothing_to_check(tmp_path, capsys):
    assert check(tmp_path / "gone") == 1
    assert "no such folder" in capsys.readouterr().err


def test_plain_faces_raise_no_doubt():
    assert not any(doubt(some_landmarks(seed, 20, 300)) for seed in range(20))


@pytest.fixture
def mine(drawn_root, tmp_path):
    """(folder, content of a COCO file, what checks it): 12 photographs with 20 points each."""
    faces = photographs(drawn_root, tmp_path / "photos")
    content = coco(faces, tmp_path / "photos")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SCHEME))

    def checked(*options):
        write_coco(tmp_path / "faces.json", content)
        how = ("--landmarks", tmp_path / "mine.yaml", "--train", tmp_path / "faces.json")
        return check(tmp_path / "photos", *how, *options)

    return tmp_path, content["annotations"], checked


def test_one_s_own_faces(mine, capsys):
    folder, annotations, checked = mine
    assert checked("--out", folder / "sheet.png") == 0
    assert "12 faces can be used, 0 are refused, 0 are in doubt" in capsys.readouterr().out
    eyes = [annotations[2]["keypoints"][3 * i : 3 * i + 3] for i in (10, 13)]
    annotations[2]["keypoints"][30:33], annotations[2]["keypoints"][39:42] = eyes[1], eyes[0]
    annotations[4]["keypoints"][21] += 70  # the nose tip
    annotations[4]["keypoints"][0:3] = [0, 0, 0]
    annotations[6]["keypoints"] = [0.5, 0.5, 2] * 20
    assert checked("--out", folder / "sheet.png") == 1
    told = capsys.readouterr().out
    assert "11 faces can be used, 1 are refused, 2 are in doubt" in told
    assert "with points 10 and 13 exchanged" in told
    assert "point 7 (nose_tip)" in told
    sheet = cv2.imread(str(folder / "sheet.png"))
    assert sheet.shape[1] > 3 * 384


def test_the_sheet_numbers_the_points(tree, tmp_path, monkeypatch):
    """As the reasons name them: without the numbers the sheet is another picture."""
    root = tree("afw/3", exchanged_eyes)
    check(root, "--out", tmp_path / "with.png")
    monkeypatch.setattr("facelm.evaluation.overlay._draw_numbers", lambda *_: None)
    check(root, "--out", tmp_path / "without.png")
    numbered, bare = (cv2.imread(str(tmp_path / name)).astype(int) for name in ("with.png", "without.png"))
    assert (abs(numbered - bare).max(axis=2) > 100).sum() > 68 * 5  # some dark or white pixels for each number


def test_few_faces_are_compared_with_the_scheme_s_shape():
    plain = np.array(get_scheme("ibug68").shape)
    moved = plain.copy()
    moved[30, 0] += 150
    assert list(doubts([100 + 3 * plain, moved], get_scheme("ibug68"))) == [1]
    assert doubts([moved], get_scheme({"name": "x", "points": 68, "normaliser": "box"})) == {}


def changed(image):
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    packed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    bright = np.clip(image * 1.25 + 5, 0, 255).astype(np.uint8)
    return {"half.png": half, "packed.png": packed, "bright.png": bright}


def test_photographs_that_are_in_both_folders(drawn_root, tmp_path, capsys):
    paths = sorted(drawn_root.rglob("*.jpg"))
    (tmp_path / "copies").mkdir()
    for name, image in changed(cv2.imread(str(paths[0]))).items():
        cv2.imwrite(str(tmp_path / "copies" / name), image)
    assert check(drawn_root, tmp_path / "copies") == 1
    told = capsys.readouterr().out
    assert "3 photographs of" in told
    assert all(f"{name} is {paths[0]}" in told for name in ("half.png", "packed.png", "bright.png"))
    (tmp_path / "others").mkdir()
    for path in paths[1:]:
        shutil.copy(path, tmp_path / "others" / f"{path.parent.name}_{path.name}")
    shutil.copy(paths[0], tmp_path / "one.jpg")
    (tmp_path / "one").mkdir()
    shutil.move(tmp_path / "one.jpg", tmp_path / "one" / "one.jpg")
    assert check(tmp_path / "one", tmp_path / "others") == 0
    assert check(tmp_path / "one", tmp_path / "gone") == 1


def test_a_face_that_was_cropped_out_is_found_by_its_points(drawn_root, tmp_path, capsys):
    """As 300W-LP has crops of 300W's photographs."""
    face = index_faces(drawn_root, "train")[0]
    image, (left, top) = cv2.imread(str(face.image)), np.floor(face.landmarks_image.min(axis=0)).astype(int) - 8
    cut = tmp_path / "crops" / "cut.png"
    cut.parent.mkdir()
    left, top = max(left, 0), max(top, 0)
    cv2.imwrite(str(cut), image[top:, left:])
    assert check(drawn_root, cut.parent) == 0
    write_pts(cut.with_suffix(".pts"), face.landmarks_image - (left, top))
    assert check(drawn_root, cut.parent) == 1
    assert f"cut.png is {face.image}" in capsys.readouterr().out
