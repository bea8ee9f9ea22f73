"""A YAML file as nested frozen dataclasses, strictly: every key is known, none is missing, every type is right."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from hf_negmine.base.errors import InputError

T = TypeVar("T")
KIND, SCALES = "recipe", "scales"
"""The key that says which dataclass a file is, and the key of what smaller runs of it change."""

NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}


class Recipe(Protocol):
    """What `load_recipe` returns: a frozen dataclass that holds every setting of an experiment."""

    def plan(self) -> str:
        """What a run takes, for people. Nothing is loaded."""
        ...

    def run(self, output: Path, *, data: Path | None = None, tell: Callable[[str], None] = print) -> str:
        """Do all of it, and say in a few lines what came out.

        Args:
            output: folder for everything that is written. A run that was interrupted continues there.
            data: folder with the data sets, in the place of the Hub.
            tell: is handed lines about what happens.
        """
        ...


def load_recipe(path: str | Path, *, scale: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file with ``recipe: KIND`` and the fields of that kind's dataclass. ``scales`` may hold, by name,
            what smaller runs change: fields inside fields replace their like, lists are replaced whole.
        scale: which of them to apply; None takes the file as it is.

    Raises:
        InputError: a file that cannot be read, a kind or scale that is not known, or a key or value that does not fit.
            Keys are named by their path, such as ``stages[1].training.learning_rate``.
    """
    values = read_yaml(Path(path))
    kinds = _kinds()
    if KIND not in values:
        raise InputError(f"{path}: {KIND}: is missing, known recipes are {sorted(kinds)}")
    kind = values.pop(KIND)
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{path}: {KIND}: {kind!r} is not among {sorted(kinds)}")
    scales = values.pop(SCALES, {})
    if not isinstance(scales, dict) or not all(isinstance(changes, dict) for changes in scales.values()):
        raise InputError(f"{path}: {SCALES}: expected names with keys and values, found {_shown(scales)}")
    source = str(path)
    if scale is not None:
        if scale not in scales:
            raise InputError(f"{path}: the scale {scale!r} is not among {sorted(scales)}")
        values = _changed(values, scales[scale])
        source = f"{path} at scale {scale}"
    recipe: Recipe = build(kinds[kind](), values, source=source)
    return recipe


def scales_of(path: str | Path) -> list[str]:
    """Names of the smaller runs that a recipe file describes."""
    return sorted(read_yaml(Path(path)).get(SCALES, {}))


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        changed[key] = _changed(values[key], value) if both else value
    return changed


def _kinds() -> dict[str, Callable[[], type[Any]]]:
    """The recipes that there are; each is imported only when it is asked for."""

    def ablation() -> type[Any]:
        from hf_negmine.recipes.ablation.recipe import Ablation

        study: type[Any] = Ablation
        return study

    def nv_retriever() -> type[Any]:
        from hf_negmine.recipes.nv_retriever.recipe import NVRetriever

        retriever: type[Any] = NVRetriever
        return retriever

    def reranker() -> type[Any]:
        from hf_negmine.recipes.reranker.recipe import Reranker

        kind: type[Any] = Reranker
        return kind

    return {"ablation": ablation, "nv_retriever_v1": nv_retriever, "reranker": reranker}


# ---- YAML ----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which ``1e-5`` is a number, and a key may stand once."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} is no text")
        if key in seen:
            raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: no such file, no YAML, no mapping, or a key that stands twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} could not be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except InputError as error:
        raise InputError(f"{path}, {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys with values, found {_shown(values)}")
    return values


# ---- dataclasses ---------------------------------------------------------------------------------------------------


def build(cls: type[T], values: Mapping[str, Any], *, source: str = "", path: str = "") -> T:
    """An instance of a dataclass from plain values.

    Fields may be text, numbers, true or false, ``Literal``, ``Optional``, tuples of one type, mappings of texts to one
    type, and dataclasses of such.

    Args:
        cls: a dataclass.
        values: its fields by name; those with a default may be left out.
        source: named first in errors.
        path: of ``values`` in the file, ``""`` for the whole of it.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{_at(source, path)}expected keys with values, found {_shown(values)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; is {near[0]!r} meant?" if near else ""
            raise InputError(f"{_at(source, _join(path, key))}is not known, known are {sorted(fields)}{hint}")
    hints = get_type_hints(cls)
    made: dict[str, Any] = {}
    for name, field in fields.items():
        here = _join(path, name)
        if name in values:
            made[name] = _convert(hints[name], values[name], source, here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_at(source, here)}is missing, found {sorted(values)}")
    try:
        return cls(**made)
    except InputError as error:  # of a check in __post_init__
        raise InputError(f"{_at(source, path)}{error}") from error


def _convert(hint: Any, value: Any, source: str, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_optional(arguments, value, source, path)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise InputError(f"{_at(source, path)}{value!r} is not among {list(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{_at(source, path)}expected a list, found {_shown(value)}")
        return tuple(_convert(arguments[0], one, source, f"{path}[{place}]") for place, one in enumerate(value))
    if origin is dict or origin is Mapping:
        if not isinstance(value, dict):
            raise InputError(f"{_at(source, path)}expected keys with values, found {_shown(value)}")
        return {key: _convert(arguments[1], one, source, _join(path, key)) for key, one in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(hint, value, source=source, path=path)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        return float(value)
    if hint not in NAMES:
        raise TypeError(f"{path}: fields of type {hint} cannot be read from YAML")
    if type(value) is not hint:  # not isinstance: true is no number
        raise InputError(f"{_at(source, path)}expected {NAMES[hint]}, found {_shown(value)}")
    return value


def _convert_optional(hints: tuple[Any, ...], value: Any, source: str, path: str) -> Any:
    inner = [hint for hint in hints if hint is not type(None)]
    if len(inner) != 1 or len(inner) == len(hints):
        raise TypeError(f"{path}: of unions only Optional can be read from YAML, not {hints}")
    return None if value is None else _convert(inner[0], value, source, path)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _at(source: str, path: str) -> str:
    return "".join(f"{part}: " for part in (source, path) if part)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"keys with values ({', '.join(map(str, list(value)[:5]))})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    return f"{value!r:.80}"
