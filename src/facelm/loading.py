"""Weights of any origin as a model that can predict: a run, a checkpoint, a published file, or a shipped name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from facelm.checkpoint import ModelSpec
from facelm.geometry import FloatArray
from facelm.models.download import local_file, sha256
from facelm.models.published import recognise
from facelm.models.weights import copy_state, detect_naming, find_state, read_checkpoint


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, what its weights mean, and where they came from.

    `published` holds the NME in percent that was published for these weights, per subset; `mean_shape` the mean
    training shape `[K, 2]` in units of the box, where the checkpoint carries it.
    """

    net: nn.Module
    spec: ModelSpec
    path: Path
    sha256: str
    title: str
    published: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    mean_shape: FloatArray | None = None


def load_model(source: str | Path, **changes: Any) -> LoadedModel:
    """The model that `source` names; `changes` replace entries of its spec (`codec`, `flip`, `pixel_origin`, ...).

    `source` is a facelm .ckpt, a run folder, the published mmpose or HRNet authors' file (evaluated with the codec
    and pixel origin that it was trained for), a file with mmpose's key names, or an address of one.

    Raises:
        FileNotFoundError: no such file, folder or name.
        ConnectionError: an address that cannot be reached.
        ValueError: damaged, code inside, another model, or weights whose codec cannot be told.
    """
    path = local_file(source)
    checkpoint = read_checkpoint(path)
    state = find_state(checkpoint, path.name)
    digest = sha256(path)
    naming = detect_naming(state)
    facts = checkpoint.get("facelm") if isinstance(checkpoint, dict) else None
    if facts is not None:
        spec, title, published, notes = ModelSpec.from_checkpoint(checkpoint, path), path.name, {}, ()
    else:
        known = recognise(path.name, naming, digest)
        if known is None:
            raise ValueError(
                f"'{source}' holds weights, but not what they mean (codec, crop, pixel origin): it was not written by "
                "facelm, and neither its name nor its keys are those of a published checkpoint. Convert it with "
                "`facelm convert`, naming the codec it was trained for"
            )
        spec = ModelSpec(
            architecture=known.architecture,
            crop_size=known.crop_size,
            crop_scale=known.crop_scale,
            codec=known.codec,
            flip=known.flip,
            pixel_origin=known.pixel_origin,
        )
        title, published, notes = known.title, dict(known.nme), (known.note,) if known.note else ()
    shape = facts.get("mean_shape") if facts else None
    net = spec.build_network()
    copy_state(net, state, naming, source=str(source), sha256=digest)
    return LoadedModel(
        net=net.eval(),
        spec=replace(spec, **changes) if changes else spec,
        path=path,
        sha256=digest,
        title=title,
        published=published,
        notes=notes,
        record=facts.get("config", {}) if facts else {},
        mean_shape=None if shape is None else np.asarray(shape, dtype=np.float64),
    )
