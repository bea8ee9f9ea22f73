"""The result of `NegativeMiner.fit` on disk: the negatives chosen for every query, found by the texts of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import is_whole, publish_sealed, read_sealed
from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.files import digest_of, read_array, scratch_folder, write_array
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import FORMAT_VERSION, BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.pairs import PairFinder, RowNegatives, RowPairs
from hf_negmine.data.texts import TextSet, open_text_set
from hf_negmine.data.writing import scored_positives
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select import Selection

ABOUT = "fit.json"
RELEVANT = ("relevant_queries", "relevant_passages", "relevant_scores")
KEPT = "relabelled_keeps"


@dataclass(frozen=True)
class Fitted:
    """A fit, opened by memory map.

    Attributes:
        folder: where it is stored.
        texts: queries, corpus and positives.
        offsets, passages, scores: the negatives of each target (see `Selection`).
        pair_scores: float32, shape (pairs,): the score of every positive.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
        query_column, positive_column: names of the columns.
        pool_keys: names of the pools' folders: one, or with an ensemble one per teacher.
        summary: the summary of the mining.
        consistent: bool, shape (pairs,): whether the teacher finds each positive; None without a consistency rule.
        relevant: query ids, passage ids and scores of the passages a judge called relevant, by query; None without one.
        relabelled_keeps: bool, for each of these in turn: which negatives of its query's first pair are under its own
            ceiling as a positive; None if they did not become positives.
    """

    folder: Path
    texts: TextSet
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    pair_scores: FloatArray
    positive_score: PositiveScore
    query_column: str
    positive_column: str
    pool_keys: tuple[str, ...]
    summary: MiningSummary
    consistent: BoolArray | None = None
    relevant: tuple[IdArray, IdArray, FloatArray] | None = None
    relabelled_keeps: BoolArray | None = None

    @classmethod
    def open(cls, folder: Path, texts_folder: Path) -> Fitted:
        """Open a fit that `write_fit` wrote.

        Raises:
            DamagedError: a file of the fit or of its texts is not what was written; another `fit` writes it again.
        """
        content = read_sealed(folder / ABOUT)
        return cls(
            folder=folder,
            texts=open_text_set(texts_folder / content["texts"]),
            offsets=read_array(folder / "offsets.npy"),
            passages=read_array(folder / "passages.npy"),
            scores=read_array(folder / "scores.npy"),
            pair_scores=read_array(folder / "pair_scores.npy"),
            positive_score=content["positive_score"],
            query_column=content["query_column"],
            positive_column=content["positive_column"],
            pool_keys=tuple(content["pools"]),
            summary=MiningSummary.from_dict(content["summary"]),
            consistent=read_array(folder / "consistent.npy") if (folder / "consistent.npy").exists() else None,
            relevant=_read_relevant(folder),
            relabelled_keeps=read_array(folder / f"{KEPT}.npy") if content.get("relabels") else None,
        )

    @cached_property
    def finder(self) -> PairFinder:
        """Looks up the pairs of rows."""
        return PairFinder(self.texts)

    def pairs_of(self, batch: pa.Table) -> RowPairs:
        """The pairs of some rows, checked and with their ids."""
        return self.finder.pairs_of(
            _array(batch[self.query_column]),
            _array(batch[self.positive_column]),
            query_column=self.query_column,
            positive_column=self.positive_column,
        )

    def negatives(self, pairs: RowPairs, some: IdArray, places: IdArray) -> RowNegatives:
        """The negatives of some of the pairs, given the places that the finder returned."""
        places = places[some]
        targets = places if self.positive_score == "each" else pairs.query_ids[pairs.rows[some]]
        chosen = Ragged(self.offsets, (self.passages, self.scores)).take(targets)
        return RowNegatives(
            pairs.queries,
            pairs.query_ids,
            pairs.rows[some],
            pairs.positives.take(pa.array(some)),
            pairs.positive_ids[some],
            self.pair_scores[places],
            chosen.offsets,
            chosen.arrays[0],
            chosen.arrays[1],
            None if self.consistent is None else self.consistent[places],
        )

    def relabelled_negatives(self, found: RowNegatives) -> RowNegatives | None:
        """The positives that a judge added to the queries in ``found``, with negatives of the query's first pair.

        Each gets those negatives that are under its own ceiling. If a query has several rows, they come with its first
        pair only, so that no batch depends on another.
        """
        if self.relevant is None or self.relabelled_keeps is None:
            return None
        queries, passages, scores = self.relevant
        query_ids = found.query_ids[found.rows]
        known = np.flatnonzero(query_ids >= 0)
        first = self.texts.positive_ids[self.texts.positive_offsets[query_ids[known]]]
        firsts = known[found.positive_ids[known] == first]
        starts = np.searchsorted(queries, query_ids[firsts])
        counts = np.searchsorted(queries, query_ids[firsts], side="right") - starts
        entries, places = flat_positions(starts, counts)
        more = found.of(firsts[places])
        flags, pair = flat_positions(self._keeps_offsets[entries], more.counts)
        keeps = self.relabelled_keeps[flags]
        return replace(
            more,
            positives=self.texts.corpus.take(np.asarray(passages[entries])),
            positive_ids=np.asarray(passages[entries]),
            positive_scores=np.asarray(scores[entries]),
            offsets=offsets_of_rows(pair[keeps], len(entries)),
            passages=more.passages[keeps],
            scores=more.scores[keeps],
            consistent=None if more.consistent is None else np.ones(len(entries), dtype=bool),
        )

    @property
    def mined_positives(self) -> datasets.Dataset | None:
        """The pairs that a judge called relevant, see `NegativeMiner.mined_positives`; None without a judge."""
        return None if self.relevant is None else scored_positives(self.texts, *self.relevant)

    @cached_property
    def _keeps_offsets(self) -> IdArray:
        """Where the part of ``relabelled_keeps`` for each relevant passage begins."""
        assert self.relevant is not None
        targets = first_targets(self.texts, self.relevant[0], self.positive_score)
        return offsets_of_counts(np.diff(self.offsets)[targets])


def first_targets(texts: TextSet, queries: IdArray, positive_score: PositiveScore) -> IdArray:
    """The target of each query's first pair."""
    return queries if positive_score == "min" else texts.positive_offsets[queries]


def fit_name(settings: dict[str, Any], rows: int) -> str:
    """The name of a fit's folder, which depends only on the settings and the number of rows in its summary."""
    return digest_of("fits", FORMAT_VERSION, settings, rows)


def write_fit(
    folder: Path,
    texts: TextSet,
    selection: Selection,
    columns: tuple[str, str],
    summary: MiningSummary,
    pool_keys: Sequence[str],
    *,
    consistent: BoolArray | None = None,
    relevant: tuple[IdArray, IdArray, FloatArray] | None = None,
    relabelled_keeps: BoolArray | None = None,
) -> None:
    """Write a fit, whole or not at all; an existing one is kept."""
    if is_whole(folder / ABOUT, aside=folder):
        return
    arrays: dict[str, Any] = {
        name: getattr(selection, name) for name in ("offsets", "passages", "scores", "pair_scores")
    }
    if consistent is not None:
        arrays["consistent"] = consistent
    if relevant is not None:
        arrays.update(zip(RELEVANT, relevant, strict=True))
    if relabelled_keeps is not None:
        arrays[KEPT] = relabelled_keeps
    with scratch_folder(folder.parent) as scratch:
        for name, array in arrays.items():
            write_array(scratch / f"{name}.npy", array)
        publish_sealed(
            scratch,
            folder,
            ABOUT,
            {
                "texts": texts.fingerprint,
                "pools": list(pool_keys),
                "positive_score": selection.positive_score,
                "query_column": columns[0],
                "positive_column": columns[1],
                "relabels": relabelled_keeps is not None,
                "summary": summary.as_dict(),
            },
        )


def _read_relevant(folder: Path) -> tuple[IdArray, IdArray, FloatArray] | None:
    if not (folder / f"{RELEVANT[0]}.npy").exists():
        return None
    queries, passages, scores = (read_array(folder / f"{name}.npy") for name in RELEVANT)
    return queries, passages, scores


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
