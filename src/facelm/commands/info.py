"""`facelm info MODEL`: size, speed and meaning of a network, a checkpoint, a run or an ONNX file; what is in a pack."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from facelm.commands import NETWORK_HELP
from facelm.commands.pack_info import about_pack, is_pack

if TYPE_CHECKING:
    from torch import nn

    from facelm.models.loading import LoadedModel

EXAMPLES = """
examples:
  facelm info hrnetv2_w18                                  (the shipped weights, or else the network of that name)
  facelm info outputs/demo/2030-01-01_12-00-00 --config    (a run, with the config that it was trained with)
  facelm info hrnetv2_w48 --crop-size 384 --device cuda
  facelm info hrnetv2_w18.onnx
  facelm info faces.pack --verify                          (faces and crops in one file, from facelm pack)
"""

_SECONDS = 2.0  # for which the forward pass is timed, at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("model", metavar="MODEL", help="shipped name, file, run folder, address, .onnx, a network's name; or a pack")
    add("--network", metavar="CLASS", help=NETWORK_HELP)
    add("--config", action="store_true", help="print the config of the run that a checkpoint comes from")
    add("--crop-size", type=int, metavar="S", help="measure at this size (default: the model's, or 256)")
    add("--verify", action="store_true", help="of a pack: read every crop, and name damaged faces")
    add("--scheme", type=Path, metavar="FILE.yaml", help="of a pack: write its landmark scheme, for landmarks.file=")
    add("--device", default="cpu", help="where the forward pass is timed (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Prints what is known."""
    from facelm.models import ARCHITECTURES, build_model
    from facelm.models.download import shipped_names

    if args.crop_size is not None and (args.crop_size < 32 or args.crop_size % 32):
        raise ValueError(f"--crop-size {args.crop_size}: a multiple of 32, which the network halves five times")
    if is_pack(Path(args.model)):
        return about_pack(Path(args.model), args.verify, args.scheme)
    if args.verify or args.scheme:
        raise ValueError(f"--verify and --scheme are about a pack, and '{args.model}' is none")
    if args.model.lower().endswith(".onnx"):
        _print(_about_onnx(Path(args.model)))
    elif args.model in ARCHITECTURES and args.model not in shipped_names() and not Path(args.model).exists():
        net = build_model(args.model).eval()
        _print([("network", args.model), *_about_network(net, args.crop_size or 256, args.device)])
    else:
        from facelm.models import own
        from facelm.models.loading import load_model

        model = load_model(args.model, network=own.named(args.network))
        _print(_about_model(model))
        _print(_about_network(model.net, args.crop_size or model.spec.crop_size, args.device))
        _print_config(model, args.config)
    return 0


Rows = list[tuple[str, str]]


def _print(rows: Rows) -> None:
    for name, text in rows:
        print(f"{name:<14} {text}")


def _about_model(model: LoadedModel) -> Rows:
    from facelm.commands.describe import describe, known_nme, list_nme

    rows = [
        ("model", model.title),
        ("file", f"{model.path} ({model.path.stat().st_size / 1e6:.1f} MB)"),
        ("sha256", model.sha256),
        ("network", model.spec.architecture),
        ("trained for", describe(model.spec)),
        ("NME, %", list_nme(known_nme(model))),
        ("written by", f"facelm {model.spec.version}"),
    ]
    if model.card:
        said = {"data": model.card.data, "licence": model.card.licence, "recipe": model.card.recipe}
        rows += [(name, text) for name, text in said.items() if text]
    return rows + [("note", note) for note in model.notes]


def _about_network(net: nn.Module, crop_size: int, device: str) -> Rows:
    from facelm.models import count_macs

    parameters = sum(parameter.numel() for parameter in net.parameters())
    return [
        ("parameters", f"{parameters:,}"),
        ("GMACs", f"{count_macs(net, crop_size) / 1e9:.3g} for a crop of {crop_size} px"),
        ("forward", forward_time(net, crop_size, device)),
    ]


def forward_time(net: nn.Module, crop_size: int, device: str) -> str:
    """How long the network takes for one crop as `Predictor` runs it, without flip test and decoding: the median."""
    from statistics import median
    from time import perf_counter

    import torch

    from facelm.models.device import pick_device
    from facelm.models.fast import for_inference

    where = pick_device(device)
    forward = for_inference(net.to(where).eval(), crop_size=crop_size)
    crop = torch.zeros(1, 3, crop_size, crop_size, device=where).to(memory_format=torch.channels_last)

    def seconds() -> float:
        start = perf_counter()
        forward(crop)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return perf_counter() - start

    with torch.inference_mode():
        seconds(), seconds()  # the first ones also allocate and choose algorithms
        times = [seconds()]
        while len(times) < 100 and sum(times) < _SECONDS:
            times.append(seconds())
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{1000 * median(times):.1f} ms for one crop (median of {len(times)}; {name}; float32, no flip test)"


def _about_onnx(path: Path) -> Rows:
    from facelm.predict.onnx_check import onnx_facts, open_onnx

    session = open_onnx(path)
    facts = onnx_facts(session)
    shapes = [f"{value.name} {value.shape} {value.type}" for value in (*session.get_inputs(), *session.get_outputs())]
    first = ("title", "architecture", "scheme", "crop_size", "crop_scale", "codec", "pixel_origin", "nme", "nme_flip")
    names = [*(name for name in first if name in facts), *sorted(set(facts) - set(first))]
    size = f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
    return [("file", size), *(("tensor", shape) for shape in shapes), *((name, facts[name]) for name in names)]


_TELLING = ("name", "seed", "data.root", "data.batch_size", "trainer.max_epochs", "ema.decay")


def _print_config(model: LoadedModel, whole: bool) -> None:
    """The config of the model's run: what tells it from others, or all of it."""
    if not model.record:
        return
    import yaml  # with OmegaConf, which needs it

    if whole:
        print(yaml.safe_dump(dict(model.record), sort_keys=False, allow_unicode=True), end="")
        return
    said = {name: _entry(model.record, name) for name in _TELLING}
    text = ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)
    _print([("trained with", f"{text} (all of it: --config)")])


def _entry(record: object, name: str) -> object:
    """The entry `a.b` of a config as it was recorded; None where there is none. Nothing in it is interpolated."""
    for key in name.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
