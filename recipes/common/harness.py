"""NDCG at 10 by MTEB's own harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer


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
