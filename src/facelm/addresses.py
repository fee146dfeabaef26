"""Addresses as they may be told to others: without user, password, query and fragment, where keys stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A `?`, `#` or `@` within a quoted override ends with the quote, so that what is left can still be read.
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*\\?://)(?:[^/?#\s'\"]*@)?(?P<place>[^\s'\"?#;\\,\]}]*)(?P<rest>[?#;][^\s'\"]*)?"
)


def public(text: str) -> str:
    """`text` with every address in it cut to `scheme://host/path`."""
    return _ADDRESS.sub(lambda match: match["scheme"] + match["place"], text)


def without_keys(value: Any) -> Any:
    """A copy of plain values whose strings are `public`; other values are as they were."""
    if isinstance(value, str):
        return public(value)
    if isinstance(value, Mapping):
        return {key: without_keys(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_keys(one) for one in value)
    return value
