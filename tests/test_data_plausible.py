"""Points that are no face, those that are worth a look, and who is told of them."""

import re
from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest

from facelm.data.own import OwnFaces
from facelm.data.plausible import UNLIKE_A_FACE, check_shape, doubt, doubts, unlike_a_face
from facelm.data.synthetic.folder import MARKER
from facelm.data.w300.index import index_faces
from facelm.geometry.landmarks import IBUG68, get_scheme
from w300_tree import pts_text, some_landmarks, write_tree

FACE = some_landmarks(3, 100, 300)


def reversed_jaw(points):
    return np.vstack([points[16::-1], points[17:]])


NONSENSE = {
    "axes exchanged": (lambda points: points[:, ::-1], "mirrored"),
    "y from below": (lambda points: points * [1, -1] + [0, 400], "mirrored"),
    "mirrored": (lambda points: points * [-1, 1] + [400, 0], "mirrored"),
    "jaw reversed": (reversed_jaw, "another order"),
    "shuffled": (lambda points: np.random.default_rng(0).permutation(points), "another order"),
    "one point": (lambda points: points * 0 + 5, "another order"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_with_its_cause(what):
    spoil, cause = NONSENSE[what]
    with pytest.raises(ValueError, match=rf"a\.pts: .*no face.*{cause}"):
        check_shape(spoil(FACE), "a.pts")


@pytest.mark.parametrize("degrees", [0, 45, 90, 180])
def test_a_face_turned_moved_and_scaled_is_one(degrees):
    turn = np.radians(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    assert unlike_a_face(3 * FACE @ matrix.T + 1000) < UNLIKE_A_FACE / 4


TURNED_ROUND = {
    "outer mouth": (48, 60, lambda part: np.roll(part, 6)),
    "inner mouth": (60, 68, lambda part: np.roll(part, 4)),
    "whole mouth": (48, 68, lambda part: part[::-1]),
    "an eye": (36, 42, lambda part: np.roll(part, 3)),
    "nose bridge": (27, 31, lambda part: part[::-1]),
    "a brow": (22, 27, lambda part: part[::-1]),
}


@pytest.mark.parametrize("what", TURNED_ROUND)
def test_a_part_in_another_order_is_in_doubt(what):
    first, end, change = TURNED_ROUND[what]
    order = np.arange(68)
    order[first:end] = change(order[first:end])
    check_shape(FACE[order], "a.pts")
    assert doubt(FACE) == ""
    assert re.search(r"points \d+ to \d+ do not run as on a face", doubt(FACE[order]))


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", ["wflw98", "cofw29", "aflw19", "lapa106", "ibug68"])
class TestEveryScheme:
    def points(self, scheme, hidden):
        points = 3 * np.array(scheme.shape) + np.random.default_rng(0).normal(200, 3, (scheme.num_landmarks, 2))
        points[:: 5 if hidden else 1000] = np.nan if hidden else points[0]
        return points

    @pytest.mark.parametrize("what", ["axes exchanged", "y from below", "mirrored", "shuffled"])
    def test_nonsense_is_refused(self, name, hidden, what):
        scheme, (spoil, cause) = get_scheme(name), NONSENSE[what]
        points = self.points(scheme, hidden)
        check_shape(points, "a", scheme)
        with pytest.raises(ValueError, match=cause):
            check_shape(spoil(points), "a", scheme)


@pytest.mark.parametrize("name", ["wflw98", "cofw29", "aflw19", "lapa106", "ibug68"])
def test_the_last_part_of_every_scheme_begun_half_way_round_is_in_doubt(name):
    scheme = get_scheme(name)
    points = 3 * np.array(scheme.shape) + 200
    assert doubt(points, scheme) == ""
    part = list(dict.fromkeys(scheme.contours[-1]))
    closed = len(part) < len(scheme.contours[-1])
    points[part] = np.roll(points[part], len(part) // 2, axis=0) if closed else points[part][::-1]
    assert "do not run as on a face" in doubt(points, scheme)


def test_a_scheme_without_a_plain_face_has_nothing_to_compare_with():
    scheme = replace(IBUG68, shape=())
    check_shape(reversed_jaw(FACE), "a", scheme)
    assert doubt(reversed_jaw(FACE), scheme) == ""


def test_doubtful_faces_are_told_where_they_train(tmp_path, caplog):
    stored = write_tree(tmp_path, ["afw/1", "afw/2"])
    mixed = stored["afw/1"].copy()
    mixed[36:48] = np.roll(mixed[36:48], 6, axis=0)
    (tmp_path / "afw/1.pts").write_text(pts_text(mixed))
    assert len(index_faces(tmp_path, "train")) == 2
    assert "1 faces are taken, but worth a look:\n  afw/1: " in caplog.text
    own = OwnFaces(tmp_path, IBUG68, {"train": None})
    caplog.clear()
    assert len(own.faces("train")) == 2
    assert "1 faces are taken, but worth a look:\n  afw/1: " in caplog.text


def test_own_faces_of_another_scheme_are_judged_too(tmp_path):
    scheme = get_scheme("cofw29")
    points = 2 * np.array(scheme.shape) + 250
    write_tree(tmp_path, ["afw/1"])
    (picture,) = tmp_path.rglob("1.*g")
    cv2.imwrite(str(picture), np.zeros((500, 500, 3), np.uint8))
    names = ",".join(f"x{i},y{i}" for i in range(29))
    forgotten = np.where(np.arange(29)[:, None] == 3, -1.0, points)
    for written, said in ((points, ""), (points[:, ::-1], "mirrored"), (forgotten, "point 3 at .* nobody placed")):
        numbers = ",".join(map(str, written.ravel().tolist()))
        (tmp_path / "faces.csv").write_text(f"image,{names}\n{picture.relative_to(tmp_path)},{numbers}\n")
        source = OwnFaces(tmp_path, scheme, {"train": "faces.csv"})
        with pytest.raises(ValueError, match=said) if said else nullcontext():
            assert len(source.faces("train")) == 1


def test_indexing_lists_and_skips_them(tmp_path):
    stored = write_tree(tmp_path, ["afw/1", "afw/2", "afw/3"])
    for name in ("afw/1", "afw/3"):
        (tmp_path / f"{name}.pts").write_text(pts_text(reversed_jaw(stored[name])))
    with pytest.raises(ValueError, match=r"2 of 3 faces (.|\n)*afw/1: .*no face(.|\n)*afw/3: .*no face"):
        index_faces(tmp_path, "train")
    with pytest.warns(UserWarning, match="left out"):
        assert [face.name for face in index_faces(tmp_path, "train", on_error="skip")] == ["afw/2"]


def test_drawn_faces_are_never_refused(tmp_path):
    stored = write_tree(tmp_path, ["afw/1"])
    (tmp_path / "afw/1.pts").write_text(pts_text(reversed_jaw(stored["afw/1"])))
    (tmp_path / MARKER).touch()
    assert len(index_faces(tmp_path, "train")) == 1


def test_doubts_of_many_faces_are_those_of_each():
    """Told at once for whole arrays, by each rule, near the limits too, and where points are not labelled."""
    rng = np.random.default_rng(0)
    plain = np.array(IBUG68.shape, np.float64)
    spread = np.sqrt(((plain - plain.mean(0)) ** 2).sum(1).mean())
    faces = [plain + rng.normal(0, share * spread, (68, 2)) for share in np.linspace(0, 0.5, 60)]
    for angle in np.radians(np.linspace(40, 80, 40)):
        faces.append(plain @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))
    for share in np.linspace(0, 2, 60):
        astray = plain.copy()
        astray[int(rng.integers(68)), 0] += share * spread
        faces.append(astray)
    for contour in IBUG68.contours:
        for step in (1, 2, 3):
            turned = plain.copy()
            turned[list(contour)] = np.roll(plain[list(contour)], step, axis=0)
            faces.append(turned)
    unlabelled = [face.copy() for face in faces[::7]]
    for face in unlabelled:
        face[3] = np.nan
    faces += [*unlabelled, np.zeros((68, 2))]
    expected = {row: why for row, face in enumerate(faces) if (why := doubt(face))}
    assert doubts(np.array(faces)) == expected
    assert 30 < len(expected) < len(faces) - 30
