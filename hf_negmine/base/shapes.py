"""The shape that outside content (JSON, YAML) must have, checked once, on the way in."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from hf_negmine.base.errors import StorageError

Shape: TypeAlias = Callable[[Any, str], None]
"""Takes a value and its location, and raises `StorageError` unless the value has the shape."""

DEEPEST = 100
MOST = 2**63 - 1


def check_plain(content: Any, where: str) -> None:
    """Raise `StorageError` unless content can be walked and written again: no deep nesting, all text valid UTF-8."""
    level = [content]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _encodable(value, where)
            elif isinstance(value, Mapping):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set | frozenset):
                inner += value
        if not inner:
            return
        level = inner
    raise StorageError(f"{where}: it is nested more than {DEEPEST} levels deep")


def _encodable(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{where}: the text {value!a:.80} cannot be written as UTF-8") from error


def expect(holds: bool, where: str, expected: str, value: Any) -> None:
    """Raise a `StorageError` that states what was expected and what was found, unless ``holds``."""
    if not holds:
        raise StorageError(f"{where}: expected {expected}, got {reprlib.repr(value)}")


def anything(value: Any, where: str) -> None:
    """Accept any value."""


def text(value: Any, where: str) -> None:
    """Any text."""
    expect(isinstance(value, str), where, "a text", value)


def flag(value: Any, where: str) -> None:
    """True or False."""
    expect(isinstance(value, bool), where, "true or false", value)


def number(value: Any, where: str) -> None:
    """A finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    expect(is_number and abs(value) < 1e300 and math.isfinite(value), where, "a finite number", value)


def whole(least: int = 0, most: int = MOST) -> Shape:
    """A whole number within bounds."""

    def check(value: Any, where: str) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        expect(is_whole and least <= value <= most, where, f"a whole number from {least} to {most}", value)

    return check


def one_of(choices: Iterable[str]) -> Shape:
    """One of the given texts."""
    known = list(choices)
    return lambda value, where: expect(isinstance(value, str) and value in known, where, f"one of {known}", value)


def optional(shape: Shape) -> Shape:
    """A value of the shape, or None."""
    return lambda value, where: None if value is None else shape(value, where)


def list_of(shape: Shape, *, length: int | None = None) -> Shape:
    """A list whose items all have one shape."""

    def check(value: Any, where: str) -> None:
        expected = "a list" if length is None else f"a list of {length}"
        expect(isinstance(value, list) and length in (None, len(value)), where, expected, value)
        for place, item in enumerate(value):
            shape(item, f"{where}[{place}]")

    return check


def map_of(shape: Shape) -> Shape:
    """A mapping from names to values of one shape."""

    def check(value: Any, where: str) -> None:
        expect(isinstance(value, dict) and all(isinstance(name, str) for name in value), where, "a mapping", value)
        for name, item in value.items():
            shape(item, f"{where}.{name}")

    return check


def record(fields: Mapping[str, Shape], *, required: Iterable[str] = (), closed: bool = False) -> Shape:
    """Fields of given shapes.

    Args:
        fields: the shape of each known field.
        required: the fields that must be present.
        closed: whether unknown fields are an error.
    """
    needed = list(required)

    def check(value: Any, where: str) -> None:
        map_of(anything)(value, where)
        if lacking := [name for name in needed if name not in value]:
            raise StorageError(f"{where}: it lacks {', '.join(lacking)}")
        if closed and (others := sorted(set(value) - set(fields))):
            raise StorageError(
                f"{where}: it has {reprlib.repr(others)}, which this version of hf_negmine does not know"
            )
        for name, item in value.items():
            if name in fields:
                fields[name](item, f"{where}.{name}")

    return check
