import os
from collections import Counter

import pytest

from facelm.predict.inputs import expand_inputs, said_of_skipped, shown


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["a.jpg", "b.PNG", "clip.MP4", "notes.txt", "sub/c.jpeg", "sub/deep/d.gif", ".hidden/e.jpg", ".f.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def stems(*names, out="out"):
    inputs, failures = expand_inputs(names, out_path(out))
    return [(item.kind, item.stem) for item in inputs], failures


def out_path(out):
    from pathlib import Path

    return Path(out)


class TestExpand:
    def test_a_file_whatever_its_ending(self, tree):
        assert stems("a.jpg", "notes.txt", "clip.MP4") == (
            [("image", "a"), ("image", "notes"), ("video", "clip")],
            [],
        )

    def test_a_folder_with_those_below_without_hidden_ones_and_other_files(self, tree):
        expected = [("image", "a"), ("image", "b"), ("video", "clip"), ("image", "sub/c"), ("image", "sub/deep/d")]
        assert stems(".") == (expected, [])
        assert stems(str(tree)) == (expected, [])

    def test_what_is_left_out_is_counted_by_kind(self, tree):
        for name in ("sub/a.dng", "b.DNG", "README"):
            (tree / name).write_bytes(b"x")
        skipped = Counter()
        expand_inputs(["."], out_path("out"), skipped=skipped)
        assert said_of_skipped(skipped) == "left out: 4 of unknown kind: .dng 2, .txt 1, no ending 1"
        assert said_of_skipped(Counter()) == ""

    def test_a_camera_by_the_name_of_its_device(self, tree):
        assert stems("/dev/video3") == ([("camera", "camera3")], [])

    @pytest.mark.parametrize(
        ("name", "cure"),
        [("-", "Write it to a file first"), ("https://hans:secret@a.org/b.jpg?key=secret", "curl -O"),
         ("rtsp://hans:secret@camera/1", "ffmpeg -i ADDRESS")],
    )  # fmt: skip
    def test_what_is_no_file_says_what_to_do(self, tree, name, cure):
        inputs, ((called, reason),) = expand_inputs([name], out_path("out"))
        assert inputs == []
        assert cure in reason
        assert "secret" not in called

    def test_the_output_folder_is_no_input(self, tree):
        (tree / "out").mkdir()
        (tree / "out" / "a.jpg").write_bytes(b"x")
        assert ("image", "out/a") not in stems(".")[0]
        assert ("image", "out/a") in stems(".", out="other")[0]

    def test_patterns(self, tree):
        assert stems("*.jpg")[0] == [("image", "a")]
        assert stems("**/*.*")[0] == [
            ("image", "a"), ("image", "b"), ("video", "clip"), ("image", "c"), ("image", "d"),
        ]  # fmt: skip

    def test_a_file_whose_name_reads_like_a_pattern(self, tree):
        (tree / "x[1].jpg").write_bytes(b"x")
        assert stems("x[1].jpg") == ([("image", "x[1]")], [])

    def test_cameras(self, tree):
        inputs, failures = expand_inputs(["0", "2"], out_path("out"))
        assert [(item.kind, item.video_source, item.stem) for item in inputs] == [
            ("camera", 0, "camera0"),
            ("camera", 2, "camera2"),
        ]
        assert failures == []
        (tree / "0").write_bytes(b"x")
        assert stems("0")[0] == [("image", "0")]

    def test_what_stands_for_nothing_is_listed(self, tree):
        (tree / "empty").mkdir()
        _, failures = expand_inputs(["gone.jpg", "*.webp", "empty", "-1"], out_path("out"))
        assert failures == [
            ("gone.jpg", "there is no such file, folder or camera"),
            ("*.webp", "nothing matches this pattern"),
            ("empty", "no image or video in this folder or below it"),
            ("-1", "there is no such file, folder or camera"),
        ]

    def test_each_input_once(self, tree):
        assert [stem for _, stem in stems("a.jpg", "./a.jpg", "*.jpg")[0]] == ["a"]


class TestStems:
    def test_the_ending_tells_apart_what_it_must(self, tree):
        for name in ("a.png", "A.bmp"):
            (tree / name).write_bytes(b"x")
        assert [stem for _, stem in stems("a.jpg", "a.png", "A.bmp", "b.PNG")[0]] == ["a.jpg", "a.png", "A.bmp", "b"]

    def test_a_number_where_that_is_not_enough(self, tree):
        (tree / "sub" / "a.jpg").write_bytes(b"x")
        assert [stem for _, stem in stems("a.jpg", "sub/a.jpg")[0]] == ["a.jpg", "a.jpg-2"]

    def test_dots_in_names(self, tree):
        (tree / "2024.05.01.jpg").write_bytes(b"x")
        assert stems("2024.05.01.jpg")[0] == [("image", "2024.05.01")]


class TestSafety:
    @pytest.mark.parametrize("names", [["a.jpg"], ["."], ["*.jpg"]])
    def test_results_never_go_beside_the_inputs(self, tree, names):
        """A .pts there could be an annotation, and an overlay replace the photograph."""
        with pytest.raises(ValueError, match=r"--out \. is the folder of the input a\.jpg"):
            stems(*names, out=".")

    def test_not_through_a_link_either(self, tree):
        os.symlink(tree, tree / "link")
        with pytest.raises(ValueError, match="is the folder of the input"):
            stems("a.jpg", out="link")


class TestShown:
    def test_names_for_people(self):
        assert shown("with space ü.jpg") == "with space ü.jpg"
        assert shown("line\nbreak.jpg") == "'line\\nbreak.jpg'"
        assert shown(os.fsdecode(b"\xff.jpg")).isascii()
