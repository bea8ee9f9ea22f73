"""Optional dependencies, imported where they are needed, with a hint that installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from hf_negmine.errors import MissingExtraError


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``module`` or raise `MissingExtraError` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise MissingExtraError(
            f"{purpose} needs the module {module!r}, which is not installed: pip install 'hf_negmine[{extra}]'"
        ) from missing
