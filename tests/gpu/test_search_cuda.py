"""The same search on a GPU: the same bytes as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_negmine.search import Exclusions, VectorSearcher
from hf_negmine.search.index import VectorsInMemory

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
