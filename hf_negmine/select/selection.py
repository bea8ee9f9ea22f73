"""What a selection works with and results in: the scored positives of every query, and its chosen negatives."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hf_negmine.base.choices import Format, OnExhausted, PositiveScore
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.ragged import Ragged
from hf_negmine.base.schema import AnyArray, BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.base.wording import counted
from hf_negmine.data.layouts import Layout
from hf_negmine.data.pairs import RowNegatives
from hf_negmine.data.texts import TextSet
from hf_negmine.figures import html
from hf_negmine.select.methods import Method

if TYPE_CHECKING:
    import datasets
    from matplotlib.figure import Figure

SHOWN = 5
"""Targets that a notebook shows."""


@dataclass(frozen=True)
class Positives:
    """The scored positives of every query, as CSR.

    Attributes:
        offsets: int64, shape (n_queries + 1,).
        ids: int32 passage ids, rising within a query.
        scores: float32, the teacher's scores.
        counted: bool, which of them set a ceiling, same shape; None for all. An inconsistent positive does not, unless
            its query has no other.
    """

    offsets: IdArray
    ids: PassageArray
    scores: FloatArray
    counted: BoolArray | None = None

    @property
    def query_of_pair(self) -> IdArray:
        """The query id of each (query, positive) pair."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def targets(self, positive_score: PositiveScore) -> tuple[IdArray, FloatArray]:
        """The query and positive score of every target: a target is a query under ``min``, a pair under ``each``."""
        if positive_score == "each":
            return self.query_of_pair, self.scores
        lowest = np.minimum.reduceat(self.scores, self.offsets[:-1])
        if self.counted is not None:
            of_counted = np.minimum.reduceat(np.where(self.counted, self.scores, np.inf), self.offsets[:-1])
            lowest = np.where(np.isinf(of_counted), lowest, of_counted).astype(np.float32)
        return np.arange(len(self.offsets) - 1), lowest

    @property
    def deciding(self) -> FloatArray:
        """The scores of all positives that set a ceiling, or of all if none does."""
        counted = self.counted is not None and self.counted.any()
        return np.asarray(self.scores[self.counted] if counted else self.scores)

    def warn_of_zeros(self, teacher: str) -> None:
        """Warn if the teacher scores most positives 0: a lexical one finds no word that query and positive share."""
        zeros = int(np.count_nonzero(self.scores == 0))
        if zeros > max(2, len(self.scores) / 2):  # one or two say nothing about a teacher
            warnings.warn(
                f"teacher {teacher!r} scores {zeros:,} of {len(self.scores):,} positives 0, like passages that have "
                "nothing in common with the query, so it cannot tell how close a negative is; check that queries and "
                "positives are in the same language and that the teacher suits it (BM25 takes a language, as in "
                "'bm25:german', or a tokenizer=)",
                stacklevel=2,
            )


@dataclass(frozen=True)
class Selection:
    """The negatives that were chosen, as CSR over targets (queries, or pairs under ``positive_score="each"``).

    Attributes:
        method, sampler, n, seed, positive_score: how they were chosen.
        offsets: int64, shape (targets + 1,).
        passages: int32 passage ids, by falling score within a target.
        scores: float32, same shape.
        positive_scores: float32, shape (targets,): the score that set each ceiling.
        pair_scores: float32, shape (pairs,): the score of every positive.
        removed: for each rule, how many of the pool's candidates it kept out, as many of each query as were first
            searched for; for each filter, how many of those that it looked at.
        chosen_by: for each negative, the index of the ensemble's teacher that chose it; None for a single teacher.
        positive_scores_by: with an ensemble, the score that set each ceiling in every teacher's own scale, shape
            (teachers, targets).
        agreement: with an ensemble, how much the teachers agree (`ensembles.agreement`), shape (teachers, teachers).
        list_ended: bool, shape (targets,): for which targets a list that came from elsewhere ends before all that the
            selection looks at; None if the pool knows every ranking as far as it needs to.
        source: the texts that ids refer to; None for a pool that came without them.
        columns: names of the query and positive columns in the user's rows.
    """

    method: Method
    sampler: Sampler
    n: int
    seed: int
    positive_score: PositiveScore
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    positive_scores: FloatArray
    pair_scores: FloatArray
    removed: dict[str, int]
    chosen_by: AnyArray | None = None
    positive_scores_by: FloatArray | None = None
    agreement: AnyArray | None = None
    list_ended: BoolArray | None = None
    source: TextSet | None = field(default=None, repr=False)
    columns: tuple[str, str] = ("query", "positive")

    def to_dataset(
        self, format: Format = "n-tuple", *, include_scores: bool = False, on_exhausted: OnExhausted = "drop"
    ) -> datasets.Dataset:
        """Every labeled (query, positive) pair with its negatives, as a data set in memory.

        Args:
            format, include_scores, on_exhausted: as in `MiningConfig`.

        Raises:
            InputError: the pool came without its texts, such as one loaded from the Hub.
            ExhaustedError: queries lack negatives, under ``on_exhausted="error"``.
        """
        from hf_negmine.data.writing import dataset_of

        texts = self._texts("to_dataset")
        layout = Layout(
            format=format,
            query_column=self.columns[0],
            positive_column=self.columns[1],
            n=self.n,
            scores=include_scores,
            on_exhausted=on_exhausted,
            share_negatives=self.positive_score == "min",
        )
        return dataset_of(self._rows(texts), texts.corpus, layout)

    def texts(self) -> list[list[str]]:
        """The texts of the negatives of each target, best first.

        Raises:
            InputError: the pool came without its texts.
        """
        flat = self._texts("texts").corpus.take(self.passages).to_pylist()
        return [flat[start:stop] for start, stop in itertools.pairwise(self.offsets.tolist())]

    def plot(self) -> Figure:
        """The scores as a picture, as in figure 4 of NV-Retriever; a notebook shows it.

        Raises:
            InputError: matplotlib is not installed.
        """
        from hf_negmine.figures.plots import plot_scores
        from hf_negmine.figures.stats import ScoreHistograms

        numbers = ScoreHistograms.of(np.asarray(self.pair_scores), self.references, self.offsets, self.scores)
        return plot_scores(numbers, title=str(self))

    def __str__(self) -> str:
        complete = f"{int(self.complete.sum()):,} of {counted(len(self.counts), 'target')} complete"
        return f"{counted(len(self.scores), 'negative')} by {self.method} with {self.sampler}, {complete}"

    def _repr_html_(self) -> str:
        if self.source is None:
            return html.lines([f"{self}; the pool came without its texts"])
        first = min(SHOWN, len(self.counts))
        ids = np.repeat(np.arange(len(self.source.queries)), np.diff(self.source.positive_offsets))
        queries = self.source.queries.take((ids if self.positive_score == "each" else np.arange(first))[:first])
        stop = int(self.offsets[first])
        negatives = self.source.corpus.take(self.passages[:stop]).to_pylist()
        rows = []
        for place, query in enumerate(queries.to_pylist()):
            start, end = self.offsets[place : place + 2]
            rows.append([html.shown(query), "positive", f"{self.positive_scores[place]:.4f}"])
            rows += [["", html.shown(negatives[at]), f"{self.scores[at]:.4f}"] for at in range(start, end)]
        more = f"the first {first} of {counted(len(self.counts), 'target')}" if first < len(self.counts) else ""
        return html.lines([str(self), more]) + html.table(["query", "negative", "score"], rows, names=2)

    def _texts(self, method: str) -> TextSet:
        if self.source is None:
            raise InputError(
                f"{method}: this pool came without its texts; select from the pool of a miner that is fitted on them"
            )
        return self.source

    def _rows(self, texts: TextSet) -> RowNegatives:
        """Each query with its positives and their negatives."""
        query = np.repeat(np.arange(len(texts.queries)), np.diff(texts.positive_offsets))
        targets = np.arange(len(query)) if self.positive_score == "each" else query
        chosen = self.ragged.take(targets)
        return RowNegatives(
            texts.queries.texts,
            np.arange(len(texts.queries)),
            query,
            texts.corpus.take(texts.positive_ids),
            texts.positive_ids.astype(np.int64),
            self.pair_scores,
            chosen.offsets,
            chosen.arrays[0],
            chosen.arrays[1],
        )

    @classmethod
    def of_nothing(
        cls, method: Method, sampler: Sampler, n: int, seed: int, positive_score: PositiveScore
    ) -> Selection:
        """The selection for a data set without queries."""
        scores = np.empty(0, dtype=np.float32)
        offsets, passages = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32)
        return cls(method, sampler, n, seed, positive_score, offsets, passages, scores, scores, scores, {})

    @property
    def references(self) -> FloatArray:
        """For each negative, the positive score that set its ceiling, in the same scale as its own score."""
        targets = np.repeat(np.arange(len(self.counts)), self.counts)
        if self.chosen_by is None or self.positive_scores_by is None:
            return self.positive_scores[targets]
        return np.asarray(self.positive_scores_by[self.chosen_by, targets])

    @property
    def ragged(self) -> Ragged:
        """The passages and scores of each target."""
        return Ragged(self.offsets, (self.passages, self.scores))

    @property
    def counts(self) -> IdArray:
        """The number of negatives of each target, shape (targets,)."""
        return np.diff(self.offsets)

    @property
    def complete(self) -> BoolArray:
        """Whether each target has n negatives, shape (targets,)."""
        return np.asarray(self.counts == self.n)

    @property
    def status(self) -> AnyArray:
        """The status of each target, shape (targets,), as text.

        ``complete`` (it has n negatives), ``exhausted`` (the corpus holds no more), or ``list ended`` (a list from
        elsewhere ends, and nobody looked further; there may be n negatives from fewer candidates than the sampler
        takes).
        """
        found = np.where(self.complete, "complete", "exhausted").astype("<U10")
        return found if self.list_ended is None else np.where(self.list_ended, "list ended", found)
