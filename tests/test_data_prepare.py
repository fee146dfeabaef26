import os
import re
import threading
import time
import zipfile

import pytest

from facelm.data.w300 import archives
from facelm.data.w300.archives import prepare_archives
from facelm.data.w300.index import index_faces
from facelm.files import take_lock
from w300_tree import pts_text, some_landmarks, write_image

FACE = pts_text(some_landmarks()).encode()
OFFICIAL = {
    "afw.zip": ["afw/1_1.jpg", "afw/1_1.pts"],
    "helen.zip": ["helen/trainset/2_1.jpg", "helen/trainset/2_1.pts", "helen/testset/3_1.jpg", "helen/testset/3_1.pts"],
    "ibug.zip": ["ibug/image_092 _01.jpg", "ibug/image_092 _01.pts"],
    "lfpw.zip": ["lfpw/trainset/image_0001.png", "lfpw/trainset/image_0001.pts"],
    "300w.zip": ["300W/01_Indoor/indoor_001.png", "300W/01_Indoor/indoor_001.pts"],
}


@pytest.fixture
def picture(tmp_path):
    return {ending: write_image(tmp_path / f"picture{ending}").read_bytes() for ending in (".jpg", ".png")}


@pytest.fixture
def make_zip(tmp_path, picture):
    """Writes a zip of files with those names, each with fitting content, or with the content given."""

    def make(name, members):
        contents = members if isinstance(members, dict) else dict.fromkeys(members)
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in contents.items():
                archive.writestr(member, picture.get(member[-4:], FACE) if content is None else content)
        return tmp_path / name

    return make


def cut(archive, size):
    """iBUG's way to cut a zip: pieces named .001, .002, ..., nothing else."""
    content = archive.read_bytes()
    archive.unlink()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    paths = [archive.with_name(f"{archive.name}.{number:03d}") for number in range(1, len(pieces) + 1)]
    for path, piece in zip(paths, pieces, strict=True):
        path.write_bytes(piece)
    return paths


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())


class TestUnpacking:
    def test_official_archives_make_the_layout_that_is_read(self, tmp_path, make_zip):
        archives = [make_zip(name, members) for name, members in OFFICIAL.items()]
        said = []
        counts = prepare_archives(archives, tmp_path / "out", report=said.append)
        assert files_in(tmp_path / "out") == sorted(member for members in OFFICIAL.values() for member in members)
        assert {folder: count for folder, count in counts.items() if count} == {
            "afw": 1,
            "helen/trainset": 1,
            "helen/testset": 1,
            "ibug": 1,
            "lfpw/trainset": 1,
            "01_Indoor": 1,
        }
        assert said[0] == "afw.zip: 2 files unpacked, 0 were there"
        assert re.search(r"helen/trainset +1 +2,000", said[-1])
        assert re.search(r"train +3 +3,148", said[-1])
        with pytest.warns(UserWarning, match="incomplete"):
            faces = index_faces(tmp_path / "out", "challenge")
        assert [face.name for face in faces] == ["ibug/image_092_01"]

    @pytest.mark.parametrize(
        ("name", "member", "target"),
        [
            ("afw.zip", "1_1", "afw/1_1"),
            ("helen.zip", "trainset/1_1", "helen/trainset/1_1"),
            ("lfpw.zip", "./lfpw/testset/1", "lfpw/testset/1"),
            ("300w.zip", "01_Indoor/indoor_001", "300W/01_Indoor/indoor_001"),
            ("Test.zip", "Test/02_Outdoor/1", "300W/02_Outdoor/1"),
            ("all.zip", "300w_data/images/IBUG/image_1", "ibug/image_1"),
            ("helen.zip", "helen\\trainset\\1_1", "helen/trainset/1_1"),
        ],
    )
    def test_folders_are_recognised_however_they_are_wrapped(self, tmp_path, make_zip, name, member, target):
        prepare_archives([make_zip(name, [f"{member}.jpg", f"{member}.pts"])], tmp_path / "out")
        assert files_in(tmp_path / "out") == [f"{target}.jpg", f"{target}.pts"]

    def test_only_photographs_and_points_are_written(self, tmp_path, make_zip):
        clutter = ["afw/readme.txt", "__MACOSX/afw/._1.jpg", "afw/.hidden.pts", "other/1.jpg", "afw/deep/1.jpg"]
        prepare_archives([make_zip("afw.zip", ["afw/1.jpg", "afw/1.pts", *clutter])], tmp_path / "out")
        assert files_in(tmp_path / "out") == ["afw/1.jpg", "afw/1.pts"]

    def test_the_table_is_printed(self, tmp_path, make_zip, capsys):
        prepare_archives([make_zip("afw.zip", OFFICIAL["afw.zip"])], tmp_path / "out")
        assert re.search(r"afw +1 +337", capsys.readouterr().out)


class TestRepeating:
    def test_second_run_writes_nothing(self, tmp_path, make_zip):
        archive, out, said = make_zip("afw.zip", OFFICIAL["afw.zip"]), tmp_path / "out", []
        prepare_archives([archive], out)
        times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        prepare_archives([archive], out, report=said.append)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
        assert said[0] == "afw.zip: 0 files unpacked, 2 were there"

    def test_half_written_and_missing_files_are_completed(self, tmp_path, make_zip, picture):
        archive, out, said = make_zip("afw.zip", [*OFFICIAL["afw.zip"], "afw/2.jpg"]), tmp_path / "out", []
        prepare_archives([archive], out)
        (out / "afw/1_1.jpg").write_bytes(picture[".jpg"][:100])
        (out / "afw/1_1.pts").unlink()
        prepare_archives([archive], out, report=said.append)
        assert said[0] == "afw.zip: 2 files unpacked, 1 were there"
        assert (out / "afw/1_1.jpg").read_bytes() == picture[".jpg"]
        assert (out / "afw/1_1.pts").read_bytes() == FACE

    def test_failing_in_the_middle_leaves_no_half_file(self, tmp_path, make_zip, monkeypatch):
        def full_disk(source, target):
            target.write(source.read(10))
            raise OSError(28, "No space left on device")

        archive = make_zip("afw.zip", OFFICIAL["afw.zip"])
        monkeypatch.setattr("facelm.data.w300.archives.shutil.copyfileobj", full_disk)
        with pytest.raises(OSError, match=r"No space left.*1_1\.jpg"):
            prepare_archives([archive], tmp_path / "out")
        assert os.listdir(tmp_path / "out" / "afw") == []

    def test_a_file_of_the_right_size_and_other_bytes_is_written_again(self, tmp_path, make_zip, picture):
        archive, out, said = make_zip("afw.zip", OFFICIAL["afw.zip"]), tmp_path / "out", []
        prepare_archives([archive], out)
        (out / "afw/1_1.jpg").write_bytes(bytes(len(picture[".jpg"])))
        prepare_archives([archive], out, report=said.append)
        assert said[0] == "afw.zip: 1 files unpacked, 1 were there"
        assert (out / "afw/1_1.jpg").read_bytes() == picture[".jpg"]

    def test_the_second_of_two_at_once_waits_and_says_so(self, tmp_path, make_zip):
        archive, out, said = make_zip("afw.zip", OFFICIAL["afw.zip"]), tmp_path / "out", []
        prepare_archives([archive], out)
        with (out / ".facelm-prepare.lock").open("rb") as file:
            take_lock(file)
            second = threading.Thread(target=prepare_archives, args=([archive], out), kwargs={"report": said.append})
            second.start()
            while not said:
                time.sleep(0.01)
            assert re.match("another facelm prepare unpacks into .*out", said[0])
            assert len(said) == 1
        second.join()
        assert said[1] == "afw.zip: 0 files unpacked, 2 were there"


class TestParts:
    @pytest.mark.parametrize("size", [1000, 7777, 10**6])
    @pytest.mark.parametrize("given", [slice(None), slice(1), slice(-1, None)])
    def test_numbered_parts_are_one_archive(self, tmp_path, make_zip, size, given, picture):
        parts = cut(make_zip("300w.zip", OFFICIAL["300w.zip"]), size)
        counts = prepare_archives(parts[given], tmp_path / "out")
        assert counts["01_Indoor"] == 1
        assert (tmp_path / "out/300W/01_Indoor/indoor_001.png").read_bytes() == picture[".png"]

    def test_missing_part_in_the_middle(self, tmp_path, make_zip):
        parts = cut(make_zip("300w.zip", OFFICIAL["300w.zip"]), 8000)
        parts[1].unlink()
        with pytest.raises(FileNotFoundError, match=r"part 300w\.zip\.002 is not beside it; all parts are needed"):
            prepare_archives([parts[0]], tmp_path / "out")

    def test_missing_last_part(self, tmp_path, make_zip):
        parts = cut(make_zip("300w.zip", OFFICIAL["300w.zip"]), 8000)
        parts[-1].unlink()
        last = re.escape(parts[-2].name)
        with pytest.raises(ValueError, match=rf"read as {len(parts) - 1} parts, up to {last}; is the last one there"):
            prepare_archives(parts[:1], tmp_path / "out")

    def test_split_zip_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"300w\.z01: a part of a split zip .* not supported.*zip -s 0"):
            prepare_archives([tmp_path / "300w.z01"], tmp_path / "out")


class TestBadArchives:
    @pytest.mark.parametrize("name", ["../afw/1.jpg", "afw/../../1.jpg", "/afw/1.jpg", r"..\afw\1.jpg", "C:/afw/1.jpg"])
    def test_names_that_lead_out_of_the_folder(self, tmp_path, make_zip, name):
        archive = make_zip("afw.zip", ["afw/1.jpg", name])
        with pytest.raises(ValueError, match=r"afw\.zip: holds .*leads elsewhere; nothing of it was written"):
            prepare_archives([archive], tmp_path / "x/out")
        assert not (tmp_path / "x").exists()

    def test_all_archives_are_looked_for_before_the_first_is_unpacked(self, tmp_path, make_zip):
        with pytest.raises(FileNotFoundError, match=r"no archive .*absent\.zip.*ibug\.doc\.ic\.ac\.uk"):
            prepare_archives([make_zip("afw.zip", OFFICIAL["afw.zip"]), tmp_path / "absent.zip"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_none_given(self, tmp_path):
        with pytest.raises(ValueError, match=r"no archives given; name iBUG's files: afw\.zip"):
            prepare_archives([], tmp_path)

    def test_without_300w(self, tmp_path, make_zip):
        with pytest.raises(ValueError, match=r"cats\.zip: nothing of 300W inside \(looked for afw, helen/trainset"):
            prepare_archives([make_zip("cats.zip", ["cats/1.jpg"])], tmp_path / "out")

    @pytest.mark.parametrize("kept", [0, 10, 3000])
    def test_truncated(self, tmp_path, make_zip, kept):
        archive = make_zip("afw.zip", OFFICIAL["afw.zip"])
        archive.write_bytes(archive.read_bytes()[:kept])
        with pytest.raises(ValueError, match=r"afw\.zip: damaged or cut short, or no zip file"):
            prepare_archives([archive], tmp_path / "out")

    def test_damaged_inside(self, tmp_path, make_zip):
        archive = make_zip("afw.zip", OFFICIAL["afw.zip"])
        content = bytearray(archive.read_bytes())
        content[1000:1100] = bytes(100)
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"afw\.zip: damaged"):
            prepare_archives([archive], tmp_path / "out")
        assert "afw/1_1.jpg" not in files_in(tmp_path / "out")

    @pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
    def test_damaged_whatever_compressed_it(self, tmp_path, method):
        archive = tmp_path / "afw.zip"
        with zipfile.ZipFile(archive, "w", method) as file:
            file.writestr("afw/1.jpg", os.urandom(5000))
        content = bytearray(archive.read_bytes())
        content[60:1060] = b"\xff" * 1000
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"afw\.zip: damaged"):
            prepare_archives([archive], tmp_path / "out")

    @pytest.mark.parametrize(
        ("member", "size"), [("afw/1.jpg", 2**21), ("afw/1.pts", 2**17), ("afw/1.png", archives.LARGEST_PHOTOGRAPH + 1)]
    )
    def test_bombs(self, tmp_path, make_zip, member, size):
        with pytest.raises(ValueError, match=rf"'{member}' unpacks to .*nothing of it was written"):
            prepare_archives([make_zip("afw.zip", {"afw/0.jpg": b"", member: bytes(size)})], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_too_much_in_all(self, tmp_path, make_zip, monkeypatch):
        monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 100)
        with pytest.raises(ValueError, match="with those before it"):
            prepare_archives([make_zip("afw.zip", OFFICIAL["afw.zip"])], tmp_path / "out")

    @pytest.mark.parametrize("name", ["afw/\x1b[2J.jpg", "afw/line\nbreak.jpg", "afw/\u202e.jpg"])
    def test_names_of_control_characters(self, tmp_path, make_zip, name):
        with pytest.raises(ValueError, match="control characters") as caught:
            prepare_archives([make_zip("afw.zip", [name])], tmp_path / "out")
        assert str(caught.value).isprintable()

    def test_dlib_s_edition_is_named(self, tmp_path):
        path = tmp_path / "ibug_300W_large_face_landmark_dataset.tar.gz"
        path.write_bytes(b"\x1f\x8b")
        with pytest.raises(ValueError, match=r"a tar archive.*mirrored copy"):
            prepare_archives([path], tmp_path / "out")

    @pytest.mark.parametrize("place", ["300W", "300W/01_Indoor", "300W/01_Indoor/1.png"])
    def test_no_link_under_the_folder_is_followed(self, tmp_path, make_zip, place):
        link, elsewhere = tmp_path / "out" / place, tmp_path / "elsewhere"
        link.parent.mkdir(parents=True)
        if place.endswith(".png"):
            elsewhere.write_bytes(b"mine")
        else:
            (elsewhere / "01_Indoor").mkdir(parents=True)
        link.symlink_to(elsewhere)
        with pytest.raises(ValueError, match=r"is a link, and files are unpacked through none"):
            prepare_archives([make_zip("300w.zip", ["300W/01_Indoor/1.png"])], tmp_path / "out")
        assert elsewhere.read_bytes() == b"mine" if elsewhere.is_file() else files_in(elsewhere) == []

    def test_nor_one_in_place_of_the_lock(self, tmp_path, make_zip):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ".facelm-prepare.lock").symlink_to(tmp_path / "new")
        with pytest.raises(OSError, match=r"\.facelm-prepare\.lock"):
            prepare_archives([make_zip("afw.zip", OFFICIAL["afw.zip"])], tmp_path / "out")
        assert not (tmp_path / "new").exists()

    def test_encrypted(self, tmp_path, make_zip):
        archive = make_zip("afw.zip", OFFICIAL["afw.zip"])
        content = bytearray(archive.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both headers of each file
            start = content.find(signature)
            while start >= 0:
                content[start + offset] |= 1
                start = content.find(signature, start + 4)
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"afw\.zip: cannot be read: .*encrypted"):
            prepare_archives([archive], tmp_path / "out")
