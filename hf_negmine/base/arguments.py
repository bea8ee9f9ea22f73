"""Arguments that a class passes on as a whole: defined and described once, shown wherever they are taken."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=type[Any])
SECTION = re.compile(r"^(?:Args|Attributes):\n(.+?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def with_arguments_of(source: Callable[..., Any]) -> Callable[[Kind], Kind]:
    """Show the keyword arguments of ``source`` in the signature and docstring of a class that passes them on.

    The class takes them as ``**rest``; a `TypedDict` tells type checkers what they are. The options of the command line
    and the API pages find them by this decorator, too.
    """

    def show(kind: Kind) -> Kind:
        init: Any = kind.__init__
        *own, rest = inspect.signature(init).parameters.values()
        names = {one.name for one in own}
        keywords = [one for one in inspect.signature(source).parameters.values() if one.kind is one.KEYWORD_ONLY]
        shown = [*own, *(one for one in keywords if one.name not in names)]
        init.__signature__ = inspect.signature(init).replace(parameters=shown)
        its, theirs = (inspect.cleandoc(one.__doc__ or "") for one in (kind, source))
        kind.__doc__ = with_descriptions(its, theirs, rest.name)
        return kind

    return show


def descriptions(docstring: str) -> dict[str, str]:
    """The entries under ``Args:`` or ``Attributes:``, names included, by name; several names may share one entry."""
    section = SECTION.search(docstring)
    entries = re.split(r"^ {4}(?=\S)", section[1].rstrip() if section else "", flags=re.MULTILINE)[1:]
    return {entry.partition(": ")[0]: entry.rstrip() for entry in entries}


def with_descriptions(docstring: str, source: str, rest: str) -> str:
    """A docstring with the entries of ``source`` that it lacks in the place of its entry for ``rest``."""
    own = descriptions(docstring)
    lacking = [entry for names, entry in descriptions(source).items() if names not in own]
    return docstring.replace(own[rest], "\n    ".join(lacking)) if rest in own else docstring
