import numpy as np
import pytest

from facelm.data.plausible import UNLIKE_A_FACE, check_shape, unlike_a_face
from facelm.data.synthetic.folder import MARKER
from facelm.data.w300.index import index_faces
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
