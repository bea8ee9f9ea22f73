"""What a trainer is given along with a collator, in one go."""

from __future__ import annotations

from typing import Any

from hf_negmine.base.choices import RefreshRule
from hf_negmine.train.callback import RemineCallback
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.losses import PositiveAwareMNRL


def trainer_arguments(
    collator: HardNegativeCollator,
    *,
    loss: Any = None,
    refresh: RefreshRule | RemineCallback | None = None,
) -> dict[str, Any]:
    """All that a trainer needs of a collator: ``SentenceTransformerTrainer(model, …, **trainer_arguments(collator))``.

    Args:
        collator: makes the batches.
        loss: None takes `PositiveAwareMNRL` with its defaults.
        refresh: the rule of a `RemineCallback`, or one with more settings; None keeps the negatives as they were mined.

    Returns:
        ``loss``, ``data_collator`` and ``callbacks``; more callbacks may be appended to the list.

    Raises:
        InputError: a collator without anything to refresh, or of a layout that the loss does not read.
    """
    if isinstance(refresh, str):
        refresh = RemineCallback(collator, rule=refresh)
    return {
        "loss": PositiveAwareMNRL(collator.model, collator) if loss is None else loss,
        "data_collator": collator,
        "callbacks": [collator, *([] if refresh is None else [refresh])],
    }
