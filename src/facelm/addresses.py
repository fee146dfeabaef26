"""Addresses and paths as they may be told to others.

Addresses lose user, password, query and fragment, where keys stand; absolute paths lose all but their last part, since
the folders before it say whose machine it was.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

# A `?`, `#` or `@` within a quoted override ends with the quote, so that what is left can still be read.
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*\\?://)(?:[^/?#\s'\"]*@)?(?P<place>[^\s'\"?#;\\,\]}]*)(?P<rest>[?#;][^\s'\"]*)?"
)


_ABSOLUTE = r"(?:(?:file:/*)?/|~[^/\s,]+/|[A-Za-z]:[\\/])(?!/)"

# Within an override a path begins after `=`, `[`, `{`, `,`, `:` or a quote, and ends before the like.
_WITHIN = re.compile(r"(?P<before>[=\[{,:'\"]\s*)" + _ABSOLUTE + r"(?P<path>(?:(?<=\\)['\"]|[^'\",\]}=\n])*)")

CUT = ".../"
"""Stands for what a path has lost."""


def public(text: str) -> str:
    """`text` with every address in it cut to `scheme://host/path`."""
    return _ADDRESS.sub(lambda match: match["scheme"] + match["place"], text)


class PublicFormatter(logging.Formatter):
    """Writes what is logged with every address in it cut: logs are kept, and passed on."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, `public`."""
        return public(super().format(record))


def without_keys(value: Any) -> Any:
    """A copy of plain values whose strings are `public`; other values are as they were."""
    return _each(value, public)


def shareable(value: Any) -> Any:
    """As `without_keys`, and every absolute path in it is cut to `.../NAME`: what a checkpoint or a tracker may keep.

    Keys stay as they are. A relative path, and one below `~/`, says nothing of a machine and is kept.
    """
    return _each(value, lambda text: _without_places(public(text)))


def _without_places(text: str) -> str:
    if found := re.match(_ABSOLUTE, text):
        return _cut(text[found.end() :])
    return _WITHIN.sub(lambda match: match["before"] + _cut(match["path"]), text)


def _cut(path: str) -> str:
    return CUT + re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each(one, change) for one in value)
    return value
