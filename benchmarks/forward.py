"""Forward: eager fp32 as mmpose runs it, against each faster form, ONNX Runtime and OpenVINO, at batch 1, 2 and 16.

python -m benchmarks.forward [--rounds N] [--cpu-time] [--quick]

The last two where they are installed (pip install onnx onnxruntime openvino); with `--cpu-time` the time of all threads
counts, since theirs are their own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.networks import require_equal, size_of, trained_like
from benchmarks.runtimes import other_runtimes
from benchmarks.timing import machine, options, print_table, take_turns
from facelm.models.fast import for_inference
from facelm.models.native.program import obstacle


def main(arguments: list[str] | None = None) -> None:
    """Prints a table for each batch size."""
    chosen = options(__doc__, arguments)
    name, size = size_of(chosen.quick)
    eager = trained_like(name)
    last = copy.deepcopy(eager).to(memory_format=torch.channels_last)
    nets: dict[str, Callable[[Tensor], Tensor]] = {
        "eager, NCHW (mmpose)": eager,
        "channels_last": last,
        "batch norm folded, head before enlargement": for_inference(eager, crop_size=size, backend="torch"),
    }
    if (reason := obstacle(eager)) is None:
        nets["native"] = for_inference(eager, crop_size=size, backend="native")
    else:
        print(f"no native code here: {reason}")
    others = other_runtimes(eager, size, chosen.threads)
    nets |= others
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    print(machine(chosen))
    with torch.inference_mode():
        for batch in (1, 2) if chosen.quick else (1, 2, 16):
            images = torch.randn(batch, 3, size, size)
            nhwc = images.contiguous(memory_format=torch.channels_last)
            runs = {
                what: (lambda net=net, x=images if net is eager or what in others else nhwc: net(x))
                for what, net in nets.items()
            }
            expected, *found = (run() for run in runs.values())
            for what, heatmaps in zip(list(runs)[1:], found, strict=True):
                require_equal(what, expected, heatmaps)
            print_table(f"{name}, forward, batch {batch}", take_turns(runs, chosen.rounds, clock), images=batch)


if __name__ == "__main__":
    main()
