import re
import warnings

import numpy as np
import pytest

from facelm.data.faces import Face, data_fingerprint
from facelm.data.w300.index import index_faces, present_subsets
from facelm.geometry.boxes import Box
from w300_tree import (
    ALL,
    NAMES,
    pts_text,
    published_box,
    some_landmarks,
    write_csv,
    write_image,
    write_json,
    write_tree,
)

pytestmark = pytest.mark.filterwarnings("ignore:300W is incomplete:UserWarning")


@pytest.fixture
def tree(tmp_path):
    """A root with every folder, and the stored landmarks by name."""
    return tmp_path, write_tree(tmp_path, ALL)


def names(faces):
    return [face.name for face in faces]


class TestFaces:
    def test_what_a_face_holds(self, tree):
        root, stored = tree
        faces = index_faces(root, "train")
        assert names(faces) == NAMES["train"]
        face = faces[2]
        assert (face.folder, face.image) == ("helen/trainset", root / "helen/trainset/5_1.jpg")
        np.testing.assert_array_equal(face.landmarks_image, stored[face.name] - 1)
        assert face.landmarks_image.dtype == np.float64

    @pytest.mark.parametrize("split", list(NAMES))
    def test_splits(self, tree, split):
        assert names(index_faces(tree[0], split)) == NAMES[split]

    def test_root_may_be_text(self, tree):
        assert names(index_faces(str(tree[0]), "challenge")) == NAMES["challenge"]

    @pytest.mark.parametrize("pixel_origin", [0, 1])
    def test_boxes_are_the_published_center_and_scale(self, tree, pixel_origin):
        for face in index_faces(tree[0], "train", pixel_origin=pixel_origin):
            center, scale = published_box(tree[1][face.name])
            assert face.box.center == (center[0] - pixel_origin, center[1] - pixel_origin)
            assert face.box.side / 200 == scale

    def test_two_published_rows(self, tmp_path):
        # the extent and box of 300W test faces 197 and 565 in mmpose's file
        rows = {
            "197": ((268.0, 265.0), (710.702, 741.209), (489.5, 503.5), 2.385),
            "565": ((70.0, 219.0), (595.136, 712.11), (333.0, 466.0), 2.63),
        }
        for name, (low, high, _, _) in rows.items():
            stored = np.clip(some_landmarks(0, 100, 800), low, high)
            stored[0], stored[1] = low, high
            write_image(tmp_path / f"01_Indoor/{name}.png", 960, 845)
            (tmp_path / f"01_Indoor/{name}.pts").write_text(pts_text(stored))
        faces = index_faces(tmp_path, "test", pixel_origin=0)
        assert {face.image.stem: (face.box.center, face.box.side / 200) for face in faces} == {
            name: (center, scale) for name, (_, _, center, scale) in rows.items()
        }


class TestListFile:
    def index(self, root, text, split="train", **options):
        path = root / "list.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return index_faces(root, split, list_file=path, **options)

    def test_restricts(self, tree):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a chosen part is not an incomplete 300W
            faces = self.index(tree[0], "lfpw/trainset/image_0001\nafw/11_2\n")
        assert names(faces) == ["afw/11_2", "lfpw/trainset/image_0001"]

    def test_comments_windows_line_ends_endings(self, tree):
        text = b"\xef\xbb\xbf# mine\r\n\r\nafw/11_2.jpg  # second face\r\nimages/afw/11_1\r\nafw/11_1\r\n"
        assert names(self.index(tree[0], text)) == ["afw/11_1", "afw/11_2"]

    def test_what_is_not_listed_is_not_read(self, tree):
        (tree[0] / "afw/11_1.pts").write_text("broken")
        (tree[0] / "helen/trainset/5_1.jpg").unlink()
        assert names(self.index(tree[0], "afw/11_2")) == ["afw/11_2"]

    def test_what_is_listed_and_broken_is_an_error(self, tree):
        (tree[0] / "afw/11_1.jpg").unlink()
        with pytest.raises(ValueError, match=r"1 of 2 faces of split 'train' cannot be used:\n  afw/11_1: .*not exist"):
            self.index(tree[0], "afw/11_1\nafw/11_2")

    def test_unknown_names_are_all_said(self, tree):
        message = r"list\.txt: 2 of 3 names are no faces of split 'train' on disk: afw/99_1, helen/testset/7_1\. Names"
        with pytest.raises(ValueError, match=message):
            self.index(tree[0], "afw/99_1\nafw/11_1\nhelen/testset/7_1\n")

    def test_absent_and_empty(self, tree):
        with pytest.raises(FileNotFoundError, match=r"no list file .*absent\.txt"):
            index_faces(tree[0], "train", list_file=tree[0] / "absent.txt")
        with pytest.raises(ValueError, match="names no face"):
            self.index(tree[0], "# nothing\n")


class TestNothingThere:
    def test_missing_root(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            index_faces(tmp_path / "300w", "train")
        text = str(caught.value)
        assert text.startswith(f"no 300W images under root='{tmp_path / '300w'}'")
        assert "looked for afw/, helen/trainset/, lfpw/trainset/" in text
        assert "found: no such folder" in text
        for cure in ("https://ibug.doc.ic.ac.uk/resources/300-W/", "data.root=", "FACELM_300W=", "experiment=demo"):
            assert cure in text

    def test_what_is_there_is_said(self, tmp_path):
        write_tree(tmp_path, ["afw/1", "images/helen/trainset/1"])
        with pytest.raises(FileNotFoundError, match=r"for split 'test' .*300W/01_Indoor/ or Test/01_Indoor/"):
            index_faces(tmp_path, "test")
        with pytest.raises(FileNotFoundError, match=r"looked for ibug/,.*found: afw/, helen/trainset/\)"):
            index_faces(tmp_path, "challenge")

    def test_photographs_without_annotations(self, tree):
        for path in (tree[0] / "ibug").glob("*.pts"):
            path.unlink()
        with pytest.raises(ValueError, match=r"no usable face of split 'challenge'.*\.pts.*data\.annotations=json"):
            index_faces(tree[0], "challenge")

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"split": "valid"}, "split='valid' is none of train, common, challenge, full, test"),
            ({"annotations": "xml"}, "data.annotations='xml' is none of pts, json, csv"),
            ({"on_error": "ignore"}, "data.on_error='ignore' is none of raise, skip"),
            ({"pixel_origin": 2}, "data.pixel_origin=2 is none of 0, 1"),
        ],
    )
    def test_unknown_choices(self, tree, choice, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            index_faces(tree[0], **{"split": "train", **choice})


class TestIncomplete:
    @pytest.mark.filterwarnings("default:300W is incomplete:UserWarning")
    def test_table(self, tree):
        with pytest.warns(UserWarning, match="300W is incomplete under root=") as caught:
            index_faces(tree[0], "train")
        rows = [line.split() for line in str(caught[0].message).splitlines()[1:]]
        assert rows[1:] == [
            ["afw", "2", "337"],
            ["helen/trainset", "1", "2,000"],
            ["lfpw/trainset", "1", "811"],
            ["train", "4", "3,148"],
        ]

    def test_all_faces_are_no_warning(self, tmp_path, monkeypatch):
        write_tree(tmp_path, ["ibug/1", "ibug/2"])
        monkeypatch.setattr("facelm.data.w300.index.FOLDER_COUNTS", {"ibug": 2})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(index_faces(tmp_path, "challenge")) == 2


def _break(root):
    """One of every kind of unusable face in afw/; what the message must say of each, by name."""
    afw = root / "afw"
    good = some_landmarks(3)
    one_eye = good.copy()
    one_eye[45] = one_eye[36]
    broken = {
        "p67": (pts_text(good[:67]), "67 points, 300W has 68"),
        "letters": (pts_text(good).replace(str(good[9, 0]), "x12"), "'x12', not a number"),
        "nan": (pts_text(good).replace(str(good[9, 0]), "nan"), "not finite"),
        "braces": (pts_text(good).replace("{", ""), "no points between braces"),
        "empty_pts": ("", "no points between braces"),
        "one_eye": (pts_text(one_eye), "both outer eye corners are one point"),
        "truncated": (pts_text(good), "the image is truncated"),
        "empty": (pts_text(good), "the image file is empty"),
        "absent": (pts_text(good), "the image does not exist"),
        "small": (pts_text(good), r"lies far outside the 50x45 pixels"),
    }
    for name, (text, _) in broken.items():
        (afw / f"{name}.pts").write_text(text)
        write_image(afw / f"{name}.jpg")
    (afw / "truncated.jpg").write_bytes((afw / "truncated.jpg").read_bytes()[:-500])
    (afw / "empty.jpg").write_bytes(b"")
    (afw / "absent.jpg").unlink()
    write_image(afw / "small.jpg", 50, 45)
    return {f"afw/{name}": message for name, (_, message) in broken.items()}


class TestBadFaces:
    def test_all_are_listed_at_once(self, tree):
        broken = _break(tree[0])
        with pytest.raises(ValueError, match=r"^10 of 14 faces of split 'train' cannot be used:\n") as caught:
            index_faces(tree[0], "train")
        listed = dict(line.strip().split(": ", 1) for line in str(caught.value).splitlines()[1:-1])
        assert list(listed) == sorted(broken)
        for name, message in broken.items():
            assert re.search(message, listed[name]), listed[name]
            assert str(tree[0] / name) in listed[name]
        assert "data.on_error=skip" in str(caught.value).splitlines()[-1]

    def test_skip_lists_and_leaves_them_out(self, tree):
        broken = _break(tree[0])
        with pytest.warns(UserWarning, match="cannot be used") as caught:
            faces = index_faces(tree[0], "train", on_error="skip")
        assert names(faces) == NAMES["train"]
        text = str(caught[0].message)
        assert all(f"  {name}: " in text for name in broken)

    def test_damage_in_the_middle_is_skipped_too(self, tmp_path):
        """Header and end are whole."""
        write_tree(tmp_path, ["afw/1", "afw/2"], ".png")
        damaged = tmp_path / "afw/2.png"
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
        damaged.write_bytes(content)
        assert names(index_faces(tmp_path, "train")) == ["afw/1", "afw/2"]
        with pytest.warns(UserWarning, match="afw/2: .*is damaged"):
            assert names(index_faces(tmp_path, "train", on_error="skip")) == ["afw/1"]

    def test_nothing_left_after_skipping(self, tree):
        (tree[0] / "ibug/image_003_1.jpg").write_bytes(b"")
        with (
            pytest.warns(UserWarning, match="left out"),
            pytest.raises(ValueError, match=r"image file is empty(.|\n)*no usable face of split 'challenge'"),
        ):
            index_faces(tree[0], "challenge", on_error="skip")

    def test_images_need_not_be_checked(self, tree):
        (tree[0] / "ibug/image_003_1.jpg").write_bytes(b"")
        assert names(index_faces(tree[0], "challenge", check_images=False)) == NAMES["challenge"]

    @pytest.mark.parametrize(
        ("shift", "accepted"),
        [(0, True), (-25, True), ((-45, 0), False), ((0, -45), False), ((45, 0), False), ((0, 45), False)],
    )
    def test_landmarks_a_little_outside_are_real(self, tmp_path, shift, accepted):
        # 20..75 in a picture of 100 x 90: the margin is a quarter of 55
        write_tree(tmp_path, ["ibug/1"])
        (tmp_path / "ibug/1.pts").write_text(pts_text(some_landmarks(0) + shift))
        if accepted:
            assert len(index_faces(tmp_path, "challenge")) == 1
        else:
            with pytest.raises(ValueError, match="far outside the 100x90 pixels; is the image resized"):
                index_faces(tmp_path, "challenge")


class TestPresentSubsets:
    @pytest.mark.parametrize(
        ("present", "subsets"),
        [
            ([], []),
            (["afw/1"], []),
            (["helen/testset/1"], ["common"]),
            (["lfpw/testset/1", "images/ibug/1"], ["common", "challenge", "full"]),
            (["Test/01_Indoor/1"], ["test"]),
            (ALL, ["common", "challenge", "full", "test"]),
        ],
    )
    def test_by_folders(self, tmp_path, present, subsets):
        write_tree(tmp_path, present)
        assert present_subsets(tmp_path) == subsets


class TestFingerprint:
    def test_names_and_landmarks_count_and_order_does_not(self, tree):
        faces = index_faces(tree[0], "train")
        fingerprint = data_fingerprint(faces)
        assert re.fullmatch("[0-9a-f]{12}", fingerprint)
        assert data_fingerprint(reversed(faces)) == fingerprint

        def variant(**change):
            first = faces[0]
            values = {field: getattr(first, field) for field in ("name", "image", "landmarks_image", "box", "folder")}
            return data_fingerprint([Face(**{**values, **change}), *faces[1:]])

        moved = faces[0].landmarks_image.copy()
        moved[67, 1] += 1e-9
        assert variant() == fingerprint
        assert len({fingerprint, variant(name="afw/other"), variant(landmarks_image=moved)}) == 3
        assert data_fingerprint(faces[1:]) != fingerprint

    def test_is_the_same_on_every_machine(self):
        face = Face("afw/1", None, np.arange(136.0).reshape(68, 2), Box((0.0, 0.0), 1.0), "afw")
        assert data_fingerprint([face]) == "862861466656"


@pytest.mark.parametrize("kind", ["pts", "json", "csv"])
@pytest.mark.parametrize("pixel_origin", [0, 1])
def test_numbers_that_start_at_0_are_the_same_points(tmp_path, kind, pixel_origin):
    """What a file calls its first pixel is the file's affair alone, whatever the network is to give."""
    found = []
    for first_pixel in (1, 0):
        root = tmp_path / str(first_pixel)
        stored = {name: points - 1 + first_pixel for name, points in write_tree(root, ["afw/a"]).items()}
        (root / "afw/a.pts").write_text(pts_text(stored["afw/a"]))
        write_json(root / "face_landmarks_300w_train.json", {"afw/a.jpg": stored["afw/a"]})
        write_csv(root / "face_landmarks_300w_train.csv", {"afw/a.jpg": stored["afw/a"]})
        options = {"annotations": kind, "pixel_origin": pixel_origin, "first_pixel": first_pixel}
        found += index_faces(root, "train", **options)
    np.testing.assert_allclose(found[1].landmarks_image, found[0].landmarks_image, atol=1e-9)
    assert found[0].box == found[1].box


def test_a_first_pixel_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="data.first_pixel=2 is none of 0, 1"):
        index_faces(tmp_path, "train", first_pixel=2)
