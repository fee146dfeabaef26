import json
import re

import numpy as np
import pytest

from facelm.data.w300.annotations import find_annotation_files, read_annotations, read_pts, write_pts
from w300_tree import CSV_COLUMNS, WRITERS, pts_text, some_landmarks, write_csv, write_json

STORED = some_landmarks()


@pytest.fixture
def pts(tmp_path):
    """Writes a .pts of that text or bytes."""

    def write(content):
        path = tmp_path / "face.pts"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class TestReadPts:
    def test_one_is_subtracted(self, pts):
        np.testing.assert_array_equal(read_pts(pts(pts_text(STORED))), STORED - 1)

    def test_origin_zero_keeps_the_stored_numbers(self, pts):
        np.testing.assert_array_equal(read_pts(pts(pts_text(STORED)), pixel_origin=0), STORED)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="windows line ends"),
            pytest.param(lambda text: text.encode("utf-8-sig"), id="utf-8 byte-order mark"),
            pytest.param(lambda text: text.encode("utf-16"), id="utf-16"),
            pytest.param(lambda text: text.replace(" ", "\t").replace("n_points:", "n_points: "), id="tabs"),
            pytest.param(lambda text: text.rstrip("\n").replace("{\n", "{\n\n"), id="blank lines, no last line end"),
            pytest.param(lambda text: text.replace("version: 1\n", ""), id="no version"),
        ],
    )
    def test_harmless_differences_are_read(self, pts, change):
        np.testing.assert_array_equal(read_pts(pts(change(pts_text(STORED)))), STORED - 1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (pts_text(STORED[:67]), "67 points, 300W has 68"),
            (pts_text(np.vstack([STORED, STORED[:1]])), "69 points"),
            (pts_text(STORED).replace(str(STORED[3, 1]), "abc"), "y of point 3 is 'abc', not a number"),
            (pts_text(STORED).replace(str(STORED[3, 1]), "1_0"), "y of point 3 is '1_0', not a number"),
            (pts_text(STORED).replace(str(STORED[3, 1]), "nan"), "point 3 is .*nan.*, not finite"),
            (pts_text(STORED).replace(str(STORED[0, 0]), "-inf"), "point 0 is .*-inf.*, not finite"),
            (pts_text(STORED).replace("{\n", ""), "no points between braces"),
            (pts_text(STORED).replace("}\n", ""), "no points between braces"),
            (pts_text(STORED).replace(f"{STORED[5, 1]}\n", f"{STORED[5, 1]} 7\n"), "point 5 is .* 7', not two numbers"),
            (pts_text(STORED) + "{\n1 2\n}\n", "more than one block"),
            (pts_text(STORED).replace(f"{STORED[5, 0]} ", f"{STORED[5, 0]},"), "point 5 .*a space, not a comma"),
            (pts_text(np.vstack([STORED[:-2], [[-1, -1], [0, 0]]])), "point 66, 67 at .*nobody placed"),
            (pts_text(np.vstack([STORED[:-2], [[-1e308, 1e308], [5, 5]]])), "point 66 .*far beyond"),
            (b"\x80\x81", "no text file"),
            ("", "no points between braces"),
        ],
    )
    def test_bad_content_is_refused_by_name(self, pts, text, message):
        with pytest.raises(ValueError, match=rf"face\.pts: .*{message}"):
            read_pts(pts(text))


class TestWritePts:
    def test_one_is_added_and_reading_gives_it_back(self, tmp_path):
        landmarks_image = np.random.default_rng(1).normal(100, 50, (68, 2))
        write_pts(tmp_path / "a.pts", landmarks_image)
        text = (tmp_path / "a.pts").read_text()
        assert text.startswith("version: 1\nn_points: 68\n{\n")
        assert float(text.split()[5]) == landmarks_image[0, 0] + 1
        np.testing.assert_allclose(read_pts(tmp_path / "a.pts"), landmarks_image, atol=1e-13, rtol=0)

    @pytest.mark.parametrize("bad", [np.full((68, 2), np.nan), np.zeros((68, 3)), np.zeros(136)])
    def test_what_could_not_be_read_back_is_not_written(self, tmp_path, bad):
        with pytest.raises(ValueError, match=r"finite \[K, 2\] are needed"):
            write_pts(tmp_path / "a.pts", bad)
        assert not (tmp_path / "a.pts").exists()


class TestFormatsAgree:
    @pytest.mark.parametrize("kind", ["json", "csv"])
    def test_names_and_landmarks(self, tmp_path, kind):
        faces = {"afw/1.jpg": STORED, "ibug/image_092 _01.jpg": some_landmarks(2)}
        rows = read_annotations(WRITERS[kind](tmp_path / f"a.{kind}", faces), kind)
        assert [row.image_name for row in rows] == list(faces)
        for row, stored in zip(rows, faces.values(), strict=True):
            np.testing.assert_array_equal(row.read(1), stored - 1)
            np.testing.assert_array_equal(row.read(0), stored)


class TestCsv:
    def edited(self, tmp_path, edit):
        path = write_csv(tmp_path / "a.csv", {"afw/1.jpg": STORED, "afw/2.jpg": STORED})
        lines = [edit(number, line.split(",")) for number, line in enumerate(path.read_text().splitlines())]
        path.write_text("\n".join(",".join(line) for line in lines) + "\n")
        return path

    @pytest.mark.parametrize("column", ["image_name", "original_33_x"])
    def test_missing_column_is_named(self, tmp_path, column):
        path = self.edited(tmp_path, lambda _, cells: [c for i, c in enumerate(cells) if CSV_COLUMNS[i] != column])
        with pytest.raises(ValueError, match=rf"a\.csv: missing column {column}\. The HRNet authors' files have"):
            read_annotations(path, "csv")

    def test_what_is_not_read_may_be_absent(self, tmp_path):
        path = self.edited(tmp_path, lambda _, cells: [cells[0], *cells[4:]])
        np.testing.assert_array_equal(read_annotations(path, "csv")[0].read(0), STORED)

    def test_many_missing_columns_are_counted(self, tmp_path):
        (tmp_path / "a.csv").write_text("image;x;y\n")
        with pytest.raises(ValueError, match=r"missing column image_name, original_0_x, .* and 132 more"):
            read_annotations(tmp_path / "a.csv", "csv")

    def test_columns_are_found_by_name(self, tmp_path):
        path = self.edited(tmp_path, lambda n, cells: ["extra" if n == 0 else "?", *reversed(cells)])
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        np.testing.assert_array_equal(read_annotations(path, "csv")[1].read(0), STORED)

    def test_bad_cells_say_the_line(self, tmp_path):
        path = self.edited(tmp_path, lambda n, cells: [*cells[:4], "abc", *cells[5:]] if n == 2 else cells)
        first, second = read_annotations(path, "csv")
        first.read(1)
        with pytest.raises(ValueError, match=r"a\.csv: line 3: x of point 0 is 'abc'"):
            second.read(1)

    def test_short_line(self, tmp_path):
        path = self.edited(tmp_path, lambda n, cells: cells[:50] if n == 1 else cells)
        with pytest.raises(ValueError, match=r"line 2: 50 columns where the header has more"):
            read_annotations(path, "csv")[0].read(1)


class TestJson:
    def edited(self, tmp_path, edit):
        path = write_json(tmp_path / "a.json", {"afw/1.jpg": STORED, "afw/2.jpg": STORED})
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return path

    @pytest.mark.parametrize("field", ["image_id", "keypoints"])
    def test_field_that_every_face_lacks(self, tmp_path, field):
        path = self.edited(tmp_path, lambda content: [face.pop(field) for face in content["annotations"]])
        with pytest.raises(ValueError, match=rf"a\.json: missing field {field} in every annotation; mmpose's files"):
            read_annotations(path, "json")

    def test_what_is_not_read_may_be_absent(self, tmp_path):
        path = self.edited(
            tmp_path, lambda content: [(f.pop("center"), f.pop("scale")) for f in content["annotations"]]
        )
        np.testing.assert_array_equal(read_annotations(path, "json")[0].read(0), STORED)

    @pytest.mark.parametrize("key", ["images", "annotations"])
    def test_missing_list(self, tmp_path, key):
        path = self.edited(tmp_path, lambda content: content.pop(key))
        with pytest.raises(ValueError, match=f"no list '{key}'"):
            read_annotations(path, "json")

    @pytest.mark.parametrize("text", ["", "{", "[1, 2]", "image_name,scale\n"])
    def test_no_such_file_at_all(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"a\.json: no (JSON|list 'images')"):
            read_annotations(tmp_path / "a.json", "json")

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda face: face.pop("keypoints"), "no list of keypoint numbers"),
            (lambda face: face["keypoints"].pop(), "203 keypoint numbers, not 68 times x, y, visible"),
            (lambda face: face["keypoints"].__setitem__(8, 0), r"points marked as not labelled \(visible 0\)"),
            (lambda face: face["keypoints"].__setitem__(6, None), "x of point 2 is None, not a number"),
            (lambda face: face["keypoints"].__setitem__(7, float("nan")), "point 2 is .*nan.*, not finite"),
        ],
    )
    def test_one_bad_face_leaves_the_others_readable(self, tmp_path, edit, message):
        path = self.edited(tmp_path, lambda content: edit(content["annotations"][1]))
        first, second = read_annotations(path, "json")
        np.testing.assert_array_equal(first.read(0), STORED)
        with pytest.raises(ValueError, match=rf"a\.json: annotation 1: {message}"):
            second.read(0)


class TestFindAnnotationFiles:
    def touch(self, *paths):
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def test_root_before_annotations_before_nothing(self, tmp_path):
        name = "face_landmarks_300w_train.csv"
        searched = f"looked for {name} in '{tmp_path}' and '{tmp_path / 'annotations'}'"
        with pytest.raises(FileNotFoundError, match=re.escape(searched)):
            find_annotation_files(tmp_path, "train", "csv")
        self.touch(tmp_path / "annotations" / name)
        assert find_annotation_files(tmp_path, "train", "csv") == [tmp_path / "annotations" / name]
        self.touch(tmp_path / name)
        assert find_annotation_files(tmp_path, "train", "csv") == [tmp_path / name]

    def test_named_folder_or_file_replaces_both(self, tmp_path):
        name = "face_landmarks_300w_test.json"
        self.touch(tmp_path / name, tmp_path / "mine" / name, tmp_path / "my.json")
        assert find_annotation_files(tmp_path, "test", "json", tmp_path / "mine") == [tmp_path / "mine" / name]
        assert find_annotation_files(tmp_path, "test", "json", tmp_path / "my.json") == [tmp_path / "my.json"]
        with pytest.raises(FileNotFoundError, match=r"data\.annotations_at=.*data\.annotations=pts.*experiment=demo"):
            find_annotation_files(tmp_path, "test", "json", tmp_path / "absent")

    def test_valid_stands_in_for_its_parts_and_they_for_it(self, tmp_path):
        whole, *parts = [tmp_path / f"face_landmarks_300w_valid{p}.json" for p in ("", "_common", "_challenge")]
        self.touch(*parts)
        assert find_annotation_files(tmp_path, "full", "json") == parts
        parts[0].unlink()
        self.touch(whole)
        assert find_annotation_files(tmp_path, "full", "json") == [whole]
        assert find_annotation_files(tmp_path, "common", "json") == [whole]
        assert find_annotation_files(tmp_path, "challenge", "json") == [parts[1]]
