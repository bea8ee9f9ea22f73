"""The code for GPUs on a device that is none, for want of one: nothing of it is left on the processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.protocols import Ranking, SparseVectors, TokenVectors
from hf_negmine.search import VectorSearcher, corpus
from hf_negmine.search.faiss_index import build_index
from hf_negmine.search.late import MaxSim
from hf_negmine.search.sparse import InvertedIndex
from hf_negmine.teachers.approximate import IndexSpec
from hf_negmine.teachers.stored import StoredTokens
from tests.another_device import DEVICE, AnotherDevice, Elsewhere
from tests.properties.test_approximate_search import candidates_of
from tests.reference import ArraySource, exclusions_of

N_QUERIES, N_PASSAGES, WIDTH = 40, 700, 24
ROWS = np.arange(N_QUERIES)


@pytest.fixture(autouse=True)
def another_device() -> Iterator[None]:
    with AnotherDevice():
        yield


def searcher(device: str, first_pass: FirstPass) -> VectorSearcher:
    rng = np.random.default_rng(0)
    passages = rng.standard_normal((N_PASSAGES, WIDTH)).astype(np.float32)
    passages[500:600] = passages[:100]  # ties
    queries = (passages[:N_QUERIES] + rng.standard_normal((N_QUERIES, WIDTH))).astype(np.float32)
    excluded = exclusions_of([[row, row + 500] for row in range(N_QUERIES)])
    return VectorSearcher(
        ArraySource(queries),
        ArraySource(passages),
        excluded,
        device=device,
        first_pass=first_pass,
        passages_a_block=256,
    )


def bytes_of(ranking: Ranking) -> list[bytes]:
    return [part.tobytes() for part in (ranking.offsets, ranking.passages, ranking.scores, ranking.exhausted)]


def test_the_device_knows_where_tensors_are() -> None:
    numbers = torch.arange(6.0)
    away = numbers.to(DEVICE)
    assert away.device.type == DEVICE
    assert torch.equal((away * 2)[3:].cpu(), torch.tensor([6.0, 8.0, 10.0]))
    with pytest.raises(RuntimeError, match="some are on the processor"):
        away + numbers
    away[torch.tensor([0, 2])] = torch.zeros(2).to(DEVICE)
    with pytest.raises(RuntimeError, match=r"index_put_.*some are on the processor"):
        away[torch.tensor([0, 2])] = torch.zeros(2)
    with pytest.raises(RuntimeError):
        away.numpy()


@pytest.mark.parametrize("first_pass", ["bfloat16", "float32"])
@pytest.mark.parametrize("resident", [True, False])
def test_search_is_the_same_on_another_device(
    first_pass: FirstPass, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not resident:
        monkeypatch.setattr(corpus, "RESIDENT_BYTES", 0)
    blocks = [searcher(device, first_pass).block(ROWS) for device in ("cpu", DEVICE)]
    assert isinstance(blocks[1].vectors, Elsewhere)
    positives = ROWS.astype(np.int32)
    scores = [block.pair_scores(ROWS, positives) for block in blocks]
    assert scores[0].tobytes() == scores[1].tobytes()
    assert blocks[0].all_scores().tobytes() == blocks[1].all_scores().tobytes()
    for ceilings in (np.full(N_QUERIES, np.inf, dtype=np.float32), scores[0] * np.float32(0.5)):
        for depth, skip in ((5, 0), (20, 3), (N_PASSAGES, 0)):
            one, two = (block.best(ROWS, ceilings, depth, skip) for block in blocks)
            assert bytes_of(one) == bytes_of(two)


def test_an_index_proposes_to_another_device(tmp_path: Path) -> None:
    found = []
    for device in ("cpu", DEVICE):
        exact = searcher(device, "float32")
        index = build_index(exact.corpus.source, IndexSpec("Flat"), tmp_path / "index.faiss", progress=False)
        ceilings = np.full(N_QUERIES, 5.0, dtype=np.float32)
        found.append(candidates_of(exact, index, 16).block(ROWS).best(ROWS, ceilings, 9))
    assert bytes_of(found[0]) == bytes_of(found[1])


def test_late_interaction_is_the_same_on_another_device() -> None:
    rng = np.random.default_rng(0)
    queries, passages = (tokens_of(rng, count) for count in (6, 50))
    asked, found = np.repeat(np.arange(6), 20), rng.integers(0, 50, 120).astype(np.int32)
    there = MaxSim(queries, passages, DEVICE).scores(asked, found)
    assert there.tobytes() == MaxSim(queries, passages).scores(asked, found).tobytes()
    tokens = [[side.gather(np.array([id])).vectors.astype(np.float64) for id in ids] for side, ids in
              ((queries, asked), (passages, found))]  # fmt: skip
    by_hand = [(query @ passage.T).max(axis=1).sum() for query, passage in zip(*tokens, strict=True)]
    np.testing.assert_array_equal(there, np.array(by_hand).astype(np.float32))


def tokens_of(rng: np.random.Generator, texts: int) -> StoredTokens:
    offsets = np.cumsum([0, *rng.integers(1, 9, texts)])
    return StoredTokens.in_memory(TokenVectors(offsets, rng.standard_normal((offsets[-1], 16)).astype(np.float32)))


def test_sparse_search_is_the_same_on_another_device() -> None:
    rng = np.random.default_rng(0)
    weights = [(rng.random((count, 60)) < 0.2) * rng.random((count, 60)) for count in (40, 9)]
    passages, queries = (sparse_of(part.astype(np.float32)) for part in weights)
    there, here = (InvertedIndex.of([passages], device).scores(queries) for device in (DEVICE, "cpu"))
    assert there.tobytes() == here.tobytes()
    exact = weights[1].astype(np.float32).astype(np.float64) @ weights[0].astype(np.float32).astype(np.float64).T
    np.testing.assert_array_equal(there, exact.astype(np.float32))


def sparse_of(matrix: np.ndarray) -> SparseVectors:
    rows, terms = np.nonzero(matrix)
    offsets = np.searchsorted(rows, np.arange(len(matrix) + 1))
    return SparseVectors(offsets, terms.astype(np.int32), matrix[rows, terms])
