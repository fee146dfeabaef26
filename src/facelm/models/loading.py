"""Weights of any origin as a model that can predict: a run, a checkpoint, a published file, or a shipped name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from facelm.geometry.affine import FloatArray
from facelm.geometry.correspondence import correspondence
from facelm.geometry.landmarks import LandmarkScheme, get_scheme
from facelm.models.cards import Card, read_card
from facelm.models.own import Network
from facelm.models.spec import ModelSpec, read_facts
from facelm.models.weights import WeightsFile, load_weights, open_weights


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, what its weights mean, and where they came from.

    `published` holds the NME in percent that was published for these weights, per subset; `mean_shape` the mean
    training shape `[K, 2]` in units of the box, `record` the run's config, `run` its name in its tracker, `faces` the
    hashes of the names that trained and validated, and `validated` the fingerprint of the latter, where the checkpoint
    carries them; `card` what lies beside the file.
    """

    net: nn.Module
    spec: ModelSpec
    path: Path
    sha256: str
    title: str
    published: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, str] = field(default_factory=dict)
    faces: Mapping[str, frozenset[int]] = field(default_factory=dict)
    validated: str = ""
    mean_shape: FloatArray | None = None
    card: Card | None = None


def load_model(source: str | Path, *, network: Network | None = None, **changes: Any) -> LoadedModel:
    """The model that `source` names; `changes` replace entries of its spec (`codec`, `flip`, `pixel_origin`, ...).

    `source` is a shipped model's name, a facelm .ckpt, a run folder, a file with a card beside it (see
    `facelm.models.cards`), a published file of mmpose's or the HRNet authors' (evaluated with the codec, landmarks and
    pixel origin that it was trained for), a file with mmpose's key names, or an address of one. `network` is the class
    of weights whose network is none of facelm's: their file names it, and nothing but this argument has it used.

    Raises:
        FileNotFoundError: no such file, folder or name.
        ConnectionError: an address that cannot be reached.
        ValueError: damaged, code inside, another model, or weights whose codec cannot be told.
    """
    file = open_weights(source)
    card, known = read_card(file.path), file.published
    spec = known_spec(file)
    if spec is None:
        raise ValueError(
            f"'{file.source}' holds weights, but not what they mean (codec, crop, pixel origin): it was not written by "
            "facelm, and neither its name nor its keys are those of a published checkpoint. `facelm convert` writes a "
            "file that says it"
        )
    net = spec.build_network(network)
    load_weights(net, file)
    facts = None if file.checkpoint.get("facelm") is None else read_facts(file.checkpoint, file.path)
    shape = facts.mean_shape if facts else None
    return LoadedModel(
        net=net.eval(),
        spec=replace(spec, **changes) if changes else spec,
        path=file.path,
        sha256=file.sha256,
        title=file.path.stem if card else known.title if known else file.path.name,
        published=dict(card.nme) if card else dict(known.nme) if known else {},
        notes=(known.note,) if known and known.note and not card else (),
        record=facts.config if facts else {},
        run=facts.run if facts else {},
        faces=facts.faces if facts else {},
        validated=str(facts.position.get("validated", "")) if facts else "",
        mean_shape=None if shape is None else np.asarray(shape, dtype=np.float64),
        card=card,
    )


def known_spec(file: WeightsFile) -> ModelSpec | None:
    """What a file's weights mean: by its card, by what facelm's training put into it, or as published; else None.

    Raises:
        ValueError: a card or a spec that is damaged, or of a later facelm.
    """
    if card := read_card(file.path):
        return card.spec
    if file.checkpoint.get("facelm") is not None:
        return ModelSpec.from_checkpoint(file.checkpoint, file.path)
    if known := file.published:
        return ModelSpec(
            architecture=known.architecture,
            scheme=get_scheme(known.scheme),
            crop_size=known.crop_size,
            crop_scale=known.crop_scale,
            codec=known.codec,
            flip=known.flip,
            pixel_origin=known.pixel_origin,
        )
    return None


def same_points(file: WeightsFile, scheme: LandmarkScheme, told: str | None = None) -> tuple[tuple[int, int], ...]:
    """Which points of a file's weights are which of `scheme`: pairs of indices, none where nobody says it.

    The file `told` says it; without one a file of `conf/correspondence`, or the points' names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is told is wrong, or the weights do not say what their points are.
    """
    spec = known_spec(file)
    if spec is None:
        if told is None:
            return ()
        raise ValueError(f"same_points={told}: the weights '{file.source}' do not say what their points are")
    if told is None:
        try:
            return correspondence(spec.landmark_scheme(), scheme).pairs
        except ValueError:  # nothing says it
            return ()
    found = correspondence(spec.landmark_scheme(), told)
    if found.target.num_landmarks != scheme.num_landmarks:
        raise ValueError(
            f"same_points={told}: it is about {found.target.name}, and this run's points are {scheme.name}"
        )
    return found.pairs
