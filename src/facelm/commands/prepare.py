"""`facelm prepare ARCHIVE... --out data/300w` unpacks iBUG's archives; `facelm prepare --drawn` draws faces instead.

`facelm prepare --data NAME --out FOLDER` counts the faces of another published data set, and unpacks COFW's.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

EXAMPLES = """
iBUG's archives are afw.zip, helen.zip, ibug.zip, lfpw.zip and 300w.zip.001 to .004, from
https://ibug.doc.ic.ac.uk/resources/300-W/. What is unpacked already is left alone, so an interrupted run is repeated.

Other data sets are unpacked with tar or unzip; --data counts what is there. COFW's .mat files are unpacked here.

examples:
  facelm prepare --data wflw --out data/wflw
  facelm prepare --data cofw COFW_train_color.mat COFW_test_color.mat --out data/cofw
  facelm prepare afw.zip helen.zip ibug.zip lfpw.zip 300w.zip.001 --out data/300w
  facelm prepare --drawn
  facelm prepare --drawn --out data/many --counts train=20000,common=500 --seed 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("archives", nargs="*", type=Path, metavar="ARCHIVE", help="iBUG's files; of numbered parts any one")
    add("--out", type=Path, metavar="FOLDER", help="where the faces go (default: data/300w, or data/drawn)")
    add("--data", metavar="NAME", help="another data set than 300W: wflw, cofw, aflw, lapa, w300lp, coco_wholebody")
    add = parser.add_argument_group("drawn faces").add_argument
    add("--drawn", action="store_true", help="draw faces of people who do not exist, their landmarks exact")
    add("--counts", type=_counts, metavar="LIST", help="faces of each split (default: train=1200,common=120,...)")
    add("--seed", type=int, help="other faces for another number (default: 0)")
    add("--processes", type=int, metavar="N", help="draw with N processes (default: one for each core)")


def run(args: argparse.Namespace) -> int:
    """Unpacks or draws, and says how to go on."""
    drawing = {"--counts": args.counts, "--seed": args.seed, "--processes": args.processes}
    given = [option for option, value in drawing.items() if value is not None]
    if args.data is not None:
        if args.drawn or given:
            odd = "--drawn" if args.drawn else given[0]
            raise ValueError(
                f"--data {args.data} is for a published data set, and {odd} for drawn faces; leave one out"
            )
        return _published(args)
    if args.drawn and args.archives:
        raise ValueError(f"--drawn draws faces and needs no archive; {args.archives[0]} was given too")
    if given and not args.drawn:
        raise ValueError(f"{', '.join(given)}: that is for drawn faces; add --drawn")
    if not args.drawn and not args.archives:
        raise ValueError(
            "nothing to prepare: name iBUG's archives (afw.zip helen.zip ibug.zip lfpw.zip 300w.zip.001), or give "
            "--drawn to draw faces instead"
        )
    return _draw(args) if args.drawn else _unpack(args)


def _unpack(args: argparse.Namespace) -> int:
    from facelm.data.w300.archives import prepare_archives
    from facelm.launch.quoted import quoted

    out = args.out or Path("data/300w")
    prepare_archives(args.archives, out)
    print(f"to train: python -m facelm.train experiment=hrnetv2_w18 {quoted('data.root', str(out))}")
    return 0


def _published(args: argparse.Namespace) -> int:
    """Unpacks what can be of a published data set, and counts its faces against its authors'."""
    from facelm.data.published import PublishedFaces
    from facelm.launch.build import build_data, compose_config
    from facelm.launch.paths import CONF_DIR
    from facelm.launch.quoted import quoted

    known = [path.stem for path in sorted((CONF_DIR / "data").glob("*.yaml")) if "base/published" in path.read_text()]
    if args.data not in known:
        raise ValueError(f"--data {args.data} is none of {', '.join(known)}; 300W's archives need no --data")
    cfg = compose_config([f"data={args.data}"])
    cfg.data.root = str(args.out or cfg.data.root)
    source = build_data(cfg).source
    if not isinstance(source, PublishedFaces):
        raise ValueError(f"--data {args.data} is no published data set")
    source.unpack(args.archives)
    source.prepare()
    print(source.count_table())
    where = quoted("data.root", cfg.data.root)
    print(f"to train: python -m facelm.train experiment=hrnetv2_w18_best data={args.data} {where}")
    return 0


def _draw(args: argparse.Namespace) -> int:
    from facelm.commands.progress import progress_bar
    from facelm.data.synthetic.dataset import DEFAULT_COUNTS, draw_dataset
    from facelm.data.synthetic.folder import DRAWN_SPLITS
    from facelm.launch.quoted import quoted

    out, counts = args.out or Path("data/drawn"), args.counts or dict(DEFAULT_COUNTS)
    processes = (os.cpu_count() or 1) if args.processes is None else args.processes
    if processes < 1:
        raise ValueError(f"--processes {processes}: at least one has to draw")
    drawn = 0
    with progress_bar(sum(counts.values())) as bar:

        def progress(done: int, total: int) -> None:
            nonlocal drawn
            for _ in range(done - drawn):
                bar.finish_input()
            drawn = done

        draw_dataset(out, counts=counts, seed=args.seed or 0, processes=processes, progress=progress)
    split = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(f"{out}: {split}" + ("" if drawn else " (there already)"))
    # Told otherwise, training would draw its own faces in the same folder.
    faces = ",".join(f"{name}:{counts.get(name, 0)}" for name in DRAWN_SPLITS)
    same = [quoted("data.root", str(out)), f"'data.counts={{{faces}}}'", f"data.drawing_seed={args.seed or 0}"]
    print(f"to train: python -m facelm.train experiment=demo {' '.join(same)}")
    return 0


def _counts(text: str) -> dict[str, int]:
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        return {name.strip(): int(count) for name, count in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as train=1200,common=120") from None
