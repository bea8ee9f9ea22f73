"""A Sentence Transformers evaluator for a BEIR folder."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from hf_negmine.base.progress import is_watched
from hf_negmine.data.sources import open_beir, read_beir_texts

PASSAGES_A_CHUNK = 50_000
TEST = "test"
"""The split that is measured if there are several."""


def beir_evaluator(
    folder: str | Path, *, split: str | None = None, batch_size: int = 32, progress: bool = False
) -> InformationRetrievalEvaluator:
    """Evaluate retrieval of a split's judged queries over the whole corpus; the primary metric is NDCG at 10.

    All judgements with a score over 0 count as equally relevant. Unlike BEIR's original evaluator, it does not leave
    out a passage whose id is the query's.

    Args:
        folder: corpus, queries and qrels, as JSONL and TSV or Parquet.
        split: the split of the judgements; may be left out if there is only one, or a "test".
        batch_size: texts per forward pass.
        progress: whether to show bars.

    Raises:
        InputError: not a folder, or several splits without a "test" among them.
    """
    folder = Path(folder)
    rows = open_beir(folder, split=split, default=TEST).rows.with_format("arrow")[:]
    relevant: defaultdict[str, set[str]] = defaultdict(set)
    queries: dict[str, Any] = {}
    for query_id, query, passage_id in zip(
        *(rows[name].to_pylist() for name in ("query-id", "query", "corpus-id")), strict=True
    ):
        queries[query_id] = query
        relevant[query_id].add(passage_id)
    ids, texts = read_beir_texts(folder, "corpus")
    return InformationRetrievalEvaluator(
        queries=queries,
        corpus=dict(zip(pa.chunked_array([ids]).to_pylist(), texts.to_pylist(), strict=True)),
        relevant_docs=dict(relevant),
        corpus_chunk_size=PASSAGES_A_CHUNK,
        ndcg_at_k=[10],
        mrr_at_k=[10],
        map_at_k=[100],
        accuracy_at_k=[1, 10],
        precision_recall_at_k=[10, 100],
        batch_size=batch_size,
        show_progress_bar=progress and is_watched(),
        name=folder.name,
    )
