"""Networks by name, and their weights.

`build_model("hrnetv2_w18")` is the network of the published 300W results; `load_weights` fills one from a file.
"""

from __future__ import annotations

from pathlib import Path

from facelm.models.hrnet import ARCHITECTURES, INITS, HRNetConfig, HRNetV2, count_macs, initialise
from facelm.models.weights import LoadReport, load_weights, save_weights

__all__ = [
    "ARCHITECTURES",
    "INITS",
    "HRNetConfig",
    "HRNetV2",
    "LoadReport",
    "build_model",
    "count_macs",
    "initialise",
    "load_weights",
    "save_weights",
]


def build_model(
    name: str = "hrnetv2_w18",
    num_landmarks: int = 68,
    *,
    init: str = "hrnet",
    weights: str | Path | None = None,
    bn_momentum: float = 0.1,
) -> HRNetV2:
    """The network `name` (see `ARCHITECTURES`) for `num_landmarks` landmarks, initialised, then filled from `weights`.

    `init` is explained at `initialise`, `weights` at `load_weights` (of other landmarks, all but the last convolution
    is taken); `bn_momentum` is 0.1 in mmpose's recipe and 0.01 in the authors'.

    Raises: ValueError for a name or a value that cannot be, and what `load_weights` raises.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network model.name={name!r}; choose one of {', '.join(ARCHITECTURES)}")
    if num_landmarks < 1:
        raise ValueError(f"num_landmarks={num_landmarks}: a network needs at least one landmark")
    net = HRNetV2(ARCHITECTURES[name], num_landmarks, bn_momentum=bn_momentum)
    initialise(net, init)
    if weights is not None:
        load_weights(net, weights, new_head=True)
    return net
