"""Codecs: landmarks to heatmaps and back. A network must be decoded with the codec that it was trained with.

| name | target | decoding | error of a perfect network, pixels of the crop (rms) |
|---|---|---|---|
| `mmpose` | window at the rounded cell | largest cell + quarter step | 1.6 |
| `dark` | whole map, unrounded | Newton step on a blurred map | 0.001 |
| `hrnet` | window at the truncated cell | middle of the largest cell + quarter step, integers | 2.2 |
| `subpixel` | whole map, unrounded | log-quadratic fit around the largest cell | below 0.001 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from facelm import checked
from facelm.codec.dark import DarkCodec
from facelm.codec.hrnet import HRNetCodec
from facelm.codec.interface import Codec
from facelm.codec.mmpose import MMPoseCodec
from facelm.codec.subpixel import SubpixelCodec

__all__ = [
    "CODECS",
    "Codec",
    "DarkCodec",
    "HRNetCodec",
    "MMPoseCodec",
    "SubpixelCodec",
    "build_codec",
]

CODECS: Mapping[str, type[Codec]] = MappingProxyType(
    {codec.name: codec for codec in (MMPoseCodec, DarkCodec, HRNetCodec, SubpixelCodec)}
)


def build_codec(spec: Mapping[str, Any], crop_size: int) -> Codec:
    """The codec that `spec` describes, for crops of `crop_size` pixels; the inverse of `Codec.spec`.

    Raises:
        ValueError: no or an unknown `name`, an option that the codec does not have, or a value that it refuses.
    """
    options = dict(spec)
    name = options.pop("name", None)
    if name not in CODECS:
        raise ValueError(
            f"no codec {name!r} in {dict(spec)}; known: {', '.join(CODECS)}. Check `codec=`{checked.now_called(name)}"
        )
    known = {field.name for field in fields(CODECS[name]) if field.init} - {"crop_size"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"codec {name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    whole = {field.name for field in fields(CODECS[name]) if str(field.type) in ("int", "int | None")}
    if fractions := [option for option in sorted(whole & options.keys()) if isinstance(options[option], float)]:
        raise ValueError(f"codec {name!r}: {fractions[0]}={options[fractions[0]]} is no whole number")
    return CODECS[name](crop_size=crop_size, **options)
