"""Training with hard negatives: batches, refreshed negatives and losses for Sentence Transformers' trainers."""

from __future__ import annotations

from hf_negmine.base.errors import InputError

try:
    import accelerate  # noqa: F401
    import sentence_transformers.base.trainer  # noqa: F401
except ImportError as error:
    raise InputError(
        f"training needs sentence-transformers 6.0 and accelerate ({error}): pip install hf_negmine[train]"
    ) from error

from hf_negmine.train.bank import NegativeBank
from hf_negmine.train.callback import RemineCallback
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.losses import CachedPositiveAwareMNRL, PositiveAwareMNRL
from hf_negmine.train.parts import trainer_arguments

__all__ = [
    "CachedPositiveAwareMNRL",
    "HardNegativeCollator",
    "NegativeBank",
    "PositiveAwareMNRL",
    "RemineCallback",
    "trainer_arguments",
]
