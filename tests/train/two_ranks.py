"""A training run for the test of several processes: every rank writes down what it saw."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from transformers import TrainerCallback

from hf_negmine.train import HardNegativeCollator, PositiveAwareMNRL, RemineCallback
from tests.train.helpers import arguments, load_model, make_miner, read_texts, rows

METHOD = "perc_pos:0.3"
"""So low a ceiling that each row has other false negatives in the batch."""


class WatchedLoss(PositiveAwareMNRL):
    """Remembers its batches, its losses and how many passages it told each row from."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: list[Any] = []
        self.tokenizer_of = args[0]

    def forward(self, sentence_features: Any, labels: Any) -> Any:
        features = list(sentence_features)
        texts = [read_texts(self.tokenizer_of, column["input_ids"]) for column in features]
        before = self.false_negatives.passages
        loss = super().forward(features, labels)
        passages = (self.false_negatives.passages - before) // len(labels)
        self.seen.append({"texts": texts, "loss": float(loss.detach()), "passages": passages})
        return loss


class Versions(TrainerCallback):
    """The bank's version at the begin of every step."""

    def __init__(self, collator: HardNegativeCollator) -> None:
        self.collator = collator
        self.seen: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        bank = self.collator.sources[""].bank
        assert bank is not None
        self.seen.append(bank.current()[0])


def train(folder: Path, rank: int, port: int) -> None:
    """One of two ranks, told so as torchrun tells it."""
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    model = load_model(folder / "models")
    collator = HardNegativeCollator(model, make_miner(folder / "cache", method=METHOD).fit(rows()))
    loss = WatchedLoss(model, collator, gather_across_devices=True)
    versions, remine = Versions(collator), RemineCallback(collator, rule="easy", progress=False)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(folder / "run"),
        train_dataset=rows(),
        loss=loss,
        data_collator=collator,
        callbacks=[collator, remine, versions],
    )
    trainer.train()
    weights = float(sum(weight.detach().double().abs().sum() for weight in model.parameters()))
    told = [entry for entry in trainer.state.log_history if "negatives_changed" in entry]
    seen = {"batches": loss.seen, "versions": versions.seen, "weights": weights, "told": len(told)}
    (folder / f"rank-{rank}.json").write_text(json.dumps(seen))


ALL_DIRECTIONS: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"directions": ALL_DIRECTIONS, "student_margin": 0.05},
    {"hardness_mode": "hard_negatives", "hardness_strength": 5.0, "student_margin": 0.1},
    {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0, "directions": ALL_DIRECTIONS[:2]},
]


def rows_of_embeddings() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries, positives and a negative of 6 rows, of which some share texts, and their labels with weights."""
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    keys = torch.tensor([[0, 10, 20], [1, 11, 21], [2, 12, 10], [0, 13, 22], [4, 11, 23], [5, 15, 20]])
    weights = torch.linspace(0.2, 1.2, 6, dtype=torch.float64)[:, None].view(torch.int64)
    return embeddings, torch.cat([keys, weights], dim=1)


def losses(folder: Path, rank: int, port: int) -> None:
    """Every setting's loss and the length of its gradient for this rank's half of the rows."""
    os.environ.update({"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""})
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = load_model(folder / "models")
    found = []
    for settings in SETTINGS:
        embeddings, labels = rows_of_embeddings()
        own = slice(3 * rank, 3 * rank + 3)
        columns = [column[own].clone().requires_grad_() for column in embeddings]
        loss = PositiveAwareMNRL(
            model, HardNegativeCollator(model, num_negatives=1), gather_across_devices=True, **settings
        )
        value = loss.compute_loss_from_embeddings(columns, labels[own].contiguous())
        value.backward()  # type: ignore[no-untyped-call]
        found.append([float(value.detach()), *[column.grad.tolist() for column in columns]])  # type: ignore[union-attr]
    (folder / f"losses-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
