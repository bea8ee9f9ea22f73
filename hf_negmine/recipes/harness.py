"""NDCG at 10 by MTEB's own harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError


def require_mteb(setting: str, instead: str) -> None:
    """See before any long work that mteb is there.

    Args:
        setting: of the recipe that asks for it, such as ``"harness: 'mteb'"``.
        instead: what could be done in its place.

    Raises:
        InputError: it is not installed.
    """
    try:
        import mteb  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{setting} needs the package mteb, which is not installed: pip install 'hf_negmine[recipes]'; or {instead}"
        ) from error


def ndcg_by_mteb(
    model: SentenceTransformer, task: str, prompts: Mapping[str, str], batch_size: int, folder: Path
) -> float:
    """NDCG at 10 on a task, from 0 to 1.

    Args:
        model: to be evaluated.
        task: its name in MTEB.
        prompts: for ``query`` and ``document``: by role, not by task, as CQADupstack is twelve tasks under names of
            their own.
        batch_size: texts a forward pass.
        folder: where MTEB keeps its results.
    """
    import mteb
    from mteb.cache import ResultCache
    from mteb.models import SentenceTransformerEncoderWrapper

    found: Any = mteb.evaluate(
        SentenceTransformerEncoderWrapper(model, model_prompts=dict(prompts)),
        mteb.get_tasks(tasks=[task]),
        encode_kwargs={"batch_size": batch_size},
        cache=ResultCache(folder),
        show_progress_bar=False,
    )
    return float(found.task_results[0].get_score())
