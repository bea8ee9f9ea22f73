"""Digests of values of any kind: numbers, containers, functions, classes, and objects with everything they hold.

They depend on the value and not on its address, so that they are the same in another process.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xxhash

from hf_negmine.base.schema import AnyArray

UNREADABLE = b"unreadable"
"""Stands in for the digest of an object that hides its content, as many objects implemented in C do."""
NAMED_ONLY = {"torch", "transformers", "sentence_transformers", "tokenizers", "peft", "accelerate", "numpy"}
NAMED_ONLY |= sys.stdlib_module_names
"""Packages whose classes are identified by name alone: the same name means the same code."""
WITHOUT_EFFECT = {"_thread", "threading", "logging", "weakref", "_weakref", "_io", "_contextvars"}
"""Modules whose objects affect no result: locks, loggers, streams."""
PLAIN = (bool, int, float, complex, range, types.EllipsisType)
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, np.ufunc)


class ValueReader:
    """Digests of values, each computed from the digests of its parts; equal values have equal digests.

    Attributes:
        unreadable: the class of the first object that hides its content; empty if there is none.
    """

    def __init__(self) -> None:
        self.unreadable = ""
        self._known: dict[int, tuple[Any, bytes]] = {}  # holds the value, so that its address is not reused

    def digest(self, value: Any) -> bytes:
        """The digest of a value."""
        kind = type(value)
        if kind in (bool, int, float):  # the most frequent kinds
            return joined(kind.__name__, repr(value))
        if value is None or isinstance(value, str) or hasattr(kind, "__fspath__"):
            return self.text(value)
        if id(value) not in self._known:
            self._known[id(value)] = (value, b"itself")
            self._known[id(value)] = (value, self.read(value))
        return self._known[id(value)][1]

    def read(self, value: Any) -> bytes:
        """The digest of a value that is not text and was not met before."""
        kind = name_of(type(value))
        if isinstance(value, enum.Enum):
            return joined(kind, value.name)
        if isinstance(value, bytes | bytearray):
            return joined(kind, value)
        if isinstance(value, PLAIN):
            return joined(kind, repr(value))
        if isinstance(value, np.ndarray | np.generic):
            return self.array(np.asarray(value))
        if isinstance(value, types.ModuleType):
            return joined(kind, value.__name__)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.CodeType):
            return joined(kind, value.co_code, repr(value.co_names), *map(self.digest, value.co_consts))
        if isinstance(value, FUNCTIONS):
            return self._function(value)
        if isinstance(value, dict | Mapping):
            return joined(kind, *sorted(self.digest(key) + self.digest(one) for key, one in value.items()))
        if isinstance(value, set | frozenset):
            return joined(kind, *sorted(map(self.digest, value)))
        if isinstance(value, list | tuple):
            return joined(kind, *map(self.digest, value))
        return self._object(value)

    def text(self, value: Any) -> bytes:
        """The digest of a text, a path, or None."""
        return joined(type(value).__name__, "" if value is None else str(value))

    def array(self, array: AnyArray) -> bytes:
        """The digest of an array."""
        if array.dtype.hasobject:
            return joined(repr(array.shape), self.digest(array.reshape(-1).tolist()))
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        return joined(array.dtype.str, repr(array.shape), content)

    def attributes(self, attributes: Mapping[str, Any]) -> bytes:
        """The digest of an object's attributes."""
        return self.digest(attributes)

    def hide(self, value: Any) -> bytes:
        """Note that a value cannot be read."""
        self.unreadable = self.unreadable or name_of(type(value))
        return UNREADABLE

    def _class(self, kind: type) -> bytes:
        """The digest of a class: its name, and for a user's class also its code, which may be edited."""
        if package_of(kind) in NAMED_ONLY:
            return joined("class", name_of(kind))
        parts: list[str | bytes] = []
        for name, value in sorted(vars(kind).items()):
            inner = getattr(value, "fget", getattr(value, "__func__", value))
            is_setting = isinstance(inner, (*PLAIN, str, list, tuple, dict, set, frozenset))
            if isinstance(inner, types.FunctionType) or (is_setting and not name.startswith("__")):
                parts += [name, self.digest(inner)]
        return joined("class", name_of(kind), *parts, *map(self.digest, kind.__bases__))

    def _function(self, value: Any) -> bytes:
        if isinstance(value, functools.partial):
            return joined("partial", *map(self.digest, (value.func, value.args, value.keywords)))
        if isinstance(value, types.MethodType):
            return joined("method", *map(self.digest, (value.__func__, value.__self__)))
        name = f"{getattr(value, '__module__', None)}.{value.__name__}"
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
            parts = (value.__code__, cells, value.__defaults__, value.__kwdefaults__)
            return joined("function", name, *map(self.digest, parts))
        return joined("function", name, self.digest(getattr(value, "__self__", None)))

    def _object(self, value: Any) -> bytes:
        """The digest of an object: its attributes, or if they may not be everything, what pickling it would write."""
        kind = type(value)
        if kind.__module__ in WITHOUT_EFFECT:
            return joined(name_of(kind))
        attributes = {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)}
        attributes.update(getattr(value, "__dict__", {}))
        parts: list[bytes] = [self.digest(kind)]
        if not attributes or _is_pickled_as_any_object(kind):
            try:
                reduced = (
                    copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(2)
                )
            except Exception:  # a class that cannot be pickled may raise anything
                hidden = self.hide(value)
                if not attributes:
                    return hidden
            else:
                if not attributes:
                    parts += [self.digest(list(one) if isinstance(one, Iterator) else one) for one in reduced]
        return joined("object", *parts, self.attributes(attributes))


def joined(*parts: str | bytes | bytearray | memoryview[int]) -> bytes:
    """One digest of several parts, 16 bytes."""
    contents = [part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts]
    state = xxhash.xxh3_128(repr([len(content) for content in contents]).encode())
    for content in contents:
        state.update(content)
    return state.digest()


def name_of(kind: type) -> str:
    """The qualified name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def package_of(kind: type) -> str:
    """The package that a class comes from."""
    return kind.__module__.partition(".")[0]


def _is_pickled_as_any_object(kind: type) -> bool:
    """Whether none of its classes customizes pickling, which may leave something out, such as a session."""
    names = ("__reduce_ex__", "__reduce__", "__getstate__")
    return all(getattr(kind, name, None) is getattr(object, name, None) for name in names)


def _slots(kind: type) -> list[str]:
    members = [(name, one) for base in kind.__mro__ for name, one in vars(base).items()]
    return [name for name, one in members if isinstance(one, types.MemberDescriptorType)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
