"""Options that take their type, default and help from the signature and docstring of what they set.

A command lists its options by panel (`takes`). An option made by a `Signature` sets a parameter of a class or function
of the library: what the user gave reaches the command in a mapping under that parameter's name, to be passed on whole.
What was not given is not in it, so every default is the library's own.

Signatures are read from the source with `ast`: to import them would load torch, and help should appear at once.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_origin

import typer

from hf_negmine.base import choices, defaults
from hf_negmine.base.arguments import descriptions, with_arguments_of

PACKAGE = Path(__file__).parents[1]
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
VALUES = {str: "NAME", int: "N", float: "X"}  # in the help
WITHOUT = re.compile(r"; None (?:takes|keeps) (.+?)(?=\.(?:\s|$))")
"""What a description says of None; the help shows it as the default."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a dataclass, as a shell sees it.

    Attributes:
        type: the first type of its annotation that a shell can give; a text if there is none.
        default: its default; None if it has none, or not a constant.
        text: its description in the docstring.
    """

    type: Any
    default: Any
    text: str

    @property
    def without(self) -> str | None:
        """What None stands for, in words."""
        found = WITHOUT.search(self.text)
        return found[1].replace("`", "") if found else None

    def help(self, sentences: int | None = 1) -> str:
        """The first sentences of the description, or all if None, in the markup of rich."""
        text = WITHOUT.sub("", self.text).removeprefix("whether to ").replace("[", r"\[")
        text = " ".join(re.split(r"(?<=\.) (?=[A-Z`])", text)[:sentences])
        text = re.sub(r'``"?(.+?)"?``', r"[cyan]\1[/]", text).replace("`", "")
        return text[:1].upper() + text[1:]


@cache
def parameters(module: str, name: str) -> dict[str, Parameter]:
    """The parameters of ``Class``, ``Class.method`` or ``function`` in a module below hf_negmine, by name."""
    path = PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    node: Any = ast.parse(source.read_text(encoding="utf-8"))
    origin = {one.name: child.module for child in node.body if isinstance(child, ast.ImportFrom) for one in child.names}
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    passed_on: dict[str, Parameter] = {}
    for one in getattr(node, "decorator_list", ()):
        if isinstance(one, ast.Call) and ast.unparse(one.func) == with_arguments_of.__name__:
            other = ast.unparse(one.args[0])
            passed_on |= parameters(str(origin[other]).removeprefix("hf_negmine."), other)
    described = descriptions(ast.get_docstring(node) or "").items()
    texts = {name: " ".join(text.partition(": ")[2].split()) for names, text in described for name in names.split(", ")}
    node = next((child for child in node.body if getattr(child, "name", None) == "__init__"), node)
    if isinstance(node, ast.ClassDef):
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        listed = [(ast.unparse(field.target), field.annotation, field.value) for field in fields]
    else:
        arguments, values = [*node.args.args, *node.args.kwonlyargs], [*node.args.defaults, *node.args.kw_defaults]
        values = [*[None] * (len(arguments) - len(values)), *values]
        listed = [(one.arg, one.annotation, value) for one, value in zip(arguments, values, strict=True)]
    own = {name: Parameter(_type(type) or str, _default(value), "") for name, type, value in listed}
    return {name: replace(one, text=texts.get(name, one.text)) for name, one in (passed_on | own).items()}


def _type(annotation: ast.expr | None) -> Any:
    if isinstance(annotation, ast.BinOp):
        return _type(annotation.left) or _type(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Sequence":
        return list[_type(annotation.slice) or str]  # type: ignore[misc]
    name = "" if annotation is None else ast.unparse(annotation)
    return TYPES.get(name) or getattr(choices, name, None)


def _default(value: ast.expr | None) -> Any:
    if isinstance(value, ast.Name):
        return getattr(defaults, value.id, None)
    return None if value is None else ast.literal_eval(value)


@dataclass(frozen=True)
class Option:
    """An option or an argument of a command.

    Attributes:
        name: its name without dashes, with underscores.
        type: the type of its value.
        default: its default; ``...`` if it must be given.
        info: what typer shows and checks.
        into, key: the mapping that gets its value if the user gave it, and its name there; without a mapping the
            command itself gets it.
    """

    name: str
    type: Any
    default: Any
    info: Any
    into: str | None = None
    key: str = ""


Command: TypeAlias = Callable[..., None]
Given: TypeAlias = dict[str, Any]
"""What the user gave for a signature, by parameter."""
Panels: TypeAlias = Mapping[Any, Sequence[Option]]
"""The options of a command by panel of its help; None for arguments."""


def option(name: str, type: Any, help: str, *names: str, default: Any = None, **more: Any) -> Option:
    """An option of the shell's own, see `Option`.

    It is written ``--name`` unless one of ``names`` is long. ``more`` is what typer takes besides, such as ``min``,
    ``metavar``, ``callback``, and the default in words as ``show_default``.
    """
    if get_origin(type) is list:
        help = f"{help} May be repeated."
    if not any("--" in one for one in names):
        names = (f"--{name.replace('_', '-')}", *names)
    return Option(name, type, default, typer.Option(*names, help=help, **{"metavar": VALUES.get(type), **more}))


def argument(name: str, type: Any, help: str, metavar: str, default: Any = ...) -> Option:
    """An argument of a command; see `option`."""
    return Option(name, type, default, typer.Argument(metavar=metavar, help=help, show_default=False))


class Signature:
    """Makes options that set the parameters of a class or function (see `parameters`); ``into`` is their mapping."""

    def __init__(self, into: str, module: str, name: str) -> None:
        self.into, self.parameters = into, parameters(module, name)

    def __call__(self, key: str, *names: str, sentences: int | None = 1, help: str = "", **more: Any) -> Option:
        """An option that sets the parameter ``key``, with the first ``sentences`` of its description as help.

        ``names`` are for another name than the parameter's; ``help`` and ``more`` for what differs, see `option`.
        """
        found = self.parameters[key]
        default = None if found.default == () else found.default
        given = {"default": default, "show_default": found.without or True, **more}
        name = next((one.strip("-").partition("/")[0] for one in names if "--" in one), key).replace("-", "_")
        made = option(name, found.type, help or found.help(sentences), *names, **given)
        return replace(made, into=self.into, key=key)


def takes(options: Panels) -> Callable[[Command], Command]:
    """Make a function a command; it is given the shell's own options by name, and a mapping for each `Signature`."""
    listed = [one for group in options.values() for one in group]
    made = [_parameter(one, panel) for panel, group in options.items() for one in group]
    made.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    def decorate(command: Command) -> Command:
        def run(context: typer.Context, **values: Any) -> None:
            given: dict[str, Any] = {one.into: {} for one in listed if one.into}
            for one in listed:
                if not one.into:
                    given[one.name] = values[one.name]
                elif getattr(context.get_parameter_source(one.name), "name", "DEFAULT") != "DEFAULT":
                    given[one.into][one.key] = values[one.name]
            command(**given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(one: Option, panel: str | None) -> inspect.Parameter:
    info = copy.copy(one.info)
    info.rich_help_panel = panel
    annotation: Any = Annotated[one.type | None if one.default is None else one.type, info]
    default = inspect.Parameter.empty if one.default is ... else one.default
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
