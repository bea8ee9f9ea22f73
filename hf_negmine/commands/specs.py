"""What is written on the command line in a language of its own, checked before anything is read."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands.signatures import parameters


def spec(module: str, parser: str, *, metavar: str = "SPEC", besides: str = "") -> dict[str, Any]:
    """What an option takes from the parser of its values: help from the parser's docstring, and a check.

    The parser is a function of a module of hf_negmine whose parameter is called ``spec``; it is imported when needed.
    ``besides`` is put after the help.
    """

    def check(value: Any) -> Any:
        for one in value if isinstance(value, list) else [value]:
            try:
                if one is not None:
                    getattr(import_module(f"hf_negmine.{module}"), parser)(one)
            except InputError as error:
                raise typer.BadParameter(str(error)) from error
        return value

    told = f"{parameters(module, parser)['spec'].help(None)} {besides}".rstrip()
    return {"help": told, "metavar": metavar, "callback": check}


def folder(parameter: typer.CallbackParam, value: str | Path | None) -> Path | None:
    """A folder with its ``~`` resolved, which a shell does not do after ``--output=``."""
    from hf_negmine.base.paths import folder_of

    try:
        return None if value is None else folder_of(value, str(parameter.name))
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def folder_or_address(parameter: typer.CallbackParam, value: str | None) -> Path | str | None:
    """A folder of this machine (see `folder`), or the address of one, without a slash at its end."""
    from hf_negmine.base.addresses import is_address

    if value is None or not is_address(value):
        return folder(parameter, value)
    if (address := value.rstrip("/")).endswith(":"):
        raise typer.BadParameter(f"{value} names no folder, expected an address such as s3://bucket/mined")
    return address


def file(value: str | Path | None) -> Path | None:
    """A file with its ``~`` resolved; a folder is refused at once, rather than after hours of work."""
    from hf_negmine.base.addresses import is_address

    if value is None:
        return None
    path = Path(os.path.expanduser(value))
    if is_address(value):
        raise typer.BadParameter(f"expected a file of this machine, got the address {value}")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, expected a file")
    return path


FILE: dict[str, Any] = {"metavar": "FILE", "callback": file}
"""What an option that takes a file adds to its name, type and help."""
