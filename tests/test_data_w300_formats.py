import json
import re

import numpy as np
import pytest

from facelm.data.w300.index import index_faces
from w300_tree import ALL, NAMES, WRITERS, write_tree

pytestmark = pytest.mark.filterwarnings("ignore:300W is incomplete:UserWarning")


@pytest.fixture
def tree(tmp_path):
    """A root with every folder, and the stored landmarks by name."""
    return tmp_path, write_tree(tmp_path, ALL)


def names(faces):
    return [face.name for face in faces]


@pytest.mark.parametrize("kind", ["json", "csv"])
class TestAnnotationFiles:
    def write(self, root, stored, kind, part, split, ending=".jpg", top=""):
        faces = {f"{top}{name}{ending}": stored[name] for name in NAMES[split]}
        return WRITERS[kind](root / f"annotations/face_landmarks_300w_{part}.{kind}", faces)

    def same(self, faces, others):
        assert names(faces) == names(others)
        for one, other in zip(faces, others, strict=True):
            assert (one.image, one.box, one.folder) == (other.image, other.box, other.folder)
            np.testing.assert_array_equal(one.landmarks_image, other.landmarks_image)

    @pytest.mark.parametrize("pixel_origin", [0, 1])
    def test_same_faces_as_the_pts(self, tree, kind, pixel_origin):
        root, stored = tree
        parts = {"train": "train", "common": "valid_common", "challenge": "valid_challenge", "full": "valid"}
        for split, part in {**parts, "test": "test"}.items():
            self.write(root, stored, kind, part, split)
            from_pts = index_faces(root, split, pixel_origin=pixel_origin)
            self.same(index_faces(root, split, annotations=kind, pixel_origin=pixel_origin), from_pts)

    def test_without_any_pts(self, tree, kind):
        root, stored = tree
        self.write(root, stored, kind, "train", "train")
        expected = index_faces(root, "train")
        for path in root.rglob("*.pts"):
            path.unlink()
        self.same(index_faces(root, "train", annotations=kind), expected)

    def test_valid_alone_serves_its_parts(self, tree, kind):
        root, stored = tree
        self.write(root, stored, kind, "valid", "full")
        for split in ("common", "challenge", "full"):
            self.same(index_faces(root, split, annotations=kind), index_faces(root, split))

    def test_parts_alone_serve_valid(self, tree, kind):
        root, stored = tree
        self.write(root, stored, kind, "valid_common", "common")
        self.write(root, stored, kind, "valid_challenge", "challenge")
        self.same(index_faces(root, "full", annotations=kind), index_faces(root, "full"))

    @pytest.mark.parametrize(("top", "ending"), [("images/", ".jpg"), ("", ".png"), ("300W/", ".PNG"), ("Test/", "")])
    def test_paths_and_endings_in_the_file_may_differ_from_the_disk(self, tree, kind, top, ending):
        root, stored = tree
        self.write(root, stored, kind, "test", "test", ending, top)
        self.same(index_faces(root, "test", annotations=kind), index_faces(root, "test"))

    def test_spaces_in_names(self, tmp_path, kind):
        stored = write_tree(tmp_path, ["ibug/image_092 _01"])["ibug/image_092 _01"]
        assert names(index_faces(tmp_path, "challenge")) == ["ibug/image_092_01"]
        for number, spelling in enumerate(["image_092_01", "image_092 _01"]):
            path = WRITERS[kind](tmp_path / f"{number}.{kind}", {f"ibug/{spelling}.jpg": stored})
            faces = index_faces(tmp_path, "challenge", annotations=kind, annotations_at=path)
            assert names(faces) == ["ibug/image_092_01"]

    def test_bare_file_names_are_found_in_the_split(self, tree, kind):
        root, stored = tree
        path = WRITERS[kind](root / f"mine.{kind}", {"indoor_001.png": stored["01_Indoor/indoor_001"]})
        faces = index_faces(root, "test", annotations=kind, annotations_at=path)
        assert names(faces) == ["01_Indoor/indoor_001"]

    def test_one_file_for_all_splits(self, tree, kind):
        root, stored = tree
        path = WRITERS[kind](root / f"mine.{kind}", {f"{name}.jpg": stored[name] for name in ALL})
        for split in NAMES:
            self.same(index_faces(root, split, annotations=kind, annotations_at=path), index_faces(root, split))

    def test_missing_and_repeated_images_are_listed_together(self, tree, kind):
        root, stored = tree
        path = self.write(root, stored, kind, "train", "train")
        (root / "afw/11_1.jpg").unlink()
        (root / "helen/trainset/5_1.jpg").unlink()
        with pytest.raises(ValueError, match="cannot be used") as caught:
            index_faces(root, "train", annotations=kind)
        text = str(caught.value)
        assert "2 of 4 faces of split 'train'" in text
        for name in ("afw/11_1", "helen/trainset/5_1"):
            assert re.search(rf"{name}: {re.escape(str(path))}: .* the image '{name}\.jpg' does not exist", text)

    def test_a_folder_that_is_not_on_disk_is_a_smaller_split(self, tree, kind):
        root, stored = tree
        self.write(root, stored, kind, "train", "train")
        for path in (root / "helen/trainset").iterdir():
            path.unlink()
        with pytest.warns(UserWarning, match=r"helen/trainset +0 +2,000"):
            faces = index_faces(root, "train", annotations=kind)
        self.same(faces, index_faces(root, "train"))

    def test_absent_file(self, tree, kind):
        with pytest.raises(FileNotFoundError, match=rf"no {kind} annotations for split 'train': looked for face_land"):
            index_faces(tree[0], "train", annotations=kind)


def test_image_annotated_twice(tree):
    root, stored = tree
    WRITERS["csv"](root / "mine.csv", {"afw/11_1.jpg": stored["afw/11_1"], "images/afw/11_1.jpg": stored["afw/11_1"]})
    with pytest.raises(ValueError, match=r"line 3: the image 'images/afw/11_1\.jpg' is annotated twice"):
        index_faces(root, "train", annotations="csv", annotations_at=root / "mine.csv")


def test_bare_name_in_two_folders(tmp_path):
    stored = write_tree(tmp_path, ["helen/testset/1", "lfpw/testset/1"])["helen/testset/1"]
    WRITERS["csv"](tmp_path / "mine.csv", {"1.jpg": stored})
    with pytest.raises(ValueError, match=r"the image '1\.jpg' is in helen/testset and lfpw/testset"):
        index_faces(tmp_path, "common", annotations="csv", annotations_at=tmp_path / "mine.csv")


def test_json_with_unknown_image_id(tree):
    root, stored = tree
    path = WRITERS["json"](root / "mine.json", {f"{name}.jpg": stored[name] for name in NAMES["train"]})
    content = json.loads(path.read_text())
    content["annotations"][1]["image_id"] = 999
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 of 4 faces .*\n.*annotation 1: the image 'image_id 999' does not exist"):
        index_faces(root, "train", annotations="json", annotations_at=path)
