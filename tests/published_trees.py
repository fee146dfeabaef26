"""Drawn faces as published data sets ship theirs: every form of each, with all that their readers look at.

The points are made of the 68 drawn ones, in the numbers and orders of nobody's scheme: what is compared is where they
come from, not what they are.
"""

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import cv2
import numpy as np

from facelm.data.images import read_image
from facelm.data.w300.index import index_faces
from facelm.geometry.boxes import Box, box_from_landmarks

COUNTS = {"wflw": 98, "cofw": 29, "aflw": 19, "lapa": 106, "w300lp": 68, "coco_wholebody": 68}
ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
FILE_PARTS = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")


@dataclass(eq=False)
class Drawn:
    """A face as a data set has it, and the `name` that it is to get."""

    image: str
    source: object  # the path of the photograph that was drawn
    points: np.ndarray
    box: Box
    subsets: tuple = ()
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    later: bool = False

    @property
    def name(self):
        return PurePosixPath(self.image).stem + (":2" if self.later else "")


def size_of(drawn):
    height, width = read_image(drawn.source).shape[:2]
    return width, height


def spread(points, count):
    """`count` points on and between the 68."""
    places = np.linspace(0, 67, count)
    return np.stack([np.interp(places, np.arange(68), points[:, i]) for i in (0, 1)], axis=1)


def tight(points):
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def faces_of(drawn_root, name, split, count):
    """`count` faces of a data set's split; the first two are of one photograph where the data set has such."""
    found = []
    for number, face in enumerate(index_faces(drawn_root, "train" if split == "train" else "common")[:count]):
        points = np.round(spread(face.landmarks_image, COUNTS[name]), 3)
        if name == "w300lp":
            points = points.astype(np.float32).astype(float)
        pattern = {
            "wflw": "{0}--Parade/{0}_Parade_{1}_{2}.jpg", "cofw": "{3:06d}.jpg", "aflw": "{0}/image{3:05d}.jpg",
            "lapa": "{1}{2:03d}_0.jpg", "w300lp": "AFW/AFW_{3}_1_0.jpg", "coco_wholebody": "{3:012d}.jpg",
        }[name]  # fmt: skip
        serial = number + 1 + (1345 if split != "train" else 0)
        image = pattern.format(number % 2, split, number, serial)
        hidden = np.arange(COUNTS[name]) % 5 == number % 5 if name == "cofw" else np.zeros(COUNTS[name], bool)
        attributes = tuple(a for i, a in enumerate(ATTRIBUTES) if (number + i) % 3 == 0) if name == "wflw" else ()
        subsets = attributes if name == "wflw" else (("frontal",) if name == "aflw" and number % 2 else ())
        found.append(
            Drawn(image, face.image, points, box_from_landmarks(points), subsets if split != "train" else (), hidden)
        )
    if name in ("wflw", "coco_wholebody") and count > 1:
        moved = found[0].points - [3, 0]  # the second annotation of the photograph, left of the first
        found[0].later = True
        found[1] = Drawn(found[0].image, found[0].source, moved, box_from_landmarks(moved), found[1].subsets)
    return found


def photographs(faces, folder, name_of=lambda face: face.image):
    """The photographs in `folder`, as JPEG of nearly the drawn pixels."""
    for face in faces:
        path = folder / name_of(face)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.imread(str(face.source)), [cv2.IMWRITE_JPEG_QUALITY, 98])


def mmpose_json(path, faces, extra=lambda face: {}, points="keypoints", bbox="bbox"):
    """COCO-keypoints JSON as mmpose's converters write it, in an order of its own."""
    names = list(dict.fromkeys(face.image for face in faces))
    sizes = {face.image: size_of(face) for face in faces}
    images = [{"id": i, "file_name": n, "width": sizes[n][0], "height": sizes[n][1]} for i, n in enumerate(names)]
    annotations = []
    for number, face in enumerate(reversed(faces)):
        flags = np.where(face.hidden, 1, 2) if face.hidden.size else np.full(len(face.points), 2)
        keypoints = np.column_stack([face.points, flags]).ravel().tolist()
        entry = {"id": number, "image_id": names.index(face.image), "category_id": 1, "iscrowd": 0}
        annotations.append({**entry, points: keypoints, bbox: tight(face.points), **extra(face)})
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face", "keypoints": []}]}
    path.write_text(json.dumps(content))


def centered(face):
    """What mmpose's JSON of WFLW and AFLW adds."""
    return {"center": list(face.box.center), "scale": face.box.side / 200, "box_size": face.box.side}


def hrnet_csv(path, faces, box_size=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        points = [f"original_{i}_{axis}" for i in range(len(faces[0].points)) for axis in "xy"]
        writer.writerow(["image_name", "scale", *(["box_size"] if box_size else []), "center_w", "center_h", *points])
        for face in faces[1:] + faces[:1]:
            scale = [face.box.side / 200, *([face.box.side] if box_size else [])]
            writer.writerow([face.image, *scale, *face.box.center, *face.points.ravel().tolist()])


def wflw(root, form, splits):
    for split, faces in splits.items():
        photographs(faces, root / ("WFLW_images" if form == "txt" else "images"))
        if form == "txt":
            folder = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
            folder.mkdir(parents=True, exist_ok=True)
            lines = []
            for face in faces:
                x, y, width, height = tight(face.points)
                flags = [str(int(a in face.subsets)) for a in ATTRIBUTES]
                numbers = [*face.points.ravel().tolist(), *map(int, (x, y, x + width, y + height))]
                lines.append(" ".join([*map(str, numbers), *flags, face.image]))
            (folder / f"list_98pt_rect_attr_{split}.txt").write_text("\n".join(lines) + "\n")
            continue
        parts = {"": faces}
        if split == "test":
            parts |= {
                f"_{p}": [f for f in faces if a in f.subsets] for a, p in zip(ATTRIBUTES, FILE_PARTS, strict=True)
            }
        for part, those in parts.items():
            name = f"face_landmarks_wflw_{split}{part}"
            if form == "json":
                mmpose_json(root / "annotations" / f"{name}.json", those, centered)
            else:
                hrnet_csv(root / f"{name}.csv", those)


def aflw(root, form, splits):
    for split, faces in splits.items():
        photographs(faces, root / "images" / "flickr")
        parts = {"": faces} | ({"_frontal": [f for f in faces if f.subsets]} if split != "train" else {})
        for part, those in parts.items():
            name = f"face_landmarks_aflw_{'train' if split == 'train' else 'test'}{part}"
            if form == "json":
                mmpose_json(root / "annotations" / f"{name}.json", those, centered)
            else:
                hrnet_csv(root / f"{name}.csv", those, box_size=True)


def cofw(root, form, splits):
    for split, faces in splits.items():
        if form == "json":
            photographs(faces, root / "images")
            mmpose_json(root / "annotations" / f"cofw_{split}.json", faces)
        else:
            cofw_mat(root / f"COFW_{split}_color.mat", faces, "Tr" if split == "train" else "T")


def cofw_mat(path, faces, ending):
    """The file that COFW's authors wrote with MATLAB 7.3: all axes the other way round, photographs as references."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as mat:
        images = mat.create_dataset(f"Is{ending}", (1, len(faces)), dtype=h5py.ref_dtype)
        for number, face in enumerate(faces):
            pixels = read_image(face.source)
            if number == 1:
                pixels = pixels[..., 0]  # some of COFW's are grey
            images[0, number] = mat.create_dataset(f"#refs#/{number}", data=pixels.T).ref
        rows = [np.concatenate([*(face.points + 1).T, face.hidden.astype(float)]) for face in faces]
        mat[f"phis{ending}"] = np.array(rows).T
        mat[f"bboxes{ending}"] = np.array([tight(face.points) for face in faces]).T


def lapa(root, form, splits):
    for split, faces in splits.items():
        photographs(faces, root / split / "images")
        if form == "txt":
            (root / split / "landmarks").mkdir(parents=True, exist_ok=True)
            for face in faces:
                lines = ["106", *(f"{x} {y}" for x, y in face.points.tolist())]
                (root / split / "landmarks" / f"{face.image[:-4]}.txt").write_text("\n".join(lines) + "\n")
        else:
            there = [replace(face, image=f"{split}/images/{face.image}") for face in faces]
            mmpose_json(root / "annotations" / f"lapa_{split}.json", there)


def w300lp(root, form, splits):
    from scipy.io import savemat

    for split, faces in splits.items():
        if form == "json":
            flat = [replace(face, image=face.image.rpartition("/")[2]) for face in faces]
            photographs(flat, root / split)
            mmpose_json(root / "annotations" / f"face_landmarks_300wlp_{split}.json", flat)
        elif split == "train":
            photographs(faces, root)
            for number, face in enumerate(faces):
                roi, path = np.array([[1, 2, 3, 4]]), (root / face.image).with_suffix(".mat")
                savemat(path, {"pt2d": face.points.T.astype(np.float32) + 7 * (number == 0), "roi": roi})
            apart = root / "landmarks" / f"{faces[0].image[:-4]}_pts.mat"
            apart.parent.mkdir(parents=True, exist_ok=True)
            savemat(apart, {"pts_2d": faces[0].points.astype(np.float32), "pts_3d": faces[0].points})


def coco_wholebody(root, form, splits):
    for split, faces in splits.items():
        photographs(faces, root / f"{split}2017")
        path = root / "annotations" / f"coco_wholebody_{split}_v1.0.json"
        body = {"keypoints": [5.0, 5.0, 2] * 17, "bbox": [0, 0, 90, 90], "face_valid": True}
        mmpose_json(path, faces, lambda _, body=body: body, "face_kpts", "face_box")
        content = json.loads(path.read_text())
        nobody = {**content["annotations"][0], "id": 99, "face_valid": False, "face_kpts": [0.0] * 204}
        content["annotations"].append(nobody)
        content["categories"][0]["keypoints"] = [f"joint {i}" for i in range(17)]
        path.write_text(json.dumps(content))


WRITERS = {
    "wflw": (wflw, ("txt", "json", "csv")),
    "cofw": (cofw, ("mat", "json")),
    "aflw": (aflw, ("json", "csv")),
    "lapa": (lapa, ("txt", "json")),
    "w300lp": (w300lp, ("mat", "json")),
    "coco_wholebody": (coco_wholebody, ("json",)),
}
SPLITS = {"aflw": ("train", "full"), "lapa": ("train", "val", "test"), "w300lp": ("train", "val"),
          "coco_wholebody": ("train", "val")}  # fmt: skip
FORMS = [(name, form) for name, (_, forms) in WRITERS.items() for form in forms]


def write_tree(drawn_root, root, name, form, count=6):
    """A data set's tree under `root` in one of its forms; its faces by split."""
    splits = {s: faces_of(drawn_root, name, s, min(count, 6)) for s in SPLITS.get(name, ("train", "test"))}
    WRITERS[name][0](root, form, splits)
    return splits
