"""Filters as one writes them in a shell: ``bm25@perc_pos:0.95@0``, ``minhash:0.8``."""

from __future__ import annotations

import re

from hf_negmine.base.choices import ComparedBy
from hf_negmine.base.errors import InputError
from hf_negmine.select.methods import parse_method


def parse_veto(spec: str) -> tuple[str, str | None, float | None]:
    """Teacher, method and ``abstain_at`` of a `Veto`.

    Args:
        spec: another teacher that must agree: ``TEACHER@METHOD`` keeps a candidate only if it is under this teacher's
            ceiling, too (``bm25@perc_pos:0.95``). With a third part the teacher has no say where it scores the positive
            at or under that, as it has not found the positive itself: ``bm25@perc_pos:0.95@0``.

    Raises:
        InputError: a part is empty, or the method is unknown.
    """
    index = re.match(r"faiss:[^:]*:", spec)  # its parameters come after an @, too
    head = index[0] if index else ""
    parts = spec.removeprefix(head).split("@")
    abstain_at = None
    if len(parts) > 2 and (number := _number(parts[-1])) is not None:
        abstain_at = number
        del parts[-1]
    method = parts.pop() if len(parts) > 1 else None
    teacher = head + "@".join(parts)  # a folder may have an @ in its name
    if not teacher.strip() or method == "":
        raise InputError(
            f"{spec!r} is not a TEACHER, TEACHER@METHOD or TEACHER@METHOD@SCORE, such as bm25@perc_pos:0.95@0"
        )
    if method is not None:
        parse_method(method)
    return teacher, method, abstain_at


def parse_near_duplicates(spec: str) -> tuple[ComparedBy, float]:
    """How `NearDuplicates` compares passages, and its threshold.

    Args:
        spec: keep out what nearly repeats a positive or a better negative: ``0.95`` by the cosine of the teacher's
            vectors, ``minhash:0.8`` by the words that two passages share, for teachers without vectors (needs
            hf_negmine[filters]).

    Raises:
        InputError: the spec is neither.
    """
    by, colon, rest = spec.rpartition(":")
    threshold = _number(rest)
    if threshold is None or not 0 < threshold <= 1 or (colon and by not in ("cosine", "minhash")):
        raise InputError(f"{spec!r} is not a similarity over 0 and at most 1, such as 0.95 or minhash:0.8")
    return "minhash" if by == "minhash" else "cosine", threshold


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
