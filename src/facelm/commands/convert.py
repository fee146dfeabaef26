"""`facelm convert SOURCE --out FILE`: weights from one naming to another, with what they were trained for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facelm.models.spec import ModelSpec
    from facelm.models.weights import WeightsFile

EXAMPLES = """
SOURCE is mmpose's .pth (0.x and 1.x), the HRNet authors' .pth, an ImageNet HRNet of timm's or the authors', or
anything of facelm's; its names are found out, and nothing in it is run. The new file gets a card beside it, a .json
file that says what the weights were trained for; with it, it is a checkpoint like any other. Keep the two together.

What weights were trained for is known for facelm's own files, mmpose's and the published ones. For others say it:
  mmpose's configs          --codec mmpose:1.5 --pixel-origin 0 --flip shifted
  the HRNet authors' code   --codec hrnet:1 --pixel-origin 0
  neither                   a codec of facelm's, and --pixel-origin 1 where 1 was subtracted from 300W's coordinates

examples:
  facelm convert hrnetv2_w18_300w_256x256-eea53406_20211019.pth --out mmpose_w18.safetensors
  facelm convert final_state.pth --codec hrnet:1 --pixel-origin 0 --out mine.safetensors
  facelm convert outputs/demo/2030-01-01_12-00-00 --naming mmpose-1.x --out for_mmpose.pth
  facelm convert outputs/mine/checkpoints/last.ckpt --half --facts facts.json --out mine.safetensors
"""

TRAINED_ELSEWHERE = (
    "what the weights were trained for cannot be told from the file, and heatmaps mean nothing without it. Say it: "
    "--codec mmpose:1.5 --pixel-origin 0 --flip shifted for mmpose's configs, --codec hrnet:1 --pixel-origin 0 for "
    "the HRNet authors' code"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("source", metavar="SOURCE", help="file, run folder, shipped name or address")
    add("--out", required=True, type=Path, metavar="FILE", help=".safetensors, .pth or .pt; a card is put beside it")
    add("--naming", default="hrnet", help="hrnet, facelm, mmpose-1.x, mmpose-0.x or timm (default: hrnet)")
    add("--half", action="store_true", help="convolutions in float16: half the size")
    add(
        "--facts",
        type=_facts_file,
        metavar="FILE",
        help="entries of the card, as JSON: nme, data, licence, recipe, commit",
    )
    add = parser.add_argument_group("what the weights were trained for, where the file does not say").add_argument
    add("--codec", type=_codec, metavar="NAME[:SIGMA]", help="mmpose, dark, hrnet or subpixel; sigma in cells")
    add("--pixel-origin", type=int, choices=(0, 1), help="what was subtracted from 300W's 1-based coordinates")
    add("--flip", choices=("none", "shifted", "exact"), help="flip test to evaluate with (default: none)")
    add("--annotation-shift", type=float, metavar="D", help="added to every x, in sides of the box")
    add("--crop-size", type=int, metavar="S", help="side of the crop in pixels (default: 256)")
    add("--crop-scale", type=float, metavar="C", help="side of the crop / side of the box (default: 1.25)")


def run(args: argparse.Namespace) -> int:
    """Converts, and says what matched and what the weights mean."""
    from facelm.models import build_model
    from facelm.models.cards import read_card
    from facelm.models.reading import card_path
    from facelm.models.weights import load_weights, open_weights, save_weights
    from facelm.predict.files import check_writable

    file = open_weights(args.source)
    _check_request(args, file)
    backbone = file.num_landmarks is None or args.naming == "timm"
    spec = None if backbone else _spec(args, file)
    if spec is None and card_path(args.out).exists():
        raise ValueError(
            f"'{card_path(args.out)}' would be taken for the card of --out {args.out}; choose another name"
        )
    net = build_model(file.architecture or "", file.num_landmarks or 68)
    report = load_weights(net, file)
    if read_card(file.path) and file.published:  # the card knows better than the names of the keys
        report = replace(report, notes=tuple(n for n in report.notes if not n.startswith(file.published.title)))
    print(report)
    check_writable(args.out.parent)
    save_weights(net, args.out, "timm" if backbone else args.naming, half=args.half)
    if backbone:
        print(f"{args.out}: a backbone, without the head; a training starts from it with model.weights={args.out}")
    elif spec:
        _tell(args, file, spec)
    return 0


def _check_request(args: argparse.Namespace, file: WeightsFile) -> None:
    from facelm.checked import now_called
    from facelm.models.reading import CARD_ENDINGS
    from facelm.models.weights import NAMINGS

    if args.naming not in NAMINGS:
        raise ValueError(f"--naming {args.naming}: known are {', '.join(NAMINGS)}{now_called(args.naming)}")
    if args.out.suffix not in CARD_ENDINGS:
        raise ValueError(f"--out {args.out}: give it one of the endings {', '.join(CARD_ENDINGS)}")
    if args.out.is_dir():
        raise IsADirectoryError(f"--out {args.out} is a folder; name a file in it")
    if args.out.exists() and args.out.samefile(file.path):
        raise ValueError(f"--out {args.out} is the file that is read; choose another name")
    if file.architecture is None:
        raise ValueError(f"'{args.source}' holds an HRNet whose branches are those of none that facelm knows")
    if file.num_landmarks is None and args.naming.startswith("mmpose"):
        raise ValueError(
            f"'{args.source}' is a backbone without a head, and mmpose reads backbones by their plain names: give "
            "--naming timm"
        )


def _spec(args: argparse.Namespace, file: WeightsFile) -> ModelSpec | None:
    """What the weights mean: as the file says, with what the options replace; None where nobody has to know."""
    from facelm.geometry.landmarks import get_scheme
    from facelm.geometry.schemes import known_schemes
    from facelm.models.loading import known_spec
    from facelm.models.spec import ModelSpec

    names = ("codec", "pixel_origin", "flip", "annotation_shift", "crop_size", "crop_scale")
    said: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if known := known_spec(file):
        return replace(known, **said)
    if args.out.suffix != ".safetensors" and not said:
        print(f"note: {TRAINED_ELSEWHERE}")  # numbers in, numbers out: it can be done all the same
        return None
    if "codec" not in said or "pixel_origin" not in said:
        raise ValueError(f"'{args.source}': {TRAINED_ELSEWHERE}")
    known_ones = map(get_scheme, known_schemes())
    scheme = next((one for one in known_ones if one.num_landmarks == file.num_landmarks), None)
    if scheme is None:
        raise ValueError(f"'{args.source}' has {file.num_landmarks} landmarks, as no scheme that facelm knows")
    return ModelSpec(architecture=file.architecture or "", scheme=scheme, **said)


def _tell(args: argparse.Namespace, file: WeightsFile, spec: ModelSpec) -> None:
    """Prints what the weights mean, and writes it beside them where facelm will look for it."""
    from facelm.commands.describe import describe, list_nme
    from facelm.models.cards import write_card
    from facelm.models.reading import card_path

    print("trained for:", describe(spec))
    facts = _facts(file, spec) | (args.facts or {})
    print("NME:", list_nme(facts.get("nme", {})))
    write_card(args.out, spec, **facts)
    print(f"{args.out} ({args.naming} names), its card {card_path(args.out)}")
    theirs = {"mmpose-0.x": "mmpose", "mmpose-1.x": "mmpose"}.get(args.naming)
    if theirs and (spec.codec["name"], spec.pixel_origin) != (theirs, 0):
        print(
            f"note: mmpose decodes with its codec {theirs!r} and uses 300W's 1-based coordinates as they are, which "
            "these weights were not trained for: its numbers will be worse than facelm's"
        )


def _facts(file: WeightsFile, spec: ModelSpec) -> dict[str, Any]:
    """What else is known of the weights, for their card: no numbers where they are now to be read another way."""
    from facelm.commands.describe import known_nme
    from facelm.models.cards import read_card
    from facelm.models.loading import known_spec, load_model

    known = known_spec(file)
    same = known is not None and known.reads_like(spec)
    facts: dict[str, Any] = {"nme": dict(known_nme(load_model(file.path)))} if same else {}
    if card := read_card(file.path):
        facts |= {name: getattr(card, name) for name in ("data", "licence", "recipe", "commit")}
    elif file.published:
        facts |= {"recipe": file.published.title}
    return facts


def _facts_file(text: str) -> dict[str, Any]:
    """The entries of a card that are not about the numbers in the file."""
    from facelm import checked

    known = {"nme": dict, "data": str, "licence": str, "recipe": str, "commit": str}
    try:
        facts = checked.read_json(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' cannot be read ({error})") from error
    if not isinstance(facts, dict) or any(not isinstance(value, known.get(key, ())) for key, value in facts.items()):
        raise argparse.ArgumentTypeError(f"'{text}' holds texts under {', '.join(list(known)[1:])}, numbers under nme")
    return facts


def _codec(text: str) -> dict[str, Any]:
    """`mmpose:1.5` as a codec's spec; without a sigma, the codec's usual one."""
    from facelm.codec import build_codec

    name, _, sigma = text.partition(":")
    try:
        options = {"sigma": float(sigma)} if sigma else {}
        return build_codec({"name": name, **options}, crop_size=256).spec()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
