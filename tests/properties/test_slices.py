"""A corpus searched in slices, by one process or by ranks, gives the pool of one search."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import FixedTeacher, NegativeMiner, steps
from hf_negmine.cluster import encode_share, search_share, search_slices
from hf_negmine.pool import CandidatePool
from tests.thorough import examples


@pytest.mark.filterwarnings("ignore:.*positives 0")
@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_slices_give_what_one_search_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_passages, n_rows = (int(rng.integers(3, most)) for most in (12, 60, 30))
    queries, passages = [f"q{i}" for i in range(n_queries)], [f"p{i}" for i in range(n_passages)]
    passages[0] = queries[0]  # which is no negative of itself
    vectors = [rng.integers(-1, 2, (count, 3)).astype(np.float32) for count in (n_queries, n_passages)]  # many ties
    teacher = FixedTeacher(queries, vectors[0], passages, vectors[1], similarity="dot")
    rows = {
        "query": [queries[i] for i in rng.integers(0, n_queries, n_rows)],
        "positive": [passages[i] for i in rng.integers(0, n_passages, n_rows)],
    }
    settings = {"pool_depth": int(rng.integers(1, 20)), "include_positives": bool(rng.random() < 0.2)}

    def fitted(folder: Path) -> NegativeMiner:
        miner = NegativeMiner(
            teacher, method="naive", num_negatives=1, corpus=passages, cache_dir=folder, progress=False, **settings
        )
        return miner.fit(Dataset.from_dict(rows))

    with (
        tempfile.TemporaryDirectory() as home,
        patch("hf_negmine.teachers.vector_store.TEXTS_A_SHARD", 2),
        patch("hf_negmine.pool.retrieving.QUERIES_A_PART", int(rng.integers(1, 12))),
    ):
        whole = fitted(Path(home) / "whole").pool
        with patch("hf_negmine.pool.parts.PASSAGES_A_SLICE", 2 * int(rng.integers(1, 20))):
            assert_same(fitted(Path(home) / "slices").pool, whole)
            ranks = Path(home) / "ranks"
            config = NegativeMiner(teacher, corpus=passages, cache_dir=ranks, progress=False, **settings).config
            texts = steps.read(config, Dataset.from_dict(rows), None).texts
            for work in (encode_share, search_slices, search_share):
                for rank in rng.permutation(world := int(rng.integers(1, 5))):  # another number in each stage
                    work(config, texts, int(rank), world)
            assert_same(fitted(ranks).pool, whole)


def assert_same(one: object, other: object) -> None:
    assert isinstance(one, CandidatePool)
    assert isinstance(other, CandidatePool)
    for field in dataclasses.fields(one.lists):
        np.testing.assert_array_equal(getattr(one.lists, field.name), getattr(other.lists, field.name), field.name)
    np.testing.assert_array_equal(one.positives.scores, other.positives.scores)
