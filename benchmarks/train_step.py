"""Training step (heatmaps, forward, loss, backward, Adam): eager fp32 as mmpose runs it, against each faster form.

python -m benchmarks.train_step [--compile] [--mixed] [--rounds N] [--cpu-time] [--quick]

With `--compile` torch.compile joins in: minutes of compiling on a CPU. With `--mixed` the forms in mixed precision do,
for processors that multiply bfloat16 matrices (`amx_bf16` in /proc/cpuinfo); on others they are slow.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.networks import require_equal, size_of
from benchmarks.timing import machine, options, print_table, take_turns
from facelm.codec import build_codec
from facelm.models import build_model
from facelm.models.hrnet import HRNetV2
from facelm.models.native.training import for_training
from facelm.training.losses import HeatmapMSE

CODEC = {"name": "mmpose", "sigma": 1.5}


def step_of(
    net: HRNetV2, images: Tensor, landmarks_crop: Tensor, *, fused: bool, mixed: bool = False
) -> Callable[[], Tensor]:
    """A function that takes one training step, `mixed` with bfloat16, and returns the heatmaps it saw."""
    codec, loss = build_codec(CODEC, images.shape[-1]), HeatmapMSE()
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, fused=fused)

    def step() -> Tensor:
        target, weight = codec.encode(landmarks_crop)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            heatmaps: Tensor = net(images)
        loss(heatmaps, target, weight, landmarks_crop / codec.stride).backward()
        adam.step()
        adam.zero_grad()
        return heatmaps.detach()

    return step


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    compiled, mixed = "--compile" in arguments, "--mixed" in arguments
    chosen = options(__doc__, [a for a in arguments if a not in ("--compile", "--mixed")], rounds=5)
    name, size = size_of(chosen.quick)
    batch = 2 if chosen.quick else 16
    net = build_model(name, init="kaiming").train()
    images, landmarks_crop = torch.randn(batch, 3, size, size), torch.rand(batch, 68, 2) * size
    nhwc = images.contiguous(memory_format=torch.channels_last)

    def variant() -> HRNetV2:
        return copy.deepcopy(net).to(memory_format=torch.channels_last)

    runs = {
        "eager, NCHW (mmpose)": step_of(copy.deepcopy(net), images, landmarks_crop, fused=False),
        "channels_last": step_of(variant(), nhwc, landmarks_crop, fused=False),
        "channels_last, fused Adam": step_of(variant(), nhwc, landmarks_crop, fused=True),
    }
    print(machine(chosen))
    native = variant()
    if (reason := for_training(native)) is None:
        runs["native, fused Adam"] = step_of(native, nhwc, landmarks_crop, fused=True)
    else:
        print(f"no native code here: {reason}")
    if mixed:
        runs["bf16-mixed, fused Adam"] = step_of(variant(), nhwc, landmarks_crop, fused=True, mixed=True)
        if reason is None:
            for_training(narrow := variant())
            runs["bf16-mixed, native, fused Adam"] = step_of(narrow, nhwc, landmarks_crop, fused=True, mixed=True)
    if compiled:
        other = variant()
        other.compile(dynamic=False)
        runs["torch.compile, fused Adam"] = step_of(other, nhwc, landmarks_crop, fused=True)
        start = time.perf_counter()
        runs["torch.compile, fused Adam"]()
        print(f"torch.compile: first step {time.perf_counter() - start:.0f} s")
    expected, *others = (run() for run in runs.values())
    for what, heatmaps in zip(list(runs)[1:], others, strict=True):
        # Untrained and normalised by its batch, the network multiplies rounding by a thousand. Tests compare float64.
        narrow = "bf16" in what
        require_equal(what, expected, heatmaps, tolerance=0.5 if narrow else 1e-2, on_average=narrow)
    seconds = take_turns(runs, chosen.rounds, chosen.clock)
    print_table(f"{name}, training step, batch {batch}", seconds, images=batch)


if __name__ == "__main__":
    main()
