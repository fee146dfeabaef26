"""What `facelm info` says of a pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facelm.data.storage.pack import Pack


def is_pack(path: Path) -> bool:
    """Whether a file begins like a pack, whatever it is called."""
    from facelm.data.storage.pack import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(12) == MAGIC[:12]
    except (OSError, ValueError):
        return path.suffix.lower() == ".pack"


def about_pack(path: Path, verify: bool, scheme: Path | None) -> int:
    """Prints what is in it; `verify` reads every crop and names damaged faces (then it returns 1).

    `scheme` is a file to write the landmark scheme to.

    Raises:
        OSError, ValueError: the file is no pack, or damaged; FileExistsError: `scheme` is there.
    """
    from facelm.data.faces import data_fingerprint
    from facelm.data.storage.pack import Pack

    pack = Pack(path)
    facts = pack.facts
    rows = [
        ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("written by", f"facelm {facts.version}"),
        ("points", f"{facts.scheme.num_landmarks}, scheme {facts.scheme.name}, errors divided by "
                   f"{facts.scheme.normaliser}; data.pixel_origin={facts.pixel_origin}"),
        ("validates", f"{facts.validates[0]} ({', '.join(facts.validates[1])}), of what is there"),
        ("stored", "pixels as they are" if facts.quality is None else f"JPEG of quality {facts.quality}"),
        ("training", f"up to {facts.surroundings.reach:.4f} sides of the box around a face, at most "
                     f"{facts.surroundings.max_side} px"),
        ("evaluation", f"crops of {facts.crop.crop_size} px, scale {facts.crop.crop_scale:g}"),
    ]  # fmt: skip
    for split in facts.splits:
        numbers = pack.numbers(split)
        found = data_fingerprint(pack.faces[numbers]) if len(numbers) else "-"
        rows.append((split, f"{len(numbers):,} faces of {len(set(pack.group[numbers].tolist())):,} photographs or "
                            f"clips, fingerprint {found}"))  # fmt: skip
    for name, text in rows:
        print(f"{name:<14} {text}")
    if scheme:
        _write_scheme(pack, scheme)
    return _verify(pack) if verify else 0


def _write_scheme(pack: Pack, path: Path) -> None:
    import yaml

    from facelm.files import write_whole
    from facelm.geometry.landmarks import plain_scheme

    if path.exists():
        raise FileExistsError(f"'{path}' is there already: give --scheme another name")
    write_whole(path, yaml.safe_dump(plain_scheme(pack.facts.scheme), sort_keys=False, default_flow_style=None))
    print(f"to train on it: landmarks=file landmarks.file={path}")


def _verify(pack: Pack) -> int:
    damaged = pack.damaged()
    for number in damaged[:200]:
        print(f"  damaged: {pack.faces[number].name}")
    print(f"{len(damaged):,} of {len(pack.faces):,} faces are damaged" if damaged else "every crop is whole")
    return 1 if damaged else 0
