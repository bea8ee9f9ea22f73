"""BM25 as a teacher: the scores of bm25s, with the stemmer and stop words of a language, indexed in bounded memory."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, StorageError, TeacherError, is_number, require, require_choice
from hf_negmine.base.files import digest_of
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Role
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.teachers.words import VERSION as WORDS_VERSION
from hf_negmine.teachers.words import words_of

TOKENS_A_BLOCK = 2**19
"""Tokens sorted at a time, at about 60 bytes each."""
BYTES_IN_MEMORY = 2**25
"""Bytes of counts that are kept in memory; a small corpus needs no file."""
DELTA = 0.5
"""The constant of BM25L and BM25+, as in bm25s."""


@dataclass(frozen=True)
class BM25Teacher:
    """The lexical teacher (NV-Retriever, table 1).

    Attributes:
        language: the language of the Snowball stemmer and the stop words; None for neither.
        k1: term-frequency saturation.
        b: length normalization.
        variant: the formula, as bm25s names it.
        progress: whether to show bars while a corpus is indexed.
        tokenizer: splits a text into words instead of `words.words_of`, such as ``jieba.lcut``. Its words are put in
            lower case, then stop words are removed and the others stemmed, according to ``language``.
        version: the tokenizer's version, required with a tokenizer: change it when its words change, as results are
            stored under it and no probe can tell two tokenizers apart.
    """

    language: str | None = "english"
    k1: float = 1.5
    b: float = 0.75
    variant: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    progress: bool = field(default=True, compare=False)
    tokenizer: Callable[[str], list[str]] | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if self.language is not None:
            import Stemmer

            if self.language not in Stemmer.algorithms():
                raise InputError(
                    f"BM25: language {self.language!r} is not among {list(Stemmer.algorithms())}; leave it out for any "
                    "other, and for texts in scripts without spaces (Chinese, Japanese, Thai), which need none"
                )
        require_choice(self.variant, FORMULAS, argument="BM25: variant")
        for name, value, most in (("k1", self.k1, math.inf), ("b", self.b, 1.0)):
            limit = "" if most == math.inf else f" and at most {most:g}"
            require(
                is_number(value) and math.isfinite(value) and 0 <= value <= most,
                f"BM25: {name}: a number of at least 0{limit}, got {value!r}",
            )
        if self.tokenizer is None:
            require(self.version is None, f"BM25: version: {self.version!r} is for a tokenizer, and none was given")
            return
        require(
            callable(self.tokenizer),
            f"BM25: tokenizer: a function from a text to a list of words, got {self.tokenizer!r}",
        )
        require(
            isinstance(self.version, str) and bool(self.version),
            'BM25: version: a text such as version="1" for the tokenizer, changed whenever its words change: '
            f"results are stored under it, and no probe can tell two tokenizers apart; got {self.version!r}",
        )

    @property
    def name(self) -> str:
        """``bm25``, the language, and the tokenizer."""
        return "-".join(filter(None, ("bm25", self.language, self._tokenizer_name)))

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings that recreate this teacher; part of the provenance. None with a tokenizer, which is code."""
        if self.tokenizer is not None:
            return None
        return {"kind": "bm25", "language": self.language, "k1": self.k1, "b": self.b, "variant": self.variant}

    def fingerprint(self, role: Role) -> str:
        """Digest of the settings and of the libraries' versions (see `protocols.Teacher`)."""
        versions = [version("bm25s"), version("PyStemmer"), WORDS_VERSION]
        tokenizer = [self._tokenizer_name, self.version]
        return digest_of("bm25", versions, self.language, self.k1, self.b, self.variant, tokenizer)

    def index(self, passages: pa.LargeStringArray) -> BM25Scorer:
        """Tokenize and weigh the corpus.

        Raises:
            TeacherError: no passage has a word, or the tokenizer returns something other than words.
            StorageError: the system's folder for temporary files is full.
        """
        return BM25Scorer(self, passages)

    def words(self, text: str) -> list[str]:
        """The words of a text in lower case, before stemming and with stop words."""
        if self.tokenizer is None:
            return words_of(text)
        words = self.tokenizer(text)
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise TeacherError(
                f"BM25: the tokenizer {self._tokenizer_name} gave {repr(words)[:80]} for {text[:80]!r}, "
                "expected a list of words, each a str"
            )
        return [word.lower() for word in words]

    def term(self, word: str) -> str | None:
        """The stem of a word; None for a stop word."""
        if word in self._stop_words:
            return None
        return word if self._stemmer is None else str(self._stemmer.stemWord(word))

    def __getstate__(self) -> dict[str, Any]:
        """Only the arguments: the stemmer cannot be pickled, and a copy makes its own."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def _tokenizer_name(self) -> str | None:
        if self.tokenizer is None:
            return None
        return str(getattr(self.tokenizer, "__qualname__", type(self.tokenizer).__qualname__))

    @cached_property
    def _stemmer(self) -> Any:
        import Stemmer

        return Stemmer.Stemmer(self.language) if self.language else None

    @cached_property
    def _stop_words(self) -> frozenset[str]:
        """bm25s' list for the language; empty if it has none."""
        from bm25s import stopwords

        name = "EN" if self.language == "english" else str(self.language).upper()
        return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))


class BM25Scorer:
    """A corpus with the score of each term in each passage that contains it; see `protocols.PassageScorer`.

    The scores equal those of bm25s (arXiv 2407.03618) to the last bit. Its own index is built from Python lists of all
    tokens; here one block of passages is counted at a time, and the counts wait in a temporary file until two numbers
    are known that only the whole corpus gives: how many passages contain each term, and the average passage length.
    """

    def __init__(self, teacher: BM25Teacher, passages: pa.LargeStringArray) -> None:
        self._teacher, self._n_passages = teacher, len(passages)
        vocabulary, lengths, n_blocks = _Vocabulary(teacher), np.zeros(len(passages), np.int64), 0
        with tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY) as file:
            for block in _counted(teacher, passages, vocabulary, lengths):
                try:
                    np.save(file, block)
                except OSError as error:
                    raise StorageError(
                        f"BM25: no room for the counts of {len(passages):,} passages in the system's folder for "
                        f"temporary files ({error}); make room there, or set TMPDIR to another folder"
                    ) from error
                n_blocks += 1
            if not vocabulary.terms:
                raise TeacherError(f"BM25 found no word in {len(passages)} passages that is not a stop word")
            self._terms = vocabulary.terms
            del vocabulary  # it also holds every form of every word

            def blocks() -> Iterator[PassageArray]:
                file.seek(0)
                return (np.load(file) for _ in range(n_blocks))

            self._weigh(blocks, lengths)

    def _weigh(self, blocks: Callable[[], Iterator[PassageArray]], lengths: IdArray) -> None:
        """Fill the index: for every term its passages, by rising id, and their scores."""
        k1, b = self._teacher.k1, self._teacher.b
        idf_of, saturation, absent = FORMULAS[self._teacher.variant]
        frequencies = np.zeros(len(self._terms), np.int64)
        for terms, _, _ in blocks():
            frequencies += np.bincount(terms, minlength=len(frequencies))
        distinct, places = np.unique(frequencies, return_inverse=True)
        idfs = [idf_of(self._n_passages, frequency) for frequency in distinct.tolist()]
        idf = np.array(idfs, np.float32)[places]
        self._absent: FloatArray = np.array([idf * absent(k1) for idf in idfs], np.float32)[places]
        norms = (1 - b) + b * lengths / lengths.mean()
        self._offsets = offsets_of_counts(frequencies)
        self._passages: PassageArray = np.empty(self._offsets[-1], np.int32)
        self._scores: FloatArray = np.empty(self._offsets[-1], np.float32)
        filled = self._offsets[:-1].copy()
        for terms, ids, counts in blocks():
            present, starts, sizes = np.unique(terms, return_index=True, return_counts=True)
            at = np.repeat(filled[present] - starts, sizes) + np.arange(len(terms))
            self._passages[at] = ids
            self._scores[at] = idf[terms] * saturation(counts.astype(np.float32), norms[ids], k1) - self._absent[terms]
            filled[present] += sizes

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """Scores of every passage, shape (len(queries), n_passages); zero for a query without a known word."""
        scores = np.zeros((len(queries), self._n_passages), dtype=np.float32)
        for row, query in zip(scores, queries, strict=True):
            words = map(self._teacher.term, self._teacher.words(query))
            known = [self._terms[term] for term in words if term is not None and term in self._terms]
            for term in known:
                of_term = slice(self._offsets[term], self._offsets[term + 1])
                # Twice as fast with 64-bit indices.
                np.add.at(row, self._passages[of_term].astype(np.int64), self._scores[of_term])
            row += self._absent[known].sum()
        return scores


class _Vocabulary(dict[str, int]):
    """Maps a word to the number of its term, assigned at first sight; -1 for a stop word.

    Attributes:
        terms: the number of each term.
    """

    def __init__(self, teacher: BM25Teacher) -> None:
        super().__init__()
        self.terms: dict[str, int] = {}
        self._teacher = teacher

    def __missing__(self, word: str) -> int:
        term = self._teacher.term(word)
        number = -1 if term is None else self.terms.setdefault(term, len(self.terms))
        self[word] = number
        return number


def _counted(
    teacher: BM25Teacher, passages: pa.LargeStringArray, vocabulary: _Vocabulary, lengths: IdArray
) -> Iterator[PassageArray]:
    """Term, passage and count, shape (3, entries), of one block of passages at a time, by rising term and passage.

    Fills ``lengths`` with the number of terms of each passage.
    """
    numbers, counts, first = array("i"), array("q"), 0
    each = bar("Indexing", "passages", len(passages), over=passages, shown=teacher.progress, leave=False)
    for done, passage in enumerate(each, start=1):
        before = len(numbers)
        numbers.extend(map(vocabulary.__getitem__, teacher.words(passage.as_py())))
        counts.append(len(numbers) - before)
        if len(numbers) >= TOKENS_A_BLOCK or done == len(passages):
            terms, ids = np.array(numbers, np.int64), np.repeat(np.arange(first, done), counts)
            kept = terms >= 0
            lengths[first:done] = np.bincount(ids[kept] - first, minlength=done - first)
            keys, times = np.unique(terms[kept] << 32 | ids[kept], return_counts=True)
            yield np.stack([keys >> 32, keys & (2**32 - 1), times]).astype(np.int32)
            numbers, counts, first = array("i"), array("q"), done


def _saturated(counts: Any, norms: Any, k1: float) -> Any:
    return counts / (k1 * norms + counts)


def _atire(counts: Any, norms: Any, k1: float) -> Any:
    return counts * (k1 + 1) / (k1 * norms + counts)


def _bm25l(counts: Any, norms: Any, k1: float) -> Any:
    normalized = counts / norms
    return (k1 + 1) * (normalized + DELTA) / (k1 + normalized + DELTA)


def _bm25plus(counts: Any, norms: Any, k1: float) -> Any:
    return (k1 + 1) * counts / (k1 * norms + counts) + DELTA


def _nothing(k1: float) -> float:
    return 0.0


FORMULAS: dict[str, tuple[Callable[[int, int], float], Callable[[Any, Any, float], Any], Callable[[float], float]]] = {
    "lucene": (lambda n, having: math.log(1 + (n - having + 0.5) / (having + 0.5)), _saturated, _nothing),
    "robertson": (lambda n, having: math.log(max((n - having + 0.5) / (having + 0.5), 1)), _saturated, _nothing),
    "atire": (lambda n, having: math.log(n / having), _atire, _nothing),
    "bm25l": (lambda n, having: math.log((n + 1) / (having + 0.5)), _bm25l, lambda k1: (k1 + 1) * DELTA / (k1 + DELTA)),
    "bm25+": (lambda n, having: math.log((n + 1) / having), _bm25plus, lambda k1: DELTA),
}
"""Three functions per variant: the idf of a term that ``having`` of n passages contain; the weight of its count in a
passage, whose length is in the norm; and its weight in a passage without it (Kamphuis et al., "Which BM25 do you
mean?", ECIR 2020, table 1; Lv and Zhai 2011 for the last two). The order of operations is that of bm25s, so that they
round alike."""
