"""The network in ONNX Runtime and OpenVINO, where they are installed, for `benchmarks.forward`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


def other_runtimes(net: nn.Module, size: int, threads: int) -> dict[str, Forward]:
    """What carries `net` out in float32, by name; images `[B, 3, size, size]`, any B. Without onnx there is none."""
    runtimes = {"onnxruntime": _onnx_runtime, "openvino": _openvino}
    there = [name for name in runtimes if find_spec("onnx") and find_spec(name)]
    if missing := runtimes.keys() - there:
        print(f"not compared, since not installed (onnx is needed too): {', '.join(sorted(missing))}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every check of a shape
        path = str(Path(folder, "network.onnx"))
        if there:
            options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "B"}}}
            torch.onnx.export(net, (torch.zeros(2, 3, size, size),), path, dynamo=False, opset_version=17, **options)
        return dict(runtimes[name](path, threads) for name in there)


def _onnx_runtime(path: str, threads: int) -> tuple[str, Forward]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = f"ONNX Runtime {onnxruntime.__version__}"
    return name, lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def _openvino(path: str, threads: int) -> tuple[str, Forward]:
    import openvino

    # float32: bfloat16, its choice on processors that have it, would not be the same network.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(path, "CPU", options)
    name = f"OpenVINO {openvino.__version__.split('-')[0]}"
    return name, lambda x: torch.from_numpy(model([x.numpy()])[0])
