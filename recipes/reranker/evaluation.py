"""The candidates of a first stage, and how well a reranker orders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sentence_transformers import CrossEncoder

from hf_negmine import NegativeMiner
from hf_negmine.base.protocols import Teacher
from hf_negmine.base.schema import BoolArray
from recipes.common.data import TestQueries
from recipes.common.training import bfloat16

TOP = 10
"""How many ranks NDCG looks at."""


@dataclass(frozen=True)
class Candidates:
    """What a first stage found, the best first.

    Attributes:
        name: of the set.
        queries: texts.
        passages: of each query, texts.
        relevant: of each query, which of them are relevant.
        n_relevant: of each query, relevant passages in the whole corpus: what was not found counts as missed.
    """

    name: str
    queries: list[str]
    passages: list[list[str]]
    relevant: list[BoolArray]
    n_relevant: list[int]

    @property
    def first_stage(self) -> float:
        """Mean NDCG at 10 of the first stage's own order."""
        return self._mean(self.relevant)

    @property
    def best(self) -> float:
        """Mean NDCG at 10 of the best order that the candidates have."""
        return self._mean([np.sort(relevant)[::-1] for relevant in self.relevant])

    def reranked(self, model: CrossEncoder, *, bf16: bool) -> float:
        """Mean NDCG at 10 of the reranker's order; equal scores keep the first stage's."""
        pairs = [(query, text) for query, texts in zip(self.queries, self.passages, strict=True) for text in texts]
        with bfloat16(model, wanted=bf16):
            scores = model.predict(pairs, batch_size=64, show_progress_bar=False, activation_fn=torch.nn.Identity())
        ends = np.cumsum([len(texts) for texts in self.passages])[:-1]
        orders = [np.argsort(-part, kind="stable") for part in np.split(np.asarray(scores, dtype=np.float32), ends)]
        return self._mean([relevant[order] for relevant, order in zip(self.relevant, orders, strict=True)])

    def _mean(self, orders: Sequence[BoolArray]) -> float:
        return float(np.mean([ndcg(order, n) for order, n in zip(orders, self.n_relevant, strict=True)]))


def ndcg(relevant: BoolArray, n_relevant: int) -> float:
    """NDCG at 10 of one ranking with relevance 0 or 1, gains 1 / log2(rank + 1).

    Args:
        relevant: by rank.
        n_relevant: relevant passages that there are, at least 1.
    """
    gains = 1 / np.log2(np.arange(2, TOP + 2))
    top = relevant[:TOP]
    return float(gains[: len(top)][top].sum() / gains[: min(n_relevant, TOP)].sum())


def find_candidates(test: TestQueries, teacher: str | Teacher, most: int, cache: Path) -> Candidates:
    """The ``most`` best passages of the whole corpus for every query, under a teacher.

    Args:
        test: queries and corpus. A passage with the query's own text is a candidate like any other.
        teacher: as `NegativeMiner` takes it.
        most: candidates per query; fewer only where the corpus has no more.
        cache: for vectors.
    """
    miner = NegativeMiner(
        teacher, method="naive", num_negatives=most, corpus=test.corpus, include_positives=True, pool_depth=most,
        format="ids", on_exhausted="keep", cache_dir=cache, progress=False,
    )  # fmt: skip
    queries = list(test.relevant)
    # Any relevant passage makes the row; the candidates come after it.
    rows = datasets.Dataset.from_dict({"query": queries, "positive": [min(test.relevant[one]) for one in queries]})
    mined = miner.mine(rows)
    found = [document_ids[1:] for document_ids in mined["document_ids"]]
    texts: Any = miner.corpus["document"]
    passages = [[texts[place] for place in places] for places in found]
    relevant = [
        np.array([text in test.relevant[query] for text in own], dtype=bool)
        for query, own in zip(queries, passages, strict=True)
    ]
    return Candidates(test.name, queries, passages, relevant, [len(test.relevant[query]) for query in queries])
