"""What the published 300W checkpoints were trained for, so that they evaluate to their own numbers.

A checkpoint's heatmaps mean nothing without the codec that made its training targets: decoding the HRNet authors'
heatmaps with mmpose's decoder moves every landmark by 2 px of 256 in x and in y (about 2 % NME). Both references
were trained on 300W's 1-based coordinates as they stand: `pixel_origin` 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Published:
    """A checkpoint's training conventions, and the inter-ocular NME in percent that was published for it.

    `codec` is what `facelm.codec.build_codec` takes; `flip` the flip test behind the published numbers (see
    `facelm.models.inference`). `nme` is empty for a file that only follows the conventions of a published one.
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

PUBLISHED = (MMPOSE, HRNET)


def recognise(file_name: str, naming: str, sha256: str = "") -> Published | None:
    """The conventions of a checkpoint, or None when the file does not give them away.

    A published file is known by its name or its content. Any other file with mmpose's key names gets mmpose's
    conventions, without its numbers. The authors' key names alone say nothing: facelm writes them too.
    """
    for published in PUBLISHED:
        stem = published.file.removesuffix(".pth").lower()
        same_content = bool(published.sha256_prefix) and sha256.startswith(published.sha256_prefix)
        if same_content or file_name.lower().startswith(stem):
            return published
    if naming in ("mmpose-1.x", "mmpose-0.x"):
        return replace(
            MMPOSE,
            title="trained with mmpose",
            file="",
            source="",
            nme={},
            sha256_prefix="",
            note="taken from key names",
        )
    return None
