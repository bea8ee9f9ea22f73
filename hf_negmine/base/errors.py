"""Exceptions. Each message is one sentence that states both facts: what was given and what was expected."""

from __future__ import annotations

import copyreg
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


class NegmineError(Exception):
    """The base of everything that hf_negmine raises on purpose."""


class InputError(NegmineError, ValueError):
    """An argument or a row of the user's data that cannot be used as it is."""


class ColumnError(InputError):
    """A column that the data set does not have."""

    def __init__(self, column: str, available: Iterable[str], *, argument: str) -> None:
        super().__init__(f"{argument}: column {column!r} is not among {list(available)}")

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled: without this, ``map(num_proc=2)`` would wait forever for a process that raised it."""
        return copyreg.__newobj__, (type(self), *self.args)  # type: ignore[attr-defined]


class TeacherError(NegmineError, ValueError):
    """A teacher that returned something that is not a finite score or vector of the promised shape."""


class NotFittedError(NegmineError, RuntimeError):
    """A miner that was used before `fit`."""


class FrozenError(NegmineError, AttributeError):
    """An attempt to change a setting of an existing object: its results are stored under the original settings."""


class ShallowPoolError(NegmineError, RuntimeError):
    """A stored pool that is too shallow to answer a selection exactly, with no teacher available to deepen it."""


class ExhaustedError(NegmineError, ValueError):
    """Rows that cannot have the requested number of negatives, under ``on_exhausted="error"``."""


class StorageError(NegmineError, OSError):
    """A cache or output folder that cannot be read or written: full, read-only, truncated, or of another version."""


class DamagedError(StorageError):
    """A file under a cache folder that is not what was written."""


def require(condition: bool, message: str) -> None:
    """Raise `InputError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)


MOST = 2**62
"""The largest count allowed; numpy could not compute with a larger one."""


def is_number(value: object) -> bool:
    """Whether it is a real number of Python or numpy, other than True and False."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Whether it is a whole number of Python or numpy, other than True and False."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_whole(value: Any, argument: str, *, at_least: int | None = None) -> None:
    """Raise `InputError` unless ``value`` is a whole number; with ``at_least``, one between it and `MOST`."""
    least = "" if at_least is None else f", at least {at_least}"
    require(
        is_integer(value) and (at_least is None or value >= at_least),
        f"{argument}: a whole number{least}, got {value!r}",
    )
    require(at_least is None or value <= MOST, f"{argument}: a whole number, at most {MOST}, got {value!r}")


def require_finite(value: Any, argument: str) -> None:
    """Raise `InputError` unless ``value`` is a finite number."""
    require(is_number(value) and math.isfinite(value), f"{argument}: a finite number, got {value!r}")


def require_flag(value: Any, argument: str) -> None:
    """Raise `InputError` unless ``value`` is True or False, of Python or of numpy."""
    import numpy as np  # imported here because this module is imported to show help

    require(isinstance(value, bool | np.bool_), f"{argument}: True or False, got {value!r}")


def require_list(value: Any, argument: str, example: str) -> None:
    """Raise `InputError` unless ``value`` is a list or another sequence, but not a text."""
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    require(listed, f"{argument}: expected a list such as {example}, got {value!r:.80}")


def require_choice(value: Any, choices: Iterable[str], *, argument: str) -> None:
    """Raise `InputError` unless ``value`` is one of ``choices``."""
    listed = list(choices)
    if value not in listed:
        raise InputError(f"{argument}: {value!r} is not among {listed}")
