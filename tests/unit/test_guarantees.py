"""What must hold whatever teachers and filters are put together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray
from hf_negmine.search import rerank
from hf_negmine.select.filters import Veto, Where, same_value
from hf_negmine.teachers import DenseTeacher, ScoreFunction
from hf_negmine.teachers.pair_store import PairStore
from tests.train.helpers import load_model

ROWS = [{"query": f"question {i}", "positive": f"answer {i} to question {i}"} for i in range(30)]
PAIRS = [
    {"query": f"question {i // 2} of w{i % 7}", "positive": f"answer {i} with w{i % 7} and w{i % 5}"} for i in range(30)
]


class Retrained:
    """A teacher whose weights are a seed that may be changed."""

    name = "retrained"
    similarity: Similarity = "cosine"
    seed = 0

    def fingerprint(self, role: Role) -> str:
        return f"seed {self.seed}"

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        rows = [np.random.default_rng([self.seed, *text.encode()]).normal(size=8) for text in texts]
        return np.array(rows, dtype=np.float32)


def mined(miner: NegativeMiner) -> dict[str, list[Any]]:
    return miner.mine(ROWS).to_dict()  # type: ignore[no-any-return, arg-type]


def test_a_teacher_that_changed_between_two_fits_is_searched_anew(tmp_path: Path) -> None:
    teacher = Retrained()
    miner = NegativeMiner(teacher, method="naive", cache_dir=tmp_path / "one", progress=False)
    before = mined(miner)
    teacher.seed = 1
    after = mined(miner.fit(ROWS))
    fresh = mined(NegativeMiner(teacher, method="naive", cache_dir=tmp_path / "other", progress=False))
    assert after == fresh != before
    assert mined(NegativeMiner(teacher, method="naive", cache_dir=tmp_path / "one", progress=False)) == fresh


def test_a_model_that_was_trained_between_two_fits_has_other_vectors(models: Path) -> None:
    model = load_model(models)
    teacher = DenseTeacher(model, device="cpu")
    first = teacher.fingerprint("query")
    assert teacher.fingerprint("query") == first
    weights = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer = torch.optim.SGD([weights], lr=0.1)
    weights.grad = torch.ones_like(weights)
    optimizer.step()
    assert teacher.fingerprint("query") != first


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_a_selection_from_the_pool_keeps_the_ceilings_of_a_veto(tmp_path: Path, positive_score: Any) -> None:
    veto = Veto("random:3", "perc_pos:0.9")
    miner = NegativeMiner(
        "bm25",
        filters=[veto],
        positive_score=positive_score,
        method="naive",
        on_exhausted="keep",
        cache_dir=tmp_path,
        progress=False,
    ).fit(PAIRS)
    selection = miner.pool.select("naive", n=3)
    assert selection.positive_score == positive_score
    assert (
        selection.passages.tolist() == miner.pool.select("naive", n=3, positive_score=positive_score).passages.tolist()
    )
    other = {"min": "each", "each": "min"}[positive_score]
    with pytest.raises(InputError, match=f"{other!r}, but the pool's filters are made for {positive_score!r}"):
        miner.pool.select("naive", n=3, positive_score=other)  # type: ignore[arg-type]


def test_a_veto_with_a_depth_sees_as_many_of_what_an_earlier_filter_has_kept(tmp_path: Path) -> None:
    rows = [{"query": f"word question {i}", "positive": f"word answer {i}"} for i in range(10)]
    corpus = [f"word passage {i}" for i in range(400)]
    languages = {"text": [row["query"] for row in rows] + corpus, "language": ["de"] * 10 + ["en"] * 380 + ["de"] * 20}
    by_language = Where(same_value("language"), queries=languages, passages=languages, query_column="text")

    def scores(queries: list[str], passages: list[str]) -> list[float]:
        return [float("answer" in passage) for passage in passages]

    veto = Veto(ScoreFunction(scores, candidates=100, version="1"), "perc_pos:0.5")
    for filters in ([by_language], [veto], [by_language, veto]):
        miner = NegativeMiner(
            "bm25",
            method="naive",
            num_negatives=8,
            filters=filters,
            corpus=corpus,
            pool_depth=20,
            cache_dir=tmp_path,
            progress=False,
        ).fit(rows)
        assert (miner.summary.complete, miner.summary.exhausted) == (10, 0)


def test_rows_on_the_fly_are_searched_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = [row["positive"] for row in ROWS]
    miner = NegativeMiner("bm25", method="naive", cache_dir=tmp_path, progress=False).fit(corpus=corpus)
    whole = mined(miner)
    sizes: list[int] = []
    from hf_negmine.search import scan

    block = scan.ScoreSearcher.block

    def noted(self: scan.ScoreSearcher, queries: Any) -> Any:
        sizes.append(len(queries))
        return block(self, queries)

    monkeypatch.setattr(scan, "SCORES_A_BLOCK", 7 * len(corpus))
    monkeypatch.setattr(scan.ScoreSearcher, "block", noted)
    again = NegativeMiner("bm25", method="naive", cache_dir=tmp_path / "other", progress=False).fit(corpus=corpus)
    assert mined(again) == whole
    assert max(sizes) == 7


def test_a_reranker_hands_over_pairs_of_many_queries_whatever_its_first_stage_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_negmine.search import scan

    sizes: list[int] = []

    def length(queries: list[str], passages: list[str]) -> list[int]:
        sizes.append(len(queries))
        return [len(passage) for passage in passages]

    monkeypatch.setattr(scan, "SCORES_A_BLOCK", 2 * len(ROWS))
    teacher = ScoreFunction(length, first_stage="bm25", candidates=5, version="1")
    small = mined(NegativeMiner(teacher, method="naive", cache_dir=tmp_path / "small", progress=False))
    assert max(sizes) == 30 * 5
    monkeypatch.undo()
    assert mined(NegativeMiner(teacher, method="naive", cache_dir=tmp_path / "large", progress=False)) == small
    assert rerank.QUERIES_A_BLOCK > 30


def test_many_small_calls_of_a_pair_store_stay_few_sorted_runs(tmp_path: Path) -> None:
    store = PairStore(tmp_path, "small", progress=False)
    rng = np.random.default_rng(0)
    for _ in range(100):
        pairs = rng.integers(0, 2**63, (10, 2)).astype(np.uint64)
        store.complete(pairs, lambda places: iter([(np.arange(len(places)), places.astype(np.float32))]))
    sizes = [len(scores) for _, scores in store._read()]
    assert sum(sizes) == 1000
    assert len(sizes) <= 10
    assert all(one >= 2 * two for one, two in itertools.pairwise(sizes))
