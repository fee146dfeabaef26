"""What keeping NaN costs: the native kernels against the same ones whose ReLU turns NaN into 0.

python -m benchmarks.nan_cost [--rounds N] [--cpu-time] [--quick]
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.networks import require_equal, trained_like
from benchmarks.timing import machine, options, print_table, take_turns
from benchmarks.train_step import step_of
from facelm.models import build_model, native
from facelm.models.fast import for_inference
from facelm.models.native.program import obstacle
from facelm.models.native.training import for_training

DROPPING = (
    ("lanes.h", "v < Real(0) ? Vec{} : v", "v > Real(0) ? v : Vec{}"),
    ("norm.h", "load(z + at) <= Real(0) ? Vec{} : dz", "load(z + at) > Real(0) ? dz : Vec{}"),
    ("norm.h", "y * scale + shift <= Real(0) ? Vec{} : dz", "y * scale + shift > Real(0) ? dz : Vec{}"),
)
"""File, what stands in it, and what would stand there if NaN became 0: one instruction of the processor less."""

Library = Callable[..., ctypes.CDLL]


def dropping_nan(folder: Path) -> Library:
    """`native.library`, compiled from a copy of the sources in `folder` that lets NaN become 0.

    Raises:
        ValueError: the kernels no longer read as `DROPPING` says.
    """
    here, cache = native.__file__, os.environ.get("FACELM_CACHE")
    shutil.copytree(Path(here).parent, folder)
    for name, kept, dropped in DROPPING:
        text = (folder / name).read_text()
        if kept not in text:
            raise ValueError(f"{name} does not hold '{kept}': benchmarks/nan_cost.py must follow it")
        (folder / name).write_text(text.replace(kept, dropped))
    original = native.library
    native.__file__ = str(folder / "__init__.py")
    original.cache_clear()
    os.environ["FACELM_CACHE"] = str(folder.parent)  # nobody else needs these
    loaded = {training: original("float", training=training) for training in (False, True)}
    native.__file__ = here
    original.cache_clear()
    os.environ.pop("FACELM_CACHE")
    os.environ |= {} if cache is None else {"FACELM_CACHE": cache}
    return lambda real="float", *, training=False: loaded[training]


def main(arguments: list[str] | None = None) -> None:
    """Prints a table for the forward pass and one for a training step."""
    chosen = options(__doc__, arguments, rounds=15)
    name, size = "hrnetv2_w18", 64 if chosen.quick else 128  # the tiny one's layers are narrower than a vector
    eager = trained_like(name)
    if (reason := obstacle(eager)) is not None:
        print(f"no native code here: {reason}")
        return
    batch = 2 if chosen.quick else 8
    images, points = torch.randn(batch, 3, size, size), torch.rand(batch, 68, 2) * size
    nhwc, keeping = images.contiguous(memory_format=torch.channels_last), native.library
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"NaN becomes 0": dropping_nan(Path(folder) / "native"), "NaN is kept": keeping}
        forward, train = {}, {}
        for what, library in kinds.items():
            native.library = library  # type: ignore[assignment]
            forward[what] = partial(for_inference(eager, crop_size=size, backend="native"), nhwc)
            torch.manual_seed(0)
            net = build_model(name, init="kaiming").train().to(memory_format=torch.channels_last)
            for_training(net)
            train[what] = partial(with_library, library, step_of(net, nhwc, points, fused=True))
        print(machine(chosen))
        for title, runs in (("forward", forward), ("training step", train)):
            first, second = (run() for run in runs.values())
            require_equal("NaN is kept", first, second, tolerance=1e-2)
            seconds = take_turns(runs, chosen.rounds, chosen.clock)
            print_table(f"{name}, {title}, batch {batch}", seconds, images=batch)
    native.library = keeping  # type: ignore[assignment]


def with_library(library: Library, step: Callable[[], torch.Tensor]) -> torch.Tensor:
    """One training step whose operations are those of `library`."""
    native.library = library  # type: ignore[assignment]
    return step()


if __name__ == "__main__":
    main()
