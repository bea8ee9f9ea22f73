"""What the rooms expect of each other, in one place: teachers, scorers, query blocks, ceilings and samplers.

Your own teacher needs a name, a fingerprint and one method: `VectorTeacher.encode` if it makes vectors,
`ScoringTeacher.index` if it scores all passages of a corpus, or `PairTeacher.score` if it reads a query and a passage
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from hf_negmine.base.randomness import KeyArray
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray

Role: TypeAlias = Literal["query", "passage"]
Similarity: TypeAlias = Literal["cosine", "dot"]


@runtime_checkable
class Teacher(Protocol):
    """Anything that scores passages for a query; higher is more relevant."""

    @property
    def name(self) -> str:
        """The name people know it by; appears in summaries and provenance."""

    def fingerprint(self, role: Role) -> str:
        """Digest of everything that affects how it encodes a text in ``role``: weights, prompt, lengths, dtype.

        Stored vectors and pools are reused only if it is equal.
        """


@runtime_checkable
class VectorTeacher(Teacher, Protocol):
    """A teacher whose score is the similarity of two vectors."""

    @property
    def similarity(self) -> Similarity:
        """``"cosine"`` or ``"dot"``; used for positives and candidates alike."""

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``, shape (len(texts), width), one row per text, finite."""


@runtime_checkable
class StreamingTeacher(VectorTeacher, Protocol):
    """A vector teacher whose vectors are worth storing as they arrive, because each of them costs money."""

    def encode_parts(self, texts: Sequence[str], role: Role) -> Iterator[tuple[IdArray, FloatArray]]:
        """Positions in ``texts`` and their vectors, in any order, each position once.

        Whatever is yielded is stored at once, so that a later error loses none of it.
        """


@dataclass(frozen=True)
class SparseVectors:
    """Vectors with few nonzero dimensions, as CSR.

    Attributes:
        offsets: int64, shape (texts + 1,).
        terms: int32 dimensions, rising within a text, shape (offsets[-1],).
        weights: float32, same shape, finite.
    """

    offsets: IdArray
    terms: PassageArray
    weights: FloatArray


@runtime_checkable
class SparseTeacher(Teacher, Protocol):
    """A teacher whose score is the dot product of two sparse vectors (SPLADE, arXiv 2107.05720)."""

    def encode_sparse(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """The sparse vectors of ``texts``."""


@dataclass(frozen=True)
class TokenVectors:
    """Several vectors per text, as CSR.

    Attributes:
        offsets: int64, shape (texts + 1,); every text has at least one vector.
        vectors: float32, shape (offsets[-1], width), finite.
    """

    offsets: IdArray
    vectors: FloatArray


@runtime_checkable
class TokenTeacher(Teacher, Protocol):
    """A late-interaction teacher (ColBERT, arXiv 2004.12832): each query token's best match in the passage, summed.

    Attributes:
        first_stage: finds the candidates it scores; None to use the mean of its own token vectors.
        candidates: how many candidates it scores per query.
    """

    first_stage: Any
    candidates: int

    def encode_tokens(self, texts: Sequence[str], role: Role) -> TokenVectors:
        """The token vectors of ``texts``, without padding."""


@runtime_checkable
class PairTeacher(Teacher, Protocol):
    """A teacher that reads a query and a passage together, such as a cross-encoder; too slow for a whole corpus.

    Attributes:
        first_stage: finds the candidates it scores.
        candidates: how many candidates it scores per query; they and the positives are all it ever sees.
    """

    first_stage: Any
    candidates: int

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
        """The score of each pair, shape (len(queries),), finite. Both lists have the same length."""


@runtime_checkable
class CountsTokens(Protocol):
    """A teacher that can report how much of a text it reads, for the summary; optional for any teacher."""

    def count_tokens(self, texts: Sequence[str], role: Role) -> tuple[IdArray, int | None]:
        """Tokens of each text with its prompt, shape (len(texts),), and how many of them are read; None for all."""


@runtime_checkable
class CountsPairTokens(Protocol):
    """Like `CountsTokens`, for a teacher that reads a query and a passage together."""

    def count_pair_tokens(self, queries: Sequence[str], passages: Sequence[str]) -> tuple[IdArray, int | None]:
        """Tokens of each pair, shape (len(queries),), and how many of them are read; None for all."""


class PassageScorer(Protocol):
    """The passages of one corpus, ready to be scored."""

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """Scores of every passage for each query, shape (len(queries), n_passages), finite.

        A query's scores must not depend on the other queries in the call.
        """


@runtime_checkable
class ScoringTeacher(Teacher, Protocol):
    """A teacher that scores passages directly, such as BM25."""

    def index(self, passages: pa.LargeStringArray) -> PassageScorer:
        """Prepare the corpus; passage ids are positions in ``passages``."""


@runtime_checkable
class FusionTeacher(Teacher, Protocol):
    """Several teachers that search, joined into one score per passage."""

    stages: Any

    def fuse(self, scores: Sequence[FloatArray]) -> FloatArray:
        """One score from those of each teacher, all of shape (queries, n_passages); rows are independent."""


@dataclass(frozen=True)
class Ranking:
    """The best passages of some queries as CSR, in each row by falling score, ties by rising passage id.

    Attributes:
        offsets: int64, shape (rows + 1,).
        passages: int32 passage ids, shape (offsets[-1],).
        scores: float32, same shape.
        exhausted: bool, shape (rows,): whether no eligible passage is left below the last one of the row.
    """

    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    exhausted: BoolArray


class QueryBlock(Protocol):
    """Some queries, loaded and ready to be scored. ``rows`` are positions within the block."""

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """The score of each (row, passage) pair, float32, by exactly the rule that scores candidates."""

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """The exact best ``depth`` eligible passages strictly under its ceiling, for each of ``rows``.

        Every passage is eligible except the query's positives and a passage with the query's own text. The first
        ``skip`` eligible passages under the ceiling are left out.
        """


@runtime_checkable
class ScanningBlock(QueryBlock, Protocol):
    """Some queries that can be scored against the whole corpus."""

    def all_scores(self) -> FloatArray:
        """The score of every passage, eligible or not, shape (queries, n_passages), float32."""


class Searcher(Protocol):
    """Scores all queries against one corpus, a block of queries at a time."""

    block_size: int

    def block(self, queries: IdArray) -> QueryBlock:
        """Load the given query ids."""


@runtime_checkable
class Ceiling(Protocol):
    """A rule that turns a positive score into the highest score (exclusive) a negative may have.

    Its ``str`` names it with all its settings: it appears in summaries, and results are stored under it.
    """

    def ceilings(self, positive_scores: FloatArray) -> FloatArray:
        """Ceiling of each positive score, float32, same shape."""


@runtime_checkable
class Sampler(Protocol):
    """A rule that picks n of a query's surviving candidates.

    Its ``str`` names it with all its settings: it appears in summaries, and results are stored under it.
    """

    def depth(self, n: int) -> int:
        """How many of the best survivors it wants to see (it also works with fewer, down to n)."""

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """Columns of the n chosen ones, shape (rows, n).

        ``scores`` has shape (rows, depth), falling along a row, -inf where a row has fewer survivors; such columns
        are chosen only after all others. ``keys`` holds a random 64-bit number for each candidate, independent of
        batching.
        """


@runtime_checkable
class PositiveSampler(Sampler, Protocol):
    """A sampler that also sees the positive score: `choose_near` is called in place of `choose`."""

    def choose_near(self, positive_scores: FloatArray, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `Sampler.choose`; ``positive_scores``, shape (rows,), are the scores that set the ceilings."""
