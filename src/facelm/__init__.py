"""facelm: HRNetV2 facial landmarks on 300W with Lightning and Hydra.

`from facelm import Predictor`: public names are imported from their modules when they are first asked for, so that
importing the package imports nothing heavy.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facelm.data.datamodule import FaceDataModule
    from facelm.models.loading import load_model
    from facelm.models.spec import ModelSpec
    from facelm.predict import Predictor
    from facelm.predict.photographs import read_image
    from facelm.training.lit import LitLandmarks

__version__ = "0.1.0"
__all__ = ["FaceDataModule", "LitLandmarks", "ModelSpec", "Predictor", "__version__", "load_model", "read_image"]

_HOME = {
    "FaceDataModule": "facelm.data.datamodule",
    "LitLandmarks": "facelm.training.lit",
    "ModelSpec": "facelm.models.spec",
    "Predictor": "facelm.predict",
    "load_model": "facelm.models.loading",
    "read_image": "facelm.predict.photographs",
}
"""The module of each public name."""

# OpenMP's threads spin for milliseconds while they wait, which takes the processor from every other process; where they
# sleep at once, waking them costs a lone process a quarter of its speed. libgomp, of torch's wheels for Linux, can spin
# some thousand times, tens of microseconds, and sleep then (`benchmarks.waiting`, docs/speed.md). Read when torch is
# loaded, so it is set before; who has set either, or has torch loaded already, keeps what they have.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}

# albumentations asks the network for a newer release when it is imported, and waits two seconds for the answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'facelm' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
