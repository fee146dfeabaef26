"""Overrides whose values hold characters that mean something to Hydra: how they are typed, and what to say if not."""

from __future__ import annotations

import re
import shlex


def as_value(value: object) -> str:
    """`value` as Hydra reads it behind `key=`, whatever characters a text or path has."""
    text = str(value)
    at_the_end = text[len(text.rstrip("\\")) :]
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)  # Hydra halves backslashes before a quotation mark only
    return f'"{escaped}{at_the_end}"'


def quoted(key: str, value: str) -> str:
    """The override `key=value` as it is typed in a shell, whatever a text or path `value` holds."""
    return f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else shlex.quote(f"{key}={as_value(value)}")


def unreadable(override: str, reason: str) -> str:
    """What is said of an override that Hydra cannot parse."""
    key, equals, value = override.partition("=")
    said = f"{override}: Hydra cannot read this ({reason.splitlines()[0]})"
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key):
        return f"{said}. An override is KEY=VALUE, as in data.root=data/300w"
    return (
        f"{said}. In a value, = [ ] {{ }} ( ) # ~ , : and spaces have a meaning of their own; a text or a path that "
        f"holds them is quoted, for Hydra and for the shell: {quoted(key, value)}"
    )
