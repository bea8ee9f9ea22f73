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
