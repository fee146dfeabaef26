"""`facelm export --checkpoint NAME_OR_FILE --out FILE.onnx`: a model as one ONNX file, checked."""

from __future__ import annotations

import argparse
from pathlib import Path

from facelm.commands import NETWORK_HELP

EXAMPLES = """
The file takes uint8 RGB crops [N, S, S, 3] and gives landmarks in pixels of the crop [N, K, 2] and confidences [N, K];
normalising and decoding are inside, a flip test is not. With --takes photographs it takes a whole RGB image [H, W, 3]
and boxes [N, 4], and gives landmarks in pixels of the image: cropping is inside as well. The metadata say how to crop
and how to go back to the image.
It is kept only if ONNX Runtime and PyTorch agree on drawn faces.

examples:
  facelm export --checkpoint hrnetv2_w18 --out hrnetv2_w18.onnx
  facelm export --checkpoint outputs/demo/2030-01-01_12-00-00 --out demo.onnx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--checkpoint", default="hrnetv2_w18", metavar="NAME_OR_FILE", help="shipped name, file, run folder or address")
    add("--network", metavar="CLASS", help=NETWORK_HELP)
    add("--takes", choices=("crops", "photographs"), default="crops", help="what the file takes (default: crops)")
    add("--out", required=True, type=Path, metavar="FILE.onnx", help="the file to write; its folder is made")


def run(args: argparse.Namespace) -> int:
    """Writes the file and prints how it was checked."""
    from facelm.commands.describe import known_nme, list_nme
    from facelm.models import own
    from facelm.models.loading import load_model
    from facelm.predict.export import export_onnx

    model = load_model(args.checkpoint, network=own.named(args.network))
    nme = known_nme(model)
    check = export_onnx(model, args.out, nme=nme, takes=args.takes)
    print(check.report())
    spec = model.spec
    print(f"NME in its metadata: {list_nme(nme)} (with flip test {spec.flip}; the file has none)")
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {size:.1f} MB, {spec.architecture}, crops of {spec.crop_size} px, codec {spec.codec['name']}")
    return 0
