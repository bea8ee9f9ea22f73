"""Work in a fork of this process, which has everything imported: a new process would take seconds to begin."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
"""Marks a test whose libraries fork this process."""


def forking(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that forks this process."""
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")(forks(test))  # type: ignore[no-any-return]


def exit_of(work: Callable[[], Any]) -> int:
    """How a fork ends that does some work: with 0, 1 after an exception, or minus the signal that killed it."""
    return exits_of([work])[0]


def exits_of(works: Sequence[Callable[[], Any]]) -> list[int]:
    """How forks end that do some work each, all at once."""
    children = []
    for work in works:
        child = os.fork()
        if not child:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
