"""`facelm pack DATA --out faces.pack`: faces and crops in one file, which trains without the photographs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facelm.data.datamodule import FaceDataModule
    from facelm.data.faces import Face
    from facelm.data.storage.coding import Coding
    from facelm.geometry.landmarks import LandmarkScheme

EXAMPLES = """
DATA is a folder (data.root=FOLDER), and KEY=VALUE what a training on it would be given: the crops are as large as its
augmentation reaches, and as its crop.size and crop.scale. data.cache=raw keeps pixels as they are, jpeg takes a tenth
of the bytes; by default raw while that is small. facelm info FILE says what is in a pack.

examples:
  facelm pack data/300w --out 300w.pack
  facelm pack experiment=hrnetv2_w18_best data.root=data/300w data.cache=jpeg --out 300w.pack
  facelm pack PHOTOGRAPHS data=coco data.train=faces.json landmarks=file landmarks.file=mine.yaml --out mine.pack
  python -m facelm.train experiment=hrnetv2_w18_best data=packed data.file=300w.pack
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("overrides", nargs="+", metavar="DATA", help="the folder of the data set, and KEY=VALUE as for facelm.train")
    add("--out", required=True, type=Path, metavar="FILE", help="the pack to write; its folder is made")
    add("--overwrite", action="store_true", help="replace a pack that is there")


def run(args: argparse.Namespace) -> int:
    """Writes the pack, and says how to train on it."""
    from facelm.commands.progress import progress_bar
    from facelm.data.storage.pack_write import splits_of, write_pack
    from facelm.data.storage.packed import PackedFaceDataModule
    from facelm.files import typed
    from facelm.launch.build import build_data, compose_config
    from facelm.launch.quoted import as_value, quoted
    from facelm.predict.files import check_writable

    out = typed(args.out)
    if out.exists() and not args.overwrite:
        raise FileExistsError(f"'{out}' is there: --overwrite replaces it")
    overrides = [one if "=" in one else f"data.root={as_value(one)}" for one in args.overrides]
    cfg = compose_config(overrides)
    data = build_data(cfg)
    if isinstance(data, PackedFaceDataModule):
        raise ValueError(f"'{data.root}' is a pack already: name the data set that it was made from")
    check_writable(out.parent)
    data.prepare_data()
    splits = splits_of(data.source)
    total = sum(map(len, splits.values()))
    with progress_bar(total + len(splits["train"])) as bar:
        write_pack(
            out,
            data.source,
            splits,
            scheme=data.scheme,
            surroundings=data.surroundings,
            crop=data.crop,
            coding=_coding(data, splits, out.parent),
            pixel_origin=cfg.data.get("pixel_origin", 1),
            seen=lambda _: bar.finish_input(),
        )
    print(f"{out}: {total:,} faces, {out.stat().st_size / 1e6:,.1f} MB")
    chosen = [one for one in overrides if one.startswith("experiment=")]
    scheme = "landmarks=file landmarks.file=FILE" if _is_own(data.scheme) else f"landmarks={data.scheme.name}"
    words = [*chosen, "data=packed", quoted("data.file", str(out)), scheme]
    print(f"to train: python -m facelm.train {' '.join(words)}")
    return 0


def _coding(data: FaceDataModule, splits: Mapping[str, Sequence[Face]], folder: Path) -> Coding:
    """As data.cache says; what auto comes to, and why, is printed."""
    from facelm.data.storage.caching import Part, raw_or_jpeg
    from facelm.data.storage.coding import coding_of

    if data.cache in ("raw", "jpeg"):
        return coding_of(data.cache, data.cache_quality)
    parts: list[Part] = [(splits["train"], data.surroundings), *((faces, data.crop) for faces in splits.values())]
    kind, why = raw_or_jpeg(parts, folder)
    print(f"crops are stored {'as they are' if kind == 'raw' else 'as JPEG'}, since {why}")
    return coding_of(kind, data.cache_quality)


def _is_own(scheme: LandmarkScheme) -> bool:
    from facelm.geometry.schemes import known_schemes

    return scheme.name not in known_schemes()
