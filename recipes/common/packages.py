"""Packages of the extra ``recipes``."""

from __future__ import annotations

from importlib import import_module

from hf_negmine.base.errors import InputError


def require_package(name: str, setting: str, *, instead: str = "") -> None:
    """Check, before any long work, that a package is there.

    Args:
        name: of the package.
        setting: of the recipe that asks for it, such as ``"harness: 'mteb'"``.
        instead: what could be done without it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_module(name)
    except ImportError as error:
        other = f"; or {instead}" if instead else ""
        raise InputError(
            f"{setting} needs the package {name}, which is not installed: pip install -e '.[recipes]'{other}"
        ) from error
