"""`facelm landmarks`: which points a scheme has, as a list and a picture, and a scheme from an annotation file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facelm.geometry.affine import FloatArray, Image
    from facelm.geometry.landmarks import LandmarkScheme

EXAMPLES = """
examples:
  facelm landmarks                                   # the schemes that facelm has
  facelm landmarks wflw98 --out wflw98.png           # its numbered points on a plain face
  facelm landmarks infer faces.json --out mine.yaml  # the scheme of a COCO-keypoints file, to look over and edit;
                                                     # its picture, mine.png, lies beside it
"""

_SIZE, _MARGIN = 1100, 0.08


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("scheme", nargs="?", metavar="NAME", help="a scheme's name or file, or `infer`")
    add(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="with infer: COCO keypoints (.json), a table (.csv), or a folder of .pts",
    )
    add("--out", type=Path, metavar="FILE", help="the picture (.png), or with infer the scheme (.yaml)")
    add("--name", metavar="WORD", help="with infer: what the scheme is called (by default the file's name)")
    add("--overwrite", action="store_true", help="with infer: replace a scheme that is there")


def run(args: argparse.Namespace) -> int:
    """Prints a scheme, or all of them; writes what --out names."""
    from facelm.geometry.landmarks import get_scheme
    from facelm.geometry.schemes import known_schemes

    if args.scheme is None:
        for name in known_schemes():
            scheme = get_scheme(name)
            print(f"{name:<10} {scheme.num_landmarks:>4} points, errors divided by {scheme.normaliser}")
        return 0
    if args.scheme == "infer":
        return _infer(args)
    if args.file is not None:
        raise ValueError(f"'{args.file}': a file follows `infer` only; a scheme's own file is named by itself")
    scheme = get_scheme(args.scheme)
    _list(scheme)
    if args.out is not None:
        if not scheme.shape:
            raise ValueError(f"the scheme {scheme.name} has no `shape`: it does not say where its points lie on a face")
        _draw(scheme, args.out)
    return 0


def _infer(args: argparse.Namespace) -> int:
    import numpy as np
    import yaml

    from facelm.data.outline import read_outline
    from facelm.files import write_whole
    from facelm.geometry.inferred import infer_scheme
    from facelm.geometry.landmarks import get_scheme

    if args.file is None or args.out is None or args.out.suffix not in (".yaml", ".yml"):
        raise ValueError(
            "facelm landmarks infer FILE --out MINE.yaml; FILE is a .json, a .csv or a folder of .pts files"
        )
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"'{args.out}' is there: --overwrite replaces it")
    outline = read_outline(args.file)
    names = outline.names or tuple(str(i) for i in range(len(outline.shape)))
    plain, alone = infer_scheme(args.name or args.out.stem, names, outline.skeleton, outline.shape)
    plain["shape"] = np.round(outline.shape, 3).tolist()
    if not outline.names:
        plain["points"] = len(names)
    scheme = get_scheme(plain)
    write_whole(args.out, _HEAD + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110))
    _list(scheme)
    if outline.names and (counted := _counted_otherwise(scheme.names)):
        print(f"\n{counted}")
    for remark in [*outline.remarks[:5], *_open_questions(scheme, names, alone)]:
        print(f"\n{remark}")
    picture = args.out.with_suffix(".png")
    _draw(scheme, picture)
    coco = args.file.suffix.lower() == ".json"
    where = f"data.root={args.file}" if args.file.is_dir() else f"data.root=PHOTOGRAPHS data.train={args.file}"
    print(f"\nscheme: {args.out}, its picture: {picture}. Look them over, then:")
    print(f"  facelm train experiment=finetune data={'coco' if coco else 'folder'} {where} \\")
    print(f"      landmarks=file landmarks.file={args.out}      # without a GPU: trainer=cpu native=true crop.size=128")
    print("Of tens of thousands of faces, experiment=own starts from scratch")
    return 0


def _counted_otherwise(names: Sequence[str]) -> str:
    """That numbers count from 0, where the names are other numbers."""
    other = [i for i, name in enumerate(names) if name.isdecimal() and int(name) != i]
    if not other:
        return ""
    return (
        f"Numbers count from 0, in this file, in pictures and in results: the point called {names[other[0]]} is "
        f"{other[0]}"
    )


_HEAD = "# Look it over: the pairs that change places in a mirrored photograph, the outer eye corners, the regions.\n"


def _open_questions(scheme: LandmarkScheme, names: Sequence[str], alone: Sequence[str]) -> list[str]:
    """What only a person knows of an inferred scheme, a sentence each."""
    from facelm.geometry.inferred import has_side

    asked = []
    if not any(map(has_side, names)):
        asked.append(
            "No name says left or right, so the pairs in `mirror` are guessed from where the points lie on average: "
            "check them in the picture, where red and blue points are partners and grey ones lie in the middle, or "
            "mirrored photographs teach wrong points"
        )
    if alone:
        asked.append(
            f"Without a partner on the other side: {', '.join(alone)}. If they have one, write it into `mirror`"
        )
    if scheme.normaliser == "box":
        asked.append(
            "No outer corners of eyes are known, so errors are divided by the side of the box. To compare with other "
            "work, write `normaliser: interocular` and `outer_eyes: [A, B]`, the numbers of these points, that on the "
            "picture's left first"
        )
    return asked


def _list(scheme: LandmarkScheme) -> None:
    """Prints each point's number, name, region and mirror partner."""
    region = {i: name for name, indices in scheme.regions.items() for i in indices}
    print(f"{scheme.name}: {scheme.num_landmarks} points, errors divided by {scheme.normaliser}")
    print(f"{'point':>5}  {'mirror':>6}  {'region':<8} name")
    for i in range(scheme.num_landmarks):
        partner = "-" if scheme.mirror[i] == i else str(scheme.mirror[i])
        print(f"{i:>5}  {partner:>6}  {region[i]:<8} {scheme.names[i] if scheme.names else ''}".rstrip())


def _draw(scheme: LandmarkScheme, path: Path) -> None:
    """Writes the picture of the numbered points on the scheme's shape."""
    from facelm.commands.contact_sheet import write_png

    write_png(path, numbered(scheme))


def numbered(scheme: LandmarkScheme) -> Image:
    """The scheme's points with their numbers, `[S, S, 3]`: lines in grey, mirror partners in two colours."""
    import cv2
    import numpy as np

    shape = np.array(scheme.shape)
    low, extent = shape.min(axis=0), float(np.ptp(shape, axis=0).max()) or 1.0
    room = (1 - np.ptp(shape, axis=0) / extent) / 2
    places = ((shape - low) / extent + room) * _SIZE * (1 - 2 * _MARGIN) + _SIZE * _MARGIN
    canvas = np.full((_SIZE, _SIZE, 3), 255, np.uint8)
    for line in scheme.contours:
        cv2.polylines(canvas, [np.round(places[list(line)]).astype(np.int32)], False, (190, 190, 190), 1, cv2.LINE_AA)
    taken = [np.array([x - 5, y - 5, x + 5, y + 5]) for x, y in places]
    for i, (x, y) in enumerate(places):
        middle = scheme.mirror[i] == i
        left = places[i, 0] < places[scheme.mirror[i], 0]
        color = (90, 90, 90) if middle else (200, 60, 30) if left else (30, 90, 200)
        cv2.circle(canvas, (round(x), round(y)), 4, color, cv2.FILLED, cv2.LINE_AA)
        at = _free_place((float(x), float(y)), 9 * len(str(i)), taken)
        cv2.putText(canvas, str(i), at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
    return canvas


def _free_place(point: tuple[float, float], width: int, taken: list[FloatArray]) -> tuple[int, int]:
    """The lower left corner of a number beside `point` that covers least of what is `taken`, which it joins.

    Rectangles are left, top, right, bottom.
    """
    import numpy as np

    def covered(place: FloatArray) -> float:
        both = [np.minimum(one[2:], place[2:]) - np.maximum(one[:2], place[:2]) for one in taken]
        return float(sum(side.clip(0).prod() for side in both))

    x, y = point
    beside = ((6, -5), (6, 14), (-6 - width, -5), (-6 - width, 14), (-width / 2, -8), (-width / 2, 18), (8, 4))
    corners = [(x + right, y + down) for right, down in (*beside, (-8 - width, 4))]
    places = [np.array([left, bottom - 11, left + width, bottom]) for left, bottom in corners]
    best = min(range(len(places)), key=lambda number: covered(places[number]))
    taken.append(places[best])
    return round(corners[best][0]), round(corners[best][1])
