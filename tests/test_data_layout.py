import pytest

from facelm.data.w300.layout import (
    FOLDER_COUNTS,
    OFFICIAL_COUNTS,
    SPLITS,
    count_faces,
    count_table,
    list_folder,
    list_folders,
    parse_name,
)
from w300_tree import write_image, write_tree


def test_official_counts():
    assert dict(OFFICIAL_COUNTS) == {"train": 3148, "common": 554, "challenge": 135, "full": 689, "test": 600}
    assert set(SPLITS["full"]) == {*SPLITS["common"], *SPLITS["challenge"]}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("afw/111076519_1", ("afw", "111076519_1")),
        ("images/helen/trainset/100032540_1.jpg", ("helen/trainset", "100032540_1")),
        ("ibug/image_092 _01.jpg", ("ibug", "image_092_01")),
        ("300W/01_Indoor/indoor_001.png", ("01_Indoor", "indoor_001")),
        ("Test/02_outdoor/outdoor_001.PNG", ("02_Outdoor", "outdoor_001")),
        (r"LFPW\testset\image_0001.pts", ("lfpw/testset", "image_0001")),
        ("trainset/1.jpg", ("", "1")),
        ("indoor_029.png", ("", "indoor_029")),
        ("my_afw/1.5", ("", "1.5")),
    ],
)
def test_parse_name(text, parsed):
    assert parse_name(text) == parsed


class TestListFolder:
    def test_endings_in_any_case_and_names_without_spaces(self, tmp_path):
        for name in ("a.JPG", "image_092 _01.jpg", "c.Png"):
            write_image(tmp_path / name)
        for name in ("a.PTS", "image_092_01.pts", "d.pts", ".hidden.pts", "._a.jpg", "readme.txt"):
            (tmp_path / name).touch()
        found = {name: (f.image and f.image.name, f.pts and f.pts.name) for name, f in list_folder(tmp_path).items()}
        assert found == {
            "a": ("a.JPG", "a.PTS"),
            "image_092_01": ("image_092 _01.jpg", "image_092_01.pts"),
            "c": ("c.Png", None),
            "d": (None, "d.pts"),
        }

    def test_of_two_pictures_of_one_name_the_lossless_is_taken(self, tmp_path):
        for name in ("a.jpg", "a.png", "a.webp"):
            write_image(tmp_path / name)
        assert list_folder(tmp_path)["a"].image == tmp_path / "a.png"

    def test_of_two_annotations_of_one_name_the_first_is_taken(self, tmp_path):
        for name in ("a.PTS", "a.pts"):
            (tmp_path / name).touch()
        assert list_folder(tmp_path)["a"].pts == tmp_path / "a.PTS"


class TestListFolders:
    @pytest.mark.parametrize("top", ["", "images/"])
    @pytest.mark.parametrize("parent", ["300W/", "Test/", "test/", ""])
    def test_official_layouts(self, tmp_path, top, parent):
        places = {
            folder: f"{top}{parent}{folder}" if folder.startswith("0") else f"{top}{folder}" for folder in FOLDER_COUNTS
        }
        write_tree(tmp_path, [f"{place}/face_1" for place in places.values()])
        found = list_folders(tmp_path)
        assert {folder: files["face_1"].image for folder, files in found.items()} == {
            folder: tmp_path / place / "face_1.jpg" for folder, place in places.items()
        }

    def test_empty_folder_does_not_hide_a_full_one(self, tmp_path):
        (tmp_path / "afw").mkdir()
        write_tree(tmp_path, ["images/afw/1"])
        assert list_folders(tmp_path)["afw"]["1"].image == tmp_path / "images/afw/1.jpg"

    def test_no_root(self, tmp_path):
        assert list_folders(tmp_path / "absent") == {}


class TestCounts:
    def test_a_face_is_a_picture_with_its_points(self, tmp_path):
        write_tree(tmp_path, ["afw/1", "afw/2", "afw/3", "ibug/1"])
        (tmp_path / "afw/2.pts").unlink()
        (tmp_path / "afw/3.jpg").unlink()
        counts = count_faces(tmp_path)
        assert counts == dict.fromkeys(FOLDER_COUNTS, 0) | {"afw": 1, "ibug": 1}

    def test_table(self):
        table = count_table(dict.fromkeys(SPLITS["full"], 100))
        rows = [line.split() for line in table.splitlines()]
        assert rows == [
            ["found", "official"],
            ["helen/testset", "100", "330"],
            ["lfpw/testset", "100", "224"],
            ["ibug", "100", "135"],
            ["common", "200", "554"],
            ["challenge", "100", "135"],
            ["full", "300", "689"],
        ]
        assert "2,000" in count_table({"helen/trainset": 2000})


@pytest.mark.parametrize("stems", [("img 1 12", "img 11 2"), ("face 1", "face1"), ("a b", "ab", "a  b")])
def test_in_other_peoples_names_a_space_counts(tmp_path, stems):
    write_tree(tmp_path, [f"afw/{stem}" for stem in stems])
    found = list_folder(tmp_path / "afw")
    assert {name: (files.image.stem, files.pts.stem) for name, files in found.items()} == {
        stem: (stem, stem) for stem in stems
    }
    assert {parse_name(f"images/afw/{stem}.jpg") for stem in stems} == {("afw", stem) for stem in stems}


def test_points_of_another_name_are_no_pair(tmp_path):
    for name in ("face 1.jpg", "face1.pts"):
        (tmp_path / name).touch()
    assert {name: (files.image, files.pts) for name, files in list_folder(tmp_path).items()} == {
        "face 1": (tmp_path / "face 1.jpg", None),
        "face1": (None, tmp_path / "face1.pts"),
    }


@pytest.mark.parametrize("ending", [".jpg", ".pts"])
def test_ibugs_names_that_spaces_alone_tell_apart_are_not_mixed(tmp_path, ending):
    for name in ("image_092 _01", "image_092_01"):
        (tmp_path / f"{name}{ending}").touch()
    with pytest.raises(ValueError, match="differ in spaces alone"):
        list_folder(tmp_path)


def test_a_pair_of_ibugs_may_differ_in_spaces(tmp_path):
    for name in ("image_092 _01.jpg", "image_092_01.pts"):
        (tmp_path / name).touch()
    assert [(files.image.name, files.pts.name) for files in list_folder(tmp_path).values()] == [
        ("image_092 _01.jpg", "image_092_01.pts")
    ]
