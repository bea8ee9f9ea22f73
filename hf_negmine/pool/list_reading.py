"""Scored lists read in batches: ids become passages by their texts, and each list a ranking on disk.

A list is the known top of its query's ranking: whatever the list lacks scores lower, as far as anybody knows. What it
holds is not trusted: passages are identified by their texts, never by their ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import storage_errors
from hf_negmine.base.progress import bar
from hf_negmine.base.ragged import joined_pieces, offsets_of_counts, offsets_of_rows, runs
from hf_negmine.base.schema import AnyArray, BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.checks import whole
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.ids import IdIndex, Ids, TextsById, ids_of, open_texts, places_in
from hf_negmine.pool.list_sources import (
    DOCUMENTS,
    QUERY,
    SCORES,
    ListSource,
    flat_lists,
    numbers_of,
    open_lists,
    positive_batches,
    require_same_lengths,
)
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

ENTRIES_A_STEP = 2**21
"""Candidates that are sorted together."""
QUERIES_A_BATCH = 8192


@dataclass(frozen=True)
class Labelled:
    """The positives of some queries, by the rows of their texts.

    Attributes:
        queries: int64, shape (pairs,), rising.
        documents: int64, shape (pairs,).
        scores: float32, shape (pairs,); NaN where none was given.
    """

    queries: IdArray
    documents: IdArray
    scores: FloatArray


@dataclass(frozen=True)
class Read:
    """What was read, as texts with ids of their own, and the scored lists on disk.

    Attributes:
        texts: queries, corpus and positives.
        lists: a segment for every query, from the top of its ranking.
        positives: the positives; the score is NaN where there is none.
        ids: what the texts were given as.
    """

    texts: TextSet
    lists: CandidateLists
    positives: Positives
    ids: Ids


def read_lists(
    queries: Any, documents: Any, scores: Any, positives: Any, *, cache_dir: Path, scratch: Path, progress: bool
) -> Read:
    """Read scored lists; the lists are arrays on disk in ``scratch``. See `CandidatePool.from_lists`."""
    source = open_lists(scores)
    opened = open_texts(queries, "queries"), open_texts(documents, "documents")
    labelled = _labelled(*opened, positives, source)
    texts = _text_set(*opened, labelled, cache_dir)
    reader = _Reader(texts, *opened, scratch, progress)
    reader.place(labelled)
    reader.read(source)
    return Read(texts, reader.finish(), reader.positives, reader.ids())


def _labelled(queries: TextsById, documents: TextsById, positives: Any, lists: ListSource) -> Labelled:
    parts = [
        (queries.index.require(of_query, "positives"), documents.index.require(of_document, "positives"), given)
        for of_query, of_document, given in positive_batches(positives, lists)
    ]
    if not any(len(given) for *_, given in parts):
        raise InputError("positives: no query has one, expected at least one query with a positive")
    query_rows, document_rows, given = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((document_rows, query_rows))
    return Labelled(query_rows[order], document_rows[order], given[order])


def _text_set(queries: TextsById, documents: TextsById, labelled: Labelled, cache_dir: Path) -> TextSet:
    """The texts of the queries that have a positive, and of all documents."""
    first = np.flatnonzero(np.append(True, np.diff(labelled.queries) > 0))
    bounds = np.append(first, len(labelled.queries))

    def pairs() -> Iterator[tuple[pa.Array, pa.Array]]:
        for start in range(0, len(first), QUERIES_A_BATCH):
            some = bounds[start : start + QUERIES_A_BATCH + 1]
            texts = documents.take(labelled.documents[some[0] : some[-1]])
            offsets = pa.array(some - some[0], pa.int64())
            yield queries.take(labelled.queries[some[:-1]]), pa.LargeListArray.from_arrays(offsets, texts)

    return build_text_set(
        cache_dir,
        pairs(),
        documents.batches(),
        query_column=queries.column,
        positive_column=documents.column,
        corpus_column=documents.column,
        corpus_remedy=documents.without_blanks,
    )


class _Reader:
    """Reads lists into two files, in the order of their rows, and then into two more, in the order of the queries."""

    def __init__(self, texts: TextSet, queries: TextsById, documents: TextsById, scratch: Path, progress: bool) -> None:
        self.texts, self._scratch, self._progress = texts, scratch, progress
        self._queries, self._documents = queries, documents
        self._query_of = places_in(texts.queries, queries)
        self._passage_of = places_in(texts.corpus, documents).astype(np.int32)
        _require_one_text(queries.index, self._query_of)
        _require_one_text(documents.index, self._passage_of)
        no_scores = np.full(len(texts.positive_ids), np.nan, dtype=np.float32)
        self.positives = Positives(texts.positive_offsets, texts.positive_ids, no_scores)
        self._n_passages = len(texts.corpus)
        self._pair_keys = self.positives.query_of_pair * self._n_passages + texts.positive_ids
        self._excluded_offsets, self._excluded = texts.excluded()

    def ids(self) -> Ids:
        """The ids of the texts."""
        queries, _ = ids_of(self._queries, self._query_of, len(self.texts.queries))
        documents, _ = ids_of(self._documents, self._passage_of, self._n_passages)
        return Ids(queries, documents)

    def place(self, labelled: Labelled) -> None:
        """Take over the scores that were given with the positives."""
        given = ~np.isnan(labelled.scores)
        queries, passages = self._query_of[labelled.queries[given]], self._passage_of[labelled.documents[given]]
        self._score_pairs(queries * self._n_passages + passages, labelled.scores[given])

    def read(self, source: ListSource) -> None:
        """Read all lists as passage ids and scores."""
        with (
            storage_errors(self._scratch),
            ExitStack() as opened,
            bar("Reading lists", "lists", shown=self._progress) as read,
        ):
            files = [opened.enter_context(open(self._scratch / name, "wb")) for name in FILES]
            for table in source.tables([QUERY, DOCUMENTS, SCORES]):
                # Small arrays that are kept between large ones would keep the memory of these, too.
                for file, column in zip(files, self._read(table.combine_chunks()), strict=True):
                    file.write(np.ascontiguousarray(column).data)
                read.update(len(table))

    def _read(self, table: pa.Table) -> tuple[AnyArray, ...]:
        """Passage ids and scores of a batch of lists, and the query id and length of each list; see `FILES`."""
        ids = whole(table[QUERY])
        rows = self._queries.index.require(ids, "scores, query ids")
        documents, lengths = flat_lists(whole(table[DOCUMENTS]), DOCUMENTS)
        values, of_scores = flat_lists(whole(table[SCORES]), SCORES)
        require_same_lengths(ids, lengths, of_scores, DOCUMENTS, SCORES)
        scores = numbers_of(values, SCORES)
        if len(wrong := np.flatnonzero(~np.isfinite(scores))):
            query = int(np.repeat(np.arange(len(lengths)), lengths)[wrong[0]])
            raise InputError(
                f"scores: {len(wrong):,} of {len(scores):,} scores in a batch are not finite numbers, the first is "
                f"{values[int(wrong[0])].as_py()!r} for the document {documents[int(wrong[0])].as_py()!r} in the list "
                f"of query {ids[query].as_py()!r}; leave such entries out of the lists"
            )
        passages = self._passage_of[self._documents.index.require(documents, "scores, document ids")]
        queries = self._query_of[rows]
        kept = queries >= 0  # the others have no positive
        entries = np.repeat(kept, lengths)
        return passages[entries], scores[entries], queries[kept], lengths[kept]

    def finish(self) -> CandidateLists:
        """The lists in the order of the queries: sorted, each passage once, without what is never a negative."""
        passages, scores, queries, lengths = (_mapped(self._scratch / name, kind) for name, kind in FILES.items())
        order = np.argsort(queries, kind="stable")
        starts, sizes = (offsets_of_counts(lengths)[:-1])[order], lengths[order]
        rows = offsets_of_rows(queries, len(self.texts.queries))
        before = offsets_of_counts(sizes)
        counts = np.zeros(len(self.texts.queries), dtype=np.int64)
        with (
            storage_errors(self._scratch),
            open(self._scratch / "sorted passages", "wb") as to_passages,
            open(self._scratch / "sorted scores", "wb") as to_scores,
        ):
            for first, last in runs(before[rows], ENTRIES_A_STEP):
                some = slice(rows[first], rows[last])
                block = (joined_pieces(values, starts[some], sizes[some]) for values in (passages, scores))
                query = np.repeat(queries[order[some]], sizes[some])
                query, *columns = self._ranked(query, *block)
                counts[first:last] = np.bincount(query - first, minlength=last - first)
                for file, column in zip((to_passages, to_scores), columns, strict=True):
                    file.write(np.ascontiguousarray(column).data)
        for name in FILES:
            (self._scratch / name).unlink()
        bounds = offsets_of_counts(counts)
        eligible = self._n_passages - np.diff(self._excluded_offsets)
        return CandidateLists(
            _mapped(self._scratch / "sorted passages", np.int32),
            _mapped(self._scratch / "sorted scores", np.float32),
            np.arange(len(counts) + 1),
            bounds[:-1],
            bounds[1:],
            np.full(len(counts), np.inf, dtype=np.float32),
            np.zeros(len(counts), dtype=np.int64),
            counts == eligible,
        )

    def _ranked(self, query: IdArray, passages: PassageArray, scores: FloatArray) -> tuple[IdArray, AnyArray, AnyArray]:
        """Entries of whole queries as their rankings; the scores of positives among them are taken note of."""
        scores = scores + np.float32(0)  # -0.0 and 0.0 are the same score
        same = query[1:] == query[:-1]
        falls = (scores[1:] < scores[:-1]) | ((scores[1:] == scores[:-1]) & (passages[1:] > passages[:-1]))
        wrong = np.unique(query[1:][same & ~falls])  # the queries that are to be sorted; most lists come sorted
        if len(wrong):
            here = np.flatnonzero(_among(query, wrong))
            order = here[np.lexsort((passages[here], -scores[here], query[here]))]
            passages[here], scores[here] = passages[order], scores[order]
        keys = query * self._n_passages + passages
        by_key = np.argsort(keys, kind="stable")  # of several entries of a passage, the first has the best score
        again = np.zeros(len(keys), dtype=bool)
        again[by_key[1:]] = keys[by_key[1:]] == keys[by_key[:-1]]
        query, passages, scores, keys = query[~again], passages[~again], scores[~again], keys[~again]
        self._score_pairs(keys, scores)
        first, last = (int(query[0]), int(query[-1]) + 1) if len(query) else (0, 0)
        bounds = self._excluded_offsets[first : last + 1]
        never = np.repeat(np.arange(first, last), np.diff(bounds)) * self._n_passages
        kept = ~_among(keys, never + self._excluded[bounds[0] : bounds[-1]])
        return query[kept], passages[kept], scores[kept]

    def _score_pairs(self, keys: IdArray, scores: FloatArray) -> None:
        places = np.minimum(np.searchsorted(self._pair_keys, keys), len(self._pair_keys) - 1)
        found = self._pair_keys[places] == keys
        self.positives.scores[places[found]] = scores[found]


FILES: dict[str, Any] = {"passages": np.int32, "scores": np.float32, "queries": np.int64, "lengths": np.int64}
"""Of all lists in the order of their rows: candidates, and the query id and length of each list."""


def _among(values: IdArray, rising: IdArray) -> BoolArray:
    """Which of the values are in a short array of rising ones."""
    if not len(rising):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values)


def _mapped(path: Path, kind: Any) -> AnyArray:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)


def _require_one_text(index: IdIndex, places: AnyArray) -> None:
    """Raise `InputError` if an id has two texts."""
    first = index.find(index.ids, index.what)
    if len(other := np.flatnonzero(places != places[first])):
        raise InputError(
            f"{index.what}: the id {index.ids[int(other[0])].as_py()!r} has two texts, in rows {first[other[0]]} and "
            f"{other[0]}; give each text an id of its own"
        )
