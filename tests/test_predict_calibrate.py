import numpy as np
import pytest

from facelm.data.faces import Face
from facelm.geometry.boxes import CONVENTIONS, box_from_landmarks
from facelm.predict.box_table import boxes_of, read_box_table
from facelm.predict.calibrate import calibrate, lookup
from w300_tree import some_landmarks


def table_file(tmp_path, text):
    path = tmp_path / "boxes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestBoxTable:
    def test_without_header(self, tmp_path):
        table = read_box_table(table_file(tmp_path, "a.jpg,1,2,30,40\nb.jpg, 5, 6, 70.5, 80\na.jpg,3,4,50,60,0.99\n"))
        assert {name: rows.tolist() for name, rows in table.items()} == {
            "a.jpg": [[1, 2, 30, 40], [3, 4, 50, 60]],
            "b.jpg": [[5, 6, 70.5, 80]],
        }

    def test_with_header_in_any_order(self, tmp_path):
        table = read_box_table(table_file(tmp_path, "image,score,x2,y2,x1,y1\r\na.jpg,0.9,30,40,1,2\r\n"))
        assert table["a.jpg"].tolist() == [[1, 2, 30, 40]]

    def test_names_with_commas_quotes_newlines_and_unicode(self, tmp_path):
        text = '"a, b.jpg",1,2,3,4\n"line\nbreak.jpg",1,2,3,4\n顔.jpg,1,2,3,4\n"say ""hi"".jpg",1,2,3,4\n'
        assert list(read_box_table(table_file(tmp_path, text))) == [
            "a, b.jpg",
            "line\nbreak.jpg",
            "顔.jpg",
            'say "hi".jpg',
        ]

    def test_byte_order_mark(self, tmp_path):
        assert list(read_box_table(table_file(tmp_path, b"\xef\xbb\xbfa.jpg,1,2,3,4\n"))) == ["a.jpg"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"no boxes; a row is image,x1,y1,x2,y2"),
            ("image,x1,y1,x2,y2\n", "no boxes"),
            ("image,x1,y1,width,height\na,1,2,3,4\n", r"no column x2, y2 in the header image, x1, y1, width, height"),
            ("a.jpg,1,2,3,4\nb.jpg,1,2\n", "line 2: 3 columns"),
            ("a.jpg,1,2,3,4\nb.jpg,1,two,3,4\n", "line 2: '1, two, 3, 4' are not four numbers"),
        ],
    )
    def test_errors_name_the_line(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_box_table(table_file(tmp_path, text))

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no box file"):
            read_box_table(tmp_path / "gone.csv")

    def test_rows_of_an_image(self, tmp_path):
        table = {"a.jpg": np.ones((1, 4)), "sub/b.jpg": np.zeros((2, 4)), "c": np.ones((3, 4))}
        assert len(boxes_of(table, tmp_path / "a.jpg")) == 1
        assert len(boxes_of(table, tmp_path.__class__("sub/b.jpg"))) == 2
        assert len(boxes_of(table, tmp_path / "c.png")) == 3
        with pytest.raises(ValueError, match=r"no row for it; it has 'a\.jpg', 'sub/b\.jpg', 'c'$"):
            boxes_of(table, tmp_path / "d.jpg")


def faces(count=40, folder="afw"):
    made = []
    for i in range(count):
        landmarks = some_landmarks(i, 50, 150 + 5 * i)
        made.append(Face(f"{folder}/face_{i}", None, landmarks, box_from_landmarks(landmarks), folder))
    return made


def dlib_like(face):
    convention = CONVENTIONS["dlib"]
    longer = face.box.side / convention.scale
    middle = np.array(face.box.center) - longer * np.array(convention.shift)
    return np.array([[*(middle - longer / 2), *(middle + longer / 2)]])


class TestCalibrate:
    def test_the_convention_that_the_boxes_follow(self):
        result = calibrate("mine", faces(), dlib_like, "test")
        assert result.convention.shift == pytest.approx(CONVENTIONS["dlib"].shift, abs=1e-3)
        assert result.convention.scale == pytest.approx(CONVENTIONS["dlib"].scale, abs=1e-3)
        assert (result.found, result.missed) == (40, ())

    def test_faces_that_were_not_found_are_counted(self):
        def some(face):
            number = int(face.name.split("_")[1])
            if number == 3:
                return np.empty((0, 4))
            return dlib_like(face) + (1000 if number == 4 else 0)

        result = calibrate("mine", faces(), some, "test")
        assert result.found == 38
        assert result.missed == ("afw/face_3", "afw/face_4")
        assert "38 of 40 faces found (95.0%), 2 not" in result.report()

    def test_of_several_boxes_the_face_s_own(self):
        def crowd(face):
            own = dlib_like(face)
            return np.concatenate([own + 400, own, own + 0.4 * face.box.side])

        assert calibrate("mine", faces(), crowd, "test").convention.shift == pytest.approx(
            CONVENTIONS["dlib"].shift, abs=1e-3
        )

    def test_the_report_can_be_pasted(self):
        convention = calibrate("mine", faces(), dlib_like, "test").convention
        code = calibrate("mine", faces(), dlib_like, "test").report().split("in Python:\n")[1]
        statement, expression = code.split("\n", 1)
        names: dict = {}
        exec(statement, names)
        assert eval(expression, names) == convention

    def test_none_overlaps(self):
        with pytest.raises(ValueError, match=r"0 of 40 faces have a box.*x1,y1,x2,y2 in pixels of the annotated"):
            calibrate("mine", faces(), lambda face: face.box.xyxy[None] / 10_000, "test")


class TestLookup:
    def test_paths_in_the_official_layout(self):
        boxes_for = lookup({"/data/300w/AFW/face_1.jpg": np.ones((2, 4))}, faces())
        assert boxes_for(faces()[1]).shape == (2, 4)
        assert boxes_for(faces()[2]).shape == (0, 4)

    def test_bare_names_where_they_are_unique(self):
        both = [*faces(3), *faces(2, "lfpw/trainset")]
        boxes_for = lookup({"face_1.jpg": np.ones((1, 4)), "face_2.jpg": np.ones((1, 4))}, both)
        assert [len(boxes_for(face)) for face in both] == [0, 0, 1, 0, 0]

    def test_names_of_nobody(self):
        with pytest.raises(
            ValueError, match=r"none of the 1 image names in the box file \('x\.jpg'.*40 faces \(afw/face_0"
        ):
            lookup({"x.jpg": np.ones((1, 4))}, faces())
