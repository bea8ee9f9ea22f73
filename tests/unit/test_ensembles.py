"""Several teachers that mine one data set, against what the paper says of them in plain Python."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from hf_negmine import NegativeMiner, RandomTeacher
from hf_negmine.base.errors import InputError
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select import Selection
from hf_negmine.select.ensembles import CrossSample, Ensemble, IntraSample, agreement
from hf_negmine.select.methods import TopKPercPos
from tests.reference import Ranked, ranked, score_matrix


@dataclass(frozen=True)
class ScaledTeacher:
    """Vectors from the text and the teacher's name; a query lies near passages of its last word.

    Scores are as large as ``scale``, so that one teacher's scores tell nothing in the scale of another.
    """

    name: str
    scale: float = 1.0
    seed: int = 0
    similarity: Similarity = "dot"

    def fingerprint(self, role: Role) -> str:
        return digest_of("scaled", self.name, self.seed, self.scale)

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        return np.stack([self._vector(text.split()[-1]) + 0.9 * self._vector(text) for text in texts])

    def _vector(self, text: str) -> FloatArray:
        key = text_digests(pa.array([f"{self.name} {self.seed} {text}"]))[0]
        vector = np.random.default_rng(key).normal(size=10) * np.sqrt(self.scale)
        return vector.astype(np.float32)


TEACHERS = [ScaledTeacher("small", 0.01), ScaledTeacher("plain"), ScaledTeacher("large", 100.0)]
TOPICS = ("tea", "ice", "oak", "sun")
CORPUS = [f"remark {number} on {TOPICS[number % 4]}" for number in range(60)]
QUESTIONS = [f"question {number} about {TOPICS[number % 4]}" for number in range(20)]


def positive_of(number: int) -> str:
    """Of every fifth query the passage that is nearly the last one for some teacher, so that few are under it."""
    query = number % 20
    if query % 5 < 4:
        return CORPUS[query + 4 * (number // 20)]
    teacher = TEACHERS[query // 5 % 3]
    scores = score_matrix(teacher.encode([QUESTIONS[query]], "query"), teacher.encode(CORPUS, "passage"))[0]
    return CORPUS[np.argsort(scores)[2 + number // 20]]


ROWS = Dataset.from_dict(
    {
        "query": [QUESTIONS[number % 20] for number in range(26)],
        "positive": [positive_of(number) for number in range(26)],
    }
)
"""Six queries have two positives."""
PERC = TopKPercPos(0.9)


def miner_in(folder: Path, teacher: Any, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {"corpus": CORPUS, "num_negatives": 6, "method": PERC, "on_exhausted": "keep"}
    return NegativeMiner(teacher, cache_dir=folder, device="cpu", progress=False, **{**given, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share, so that texts are encoded once."""
    return tmp_path_factory.mktemp("cache")


@dataclass(frozen=True)
class Slow:
    """Every ranking of every teacher, by all scores."""

    queries: list[str]
    corpus: list[str]
    positives: list[list[int]]
    scores: list[FloatArray]

    @classmethod
    def of(cls, miner: NegativeMiner) -> Slow:
        queries, corpus = miner.queries["query"][:], miner.corpus["document"][:]
        positives = [
            sorted({corpus.index(row["positive"]) for row in ROWS if row["query"] == query}) for query in queries
        ]
        scores = [
            score_matrix(teacher.encode(queries, "query"), teacher.encode(corpus, "passage"))
            for teacher in miner.config.teacher.stages  # type: ignore[attr-defined]
        ]
        return cls(queries, corpus, positives, scores)

    def targets(self, each: bool) -> list[tuple[int, list[int]]]:
        """Query and the positives that set the ceiling of each target."""
        if each:
            return [(query, [place]) for query, row in enumerate(self.positives) for place in row]
        return list(enumerate(self.positives))

    def reference(self, teacher: int, query: int, positives: list[int]) -> np.float32:
        return np.float32(min(self.scores[teacher][query, positives]))

    def under(self, teacher: int, query: int, positives: list[int]) -> Ranked:
        """The teacher's list under its own ceiling."""
        positive = self.reference(teacher, query, positives)
        ceiling = PERC.ceilings(np.array([positive]))[0]
        return [pair for pair in ranked(self.scores[teacher][query], self.positives[query]) if pair[0] < ceiling]


def rows_of(selection: Selection) -> list[list[tuple[float, int, int]]]:
    """Score, passage and teacher of each target's negatives."""
    assert selection.chosen_by is not None
    flat = list(zip(selection.scores.tolist(), selection.passages.tolist(), selection.chosen_by.tolist(), strict=True))
    return [flat[first:last] for first, last in itertools.pairwise(selection.offsets)]


each_or_min = pytest.mark.parametrize("positive_score", ["min", "each"])


# ---- cross-sample ----------------------------------------------------------------------------------------------------


@each_or_min
def test_all_negatives_of_a_query_are_the_best_of_one_teacher(folder: Path, positive_score: Any) -> None:
    miner = miner_in(folder, CrossSample(TEACHERS)).fit(ROWS)
    slow = Slow.of(miner)
    selection = miner.pool.select(PERC, n=6, positive_score=positive_score)
    drawn = miner.config.teacher.drawn(0, miner.pool.pools[0].query_keys).tolist()  # type: ignore[union-attr,attr-defined]
    targets = slow.targets(positive_score == "each")
    assert len(targets) == {"min": 20, "each": 26}[positive_score]
    short = 0
    for row, (query, positives), reference in zip(
        rows_of(selection), targets, selection.positive_scores.tolist(), strict=True
    ):
        best = slow.under(drawn[query], query, positives)[:6]
        assert row == [(score, passage, drawn[query]) for score, passage in best]
        assert reference == slow.reference(drawn[query], query, positives)
        short += len(best) < 6
    assert 0 < short < len(targets) / 2
    assert set(drawn) == {0, 1, 2}
    assert selection.complete.sum() == len(targets) - short
    references = [slow.reference(drawn[query], query, own) for query, own in targets]
    np.testing.assert_array_equal(selection.references, np.repeat(references, selection.counts))
    expected = [[slow.reference(teacher, query, own) for query, own in targets] for teacher in range(3)]
    np.testing.assert_array_equal(selection.positive_scores_by, np.array(expected, dtype=np.float32))
    own_scores = [slow.scores[drawn[query]][query, place] for query, row in enumerate(slow.positives) for place in row]
    np.testing.assert_array_equal(selection.pair_scores, own_scores)


def test_a_sampler_draws_from_the_list_of_the_drawn_teacher(folder: Path) -> None:
    miner = miner_in(folder, CrossSample(TEACHERS)).fit(ROWS)
    slow = Slow.of(miner)
    selection = miner.pool.select("naive", "sampled:9", n=3, seed=4)
    others = 0
    for query, row in enumerate(rows_of(selection)):
        (teacher,) = {by for _, _, by in row}
        ranking = ranked(slow.scores[teacher][query], slow.positives[query])
        assert {(score, passage) for score, passage, _ in row} <= set(ranking[:9])
        others += [(score, passage) for score, passage, _ in row] != ranking[:3]
    assert others > 5


@pytest.fixture(scope="module")
def many() -> Dataset:
    return Dataset.from_dict(
        {
            "query": [f"query {number}" for number in range(600)],
            "positive": [f"p {number % 50}" for number in range(600)],
        }
    )


def random_miner(folder: Path, **settings: Any) -> NegativeMiner:
    teachers = CrossSample([RandomTeacher(seed) for seed in (11, 12, 13)])
    return miner_in(folder, teachers, corpus=None, method="naive", num_negatives=2, **settings)


def drawn_by(miner: NegativeMiner, rows: Dataset) -> dict[str, int]:
    miner.fit(rows)
    selection = miner.pool.select("naive", n=1, seed=miner.config.seed)
    assert selection.chosen_by is not None
    return dict(zip(miner.queries["query"], selection.chosen_by.tolist(), strict=True))


def test_teachers_are_drawn_about_equally_often_and_by_the_seed(folder: Path, many: Dataset) -> None:
    by_seed = [drawn_by(random_miner(folder, seed=seed), many) for seed in (0, 0, 1, -5)]
    for drawn in by_seed:
        assert all(150 < count < 250 for count in Counter(drawn.values()).values())
    assert by_seed[0] == by_seed[1]
    for one, two in itertools.combinations(by_seed[1:], 2):
        assert 300 < sum(one[query] != two[query] for query in one) < 500


def test_the_draw_of_a_teacher_says_nothing_of_what_it_draws(folder: Path, many: Dataset) -> None:
    """Both have the same seed: were they one draw, the teacher would decide which of two candidates is taken."""
    miner = random_miner(folder).fit(many)
    selection = miner.pool.select("naive", "sampled:2@1000", n=1)
    top = miner.pool.select("naive", n=1)
    assert selection.chosen_by is not None
    np.testing.assert_array_equal(selection.chosen_by, top.chosen_by)
    for teacher in range(3):
        here = selection.chosen_by == teacher
        assert 0.35 < (selection.passages[here] == top.passages[here]).mean() < 0.65


def test_the_draw_depends_on_the_query_alone(folder: Path, many: Dataset) -> None:
    drawn = drawn_by(random_miner(folder), many)
    assert drawn_by(random_miner(folder), many.shuffle(seed=3)) == drawn
    some = drawn_by(random_miner(folder), many.select(range(100, 300)))
    assert some == {query: drawn[query] for query in some}


def listed(rows: Dataset) -> list[dict[str, Any]]:
    return sorted(rows.to_list(), key=lambda row: (row["query"], row["positive"]))


def test_rows_of_an_ensemble_do_not_depend_on_order_or_batches(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"include_scores": True, "sampler": "sampled:8", "num_negatives": 3}
    here = miner_in(tmp_path / "a", CrossSample(TEACHERS), **settings)
    expected = listed(here.mine(ROWS))
    there = miner_in(tmp_path / "b", CrossSample(TEACHERS), **settings)
    assert listed(there.mine(ROWS.shuffle(seed=2))) == expected
    assert listed(ROWS.map(here, batched=True, batch_size=7, load_from_cache_file=False)) == expected


def test_one_teacher_twice_is_that_teacher(folder: Path) -> None:
    twice = CrossSample([TEACHERS[1], ScaledTeacher("plain")])
    rows = miner_in(folder, twice, include_scores=True).mine(ROWS)
    assert rows.to_list() == miner_in(folder, TEACHERS[1], include_scores=True).mine(ROWS).to_list()


@each_or_min
def test_written_scores_are_those_of_the_drawn_teacher(folder: Path, positive_score: Any) -> None:
    miner = miner_in(folder, CrossSample(TEACHERS), include_scores=True, positive_score=positive_score)
    rows = miner.mine(ROWS)
    slow = Slow.of(miner)
    drawn = miner.config.teacher.drawn(0, miner.pool.pools[0].query_keys)  # type: ignore[union-attr,attr-defined]
    for row in rows:
        query = slow.queries.index(row["query"])
        own = slow.scores[drawn[query]][query]
        texts = [row["positive"], *(row[f"negative_{number}"] for number in range(1, 7))]
        expected = [own[slow.corpus.index(text)] for text in texts if text is not None]
        assert row["scores"] == [pytest.approx(score) for score in expected]


# ---- intra-sample ----------------------------------------------------------------------------------------------------


def intra(lists: list[Ranked], n: int, *, dedup: bool) -> list[tuple[float, int, int]]:
    """The best of every teacher, then the second best of each; a duplicate is replaced by the next unique one."""
    chosen: list[tuple[float, int, int]] = []
    for place in range(n):
        teacher = place % len(lists)
        if dedup:
            taken = {passage for _, passage, _ in chosen}
            left = [pair for pair in lists[teacher] if pair[1] not in taken]
        else:
            left = lists[teacher][place // len(lists) :]
        chosen += [(*pair, teacher) for pair in left[:1]]
    return chosen


@each_or_min
@pytest.mark.parametrize("dedup", [False, True], ids=["twice", "dedup"])
@pytest.mark.parametrize(("n", "a_step"), [(3, 7), (6, 65_536), (12, 7)])
def test_each_teacher_gives_its_best(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dedup: bool, n: int, positive_score: Any, a_step: int
) -> None:
    monkeypatch.setattr("hf_negmine.select.ensembles.TARGETS_A_STEP", a_step)
    miner = miner_in(folder, IntraSample(TEACHERS, dedup=dedup)).fit(ROWS)
    slow = Slow.of(miner)
    selection = miner.pool.select(PERC, n=n, positive_score=positive_score)
    targets = slow.targets(positive_score == "each")
    expected = [
        intra([slow.under(teacher, query, own) for teacher in range(3)], n, dedup=dedup) for query, own in targets
    ]
    assert rows_of(selection) == expected
    twice = [len(row) - len({passage for _, passage, _ in row}) for row in expected]
    assert sum(twice) == 0 if dedup else sum(twice) > 0
    assert 0 < sum(len(row) < n for row in expected) < len(targets)
    np.testing.assert_array_equal(selection.counts, [len(row) for row in expected])
    references = [
        slow.reference(by, query, own) for (query, own), row in zip(targets, expected, strict=True) for _, _, by in row
    ]
    np.testing.assert_array_equal(selection.references, references)
    assert (selection.scores < selection.references).all()
    first = [slow.scores[0][query, place] for query, row in enumerate(slow.positives) for place in row]
    np.testing.assert_array_equal(selection.pair_scores, first)


def test_a_duplicate_that_was_sampled_is_replaced_by_the_next_best(folder: Path) -> None:
    """Ties aside, two copies of a teacher sample the same one, and the second takes its best other one."""
    twins = IntraSample([TEACHERS[1], ScaledTeacher("plain")], dedup=True)
    miner = miner_in(folder, twins).fit(ROWS)
    alone = miner_in(folder, TEACHERS[1]).fit(ROWS)
    sampled, top = alone.pool.select("naive", "sampled:5", n=1), alone.pool.select("naive", n=2)
    both = miner.pool.select("naive", "sampled:5", n=2)
    np.testing.assert_array_equal(both.passages[::2], sampled.passages)
    for one, other, best in zip(both.passages[::2], both.passages[1::2], top.passages.reshape(-1, 2), strict=True):
        assert other == next(passage for passage in best if passage != one)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_teachers_that_cannot_share_equally_are_an_error(folder: Path, n: int) -> None:
    with pytest.raises(InputError, match=rf"each of its 3 teachers, and {n} is not a multiple of 3"):
        miner_in(folder, IntraSample(TEACHERS), num_negatives=n)
    pool = miner_in(folder, IntraSample(TEACHERS, dedup=True)).fit(ROWS).pool
    with pytest.raises(
        InputError, match=rf"intra-sample-dedup takes the same number .*, and {n} is not a multiple of 3"
    ):
        pool.select("naive", n=n)


@pytest.mark.parametrize("dedup", [False, True])
def test_scores_of_several_scales_are_not_written(folder: Path, dedup: bool) -> None:
    with pytest.raises(InputError, match="include_scores: the negatives of an intra-sample are scored by several"):
        miner_in(folder, IntraSample(TEACHERS, dedup=dedup), include_scores=True)


@pytest.mark.parametrize("dedup", [False, True], ids=["twice", "dedup"])
def test_rows_hold_what_was_chosen(folder: Path, dedup: bool) -> None:
    miner = miner_in(folder, IntraSample(TEACHERS, dedup=dedup))
    rows = miner.mine(ROWS)
    slow = Slow.of(miner)
    for row in rows:
        query = slow.queries.index(row["query"])
        lists = [slow.under(teacher, query, slow.positives[query]) for teacher in range(3)]
        expected = [slow.corpus[passage] for _, passage, _ in intra(lists, 6, dedup=dedup)]
        assert [row[f"negative_{number}"] for number in range(1, 7)] == (expected + [None] * 6)[:6]


# ---- both ------------------------------------------------------------------------------------------------------------

ENSEMBLES: dict[str, Ensemble] = {
    "cross": CrossSample(TEACHERS),
    "intra": IntraSample(TEACHERS),
    "dedup": IntraSample(TEACHERS, dedup=True),
}
ensembles = pytest.mark.parametrize("ensemble", ENSEMBLES.values(), ids=ENSEMBLES)


def jaccard(slow: Slow, one: int, two: int, n: int) -> float:
    values = []
    for query, own in slow.targets(False):
        sets = [{passage for _, passage in slow.under(teacher, query, own)[:n]} for teacher in (one, two)]
        if sets[0] | sets[1]:
            values.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    return sum(values) / len(values)


@ensembles
def test_agreement_is_the_mean_jaccard_similarity_of_the_best(folder: Path, ensemble: Ensemble) -> None:
    miner = miner_in(folder, ensemble).fit(ROWS)
    slow = Slow.of(miner)
    for n in (3, 6):
        table = miner.pool.select(PERC, "sampled:9", n=n).agreement
        assert table is not None
        expected = [[1.0 if one == two else jaccard(slow, one, two, n) for two in range(3)] for one in range(3)]
        np.testing.assert_allclose(table, expected)
    assert 0 < expected[0][1] < 1
    assert miner.summary.agreement == {
        "teachers": ["small", "plain", "large"],
        "jaccard": [[round(value, 4) for value in row] for row in expected],
    }


def selection_of(rows: list[list[int]]) -> Selection:
    return Selection.of_nothing(PERC, None, 2, 0, "min").__class__(  # type: ignore[arg-type]
        **{
            **Selection.of_nothing(PERC, None, 2, 0, "min").__dict__,  # type: ignore[arg-type]
            "offsets": np.cumsum([0] + [len(row) for row in rows]),
            "passages": np.array([passage for row in rows for passage in row], dtype=np.int32),
        }
    )


def test_targets_for_which_neither_has_a_negative_do_not_count() -> None:
    one, two = selection_of([[], [1, 2], [], [4, 4]]), selection_of([[], [2, 3], [5], [4]])
    np.testing.assert_allclose(agreement([one, two]), [[1, 4 / 9], [4 / 9, 1]])  # of 1/3, 0 and 1
    np.testing.assert_array_equal(agreement([selection_of([[]])] * 2), np.eye(2))


@ensembles
def test_the_summary_survives_json_and_prints_the_agreement(folder: Path, ensemble: Ensemble) -> None:
    miner = miner_in(folder, ensemble).fit(ROWS)
    summary = miner.summary
    again = MiningSummary.from_dict(json.loads(json.dumps(summary.as_dict())))
    assert again == summary
    assert [stage["teacher"] for stage in summary.settings["stages"]] == ["small", "plain", "large"]
    text = str(again)
    assert f"teacher {ensemble.name}" in text
    lines = text.splitlines()
    assert summary.agreement is not None
    start = lines.index("agreement of the teachers (mean Jaccard similarity of their best negatives)")
    assert lines[start + 1].split() == ["1", "2", "3"]
    for number, name in enumerate(["small", "plain", "large"]):
        values = [f"{value:.2f}" for value in summary.agreement["jaccard"][number]]
        assert lines[start + 2 + number].split() == [str(number + 1), name, *values]
    widths = {len(line) for line in lines[start + 1 : start + 5]}
    assert len(widths) == 1


@ensembles
def test_the_summary_counts_each_negative_in_its_own_scale(folder: Path, ensemble: Ensemble) -> None:
    miner = miner_in(folder, ensemble).fit(ROWS)
    selection = miner.pool.select(PERC, n=6)
    assert miner.summary.negative_scores.count == len(selection.scores)
    assert miner.summary.differences.min is not None
    assert miner.summary.differences.min > 0
    assert miner.summary.complete == int(selection.complete.sum())
    assert {rule for rule in miner.summary.removed if rule.startswith("perc_pos")} == {
        f"{PERC} ({name})" for name in ("small", "plain", "large")
    }


def test_teachers_of_one_name_are_told_apart_in_the_summary(folder: Path) -> None:
    same = CrossSample([ScaledTeacher("same", seed=1), ScaledTeacher("other"), ScaledTeacher("same", seed=2)])
    removed = miner_in(folder, same).fit(ROWS).summary.removed
    assert {rule for rule in removed if rule.startswith("perc_pos")} == {
        f"{PERC} ({name})" for name in ("same #1", "other", "same #2")
    }


@ensembles
def test_the_pools_are_selected_from_again(folder: Path, ensemble: Ensemble) -> None:
    miner = miner_in(folder, ensemble, method="naive", num_negatives=3).fit(ROWS)
    again = pickle.loads(pickle.dumps(miner))
    for pool in (miner.pool, again.pool):
        assert isinstance(pool, EnsemblePool)
        assert (pool.n_queries, pool.n_passages, pool.ensemble.name) == (20, 60, ensemble.name)
        selection = pool.select(PERC, "sampled:7", n=6, seed=3)
        other = miner_in(folder, ensemble, sampler="sampled:7", seed=3).fit(ROWS)
        fitted = other.fitted
        np.testing.assert_array_equal(selection.offsets, fitted.offsets)
        np.testing.assert_array_equal(selection.passages, fitted.passages)
        np.testing.assert_array_equal(selection.scores, fitted.scores)
        np.testing.assert_array_equal(selection.pair_scores, fitted.pair_scores)
        for method, swept in zip(["naive", PERC], pool.sweep(["naive", PERC], ["sampled:7"], 6, seed=3), strict=True):
            assert rows_of(swept) == rows_of(pool.select(method, "sampled:7", n=6, seed=3))


def test_an_ensemble_needs_two_teachers_and_shares_their_pools(folder: Path) -> None:
    with pytest.raises(InputError, match=r"IntraSample: teachers: expected a list such as .*, got 'bm25'"):
        IntraSample("bm25")
    with pytest.raises(InputError, match="CrossSample: two teachers or more, got 1"):
        CrossSample(TEACHERS[:1])
    cross, intra_ = (miner_in(folder, ensemble).fit(ROWS) for ensemble in (ENSEMBLES["cross"], ENSEMBLES["intra"]))
    alone = miner_in(folder, TEACHERS[2]).fit(ROWS)
    assert cross.fitted.pool_keys == intra_.fitted.pool_keys
    assert cross.fitted.pool_keys[2] == alone.fitted.pool_keys[0]
    with pytest.raises(InputError, match="has a searcher per teacher"):
        cross.open_searcher()
