"""Numbers in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as ``1 row`` or ``1,200 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with numbers where several are the same: ``bm25 #1``, ``bm25 #2``."""
    return [
        name if names.count(name) == 1 else f"{name} #{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]
