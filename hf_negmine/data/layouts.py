"""The result: rows with their negatives, in the layouts that trainers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pyarrow as pa

from hf_negmine.base.choices import Format, Inconsistent, OnExhausted
from hf_negmine.base.errors import ColumnError, ExhaustedError, InputError, require, require_choice
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.data.checks import is_list
from hf_negmine.data.formats.cells import lists_like, new_elements
from hf_negmine.data.formats.tools import TOOLS, Tool
from hf_negmine.data.pairs import RowNegatives
from hf_negmine.data.texts import TextColumn

FORMATS = get_args(Format)
CONSISTENT = "consistent"
ON_EXHAUSTED = get_args(OnExhausted)


@dataclass(frozen=True)
class Layout:
    """How a row with its negatives is written.

    Attributes:
        format: ``n-tuple`` (query, positive, negative_1 … negative_n), ``triplet`` (a row per negative),
            ``labeled-pair`` (a row per passage, label 1 or 0), ``labeled-list`` (lists of passages and labels),
            ``ids`` (query_id, document_ids, scores; texts in lookup tables), or the format of another tool (`TOOLS`).
        query_column: name of the query column.
        positive_column: name of the positive column; the labeled formats put all passages there.
        n: negatives per query.
        scores: whether to write the teacher's scores too; in the labeled formats they replace the labels.
        on_exhausted: what happens to a row with fewer than n negatives.
        share_negatives: whether all positives of a row share the same negatives (one ceiling per query).
        inconsistent: what happens to a pair whose positive the teacher does not find: ``"drop"`` leaves it out,
            ``"flag"`` marks it in a column `CONSISTENT`; None if this was not asked for.
    """

    format: Format
    query_column: str
    positive_column: str
    n: int
    scores: bool
    on_exhausted: OnExhausted
    share_negatives: bool
    inconsistent: Inconsistent | None = None

    def __post_init__(self) -> None:
        require_choice(self.format, FORMATS, argument="format")
        require_choice(self.on_exhausted, ON_EXHAUSTED, argument="on_exhausted")
        require(
            not self.scores or self.tool is None or len(self.tool.of_negatives) > 0,
            f"include_scores: rows of format {self.format!r} have no place for scores; leave it out, or take "
            "'flagembedding'",
        )

    @property
    def tool(self) -> Tool | None:
        """The tool whose format it is; None for the formats of Sentence Transformers."""
        return TOOLS.get(self.format)

    @property
    def replaced_columns(self) -> tuple[str, ...]:
        """Columns of the input whose content the output holds under other names."""
        return (self.query_column, self.positive_column) if self.format == "ids" or self.tool is not None else ()

    @property
    def filled_columns(self) -> tuple[str, ...]:
        """Columns that are written, empty, only where the input lacks them."""
        return () if self.tool is None else tuple(self.tool.empty)

    @property
    def groups_positives(self) -> bool:
        """Whether the positives of a row go into one group.

        They then share its negatives, and labels must tell them apart. Where scores replace the labels, the first
        passage of a group is its only positive.
        """
        if self.tool is not None:
            return self.share_negatives and not self.tool.one_positive
        has_labels = self.format != "ids" and not (self.format == "labeled-list" and self.scores)
        return self.share_negatives and has_labels

    @property
    def new_columns(self) -> dict[str, pa.DataType]:
        """Columns that are written, with their types; all others are kept as they are."""
        return {**self._columns_of_format, **({CONSISTENT: pa.bool_()} if self.inconsistent == "flag" else {})}

    def writes(self, column: str) -> bool:
        """Whether this is one of the new columns, without listing them all: a mistyped ``n`` may be a billion."""
        numbered = re.fullmatch("negative_([1-9][0-9]*)", column)
        if self.format == "n-tuple" and numbered is not None:
            return (len(numbered[1]), numbered[1]) <= (len(str(self.n)), str(self.n))
        return column in replace(self, n=0).new_columns

    def check_new_columns(self, available: Sequence[str]) -> None:
        """Raise `InputError` if rows already have a column that the format writes."""
        own = (*self.replaced_columns, *self.filled_columns)
        besides = replace(self, positive_column="\0")  # the positives, which keep their name
        if clash := [name for name in available if name not in own and besides.writes(name)]:
            raise InputError(
                f"the data set already has the column(s) {clash}, which format {self.format!r} writes; remove or "
                "rename them"
            )

    def check_columns(self, available: Sequence[str], *, argument: str) -> None:
        """Raise `InputError` unless rows have the two text columns and none that the format writes."""
        for name in (self.query_column, self.positive_column):
            if name not in available:
                raise ColumnError(name, list(available), argument=argument)
        self.check_new_columns(available)

    @property
    def _columns_of_format(self) -> dict[str, pa.DataType]:
        text, score = pa.string(), pa.float32()
        if self.tool is not None:
            kinds = (self.tool.of_positives[0], self.tool.of_negatives[0]) if self.scores else ()
            return {**self.tool.columns, **dict.fromkeys(kinds, pa.list_(score))}
        if self.format in ("n-tuple", "triplet"):
            numbered = [f"negative_{place}" for place in range(1, self.n + 1)]
            names = [self.positive_column, *(["negative"] if self.format == "triplet" else numbered)]
            return {**dict.fromkeys(names, text), **({"scores": pa.list_(score)} if self.scores else {})}
        if self.format == "labeled-pair":
            return {self.positive_column: text, **({"score": score} if self.scores else {"label": pa.int64()})}
        if self.format == "labeled-list":
            last = {"scores": pa.list_(score)} if self.scores else {"labels": pa.list_(pa.int64())}
            return {self.positive_column: pa.list_(text), **last}
        return {"query_id": pa.int64(), "document_ids": pa.list_(pa.int64()), "scores": pa.list_(score)}


@dataclass(frozen=True)
class Written:
    """Output rows: the input row that each one continues, and the columns that are new or changed."""

    rows: IdArray
    columns: dict[str, pa.Array]


def write_rows(found: RowNegatives, corpus: TextColumn, layout: Layout) -> Written:
    """Lay out rows with their negatives.

    Raises:
        ExhaustedError: a row has fewer than n negatives, under ``on_exhausted="error"``.
    """
    if layout.inconsistent == "drop" and found.consistent is not None:
        found = found.of(np.flatnonzero(found.consistent))
    if layout.inconsistent != "flag":
        found = replace(found, consistent=None)
    found = _settle_exhausted(found, layout)
    if layout.format == "n-tuple":
        return _n_tuples(found, corpus, layout)
    if layout.format == "triplet":
        return _triplets(found, corpus, layout)
    if layout.tool is not None:
        return _of_tool(found, corpus, layout, layout.tool)
    return _grouped(found, corpus, layout)


def _settle_exhausted(found: RowNegatives, layout: Layout) -> RowNegatives:
    short = found.counts < layout.n
    if not short.any() or layout.on_exhausted == "keep":
        return found
    if layout.on_exhausted == "error":
        first = int(np.flatnonzero(short)[0])
        query = found.queries[int(found.rows[first])].as_py()
        raise ExhaustedError(
            f"{int(short.sum())} row(s) cannot have {layout.n} negatives: the corpus (or the list) holds "
            f"{found.counts[first]} eligible passage(s) for {query[:80]!r}; relax the method, lower num_negatives, or "
            "use on_exhausted='drop' or 'keep'"
        )
    return found.of(np.flatnonzero(~short))


def _n_tuples(found: RowNegatives, corpus: TextColumn, layout: Layout) -> Written:
    columns: dict[str, pa.Array] = {layout.positive_column: found.positives.cast(pa.string())}
    for place in range(layout.n):
        entries = pa.array(found.offsets[:-1] + place, mask=found.counts <= place)
        texts = corpus.texts.take(pa.array(found.passages).take(entries))
        columns[f"negative_{place + 1}"] = texts.cast(pa.string())
    if layout.scores:
        offsets = (found.offsets + np.arange(len(found.offsets))).astype(np.int32)
        scores = np.insert(found.scores, found.offsets[:-1], found.positive_scores)
        columns["scores"] = pa.ListArray.from_arrays(offsets, scores)
    return Written(found.rows, {**columns, **_flags(found.consistent)})


def _triplets(found: RowNegatives, corpus: TextColumn, layout: Layout) -> Written:
    pair = np.repeat(np.arange(len(found.rows)), found.counts)
    columns: dict[str, pa.Array] = {
        layout.positive_column: found.positives.take(pa.array(pair)).cast(pa.string()),
        "negative": corpus.take(found.passages).cast(pa.string()),
    }
    if layout.scores:
        both = np.stack([found.positive_scores[pair], found.scores], axis=1).reshape(-1)
        columns["scores"] = pa.ListArray.from_arrays(np.arange(0, len(both) + 1, 2, dtype=np.int32), both)
    flags = None if found.consistent is None else found.consistent[pair]
    return Written(found.rows[pair], {**columns, **_flags(flags)})


def _grouped(found: RowNegatives, corpus: TextColumn, layout: Layout) -> Written:
    """Lay out the formats that put positives and negatives into one column; a group is a row, or one of its pairs."""
    firsts, group_of_pair, negatives = _groups(found, layout)
    group_of_negative = np.repeat(np.arange(len(firsts)), negatives.counts)
    groups = np.concatenate([group_of_pair, group_of_negative])
    order = np.argsort(groups, kind="stable")
    offsets = offsets_of_rows(groups, len(firsts)).astype(np.int32)
    scores = np.concatenate([found.positive_scores, negatives.scores])[order]
    if layout.format == "ids":
        ids = np.concatenate([found.positive_ids, negatives.passages.astype(np.int64)])[order]
        if (ids < 0).any() or (found.query_ids[negatives.rows] < 0).any():
            raise InputError(
                "format 'ids' names queries and passages that were part of fit(), and a row has others; fit on these"
            )
        columns = {
            "query_id": pa.array(found.query_ids[negatives.rows]),
            "document_ids": pa.ListArray.from_arrays(offsets, ids),
            "scores": pa.ListArray.from_arrays(offsets, scores),
        }
        return Written(negatives.rows, {**columns, **_flags(_all_of(found.consistent, firsts))})
    texts = pa.concat_arrays([found.positives.cast(pa.large_string()), corpus.take(negatives.passages)])
    texts = texts.take(pa.array(order)).cast(pa.string())
    labels = (order < len(group_of_pair)).astype(np.int64)
    if layout.format == "labeled-pair":
        last = {"score": pa.array(scores)} if layout.scores else {"label": pa.array(labels)}
        flags = _flags_of_passages(found.consistent, firsts, group_of_negative, order)
        return Written(negatives.rows[groups[order]], {layout.positive_column: texts, **last, **flags})
    values, name = (scores, "scores") if layout.scores else (labels, "labels")
    columns = {
        layout.positive_column: pa.ListArray.from_arrays(offsets, texts),
        name: pa.ListArray.from_arrays(offsets, values),
    }
    return Written(negatives.rows, {**columns, **_flags(_all_of(found.consistent, firsts))})


def _of_tool(found: RowNegatives, corpus: TextColumn, layout: Layout, tool: Tool) -> Written:
    """Lay out one row per group in the format of another tool."""
    firsts, group_of_pair, negatives = _groups(found, layout)
    offsets = offsets_of_rows(group_of_pair, len(firsts))
    positives = new_elements(
        found.positives, tool.positive_type.value_type if is_list(tool.positive_type) else tool.positive_type
    )
    columns = {
        tool.queries[0]: new_elements(found.queries.take(pa.array(negatives.rows)), tool.query_type),
        tool.positive: lists_like(tool.positive_type, positives, offsets) if is_list(tool.positive_type) else positives,
        tool.negatives[0]: lists_like(
            tool.lists, new_elements(corpus.take(negatives.passages), tool.lists.value_type), negatives.offsets
        ),
        **{name: lists_like(kind, pa.nulls(0, kind.value_type), offsets * 0) for name, kind in tool.empty.items()},
    }
    if layout.scores:
        kind = pa.list_(pa.float32())
        columns[tool.of_positives[0]] = lists_like(kind, pa.array(found.positive_scores), offsets)
        columns[tool.of_negatives[0]] = lists_like(kind, pa.array(negatives.scores), negatives.offsets)
    return Written(negatives.rows, {**columns, **_flags(_all_of(found.consistent, firsts))})


def _groups(found: RowNegatives, layout: Layout) -> tuple[IdArray, IdArray, RowNegatives]:
    """The first pair of each group, which is a row or a pair alone; the group of each pair; each group's negatives."""
    first = np.ones(len(found.rows), dtype=bool)
    if layout.groups_positives:
        first[1:] = np.diff(found.rows) > 0
    firsts, group_of_pair = np.flatnonzero(first), np.cumsum(first) - 1
    return firsts, group_of_pair, _shared_negatives(found, group_of_pair).of(firsts)


def _shared_negatives(found: RowNegatives, group_of_pair: IdArray) -> RowNegatives:
    """Drop negatives that another pair of the group does not have: a relabeled positive has its own ceiling."""
    firsts = np.searchsorted(group_of_pair, group_of_pair)
    if (found.counts == found.counts[firsts]).all():  # a negative that one pair lacks is left out, never added
        return found
    pair = np.repeat(np.arange(len(found.rows)), found.counts)
    listed, passages = np.divmod(np.unique(pair * 2**32 + found.passages), 2**32)  # a list may hold a passage twice
    shared, pairs_with = np.unique(group_of_pair[listed] * 2**32 + passages, return_counts=True)
    place = np.searchsorted(shared, group_of_pair[pair] * 2**32 + found.passages)
    kept = pairs_with[place] == np.bincount(group_of_pair)[group_of_pair[pair]]
    offsets = offsets_of_rows(pair[kept], len(found.rows))
    return replace(found, offsets=offsets, passages=found.passages[kept], scores=found.scores[kept])


def _flags(consistent: BoolArray | None) -> dict[str, pa.Array]:
    """The column that flags inconsistent rows, if it was asked for."""
    return {} if consistent is None else {CONSISTENT: pa.array(consistent)}


def _all_of(consistent: BoolArray | None, firsts: IdArray) -> BoolArray | None:
    """Whether all positives are found in each group, whose first pairs these are."""
    return consistent if consistent is None or not len(firsts) else np.logical_and.reduceat(consistent, firsts)


def _flags_of_passages(
    consistent: BoolArray | None, firsts: IdArray, group_of_negative: IdArray, order: IdArray
) -> dict[str, pa.Array]:
    """Flags of single passages: a positive has its own, a negative that of any positive of its group.

    The rows flagged as consistent are therefore exactly those that ``"drop"`` leaves.
    """
    if consistent is None or not len(firsts):
        return _flags(consistent)
    some = np.logical_or.reduceat(consistent, firsts)
    return _flags(np.concatenate([consistent, some[group_of_negative]])[order])
