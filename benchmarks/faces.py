"""What the benchmarks that need a checkpoint and annotated faces have in common: their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path

from facelm.data.faces import Face
from facelm.data.w300.index import index_faces


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that say which model and which faces."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--checkpoint", default="hrnetv2_w18", help="shipped name, file, run folder or address")
    made.add_argument("--data", type=Path, default=Path("data/300w"), help="300W's folders")
    made.add_argument("--split", default="train")
    made.add_argument("--list", type=Path, help="text file with the faces to use, one name a line")
    made.add_argument("--device", default="auto")
    return made


def chosen_faces(args: argparse.Namespace) -> list[Face]:
    """The faces that `args` name."""
    return list(index_faces(args.data, args.split, list_file=args.list, check_images=False))
