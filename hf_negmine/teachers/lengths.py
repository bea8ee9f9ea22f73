"""How much of a text a Sentence Transformers model reads, and how much it could."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import IdArray

NO_LIMIT = 10**9
"""Tokens. A tokenizer without a limit reports a far larger number."""
TOKENS_A_TEXT, TOKENS_A_TEXT_ON_A_CPU = 128, 80
"""Tokens of the texts that a ``batch_size`` counts: 4,096 tokens per batch by default, on a CPU 2,560, whose numbers
stay in a processor's cache."""


def length_limit(model: Any) -> int | None:
    """Tokens that a Sentence Transformers model cuts its input to."""
    limit: int | None = getattr(model, _limit_name(model), None)
    return limit


def limit_length(model: Any, tokens: int, *, argument: str) -> None:
    """Make a model cut its texts to this many tokens.

    Raises:
        InputError: the model has fewer positions, or reads texts of any length (static embeddings).
    """
    require_positions(model, tokens, argument)
    if not isinstance(length_limit(model), int):
        raise InputError(
            f"{argument}: {tokens} tokens, but the model reads texts of any length and cannot cut them; leave it out"
        )
    special = _special_tokens(model)
    if tokens <= special:
        raise InputError(
            f"{argument}: {tokens} tokens, of which the model itself puts {special} around every text; give at least "
            f"{special + 1}, so that some of the text is read"
        )
    setattr(model, _limit_name(model), tokens)


def _special_tokens(model: Any) -> int:
    """Tokens that a model's tokenizer adds to a text."""
    count = getattr(getattr(model, "tokenizer", None), "num_special_tokens_to_add", None)
    return int(count()) if callable(count) else 0


def require_positions(model: Any, tokens: int, argument: str) -> None:
    """Raise `InputError` if a text of this many tokens is longer than the model can read."""
    positions = positions_of(model)
    if positions is not None and tokens > positions:
        raise InputError(
            f"{argument}: {tokens} tokens, but the model has positions for {positions}; give at most {positions}"
        )


def require_own_limit(model: Any, name: str) -> None:
    """Raise `InputError` for a model that would fail on long texts, because its limit exceeds its positions.

    That happens if a tokenizer was saved without a limit.
    """
    limit, positions = length_limit(model), positions_of(model)
    if isinstance(limit, int) and positions is not None and limit > positions and _has_position_table(model):
        raise InputError(
            f"{name} would read up to {limit} tokens, but has positions for {positions}; give "
            f"max_length={positions}, or max_seq_length={positions} if you load or train it yourself"
        )


def positions_of(model: Any) -> int | None:
    """Text length in tokens that a model was built for; None if unknown (as for T5 and static embeddings)."""
    found = []
    for module in transformers_of(model):
        config = module.config.get_text_config() if hasattr(module.config, "get_text_config") else module.config
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:  # XLNet has -1 for no limit
            found.append(positions - _first_position(module))
    return min(found, default=None)


def transformers_of(model: Any) -> Iterator[Any]:
    """The transformers models inside."""
    return (module for module in model.modules() if hasattr(module, "base_model_prefix") and hasattr(module, "config"))


def count_tokens(
    model: Any, texts: Sequence[str], role: Role, prompt: str | None, second: Sequence[str] | None = None
) -> tuple[IdArray, int | None]:
    """Count the tokens that a model is given for each text, and how many of them it reads.

    Args:
        model: a Sentence Transformers model.
        texts: the texts, without the prompt.
        role: the role they are encoded in.
        prompt: text put before each of them; None takes the model's own.
        second: passages that a cross-encoder reads together with ``texts``.

    Returns:
        The tokens of each text (or pair), special ones included, int64, shape (len(texts),); and the limit, None for a
        model that reads everything, or that first turns texts into chat messages.
    """
    from transformers import PreTrainedTokenizerBase

    module = _input_module(model, role)
    limit = _limit_of(module, role)
    tokenizer: Any = getattr(module, "tokenizer", None)
    known = isinstance(tokenizer, PreTrainedTokenizerBase)
    if limit is None or not known or "message" in getattr(module, "modality_config", ()):
        return np.zeros(len(texts), dtype=np.int64), None
    own = _own_prompt(model, role) if prompt is None else prompt
    given = [f"{own}{text}" for text in texts]
    found = tokenizer(given, None if second is None else list(second), padding=False, truncation=False, verbose=False)
    return np.array([len(ids) for ids in found["input_ids"]], dtype=np.int64), limit


def token_batches(lengths: IdArray, budget: int) -> list[IdArray]:
    """Positions of texts in batches, the longest texts first, so that hardly anything in a batch is padding.

    Args:
        lengths: the tokens of each text.
        budget: tokens per batch, padding included; a longer text is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        batch = order[start : start + max(1, budget // max(1, int(lengths[order[start]])))]
        batches.append(batch)
        start += len(batch)
    return batches


def _input_module(model: Any, role: Role) -> Any:
    """The module that tokenizes texts; a router has one for each role."""
    first = next(model.children(), None)
    routes = getattr(first, "sub_modules", {})
    task = "query" if role == "query" else "document"
    return routes[task][0] if task in routes else first


def _limit_of(module: Any, role: Role) -> int | None:
    """Tokens that are read in a role: late-interaction models have a limit for each, and may expand queries."""
    own = getattr(module, "query_length" if role == "query" else "document_length", None)
    expansion = getattr(module, "query_expansion", None) if role == "query" else None
    if expansion is not None and (expansion["strategy"] == "fixed" or own is not None):
        own = max(own or 0, expansion["length"])
    limit = own if own is not None else length_limit(module)
    return limit if isinstance(limit, int) and limit < NO_LIMIT else None


def _own_prompt(model: Any, role: Role) -> str:
    """The prompt that `encode_query` or `encode_document` would put before texts; `predict` takes the default one."""
    prompts = getattr(model, "prompts", None) or {}
    names = ("query",) if role == "query" else ("document", "passage", "corpus")
    name = next((name for name in names if name in prompts), getattr(model, "default_prompt_name", None))
    return prompts.get(name) or ""


def _first_position(transformer: Any) -> int:
    """The index in its table at which a model's positions start; in RoBERTa and similar models, after the padding's."""
    for module in transformer.modules():
        if _is_table(getattr(module, "position_embeddings", None)) and isinstance(
            padding := getattr(module, "padding_idx", None), int
        ):
            return padding + 1
    return 0


def _has_position_table(model: Any) -> bool:
    names = ("position_embeddings", "embed_positions", "wpe")
    return any(_is_table(getattr(module, name, None)) for module in model.modules() for name in names)


def _is_table(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Embedding)


def _limit_name(model: Any) -> str:
    """The name of the limit; up to Sentence Transformers 5 a CrossEncoder calls it ``max_length``."""
    return "max_seq_length" if hasattr(model, "max_seq_length") else "max_length"
