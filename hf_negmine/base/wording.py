"""Numbers, names and settings in sentences and specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as ``1 row`` or ``1,200 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number_text(value: float) -> str:
    """A number in a spec: with all its digits, so that reading it gives the very same, and without a plus."""
    return repr(float(value)).removesuffix(".0").replace("e+", "e")


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with numbers where several are the same: ``bm25 #1``, ``bm25 #2``."""
    return [
        name if names.count(name) == 1 else f"{name} #{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def rules_of(settings: Mapping[str, Any]) -> str:
    """What recorded settings ask of a negative: ``perc_pos:0.95 and veto by bm25-english (margin_pos:1)``."""
    return " and ".join([settings["method"], *(one["filter"] for one in settings.get("filters", []))])
