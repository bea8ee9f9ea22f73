"""What the rooms expect of each other, in one place: teachers, scorers, query blocks, ceilings and samplers.

A teacher of your own needs a name, a fingerprint and one method: `VectorTeacher.encode` if it makes vectors, or
`ScoringTeacher.index` if it scores passages directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from hf_negmine.randomness import KeyArray
from hf_negmine.schema import BoolArray, FloatArray, IdArray, PassageArray

Role: TypeAlias = Literal["query", "passage"]
Similarity: TypeAlias = Literal["cosine", "dot"]


@runtime_checkable
class Teacher(Protocol):
    """Anything that scores passages for a query; higher is more relevant."""

    @property
    def name(self) -> str:
        """How people call it; goes into summaries and provenance."""

    def fingerprint(self, role: Role) -> str:
        """Digest of everything that changes what it makes of a text in ``role``: weights, prompt, lengths, dtype.

        Stored vectors and pools are reused exactly when it is equal.
        """


@runtime_checkable
class VectorTeacher(Teacher, Protocol):
    """A teacher whose score is the similarity of two vectors."""

    @property
    def similarity(self) -> Similarity:
        """``"cosine"`` or ``"dot"``; it scores positives and candidates alike."""

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``, shape (len(texts), width), one row a text, finite."""


class PassageScorer(Protocol):
    """The passages of one corpus, ready to be scored."""

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """Scores of every passage for each query, shape (len(queries), n_passages), finite.

        A query's row may not depend on the other queries of the call.
        """


@runtime_checkable
class ScoringTeacher(Teacher, Protocol):
    """A teacher that scores passages directly, such as BM25."""

    def index(self, passages: pa.LargeStringArray) -> PassageScorer:
        """Prepare the corpus; passage ids are positions in ``passages``."""


@dataclass(frozen=True)
class Ranking:
    """The best passages of some queries as CSR, each row by falling score, equal scores by rising passage id.

    Attributes:
        offsets: int64, shape (rows + 1,).
        passages: int32 passage ids, shape (offsets[-1],).
        scores: float32, same shape.
        exhausted: bool, shape (rows,): no eligible passage lies below the last one of the row.
    """

    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    exhausted: BoolArray


class QueryBlock(Protocol):
    """Some queries, loaded and ready to be scored. ``rows`` are positions within the block."""

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """The score of each (row, passage) pair, float32, by the very rule that scores candidates."""

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """For each of ``rows`` exactly its best ``depth`` eligible passages strictly under its ceiling.

        Eligible is every passage but the query's positives and a passage with the query's own text. The first ``skip``
        eligible passages under the ceiling are left out.
        """


class Searcher(Protocol):
    """Scores all queries against one corpus, a block of queries at a time."""

    block_size: int

    def block(self, queries: IdArray) -> QueryBlock:
        """Load the given query ids."""


@runtime_checkable
class Ceiling(Protocol):
    """A rule that turns a positive score into the highest score (exclusive) a negative may have.

    Its ``str`` names it with all its settings: it stands in summaries, and results are kept under it.
    """

    def ceilings(self, positive_scores: FloatArray) -> FloatArray:
        """Ceiling of each positive score, float32, same shape."""


@runtime_checkable
class Sampler(Protocol):
    """A rule that picks n of a query's surviving candidates.

    Its ``str`` names it with all its settings: it stands in summaries, and results are kept under it.
    """

    def depth(self, n: int) -> int:
        """How many of the best survivors it wants to see (it also works with fewer, down to n)."""

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """Columns of the n chosen ones, shape (rows, n).

        ``scores`` has shape (rows, depth), falling along a row, -inf where a row has fewer survivors; such columns
        are chosen only after all others. ``keys`` holds a random 64-bit number for each candidate, the same whatever
        the batching.
        """
