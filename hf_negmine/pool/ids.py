"""The ids that users have given to the texts of a pool: files are written under them.

In a pool queries and passages are positions. A text that was given under several ids is written under the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import text_digests
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.pool.list_sources import TextsById, open_texts


@dataclass(frozen=True)
class Ids:
    """The id of every query and of every passage, as texts or int64, by position; None where these are the ids."""

    queries: pa.Array | None = None
    documents: pa.Array | None = None

    def given(self, texts: TextSet | None, queries: Any, documents: Any) -> Ids:
        """The same with the ids of these tables, where one is given; see `CandidatePool.to_lists`."""
        if queries is None and documents is None:
            return self
        if texts is None:
            raise InputError(
                "queries, documents: ids are found by the texts, which this pool came without; write "
                "the pool of a miner that is fitted on them, or of from_lists"
            )
        return Ids(
            self.queries if queries is None else _of_texts(texts.queries, open_texts(queries, "queries")),
            self.documents if documents is None else _of_texts(texts.corpus, open_texts(documents, "documents")),
        )


POSITIONS = Ids()
SPACE = r"[\s\pZ]"
"""What separates the fields of TREC's files."""


def places_in(column: TextColumn, given: TextsById) -> IdArray:
    """The place of every given text among the texts of a column, -1 where it is not there."""
    parts = [column.find(text_digests(batch.cast(pa.large_string()))) for batch in given.batches()]
    return np.concatenate(parts)


def ids_of(given: TextsById, places: AnyArray, count: int) -> tuple[pa.Array, IdArray]:
    """The first id of each of ``count`` texts, null where there is none, and the texts without one."""
    rows = np.flatnonzero(places >= 0)[::-1]
    row_of = np.full(count, -1, dtype=np.int64)
    row_of[places[rows]] = rows
    return given.index.ids.take(pa.array(row_of, mask=row_of < 0)), np.flatnonzero(row_of < 0)


def _of_texts(column: TextColumn, given: TextsById) -> pa.Array:
    ids, lacking = ids_of(given, places_in(column, given), len(column))
    if len(lacking):
        first = column.take(lacking[:1])[0].as_py()
        raise InputError(
            f"{given.index.what}: {len(lacking):,} of the pool's {len(column):,} texts are not among the "
            f"{len(given.index):,} given ones, the first is {first[:80]!r}; give all that the pool was made from"
        )
    if len(pc.unique(ids)) < len(ids):
        counts = pc.value_counts(ids)
        twice = next(one["values"] for one in counts.to_pylist() if one["counts"] > 1)
        raise InputError(f"{given.index.what}: the id {twice!r} belongs to several texts, expected an id for each text")
    return ids


def taken(ids: pa.Array | None, positions: AnyArray) -> pa.Array:
    """The ids at some positions."""
    return pa.array(positions, pa.int64()) if ids is None else ids.take(pa.array(positions))


def require_fields(ids: Ids, separators: str, what: str) -> None:
    """Raise `InputError` for an id that is empty or holds one of the separators of a file's fields, as a pattern."""
    for name, column in (("queries", ids.queries), ("documents", ids.documents)):
        if column is None or not pa.types.is_large_string(column.type):
            continue
        wrong = column.filter(pc.or_(pc.equal(column, ""), pc.match_substring_regex(column, separators)))
        if len(wrong):
            raise InputError(
                f"{name}: {len(wrong):,} of {len(column):,} ids cannot be a field of {what}, the first is "
                f"{wrong[0].as_py()!r}: it is empty, or holds what separates fields; rename them, or write to_lists"
            )
