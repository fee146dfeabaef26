"""Faces packed into arrays are the faces that they were, in memory, in a file and in another process."""

import os
import pickle
import zlib
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face, data_fingerprint, name_hashes
from facelm.data.storage.array_file import map_arrays, write_arrays
from facelm.geometry.boxes import Box, box_from_landmarks

RNG = np.random.default_rng(0)


def face(number: int, **changes) -> Face:
    points = RNG.uniform(0, 100, (5, 2))
    made = Face(f"afw/{number}_1", Path(f"/photographs/afw/{number}_1.jpg"), points, box_from_landmarks(points), "afw")
    return replace(made, **changes)


@pytest.fixture
def faces() -> list[Face]:
    """Such as differ in every field, with names of all kinds of bytes."""
    unlabelled = RNG.uniform(0, 100, (5, 2))
    unlabelled[2] = np.nan
    strange = os.fsdecode(b"helen/\xff\xfe \xe5\x8f\xb0.1")
    return [
        face(1),
        face(2, orientation=6, subsets=("pose", "blur"), occluded=np.array([1, 0, 0, 1, 0], bool)),
        face(3, landmarks_image=unlabelled, subsets=("blur",)),
        face(4, name=strange, image=Path(f"/elsewhere/{strange}.png"), folder="helen"),
        face(5, box=Box((10.5, 3.25), 7.0, 12.0), occluded=np.zeros(5, bool)),
    ]


def assert_same(one: Face, other: Face) -> None:
    for field in fields(Face):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        else:
            assert type(first) is type(second)
            assert first == second
            assert repr(first) == repr(second)


def all_same(some, others) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert_same(one, other)


def written(path: Path, faces: FaceArrays, before: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(before)
        write_arrays(file, faces.arrays())
        file.write(b"something else")
    return path


class TestAFaceIsAView:
    def test_it_has_all_that_was_packed(self, faces):
        all_same(FaceArrays.of(faces), faces)

    def test_packed_faces_are_not_packed_again(self, faces):
        packed = FaceArrays.of(faces)
        assert FaceArrays.of(packed) is packed

    def test_identities_are_those_of_the_list(self, faces):
        packed = FaceArrays.of(faces)
        assert data_fingerprint(packed) == data_fingerprint(faces)
        assert data_fingerprint(packed[::-1]) == data_fingerprint(faces)
        assert name_hashes(packed) == name_hashes(faces)
        assert packed.names() == [face.name for face in faces]

    def test_it_can_be_written_to_and_changed_alone(self, faces):
        packed = FaceArrays.of(faces)
        packed[0].landmarks_image[:] = 0
        assert_same(packed[0], faces[0])
        assert_same(replace(packed[1], folder="x"), replace(faces[1], folder="x"))

    def test_it_reads_its_photograph_or_another(self, tmp_path):
        for name, grey in (("a", 10), ("caf\udce9", 200)):
            content = cv2.imencode(".png", np.full((3, 2, 3), grey, np.uint8))[1].tobytes()
            (tmp_path / f"{name}.png").write_bytes(content)
        packed = FaceArrays.of([face(1, image=tmp_path / "caf\udce9.png", orientation=6)])
        assert packed[0].read().shape == (2, 3, 3)
        assert packed[0].read()[0, 0, 0] == 200
        assert replace(packed[0], image=tmp_path / "a.png").read()[0, 0, 0] == 10

    def test_it_goes_to_another_process_by_itself(self, faces):
        view = FaceArrays.of(faces * 100)[1]
        assert len(pickle.dumps(view)) < 2000
        assert_same(pickle.loads(pickle.dumps(view)), faces[1])

    def test_faces_of_different_points_are_refused(self, faces):
        with pytest.raises(ValueError, match="3 and 5"):
            FaceArrays.of([*faces, face(9, landmarks_image=np.zeros((3, 2)))])


class TestSelections:
    @pytest.mark.parametrize(
        "chosen",
        [
            slice(1, 4),
            slice(None, None, -2),
            [3, 0],
            np.array([4, 4, 1]),
            np.array([True, False, True, False, True]),
            [],
        ],
    )
    def test_are_faces_too(self, faces, chosen):
        expected = np.arange(len(faces))[
            chosen if isinstance(chosen, slice) else np.array(chosen, getattr(chosen, "dtype", int))
        ]
        packed = FaceArrays.of(faces)[chosen]
        all_same(packed, [faces[i] for i in expected])
        all_same(FaceArrays.from_arrays(packed.arrays()), packed)
        np.testing.assert_array_equal(
            packed.landmarks_image, np.array([f.landmarks_image for f in packed]).reshape(-1, 5, 2)
        )

    def test_of_selections(self, faces):
        all_same(FaceArrays.of(faces)[1:][::2][[-1]], [faces[3]])

    @pytest.mark.parametrize("at_once", [1, 2, 1000])
    def test_texts_of_all_at_once(self, faces, at_once, monkeypatch):
        monkeypatch.setattr("facelm.data.storage.texts._AT_ONCE", at_once)
        packed = FaceArrays.of(faces)
        assert packed.names() == [one.name for one in faces]
        assert packed.images() == [os.fsencode(one.image) for one in faces]
        assert packed[[3, 0]].images() == [os.fsencode(faces[3].image), os.fsencode(faces[0].image)]
        assert packed[:0].images() == []
        assert packed.folders() == {"afw": 4, "helen": 1}
        assert packed[:2].folders() == {"afw": 2, "helen": 0}

    def test_paths_are_those_of_the_file_system(self, faces, monkeypatch):
        """Whose names need not be UTF-8, in which they are kept."""
        monkeypatch.setattr(os, "fsencode", lambda path: path.encode("utf-16", "surrogatepass"))
        assert FaceArrays.of(faces[:1]).images() == [str(faces[0].image).encode("utf-16")]

    def test_count_from_the_end(self, faces):
        packed = FaceArrays.of(faces)
        assert_same(packed[-1], faces[-1])
        assert_same(packed[1:3][-2], faces[1])
        with pytest.raises(IndexError):
            packed[1:3][2]

    def test_joined(self, faces):
        packed = FaceArrays.of(faces)
        all_same(
            FaceArrays.joined([packed[3:], packed[:0], packed[:1], FaceArrays.of([face(8, folder="x")])])[:3],
            [*faces[3:], faces[0]],
        )
        assert FaceArrays.joined([packed]) is packed


class TestInAFile:
    def test_the_arrays_are_mapped_as_they_were_written(self, faces, tmp_path):
        packed = FaceArrays.of(faces)
        all_same(FaceArrays.mapped(written(tmp_path / "f", packed, bytes(128)), 128), faces)
        all_same(FaceArrays.mapped(written(tmp_path / "g", packed[2:4])), faces[2:4])

    def test_another_process_gets_the_path(self, faces, tmp_path):
        mapped = FaceArrays.mapped(written(tmp_path / "f", FaceArrays.of(faces * 100)))
        sent = pickle.dumps(mapped[:3])
        assert len(sent) < 1000
        all_same(pickle.loads(sent), faces[:3])

    def test_but_not_of_a_file_that_is_another_by_now(self, faces, tmp_path):
        sent = pickle.dumps(FaceArrays.mapped(written(tmp_path / "f", FaceArrays.of(faces))))
        written(tmp_path / "new", FaceArrays.of(faces[::-1])).replace(tmp_path / "f")
        with pytest.raises(ValueError, match="replaced"):
            pickle.loads(sent)

    def test_arrays_in_memory_go_as_they_are(self, faces):
        all_same(pickle.loads(pickle.dumps(FaceArrays.of(faces)[1:3])), faces[1:3])

    def test_every_cut_is_noticed(self, faces, tmp_path):
        path = written(tmp_path / "f", FaceArrays.of(faces))
        content = path.read_bytes()
        for length in range(0, len(content) - 14, 61):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError):
                FaceArrays.mapped(path)

    def test_every_changed_byte_is_noticed(self, faces, tmp_path):
        path = written(tmp_path / "f", FaceArrays.of(faces))
        content = path.read_bytes()
        for at in [at for at in range(0, len(content) - 14, 37) if not 28 <= at < 32]:  # but in the head's padding
            damaged = bytearray(content)
            damaged[at] ^= 0x41
            path.write_bytes(damaged)
            with pytest.raises(ValueError):
                FaceArrays.mapped(path)

    @pytest.mark.parametrize(
        "changed",
        [
            {"folder": np.array([0, 1, 2, 3, 99], "<i4")},
            {"folder": np.array([0, 0, -1, 0, 0], "<i4")},
            {"name_ends": np.array([5, 4, 6, 7, 8], "<i8")},
            {"image_bytes": np.zeros(3, np.uint8)},
            {"box": np.zeros((4, 4))},
            {"landmarks": np.zeros((5, 5, 3))},
            {"orientation": np.zeros(5)},
            {"occluded": np.zeros((5, 4), np.int8)},
        ],
    )
    def test_arrays_that_are_no_faces_are_refused(self, faces, changed):
        with pytest.raises(ValueError, match="no faces"):
            FaceArrays.from_arrays({**FaceArrays.of(faces).arrays(), **changed})

    def test_missing_arrays_are_named(self, faces):
        arrays = FaceArrays.of(faces).arrays()
        del arrays["box"]
        with pytest.raises(ValueError, match="box"):
            FaceArrays.from_arrays(arrays)

    def test_a_list_of_arrays_that_point_elsewhere_is_refused(self, tmp_path):
        path = tmp_path / "f"
        with path.open("wb") as file:
            write_arrays(file, {"a": np.arange(3)})
        content = path.read_bytes()
        text = content[32:96].replace(b"[3], 0]", b"[9999], 0]").rstrip().ljust(64)
        path.write_bytes(
            content[:24] + zlib.crc32(text + content[96:]).to_bytes(4, "little") + bytes(4) + text + content[96:]
        )
        with pytest.raises(ValueError, match="cut"):
            map_arrays(path)
