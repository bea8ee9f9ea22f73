"""Ranks that select for parts of the queries ask what one process asks, and leave its rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import CrossSample, FixedTeacher, IntraSample, MiningConfig, NegativeMiner, steps
from hf_negmine.cluster import encode_share, search_share, search_slices, select_share
from hf_negmine.select.filters import Consistency, NearDuplicates, Veto, Where, same_value
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.select.judgements import Judgements
from tests.thorough import examples

METHODS = ["naive", "perc_pos:0.6", "margin_pos:0.5", "shifted:3", "band:1-6", "abs:1+shifted:1", "percentile:60"]
SAMPLERS = ["top", "sampled:4", "sampled:9"]
STAGES = (encode_share, search_slices, search_share, select_share)


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


@pytest.mark.filterwarnings("ignore:.*positives 0", "ignore:.*are about texts")
@given(st.integers(0, 2**32 - 1))
@examples(40)
def test_ranks_ask_what_one_process_asks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_passages, n_rows = int(rng.integers(3, 14)), int(rng.integers(6, 60)), int(rng.integers(3, 30))
    queries, passages = [f"q{i}" for i in range(n_queries)], [f"p{i}" for i in range(n_passages)]
    asked: list[tuple[str, str]] = []

    def teacher() -> FixedTeacher:
        vectors = [rng.normal(size=(count, 3)).round(1).astype(np.float32) for count in (n_queries, n_passages)]
        return FixedTeacher(queries, vectors[0], passages, vectors[1], similarity="dot")

    def judge(some: Sequence[str], others: Sequence[str]) -> list[bool]:
        asked.extend(zip(some, others, strict=True))
        return [(int(one[1:]) + int(other[1:])) % 3 == 0 for one, other in zip(some, others, strict=True)]

    rows = {
        "query": [queries[i] for i in rng.integers(0, n_queries, n_rows)],
        "positive": [passages[i] for i in rng.integers(0, n_passages, n_rows)],
    }
    kinds = {
        "veto": Veto(teacher(), "margin_pos:0.2", depth=pick(rng, [None, 8])),
        "near": NearDuplicates(0.97, of=pick(rng, ["both", "negatives"]), teacher=teacher()),
        "where": Where(
            same_value("parity"),
            queries={"query": queries, "parity": [i % 2 for i in range(n_queries)]},
            passages={"text": passages, "parity": [i % 2 for i in range(n_passages)]},
        ),
        "judged": Judgements([{"query": rows["query"][0], "document": passages[1], "relevant": True}]),
    }
    filters: list[Any] = [one for one in kinds.values() if rng.random() < 0.35]
    method, n = pick(rng, METHODS), int(rng.integers(1, 3)) * 2
    one_teacher = rng.random() < 0.6
    if one_teacher and rng.random() < 0.3:
        filters.append(Consistency(top_k=pick(rng, [None, 5]), min_score=-0.5, action=pick(rng, ["drop", "flag"])))
    if one_teacher or method != "percentile:60":
        filters.append(Judge(FunctionJudge(judge, name="sum"), budget=pick(rng, [None, None, 7])))
    settings: dict[str, Any] = {
        "teacher": teacher() if one_teacher else pick(rng, [CrossSample, IntraSample])([teacher(), teacher()]),
        "method": method,
        "sampler": pick(rng, SAMPLERS),
        "num_negatives": n,
        "filters": filters,
        "positive_score": pick(rng, ["min", "each"]),
        "pool_depth": int(rng.integers(1, 12)),
        "on_exhausted": "keep",
        "seed": int(rng.integers(9)),
        "progress": False,
        "corpus": passages,
    }
    sliced, earlier = rng.random() < 0.3, rng.random() < 0.3

    def miner_in(folder: Path, **more: Any) -> NegativeMiner:
        return NegativeMiner.from_config(MiningConfig(**{**settings, **more}, cache_dir=folder))

    def mined(folder: Path) -> tuple[list[Any], set[tuple[str, str]]]:
        asked.clear()
        miner = miner_in(folder)
        found = miner.mine(Dataset.from_dict(rows)).to_list()
        assert len(asked) == len(set(asked))
        return [found, miner.summary.removed, miner.summary.judged], set(asked)

    with (
        tempfile.TemporaryDirectory() as home,
        patch("hf_negmine.teachers.vector_store.TEXTS_A_SHARD", 2),
        patch("hf_negmine.pool.retrieving.QUERIES_A_PART", int(rng.integers(1, 12))),
        patch("hf_negmine.pool.parts.PASSAGES_A_SLICE", 2 * int(rng.integers(1, 20)) if sliced else 2**22),
    ):
        expected, all_asked = mined(Path(home) / "alone")
        ranks = Path(home) / "ranks"
        config = miner_in(ranks).config
        if earlier:  # a run that has finished: its pool is there, and ranks do not search deeper
            miner_in(ranks, method="naive", filters=()).fit(Dataset.from_dict(rows))
        texts = steps.read(config, Dataset.from_dict(rows), None).texts
        asked.clear()
        for work in STAGES:
            for rank in rng.permutation(world := int(rng.integers(1, 5))):
                work(config, texts, int(rank), world)
        in_ranks = set(asked)
        found, last = mined(ranks)
    assert found == expected
    assert not in_ranks & last
    assert in_ranks | last == all_asked
    if (
        not (sliced or earlier)
        and method != "percentile:60"
        and config.judge is not None
        and config.judge.budget is None
    ):
        assert not last or (config.consistency is not None and (config.consistency.top_k or 0) > config.pool_depth)


@pytest.mark.parametrize("passages_a_slice", [2**22, 20])
def test_ranks_that_cannot_search_deeper_leave_it_to_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passages_a_slice: int
) -> None:
    """A run has finished, or the corpus is searched in slices: who draws from what is known asks about other pairs."""
    rng = np.random.default_rng(0)
    texts = [f"q{i}" for i in range(20)], [f"p{i}" for i in range(60)]
    vectors = [rng.normal(size=(len(some), 4)).astype(np.float32) for some in texts]
    asked: list[tuple[str, str]] = []

    def judge(some: Sequence[str], others: Sequence[str]) -> list[bool]:
        asked.extend(zip(some, others, strict=True))
        return [False] * len(some)

    rows = Dataset.from_dict({"query": texts[0], "positive": texts[1][:20]})
    shared: dict[str, Any] = {"corpus": texts[1], "method": "naive", "pool_depth": 4, "progress": False}
    teacher = FixedTeacher(texts[0], vectors[0], *(texts[1], vectors[1]))
    judged = NegativeMiner(
        teacher,
        **shared,
        sampler="sampled:30",
        filters=[Judge(FunctionJudge(judge, name="j"))],
        cache_dir=tmp_path / "a",
    )
    expected = judged.mine(rows).to_list()
    of_one_process = set(asked)
    asked.clear()
    monkeypatch.setattr("hf_negmine.pool.parts.PASSAGES_A_SLICE", passages_a_slice)
    monkeypatch.setattr("hf_negmine.teachers.vector_store.TEXTS_A_SHARD", 2)
    in_ranks = judged.with_(cache_dir=tmp_path / "b")
    if passages_a_slice > len(texts[1]):
        in_ranks.with_(sampler="top", filters=()).fit(rows)
    read = steps.read(in_ranks.config, rows, None).texts
    for work in STAGES:
        work(in_ranks.config, read, 0, 1)
    assert in_ranks.mine(rows).to_list() == expected
    assert len(asked) == len(of_one_process)
    assert set(asked) == of_one_process
