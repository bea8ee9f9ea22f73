"""Turn rows into unique queries, a corpus, and positives as CSR.

Identity is by text: two passages with the same text are one passage, two rows with the same query text share their
positives, and a passage with the query's own text is never its negative.

Passage ids do not depend on the order of the rows: a given corpus keeps its own order, and positives missing from it
follow in the order of their digests, so ties, which are broken by the lower id, fall the same way in any row order.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.checksums import publish_sealed, read_sealed
from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import (
    digest_of,
    finish_or_nothing,
    is_read_only,
    read_array,
    scratch_folder,
    temporary_folder,
    text_digests,
    write_array,
)
from hf_negmine.base.ragged import offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import FORMAT_VERSION, MAX_PASSAGES, DigestArray, IdArray, PassageArray

ABOUT = "texts.json"
TEXTS_A_BATCH = 16_384


class TextColumn:
    """Unique texts on disk, read by memory map: one flat UTF-8 file, int64 offsets, and one digest per text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: DigestArray = read_array(folder / "digests.npy")
        offsets = read_array(folder / "offsets.npy")
        try:
            size = (folder / "utf8.bin").stat().st_size
            data = pa.memory_map(str(folder / "utf8.bin")).read_buffer() if size else pa.py_buffer(b"")
        except OSError as error:
            raise StorageError(f"cannot read {folder / 'utf8.bin'}: {error}; delete {folder} and run again") from error
        if len(offsets) != len(self.digests) + 1 or size != offsets[-1]:
            raise StorageError(f"{folder} is damaged: {size} bytes of text, {offsets[-1]} expected; delete it")
        self.texts: pa.LargeStringArray = pa.LargeStringArray.from_buffers(
            len(offsets) - 1, pa.py_buffer(offsets), data
        )

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, ids: np.ndarray[Any, Any]) -> pa.LargeStringArray:
        """The texts with these ids, in this order."""
        return self.texts.take(pa.array(ids))

    def find(self, digests: DigestArray) -> IdArray:
        """Ids of the texts with these digests, -1 where there is none. Shape (n,)."""
        order, ordered = self._sorted_digests
        at = find_digests(ordered, digests)
        return np.where(at >= 0, order[at], -1) if len(order) else at

    def find_keys(self, keys: np.ndarray[Any, np.dtype[np.uint64]]) -> IdArray:
        """Ids of the texts whose digest begins with these 64 bits, -1 where there is none. Shape (n,).

        Among a billion texts, some two share these bits with a chance of 3 %; where that would do harm, use `find`.
        """
        order, firsts = self._sorted_keys
        if not len(order):
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(firsts, keys), len(order) - 1)
        return np.where(firsts[at] == keys, order[at], -1)

    @cached_property
    def _sorted_keys(self) -> tuple[IdArray, np.ndarray[Any, np.dtype[np.uint64]]]:
        order, ordered = self._sorted_digests
        return order, np.ascontiguousarray(ordered[:, 0])

    @cached_property
    def _sorted_digests(self) -> tuple[IdArray, DigestArray]:
        return sort_digests(self.digests)


def sort_digests(digests: DigestArray) -> tuple[IdArray, DigestArray]:
    """The order by first, then second half, and the sorted digests, each half contiguous in memory for searching."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    return order, np.asfortranarray(digests[order])


def find_digests(ordered: DigestArray, digests: DigestArray) -> IdArray:
    """Position of each digest in ``ordered`` (from `sort_digests`), -1 where there is none. Shape (n,)."""
    found = np.full(len(digests), -1, dtype=np.int64)
    at = np.searchsorted(np.ascontiguousarray(ordered[:, 0]), digests[:, 0], side="left")
    # Different texts whose digests share the first half are neighbors: step on while a row has another one to try.
    active = np.flatnonzero(at < len(ordered))
    while len(active):
        candidate, sought = ordered[at[active]], digests[active]
        match = (candidate == sought).all(axis=1)
        found[active[match]] = at[active[match]]
        at[active] += 1
        active = active[~match & (candidate[:, 0] == sought[:, 0]) & (at[active] < len(ordered))]
    return found


@dataclass(frozen=True)
class TextSet:
    """Everything that later rooms know about the user's data.

    Attributes:
        queries: unique query texts.
        corpus: unique passage texts; a passage id is a position in it.
        positive_offsets: int64, shape (n_queries + 1,).
        positive_ids: int32 passage ids, rising within a query.
        own_text: int64, shape (n_queries,): the passage with the query's own text, -1 without one.
    """

    folder: Path
    queries: TextColumn
    corpus: TextColumn
    positive_offsets: IdArray
    positive_ids: PassageArray
    own_text: IdArray

    @property
    def fingerprint(self) -> str:
        """Digest of the queries, the corpus and the positives."""
        return self.folder.name

    def excluded(self) -> tuple[IdArray, PassageArray]:
        """The passages that are never negatives of a query, as CSR: its positives, and a passage with its own text."""
        counts = np.diff(self.positive_offsets)
        query_ids = np.repeat(np.arange(len(self.queries)), counts)
        with_own = np.flatnonzero(self.own_text >= 0)
        pairs = np.stack(
            [np.concatenate([query_ids, with_own]), np.concatenate([self.positive_ids, self.own_text[with_own]])]
        )
        pairs = np.unique(pairs, axis=1)
        return offsets_of_rows(pairs[0], len(self.queries)), pairs[1].astype(np.int32)


def unique_digests(digests: DigestArray) -> tuple[IdArray, IdArray]:
    """The first position of each distinct digest, by rising digest, and the place of each digest among those."""
    order, ordered = sort_digests(digests)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.cumsum(new) - 1
    return order[new], place  # lexsort is stable: the first of a run is the first position


def check_texts(
    texts: pa.Array, rows: IdArray, *, column: str, code: str = "rows", remedy: str | None = None
) -> pa.LargeStringArray:
    """Texts as a large-string array, or `InputError` naming the first of ``rows`` that is null, blank or not text.

    Args:
        texts: one per row.
        rows: the row numbers, for errors.
        column: the column's name, for errors.
        code: Python for the rows as a Dataset, used in suggested remedies.
        remedy: Python that leaves blank texts out, if that is not a filter of these rows.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = _cast_texts(texts, column, code if remedy is None else None)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:  # Parquet, for example, does not check its strings
        raise InputError(
            f"column {column!r} has text that is not valid UTF-8 among rows {rows[0]} to {rows[-1]} ({error}); save it "
            "as UTF-8 and read it again"
        ) from error
    blank = are_blank(texts)
    if pc.any(blank).as_py():
        blank_rows = rows[blank.to_numpy(zero_copy_only=False)]
        remedy = remedy or in_code(code, f".filter(lambda row: (row[{column!r}] or '').strip())")
        raise InputError(
            f"column {column!r} has {len(blank_rows)} empty text(s) among rows {rows[0]} to {rows[-1]}, the first in "
            f"row {blank_rows[0]}; filter them out first, for example with {remedy}"
        )
    return texts.cast(pa.large_string())


def _cast_texts(texts: pa.Array, column: str, code: str | None) -> pa.Array:
    """Cast text of another Arrow type, or raise `InputError` with a remedy."""
    kind = texts.type
    if is_text(kind):
        return texts.cast(pa.large_string())
    remedy = "give texts" if code is None else "name a column of texts"
    if code is not None and pa.types.is_struct(kind) and kind.get_field_index("text") >= 0:
        remedy = "take the text out first, for example with " + _mapped(code, column, f"row[{column!r}]['text']")
    raise InputError(f"column {column!r} holds {str(kind)[:120]}, expected text (string); {remedy}")


def is_text(kind: pa.DataType) -> bool:
    """Whether it can be cast to text without changing any; nulls count as missing texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_kind(kind) for is_kind in kinds)


def are_blank(texts: pa.Array) -> pa.BooleanArray:
    """Which texts are missing, empty or only white space."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), True)


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
        counts: list[np.ndarray[Any, Any]] = []
        row = 0
        with _Writer(folder / "all_positives") as positive_texts, _Writer(folder / "all_queries") as query_texts:
            for queries, positives in pairs:
                numbers = np.arange(row, row + len(queries))
                query_texts.add(check_texts(queries, numbers, column=query_column, code=code))
                flat, lengths = flatten_positives(positives, numbers, column=positive_column, code=code)
                positive_texts.add(flat)
                counts.append(lengths)
                row += len(queries)
        if row == 0 and corpus is None:
            raise InputError(f"the data set is empty: no row with {query_column!r} and {positive_column!r}")
        all_queries, all_positives = query_texts.column(), positive_texts.column()

        first_query, query_of_row = _by_first_position(all_queries.digests)
        _copy_texts(folder / "queries", [(all_queries, first_query)])
        first_positive, positive_place = unique_digests(all_positives.digests)
        given = _collect_corpus(folder, corpus, corpus_column, corpus_remedy)
        if given is None:
            _copy_texts(folder / "corpus", [(all_positives, first_positive)])
            positive_id = positive_place
        else:
            in_given = given.find(all_positives.digests[first_positive])
            lacking = np.flatnonzero(in_given < 0)
            in_given[lacking] = len(given) + np.arange(len(lacking))
            _copy_texts(folder / "corpus", [(given, np.arange(len(given))), (all_positives, first_positive[lacking])])
            positive_id = in_given[positive_place]

        texts_queries, texts_corpus = TextColumn(folder / "queries"), TextColumn(folder / "corpus")
        if len(texts_corpus) > MAX_PASSAGES:
            raise InputError(f"the corpus has {len(texts_corpus)} passages, at most {MAX_PASSAGES} are supported")
        query_of_positive = np.repeat(query_of_row, np.concatenate(counts) if counts else 0)
        edges = np.unique(np.stack([query_of_positive, positive_id]), axis=1)
        offsets = offsets_of_rows(edges[0], len(texts_queries))
        write_array(folder / "positive_offsets.npy", offsets)
        write_array(folder / "positive_ids.npy", edges[1].astype(np.int32))
        write_array(folder / "own_text.npy", texts_corpus.find(texts_queries.digests))
        for scratch in ("all_queries", "all_positives", "given"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
        name = digest_of(
            "texts", FORMAT_VERSION, texts_queries.digests, texts_corpus.digests, offsets, edges[1].astype(np.int32)
        )
        publish_sealed(folder, home / name, ABOUT, {"fingerprint": name})
    return open_text_set(home / name)


def open_text_set(folder: Path) -> TextSet:
    """Open a `TextSet` that `build_text_set` wrote, by memory map."""
    read_sealed(folder / ABOUT)
    return TextSet(
        folder=folder,
        queries=TextColumn(folder / "queries"),
        corpus=TextColumn(folder / "corpus"),
        positive_offsets=read_array(folder / "positive_offsets.npy"),
        positive_ids=read_array(folder / "positive_ids.npy"),
        own_text=read_array(folder / "own_text.npy"),
    )


class _Writer:
    """Streams text batches into the files of a `TextColumn`, keeping only offsets and digests in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: list[DigestArray] = []
        self._lengths: list[np.ndarray[Any, Any]] = []
        folder.mkdir()
        self._context = finish_or_nothing(folder / "utf8.bin")
        self._file = self._context.__enter__()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def add(self, texts: pa.LargeStringArray) -> None:
        compact = pa.concat_arrays([texts])
        _, offset_buffer, data = compact.buffers()
        bounds = np.frombuffer(offset_buffer, dtype=np.int64, count=len(compact) + 1 + compact.offset)[compact.offset :]
        if data is not None:
            self._file.write(memoryview(data)[bounds[0] : bounds[-1]])
        self._digests.append(text_digests(compact))
        self._lengths.append(np.diff(bounds))

    def column(self) -> TextColumn:
        """The column that was written; call this after the block has ended."""
        digests = np.concatenate(self._digests) if self._digests else np.empty((0, 2), dtype=np.uint64)
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, dtype=np.int64)
        write_array(self._folder / "digests.npy", digests)
        write_array(self._folder / "offsets.npy", offsets_of_counts(lengths))
        return TextColumn(self._folder)


def _copy_texts(folder: Path, parts: list[tuple[TextColumn, IdArray]]) -> None:
    with _Writer(folder) as writer:
        for column, ids in parts:
            for start in range(0, len(ids), TEXTS_A_BATCH):
                writer.add(column.take(ids[start : start + TEXTS_A_BATCH]))
    writer.column()


def _collect_corpus(folder: Path, corpus: Iterable[pa.Array] | None, name: str, remedy: str) -> TextColumn | None:
    if corpus is None:
        return None
    row = 0
    with _Writer(folder / "all_given") as everything:
        for texts in corpus:
            numbers = np.arange(row, row + len(texts))
            everything.add(check_texts(texts, numbers, column=name, remedy=remedy))
            row += len(texts)
    column = everything.column()
    first, _ = _by_first_position(column.digests)
    _copy_texts(folder / "given", [(column, first)])
    shutil.rmtree(folder / "all_given")
    return TextColumn(folder / "given")


def _by_first_position(digests: DigestArray) -> tuple[IdArray, IdArray]:
    """Like `unique_digests`, but ordered by first position instead of by digest."""
    first, place = unique_digests(digests)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[place]


def flatten_positives(
    positives: pa.Array, rows: IdArray, *, column: str, code: str = "rows"
) -> tuple[pa.LargeStringArray, np.ndarray[Any, Any]]:
    """All positives of these rows in one array, and how many each row has; for ``code`` see `check_texts`."""
    if not is_list(positives.type):
        return check_texts(positives, rows, column=column, code=code), np.ones(len(positives), dtype=np.int64)
    lengths = pc.fill_null(pc.list_value_length(positives), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if len(bare := np.flatnonzero(lengths == 0)):
        raise InputError(
            f"column {column!r} has {len(bare)} row(s) without a positive, the first is row {rows[bare[0]]}; "
            "a query needs at least one, so filter them out first, for example with "
            + in_code(code, f".filter(lambda row: bool(row[{column!r}]))")
        )
    flat = positives.flatten()
    _check_kind_in_lists(flat.type, column, code)
    flat = flat.cast(pa.large_string())
    if len(blank := np.flatnonzero(are_blank(flat).to_numpy(zero_copy_only=False))):
        row = int(np.searchsorted(np.cumsum(lengths), blank[0], side="right"))
        place = int(blank[0] - (np.cumsum(lengths)[row] - lengths[row]))
        kept = f"[text for text in row[{column!r}] if (text or '').strip()]"
        raise InputError(
            f"column {column!r} has {len(blank)} empty text(s) in the lists of rows {rows[0]} to {rows[-1]}, the first "
            f"in row {rows[row]}, place {place}: {flat[int(blank[0])].as_py()!r:.20}; take them out first, for example "
            "with " + _mapped(code, column, kept, f".filter(lambda row: bool(row[{column!r}]))")
        )
    return flat, lengths


def _check_kind_in_lists(kind: pa.DataType, column: str, code: str) -> None:
    """Raise `InputError` with a remedy unless lists hold text."""
    if is_text(kind):
        return
    remedy = "name a column of texts"
    if is_list(kind):
        flat = f"[text for texts in row[{column!r}] for text in texts]"
        remedy = f"put the positives of a row into one list, for example with {_mapped(code, column, flat)}"
    elif pa.types.is_struct(kind) and kind.get_field_index("text") >= 0:
        own = f"[passage['text'] for passage in row[{column!r}]]"
        remedy = f"take the texts out first, for example with {_mapped(code, column, own)}"
    raise InputError(
        f"column {column!r} holds lists of {str(kind)[:120]}, expected text (string) or lists of text; {remedy}"
    )


def _mapped(code: str, column: str, value: str, then: str = "") -> str:
    return in_code(code, f".map(lambda row: {{{column!r}: {value}}}){then}")


def in_code(code: str, call: str, name: str = "rows") -> str:
    """Python that calls a method on the user's data.

    Args:
        code: Python for the data as a Dataset: its name, or an expression that makes it.
        call: the call, such as ``.filter(…)``.
        name: the name to give the data if ``code`` is an expression.
    """
    return f"{code}{call}" if code.isidentifier() else f"{name}{call} (after {name} = {code})"


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def batches_of(array: pa.ChunkedArray | pa.Array, size: int = TEXTS_A_BATCH) -> Iterator[pa.Array]:
    """Cut an Arrow column into arrays of at most ``size`` texts without copying it whole."""
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk.slice(start, size)
