"""What inference needs to know about weights, and how it travels: in every checkpoint and beside every exported file.

A checkpoint holds tensors and plain values, and is always read with `weights_only=True`. The `ModelSpec` in it is
names and numbers that are looked up in registries; the config stored beside it is a record that nothing instantiates.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from facelm import __version__
from facelm.codec import Codec, build_codec
from facelm.geometry.landmarks import LandmarkScheme, get_scheme
from facelm.models import ARCHITECTURES, HRNetV2, build_model
from facelm.models.inference import FLIPS, IMAGENET_MEAN, IMAGENET_STD
from facelm.models.reading import read_checkpoint


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that turns weights into landmarks.

    `crop_scale` is the crop's side in units of the box's; `codec` the codec's name and settings; `flip` the flip test
    (`none`, `shifted`, `exact`); `annotation_shift` how far to the right of what the network says all annotated
    points lie, in units of the box's side (benchmarks/annotation_shift.py); `pixel_origin` what was subtracted from the
    stored 1-based coordinates in training; `mean` and `std` normalise RGB values on 0..255.

    Raises:
        ValueError: a name that no registry knows, or a number out of range.
    """

    architecture: str
    scheme: str = "ibug68"
    crop_size: int = 256
    crop_scale: float = 1.25
    codec: Mapping[str, Any] = field(default_factory=lambda: {"name": "mmpose", "sigma": 1.5})
    flip: str = "none"
    annotation_shift: float = 0.0
    pixel_origin: int = 1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    version: str = __version__

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"no architecture {self.architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
        if self.flip not in FLIPS:
            raise ValueError(f"inference.flip is one of {', '.join(FLIPS)}; got {self.flip!r}")
        if self.crop_size < 32 or self.crop_size % 32:
            raise ValueError(f"crop.size is a multiple of 32 (the network halves it five times), got {self.crop_size}")
        if self.pixel_origin not in (0, 1):
            raise ValueError(f"data.pixel_origin is 0 or 1, got {self.pixel_origin!r}")
        if not (isinstance(self.annotation_shift, int | float) and abs(self.annotation_shift) < 0.1):
            raise ValueError(
                f"inference.annotation_shift is a share of the box's side, 300W's is about 0.005; got "
                f"{self.annotation_shift!r}"
            )
        self.build_codec()
        self.landmark_scheme()

    @property
    def stored_offset_image(self) -> tuple[float, float]:
        """How far (x, y) the network's points lie from 0-based pixels, in pixels of the image.

        With `pixel_origin` 0 all landmarks it learned from lay one pixel to the lower right of what they mark. Below it
        learned them; to the right of it did not, as in mirrored crops the same pixel is one to the left.
        """
        return 0.0, float(1 - self.pixel_origin)

    def reads_like(self, other: ModelSpec) -> bool:
        """Whether both mean the same by the same weights, however much of the codec is spelt out."""
        mine, theirs = ({**spec.to_dict(), "codec": spec.build_codec().spec()} for spec in (self, other))
        return mine == theirs

    @property
    def shift_crop(self) -> float:
        """`annotation_shift` in pixels of the crop."""
        return self.annotation_shift * self.crop_size / self.crop_scale

    def build_codec(self) -> Codec:
        """The codec at this crop size."""
        return build_codec(dict(self.codec), self.crop_size)

    def landmark_scheme(self) -> LandmarkScheme:
        """The landmark scheme."""
        return get_scheme(self.scheme)

    def build_network(self) -> HRNetV2:
        """The network with untrained weights."""
        return build_model(self.architecture, num_landmarks=self.landmark_scheme().num_landmarks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; `from_dict` takes them back."""
        plain = asdict(self)
        return {**plain, "codec": dict(self.codec), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelSpec:
        """The spec that `to_dict` wrote.

        Raises:
            ValueError: unknown or missing entries.
        """
        known = {f.name for f in fields(cls)}
        if unknown := set(plain) - known:
            raise ValueError(
                f"a model spec with unknown entries: {', '.join(sorted(unknown))}. It was written by facelm "
                f"{plain.get('version', '?')}, this is {__version__}: update facelm"
            )
        if "architecture" not in plain:
            raise ValueError("a model spec without `architecture`")
        tuples = {name: tuple(plain[name]) for name in ("mean", "std") if name in plain}
        return cls(**{**plain, **tuples})

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], path: Path | str = "the checkpoint") -> ModelSpec:
        """The spec inside a facelm checkpoint.

        Raises:
            ValueError: the checkpoint carries none, so it was not written by facelm.
        """
        facts = checkpoint.get("facelm") if isinstance(checkpoint, Mapping) else None
        if not isinstance(facts, Mapping) or "spec" not in facts:
            raise ValueError(f"{path} carries no facelm model spec: it was not written by facelm's training")
        return cls.from_dict(facts["spec"])

    def require_same_network(self, other: ModelSpec) -> None:
        """Raises ValueError if the weights of `self` mean something else than `other` expects."""
        for name, key in (("architecture", "model"), ("scheme", "landmarks"), ("codec", "codec")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"the checkpoint belongs to another {name}: {mine!r}, this run has {theirs!r}. "
                    f"Set `{key}` as it was, or start from the weights alone with model.weights=PATH"
                )


def checkpoint_facts(
    spec: ModelSpec, record: Mapping[str, Any], mean_shape: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """What facelm adds to a checkpoint: spec, plain config, versions, and the mean training shape `[K, 2]`."""
    versions = {"facelm": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return {"spec": spec.to_dict(), "config": dict(record), "versions": versions, "mean_shape": mean_shape}


def write_whole(checkpoint: Mapping[str, Any], path: Path | str) -> None:
    """Writes `checkpoint` to `path` whole or not at all: temporary file beside it, fsync, rename.

    Raises:
        OSError: the disk is full or the folder cannot be written; a previous file at `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        raise OSError(f"the checkpoint {path} was not written ({error}); a previous one is untouched") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_facelm_checkpoint(path: Path | str) -> dict[str, Any]:
    """The tensors and plain values of a checkpoint that facelm's training wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, a pickle that would run code (refused), or not written by facelm.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    checkpoint = read_checkpoint(path)
    ModelSpec.from_checkpoint(checkpoint, path)
    return checkpoint
