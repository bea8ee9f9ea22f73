"""Collect rows and passages into a `TextSet` on disk: unique queries, a corpus, and who is positive for whom."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import publish_sealed
from hf_negmine.base.errors import InputError
from hf_negmine.base.files import (
    digest_of,
    finish_or_nothing,
    is_read_only,
    scratch_folder,
    temporary_folder,
    text_digests,
    write_array,
)
from hf_negmine.base.ragged import offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import FORMAT_VERSION, MAX_PASSAGES, DigestArray, IdArray
from hf_negmine.data.checks import TEXTS_A_BATCH, check_texts, flatten_positives
from hf_negmine.data.texts import ABOUT, TextColumn, TextSet, open_text_set, unique_digests


def build_text_set(
    cache_dir: Path,
    pairs: Iterable[tuple[pa.Array, pa.Array]],
    corpus: Iterable[pa.Array] | None,
    *,
    query_column: str,
    positive_column: str,
    code: str = "rows",
    corpus_column: str = "corpus",
    corpus_remedy: str = "[text for text in corpus if (text or '').strip()]",
) -> TextSet:
    """Collect (queries, positives) batches and an optional corpus into a `TextSet` under ``cache_dir``.

    Args:
        cache_dir: the set is stored in its folder ``texts``. If that is read-only, it may already hold the set.
        query_column, positive_column, corpus_column: names for errors.
        pairs: batches of equal-length Arrow arrays; a positive array may hold text or lists of text. There may be no
            batch at all if there is a corpus.
        corpus: batches of Arrow text arrays, or None if the positives are the corpus.
        code: Python for the rows as a Dataset, used in suggested remedies.
        corpus_remedy: Python that leaves blank passages out of the corpus.

    Raises:
        InputError: the data is empty, a text is empty or not text, or a row has no positive.
    """
    home = cache_dir / "texts"
    with temporary_folder() if is_read_only(home) else scratch_folder(home) as folder:
        all_queries, all_positives, counts = _collect_pairs(folder, pairs, query_column, positive_column, code)
        if not len(all_queries) and corpus is None:
            raise InputError(f"the data set is empty: no row with {query_column!r} and {positive_column!r}")
        first_query, query_of_row = _by_first_position(all_queries.digests)
        _copy_texts(folder / "queries", [(all_queries, first_query)])
        positive_id = _number_positives(
            folder, all_positives, _collect_corpus(folder, corpus, corpus_column, corpus_remedy)
        )
        queries, passages = TextColumn(folder / "queries"), TextColumn(folder / "corpus")
        if len(passages) > MAX_PASSAGES:
            raise InputError(f"the corpus has {len(passages)} passages, at most {MAX_PASSAGES} are supported")
        edges = np.unique(np.stack([np.repeat(query_of_row, counts), positive_id]), axis=1)
        offsets, ids = offsets_of_rows(edges[0], len(queries)), edges[1].astype(np.int32)
        write_array(folder / "positive_offsets.npy", offsets)
        write_array(folder / "positive_ids.npy", ids)
        write_array(folder / "own_text.npy", passages.find(queries.digests))
        for scratch in ("all_queries", "all_positives", "given"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
        name = digest_of("texts", FORMAT_VERSION, queries.digests, passages.digests, offsets, ids)
        publish_sealed(folder, home / name, ABOUT, {"fingerprint": name})
    return open_text_set(home / name)


def _collect_pairs(
    folder: Path, pairs: Iterable[tuple[pa.Array, pa.Array]], query_column: str, positive_column: str, code: str
) -> tuple[TextColumn, TextColumn, np.ndarray[Any, Any]]:
    """The query of every row, the positives of all rows one after the other, and how many each row has."""
    counts = [np.empty(0, dtype=np.int64)]
    row = 0
    with _column_at(folder / "all_positives") as add_positives, _column_at(folder / "all_queries") as add_queries:
        for queries, positives in pairs:
            numbers = np.arange(row, row + len(queries))
            add_queries(check_texts(queries, numbers, column=query_column, code=code))
            flat, lengths = flatten_positives(positives, numbers, column=positive_column, code=code)
            add_positives(flat)
            counts.append(lengths)
            row += len(queries)
    return TextColumn(folder / "all_queries"), TextColumn(folder / "all_positives"), np.concatenate(counts)


def _number_positives(folder: Path, positives: TextColumn, given: TextColumn | None) -> IdArray:
    """Write the corpus: what is given, then the positives that it lacks. Returns the passage id of each positive."""
    first, place = unique_digests(positives.digests)
    if given is None:
        _copy_texts(folder / "corpus", [(positives, first)])
        return place
    ids = given.find(positives.digests[first])
    lacking = np.flatnonzero(ids < 0)
    ids[lacking] = len(given) + np.arange(len(lacking))
    _copy_texts(folder / "corpus", [(given, np.arange(len(given))), (positives, first[lacking])])
    return ids[place]


def _collect_corpus(folder: Path, corpus: Iterable[pa.Array] | None, name: str, remedy: str) -> TextColumn | None:
    if corpus is None:
        return None
    row = 0
    with _column_at(folder / "all_given") as add:
        for texts in corpus:
            numbers = np.arange(row, row + len(texts))
            add(check_texts(texts, numbers, column=name, remedy=remedy))
            row += len(texts)
    column = TextColumn(folder / "all_given")
    first, _ = _by_first_position(column.digests)
    _copy_texts(folder / "given", [(column, first)])
    shutil.rmtree(folder / "all_given")
    return TextColumn(folder / "given")


def _copy_texts(folder: Path, parts: list[tuple[TextColumn, IdArray]]) -> None:
    with _column_at(folder) as add:
        for column, ids in parts:
            for start in range(0, len(ids), TEXTS_A_BATCH):
                add(column.take(ids[start : start + TEXTS_A_BATCH]))


@contextmanager
def _column_at(folder: Path) -> Iterator[Callable[[pa.LargeStringArray], None]]:
    """Write a `TextColumn` by batches of texts, of which only offsets and digests are kept in memory."""
    folder.mkdir()
    digests, lengths = [np.empty((0, 2), dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    with finish_or_nothing(folder / "utf8.bin") as file:

        def add(texts: pa.LargeStringArray) -> None:
            compact = pa.concat_arrays([texts])
            _, offsets, data = compact.buffers()
            bounds = np.frombuffer(offsets, dtype=np.int64, count=len(compact) + 1 + compact.offset)[compact.offset :]
            if data is not None:
                file.write(memoryview(data)[bounds[0] : bounds[-1]])
            digests.append(text_digests(compact))
            lengths.append(np.diff(bounds))

        yield add
    write_array(folder / "digests.npy", np.concatenate(digests))
    write_array(folder / "offsets.npy", offsets_of_counts(np.concatenate(lengths)))


def _by_first_position(digests: DigestArray) -> tuple[IdArray, IdArray]:
    """Like `unique_digests`, but ordered by first position instead of by digest."""
    first, place = unique_digests(digests)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[place]
