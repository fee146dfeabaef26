"""What inference needs to know about weights, and how it travels: in every checkpoint and beside every exported file.

A checkpoint holds tensors and plain values, and is always read with `weights_only=True`. The `ModelSpec` in it is
names and numbers that are looked up in registries; the config stored beside it is a record that nothing instantiates.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facelm import __version__, checked
from facelm.codec import Codec, build_codec
from facelm.files import writing
from facelm.geometry.landmarks import IBUG68, LandmarkScheme, plain_scheme, told_scheme
from facelm.models import ARCHITECTURES, build_model, own
from facelm.models.expected import ExpectedError
from facelm.models.hrnet import is_hrnet
from facelm.models.inference import FLIPS, IMAGENET_MEAN, IMAGENET_STD
from facelm.models.reading import name_hashes_in, read_checkpoint

LARGEST_CROP = 2048
"""Pixels of a crop's side."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that turns weights into landmarks.

    `architecture` names one of facelm's networks, or the class `package.module.Class` of the user's own, which is made
    with `arguments`: a record, never imported. `crop_scale` is the crop's side in units of the box's; `codec` the
    codec's name and settings; `flip` the flip test (`none`, `shifted`, `exact`); `annotation_shift` how far to the
    right of what the network says all annotated points lie, in units of the box's side
    (benchmarks/annotation_shift.py); `pixel_origin` what was subtracted from the stored 1-based coordinates in
    training; `mean` and `std` normalise RGB values on 0..255; `expected_error` how far points are off by their peaks,
    where that was measured.

    Raises:
        ValueError: a name that no registry knows, or a number out of range.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    scheme: LandmarkScheme = IBUG68
    crop_size: int = 256
    crop_scale: float = 1.25
    codec: Mapping[str, Any] = field(default_factory=lambda: {"name": "mmpose", "sigma": 1.5})
    flip: str = "none"
    annotation_shift: float = 0.0
    pixel_origin: int = 1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    version: str = __version__
    expected_error: ExpectedError | None = None

    def __post_init__(self) -> None:
        name = checked.text(self.architecture, "model.name", longest=200)
        if name not in ARCHITECTURES and not own.CLASS_PATH.fullmatch(name):
            known = ", ".join(sorted(ARCHITECTURES))
            raise ValueError(f"no architecture {name!r}; known: {known}, or your own as package.module.Class")
        object.__setattr__(self, "arguments", own.plain_arguments(self.arguments))
        if self.arguments and name in ARCHITECTURES:
            raise ValueError(f"{name} takes no arguments, got {checked.shown(self.arguments)}")
        if self.flip not in FLIPS:
            raise ValueError(f"inference.flip is one of {', '.join(FLIPS)}; got {checked.shown(self.flip)}")
        if checked.integer(self.crop_size, "crop.size", 32, LARGEST_CROP) % 32:
            raise ValueError(f"crop.size is a multiple of 32 (the network halves it five times), got {self.crop_size}")
        checked.number(self.crop_scale, "crop.scale", 0.1, 10)
        if type(self.pixel_origin) is not int or self.pixel_origin not in (0, 1):
            raise ValueError(f"data.pixel_origin is 0 or 1, got {checked.shown(self.pixel_origin)}")
        if not (checked.is_finite(self.annotation_shift) and abs(self.annotation_shift) < 0.1):
            raise ValueError(
                f"inference.annotation_shift is a share of the box's side, 300W's is about 0.005; got "
                f"{checked.shown(self.annotation_shift)}"
            )
        checked.numbers(self.mean, "mean", 3, -1e4, 1e4)
        checked.numbers(self.std, "std", 3, 1e-3, 1e4)
        checked.text(self.version, "version", longest=100)
        for option, value in checked.mapping(self.codec, "codec").items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                checked.number(value, f"codec.{option}", -1000, 1000)
            elif not isinstance(value, str | bool | None):
                raise ValueError(f"codec.{option} is a number or a name, got {checked.shown(value)}")
        if self.expected_error:
            checked.numbers(self.expected_error.scale, "expected_error.scale", self.scheme.num_landmarks, 0, 1e4)
        self.build_codec()

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

    @property
    def known_error(self) -> ExpectedError | None:
        """`expected_error` where it is that of this flip test: another one's peaks are others."""
        return self.expected_error if self.expected_error and self.expected_error.flip == self.flip else None

    def build_codec(self) -> Codec:
        """The codec at this crop size.

        Raises:
            ValueError: there is none such.
        """
        try:
            return build_codec(dict(self.codec), self.crop_size)
        except (TypeError, ArithmeticError) as error:  # an option of another type than it should be
            raise ValueError(f"no codec {checked.shown(dict(self.codec))}: {error}") from error

    def landmark_scheme(self) -> LandmarkScheme:
        """The landmark scheme."""
        return self.scheme

    def build_network(self, network: own.Network | None = None) -> nn.Module:
        """The network with untrained weights; `network` is its class, where that is none of facelm's.

        Raises:
            ValueError: the class is missing, is not wanted, or does not make such a network.
        """
        landmarks = self.landmark_scheme().num_landmarks
        if self.architecture in ARCHITECTURES:
            if network is not None:
                raise ValueError(f"these weights are facelm's {self.architecture}: leave out {own.path_of(network)}")
            return build_model(self.architecture, num_landmarks=landmarks)
        if network is None:
            raise ValueError(
                f"these weights are those of {self.architecture}, none of facelm's networks, and no file has anything "
                "imported. If you trust that class, name it: network=CLASS in Python, "
                f"network={self.architecture} for facelm.evaluate, --network {self.architecture} for the commands"
            )
        return own.build(network, self.arguments, landmarks, self.crop_size)

    def require_network(self, net: nn.Module) -> None:
        """Refuses a network that is another than a checkpoint with this spec would be loaded into.

        Raises:
            ValueError: it is.
        """
        config = ARCHITECTURES.get(self.architecture)
        if config is None:
            with torch.random.fork_rng(devices=[]):  # a second network leaves no trace in the training
                own.require_same_state(net, self.build_network(type(net)))
        elif not is_hrnet(net) or net.config != config or net.num_landmarks != self.landmark_scheme().num_landmarks:
            raise ValueError(
                f"the network is no {self.architecture} for {self.scheme.name} (it is a {own.path_of(type(net))}), as "
                "its checkpoints would say. Your own is ModelSpec(architecture='package.module.Class', arguments={...})"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; `from_dict` takes them back."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain |= {"scheme": plain_scheme(self.scheme), "codec": dict(self.codec), "arguments": dict(self.arguments)}
        plain |= {"mean": list(self.mean), "std": list(self.std)}
        plain["expected_error"] = self.expected_error and self.expected_error.to_dict()
        for name in ("arguments", "expected_error"):
            if not plain[name]:  # as before there were any
                del plain[name]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelSpec:
        """The spec that `to_dict` wrote.

        Raises:
            ValueError: unknown or missing entries.
        """
        plain = checked.mapping(plain, "a model spec")
        if unknown := set(plain) - {f.name for f in fields(cls)}:
            raise ValueError(
                f"a model spec with unknown entries: {', '.join(sorted(unknown))[:200]}. It was written by facelm "
                f"{checked.shown(plain.get('version', '?'))}, this is {__version__}: update facelm"
            )
        if "architecture" not in plain:
            raise ValueError("a model spec without `architecture`")
        if "scheme" in plain:
            plain["scheme"] = told_scheme(plain["scheme"])
        if isinstance(codec := plain.get("codec"), Mapping) and "name" in codec:
            plain["codec"] = {**codec, "name": checked.renamed(codec["name"])}
        if "expected_error" in plain:
            plain["expected_error"] = ExpectedError.from_dict(plain["expected_error"])
        for name in ("mean", "std"):
            if isinstance(plain.get(name), list):
                plain[name] = tuple(plain[name])
        return cls(**plain)

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], path: Path | str = "the checkpoint") -> ModelSpec:
        """The spec inside a facelm checkpoint.

        Raises:
            ValueError: the checkpoint carries none, so it was not written by facelm, or what it says cannot be.
        """
        return read_facts(checkpoint, path).spec

    def require_same_network(self, other: ModelSpec) -> None:
        """Raises ValueError if the weights of `self` mean something else than `other` expects."""
        for name, key in (
            ("architecture", "model"),
            ("arguments", "model"),
            ("scheme", "landmarks"),
            ("codec", "codec"),
        ):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                mine, theirs = (one.name if isinstance(one, LandmarkScheme) else repr(one) for one in (mine, theirs))
                raise ValueError(
                    f"the checkpoint belongs to another {name}: {mine}, this run has {theirs}. "
                    f"Set `{key}` as it was, or start from the weights alone with model.weights=PATH"
                )


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint says beside its tensors, checked: plain values only, see `read_facts`.

    `config` is the record of the run's config; `run` names the run in its tracker; `position` says where in the data it
    stood; `faces` holds the hashes of the names that trained and validated (see `facelm.data.faces.name_hashes`), and
    nothing in older checkpoints; `mean_shape` is the mean training shape `[K, 2]` in units of the box.
    """

    spec: ModelSpec
    config: Mapping[str, Any]
    run: Mapping[str, str]
    position: Mapping[str, Any]
    faces: Mapping[str, frozenset[int]]
    mean_shape: Sequence[Sequence[float]] | None


def read_facts(checkpoint: Mapping[str, Any], path: Path | str = "the checkpoint") -> CheckpointFacts:
    """What facelm's training put into a checkpoint.

    Raises:
        ValueError: nothing, so it was not written by facelm; or a value of a wrong type, or out of range.
    """
    facts = checkpoint.get("facelm") if isinstance(checkpoint, Mapping) else None
    if not isinstance(facts, Mapping) or "spec" not in facts:
        raise ValueError(f"{path} carries no facelm model spec: it was not written by facelm's training")
    try:
        spec = ModelSpec.from_dict(facts["spec"])
        shape, count = facts.get("mean_shape"), spec.landmark_scheme().num_landmarks
        run = _entries(facts, "run")
        position = checked.mapping(checked.plain(facts.get("position", {}), "position"), "position")
        for name in {"epoch", "batches"} & position.keys():
            checked.integer(position[name], f"position.{name}", 0, 2**40)
        return CheckpointFacts(
            spec=spec,
            config=checked.mapping(checked.plain(facts.get("config", {}), "config"), "config"),
            run={name: checked.part_of_address(value, f"run.{name}") for name, value in run.items()},
            position=position,
            faces={name: name_hashes_in(value, f"faces.{name}") for name, value in _entries(facts, "faces").items()},
            mean_shape=None if shape is None else checked.finite_points(shape, "mean_shape", count, 10),
        )
    except ValueError as error:
        raise ValueError(f"what '{path}' says of its weights cannot be used: {error}") from error


def _entries(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return checked.mapping(facts.get(name, {}), name)


def checkpoint_facts(
    spec: ModelSpec, record: Mapping[str, Any], mean_shape: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """What facelm adds to a checkpoint: spec, plain config, versions, and the mean training shape `[K, 2]`."""
    versions = {"facelm": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return {"spec": spec.to_dict(), "config": dict(record), "versions": versions, "mean_shape": mean_shape}


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path | str) -> None:
    """Writes `checkpoint` to `path` whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; a previous file at `path` is untouched.
    """
    try:
        with writing(path) as file:
            torch.save(dict(checkpoint), file)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        raise OSError(f"the checkpoint {path} was not written ({error}); a previous one is untouched") from error


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
    read_facts(checkpoint, path)
    return checkpoint
