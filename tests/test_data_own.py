"""One's own faces: the same ones from COCO JSON, a table and .pts files, and what is wrong with such files."""

import copy
import csv
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import warm
from conftest import TINY, compose
from facelm.data.datamodule import FaceDataModule
from facelm.data.faces import Face
from facelm.data.own import OwnFaces
from facelm.data.w300.annotations import write_pts
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import get_scheme
from facelm.launch.build import build_data
from facelm.models.spec import ModelSpec
from facelm.training.lit import LitLandmarks
from facelm.training.losses import AdaptiveWing, AnisotropicLoss, HeatmapMSE
from own_data import NAMES, SCHEME, coco, photographs, write_coco
from tiny_networks import tiny


@pytest.fixture(scope="module")
def mine(drawn_root, tmp_path_factory):
    """(folder, faces): 12 photographs, their 20 points in faces.json, faces.csv and .pts files; the first lacks one."""
    folder = tmp_path_factory.mktemp("mine")
    faces = photographs(drawn_root, folder / "photos")
    write_coco(folder / "faces.json", coco(faces, folder / "photos", hidden={(0, 3)}))
    with (folder / "faces.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
        for number, (name, landmarks) in enumerate(faces):
            cells = landmarks.ravel().tolist()
            writer.writerow([name, *(("" if number == 0 and i in (6, 7) else cell) for i, cell in enumerate(cells))])
    shutil.copytree(folder / "photos", folder / "beside")
    for name, landmarks in faces:
        write_pts(folder / "beside" / f"{name.rpartition('.')[0]}.pts", landmarks)
    (folder / "mine.yaml").write_text(yaml.safe_dump(SCHEME))
    return folder, faces


def read(folder, train, root="photos", **options):
    return OwnFaces(folder / root, get_scheme(SCHEME), {"train": train, "val": None, "test": None}, **options)


@pytest.mark.parametrize("train", ["faces.json", "faces.csv"])
def test_the_same_faces_from_every_form(mine, train):
    folder, faces = mine
    found = read(folder, str(folder / train)).faces("train")
    beside = read(folder, None, root="beside").faces("train")
    assert [face.name for face in found] == [face.name for face in beside] == [f"Büro {i:02d}" for i in range(12)]
    assert np.isnan(found[0].landmarks_image[3]).all()
    assert np.isfinite(np.delete(found[0].landmarks_image, 3, axis=0)).all()
    for (_, landmarks), one, other in zip(faces[1:], found[1:], beside[1:], strict=True):
        assert np.allclose(one.landmarks_image, landmarks, atol=1e-9)
        assert np.allclose(other.landmarks_image, landmarks, atol=1e-9)
        assert one.image.name == other.image.name


def test_a_file_s_points_are_put_into_the_scheme_s_order(mine, tmp_path):
    folder, faces = mine
    turned = [(name, landmarks[::-1]) for name, landmarks in faces]
    path = write_coco(tmp_path / "turned.json", coco(turned, folder / "photos", names=NAMES[::-1]))
    found = read(folder, str(path)).faces("train")
    assert np.allclose(found[1].landmarks_image, faces[1][1], atol=1e-9)


def test_several_faces_of_a_photograph_stay_together(mine, tmp_path):
    folder, faces = mine
    content = coco(faces, folder / "photos")
    content["annotations"] += [{**one, "id": 100 + one["id"]} for one in content["annotations"][:6]]
    source = read(folder, str(write_coco(tmp_path / "two.json", content)))
    found = source.faces("train")
    assert [face.name for face in found][:4] == ["Büro 00", "Büro 00:2", "Büro 01", "Büro 01:2"]
    assert len({source.group(face) for face in found}) == 12


def _as_corners(annotation):
    left, top, width, height = annotation["bbox"]
    annotation["bbox"] = [left - 1, top - 1, left + width + 1, top + height + 1]


def _nothing(content):
    content["annotations"] = []


def _place(content, point):
    content["annotations"][3]["keypoints"][6:9] = point


MISTAKES = {
    "another number of points": (
        lambda c: c["annotations"][2]["keypoints"].pop(),
        "annotation 2: keypoints are a list",
    ),
    "fewer points": (
        lambda c: c["annotations"][2].update(keypoints=[1, 1, 2] * 19),
        "19 points, and there are to be 20",
    ),
    "other names": (lambda c: c["categories"][0].update(keypoints=[*NAMES[1:], "ear"]), "ear"),
    "more points": (
        lambda c: c["annotations"][2].update(keypoints=[1, 1, 2] * 21),
        "21 points, and there are to be 20",
    ),
    "doubled categories": (lambda c: c["categories"].append({"id": 1, "name": "x"}), "categories have an id twice: 1"),
    "no keypoints": (
        lambda c: [one.pop("keypoints") for one in c["annotations"]],
        "none of 12 annotations has keypoints",
    ),
    "unreadable": (lambda c: c["images"][3].update(file_name="broken.png"), "'.*broken.png'|broken.png:"),
    "one name of two photographs": (
        lambda c: [c["images"][i].update(file_name=f"/{i}/a.png") for i in (3, 4)],
        "are both 'a.png'",
    ),
    "left, top, right, bottom": (lambda c: [_as_corners(one) for one in c["annotations"]], "looks like left, top"),
    "RLE": (
        lambda c: [one.update(iscrowd=1, segmentation={"counts": "x", "size": [9, 9]}) for one in c["annotations"]],
        "no face of 'train'",
    ),
    "doubled ids": (lambda c: c["annotations"][1].update(id=0), "annotation 0 is there twice"),
    "a doubled image": (lambda c: c["images"][1].update(id=0), "images have an id twice: 0"),
    "no photograph": (lambda c: c["images"][3].update(file_name="gone.png"), "no photograph 'gone.png'"),
    "out of the folder": (lambda c: c["images"][3].update(file_name="../x.png"), "no photograph 'x.png'"),
    "another size": (lambda c: c["images"][3].update(width=7), "the annotations were made on 7 x"),
    "nothing labelled": (lambda c: c["annotations"][3].update(keypoints=[0, 0, 0] * 20), "no point is labelled"),
    "0 to 1": (lambda c: c["annotations"][3].update(keypoints=[0.3, 0.4, 2] * 20), "within 0..1"),
    "corners": (
        lambda c: c["annotations"][3].update(bbox=[*c["annotations"][3]["bbox"][:2], 1, 1]),
        "no point lies in its bbox|lies far outside",
    ),
    "placed by nobody": (
        lambda c: c["annotations"][3]["keypoints"].__setitem__(slice(0, 3), [0, 0, 2]),
        "nobody placed",
    ),
    "nor here": (lambda c: c["annotations"][3]["keypoints"].__setitem__(slice(3, 6), [-1, -1, 2]), "nobody placed"),
    "not a number": (lambda c: c["annotations"][3].update(keypoints=["x", 1, 2] * 20), "no number"),
    "infinity": (lambda c: c["annotations"][3].update(keypoints=[1e300, 1, 2] * 20), "no place in a photograph"),
    "unknown image": (lambda c: c["annotations"][3].update(image_id=77), "image_id 77"),
    "no images": (lambda c: c.pop("images"), "no `images`"),
    "a text": (lambda c: c.update(annotations="x"), "annotations is a list"),
    "nothing": (_nothing, "no face of 'train'"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_named(mine, tmp_path, what):
    folder, faces = mine
    content = copy.deepcopy(coco(faces, folder / "photos"))
    change, said = MISTAKES[what]
    change(content)
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read(folder, str(write_coco(tmp_path / "wrong.json", content))).faces("train")


def test_small_boxes_that_are_corners_are_said(mine, tmp_path, caplog):
    """None reaches out of its photograph, so no single one is known to be wrong."""
    folder, faces = mine
    content = coco(faces, folder / "photos")
    for one in content["annotations"]:
        one["keypoints"][:] = [value if i % 3 == 2 else 40 + value / 10 for i, value in enumerate(one["keypoints"])]
        xs, ys = one["keypoints"][0::3], one["keypoints"][1::3]
        one["bbox"] = [min(xs) - 1, min(ys) - 1, max(xs) + 1, max(ys) + 1]
    with caplog.at_level("WARNING"):
        read(folder, str(write_coco(tmp_path / "small.json", content))).faces("train")
    assert "left, top, right, bottom" in caplog.text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lambda cells: cells[:-1], "line 3: 40 cells"),
        (lambda cells: [*cells[:2], "1_0", *cells[3:]], "line 3: .*1_0"),
        (lambda cells: [cells[0], *[""] * 40], "line 3: no point is labelled"),
        (lambda cells: [cells[0], *(float(cell) / 1000 for cell in cells[1:])], "line 3: .*0..1"),
        (lambda cells: ["gone.png", *cells[1:]], "line 3: no photograph 'gone.png'"),
    ],
)
def test_each_mistake_of_a_table_is_named_with_its_line(mine, tmp_path, row, said):
    folder, _ = mine
    lines = list(csv.reader((folder / "faces.csv").read_text(encoding="utf-8").splitlines()))
    lines[2] = row(lines[2])
    with (tmp_path / "wrong.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(ValueError, match=said):
        read(folder, str(tmp_path / "wrong.csv")).faces("train")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert len(read(folder, str(tmp_path / "wrong.csv"), on_error="skip").faces("train")) == 11


def test_crowds_are_no_faces_and_boxes_may_be_absent(mine, tmp_path):
    folder, faces = mine
    content = coco(faces, folder / "photos")
    content["annotations"][0]["iscrowd"] = 1
    del content["annotations"][1]["bbox"]
    found = read(folder, str(write_coco(tmp_path / "crowd.json", content))).faces("train")
    assert len(found) == 11
    low, high = np.floor(faces[1][1].min(axis=0)), np.ceil(faces[1][1].max(axis=0))
    assert found[0].box.side == (high - low).max()


def test_faces_that_cannot_be_used_may_be_left_out(mine, tmp_path):
    folder, faces = mine
    content = coco(faces, folder / "photos")
    content["images"][3]["file_name"] = "gone.png"
    path = str(write_coco(tmp_path / "gone.json", content))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(read(folder, path, on_error="skip").faces("train")) == 11
    assert "gone.png" in str(said[0].message)


@pytest.mark.parametrize(
    "loss", [HeatmapMSE(), AdaptiveWing(), AnisotropicLoss()], ids=lambda loss: type(loss).__name__
)
def test_an_unlabelled_point_weighs_nothing(loss):
    """No gradient reaches its heatmap, and the others' are those of faces that are labelled in full."""
    spec = ModelSpec(architecture="hrnetv2_tiny", scheme=get_scheme(SCHEME), crop_size=64, codec={"name": "subpixel"})
    lit = LitLandmarks(spec=spec, net=tiny(0, num_landmarks=20).eval(), loss=loss)
    lit.log = lambda *_, **__: None
    crops = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    whole = torch.rand(2, 20, 2) * 60
    hidden = whole.clone()
    hidden[0, 7] = torch.nan
    gradients = []
    for landmarks in (whole, hidden):
        maps = []
        hook = lit.net.register_forward_hook(
            lambda _, __, output, kept=maps: kept.append(output) or output.retain_grad()
        )
        lit.training_step({"image": crops, "landmarks_crop": landmarks}, 0).backward()
        hook.remove()
        gradients.append(maps[0].grad.clone())
    assert (gradients[1][0, 7] == 0).all()
    assert (gradients[0][0, 7] != 0).any()
    gradients[0][0, 7] = 0
    assert torch.equal(*gradients)


def test_from_a_coco_file_to_an_onnx_file(mine, tmp_path):
    """The commands of docs/data.md: training, evaluation of the run, prediction, export; all with 20 points."""
    folder, _ = mine
    how = [
        *TINY,
        "experiment=own",
        "data=coco",
        f"data.root={folder / 'photos'}",
        f"data.train={folder / 'faces.json'}",
    ]
    how += ["landmarks=file", f"landmarks.file={folder / 'mine.yaml'}", "trainer.max_epochs=1", "hydra.run.dir=run"]

    def run(*command):
        done = warm.run(["-m", *command], cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]

    run("facelm.train", *how)
    before = json.loads((tmp_path / "run/report/summary.json").read_text())
    assert list(before["subsets"]) == ["held-out"]
    assert not any("absent" in note for note in before["notes"])
    run("facelm.evaluate", "checkpoint=run", "data.num_workers=0")
    after = json.loads((tmp_path / "run/report/summary.json").read_text())
    assert after["subsets"]["held-out"]["nme"] == pytest.approx(before["subsets"]["held-out"]["nme"], abs=1e-4)
    (folder / "mine.yaml").rename(folder / "moved.yaml")  # the checkpoint holds the scheme
    try:
        run("facelm.cli", "export", "--checkpoint", "run", "--out", "mine.onnx")
    finally:
        (folder / "moved.yaml").rename(folder / "mine.yaml")


def test_the_config_of_a_folder(mine):
    folder, _ = mine
    how = ["data=folder", f"data.root={folder / 'beside'}", "landmarks=file", f"landmarks.file={folder / 'mine.yaml'}"]
    data = build_data(compose("train", "experiment=own", *how, "data.cache=none"))
    data.setup()
    assert (len(data.train_faces), len(data.val_faces), data.scheme.num_landmarks) == (11, 1, 20)


def test_the_class_of_another_data_set_in_the_docs(tmp_path):
    """As docs/data.md has it, without a line of its own."""
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    code = re.search(r"## Another data set.*?```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    names = {"Face": Face, "FaceDataModule": FaceDataModule, "box_from_landmarks": box_from_landmarks}
    defined = {**names, "Path": Path, "Any": Any, "np": np}
    exec(code, defined)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        cv2.imwrite(str(tmp_path / split / "10_20_50_20_30_40_15_60_45_60.jpg"), np.zeros((80, 80, 3), np.uint8))
    scheme = {"name": "five", "points": 5, "normaliser": "box"}
    data = defined["NamedFaceDataModule"](root=str(tmp_path), crop_size=64, landmarks=scheme, num_workers=0)
    data.setup()
    assert (len(data.train_faces), data.val_name) == (1, "val")
    assert next(iter(data.train_dataloader()))["landmarks_crop"].shape == (1, 5, 2)
