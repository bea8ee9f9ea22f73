"""Names that may be published: those of models and data sets, never the paths where they lie on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
MODEL = "model"
"""The field whose whole text is a name, not a sentence with names in it."""
UNNAMED = "unnamed"
BEGINS_A_PATH = re.compile(r"file:|[A-Za-z]:[/\\]|[/\\~]|\.{1,2}([/\\]|$)", re.IGNORECASE)
WORD = r"[^\s/\\'\"`=,;()<>\[\]{}|]"
BEGIN = rf"(?<!{WORD})(?<![/\\<])(?!https?://)"
ROOT = rf"(?:file:/*|[A-Za-z]:[/\\]+|~{WORD}*[/\\]+|\.{{1,2}}[/\\]+|[/\\]+)"
PATH_IN_TEXT = re.compile(
    rf"{BEGIN}(?:{ROOT}(?:{WORD}*[/\\]+)*{WORD}*|{WORD}+(?:[/\\]+{WORD}+){{2,}}[/\\]*)", re.IGNORECASE
)
"""A path within a sentence: one that begins like a path, or has more than one slash."""


def is_plain_name(name: Any) -> bool:
    """Whether this is a ``name`` or ``user/name`` as on the Hub."""
    return isinstance(name, str) and PLAIN.fullmatch(name) is not None


def public_name(source: str | Path) -> str:
    """The name of a model: its id on the Hub, or the last part of a path, whether or not the path exists."""
    text = str(source)
    if os.path.exists(text):  # unlike Path.exists, False for text that cannot be a path
        return Path(text).resolve().name or UNNAMED
    return _without_folders(text)


def is_public_name(name: Any) -> bool:
    """Whether `public_name` would leave this name unchanged, existing paths aside."""
    return isinstance(name, str) and _without_folders(name) == name


def public_text(text: str) -> str:
    """The text with each path cut to its last part; a text that begins like a path is treated as one path."""
    if BEGINS_A_PATH.match(text):
        return _last_part(text)
    return PATH_IN_TEXT.sub(lambda found: _last_part(found[0]), text)


def public_content(content: Any, kept: Collection[str] = ()) -> Any:
    """JSON-able content with every text made public, field names included, except the values of the fields ``kept``."""
    if isinstance(content, dict):
        public = {}
        for name, value in content.items():
            if name == MODEL and isinstance(value, str):
                value = _without_folders(value)
            public[public_text(name)] = value if name in kept else public_content(value, kept)
        return public
    if isinstance(content, list | tuple):
        return [public_content(value, kept) for value in content]
    return public_text(content) if isinstance(content, str) else content


def _without_folders(name: str) -> str:
    return name if is_plain_name(name) else _last_part(name)


def _last_part(path: str) -> str:
    parts = [part.strip() for part in re.split(r"[/\\]+", re.sub(r"^(file:|[A-Za-z]:)", "", path.strip()))]
    named = [part.lstrip("~") for part in parts if part.strip("~.")]
    return named[-1] if named else UNNAMED
