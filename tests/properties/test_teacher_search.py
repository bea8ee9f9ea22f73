"""Searches by teachers of every kind, against brute force over all pairs."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import NegativeMiner
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import PassageScorer, QueryBlock, Role, Searcher, Similarity, SparseVectors, TokenVectors
from hf_negmine.base.schema import AnyArray, FloatArray
from hf_negmine.data.texts import TextSet
from hf_negmine.search import Indexes, Queries
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.teachers import ApproximateTeacher, Fusion, resolve_teacher
from hf_negmine.teachers.cross_encoder import CrossEncoderTeacher
from hf_negmine.teachers.late_interaction import LateInteractionTeacher
from hf_negmine.teachers.sparse import SparseEncoderTeacher
from hf_negmine.teachers.vector_store import StoredTokens, VectorStore
from tests.reference import MatrixScorer, Ranked, ranked, rows_of, score_matrix, text_set
from tests.thorough import examples
from tests.tiny_models import make_cross, make_sparse, make_tokens


def number_of(text: str) -> int:
    return int(text.split()[-1])


@dataclass(frozen=True)
class Table:
    """What a teacher of the tests makes of a text, by the text's number."""

    queries: Any
    passages: Any
    name: str = "table"

    def fingerprint(self, role: Role) -> str:
        return digest_of(type(self).__name__, self.name, role)

    def of(self, texts: Sequence[str], role: Role) -> Any:
        rows = self.queries if role == "query" else self.passages
        return [rows[number_of(text)] for text in texts]


@dataclass(frozen=True)
class SparseTable(Table):
    def encode_sparse(self, texts: Sequence[str], role: Role) -> SparseVectors:
        rows = [np.asarray(row) for row in self.of(texts, role)]
        terms = [np.flatnonzero(row) for row in rows]
        return SparseVectors(
            np.cumsum([0] + [len(some) for some in terms]),
            np.concatenate(terms).astype(np.int32),
            np.concatenate([row[some] for row, some in zip(rows, terms, strict=True)]).astype(np.float32),
        )


@dataclass(frozen=True)
class TokenTable(Table):
    first_stage: Any = None
    candidates: int = 10

    def encode_tokens(self, texts: Sequence[str], role: Role) -> TokenVectors:
        rows = self.of(texts, role)
        return TokenVectors(np.cumsum([0] + [len(row) for row in rows]), np.concatenate(rows))


@dataclass(frozen=True)
class VectorTable(Table):
    similarity: Similarity = "dot"

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        return np.stack(self.of(texts, role))


@dataclass(frozen=True)
class ScoreTable(Table):
    """``queries`` holds the scores of all passages; ``passages`` nothing."""

    def index(self, passages: pa.LargeStringArray) -> PassageScorer:
        order = [number_of(text) for text in passages.to_pylist()]
        whole = MatrixScorer(self.queries[:, order])

        class Scorer:
            def scores(self, queries: Sequence[str]) -> FloatArray:
                return whole.scores([query.split()[-1] for query in queries])

        return Scorer()


@dataclass(frozen=True)
class PairTable(Table):
    """``queries`` holds the scores of all pairs; ``passages`` nothing."""

    first_stage: Any = "bm25"
    candidates: int = 10

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
        return np.asarray(self.queries[list(map(number_of, queries)), list(map(number_of, passages))])


@dataclass(frozen=True)
class World:
    """Numbered queries and passages with some positives, on disk."""

    texts: TextSet
    store: VectorStore
    excluded: list[list[int]]
    positives: list[int]

    def searcher(self, teacher: Any, *, fresh: bool = False) -> Searcher:
        index = Indexes(self.store, "cpu").open(resolve_teacher(teacher), self.texts.corpus)
        queries = Queries.of(self.texts)
        return index.searcher(Queries(queries.texts, queries.exclusions) if fresh else queries)


@contextmanager
def world(rng: np.random.Generator, n_queries: int, n_passages: int) -> Iterator[World]:
    queries = [f"query {number}" for number in range(n_queries)]
    passages = [f"passage {number}" for number in range(n_passages)]
    positives = [sorted(rng.choice(n_passages, rng.integers(1, 3), replace=False).tolist()) for _ in queries]
    pairs = [(query, place) for query, row in enumerate(positives) for place in row]
    with tempfile.TemporaryDirectory() as folder:
        texts = text_set(
            Path(folder), [queries[query] for query, _ in pairs], [passages[place] for _, place in pairs], passages
        )
        yield World(texts, VectorStore(Path(folder), progress=False), positives, [row[0] for row in positives])


@dataclass(frozen=True)
class Sizes:
    rng: np.random.Generator
    n_queries: int
    n_passages: int


sizes = st.builds(
    lambda seed, n_queries, n_passages: Sizes(np.random.default_rng(seed), n_queries, n_passages),
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(3, 40),
)
ceiling_kinds = st.sampled_from(["none", "score", "next", "under all"])
depths = st.integers(1, 45)
skips = st.sampled_from([0, 0, 1, 4, 60])


def some_ceilings(rng: np.random.Generator, kind: str, scores: FloatArray) -> FloatArray:
    rows = np.arange(len(scores))
    own = scores[rows, rng.integers(0, scores.shape[1], len(rows))]
    choices: dict[str, Any] = {
        "none": np.full(len(rows), np.inf),
        "score": own,
        "next": np.nextafter(own, np.float32(np.inf)),
        "under all": scores.min(axis=1),
    }
    return np.asarray(choices[kind], dtype=np.float32)


def assert_finds(
    searcher: Searcher, expected: Sequence[Ranked], scores: FloatArray, ceilings: FloatArray, depth: int, skip: int
) -> None:
    """Every query's answer, all at once, in another order and alone, is a window of its expected ranking."""
    under = [[pair for pair in row if pair[0] < limit] for row, limit in zip(expected, ceilings, strict=True)]

    def check(block: QueryBlock, queries: AnyArray, rows: AnyArray) -> None:
        ranking = block.best(rows, ceilings[queries[rows]], depth, skip)
        assert rows_of(ranking) == [under[query][skip : skip + depth] for query in queries[rows]]
        assert ranking.exhausted.tolist() == [len(under[query]) <= skip + depth for query in queries[rows]]
        assert (ranking.passages.dtype, ranking.scores.dtype) == (np.int32, np.float32)
        of = np.repeat(rows, np.diff(ranking.offsets))
        np.testing.assert_array_equal(block.pair_scores(of, ranking.passages), ranking.scores)

    everything = np.arange(len(expected))
    block = searcher.block(everything)
    check(block, everything, everything)
    check(block, everything, everything[::-1].copy())
    every_pair = np.divmod(np.arange(scores.size), scores.shape[1])
    found = block.pair_scores(every_pair[0], every_pair[1].astype(np.int32))
    np.testing.assert_array_equal(found, scores.reshape(-1))
    for query in everything:
        check(searcher.block(everything[query : query + 1]), everything[query : query + 1], np.arange(1))


def rankings(scores: FloatArray, excluded: Sequence[Sequence[int]]) -> list[Ranked]:
    return [ranked(row, out) for row, out in zip(scores, excluded, strict=True)]


def reranked(scores: FloatArray, first: Sequence[Ranked], candidates: int) -> list[Ranked]:
    """The first stage's best, ranked by other scores."""
    return [
        sorted(((float(row[place]), place) for _, place in best[:candidates]), key=lambda pair: (-pair[0], pair[1]))
        for row, best in zip(scores, first, strict=True)
    ]


# ---- sparse vectors --------------------------------------------------------------------------------------------------


def sparse_rows(rng: np.random.Generator, count: int, width: int, *, whole: bool) -> AnyArray:
    """Rows with few entries, some of them none, negative weights among them; ``whole`` numbers make ties."""
    rows = rng.normal(size=(count, width))
    rows = np.round(2 * rows) if whole else rows
    rows[rng.random(rows.shape) < 0.7] = 0
    rows[rng.random(count) < 0.2] = 0
    return rows.astype(np.float32)


@examples(60)
@given(
    size=sizes,
    widths=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    whole=st.booleans(),
    fresh=st.booleans(),
    kind=ceiling_kinds,
    depth=depths,
    skip=skips,
)
def test_sparse_search_equals_dot_products(
    size: Sizes, widths: tuple[int, int], whole: bool, fresh: bool, kind: str, depth: int, skip: int
) -> None:
    """Queries may hold terms that no passage has, and the other way around."""
    rng = size.rng
    queries = sparse_rows(rng, size.n_queries, widths[0], whole=whole)
    passages = sparse_rows(rng, size.n_passages, widths[1], whole=whole)
    common = min(widths)
    scores = np.zeros((size.n_queries, size.n_passages))
    for term in range(common):  # in the order of the terms, as sums of products in float64
        scores += queries[:, term, None].astype(np.float64) * passages[:, term].astype(np.float64)
    expected = scores.astype(np.float32)
    with world(rng, size.n_queries, size.n_passages) as here:
        searcher = here.searcher(SparseTable(queries, passages), fresh=fresh)
        ceilings = some_ceilings(rng, kind, expected)
        assert_finds(searcher, rankings(expected, here.excluded), expected, ceilings, depth, skip)


# ---- late interaction ------------------------------------------------------------------------------------------------


def max_sim(queries: Sequence[AnyArray], passages: Sequence[AnyArray]) -> FloatArray:
    """By loops, in float64."""
    return np.array(
        [
            [
                sum(max(float(q.astype(np.float64) @ p.astype(np.float64)) for p in passage) for q in query)
                for passage in passages
            ]
            for query in queries
        ],
        dtype=np.float32,
    )


def token_rows(rng: np.random.Generator, count: int, width: int, *, negative: bool | None) -> list[AnyArray]:
    """Small whole numbers, so that sums are exact in any order; of one sign unless that is None."""
    rows = [rng.integers(-4, 5, size=(rng.integers(1, 7), width)) for _ in range(count)]
    if negative is None:
        return [row.astype(np.float32) for row in rows]
    return [((1 + abs(row)) * (-1 if negative else 1)).astype(np.float32) for row in rows]


def pooled_rankings(queries: Sequence[AnyArray], passages: Sequence[AnyArray], excluded: list[list[int]]) -> Any:
    """Rankings by the cosine of the mean token vectors."""

    def means(rows: Sequence[AnyArray]) -> FloatArray:
        found = np.stack([row.astype(np.float64).sum(axis=0) / len(row) for row in rows]).astype(np.float32)
        lengths = np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
        return (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    return rankings(score_matrix(means(queries), means(passages)), excluded)


@examples(50)
@given(
    size=sizes,
    width=st.integers(1, 6),
    all_negative=st.booleans(),
    fresh=st.booleans(),
    candidates=st.integers(1, 50),
    kind=ceiling_kinds,
    depth=depths,
    skip=skips,
)
def test_late_interaction_equals_sums_of_maxima(
    size: Sizes, width: int, all_negative: bool, fresh: bool, candidates: int, kind: str, depth: int, skip: int
) -> None:
    """With all similarities negative, a padding of zeros would be every token's best match."""
    rng = size.rng
    queries = token_rows(rng, size.n_queries, width, negative=False if all_negative else None)
    passages = token_rows(rng, size.n_passages, width, negative=True if all_negative else None)
    scores = max_sim(queries, passages)
    if all_negative:
        assert (scores < 0).all()
    first = rng.integers(-9, 9, size=scores.shape).astype(np.float32)
    ceilings = some_ceilings(rng, kind, scores)
    with world(rng, size.n_queries, size.n_passages) as here:
        stages = {
            "pooled": (None, pooled_rankings(queries, passages, here.excluded)),
            "another": (ScoreTable(first, None), rankings(first, here.excluded)),
        }
        for name, (stage, best) in stages.items():
            teacher = TokenTable(queries, passages, name, stage, candidates)
            searcher = here.searcher(teacher, fresh=fresh)
            assert_finds(searcher, reranked(scores, best, candidates), scores, ceilings, depth, skip)


def test_many_candidates_are_scored_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    queries, passages = (token_rows(rng, count, 4, negative=None) for count in (5, 33))
    scores = max_sim(queries, passages)
    monkeypatch.setattr("hf_negmine.search.late.TOKENS_A_STEP", 10)
    held: list[int] = []
    gather = StoredTokens.gather

    def noted(self: StoredTokens, ids: AnyArray) -> TokenVectors:
        found = gather(self, ids)
        if len(ids) > 1:
            held.append(len(found.vectors))
        return found

    monkeypatch.setattr(StoredTokens, "gather", noted)
    with world(rng, 5, 33) as here:
        expected = reranked(scores, pooled_rankings(queries, passages, here.excluded), 33)
        searcher = here.searcher(TokenTable(queries, passages, candidates=33))
        assert_finds(searcher, expected, scores, np.full(5, np.inf, dtype=np.float32), 10, 0)
    assert held
    assert max(held) <= 10


def test_queries_and_passages_of_different_widths_are_an_error() -> None:
    from hf_negmine.base.errors import TeacherError

    rng = np.random.default_rng(3)
    queries, passages = token_rows(rng, 2, 3, negative=None), token_rows(rng, 6, 4, negative=None)
    with world(rng, 2, 6) as here:
        teacher = TokenTable(queries, passages, first_stage=ScoreTable(np.zeros((2, 6), np.float32), None))
        with pytest.raises(TeacherError, match="'table' gave query vectors of width 3 and passage vectors of width 4"):
            here.searcher(teacher)


# ---- pairs -----------------------------------------------------------------------------------------------------------


@examples(60)
@given(
    size=sizes,
    whole=st.booleans(),
    fresh=st.booleans(),
    candidates=st.integers(1, 50),
    kind=ceiling_kinds,
    depth=depths,
    skip=skips,
)
def test_pair_teachers_rank_the_best_of_their_first_stage(
    size: Sizes, whole: bool, fresh: bool, candidates: int, kind: str, depth: int, skip: int
) -> None:
    rng = size.rng
    shape = (size.n_queries, size.n_passages)
    first = rng.integers(-5, 5, size=shape).astype(np.float32)
    scores = (np.round(2 * rng.normal(size=shape)) if whole else rng.normal(size=shape)).astype(np.float32)
    scores[scores == 0] = rng.choice([0.0, -0.0])
    with world(rng, *shape) as here:
        teacher = PairTable(scores, None, first_stage=ScoreTable(first, None), candidates=candidates)
        searcher = here.searcher(teacher, fresh=fresh)
        expected = reranked(scores, rankings(first, here.excluded), candidates)
        assert_finds(searcher, expected, scores, some_ceilings(rng, kind, scores), depth, skip)


@examples(15)
@given(size=sizes, candidates=st.tuples(st.integers(1, 40), st.integers(1, 40)), depth=depths)
def test_a_reranker_reranks_a_reranker(size: Sizes, candidates: tuple[int, int], depth: int) -> None:
    """Over a fusion, at that."""
    rng = size.rng
    shape = (size.n_queries, size.n_passages)
    tables = [rng.integers(-5, 5, size=shape).astype(np.float32) for _ in range(4)]
    fusion = Fusion([ScoreTable(tables[0], None, "a"), ScoreTable(tables[1], None, "b")], "sum", weights=[1, 3])
    fused = fused_sum(tables[:2], [0.25, 0.75])
    with world(rng, *shape) as here:
        inner = PairTable(tables[2], None, "inner", fusion, candidates[0])
        outer = PairTable(tables[3], None, "outer", inner, candidates[1])
        best = reranked(tables[2], rankings(fused, here.excluded), candidates[0])
        expected = reranked(tables[3], best, candidates[1])
        no_ceiling = np.full(size.n_queries, np.inf, dtype=np.float32)
        assert_finds(here.searcher(outer), expected, tables[3], no_ceiling, depth, 0)


# ---- fusions ---------------------------------------------------------------------------------------------------------


def fused_rrf(tables: Sequence[FloatArray], weights: Sequence[float], constant: int) -> FloatArray:
    """By the definition: a rank is one more than the number of better passages."""
    fused = np.zeros(tables[0].shape)
    for weight, table in zip(weights, tables, strict=True):
        for row, column in np.ndindex(*table.shape):
            rank = 1 + sum(table[row] > table[row, column])
            fused[row, column] += weight / (constant + rank)
    return fused.astype(np.float32)


def fused_sum(tables: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """By the definition; a row of equal scores says nothing."""
    fused = np.zeros(tables[0].shape)
    for weight, table in zip(weights, tables, strict=True):
        for row, scores in enumerate(table.astype(np.float64)):
            low, high = min(scores), max(scores)
            fused[row] += weight * (np.array([(score - low) / (high - low) for score in scores]) if high > low else 0)
    return fused.astype(np.float32)


@examples(50)
@given(
    size=sizes,
    how=st.sampled_from(["rrf", "sum"]),
    weights=st.none() | st.lists(st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=3, max_size=3),
    constant=st.sampled_from([0, 1, 60]),
    constant_rows=st.booleans(),
    fresh=st.booleans(),
    kind=ceiling_kinds,
    depth=depths,
    skip=skips,
)
def test_fusions_follow_their_definitions(
    size: Sizes,
    how: Any,
    weights: list[float] | None,
    constant: int,
    constant_rows: bool,
    fresh: bool,
    kind: str,
    depth: int,
    skip: int,
) -> None:
    """Of a teacher with many ties, a dense and a sparse one."""
    rng = size.rng
    ties = rng.integers(0, 3, size=(size.n_queries, size.n_passages)).astype(np.float32)
    if constant_rows:
        ties[rng.random(size.n_queries) < 0.5] = 7
    vectors = [rng.integers(-3, 4, size=(count, 3)).astype(np.float32) for count in (size.n_queries, size.n_passages)]
    sparse = [sparse_rows(rng, count, 4, whole=True) for count in (size.n_queries, size.n_passages)]
    tables = [ties, vectors[0] @ vectors[1].T, sparse[0] @ sparse[1].T]
    stages = [ScoreTable(ties, None, "ties"), VectorTable(*vectors), SparseTable(*sparse)]
    fusion = Fusion(stages, how, weights=weights, rank_constant=constant)
    shares = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    expected = fused_rrf(tables, shares, constant) if how == "rrf" else fused_sum(tables, shares)
    with world(rng, size.n_queries, size.n_passages) as here:
        ceilings = some_ceilings(rng, kind, expected)
        searcher = here.searcher(fusion, fresh=fresh)
        assert_finds(searcher, rankings(expected, here.excluded), expected, ceilings, depth, skip)


# ---- FAISS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["dense", "pairs", "tokens"])
@pytest.mark.parametrize("index", ["Flat", "HNSW8", "IVF4,Flat@nprobe=1"])
def test_an_index_proposes_and_the_teacher_scores(index: str, over: str) -> None:
    """A flat index finds everything; the others may miss passages, and nothing else."""
    rng = np.random.default_rng(11)
    n_queries, n_passages, proposed, candidates = 20, 400, 60, 30
    vectors = [rng.normal(size=(count, 8)).astype(np.float32) for count in (n_queries, n_passages)]
    scores, kept = score_matrix(*vectors), proposed
    with world(rng, n_queries, n_passages) as here:
        exact = [row[:proposed] for row in rankings(scores, here.excluded)]
        teacher: Any = ApproximateTeacher(VectorTable(*vectors), index, candidates=proposed)
        if over == "pairs":
            scores, kept = rng.normal(size=scores.shape).astype(np.float32), candidates
            teacher = PairTable(scores, None, first_stage=teacher, candidates=candidates)
            exact = reranked(scores, exact, candidates)
        if over == "tokens":
            tokens = [[rng.normal(size=(2, 8)).astype(np.float32) for _ in part] for part in vectors]
            scores, kept = max_sim(*tokens), candidates
            teacher = TokenTable(*tokens, first_stage=teacher, candidates=candidates)
            exact = reranked(scores, exact, candidates)
        everything = np.arange(n_queries)
        no_ceiling = np.full(n_queries, np.inf, dtype=np.float32)
        whole = rows_of(here.searcher(teacher).block(everything).best(everything, no_ceiling, n_passages))
        assert all(len(row) == kept for row in whole)
        for query, row in enumerate(whole):
            assert not {place for _, place in row} & set(here.excluded[query])
        for fresh in (False, True):
            searcher = here.searcher(teacher, fresh=fresh)
            assert_finds(searcher, whole, scores, some_ceilings(rng, "score", scores), 15, 0)
        hits = sum(len(set(row) & set(best)) for row, best in zip(whole, exact, strict=True))
        assert hits == n_queries * kept if index == "Flat" else hits > 0.5 * n_queries * kept


# ---- real models -----------------------------------------------------------------------------------------------------


def words(seed: int, count: int, kind: str) -> list[str]:
    """Ragged texts of words that the tiny models know."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 22, count)
    return [kind + " " + " ".join(f"w{word}" for word in random.integers(0, 120, length)) for length in lengths]


PASSAGES, QUESTIONS = words(1, 40, "d"), words(2, 9, "q")
ROWS = [{"query": query, "positive": PASSAGES[4 * place]} for place, query in enumerate(QUESTIONS)]
N = 3


def mined(folder: Path, teacher: Any, **options: Any) -> list[dict[str, Any]]:
    miner = NegativeMiner(
        teacher,
        corpus=PASSAGES,
        include_scores=True,
        num_negatives=N,
        on_exhausted="keep",
        cache_dir=folder,
        device="cpu",
        progress=False,
        **options,
    )
    return miner.mine(ROWS).to_list()


def assert_mined(
    rows: list[dict[str, Any]],
    scores: FloatArray,
    method: Method,
    candidates: Sequence[set[int]] | None = None,
    *,
    atol: float = 2e-5,
) -> int:
    """Against brute force, by scores: a passage whose score is next to its neighbour's may stand in its place."""
    negatives = 0
    for place, row in enumerate(rows):
        own = dict(zip(PASSAGES, scores[place].tolist(), strict=True))
        positive = own[row["positive"]]
        np.testing.assert_allclose(row["scores"][0], positive, atol=atol)
        ceiling = float(method.ceilings(np.array([row["scores"][0]], dtype=np.float32))[0])
        assert ceiling < row["scores"][0] or not method.rules  # of a negative positive score, too
        chosen = [row[f"negative_{number}"] for number in range(1, N + 1) if row[f"negative_{number}"] is not None]
        assert len(set(chosen)) == len(chosen)
        assert row["positive"] not in chosen
        np.testing.assert_allclose(row["scores"][1:], [own[text] for text in chosen], atol=atol)
        allowed = set(range(len(PASSAGES))) if candidates is None else candidates[place]
        assert {PASSAGES.index(text) for text in chosen} <= allowed
        others = sorted((own[PASSAGES[i]] for i in allowed if PASSAGES[i] != row["positive"]), reverse=True)
        best = [score for score in others if score < ceiling]
        assert abs(len(chosen) - min(len(best), N)) <= sum(abs(score - ceiling) < atol for score in others)
        np.testing.assert_allclose(row["scores"][1:][: len(best)], best[: len(chosen)], atol=atol)
        negatives += len(chosen)
    return negatives


METHODS = ["naive", "perc_pos:0.95", "margin_pos:0.01"]


@pytest.mark.parametrize("method", METHODS)
def test_a_sparse_encoder_mines_what_its_library_scores(models: Path, tmp_path: Path, method: str) -> None:
    model = make_sparse(models)
    queries, passages = model.encode_query(QUESTIONS), model.encode_document(PASSAGES)
    scores = model.similarity(queries, passages).numpy()
    rows = mined(tmp_path, SparseEncoderTeacher(models / "sparse", dtype="float32", device="cpu"), method=method)
    assert assert_mined(rows, scores, resolve_method(method), atol=2e-4) > len(ROWS)


@pytest.mark.parametrize("stage", [None, "bm25"], ids=["pooled", "bm25"])
@pytest.mark.parametrize("method", METHODS)
def test_late_interaction_mines_what_its_library_scores(
    models: Path, tmp_path: Path, method: str, stage: str | None
) -> None:
    model = make_tokens(models)
    scores = model.similarity(model.encode_query(QUESTIONS), model.encode_document(PASSAGES)).numpy()
    teacher = LateInteractionTeacher(models / "tokens", first_stage=stage, candidates=40, dtype="float32", device="cpu")
    rows = mined(tmp_path, teacher, method=method)
    assert assert_mined(rows, scores, resolve_method(method), atol=2e-4) > len(ROWS)


@functools.cache
def bm25_candidates(folder: Path, count: int) -> list[set[int]]:
    found = NegativeMiner(
        "bm25", method="naive", corpus=PASSAGES, num_negatives=count, cache_dir=folder / "bm25", progress=False
    ).mine(ROWS)
    return [{PASSAGES.index(row[f"negative_{number}"]) for number in range(1, count + 1)} for row in found]


@pytest.mark.parametrize("activation", ["identity", "sigmoid", None])
@pytest.mark.parametrize("method", METHODS)
def test_a_cross_encoder_mines_what_its_library_scores(
    models: Path, tmp_path: Path, method: str, activation: Any
) -> None:
    """The logits of the tiny model are negative, so that 95 % of one lie over it in the plain formula."""
    import torch

    model = make_cross(models)
    with torch.no_grad():
        model[0].auto_model.classifier.bias.fill_(-2.0)
    function = {"identity": torch.nn.Identity(), "sigmoid": torch.nn.Sigmoid(), None: model.activation_fn}[activation]
    pairs = list(itertools.product(QUESTIONS, PASSAGES))
    scores = model.predict(pairs, activation_fn=function).reshape(len(QUESTIONS), len(PASSAGES))
    if activation == "identity":
        assert (scores < 0).all()
    else:
        assert ((scores > 0) & (scores < 1)).all()
    teacher = CrossEncoderTeacher(model, candidates=20, activation=activation)
    rows = mined(tmp_path, teacher, method=method)
    candidates = bm25_candidates(models, 20)
    assert assert_mined(rows, scores, resolve_method(method), candidates) > len(ROWS)


def test_a_loaded_model_of_any_kind_is_the_teacher_of_its_kind(models: Path, tmp_path: Path) -> None:
    made: list[tuple[Callable[[Path], Any], Any]] = [
        (make_cross, CrossEncoderTeacher),
        (make_sparse, SparseEncoderTeacher),
        (make_tokens, LateInteractionTeacher),
    ]
    for make, kind in made:
        teacher = resolve_teacher(make(models))
        assert type(teacher) is kind
        given = kind(make(models))
        assert teacher.fingerprint("query") == given.fingerprint("query")
        assert mined(tmp_path / kind.__name__, teacher, method="naive") == mined(
            tmp_path / kind.__name__, given, method="naive"
        )
