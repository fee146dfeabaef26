"""`facelm browse experiment=NAME --out sheet.png`: training faces as the network sees them."""

from __future__ import annotations

import argparse
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facelm.data.datamodule import FaceDataModule

EXAMPLES = """
The faces are the first of the epoch, in the order in which training takes them, cropped and augmented by the same
code with the same random numbers. Drawn faces are drawn, and a crop cache is built, where the experiment would do so
(data.cache=none reads the photographs instead).

examples:
  facelm browse experiment=demo --out sheet.png
  facelm browse experiment=hrnetv2_w18 data.root=data/300w augment=strong --out strong.png --epoch 3 --count 48
  facelm browse experiment=demo --out targets.png --heatmaps
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="as for facelm.train: experiment=demo augment=strong ...")
    add("--out", required=True, type=Path, metavar="FILE.png", help="the picture to write; its folder is made")
    add("--epoch", type=int, default=0, metavar="E", help="of which the crops are (default: 0)")
    add("--count", type=int, default=24, metavar="N", help="faces on the sheet (default: 24)")
    add("--columns", type=int, default=6, metavar="N", help="faces in a row (default: 6)")
    add("--size", type=int, default=256, metavar="PIXELS", help="side of a face on the sheet (default: 256)")
    add("--heatmaps", action="store_true", help="show the target heatmaps instead of the landmarks")


def run(args: argparse.Namespace) -> int:
    """Writes the sheet."""
    from facelm.commands.contact_sheet import contact_sheet, training_tile, write_png
    from facelm.launch.build import build_data, compose_config, model_spec
    from facelm.predict.files import check_writable

    if wrong := [name for name in ("epoch", "count", "columns", "size") if getattr(args, name) < (name != "epoch")]:
        raise ValueError(f"--{wrong[0]} {getattr(args, wrong[0])} is too small")
    if args.out.suffix.lower() != ".png":
        raise ValueError(f"--out {args.out}: the sheet is a .png")
    # A few faces are worth neither processes nor, unless it is asked for, a cache of all.
    cfg = compose_config(["data.cache=none", *args.overrides, "data.num_workers=0"])
    check_writable(args.out.parent)
    spec = model_spec(cfg)
    data = build_data(cfg)
    data.prepare_data()
    data.setup()
    items, names = first_items(data, args.epoch, args.count)
    codec = spec.build_codec() if args.heatmaps else None
    tiles = [training_tile(item, data.scheme, args.size, codec) for item in items]
    write_png(args.out, contact_sheet(tiles, names, args.columns))
    print(f"{args.out}: {len(items)} of {len(data.train_faces):,} training faces, epoch {args.epoch}, {cfg.name}")
    return 0


def first_items(data: FaceDataModule, epoch: int, count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The first `count` items of an epoch of training, and the names of their faces."""
    loader = data.train_dataloader()
    batches: Any = loader.batch_sampler
    batches.set_epoch(epoch)
    keys = list(islice(chain.from_iterable(batches), count))
    return [loader.dataset[key] for key in keys], [data.train_faces[index].name for _, index in keys]
