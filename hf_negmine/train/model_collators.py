"""The collator for a model's own kind, which tokenizes texts, for rows under our column names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.data_collator import BaseDataCollator
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.multi_vector_encoder.data_collator import MultiVectorEncoderDataCollator
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sparse_encoder.data_collator import SparseEncoderDataCollator

from hf_negmine.train.reading import RowReader

KINDS = {SparseEncoder: SparseEncoderDataCollator, MultiVectorEncoder: MultiVectorEncoderDataCollator}


def model_collator(
    model: Any,
    reader: RowReader,
    *,
    prompts: Any,
    router_mapping: Any,
    max_length: int | dict[str, int] | None,
    most_negatives: int,
) -> BaseDataCollator:
    """Make a collator for ``query, positive, negative_1 …``, up to ``most_negatives``.

    Prompts and router mapping are by the columns' own names, which the reader knows, or by ours; a negative has the
    entry of its positive. ``max_length`` is in tokens, for late interaction.
    """
    if isinstance(model, CrossEncoder):
        return CrossEncoderDataCollator(preprocess_fn=model.preprocess, prompts=prompts, router_mapping=router_mapping)
    kind = next((ours for theirs, ours in KINDS.items() if isinstance(model, theirs)), SentenceTransformerDataCollator)
    names = {} if reader.is_ids else {"query": reader.query_column, "positive": reader.positive_column}
    return kind(
        preprocess_fn=model.preprocess,
        prompts=_by_our_names(prompts, names, most_negatives),
        router_mapping=_by_our_names(router_mapping, names, most_negatives) or {},
        max_length=max_length,
    )


def _by_our_names(given: Any, names: Mapping[str, str], most_negatives: int) -> Any:
    """A mapping under our column names; a negative has the entry of its positive, unless it is named itself."""
    if not isinstance(given, Mapping):
        return given
    if any(isinstance(value, Mapping) for value in given.values()):
        return {name: _by_our_names(value, names, most_negatives) for name, value in given.items()}
    ours = {**{name: given[column] for name, column in names.items() if column in given}, **given}
    if "positive" in ours:
        for place in range(1, most_negatives + 1):
            ours.setdefault(f"negative_{place}", ours.get("negative", ours["positive"]))
    return ours
