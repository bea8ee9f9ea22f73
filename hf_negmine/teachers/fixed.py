"""Teachers that need no model: precomputed vectors, and random scores (the paper's baseline, table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from hf_negmine.base.errors import InputError, TeacherError, require, require_choice, require_whole
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.randomness import random_keys, uniform
from hf_negmine.base.schema import AnyArray, DigestArray, FloatArray
from hf_negmine.data.texts import find_digests, sort_digests

ROLES: tuple[Role, ...] = ("query", "passage")


class FixedTeacher:
    """Vectors that were computed elsewhere.

    Args:
        query_texts: every query text that will be mined.
        query_vectors: shape (len(query_texts), width).
        passage_texts: every passage text, positives included.
        passage_vectors: shape (len(passage_texts), width).
        similarity: ``"cosine"`` or ``"dot"``.
        name: the teacher's name in summaries.
    """

    def __init__(
        self,
        query_texts: Sequence[str],
        query_vectors: np.ndarray[Any, Any],
        passage_texts: Sequence[str],
        passage_vectors: np.ndarray[Any, Any],
        *,
        similarity: Similarity = "cosine",
        name: str = "fixed",
    ) -> None:
        require_choice(similarity, ("cosine", "dot"), argument="similarity")
        self.name = name
        self.similarity = similarity
        self._vectors: dict[str, AnyArray] = {}
        self._fingerprints: dict[Role, str] = {}
        self._digests: dict[str, DigestArray] = {}
        self._order: dict[str, np.ndarray[Any, Any]] = {}
        for role, texts, vectors in (
            ("query", query_texts, query_vectors),
            ("passage", passage_texts, passage_vectors),
        ):
            array = _checked(vectors, len(texts), f"{name}: {len(texts)} {role} texts")
            digests = _digests_of(texts, f"{name}: the {role} texts")
            order, ordered = sort_digests(digests)
            same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
            twice = [place for place in same if not np.array_equal(array[order[place]], array[order[place + 1]])]
            if twice:
                raise InputError(
                    f"{name}: the {role} text {texts[int(order[twice[0]])][:60]!r} is given more than once, with "
                    "different vectors; give it one"
                )
            self._vectors[role], self._order[role], self._digests[role] = array, order, ordered
        widths = [vectors.shape[1] for vectors in self._vectors.values()]
        require(widths[0] == widths[1], f"{name}: query vectors are {widths[0]} wide, passage vectors {widths[1]}")

    @classmethod
    def from_folder(cls, folder: str | Path) -> FixedTeacher:
        """Read ``queries.parquet`` and ``passages.parquet``, each with the columns ``text`` and ``vector``."""
        folder = folder_of(folder, "fixed")
        parts: list[Any] = []
        for name in ("queries", "passages"):
            path = folder / f"{name}.parquet"
            require(path.is_file(), f"{path} does not exist, expected Parquet with the columns text and vector")
            try:
                table = pq.read_table(path, columns=["text", "vector"])
                parts += [table["text"].to_pylist(), np.stack(table["vector"].to_numpy())]
            except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are these, too
                raise InputError(
                    f"{path}: expected a Parquet file with the columns text and vector (lists of equal length): "
                    f"{' '.join(str(error).split())}"
                ) from error
        return cls(*parts, name=f"fixed-{folder.resolve().name}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the vectors: they stay in the process that has them; other processes use the vector store."""
        prints = {role: self.fingerprint(role) for role in ROLES}
        kept = {"name": self.name, "similarity": self.similarity, "_fingerprints": prints}
        return {**kept, "_vectors": {}, "_digests": {}, "_order": {}}

    def fingerprint(self, role: Role) -> str:
        """Digest of the texts and vectors (see `protocols.Teacher`)."""
        vectors = self._vectors.get(role)
        # A writable array may have changed since it was last digested.
        if vectors is not None and (vectors.flags.writeable or role not in self._fingerprints):
            about = (self.similarity, vectors.dtype.str, vectors.shape, xxhash.xxh3_128_hexdigest(_bytes_of(vectors)))
            self._fingerprints[role] = digest_of("fixed", about, self._digests[role], self._order[role])
        return self._fingerprints[role]

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """The given vectors of ``texts``, or `TeacherError` naming the first text without one."""
        if not self._vectors:
            raise TeacherError(
                f"{self.name}: the vectors stay in the process that made the teacher; mine the rows there"
            )
        at = find_digests(self._digests[role], _digests_of(texts, f"{self.name}: the {role} texts"))
        if (at < 0).any():
            first = texts[int(np.flatnonzero(at < 0)[0])]
            raise TeacherError(
                f"{self.name} has no vector for {int((at < 0).sum())} of {len(texts)} {role} texts, the first is "
                f"{first[:80]!r}"
            )
        return np.asarray(self._vectors[role][self._order[role][at]], dtype=np.float32)


def _bytes_of(array: AnyArray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checked(vectors: Any, count: int, what: str) -> AnyArray:
    """Vectors as an array with one row per text, or `InputError`."""
    expected = f"{what} need vectors of shape ({count}, width)"
    try:
        array = np.asarray(vectors)
    except (ValueError, TypeError, RuntimeError) as error:  # from numpy, or from torch
        raise InputError(f"{expected}, got {type(vectors).__name__}: {' '.join(str(error).split())}") from error
    require(array.ndim == 2 and len(array) == count, f"{expected}, got {array.shape}")
    require(
        array.dtype.kind in "fiu" and array.shape[1] > 0, f"{expected} of numbers, got {array.shape} of {array.dtype}"
    )
    return array


def _digests_of(texts: Sequence[str], what: str) -> DigestArray:
    try:
        array = pa.array(texts, type=pa.large_string())
    except (ValueError, TypeError) as error:  # pyarrow's errors are these, too
        raise InputError(f"{what}: {error}; expected text that is valid UTF-8") from error
    require(not array.null_count, f"{what}: {array.null_count} are null, expected text")
    return text_digests(array)


@dataclass(frozen=True)
class RandomTeacher:
    """Scores every pair with a random number between 0 and 1 that depends only on the seed and the two texts.

    Under a positive-aware ceiling the positive's score is random, too; `NaiveTopK` gives random negatives.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(self.seed, "RandomTeacher: seed")

    @property
    def name(self) -> str:
        """``random`` and the seed."""
        return f"random-{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher; part of the provenance."""
        return {"kind": "random", "seed": self.seed}

    def fingerprint(self, role: Role) -> str:
        """Digest of the seed (see `protocols.Teacher`)."""
        return digest_of("random", self.seed)

    def index(self, passages: pa.LargeStringArray) -> RandomScorer:
        """Digest the corpus."""
        return RandomScorer(self.seed, text_digests(passages))


@dataclass(frozen=True)
class RandomScorer:
    """See `protocols.PassageScorer`."""

    seed: int
    digests: DigestArray

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """Scores in (0, 1), shape (len(queries), n_passages)."""
        query_digests = text_digests(pa.array(queries, type=pa.large_string()))
        scores = uniform(random_keys(self.seed, query_digests[:, 0], self.digests[None, :, 0])).astype(np.float32)
        return np.asarray(np.minimum(scores, np.nextafter(np.float32(1), np.float32(0))))  # rounding may reach 1
