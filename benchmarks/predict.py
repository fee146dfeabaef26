"""Predict with the flip test, from uint8 crops to landmarks: mmpose's eager way against the faster ones.

python -m benchmarks.predict [--rounds N] [--cpu-time] [--quick]

mmpose sends the crops and their mirror images through the network one after the other, as NCHW fp32, then averages and
decodes. Here both views are one batch. All rows do the same flip test (`shifted`) and the same decoding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.networks import require_equal, size_of, trained_like
from benchmarks.timing import machine, options, print_table, take_turns
from facelm.codec import Codec, build_codec
from facelm.geometry.landmarks import IBUG68
from facelm.models.fast import for_inference
from facelm.models.inference import flip_heatmaps, normalise, predict_landmarks
from facelm.models.native.program import obstacle


def one_after_the_other(net: Callable[[Tensor], Tensor], crops: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Landmarks and scores, the crops and their mirror images in separate calls of the network."""
    inputs = normalise(crops).contiguous()
    direct, mirrored = net(inputs), net(inputs.flip(-1))
    return codec.decode((direct + flip_heatmaps(mirrored, IBUG68.mirror, shift=True)) * 0.5)


def main(arguments: list[str] | None = None) -> None:
    """Prints a table for each batch size."""
    chosen = options(__doc__, arguments)
    name, size = size_of(chosen.quick)
    codec = build_codec({"name": "mmpose", "sigma": 1.5}, size)
    eager = trained_like(name)
    nets = {
        "one batch, channels_last": copy.deepcopy(eager).to(memory_format=torch.channels_last),
        "one batch, folded": for_inference(eager, crop_size=size, backend="torch"),
    }
    if (reason := obstacle(eager)) is None:
        nets["one batch, native"] = for_inference(eager, crop_size=size, backend="native")
    else:
        print(f"no native code here: {reason}")
    print(machine(chosen))
    with torch.inference_mode():
        for batch in (1, 2) if chosen.quick else (1, 16):
            crops = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
            runs = {"eager, one after the other (mmpose)": lambda c=crops: one_after_the_other(eager, c, codec)}
            for what, net in nets.items():
                runs[what] = lambda c=crops, n=net: predict_landmarks(n, normalise(c), codec, IBUG68.mirror, "shifted")
            expected, *others = (run()[1] for run in runs.values())
            for what, scores in zip(list(runs)[1:], others, strict=True):
                require_equal(what, expected, scores)
            seconds = take_turns(runs, chosen.rounds, chosen.clock)
            print_table(f"{name}, predict with flip test, batch {batch}", seconds, images=batch)


if __name__ == "__main__":
    main()
