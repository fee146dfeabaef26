"""Real faces: .pts, mmpose's JSON and the HRNet authors' CSV must be the same faces, boxes and splits, exactly.

The JSON and CSV are made here, in a temporary folder, from the .pts of `../shared/300w` in the published fields.
Folders of 300W that are not there are played by those that are: a link helen/testset leads to helen/trainset.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facelm.data.faces import data_fingerprint
from facelm.data.w300.index import SPLITS, index_faces
from w300_tree import WRITERS, published_box

FACES = Path(__file__).resolve().parents[3] / "shared" / "300w"
STANDS_FOR = {
    "afw": ["afw", "ibug", "300W/01_Indoor"],
    "helen/trainset": ["helen/trainset", "helen/testset"],
    "lfpw/trainset": ["lfpw/trainset", "lfpw/testset", "300W/02_Outdoor"],
}
PARTS = {"train": "train", "full": "valid", "common": "valid_common", "challenge": "valid_challenge", "test": "test"}

pytestmark = [
    pytest.mark.skipif(not FACES.is_dir(), reason=f"no {FACES.name} beside the checkout (real faces)"),
    pytest.mark.filterwarnings("ignore:300W is incomplete:UserWarning"),
]


def stored_numbers(pts: Path) -> np.ndarray:
    """The numbers of a .pts, read without facelm."""
    header, body = pts.read_text().split("{")
    assert header.split() == ["version:", "1", "n_points:", "68"]
    return np.array(body.rstrip("}\n").split(), dtype=float).reshape(68, 2)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    """The numbers of every .pts on disk by face name."""
    found = {source: sorted((FACES / source).glob("*.pts")) for source in STANDS_FOR}
    return {f"{source}/{pts.stem}": stored_numbers(pts) for source, paths in found.items() for pts in paths}


@pytest.fixture(scope="module")
def root(tmp_path_factory, stored) -> Path:
    """All of 300W's folders, with JSON and CSV of every split."""
    root = tmp_path_factory.mktemp("300w")
    rows: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
    for source, places in STANDS_FOR.items():
        faces = {name.rpartition("/")[2]: numbers for name, numbers in stored.items() if name.startswith(source)}
        for place in places:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).symlink_to(FACES / source)
            for split in (split for split in SPLITS if place.removeprefix("300W/") in SPLITS[split]):
                rows[split] |= {f"{place}/{name}.jpg": numbers for name, numbers in faces.items()}
    for split, part in PARTS.items():
        for kind, write in WRITERS.items():
            write(root / f"annotations/face_landmarks_300w_{part}.{kind}", rows[split])
    return root


def boxes(faces) -> np.ndarray:
    """center x, center y, scale as the published columns have them, [N, 3]."""
    return np.array([(*face.box.center, face.box.side / 200) for face in faces])


@pytest.mark.parametrize("split", list(SPLITS))
def test_three_formats_are_the_same_faces(root, agree, split):
    from_pts = index_faces(root, split, check_images=False)
    assert {face.folder for face in from_pts} == set(SPLITS[split])
    for kind in WRITERS:
        faces = index_faces(root, split, annotations=kind, check_images=False)
        assert [(face.name, face.image) for face in faces] == [(face.name, face.image) for face in from_pts]
        landmarks, expected = (np.array([face.landmarks_image for face in group]) for group in (faces, from_pts))
        agree(f"faces of {kind} and .pts: landmarks", landmarks, expected)
        agree(f"faces of {kind} and .pts: boxes", boxes(faces), boxes(from_pts))
        assert data_fingerprint(faces) == data_fingerprint(from_pts)


@pytest.mark.parametrize("pixel_origin", [0, 1])
def test_boxes_are_the_published_columns(root, stored, agree, pixel_origin):
    faces = index_faces(root, "train", annotations="csv", pixel_origin=pixel_origin, check_images=False)
    assert [face.name for face in faces] == sorted(stored)
    published = [published_box(stored[face.name]) for face in faces]
    expected = [(x - pixel_origin, y - pixel_origin, scale) for (x, y), scale in published]
    agree(f"boxes and center, scale columns, pixel_origin={pixel_origin}", boxes(faces), expected)


@pytest.mark.parametrize("kind", ["pts", "csv"])
def test_lists_divide_the_training_faces(root, stored, kind):
    train, dev = (
        {face.name for face in index_faces(root, "train", annotations=kind, list_file=FACES / name, check_images=False)}
        for name in ("train.txt", "dev.txt")
    )
    assert (len(train), len(dev)) == tuple(len((FACES / name).read_text().split()) for name in ("train.txt", "dev.txt"))
    assert not train & dev
    assert train | dev <= set(stored)


def test_every_real_photograph_passes_the_checks(stored):
    assert [face.name for face in index_faces(FACES, "train")] == sorted(stored)
