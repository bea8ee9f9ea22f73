"""Bars of progress: one at a time, each over one unit of work, and none where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm

DELAY = 1.0
"""Seconds before a bar appears."""
_OPEN: list[Any] = []
"""The bars that are open, outermost first; only that one is shown, since it counts the work of those inside it."""


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        finally:  # a loop may end early
            self.close()

    def close(self) -> None:
        if _OPEN and self in _OPEN:  # gone when Python ends
            _OPEN.remove(self)
        super().close()

    def __eq__(self, other: object) -> bool:  # tqdm compares by place on the screen
        return self is other

    __hash__ = tqdm.__hash__


def is_watched() -> bool:
    """Whether somebody may look: in a terminal or a notebook, not where the output goes to a file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def bar(
    what: str,
    unit: str,
    total: int | None = None,
    *,
    over: Iterable[Any] | None = None,
    done: int = 0,
    shown: bool = True,
    leave: bool = True,
    delay: float | None = None,
) -> Any:
    """A bar of tqdm: a context manager with ``update(count)``, or something to iterate over.

    It is shown in a terminal and in a notebook, unless another bar is open.

    Args:
        what: what is going on.
        unit: what is counted, in the plural.
        total: how many there are; with it the bar knows the time left.
        over: what is iterated over; None for a bar that is updated.
        done: how many an earlier run has done, which do not count for the rate.
        shown: whether the user wants bars.
        leave: whether it stays when it is full.
        delay: seconds before it appears; None takes `DELAY`.
    """
    delay = DELAY if delay is None else delay
    hidden = not (shown and is_watched()) or bool(_OPEN)
    made = _Bar(over, total=total, initial=done, desc=what, unit=f" {unit}", disable=hidden, leave=leave, delay=delay)
    if not hidden:
        _OPEN.append(made)
    return made
