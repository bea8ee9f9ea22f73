"""Two processes that train together, over gloo."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer

from hf_negmine.base.files import text_digests
from hf_negmine.train import HardNegativeCollator, NegativeBank, PositiveAwareMNRL
from hf_negmine.train.false_negatives import BatchKeys, false_negatives
from hf_negmine.train.source import NegativeSource
from tests.train import two_ranks
from tests.train.helpers import columns_of, make_miner, rows, rows_of


def both(target: Callable[[Path, int, int], None], folder: Path) -> None:
    """Run a function as two ranks."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    forks = multiprocessing.get_context("forkserver")  # one process has everything imported, and is forked twice
    forks.set_forkserver_preload([two_ranks.__name__])
    ranks = [forks.Process(target=target, args=(folder, rank, port), daemon=True) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(100)
    assert [rank.exitcode for rank in ranks] == [0, 0]


@pytest.fixture(scope="module")
def run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the run, and what each rank saw."""
    folder = tmp_path_factory.mktemp("ranks")
    shutil.copytree(models, folder / "models")
    both(two_ranks.train, folder)
    return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_both_ranks_finish_with_the_same_weights(run: tuple[Path, list[dict[str, Any]]]) -> None:
    _, ranks = run
    assert [len(rank["batches"]) for rank in ranks] == [4, 4]
    assert all(math.isfinite(batch["loss"]) and batch["loss"] > 0 for rank in ranks for batch in rank["batches"])
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert [rank["told"] for rank in ranks] == [1, 0]


def test_both_ranks_see_the_same_versions_of_the_bank(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, ranks = run
    assert ranks[0]["versions"] == ranks[1]["versions"] == [0, 0, 1, 1]
    assert [version["step"] for version in NegativeBank(folder / "run" / "negatives" / "rows").versions()] == [2]


def test_each_row_has_the_negatives_of_a_single_process(
    run: tuple[Path, list[dict[str, Any]]], tmp_path: Path, frozen: SentenceTransformer
) -> None:
    folder, ranks = run
    alone = HardNegativeCollator(frozen, make_miner(tmp_path, method=two_ranks.METHOD).fit(rows()))
    for epoch in (0, 1):
        alone.set_epoch(epoch)
        if epoch == 1:
            alone.sources[""].bank = NegativeBank(folder / "run" / "negatives" / "rows")
        expected = rows_of(columns_of(alone(list(rows())), frozen))
        seen = [
            (query, tuple(rest))
            for rank in ranks
            for batch in rank["batches"][2 * epoch : 2 * epoch + 2]
            for query, *rest in zip(*batch["texts"], strict=True)
        ]
        assert len(seen) == 16
        assert dict(seen) == expected


def test_the_loss_tells_a_row_from_the_passages_of_both_ranks(run: tuple[Path, list[dict[str, Any]]]) -> None:
    _, ranks = run
    for rank in ranks:
        assert [batch["passages"] for batch in rank["batches"]] == [2 * 4 * 3] * 4


def test_the_loss_of_a_rank_is_over_its_rows_and_the_passages_of_both(
    run: tuple[Path, list[dict[str, Any]]], tmp_path: Path, frozen: SentenceTransformer
) -> None:
    _, ranks = run
    batches = [rank["batches"][0]["texts"] for rank in ranks]
    together = [[*first, *second] for first, second in zip(*batches, strict=True)]
    source = NegativeSource.of_miner(make_miner(tmp_path, method=two_ranks.METHOD).fit(rows()), None, None, 0)
    rows_of_both = list(zip(*together, strict=True))
    keys = text_digests(pa.array([text for row in rows_of_both for text in row], pa.large_string()))[:, 0]
    vectors = [frozen.encode(column, normalize_embeddings=True).astype(np.float64) for column in together]
    scores = 20.0 * vectors[0] @ np.concatenate(vectors[1:]).T
    for number, rank in enumerate(ranks):
        own = np.arange(4) + 4 * number
        masked = false_negatives(BatchKeys(keys.reshape(8, -1), own), [source], in_batch_negatives=True)
        assert len(np.unique(masked, axis=0)) == 4
        losses = [
            -scores[row, row] + np.log(np.exp(scores[row][~out]).sum()) for row, out in zip(own, masked, strict=True)
        ]
        assert rank["batches"][0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_two_ranks_have_the_loss_of_their_rows_together(
    models: Path, tmp_path: Path, frozen: SentenceTransformer
) -> None:
    """With every setting: the mean of the ranks' losses is the loss of all rows, and so are the gradients."""
    shutil.copytree(models, tmp_path / "models")
    both(two_ranks.losses, tmp_path)
    ranks = [json.loads((tmp_path / f"losses-{rank}.json").read_text()) for rank in (0, 1)]
    for number, settings in enumerate(two_ranks.SETTINGS):
        embeddings, labels = two_ranks.rows_of_embeddings()
        columns = [column.requires_grad_() for column in embeddings]
        loss = PositiveAwareMNRL(frozen, HardNegativeCollator(frozen, num_negatives=1), **settings)
        value = loss.compute_loss_from_embeddings(columns, labels)
        value.backward()  # type: ignore[no-untyped-call]
        assert np.mean([rank[number][0] for rank in ranks]) == pytest.approx(float(value.detach()), rel=1e-9)
        for place, column in enumerate(columns, start=1):
            together = np.concatenate([rank[number][place] for rank in ranks]) / 2
            assert column.grad is not None
            np.testing.assert_allclose(together, column.grad.numpy(), rtol=1e-9, atol=1e-12)
