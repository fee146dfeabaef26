"""What the published checkpoints were trained for, so that they evaluate to their own numbers.

A checkpoint's heatmaps mean nothing without the codec that made its training targets: decoding the HRNet authors'
heatmaps with mmpose's decoder moves every landmark by 2 px of 256 in x and in y (about 2 % NME). Both references
were trained on 300W's 1-based coordinates as they stand: `pixel_origin` 0. The other data sets' numbers are taken for
pixels by mmpose and by facelm's readers alike: `pixel_origin` 1, nothing to correct.

What is said of the files in `ZOO` is from mmpose's model zoo and configs: they could not be downloaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Published:
    """A checkpoint's training conventions, and the NME in percent that was published for it.

    `name` stands behind mmpose:// for its address, `scheme` is what its points are. `codec` is what
    `facelm.codec.build_codec` takes; `flip` the flip test behind the published numbers (see `facelm.models.inference`).
    `nme` is empty for a file that only follows the conventions of a published one.
    """

    title: str
    architecture: str
    num_landmarks: int
    crop_size: int
    crop_scale: float
    codec: Mapping[str, object]
    pixel_origin: int
    flip: str
    source: str
    file: str = ""
    sha256_prefix: str = ""
    name: str = ""
    scheme: str = "ibug68"
    nme: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


MMPOSE = Published(
    title="mmpose td-hm_hrnetv2-w18_8xb64-60e_300w",
    architecture="hrnetv2_w18",
    num_landmarks=68,
    crop_size=256,
    crop_scale=1.25,
    codec={"name": "mmpose", "sigma": 1.5},
    pixel_origin=0,
    flip="shifted",
    source="https://download.openmmlab.com/mmpose/face/hrnetv2/hrnetv2_w18_300w_256x256-eea53406_20211019.pth",
    file="hrnetv2_w18_300w_256x256-eea53406_20211019.pth",
    sha256_prefix="eea53406",
    name="300w_hrnetv2_w18",
    nme={"common": 2.92, "challenge": 5.64, "full": 3.45, "test": 4.10},
    note="mmpose 0.x published 2.86, 5.45, 3.37 and 3.97 for the same file; why the two tables differ is not known",
)

HRNET = Published(
    title="HRNet-Facial-Landmark-Detection HR18-300W",
    architecture="hrnetv2_w18",
    num_landmarks=68,
    crop_size=256,
    crop_scale=1.25,
    codec={"name": "hrnet", "sigma": 1.0},
    pixel_origin=0,
    flip="none",
    source="https://github.com/HRNet/HRNet-Facial-Landmark-Detection",
    file="HR18-300W.pth",
    nme={"common": 2.91, "challenge": 5.11, "full": 3.34, "test": 3.85},
    note="the authors' antialiased crop with its contrast stretched is not reproduced",
)

_ZOO = "https://download.openmmlab.com/mmpose/face/"
_SUBSETS = ("test", "pose", "illumination", "occlusion", "blur", "make-up", "expression")


def _zoo(
    name: str, scheme: str, points: int, path: str, codec: tuple[str, float], nme: Mapping[str, float]
) -> Published:
    """A file of mmpose's zoo by the name of our experiment, and its path there; `codec` is its name and sigma."""
    file = path.rpartition("/")[2]
    return replace(
        MMPOSE,
        title=f"mmpose {file.rpartition('-')[0]}",
        name=name,
        scheme=scheme,
        num_landmarks=points,
        codec={"name": codec[0], "sigma": codec[1]},
        pixel_origin=1,
        source=_ZOO + path,
        file=file,
        sha256_prefix=file.rpartition("-")[2].partition("_")[0],
        nme=nme,
        note="",
    )


def _wflw(*nme: float) -> dict[str, float]:
    return dict(zip(_SUBSETS, nme, strict=True))


ZOO = (
    _zoo(
        "wflw_hrnetv2_w18",
        "wflw98",
        98,
        "hrnetv2/hrnetv2_w18_wflw_256x256-2bf032a6_20210125.pth",
        ("mmpose", 2.0),
        _wflw(4.06, 6.97, 3.99, 4.83, 4.58, 3.94, 4.33),
    ),
    _zoo(
        "wflw_hrnetv2_w18_dark",
        "wflw98",
        98,
        "darkpose/hrnetv2_w18_wflw_256x256_dark-3f8e0c2c_20210125.pth",
        ("dark", 2.0),
        _wflw(3.98, 6.98, 3.96, 4.78, 4.56, 3.89, 4.29),
    ),
    _zoo(
        "wflw_hrnetv2_w18_awing",
        "wflw98",
        98,
        "hrnetv2/hrnetv2_w18_wflw_256x256_awing-5af5055c_20211212.pth",
        ("mmpose", 2.0),
        _wflw(4.02, 6.94, 3.97, 4.78, 4.59, 3.87, 4.28),
    ),
    _zoo(
        "cofw_hrnetv2_w18",
        "cofw29",
        29,
        "hrnetv2/hrnetv2_w18_cofw_256x256-49243ab8_20211019.pth",
        ("mmpose", 1.5),
        {"test": 3.48},
    ),
    _zoo(
        "aflw_hrnetv2_w18",
        "aflw19",
        19,
        "hrnetv2/hrnetv2_w18_aflw_256x256-f2bbc62b_20210125.pth",
        ("mmpose", 2.0),
        {"full": 1.41, "frontal": 1.27},
    ),
    _zoo(
        "aflw_hrnetv2_w18_dark",
        "aflw19",
        19,
        "darkpose/hrnetv2_w18_aflw_256x256_dark-219606c0_20210125.pth",
        ("dark", 2.0),
        {"full": 1.35, "frontal": 1.19},
    ),
    _zoo(
        "coco_wholebody_face_hrnetv2_w18",
        "ibug68",
        68,
        "hrnetv2/hrnetv2_w18_coco_wholebody_face_256x256-c1ca469b_20210909.pth",
        ("mmpose", 2.0),
        {"val": 5.69},
    ),
)

PUBLISHED = (MMPOSE, HRNET, *ZOO)

ADDRESSES = {f"mmpose://{one.name}": one.source for one in PUBLISHED if one.name}
"""Names that stand for the addresses of mmpose's files."""


def recognise(file_name: str, naming: str, sha256: str = "", num_landmarks: int | None = None) -> Published | None:
    """The conventions of a checkpoint, or None when the file does not give them away.

    A published file is known by its name or its content. Any other file with mmpose's key names gets the conventions of
    mmpose's own with as many landmarks, without its numbers; with 68 of 300W's. The authors' key names alone say
    nothing: facelm writes them too.
    """
    for published in PUBLISHED:
        stem = published.file.removesuffix(".pth").lower()
        same_content = bool(published.sha256_prefix) and sha256.startswith(published.sha256_prefix)
        if same_content or file_name.lower().startswith(stem):
            return published
    if naming in ("mmpose-1.x", "mmpose-0.x"):
        return replace(
            next((one for one in (MMPOSE, *ZOO) if one.num_landmarks == num_landmarks), MMPOSE),
            title="trained with mmpose",
            file="",
            source="",
            name="",
            nme={},
            sha256_prefix="",
            note="taken from key names",
        )
    return None
