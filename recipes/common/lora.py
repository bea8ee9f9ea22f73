"""A LoRA adapter: added to a model, saved and loaded on its own.

An adapter that is saved with its model names the base on the Hub, which need not be the base that it was trained on.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import require
from hf_negmine.base.files import digest_of, finish_or_nothing
from recipes.common.settings import Lora

ADAPTER_FILE = "adapter.safetensors"


def add_adapter(model: SentenceTransformer, lora: Lora, seed: int) -> None:
    """Put new LoRA weights, which change nothing yet, into every layer; they alone are trained, in float32."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(LoraConfig(**asdict(lora) | {"target_modules": list(lora.target_modules)}))
    for weight in adapter_weights(model).values():
        weight.data = weight.data.float()


def adapter_weights(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Write the adapter's weights alone."""
    found = {name: weight.detach().cpu().contiguous() for name, weight in adapter_weights(model).items()}
    with finish_or_nothing(folder / ADAPTER_FILE) as file:
        file.write(save(found))


def load_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Give a model's adapter the weights that `save_adapter` has written."""
    saved, ours = load_file(str(folder / ADAPTER_FILE)), adapter_weights(model)
    require(saved.keys() == ours.keys(), f"{folder / ADAPTER_FILE} holds another adapter than the recipe's")
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(saved[name])


def adapter_digest(model: SentenceTransformer) -> str:
    """Digest of the adapter's weights."""
    return digest_of(*(weight.detach().cpu().numpy() for _, weight in sorted(adapter_weights(model).items())))
