"""A recipe's YAML file as frozen dataclasses, strictly: every key is known, none is missing, every value fits."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from hf_negmine.base.errors import InputError, require, require_choice
from hf_negmine.select import resolve_sampler
from hf_negmine.select.methods import parse_method

T = TypeVar("T")
Each = TypeVar("Each", bound=Hashable)

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""Of every class of settings, which is a dataclass of pydantic: no text for a number, no key too many, no infinity."""


def _method(spec: str) -> str:
    parse_method(spec)
    return spec


def _sampler(spec: str) -> str:
    resolve_sampler(spec)
    return spec


def _each_once(values: tuple[Each, ...]) -> tuple[Each, ...]:
    require(len(set(values)) == len(values), f"each once, got {list(values)}")
    return values


Method = Annotated[str, AfterValidator(_method)]
"""The ``method`` of `NegativeMiner`, in words."""
Sampler = Annotated[str, AfterValidator(_sampler)]
"""The ``sampler`` of `NegativeMiner`, in words."""
EachOnce = AfterValidator(_each_once)
"""Of a tuple whose values must differ."""
Seeds = Annotated[tuple[int, ...], EachOnce]


def require_names(values: tuple[Any, ...], argument: str) -> None:
    """Raise `InputError` unless there are some, each with a name of its own."""
    names = [one.name for one in values]
    require(bool(names) and len(set(names)) == len(names), f"{argument}: at least one, each once; got {names}")


def load_recipe(path: str | Path, kind: type[T], *, scale: str | None = None) -> T:
    """Read a recipe.

    Args:
        path: a YAML file with the fields of ``kind``. Its key ``scales`` may hold, by name, what smaller runs change:
            fields inside fields replace their like, lists are replaced whole.
        kind: the recipe's dataclass, of pydantic and `STRICT`.
        scale: which of the scales to apply; None takes the file as it is.

    Raises:
        InputError: a file that cannot be read, an unknown scale, or a key or value that does not fit. Keys are named
            by their path, such as ``stages[1].training.learning_rate``.
    """
    values, source = read_yaml(path), str(path)
    scales = values.pop("scales", {})
    if not isinstance(scales, dict) or not all(isinstance(changes, dict) for changes in scales.values()):
        raise InputError(f"{path}: scales: expected names with keys and values, found {_shown(scales)}")
    if scale is not None:
        require_choice(scale, sorted(scales), argument=f"{path}: the scale")
        values, source = _changed(values, scales[scale]), f"{path} at scale {scale}"
    try:
        # As JSON, where a strict tuple may come from a list.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise InputError(f"{source}: {_sentence(error, kind)}") from error


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        changed[key] = _changed(values[key], value) if both else value
    return changed


# ---- YAML ----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which ``1e-5`` is a number, and a key may occur once."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = f"line {key_node.start_mark.line + 1}: the key {key!r}"
        require(isinstance(key, str), f"{line} is not text")
        require(key not in seen, f"{line} occurs twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: no such file, not YAML, not a mapping, or a key that occurs twice.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} could not be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except InputError as error:
        raise InputError(f"{path}, {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys with values, found {_shown(values)}")
    return values


# ---- errors --------------------------------------------------------------------------------------------------------

UNKNOWN = "unexpected_keyword_argument"
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "dataclass_type": "keys with values",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}
"""What a value should be, by pydantic's type of error."""


def _sentence(error: ValidationError, kind: type[Any]) -> str:
    """The first thing that does not fit; a key that is not known goes first, as it may be another one misspelt."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == UNKNOWN), errors[0])
    place, found = first["loc"], first["input"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    at = f"{path}: " if path else ""
    if first["type"] == "value_error":  # of a check of ours
        return f"{at}{first['ctx']['error']}"
    if first["type"] == "missing":
        return f"{at}is missing, found {sorted(found)}"
    if first["type"] == UNKNOWN:
        known = _fields_at(kind, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        return f"{at}is not known, known are {known}" + (f"; is {near[0]!r} meant?" if near else "")
    expected = EXPECTED.get(first["type"])
    message = first["msg"] if expected is None else f"expected {expected.format(**first.get('ctx', {}))}"
    return f"{at}{message.replace('Input should be', 'expected')}, found {_shown(found)}"


def _fields_at(kind: type[Any], place: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the dataclass at a place in the file."""
    for part in place:
        if isinstance(part, str):
            hint = get_type_hints(kind)[part]
            kind = next(one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one))
    return sorted(field.name for field in fields(kind))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"keys with values ({', '.join(map(str, list(value)[:5]))})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{value!r:.80}"
