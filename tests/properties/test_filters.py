"""Filters against plain Python: what is chosen is the best of the ranking for which every rule holds."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.schema import FloatArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool
from hf_negmine.search import Indexes, Queries
from hf_negmine.select import Selection
from hf_negmine.select.filters import (
    BoundFilter,
    Consistency,
    Filter,
    Listed,
    NearDuplicates,
    Scene,
    Veto,
    Where,
    duplicates,
    minhash,
    other_value,
    same_value,
    where,
)
from hf_negmine.select.judge import ROUNDS, Judge, judged_selection
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers import FixedTeacher
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.teachers.vectors import unit_length
from tests.reference import Ranked, make_pool, ranked, score_matrix, selected_rows, text_set
from tests.thorough import examples

Rule = Callable[[int, Ranked], Ranked]
"""What a rule leaves of the candidates of a target, best first; a plain loop."""

METHODS = [
    "naive",
    "perc_pos:0.95",
    "perc_pos:0.6",
    "margin_pos:0.1",
    "shifted:2",
    "band:2-14",
    "perc_pos:0.9+min:-0.5",
]
LANGUAGES = ["de", "en", None]


@dataclass(frozen=True)
class World:
    """A small data set of near duplicates, as a miner's teacher, a second teacher and plain Python see it."""

    teacher: FixedTeacher
    second: FixedTeacher
    queries: list[str]
    corpus: list[str]
    positives: list[list[int]]
    scores: FloatArray
    second_scores: FloatArray
    vectors: FloatArray
    languages: dict[str, str | None]

    def text_set(self, folder: Path) -> TextSet:
        positives = [[self.corpus[passage] for passage in row] for row in self.positives]
        return text_set(folder, self.queries, positives, self.corpus)

    def targets(self, positive_score: PositiveScore, scores: FloatArray) -> list[tuple[int, float]]:
        """Query and positive score of each target."""
        if positive_score == "each":
            return [(q, float(scores[q, passage])) for q, row in enumerate(self.positives) for passage in row]
        return [(q, min(float(scores[q, passage]) for passage in row)) for q, row in enumerate(self.positives)]

    def allowed(self, query: int, spec: str, positive: float) -> Ranked:
        """The candidates that a method leaves, from the whole ranking."""
        own = [passage for passage, text in enumerate(self.corpus) if text == self.queries[query]]
        left = ranked(self.scores[query], self.positives[query] + own)
        ceiling, floor = math.inf, -math.inf
        for part in spec.split("+"):
            name, _, value = part.partition(":")
            if name == "shifted":
                left = left[int(value) :]
            elif name == "band":
                low, high = value.split("-")
                left = left[int(low) : int(high)]
            elif name == "min":
                floor = float(np.float32(value))
            elif name != "naive":
                ceiling = ceiling_of(part, positive)
        return [pair for pair in left if floor <= pair[0] < ceiling]


def ceiling_of(spec: str, positive: float) -> float:
    name, _, value = spec.partition(":")
    ceiling = positive - float(value) if name == "margin_pos" else positive - abs(positive) * (1 - float(value))
    return float(np.float32(ceiling))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_queries, n_passages = draw(st.integers(1, 6)), draw(st.integers(8, 50))
    queries = [f"question {row} of many" for row in range(n_queries)]
    groups = rng.integers(0, max(2, n_passages // 3), n_passages)
    corpus = [_passage(rng, group, row) for row, group in enumerate(groups)]
    corpus[int(rng.integers(n_passages))] = queries[0]
    positives = [np.sort(rng.choice(n_passages, rng.integers(1, 4), replace=False)).tolist() for _ in range(n_queries)]
    noise = draw(st.sampled_from([0.0, 0.15, 1.0]))
    vectors = rng.standard_normal((n_passages, 5))[groups] + noise * rng.standard_normal((n_passages, 5))
    query_vectors = rng.standard_normal((n_queries, 5))
    if draw(st.booleans()):  # ties
        vectors, query_vectors = np.round(vectors), np.round(query_vectors)
    seconds = rng.standard_normal((n_queries, 5)), rng.standard_normal((n_passages, 5))
    dot = draw(st.booleans())
    kind: Any = "dot" if dot else "cosine"
    made = [part.astype(np.float32) for part in (query_vectors, vectors, *seconds)]
    stored = [*(made[:2] if dot else map(unit_length, made[:2])), *map(unit_length, made[2:])]
    return World(
        FixedTeacher(queries, made[0], corpus, made[1], similarity=kind),
        FixedTeacher(queries, made[2], corpus, made[3], name="second"),
        queries,
        corpus,
        positives,
        score_matrix(stored[0], stored[1]),
        score_matrix(stored[2], stored[3]),
        stored[1],
        # Of one text at least: a table that knows none is refused.
        {
            text: LANGUAGES[int(rng.integers(3))]
            for text in [*queries, *corpus]
            if text == queries[0] or rng.random() < 0.8
        },
    )


def _passage(rng: np.random.Generator, group: int, row: int) -> str:
    """A text of a group, whose texts share most words, with one of its own."""
    words = [f"Word{(group * 7 + place * place) % 23}" for place in range(12)]
    words[int(rng.integers(12))] = f"own{row}"
    if rng.random() < 0.3:
        words = [word.upper() for word in words]
    return f"{', '.join(words)} {'end' * row}."


# ---- rules, as plain loops ---------------------------------------------------------------------------------------


def veto_rule(world: World, positive_score: PositiveScore, abstain_at: float | None) -> Rule:
    targets = world.targets(positive_score, world.second_scores)

    def rule(target: int, listed: Ranked) -> Ranked:
        query, positive = targets[target]
        if abstain_at is not None and positive <= abstain_at:
            return listed
        ceiling = ceiling_of("perc_pos:0.9", positive)
        return [pair for pair in listed if float(world.second_scores[query, pair[1]]) < ceiling]

    return rule


def cosine(one: FloatArray, two: FloatArray) -> np.float32:
    left, right = one.astype(np.float64).tolist(), two.astype(np.float64).tolist()
    lengths = math.sqrt(math.fsum(x * x for x in left)) * math.sqrt(math.fsum(x * x for x in right))
    return np.float32(math.fsum(x * y for x, y in zip(left, right, strict=True)) / lengths if lengths else 0.0)


def jaccard(one: str, two: str) -> np.float32:
    sketches = []
    for text in (one, two):
        sketch = MinHash(num_perm=128, seed=1)
        words = re.findall(r"\w+", text.lower())
        for place in range(max(len(words) - 2, 1)):
            sketch.update(" ".join(words[place : place + 3]).encode())
        sketches.append(sketch)
    return np.float32(sketches[0].jaccard(sketches[1]))


def duplicates_rule(world: World, positive_score: PositiveScore, one: NearDuplicates) -> Rule:
    targets = world.targets(positive_score, world.scores)
    known: dict[tuple[int, int], bool] = {}

    def alike(left: int, right: int) -> bool:
        key = (left, right)
        if key not in known:
            value = (
                cosine(world.vectors[left], world.vectors[right])
                if one.by == "cosine"
                else jaccard(world.corpus[left], world.corpus[right])
            )
            known[key] = bool(value >= np.float32(one.threshold))
        return known[key]

    def rule(target: int, listed: Ranked) -> Ranked:
        positives = world.positives[targets[target][0]]
        stays: Ranked = []
        for score, passage in listed:
            near_positive = one.of != "negatives" and any(alike(passage, other) for other in positives)
            near_better = one.of != "positives" and any(alike(passage, other) for _, other in stays)
            if not near_positive and not near_better:
                stays.append((score, passage))
        return stays

    return rule


def where_rule(world: World, positive_score: PositiveScore, word: str) -> Rule:
    targets = world.targets(positive_score, world.scores)

    def rule(target: int, listed: Ranked) -> Ranked:
        asked = world.languages.get(world.queries[targets[target][0]])
        kept = []
        for pair in listed:
            found = world.languages.get(world.corpus[pair[1]])
            known_same = asked is not None and asked == found
            if known_same == (word == "same"):
                kept.append(pair)
        return kept

    return rule


@dataclass(frozen=True)
class Case:
    """A filter and its plain loop."""

    filter: Filter
    rule: Rule
    depth: int | None = None


def case_of(world: World, kind: str, positive_score: PositiveScore, draw: st.DataObject) -> Case:
    if kind == "veto":
        depth = draw.draw(st.sampled_from([None, 1, 5, 12]))
        abstain_at = draw.draw(st.sampled_from([None, 0.0]))
        veto = Veto(world.second, "perc_pos:0.9", abstain_at=abstain_at, depth=depth)
        return Case(veto, veto_rule(world, positive_score, abstain_at), depth)
    if kind in ("cosine", "minhash"):
        threshold = draw.draw(st.sampled_from([0.6, 0.95, 1.0]))
        of: Any = draw.draw(st.sampled_from(["positives", "negatives", "both"]))
        near = NearDuplicates(threshold, of=of, by=kind)  # type: ignore[arg-type]
        return Case(near, duplicates_rule(world, positive_score, near))
    tables = {"text": list(world.languages), "language": list(world.languages.values())}
    predicate = same_value("language") if kind == "same" else other_value("language")
    made = Where(predicate, queries=tables, passages=pa.table(tables), query_column="text")
    return Case(made, where_rule(world, positive_score, kind))


KINDS = ["veto", "cosine", "minhash", "same", "other"]


def scene_of(world: World, texts: TextSet, folder: Path, positive_score: PositiveScore) -> Scene:
    return Scene(
        Queries.of(texts),
        texts.corpus,
        texts.positive_offsets,
        texts.positive_ids.astype(np.int64),
        None,
        positive_score,
        world.teacher,
        Indexes(VectorStore(folder, progress=False), "cpu"),
    )


def expected_of(
    world: World, spec: str, wanted: int, positive_score: PositiveScore, cases: Sequence[Case]
) -> tuple[list[Ranked], dict[str, int]]:
    """The best for which all rules hold, and how many each rule took of those that had to be looked at."""
    rows, removed = [], {str(case.filter): 0 for case in cases}
    for target, (query, positive) in enumerate(world.targets(positive_score, world.scores)):
        whole = world.allowed(query, spec, positive)
        left = whole
        for case in cases:
            left = case.rule(target, left[: case.depth])
        rows.append(left[:wanted])
        looked_at = min(2 * wanted, len(world.corpus))
        while True:
            taken, kept, ended = [], whole[:looked_at], False
            for case in cases:
                ended |= case.depth is not None and len(kept) >= case.depth
                seen = kept[: case.depth]
                kept = case.rule(target, seen)
                taken.append(len(seen) - len(kept))
            if len(kept) >= wanted or len(whole) < looked_at or ended or looked_at >= len(world.corpus):
                break
            looked_at = min(2 * looked_at, len(world.corpus))
        for case, count in zip(cases, taken, strict=True):
            removed[str(case.filter)] += count
    return rows, removed


@examples(60)
@given(
    world=worlds(),
    data=st.data(),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    spec=st.sampled_from(METHODS),
    n=st.integers(1, 5),
    depth=st.sampled_from([1, 3, 60]),
    positive_score=st.sampled_from(["min", "each"]),
    small_steps=st.booleans(),
)
def test_the_best_for_which_every_rule_holds_are_chosen(
    world: World,
    data: st.DataObject,
    kinds: list[str],
    spec: str,
    n: int,
    depth: int,
    positive_score: PositiveScore,
    small_steps: bool,
) -> None:
    cases = [case_of(world, kind, positive_score, data) for kind in kinds]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        if small_steps:
            patch.setattr(duplicates, "PLACES", 3)
            patch.setattr(duplicates, "STEP_BYTES", 4000)
            patch.setattr(minhash, "SIGNATURES_KEPT", 4)
            patch.setattr(where, "CANDIDATES_A_STEP", 3)
            for module in ("pool.rankings", "pool.deepening"):
                patch.setattr(f"hf_negmine.{module}.PLACES_A_STEP", 12)
        folder = Path(name)
        texts = world.text_set(folder)
        pool = make_pool(folder, world.teacher, texts, depth)
        scene = scene_of(world, texts, folder, positive_score)
        bound = [case.filter.bind(scene) for case in cases]
        selection = pool.select(spec, n=n, positive_score=positive_score, filters=bound)
        rows, removed = expected_of(world, spec, n, positive_score, cases)
        assert selected_rows(selection) == rows
        assert {rule: selection.removed[rule] for rule in removed} == removed
        for target, row in enumerate(rows):  # never short while there is more
            assert selection.complete[target] == (len(row) == n)
        again = CandidatePool.load(folder / "pool", progress=False)
        assert selected_rows(again.select(spec, n=n, positive_score=positive_score, filters=bound)) == rows


@examples(20)
@given(
    world=worlds(),
    data=st.data(),
    kind=st.sampled_from(KINDS),
    sampler=st.sampled_from(["sampled:6", "top1_sampled:5"]),
)
def test_a_sampler_draws_from_the_best_for_which_every_rule_holds(
    world: World, data: st.DataObject, kind: str, sampler: str
) -> None:
    case = case_of(world, kind, "min", data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = world.text_set(folder)
        pool = make_pool(folder, world.teacher, texts, 2)
        bound = [case.filter.bind(scene_of(world, texts, folder, "min"))]
        best = selected_rows(pool.select("naive", "top", int(sampler[-1]), filters=bound))
        drawn = selected_rows(pool.select("naive", sampler, 2, filters=bound))
        for wide, row in zip(best, drawn, strict=True):
            assert len(row) == min(2, len(wide))
            assert set(row) <= set(wide)


@examples(25)
@given(world=worlds(), data=st.data(), kind=st.sampled_from(KINDS))
def test_what_is_said_of_a_list_does_not_depend_on_the_others(world: World, data: st.DataObject, kind: str) -> None:
    case = case_of(world, kind, "min", data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = world.text_set(folder)
        bound = case.filter.bind(scene_of(world, texts, folder, "min"))
        rankings = [ranked(world.scores[query]) for query in range(len(world.queries))]
        lengths = [data.draw(st.integers(0, len(world.corpus))) for _ in rankings]
        lists = [ranking[:length] for ranking, length in zip(rankings, lengths, strict=True)]
        together = bound.keep(listed_of(list(range(len(lists))), lists)).tolist()
        single = [bound.keep(listed_of([query], [row])).tolist() for query, row in enumerate(lists)]
        assert together == [kept for row in single for kept in row]
        for query, row in enumerate(lists):  # nor on what is below
            assert bound.keep(listed_of([query], [row[: len(row) // 2]])).tolist() == single[query][: len(row) // 2]


def listed_of(queries: list[int], rows: list[Ranked]) -> Listed:
    return Listed(
        np.array(queries, dtype=np.int64),
        np.array(queries, dtype=np.int64),
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        np.array([passage for row in rows for _, passage in row], dtype=np.int32),
        np.array([score for row in rows for score, _ in row], dtype=np.float32),
    )


# ---- consistency -------------------------------------------------------------------------------------------------


@examples(30)
@given(
    world=worlds(),
    top_k=st.sampled_from([None, 1, 3, 40]),
    min_score=st.sampled_from([None, 0.0, 0.5]),
    action=st.sampled_from(["drop", "flag"]),
    depth=st.sampled_from([1, 60]),
    positive_score=st.sampled_from(["min", "each"]),
)
def test_a_positive_that_is_not_found_sets_no_ceiling_beside_others(
    world: World, top_k: int | None, min_score: float | None, action: Any, depth: int, positive_score: PositiveScore
) -> None:
    if top_k is None and min_score is None:
        return
    found: list[list[bool]] = []
    for query, row in enumerate(world.positives):
        eligible = [score for score, _ in world.allowed(query, "naive", 0.0)]
        own = [float(world.scores[query, passage]) for passage in row]
        found.append(
            [
                (min_score is None or score >= min_score)
                and (top_k is None or sum(better > score for better in eligible) < top_k)
                for score in own
            ]
        )
    with tempfile.TemporaryDirectory() as name:
        texts = world.text_set(Path(name))
        pool = make_pool(Path(name), world.teacher, texts, depth)
        pool.consistency = Consistency(top_k, min_score, action)
        assert pool.consistent().tolist() == [kept for row in found for kept in row]
        selection = pool.select("perc_pos:0.8", n=3, positive_score=positive_score)
        targets = world.targets(positive_score, world.scores)
        if positive_score == "min" and action == "drop":
            targets = []
            for query, (row, keeps) in enumerate(zip(world.positives, found, strict=True)):
                counted = [passage for passage, keep in zip(row, keeps, strict=True) if keep] or row
                targets.append((query, min(float(world.scores[query, passage]) for passage in counted)))
        assert selected_rows(selection) == [world.allowed(query, "perc_pos:0.8", score)[:3] for query, score in targets]


# ---- judges ------------------------------------------------------------------------------------------------------


@examples(40)
@given(
    world=worlds(),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    budget=st.sampled_from([None, 0, 1, 5, 30]),
    positive_score=st.sampled_from(["min", "each"]),
    n=st.integers(1, 4),
    batch_size=st.sampled_from([1, 64]),
)
def test_what_a_judge_calls_relevant_is_replaced_the_likeliest_first(
    world: World, share: float, budget: int | None, positive_score: PositiveScore, n: int, batch_size: int
) -> None:
    rng = np.random.default_rng(len(world.corpus))
    relevant = {(query, text): bool(rng.random() < share) for query in world.queries for text in world.corpus}
    asked: list[tuple[str, str]] = []

    def judge(queries: Sequence[str], passages: Sequence[str]) -> list[bool]:
        asked.extend(zip(queries, passages, strict=True))
        return [relevant[pair] for pair in zip(queries, passages, strict=True)]

    targets = world.targets(positive_score, world.scores)
    whole = [world.allowed(query, "perc_pos:0.9", score) for query, score in targets]
    known: dict[tuple[int, int], bool] = {}
    expected_asked: list[tuple[int, int]] = []
    while True:  # the same in plain Python
        rows = [
            [pair for pair in row if not known.get((query, pair[1]))][:n]
            for (query, _), row in zip(targets, whole, strict=True)
        ]
        likely = {(query, pair[1]): pair[0] for (query, _), row in zip(targets, rows, strict=True) for pair in row}
        waiting = sorted((pair for pair in likely if pair not in known), key=lambda pair: (-likely[pair], pair))
        if budget is not None:
            waiting = waiting[: min(math.ceil(budget / ROUNDS), budget - len(known))]
        if not waiting:
            break
        for query, passage in waiting:
            known[query, passage] = relevant[world.queries[query], world.corpus[passage]]
            expected_asked.append((query, passage))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = world.text_set(folder)
        pool = make_pool(folder, world.teacher, texts, 2)
        store = VectorStore(folder, progress=False)

        def select(filters: Sequence[BoundFilter]) -> Selection:
            return pool.select("perc_pos:0.9", n=n, positive_score=positive_score, filters=filters)

        judged = Judge(FunctionJudge(judge, name="random", batch_size=batch_size), budget)
        queries, _ = pool.positives.targets(positive_score)
        selection, verdicts = judged_selection(select, queries, judged, texts, store)
        assert selected_rows(selection) == rows
        assert asked == [(world.queries[query], world.corpus[passage]) for query, passage in expected_asked]
        assert verdicts.asked == len(known)
        assert budget is None or verdicts.asked <= budget
        called = list(zip(verdicts.queries.tolist(), verdicts.passages.tolist(), strict=True))
        assert called == sorted(pair for pair, answer in known.items() if answer)
        assert verdicts.scores.tolist() == [float(world.scores[pair]) for pair in called]

        asked.clear()  # what was said is kept
        again, verdicts_again = judged_selection(select, queries, judged, texts, store)
        assert (selected_rows(again), asked, verdicts_again.asked) == (rows, [], verdicts.asked)


# ---- conditions --------------------------------------------------------------------------------------------------


@examples(40)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([1, 2, None])), max_size=12),
    sought=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8),
    chunk=st.integers(1, 5),
)
def test_the_first_row_of_a_text_counts_however_a_table_is_chunked(
    rows: list[tuple[str, int | None]], sought: list[str], chunk: int
) -> None:
    schema = pa.schema([("text", pa.string()), ("page", pa.int64())])
    columns = [[text for text, _ in rows], [page for _, page in rows]]
    whole = pa.table([pa.array(columns[0], pa.string()), pa.array(columns[1], pa.int64())], schema=schema)
    pieces = pa.concat_tables([whole.slice(start, chunk) for start in range(0, len(rows), chunk)] or [whole])
    first = dict(reversed(rows))
    metadata = [where._Metadata(table, "text", "queries") for table in (whole, pieces)]
    assert metadata[0].digest == metadata[1].digest
    digests = where.text_digests(pa.array(sought))
    for one in metadata:
        taken = one.take(one.find(digests))
        assert taken["page"].to_pylist() == [first.get(text) for text in sought]
        assert taken["text"].to_pylist() == [text if text in first else None for text in sought]
    assert pc.sum(pieces["page"]).as_py() == pc.sum(whole["page"]).as_py()
