"""Functions as teachers, for models that have no class here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_negmine.base.errors import require, require_choice, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Similarity, Teacher
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers.probes import PROBES, one_thread
from hf_negmine.teachers.vectors import as_array, check_vectors


@dataclass(frozen=True)
class EncodeFunction:
    """A function from texts to vectors, as a teacher.

    Attributes:
        encode_texts: turns texts into an array of shape (len(texts), width).
        encode_queries: the same for queries, if they are encoded differently.
        similarity: ``"cosine"`` or ``"dot"``.
        version: change it when the function changes, so that no vector stored from the old one is used. Without it the
            vectors of a few probe texts identify the function, which suits functions that can encode any text and
            always give the same vectors. The probe is computed whenever a fingerprint is needed, since the function
            may use a model that is being trained.
        label: the teacher's name in summaries; None takes the function's name.
    """

    encode_texts: Callable[[list[str]], Any]
    encode_queries: Callable[[list[str]], Any] | None = None
    similarity: Similarity = "cosine"
    version: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        require_choice(self.similarity, ("cosine", "dot"), argument="similarity")

    @property
    def name(self) -> str:
        """The label, or the function's name."""
        return self.label or _name_of(self.encode_texts)

    def fingerprint(self, role: Role) -> str:
        """Digest of the version, or of the probe's vectors (see `protocols.Teacher`).

        Raises:
            InputError: no version was given, and the probe cannot tell the function from another one.
            TeacherError: no version was given, and the probe gave no vectors.
        """
        content = self.version if self.version is not None else self._probed(role)
        return digest_of("encode-function", self.name, role, content)

    def _probed(self, role: Role) -> FloatArray:
        with one_thread():
            vectors = self.encode(PROBES, role)
        check_vectors(vectors, self, list(PROBES), None)
        require(
            any(not np.array_equal(one, vectors[0]) for one in vectors),
            f"EncodeFunction: {self.name} gives every probe text the same vector, which does not tell it from "
            "another function; give version=, and another version when it changes",
        )
        return vectors

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``."""
        function = self.encode_queries if role == "query" and self.encode_queries is not None else self.encode_texts
        return _array(function(list(texts)), self)


@dataclass(frozen=True)
class ScoreFunction:
    """A function that scores pairs of texts, as a teacher that ranks the candidates of another one.

    Attributes:
        score_pairs: turns queries and passages, two lists of equal length, into as many scores.
        first_stage: the teacher that finds the candidates.
        candidates: how many candidates it scores per query.
        version: change it when the function changes: scores and results are stored under it. It is required, as no
            probe of a few pairs can tell a function that looks scores up from another one.
        label: the teacher's name in summaries; None takes the function's name.
    """

    score_pairs: Callable[[list[str], list[str]], Any]
    first_stage: Any = "bm25"
    candidates: int = 100
    version: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        require_whole(self.candidates, "candidates", at_least=1)
        require(
            isinstance(self.version, str) and bool(self.version),
            'ScoreFunction: version: a text such as version="1", changed whenever the function changes: scores are '
            f"stored under it, and no probe can tell two functions apart; got {self.version!r}",
        )

    @property
    def name(self) -> str:
        """The label, or the function's name."""
        return self.label or _name_of(self.score_pairs)

    def fingerprint(self, role: Role) -> str:
        """Digest of name and version (see `protocols.Teacher`)."""
        return digest_of("score-function", self.name, self.version)

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
        """The score of each pair."""
        return _array(self.score_pairs(list(queries), list(passages)), self)


def _array(values: Any, teacher: Teacher) -> FloatArray:
    """A numpy array from a list, an array, or a tensor on any device and in any number format."""
    if hasattr(values, "detach"):
        values = values.detach().to("cpu").float().numpy()
    return as_array(values, teacher)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")
