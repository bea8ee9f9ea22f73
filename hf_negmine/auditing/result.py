"""The result of an audit: a table of all negatives, a summary in sentences, and the way to a repair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.ragged import Ragged, offsets_of_counts
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray
from hf_negmine.base.wording import counted
from hf_negmine.config import MiningConfig
from hf_negmine.data.checks import TEXTS_A_BATCH
from hf_negmine.data.formats import LabelledTexts, RowFormat
from hf_negmine.data.formats.columns import LabelledPairs
from hf_negmine.data.sources import table_batches
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.data.writing import scored_positives
from hf_negmine.miner import NO_JUDGE
from hf_negmine.select.methods import Method, Rule

if TYPE_CHECKING:
    from hf_negmine.auditing.repairing import Repaired

SAME_AS_POSITIVE = "text of a positive"
SAME_AS_QUERY = "text of the query"
TWICE = "twice in its row"
NEGATIVES_A_STEP = 32_768


@dataclass(frozen=True)
class RowsWithNegatives:
    """Rows that have negatives, and their format."""

    rows: datasets.Dataset
    format: RowFormat

    def tables(self) -> Iterator[pa.Table]:
        """The rows in parts; labeled pairs in one, as a query may have rows anywhere."""
        whole = isinstance(self.format, LabelledPairs)
        yield from table_batches(self.rows, size=max(1, len(self.rows)) if whole else TEXTS_A_BATCH)

    def texts(self) -> Iterator[LabelledTexts]:
        """The texts of each part."""
        return map(self.format.read, self.tables())

    def with_negatives(self, negatives: Ragged, texts: TextColumn, before: IdArray) -> pa.Table:
        """The rows with other negatives.

        Args:
            negatives: passage ids, and for each which of the earlier negatives it is, -1 for a new one.
            texts: the passages.
            before: where each row's earlier negatives begin.
        """
        parts, start = [], 0
        for table in self.tables():
            stop = len(negatives.counts) if isinstance(self.format, LabelledPairs) else start + len(table)
            some = negatives.take(np.arange(start, stop))
            passages, earlier = some.arrays
            places = np.where(earlier < 0, -1, earlier - before[start])
            parts.append(self.format.with_negatives(table, texts.take(passages), some.offsets, places))
            start = stop
        widest = max(parts, key=lambda part: part.num_columns)  # a part has as many columns as its negatives need
        return pa.concat_tables(parts, promote_options="default").select(widest.column_names)


@dataclass(frozen=True)
class Found:
    """Where the texts of the rows are in a text set.

    Attributes:
        queries: int64, shape (rows,).
        pairs: the places of each row's (query, positive) pairs.
        offsets: int64, shape (rows + 1,): where each row's negatives begin.
        passages: int64 passage ids of the negatives, in the order of the rows.
    """

    queries: IdArray
    pairs: Ragged
    offsets: IdArray
    passages: IdArray

    @cached_property
    def row_of(self) -> IdArray:
        """The row of each negative."""
        return np.repeat(np.arange(len(self.queries)), np.diff(self.offsets))


@dataclass(frozen=True)
class Audit:
    """Negatives under audit: print it, `save` the table, or `repair` the rows.

    Attributes:
        config: the settings of the miner that judged them.
        texts: queries, corpus and positives.
        source: the rows.
        found: where their texts are in ``texts``.
        targets: int64, shape (rows,): whose ceiling counts for the row, a query or a (query, positive) pair.
        references: float32, shape (rows,): the positive score that sets the ceiling.
        ceilings: float32, shape (rows,); +inf without one.
        scores: float32, shape (negatives,), by the miner's teacher.
        reasons: for each thing that speaks against negatives, for which it does; bool, shape (negatives,).
        judged: how many (query, negative) pairs the judge was asked about; None without a judge.
    """

    config: MiningConfig
    texts: TextSet
    source: RowsWithNegatives
    found: Found
    targets: IdArray
    references: FloatArray
    ceilings: FloatArray
    scores: FloatArray
    reasons: dict[str, BoolArray]
    judged: int | None = None

    @cached_property
    def doubtful(self) -> BoolArray:
        """Which negatives the miner would not have taken, shape (negatives,)."""
        return np.asarray(np.logical_or.reduce(list(self.reasons.values())))

    @property
    def share(self) -> float:
        """The share of the negatives that are doubtful."""
        return float(self.doubtful.mean())

    @cached_property
    def rows_sharing(self) -> IdArray:
        """In how many rows each negative is one, shape (negatives,): a high number shows a hub."""
        rows_and_passages = np.unique(np.stack([self.found.row_of, self.found.passages]), axis=1)
        return np.bincount(rows_and_passages[1], minlength=len(self.texts.corpus))[self.found.passages]

    def as_dict(self) -> dict[str, Any]:
        """The numbers of the audit as JSON-able content: counts, and how many negatives each reason is against."""
        return {
            "method": str(self.config.method),
            "teacher": self.config.teacher.name,
            "rows": len(self.found.queries),
            "negatives": len(self.scores),
            "doubtful": int(self.doubtful.sum()),
            "share": self.share,
            "reasons": {name: int(flags.sum()) for name, flags in self.reasons.items()},
            "judged": self.judged,
        }

    def tables(self) -> Iterator[pa.Table]:
        """The table of all negatives in parts; see `to_dataset` for its columns."""
        found, names = self.found, list(self.reasons)
        places = np.arange(len(found.passages)) - found.offsets[found.row_of]
        for start in range(0, len(found.passages), NEGATIVES_A_STEP):
            some = slice(start, start + NEGATIVES_A_STEP)
            rows = found.row_of[some]
            flags = np.stack([self.reasons[name][some] for name in names], axis=1)
            ends = offsets_of_counts(flags.sum(axis=1)).astype(np.int32)
            yield pa.table(
                {
                    "row": rows,
                    "place": places[some],
                    "query": self.texts.queries.take(found.queries[rows]),
                    "negative": self.texts.corpus.take(found.passages[some]),
                    "positive_score": self.references[rows],
                    "ceiling": self.ceilings[rows],
                    "score": self.scores[some],
                    "reasons": pa.ListArray.from_arrays(ends, pa.array(names).take(pa.array(np.nonzero(flags)[1]))),
                    "rows_sharing": self.rows_sharing[some],
                }
            )

    def to_dataset(self) -> datasets.Dataset:
        """Every negative with what speaks against it, as a data set in memory.

        Its columns: ``row`` and ``place``, which count from 0 (in labeled pairs a query counts as a row); ``query``,
        ``negative``; ``positive_score``, the one that sets the ``ceiling``; ``score``; ``reasons``, empty for a
        negative that the miner would have taken; and ``rows_sharing``, in how many rows the passage is a negative.
        """
        return datasets.Dataset(pa.concat_tables(self.tables()))

    def mined_positives(self) -> datasets.Dataset:
        """The negatives that the judge calls relevant, as pairs (``query``, ``positive``, ``score``), each once.

        Raises:
            InputError: the audit had no judge.
        """
        if self.config.judge is None:
            raise InputError(NO_JUDGE)
        found = self.found
        keys = found.queries[found.row_of] * len(self.texts.corpus) + found.passages
        relevant = np.flatnonzero(self.reasons[str(self.config.judge)])
        pairs, first = np.unique(keys[relevant], return_index=True)
        ids = np.divmod(pairs, len(self.texts.corpus))
        return scored_positives(self.texts, *ids, self.scores[relevant[first]])

    def save(self, path: Path | str) -> None:
        """Write the table of `to_dataset` to a Parquet file, in parts.

        Raises:
            InputError: the file's name does not end in ``.parquet``.
            StorageError: the file cannot be written.
        """
        import pyarrow.parquet as pq

        path = Path(path).expanduser()
        check_suffix(path)
        tables = self.tables()
        first = next(tables)
        with finish_or_nothing(path) as file, pq.ParquetWriter(file, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)

    def repair(self, *, replace: bool = True) -> Repaired:
        """Rows in their own format without the doubtful negatives; the others keep their places.

        Args:
            replace: whether others take their places: the hardest that the miner's settings allow, among the passages
                of the rows and the corpus. They are fewer where these are exhausted. A sampler plays no part.
        """
        from hf_negmine.auditing.repairing import repair

        return repair(self, replace=replace)

    def __str__(self) -> str:
        found, count, method = self.found, len(self.scores), self.config.method
        audited = f"{counted(len(found.queries), 'row')} with {counted(count, 'negative')}"
        lines = [f"{audited}, held against {method} by {self.config.teacher.name}", ""]
        for name, flags in self.reasons.items():
            if flags.any() or name.startswith(("ceiling", "judge")):
                lines.append(f"{_percent(flags.mean())} of the negatives {_in_words(name, method, self.judged)}")
        over = (self.scores > self.references[found.row_of]).mean()
        lines.append(f"{_percent(over)} score over their positive")
        rows = len(np.unique(found.row_of[self.doubtful]))
        lines += [
            "",
            f"{_percent(self.share)} of the negatives are doubtful: {int(self.doubtful.sum()):,} of {count:,}, in "
            f"{rows:,} of {counted(len(found.queries), 'row')}.",
        ]
        hub = int(np.argmax(self.rows_sharing))
        if (shared := int(self.rows_sharing[hub])) > 1:
            text = self.texts.corpus.take(found.passages[hub : hub + 1])[0].as_py()
            lines.append(f"The most frequent negative is one in {shared:,} rows: {text[:80]!r}")
        return "\n".join(lines)


def check_suffix(path: Path) -> None:
    """Raise `InputError` for the name of a file that `Audit.save` cannot write."""
    if path.suffix != ".parquet":
        raise InputError(f"{path}: the table of an audit is written as Parquet; end the name of the file in .parquet")


def _in_words(reason: str, method: Method, judged: int | None) -> str:
    """What is said of negatives with this reason against them."""
    if reason.startswith("ceiling"):
        return _over(method)
    if reason.startswith("floor"):
        return f"score under {method.floor:g}"
    if reason.startswith("judge "):
        return f"are relevant to {reason} (asked about {counted(judged or 0, 'pair')})"
    if reason == TWICE:
        return "stand in their row before"
    if reason in (SAME_AS_POSITIVE, SAME_AS_QUERY):
        return f"have the {reason}"
    return f"are dropped by {reason}"


def _over(method: Method) -> str:
    """What a score at or over the method's ceiling means."""
    if len(method.rules) == 1 and isinstance(rule := method.rules[0], Rule):
        if rule.name == "perc_pos":
            return f"score {100 * rule.value:g} % of their positive or more"
        if rule.name == "margin_pos":
            return f"score less than {rule.value:g} under their positive, or over it"
        if rule.name == "abs":
            return f"score {rule.value:g} or more"
    return f"reach the ceiling of {method}"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
