"""Folders at addresses that fsspec opens, such as ``s3://bucket/run``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_negmine.base.errors import InputError, NegmineError, StorageError

ADDRESS = re.compile("[a-z][a-z0-9+.:-]+:/", re.IGNORECASE)
"""Also in capitals, and chained with ``::``, which would else be the name of a folder here."""


def is_address(value: Any) -> bool:
    """Whether a text or path, even one of which a `Path` has joined the slashes, is an address rather than a path."""
    return ADDRESS.match(str(value)) is not None


@contextmanager
def opened_address(address: str, argument: str) -> Iterator[tuple[Any, str]]:
    """The file system and the folder in it. Its errors become one sentence about the ``argument``.

    Raises:
        InputError: the address is of no known kind, or its package is not installed.
        StorageError: it cannot be reached, read or written.
    """
    import fsspec

    try:
        folders = {"auto_mkdir": True} if address.startswith("file:") else {}  # elsewhere there are none
        files, root = fsspec.core.url_to_fs(address, **folders)
        yield files, root.rstrip("/")
    except NegmineError:
        raise
    except (ImportError, ValueError) as error:  # an unknown protocol, or one that needs a package
        raise InputError(f"{argument}: {address}: {' '.join(str(error).split())}") from error
    except Exception as error:  # each file system has errors of its own, of keys, buckets and connections
        raise StorageError(
            f"{argument}: {address}: {type(error).__name__}: {' '.join(str(error).split())[:300]}; check the address, "
            "and the keys that this process has, and run the same again: what is finished is kept"
        ) from error


def files_below(files: Any, root: str) -> dict[str, int]:
    """The sizes of the files in a folder of a file system, by their names in it; for a file, its own under ``""``.

    Names that end in a slash are left out: with such empty objects, consoles of object stores make folders.
    """
    files.invalidate_cache()
    found = {name: about for name, about in files.find(root, detail=True).items() if not name.endswith("/")}
    return {name.removeprefix(root).lstrip("/"): int(about["size"] or 0) for name, about in found.items()}
