"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

WORDS = ("run", "overrides", "status")


def table_lines(header: Sequence[str], cells: Sequence[Sequence[str]], words: Collection[str] = WORDS) -> list[str]:
    """The lines of a table; the columns of `words` stand to the left, numbers to the right."""
    rule = ["---" if name in words else "---:" for name in header]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *cells)]
