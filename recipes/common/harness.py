"""NDCG at 10: of each query, and by MTEB's own harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.trial import CUTOFF

QUERIES_PER_BLOCK = 256


def ndcg_at_10(queries: torch.Tensor, passages: torch.Tensor, relevant: Sequence[IdArray]) -> FloatArray:
    """NDCG at 10 of each query, float64, from 0 to 1; every relevant passage counts alike.

    Args:
        queries: float32, one row per query.
        passages: float32, one row per passage; the dot product says how well it fits.
        relevant: ids of the passages that are relevant to each query, at least one.
    """
    gains = 1 / np.log2(np.arange(2, CUTOFF + 2))
    values = []
    for start in range(0, len(relevant), QUERIES_PER_BLOCK):
        scores = queries[start : start + QUERIES_PER_BLOCK] @ passages.T
        best = scores.topk(min(CUTOFF, len(passages))).indices.numpy()
        for own, found in zip(relevant[start:], best, strict=False):
            values.append(gains[: len(found)][np.isin(found, own)].sum() / gains[: len(own)].sum())
    return np.array(values)


def ndcg_by_mteb(
    model: SentenceTransformer, task: str, prompts: Mapping[str, str], batch_size: int, folder: Path
) -> float:
    """NDCG at 10 on a task, from 0 to 1.

    Args:
        model: to be evaluated.
        task: its name in MTEB.
        prompts: for ``query`` and ``document``: by role, not by task, as CQADupstack is twelve tasks under names of
            their own.
        batch_size: texts per forward pass.
        folder: where MTEB keeps its results.
    """
    import mteb
    from mteb.cache import ResultCache
    from mteb.models import SentenceTransformerEncoderWrapper

    options: Any = {"batch_size": batch_size}
    found: Any = mteb.evaluate(
        SentenceTransformerEncoderWrapper(model, model_prompts=dict(prompts)),
        mteb.get_tasks(tasks=[task]),
        encode_kwargs=options,
        cache=ResultCache(folder),
        show_progress_bar=False,
    )
    return float(found.task_results[0].get_score())
