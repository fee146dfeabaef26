"""The index of faces is used where no file has changed, and made anew in every other case."""

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from facelm.data.datamodule import FaceDataModule
from facelm.data.faces import data_fingerprint
from facelm.data.own import OwnFaces
from facelm.data.storage import kept_index
from facelm.data.storage.kept_index import KeptSource
from facelm.data.storage.watched import Watched, state_of
from facelm.data.w300.index import index_faces
from facelm.data.w300.source import W300Faces
from facelm.geometry.landmarks import IBUG68
from w300_tree import pts_text, some_landmarks, write_image, write_tree

FACES = 120
NAMES = [f"afw/face{number:03d}" for number in range(FACES)]


@pytest.fixture(autouse=True)
def worth_it_and_settled(monkeypatch):
    """So few faces are worth an index here, and their files are taken to be old."""
    monkeypatch.setattr(kept_index, "FEWEST", 1)
    monkeypatch.setattr(kept_index, "SETTLED", -3600.0)


@pytest.fixture
def root(tmp_path) -> Path:
    """300W's layout: one photograph under many names, points of each face."""
    write_image(tmp_path / "photo.jpg")
    (tmp_path / "root" / "afw").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        os.link(tmp_path / "photo.jpg", tmp_path / "root" / f"{name}.jpg")
        (tmp_path / "root" / f"{name}.pts").write_text(pts_text(some_landmarks(seed)))
    return tmp_path / "root"


class Counting:
    """A source that says how often it was read."""

    def __init__(self, source):
        self.source, self.read = source, 0
        self.__class__ = type("Counting", (Counting,), {"__module__": "facelm.data.test"})

    def __getattr__(self, name):
        return getattr(self.source, name)

    def faces(self, split, list_file=None):
        self.read += 1
        return self.source.faces(split, list_file)


def kept(root: Path, source=None) -> tuple[KeptSource, Counting]:
    counting = Counting(source or W300Faces(root))
    return KeptSource(counting, root.parent / "cache"), counting


def is_read_anew(root: Path, source=None) -> bool:
    again, counting = kept(root, source)
    expected = data_fingerprint((source or W300Faces(root)).faces("train"))
    assert data_fingerprint(again.faces("train")) == expected
    return counting.read == 1


class TestTheIndexIsUsed:
    def test_at_the_next_start(self, root):
        first, counting = kept(root)
        before = first.faces("train")
        assert is_read_anew(root) is False
        after = first.faces("train")
        assert counting.read == 1
        assert data_fingerprint(before) == data_fingerprint(after) == data_fingerprint(index_faces(root, "train"))
        assert [face.image for face in after] == [face.image for face in index_faces(root, "train")]

    def test_by_trainings(self, root, tmp_path, monkeypatch):
        def setup():
            data = FaceDataModule(root=str(root), crop_size=64, cache_dir=str(tmp_path / "cache"))
            data.setup()
            return data.train_faces.names(), data.val_faces.names()

        first = setup()
        monkeypatch.setattr(W300Faces, "faces", lambda *_: pytest.fail("read again"))
        assert setup() == first

    def test_with_the_same_messages(self, root, caplog):
        (root / "afw/face003.pts").write_text(pts_text(some_landmarks(3)[::-1]))
        source = W300Faces(root, on_error="skip")
        said = []
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.INFO), pytest.warns(UserWarning, match="cannot be used") as warned:
                KeptSource(source, root.parent / "cache").faces("train")
            told = [r.getMessage() for r in caplog.records if r.name != kept_index.__name__]
            said.append((sorted({str(one.message) for one in warned}), told))
        assert said[0] == said[1]
        assert "face003" in said[0][0][0]

    def test_of_ones_own_faces(self, root):
        own = OwnFaces(root, IBUG68, {"train": None})
        assert is_read_anew(root, own)
        assert not is_read_anew(root, own)

    def test_not_with_other_options(self, root):
        is_read_anew(root)
        assert is_read_anew(root, W300Faces(root, pixel_origin=0))
        assert not is_read_anew(root)


CHANGES = {
    "a point": lambda root: (root / "afw/face005.pts").write_text(pts_text(some_landmarks(99))),
    "a photograph": lambda root: write_image(root / "afw/new.jpg", 120).replace(root / "afw/face005.jpg"),
    "a face more": lambda root: write_tree(root, ["afw/more"]),
    "a face less": lambda root: [(root / f"afw/face007.{ending}").unlink() for ending in ("jpg", "pts")],
    "another name": lambda root: [
        (root / f"afw/face007.{ending}").rename(root / f"afw/other.{ending}") for ending in ("jpg", "pts")
    ],
    "a folder more": lambda root: write_tree(root, ["lfpw/trainset/image_0001"]),
}


class TestChangesAreNoticed:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    @pytest.mark.parametrize("own", [False, True])
    def test_of_every_kind(self, root, change, own):
        source = OwnFaces(root, IBUG68, {"train": None}) if own else W300Faces(root)
        is_read_anew(root, source)
        change(root)
        assert is_read_anew(root, source)
        assert not is_read_anew(root, source)

    def test_also_where_size_and_time_are_as_they_were(self, root):
        path = root / "afw/face005.pts"
        before, text = path.stat(), path.read_text()
        is_read_anew(root)
        path.write_text(text.replace("1", "2", 3).replace("version: 2", "version: 1"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        assert is_read_anew(root)

    def test_of_a_list(self, root, tmp_path):
        listed = tmp_path / "list.txt"
        listed.write_text("\n".join(NAMES[:50]))
        source, counting = kept(root)
        assert len(source.faces("train", str(listed))) == 50
        listed.write_text("\n".join(NAMES[:60]))
        assert len(source.faces("train", str(listed))) == 60
        assert len(source.faces("train", str(listed))) == 60
        assert counting.read == 2

    def test_of_a_photograph_that_lies_elsewhere(self, root, tmp_path):
        place = tmp_path / "elsewhere"
        write_tree(place, ["a/1"])
        source = OwnFaces(root, IBUG68, {"train": str(place)})
        assert is_read_anew(root, source)
        assert not is_read_anew(root, source)
        (place / "a/1.pts").write_text(pts_text(some_landmarks(98)))
        assert is_read_anew(root, source)

    def test_of_one_of_several_annotation_files(self, root, tmp_path):
        for name in ("a", "b"):
            write_tree(tmp_path / name, ["x/1", "x/2"])
        source = OwnFaces(root, IBUG68, {"train": [str(tmp_path / "a"), str(tmp_path / "b")]})
        assert is_read_anew(root, source)
        assert not is_read_anew(root, source)
        (tmp_path / "b/x/2.pts").write_text(pts_text(some_landmarks(97)))
        assert is_read_anew(root, source)

    def test_files_that_changed_just_now_are_read_again(self, root, monkeypatch):
        monkeypatch.setattr(kept_index, "SETTLED", 3600.0)
        assert is_read_anew(root)
        assert is_read_anew(root)

    def test_what_is_no_photograph_or_annotation_does_not_matter(self, root):
        is_read_anew(root)
        (root / "afw/notes.docx").write_text("")
        assert not is_read_anew(root)

    def test_links_in_a_circle_end(self, root):
        (root / "afw/self").symlink_to(root)
        assert state_of(Watched("", (root,), below=True)).digest


class TestDamage:
    def index(self, root) -> Path:
        is_read_anew(root)
        (path,) = (root.parent / "cache").glob("*.index")
        return path

    @pytest.mark.parametrize(
        "damage",
        [
            lambda b: b[:-70],
            lambda b: b[:10],
            lambda b: b"",
            lambda b: b[:9000] + b"?" + b[9001:],
            lambda b: b"x" + b[1:],
        ],
    )
    def test_a_damaged_index_is_made_anew(self, root, damage):
        path = self.index(root)
        path.write_bytes(damage(path.read_bytes()))
        assert is_read_anew(root)
        assert not is_read_anew(root)

    def test_so_is_one_of_another_version(self, root, monkeypatch):
        self.index(root)
        monkeypatch.setattr(kept_index, "_FORMAT", "another")
        assert is_read_anew(root)

    def test_a_folder_that_cannot_be_written_is_no_obstacle(self, root, tmp_path):
        (tmp_path / "cache").write_text("a file")
        assert is_read_anew(root)

    def test_a_full_disk_is_none_either(self, root, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(kept_index, "write_arrays", full)
        assert is_read_anew(root)
        assert not list((root.parent / "cache").glob("*.index"))

    def test_a_broken_source_says_so_each_time(self, root):
        (root / "afw/face003.pts").write_text("nothing")
        for _ in range(2):
            with pytest.raises(ValueError, match="face003"):
                kept(root)[0].faces("train")

    def test_a_kill_while_writing_leaves_the_former_index(self, root):
        path = self.index(root)
        before = path.read_bytes()
        CHANGES["a point"](root)

        def killed() -> None:
            kept_index.write_arrays = lambda file, _: (file.write(b"half"), os.kill(os.getpid(), signal.SIGKILL))
            kept(root)[0].faces("train")

        child = multiprocessing.get_context("fork").Process(target=killed)
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert path.read_bytes() == before
        assert is_read_anew(root)
        assert not is_read_anew(root)


def test_others_wait_for_the_one_that_reads(root):
    """Four starts at once: one reads, and each gets the same faces."""
    fork = multiprocessing.get_context("fork")
    reads, prints = fork.Value("i", 0), fork.Queue()

    def start() -> None:
        source, counting = kept(root)
        inner = counting.source.faces

        def slowly(*args):
            with reads.get_lock():
                reads.value += 1
            time.sleep(0.3)
            return inner(*args)

        counting.source.faces = slowly
        prints.put(data_fingerprint(source.faces("train")))

    children = [fork.Process(target=start) for _ in range(4)]
    for child in children:
        child.start()
    found = {prints.get(timeout=60) for _ in children}
    for child in children:
        child.join(60)
    assert reads.value == 1
    assert found == {data_fingerprint(index_faces(root, "train"))}


def test_who_waited_takes_the_word_of_who_asked(root):
    source, _ = kept(root)
    source.faces("train")
    asked = kept_index._Moment.now()
    source.faces("train")  # looks, and notes it
    (index,) = (root.parent / "cache").glob("*.index")
    (lock,) = (root.parent / "cache").glob("*.lock")
    digest = kept_index.read_index(index)[1]
    with lock.open("a+") as file:
        assert kept_index._told_since(asked, file, digest)
        assert not kept_index._told_since(asked, file, b"other" * 6)
        assert not kept_index._told_since(kept_index._Moment.now(), file, digest)


def test_the_first_version_of_the_format_is_read():
    """An index as the first facelm that kept any wrote it."""
    faces, digest, remarks, elsewhere = kept_index.read_index(Path(__file__).parent / "golden/index-1.index")
    assert [(face.name, str(face.image), face.orientation) for face in faces[:2]] == [
        ("afw/1", "/photographs/afw/1.jpg", 1),
        ("afw/2", "/photographs/afw/2.jpg", 6),
    ]
    assert faces[2].landmarks_image.tolist() == [[6.0 * row + 0.25, 6.0 * row + 3.25] for row in range(5)]
    assert faces[2].box.center == (13.5, 16.5)
    assert faces[2].subsets == ("pose", "blur")
    assert faces[2].occluded.tolist() == [False, False, True, False, False]
    assert faces[0].occluded is None
    assert digest == bytes(range(32))
    assert remarks[1] == ("", 0, "300W is incomplete")
    assert elsewhere == [b"/elsewhere/1.jpg", b"/elsewhere/2.jpg"]
