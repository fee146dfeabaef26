"""Values that a file says, checked: of the right type, finite and in range, or a ValueError of one sentence.

Whatever is read from a checkpoint, a card, a record or metadata passes through here. What comes out is plain: strings,
numbers, lists and mappings of them. Nothing in it is imported, called or interpolated.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 32 * 2**20
"""Of a JSON file that is read: records and cards are a few kilobytes."""

DEEPEST, MOST_VALUES, LONGEST = 24, 200_000, 100_000
"""Of nested plain values: levels, values, and characters of a string."""

_SHOWN = 80

RENAMED = {"release": "hrnet", "hrnetv2_w18_release": "hrnetv2_w18_hrnet", "init_release": "init_hrnet"}
"""Names that files of earlier versions hold (the HRNet authors' codec and recipe), and what they are called now."""


def renamed(name: Any) -> Any:
    """Today's name of `name`, as a file says it; anything else as it is."""
    return RENAMED.get(name, name) if isinstance(name, str) else name


def now_called(name: object) -> str:
    """For the end of a message about a name that somebody typed: what it is called now, or nothing."""
    return f" ({name!r} is called {renamed(name)!r} now)" if renamed(name) != name else ""


def shown(value: object) -> str:
    """`value` in a message: one line, and not longer than a line."""
    try:
        said = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        said = f"a {type(value).__name__}"
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def text(value: object, name: str, *, longest: int = LONGEST) -> str:
    """`value`, a string of at most `longest` characters.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"{name} is a text of at most {longest} characters, got {shown(value)}")
    return str(value)


def one_of(value: object, name: str, known: Collection[str]) -> str:
    """`value`, one of the strings `known`.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}; got {shown(value)}")
    return str(value)


def number(value: object, name: str, low: float, high: float) -> float:
    """`value`, a finite number from `low` to `high`; a truth value is none.

    Raises:
        ValueError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is a number from {low:g} to {high:g}, got {shown(value)}")
    return value


def integer(value: object, name: str, low: int, high: int) -> int:
    """`value`, a whole number from `low` to `high`.

    Raises:
        ValueError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, got {shown(value)}")
    return int(value)


def numbers(value: object, name: str, count: int, low: float, high: float) -> tuple[float, ...]:
    """`value`, a list of `count` finite numbers from `low` to `high`.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, list | tuple) or len(value) != count:
        raise ValueError(f"{name} is a list of {count} numbers, got {shown(value)}")
    return tuple(number(one, name, low, high) for one in value)


def strings(value: object, name: str, *, most: int = MOST_VALUES) -> tuple[str, ...]:
    """`value`, a list of at most `most` strings.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ValueError(f"{name} is a list of texts, got {shown(value)}")
    return tuple(text(one, name) for one in value)


def part_of_address(value: object, name: str) -> str:
    """A name that stands in an address, and holds nothing that would make it another address.

    Raises:
        ValueError: it does.
    """
    said = text(value, name, longest=200)
    if not re.fullmatch(r"[\w .+@=-]*", said) or set(said) == {"."}:
        raise ValueError(f"{name} is a name without / and other signs of an address, got {shown(said)}")
    return said


def hexadecimal(value: object, name: str, digits: int) -> str:
    """`value`, a string of `digits` lower-case hexadecimal digits.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"{name} is a text of {digits} hexadecimal digits, got {shown(value)}")
    return value


def mapping(value: object, name: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """`value`, a mapping from strings, of no other entries than `known`; what they hold is not checked.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} is a mapping from names to values, got {shown(value)}")
    if known is not None and (unknown := sorted(set(value) - set(known))):
        raise ValueError(f"{name} with unknown entries: {', '.join(map(shown, unknown[:8]))}")
    return {str(key): one for key, one in value.items()}


def scores(value: object, name: str) -> dict[str, float]:
    """`value`, a mapping from names to errors in percent.

    Raises:
        ValueError: something else.
    """
    return {
        text(key, name, longest=200): number(one, f"{name}.{key}", 0, 1e6) for key, one in mapping(value, name).items()
    }


def plain(value: object, name: str) -> Any:
    """A copy of `value`: strings, numbers, truth values, None, and lists and mappings of them, no deeper than DEEPEST.

    Raises:
        ValueError: anything else is in it, or too much.
    """
    left = [MOST_VALUES]

    def copied(one: object, depth: int) -> Any:
        left[0] -= 1
        if depth > DEEPEST or left[0] < 0:
            raise ValueError(f"{name} is nested more than {DEEPEST} levels deep, or holds over {MOST_VALUES} values")
        if one is None or isinstance(one, bool | float):
            return one
        if isinstance(one, int) and abs(one) < 2**64:
            return one
        if isinstance(one, str):
            return text(one, name)
        if isinstance(one, list | tuple):
            return [copied(part, depth + 1) for part in one]
        if isinstance(one, dict):
            return {key: copied(part, depth + 1) for key, part in mapping(one, name).items()}
        raise ValueError(f"{name} holds plain values only, not {shown(one)}")

    return copied(value, 0)


def finite_points(value: object, name: str, count: int, reach: float) -> list[list[float]]:
    """`value`, a list of `count` points (x, y) within `reach` of 0.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, list | tuple) or len(value) != count:
        raise ValueError(f"{name} is a list of {count} points (x, y), got {shown(value)}")
    return [list(numbers(point, name, 2, -reach, reach)) for point in value]


def from_json(content: str | bytes, name: str, *, most: int = MOST_BYTES) -> Any:
    """What a JSON text of at most `most` bytes holds; not yet checked beyond its size and depth.

    Raises:
        ValueError: it is none, too large, or nested too deeply.
    """
    if len(content) > most:
        raise ValueError(f"{name} holds {len(content)} bytes, more than {most}")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
    except ValueError as error:  # also an integer of too many digits, and bytes that are no UTF-8
        raise ValueError(f"{name} is no JSON ({error})") from error


def read_json(path: Path, *, most: int = MOST_BYTES) -> Any:
    """What a JSON file holds, as `from_json`.

    Raises:
        OSError: it cannot be read.
        ValueError: as `from_json`.
    """
    with path.open("rb") as file:
        return from_json(file.read(most + 1), f"'{path}'", most=most)


OF_YAML = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises for odd values (`!!bool x`, `!!int ''`, 1:1:...:1.5) beside its own errors."""


def from_yaml(content: str, name: str) -> Any:
    """What a YAML text holds, as plain YAML has it: no tag of it names a class; not yet checked beyond that.

    Raises:
        ValueError: it is none, too large, or nested too deeply.
    """
    import yaml  # here: few commands read any

    if len(content) > MOST_BYTES:
        raise ValueError(f"{name} holds {len(content)} characters, more than {MOST_BYTES}")
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, *OF_YAML) as error:
        raise ValueError(f"{name} is no YAML ({' '.join(str(error).split()) or type(error).__name__})") from error


def is_finite(value: object) -> bool:
    """Whether `value` is a finite number."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )
