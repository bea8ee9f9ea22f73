"""Folders and models that a user names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hf_negmine.base.addresses import is_address
from hf_negmine.base.errors import InputError, require


def folder_of(value: Any, argument: str) -> Path:
    """The folder that an argument names, with ``~`` expanded, or `InputError` if it cannot be a path."""
    path = value if isinstance(value, str | os.PathLike) else None
    text = os.fspath(path) if path is not None else None
    require(
        isinstance(text, str) and bool(text.strip()) and "\0" not in text,
        f"{argument}: expected the path of a folder, got {value!r:.80}",
    )
    require(not is_address(text), f"{argument}: expected a folder of this machine, got the address {value!s:.80}")
    folder = Path(os.path.expanduser(str(text)))
    try:
        os.fsencode(folder)
    except UnicodeError as error:
        raise InputError(f"{argument}: expected the path of a folder, got {value!r:.80} ({error})") from error
    return folder


def model_source(value: str | Path, argument: str) -> str:
    """A model's id or folder, with ``~`` expanded, or `InputError` if it is empty."""
    require(bool(str(value).strip()), f"{argument}: it is empty, expected a model's id or folder")
    return os.path.expanduser(value)
