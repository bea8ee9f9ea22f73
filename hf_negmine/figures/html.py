"""Small pieces of HTML for notebooks. All text is escaped: queries and passages may hold anything."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

CHARACTERS = 160
"""Characters of a query or a passage that are shown."""


def shown(text: str) -> str:
    """A text on one line, cut to `CHARACTERS`."""
    flat = " ".join(text.split())
    return flat if len(flat) <= CHARACTERS else flat[: CHARACTERS - 1].rstrip() + "…"


def lines(texts: Sequence[str]) -> str:
    """Lines of text as paragraphs."""
    return "".join(f"<p>{_escaped(text)}</p>" for text in texts if text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1, bold: Sequence[int] = ()) -> str:
    """A table.

    Args:
        heads: the heads of the columns.
        rows: the cells of each row.
        names: how many of the first columns hold text, and are set to the left.
        bold: the places of rows that stand out.
    """

    def row(cells: Sequence[str], kind: str, style: str = "") -> str:
        sides = itertools.chain(itertools.repeat("left", names), itertools.repeat("right"))
        made = (
            f'<{kind} style="text-align: {side};{style}">{_escaped(cell)}</{kind}>'
            for cell, side in zip(cells, sides, strict=False)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = (row(cells, "td", " font-weight: bold;" if place in bold else "") for place, cells in enumerate(rows))
    return f"<table><thead>{row(heads, 'th')}</thead><tbody>{''.join(body)}</tbody></table>"


def _escaped(text: str) -> str:
    """Text that nothing in it can end, nor turn around what stands beside it; notebooks read $ as the start of TeX."""
    return f"<bdi>{html.escape(text).replace('$', '&#36;')}</bdi>"
