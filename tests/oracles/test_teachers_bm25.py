"""BM25 against bm25s called by hand, rank_bm25, and the formula written out."""

from __future__ import annotations

import math
import re
from pathlib import Path

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import Stemmer

from hf_negmine.teachers import BM25Teacher, bm25

UNLIKE_BM25S = re.compile("[\u0300-\u036f\u3040-\u9fff]")
"""Combining marks, at which bm25s ends a word, and scripts without spaces."""

VOCABULARY = [f"word{i}" for i in range(60)]


def random_texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, 61)
    return [" ".join(rng.choice(VOCABULARY, rng.integers(3, 30), p=weights / weights.sum())) for _ in range(count)]


PASSAGES, QUERIES = random_texts(0, 80), random_texts(1, 15)


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_scores_equal_those_of_bm25s(variant: str) -> None:
    texts = [*PASSAGES, "Running dogs are in the rain", "A dog ran over the raining hills"]
    queries = [*QUERIES, "the running dog", "rains"]
    ours = BM25Teacher(k1=1.2, b=0.6, variant=variant).index(pa.array(texts, pa.large_string())).scores(queries)  # type: ignore[arg-type]

    def tokens(given: list[str]) -> list[list[str]]:
        stemmer = Stemmer.Stemmer("english")
        return bm25s.tokenize(given, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)  # type: ignore[no-any-return]

    retriever = bm25s.BM25(k1=1.2, b=0.6, method=variant)
    retriever.index(tokens(texts), show_progress=False)
    for row, query in enumerate(tokens(queries)):
        known = [token for token in query if token in retriever.vocab_dict]
        np.testing.assert_array_equal(ours[row], retriever.get_scores(known), err_msg=queries[row])


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_scores_of_real_passages_equal_those_of_bm25s(
    variant: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text in scripts with spaces, in many blocks that do not fit into memory."""
    monkeypatch.setattr(bm25, "TOKENS_A_BLOCK", 10_000)
    monkeypatch.setattr(bm25, "BYTES_IN_MEMORY", 100_000)
    corpus = pq.read_table(data_dir / "nfcorpus" / "corpus.parquet")["text"].to_pylist()
    passages = [text for text in corpus if not UNLIKE_BM25S.search(text)][:2000]
    assert sum(not text.isascii() for text in passages) > 500
    queries = [text[:80] for text in passages[:20]]
    ours = BM25Teacher("german", variant=variant).index(pa.array(passages, pa.large_string())).scores(queries)  # type: ignore[arg-type]
    retriever = bm25s.BM25(method=variant)
    stemmer = Stemmer.Stemmer("german")
    settings = {"stopwords": "german", "stemmer": stemmer, "return_ids": False, "show_progress": False}
    retriever.index(bm25s.tokenize(passages, **settings), show_progress=False)
    for row, query in enumerate(bm25s.tokenize(queries, **settings)):
        np.testing.assert_array_equal(ours[row], retriever.get_scores(query), err_msg=queries[row])


def test_atire_scores_equal_rank_bm25_times_its_idf() -> None:
    """rank_bm25's Okapi is ATIRE with another idf: compare a one-word query, where the idf is one factor."""
    rank_bm25 = pytest.importorskip("rank_bm25", reason="needs the package rank-bm25")
    okapi = rank_bm25.BM25Okapi([passage.split() for passage in PASSAGES], k1=1.5, b=0.75)
    score = BM25Teacher(None, k1=1.5, b=0.75, variant="atire").index(pa.array(PASSAGES, pa.large_string())).scores
    compared = 0
    for word in VOCABULARY:
        holding = sum(word in passage.split() for passage in PASSAGES)
        if not 0 < holding < 40:  # rank_bm25 changes the idf of words in more than half of the passages
            continue
        ours, theirs = score([word])[0], okapi.get_scores([word])
        np.testing.assert_allclose(ours / math.log(80 / holding), theirs / okapi.idf[word], rtol=1e-4)
        compared += 1
    assert compared > 20


def test_lucene_scores_are_the_formula() -> None:
    k1, b = 1.5, 0.75
    ours = BM25Teacher(None).index(pa.array(PASSAGES, pa.large_string())).scores(QUERIES)
    documents = [passage.split() for passage in PASSAGES]
    mean = sum(map(len, documents)) / len(documents)
    for row, query in enumerate(QUERIES):
        for column, document in enumerate(documents):
            expected = 0.0
            for word in query.split():
                holding = sum(word in other for other in documents)
                frequency = document.count(word)
                idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
                expected += idf * frequency / (frequency + k1 * (1 - b + b * len(document) / mean))
            assert ours[row, column] == pytest.approx(expected, rel=1e-4, abs=1e-5)
