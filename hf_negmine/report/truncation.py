"""How many texts are longer than a teacher reads, so that a summary can report what was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hf_negmine.base.protocols import CountsPairTokens, CountsTokens, Role, Teacher
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.select import Selection
from hf_negmine.teachers import with_stages

SAMPLE = 300
"""Texts tokenized to estimate a share: two times out of three within 3 points of it, for a third of a second."""
TEXTS_A_STEP = 64
CHARACTERS_A_TOKEN = 8
"""More than a token has: the first limit * this many characters mostly tell whether a text is cut."""


@dataclass(frozen=True)
class Truncation:
    """How much of some texts a teacher did not read.

    Attributes:
        teacher: the teacher's name.
        texts: ``"queries"``, ``"positives"`` or ``"passages"``; for a teacher that reads a query and a passage
            together, ``"positives"`` or ``"negatives"``, each with its query.
        limit: tokens of one that it reads, including prompts and special tokens.
        share: the share of texts that are longer, from 0 to 1.
        sampled: whether the share was estimated on a sample.
    """

    teacher: str
    texts: str
    limit: int
    share: float
    sampled: bool


def find_truncations(teacher: Teacher, texts: TextSet, selection: Selection) -> tuple[Truncation, ...]:
    """What a teacher, and those that it builds on, cut from a data set's texts; empty if it cannot tell.

    Only texts with more bytes than the limit has tokens can be cut. At most `SAMPLE` of these are tokenized, chosen by
    their digests, so that the row order does not matter.
    """
    found = [each for one in with_stages(teacher) for each in _of_one(one, texts, selection)]
    return tuple(dict.fromkeys(found))


def truncation_lines(truncations: Sequence[Truncation]) -> list[str]:
    """A sentence for each teacher and limit."""
    grouped: dict[tuple[str, int, str], list[Truncation]] = {}
    for one in truncations:
        pairs = any(other.texts == "negatives" for other in truncations if other.teacher == one.teacher)
        read = "a query with its passage" if pairs else "a text"
        grouped.setdefault((one.teacher, one.limit, read), []).append(one)
    lines = []
    for (teacher, limit, read), group in grouped.items():
        cut = [f"{'about ' * one.sampled}{_percent(one.share)} of the {one.texts}" for one in group]
        listed = " and ".join([", ".join(cut[:-1]), cut[-1]] if cut[1:] else cut)
        lines.append(f"{teacher} reads {limit:,} tokens of {read}: {listed} are longer and were cut")
    return lines


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _of_one(teacher: Teacher, texts: TextSet, selection: Selection) -> Iterator[Truncation]:
    queries = np.arange(len(texts.queries))
    of_pairs = np.repeat(queries, np.diff(texts.positive_offsets))
    positives = texts.positive_ids.astype(np.int64)
    kinds: list[tuple[str, Callable[..., tuple[IdArray, int | None]], list[tuple[TextColumn, IdArray]]]] = []
    if isinstance(teacher, CountsPairTokens):
        targets = np.repeat(of_pairs if selection.positive_score == "each" else queries, selection.counts)
        for name, asked, passages in (
            ("positives", of_pairs, positives),
            ("negatives", targets, selection.passages.astype(np.int64)),
        ):
            kinds.append((name, teacher.count_pair_tokens, [(texts.queries, asked), (texts.corpus, passages)]))
    elif isinstance(teacher, CountsTokens):
        roles: list[tuple[str, Role, TextColumn, IdArray]] = [
            ("queries", "query", texts.queries, queries),
            ("positives", "passage", texts.corpus, np.unique(positives)),
            ("passages", "passage", texts.corpus, np.arange(len(texts.corpus))),
        ]
        for name, role, column, ids in roles:
            kinds.append((name, partial(teacher.count_tokens, role=role), [(column, ids)]))
    for name, count, parts in kinds:
        if (estimate := _estimate(count, parts)) is not None:
            yield Truncation(teacher.name, name, *estimate)


def _estimate(
    count: Callable[..., tuple[IdArray, int | None]], parts: Sequence[tuple[TextColumn, IdArray]]
) -> tuple[int, float, bool] | None:
    """The limit, the share of longer texts, and whether it is from a sample; None without texts or a limit.

    Args:
        count: returns the number of tokens of each entry, given one list per part, and the limit.
        parts: columns of texts and ids in them, all of the same length: entry i joins the i-th text of each part.
    """
    (added,), limit = count(*([""] for _ in parts))
    total = len(parts[0][1])
    if limit is None or not total:
        return None
    size = sum(np.asarray(pc.binary_length(column.texts))[ids] for column, ids in parts)
    long = np.flatnonzero(size + added > limit)
    sample = long
    if len(long) > SAMPLE:
        keys = np.bitwise_xor.reduce([column.digests[ids[long], place] for place, (column, ids) in enumerate(parts)])
        sample = long[np.argpartition(keys, SAMPLE)[:SAMPLE]]
    longer = 0
    for start in range(0, len(sample), TEXTS_A_STEP):
        some = sample[start : start + TEXTS_A_STEP]
        longer += int(_longer(count, limit, [column.take(ids[some]).to_pylist() for column, ids in parts]).sum())
    share = longer / len(sample) * len(long) / total if len(sample) else 0.0
    return limit, round(share, 6), len(sample) < len(long)


def _longer(count: Callable[..., Any], limit: int, texts: list[list[str]]) -> BoolArray:
    """Which entries have more tokens than ``limit``; for long texts the beginnings are counted first."""
    beginnings = [[text[: CHARACTERS_A_TOKEN * limit] for text in part] for part in texts]
    longer = np.asarray(count(*beginnings)[0]) > limit
    open_ = [
        place
        for place, (begun, whole) in enumerate(
            zip(zip(*beginnings, strict=True), zip(*texts, strict=True), strict=True)
        )
        if not longer[place] and begun != whole
    ]
    if open_:
        longer[open_] = np.asarray(count(*([part[place] for place in open_] for part in texts))[0]) > limit
    return longer
