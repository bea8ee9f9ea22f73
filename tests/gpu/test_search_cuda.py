"""The same search on a GPU: the same bytes as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_negmine.search import Exclusions, VectorSearcher
from hf_negmine.search.index import VectorsInMemory
from hf_negmine.search.late import MaxSim
from hf_negmine.search.sparse import InvertedIndex
from tests.gpu.test_another_device import sparse_of, tokens_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("first_pass", ["bfloat16", "float32"])
@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_equals_cpu(first_pass: str, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    generator = np.random.default_rng(0)
    passages = generator.standard_normal((5000, 96)).astype(np.float32)
    queries = (passages[:300] + generator.standard_normal((300, 96))).astype(np.float32)
    exclusions = Exclusions(np.arange(301), np.arange(300, dtype=np.int32))
    rows = np.arange(300)
    rankings = []
    for device in ("cpu", "cuda"):
        searcher = VectorSearcher(
            VectorsInMemory(queries),
            VectorsInMemory(passages),
            exclusions,
            device=device,
            first_pass=first_pass,  # type: ignore[arg-type]
            passages_a_block=1024,
        )
        block = searcher.block(rows)
        ceilings = block.pair_scores(rows, np.arange(300, dtype=np.int32)) * np.float32(0.5)
        rankings.append(block.best(rows, ceilings, depth=20))
    np.testing.assert_array_equal(rankings[0].passages, rankings[1].passages)
    np.testing.assert_array_equal(rankings[0].scores, rankings[1].scores)


def test_late_interaction_on_cuda_is_that_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    queries, passages = (tokens_of(rng, count) for count in (20, 500))
    asked, found = np.repeat(np.arange(20), 100), rng.integers(0, 500, 2000).astype(np.int32)
    here, there = (MaxSim(queries, passages, device).scores(asked, found) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(here, there)


def test_sparse_search_on_cuda_is_that_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    passages, queries = (
        sparse_of(((rng.random((count, 900)) < 0.05) * rng.random((count, 900))).astype(np.float32))
        for count in (4000, 30)
    )
    here, there = (InvertedIndex.of([passages], device).scores(queries) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(here, there)
