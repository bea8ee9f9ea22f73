"""Selections from a pool against the full score matrix, whatever the pool's depth and what was asked before."""

from __future__ import annotations

import itertools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.choices import FirstPass, PositiveScore
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.randomness import random_keys
from hf_negmine.base.schema import FloatArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool
from hf_negmine.select import Selection, SimANS, parse_sampler
from hf_negmine.teachers import FixedTeacher
from hf_negmine.teachers.vectors import unit_length
from tests.reference import Ranked, make_pool, ranked, score_matrix, selected_rows, text_set
from tests.thorough import examples

METHODS = [
    "naive",
    "shifted:2",
    "shifted:12",
    "abs:0.3",
    "abs:-0.5",
    "percentile:70",
    "percentile:20+shifted:1",
    "margin_pos:0.05",
    "margin_pos:0.7",
    "perc_pos:0.95",
    "perc_pos:0.3",
    "perc_pos:1.05",
    "band:3-9",
    "band:14-20",
    "band:10%-60%",
    "min:-0.2",
    "perc_pos:0.95+min:-0.4",
    "perc_pos:0.6+shifted:3",
    "abs:0.1+band:1-15",
    "margin_pos:0.2+shifted:8+min:-0.6",
]
SAMPLERS = ["top", "sampled:6", "sampled:30@0.1", "top1_sampled:5", "simans:12@4@-0.1", "simans:30@50"]


@dataclass(frozen=True)
class World:
    """A small data set, and the score of every pair in it."""

    teacher: FixedTeacher
    queries: list[str]
    corpus: list[str]
    positives: list[list[int]]
    scores: FloatArray

    def text_set(self, folder: Path) -> TextSet:
        return text_set(
            folder, self.queries, [[self.corpus[passage] for passage in row] for row in self.positives], self.corpus
        )

    def ranking(self, query: int) -> Ranked:
        """Every passage but the query's positives and its own text."""
        own = [passage for passage, text in enumerate(self.corpus) if text == self.queries[query]]
        return ranked(self.scores[query], self.positives[query] + own)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_queries, n_passages = draw(st.integers(1, 8)), draw(st.integers(8, 45))
    queries = [f"query {row}" for row in range(n_queries)]
    corpus = [f"passage {row}" for row in range(n_passages)]
    for row in range(0, n_queries, 2):
        corpus[row] = queries[row]
    positives = [np.sort(rng.choice(n_passages, rng.integers(1, 4), replace=False)).tolist() for _ in range(n_queries)]
    query_vectors, passage_vectors = rng.standard_normal((n_queries, 6)), rng.standard_normal((n_passages, 6))
    if draw(st.booleans()):  # ties
        query_vectors, passage_vectors = np.round(query_vectors), np.round(passage_vectors)
    if similarity_is_cosine := draw(st.booleans()):
        scores = score_matrix(
            unit_length(query_vectors.astype(np.float32)), unit_length(passage_vectors.astype(np.float32))
        )
    else:
        query_vectors, passage_vectors = query_vectors / 3, passage_vectors / 3
        scores = score_matrix(query_vectors.astype(np.float32), passage_vectors.astype(np.float32))
    similarity = "cosine" if similarity_is_cosine else "dot"
    teacher = FixedTeacher(queries, query_vectors, corpus, passage_vectors, similarity=similarity)  # type: ignore[arg-type]
    return World(teacher, queries, corpus, positives, scores)


def ceiling_of(world: World, spec: str, positive: float) -> float:
    """The lowest ceiling of a spec, as the paper has it."""
    ceilings = [np.inf]
    for part in spec.split("+"):
        name, _, value = part.partition(":")
        if name == "abs":
            ceilings.append(float(value))
        elif name == "percentile":
            every = [world.scores[query, passage] for query, row in enumerate(world.positives) for passage in row]
            ceilings.append(float(np.percentile(np.array(every, dtype=np.float64), float(value))))
        elif name == "margin_pos":
            ceilings.append(positive - float(value))
        elif name == "perc_pos":
            ceilings.append(positive - abs(positive) * (1 - float(value)))
    return float(np.float32(min(ceilings)))


def survivors(world: World, query: int, spec: str, positive: float) -> Ranked:
    """All candidates that a spec leaves, from the whole ranking."""
    ranking = world.ranking(query)
    first, last, floor = 0, len(world.corpus), -np.inf
    for part in spec.split("+"):
        name, _, value = part.partition(":")
        if name == "shifted":
            first = int(value)
        elif name == "min":
            floor = float(np.float32(value))
        elif name == "band":
            low, high = value.split("-")
            first, last = (
                int(float(bound.rstrip("%")) * len(world.corpus) / 100 + 1e-6) if "%" in bound else int(bound)
                for bound in (low, high)
            )
    ceiling = ceiling_of(world, spec, positive)
    return [pair for pair in ranking[first:last] if floor <= pair[0] < ceiling]


def drawn(texts: TextSet, query: int, positive: float, left: Ranked, sampler: Sampler, n: int, seed: int) -> Ranked:
    """What the sampler takes of the survivors of one query."""
    left = left[: sampler.depth(n)]
    if len(left) <= n:
        return left
    scores = np.array([[score for score, _ in left]], dtype=np.float32)
    passages = np.array([[passage for _, passage in left]])
    keys = random_keys(seed, texts.queries.digests[[query], 0], texts.corpus.digests[passages, 0])
    if isinstance(sampler, SimANS):  # the paper's formula, one candidate at a time
        noisy = []
        for (score, _), key in zip(left, keys[0].tolist(), strict=True):
            uniform = ((key >> 11) + 0.5) / 2.0**53
            noisy.append(-sampler.a * (score - positive - sampler.b) ** 2 - math.log(-math.log(uniform)))
        best = sorted(range(len(left)), key=lambda place: -noisy[place])[:n]
        return [left[place] for place in sorted(best)]
    return [left[column] for column in sampler.choose(scores, keys, n)[0]]


def assert_selection(
    world: World,
    pool: CandidatePool,
    texts: TextSet,
    *,
    spec: str,
    sampler: Sampler,
    n: int,
    seed: int,
    positive_score: PositiveScore,
) -> None:
    selection = pool.select(spec, sampler, n, seed=seed, positive_score=positive_score)
    assert_exact(world, texts, selection, spec)


def assert_exact(world: World, texts: TextSet, selection: Selection, spec: str) -> None:
    """Compare a selection with one from all scores."""
    sampler, n, seed = selection.sampler, selection.n, selection.seed
    targets = [
        (query, float(world.scores[query, passage])) for query, row in enumerate(world.positives) for passage in row
    ]
    if selection.positive_score == "min":
        targets = [
            (query, min(score for other, score in targets if other == query)) for query in range(len(world.queries))
        ]
    assert selection.positive_scores.tolist() == [score for _, score in targets]
    left = [survivors(world, query, spec, score) for query, score in targets]
    want = [
        drawn(texts, query, score, row, sampler, n, seed) for (query, score), row in zip(targets, left, strict=True)
    ]
    assert selected_rows(selection) == want
    assert selection.complete.tolist() == [len(row) == n for row in want]
    assert selection.counts.tolist() == [len(row) for row in want]


questions = st.lists(
    st.tuples(
        st.sampled_from(METHODS),
        st.sampled_from(SAMPLERS),
        st.integers(1, 5),
        st.integers(0, 3),
        st.sampled_from(["min", "each"]),
    ),
    min_size=1,
    max_size=4,
)


@examples(100)
@given(
    world=worlds(),
    depth=st.sampled_from([1, 2, 4, 13, 100]),
    first_pass=st.sampled_from(["float32", "bfloat16"]),
    questions=questions,
)
def test_every_selection_is_exact_whatever_the_depth_and_the_questions_before(
    world: World, depth: int, first_pass: FirstPass, questions: list[tuple[str, str, int, int, PositiveScore]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = world.text_set(Path(folder))
        pool = make_pool(Path(folder), world.teacher, texts, depth, first_pass)
        for spec, sampler, n, seed, positive_score in questions:
            assert_selection(
                world,
                pool,
                texts,
                spec=spec,
                sampler=parse_sampler(sampler),
                n=n,
                seed=seed,
                positive_score=positive_score,
            )
        loaded = CandidatePool.load(Path(folder) / "pool", progress=False)
        for spec, sampler, n, seed, positive_score in questions:  # it is deep enough by now
            again = loaded.select(spec, sampler, n, seed=seed, positive_score=positive_score)
            first = pool.select(spec, sampler, n, seed=seed, positive_score=positive_score)
            assert selected_rows(again) == selected_rows(first)


@examples(60)
@given(
    world=worlds(),
    depth=st.sampled_from([1, 2, 4, 13, 100]),
    methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=6),
    samplers=st.lists(st.sampled_from(SAMPLERS), min_size=1, max_size=3),
    n=st.integers(1, 5),
    positive_score=st.sampled_from(["min", "each"]),
)
def test_a_sweep_selects_what_each_setting_selects_alone(
    world: World, depth: int, methods: list[str], samplers: list[str], n: int, positive_score: PositiveScore
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = world.text_set(Path(folder))
        pool = make_pool(Path(folder), world.teacher, texts, depth, "float32")
        selections = pool.sweep(methods, samplers, n, seed=3, positive_score=positive_score)
        settings = list(itertools.product(methods, samplers))
        assert [(str(one.method), str(one.sampler)) for one in selections] == settings
        for (method, _), selection in zip(settings, selections, strict=True):
            assert_exact(world, texts, selection, method)
        loaded = CandidatePool.load(Path(folder) / "pool", progress=False)  # what the sweep found is stored
        again = loaded.sweep(methods, samplers, n, seed=3, positive_score=positive_score)
        assert [selected_rows(one) for one in again] == [selected_rows(one) for one in selections]
