"""How much is tried: a sample in every run, and all that docs/reliability.md counts with ``HF_NEGMINE_THOROUGH=1``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from hypothesis import settings

THOROUGH = os.environ.get("HF_NEGMINE_THOROUGH", "0") != "0"
T = TypeVar("T")


def examples(thorough: int, every: int = 4, **options: Any) -> settings:
    """Settings of a property: that many examples, or one of ``every``, other ones in every run."""
    return settings(max_examples=thorough if THOROUGH else max(thorough // every, 8), **options)


def sample(cases: Iterable[T], every: int) -> list[T]:
    """All cases, or one of ``every``."""
    return list(cases)[:: 1 if THOROUGH else every]
