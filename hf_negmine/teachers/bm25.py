"""BM25 as a teacher, by the bm25s library, with stemming and stop words of a language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hf_negmine.errors import InputError, TeacherError
from hf_negmine.files import digest_of
from hf_negmine.protocols import Role
from hf_negmine.schema import FloatArray

TEXTS_WORTH_A_BAR = 10_000
"""Fewer are indexed in about a second."""


@dataclass(frozen=True)
class BM25Teacher:
    """Lexical teacher (NV-Retriever, table 1).

    Attributes:
        language: of the Snowball stemmer and the stop words; None for neither.
        k1: term-frequency saturation.
        b: length normalisation.
        variant: formula, in bm25s' words.
        progress: show bars while a corpus is indexed.
    """

    language: str | None = "english"
    k1: float = 1.5
    b: float = 0.75
    variant: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    progress: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        if self.language is not None:
            import Stemmer

            if self.language not in Stemmer.algorithms():
                raise InputError(f"BM25: language {self.language!r} is not among {list(Stemmer.algorithms())}")

    @property
    def name(self) -> str:
        """``bm25`` and the language."""
        return f"bm25-{self.language}" if self.language else "bm25"

    @property
    def settings(self) -> dict[str, Any]:
        """What makes the same teacher again; goes into provenance."""
        return {"kind": "bm25", "language": self.language, "k1": self.k1, "b": self.b, "variant": self.variant}

    def fingerprint(self, role: Role) -> str:
        """Digest of the settings and of the libraries' versions (see `protocols.Teacher`)."""
        versions = [version("bm25s"), version("PyStemmer")]
        return digest_of("bm25", versions, self.language, self.k1, self.b, self.variant)

    def index(self, passages: pa.LargeStringArray) -> BM25Scorer:
        """Tokenise and weigh the corpus."""
        return BM25Scorer(self, passages)

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Stemmed tokens of each text, stop words left out."""
        import bm25s

        return bm25s.tokenize(  # type: ignore[no-any-return]
            list(texts),
            stopwords=self._stopwords,
            stemmer=self._stemmer,
            return_ids=False,
            show_progress=self.shows_bar(len(texts)),
        )

    def shows_bar(self, n_texts: int) -> bool:
        """Whether that many texts take so long that a bar is due."""
        return self.progress and n_texts >= TEXTS_WORTH_A_BAR

    def __getstate__(self) -> dict[str, Any]:
        """Without the stemmer, which cannot be pickled; a copy makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_stemmer"}

    @cached_property
    def _stemmer(self) -> Any:
        import Stemmer

        return Stemmer.Stemmer(self.language) if self.language else None

    @property
    def _stopwords(self) -> Any:
        """bm25s' list of the language; none where it has none."""
        from bm25s import stopwords

        name = "EN" if self.language == "english" else str(self.language).upper()
        return list(getattr(stopwords, f"STOPWORDS_{name}", ()))


class BM25Scorer:
    """A corpus that bm25s has indexed; see `protocols.PassageScorer`."""

    def __init__(self, teacher: BM25Teacher, passages: pa.LargeStringArray) -> None:
        import bm25s

        tokens = teacher.tokens(passages.to_pylist())
        if not any(tokens):
            raise TeacherError(f"BM25 found no word in {len(passages)} passages that is not a stop word")
        self._teacher = teacher
        self._index = bm25s.BM25(k1=teacher.k1, b=teacher.b, method=teacher.variant)
        self._index.index(tokens, show_progress=teacher.shows_bar(len(tokens)))
        self._n_passages = len(passages)

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """Scores of every passage, shape (len(queries), n_passages); zero for a query without a known word."""
        scores = np.zeros((len(queries), self._n_passages), dtype=np.float32)
        for row, tokens in enumerate(self._teacher.tokens(queries)):
            if known := self._index.get_tokens_ids(tokens):
                scores[row] = self._index.get_scores_from_ids(known)
        return scores
