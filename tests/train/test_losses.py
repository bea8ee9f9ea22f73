"""The losses that leave out false negatives, against those of Sentence Transformers and in plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.train import CachedPositiveAwareMNRL, HardNegativeCollator, PositiveAwareMNRL
from hf_negmine.train.false_negatives import BatchKeys, false_negatives
from tests.another_device import DEVICE, AnotherDevice
from tests.train.helpers import CORPUS, QUERIES, load_model, make_miner, rows


def split(batch: dict[str, Any]) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
    """Features of each column, and the labels, as the trainer hands them to a loss."""
    names = [key.removesuffix("_input_ids") for key in batch if key.endswith("_input_ids")]
    features = [
        {key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask", "modality") if f"{name}_{key}" in batch}
        for name in names
    ]
    return features, batch.get("label")


def batch_of(collator: HardNegativeCollator, data: Any, epoch: int = 0) -> tuple[list[dict[str, Any]], torch.Tensor]:
    collator.set_epoch(epoch)
    features, labels = split(collator(list(data)))
    assert labels is not None
    return features, labels


def value_and_gradients(model: SentenceTransformer, loss: Any, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    features, labels = batch
    value = loss([dict(column) for column in features], labels)
    value.backward()
    return float(value.detach()), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def clashing() -> datasets.Dataset:
    """Rows of which several have false negatives in the batch: a query twice, a positive of two queries."""
    queries = [QUERIES[0], QUERIES[0], QUERIES[1], QUERIES[2], QUERIES[3]]
    positives = [CORPUS[0], CORPUS[16], CORPUS[1], CORPUS[1], CORPUS[3]]
    return datasets.Dataset.from_dict({"query": queries, "positive": positives})


def test_with_nothing_to_leave_out_it_is_multiple_negatives_ranking_loss(model: SentenceTransformer) -> None:
    data = [
        {"query": QUERIES[i], "positive": CORPUS[i], "negatives": CORPUS[20 + 2 * i : 22 + 2 * i]} for i in range(5)
    ]
    collator = HardNegativeCollator(model, num_negatives=2)
    ours = PositiveAwareMNRL(model, collator)
    batch = batch_of(collator, data)
    value, gradients = value_and_gradients(model, ours, batch)
    expected, expected_gradients = value_and_gradients(model, MultipleNegativesRankingLoss(model), batch)
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name])
    assert ours.false_negatives.share == 0.0


@pytest.mark.parametrize("in_batch_negatives", [True, False])
def test_the_value_is_that_of_the_passages_left_in(
    model: SentenceTransformer, miner: NegativeMiner, in_batch_negatives: bool
) -> None:
    collator = HardNegativeCollator(model, miner.fit(clashing()))
    loss = PositiveAwareMNRL(model, collator, scale=10.0, in_batch_negatives=in_batch_negatives)
    features, labels = batch_of(collator, clashing())
    masked = false_negatives(
        BatchKeys(labels.numpy().view(np.uint64), np.arange(5)),
        collator.sources.values(),
        in_batch_negatives=in_batch_negatives,
    )
    assert masked.any()
    assert not masked.all(axis=1).any()
    vectors = [model(dict(column))["sentence_embedding"].detach().double().numpy() for column in features]
    vectors = [column / np.linalg.norm(column, axis=1, keepdims=True) for column in vectors]
    scores = 10.0 * vectors[0] @ np.concatenate(vectors[1:]).T
    expected = [-scores[row, row] + np.log(np.exp(scores[row][~masked[row]]).sum()) for row in range(5)]
    assert float(loss(features, labels).detach()) == pytest.approx(np.mean(expected), rel=1e-5)
    assert loss.false_negatives.share == (pytest.approx(masked.mean()) if in_batch_negatives else 0.0)


def test_losses_are_the_same_on_another_device(model: SentenceTransformer, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(model, miner.fit(clashing()))
    whole = PositiveAwareMNRL(model, collator)
    parts = CachedPositiveAwareMNRL(model, collator, mini_batch_size=2)
    _, labels = batch_of(collator, clashing())
    embeddings = [torch.randn(5, 8) for _ in range(labels.shape[1])]
    expected = float(whole.compute_loss_from_embeddings(embeddings, labels))
    with AnotherDevice():
        away, keys = [column.to(DEVICE) for column in embeddings], labels.to(DEVICE)
        assert float(whole.compute_loss_from_embeddings(away, keys)) == pytest.approx(expected, rel=1e-6)
        assert float(parts.calculate_loss([[column] for column in away], keys)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("settings", [{"mini_batch_size": 2}, {"mini_batch_size": 1}, {"mini_batch_size": 64}])
@pytest.mark.parametrize("in_batch_negatives", [True, False])
def test_in_mini_batches_value_and_gradients_are_the_same(
    model: SentenceTransformer, miner: NegativeMiner, settings: dict[str, Any], in_batch_negatives: bool
) -> None:
    collator = HardNegativeCollator(model, miner.fit(clashing()))
    whole = PositiveAwareMNRL(model, collator, in_batch_negatives=in_batch_negatives)
    parts = CachedPositiveAwareMNRL(model, collator, in_batch_negatives=in_batch_negatives, **settings)
    batch = batch_of(collator, clashing())
    expected, expected_gradients = value_and_gradients(model, whole, batch)
    value, gradients = value_and_gradients(model, parts, batch)
    assert value == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert float(parts([dict(column) for column in batch[0]], batch[1])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [PositiveAwareMNRL, CachedPositiveAwareMNRL])
def test_labels_that_are_no_keys_are_an_error(model: SentenceTransformer, kind: Any) -> None:
    data = [{"query": QUERIES[i], "positive": CORPUS[i], "negatives": CORPUS[20:22]} for i in range(3)]
    collator = HardNegativeCollator(model, num_negatives=2)
    loss = kind(model, collator)
    assert collator.labels == "keys"
    features, labels = batch_of(collator, data)
    for wrong, said in (
        (None, "no labels"),
        (labels[:, :3], r"shape \(3, 3\)"),
        (labels.double(), "float64"),
        (torch.tensor([1, 0, 1]), r"shape \(3,\)"),
    ):
        with pytest.raises(InputError, match=f"{said}.*data_collator=collator, callbacks"):
            loss([dict(column) for column in features], wrong)


@pytest.mark.parametrize("kind", [PositiveAwareMNRL, CachedPositiveAwareMNRL])
def test_the_model_card_can_be_told_the_settings(model: SentenceTransformer, kind: Any) -> None:
    loss = kind(model, HardNegativeCollator(model, num_negatives=2), scale=50.0, in_batch_negatives=False)
    config = loss.get_config_dict()
    assert (config["scale"], config["in_batch_negatives"], config["similarity_fct"]) == (50.0, False, "cos_sim")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": 0.0}, "scale: over 0, the inverse of the temperature; got 0.0"),
        ({"scale": -20.0}, "scale: over 0.* got -20.0"),
        ({"scale": float("nan")}, "scale: a finite number, got nan"),
        ({"in_batch_negatives": "False"}, "in_batch_negatives: True or False, got 'False'"),
        ({"gather_across_devices": 1}, "gather_across_devices: True or False, got 1"),
        ({"similarity_fct": "cos_sim"}, "similarity_fct: a function of embeddings, got 'cos_sim'"),
        ({"hardness_mode": "all_negatives", "hardness_strength": "5"}, "hardness_strength: a finite number, got '5'"),
    ],
)
@pytest.mark.parametrize("kind", [PositiveAwareMNRL, CachedPositiveAwareMNRL])
def test_settings_that_would_train_something_else_are_errors(
    frozen: SentenceTransformer, kind: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        kind(frozen, HardNegativeCollator(frozen, num_negatives=2), **settings)


@pytest.mark.parametrize("name", ["mini_batch_size", "mini_batch_num_tokens"])
def test_a_mini_batch_holds_something(frozen: SentenceTransformer, name: str) -> None:
    collator = HardNegativeCollator(frozen, num_negatives=2)
    with pytest.raises(InputError, match=f"{name}: a whole number, at least 1, got -1"):
        CachedPositiveAwareMNRL(frozen, collator, **{name: -1})


def test_it_learns(models: Path, tmp_path: Path) -> None:
    model = load_model(models)
    collator = HardNegativeCollator(model, make_miner(tmp_path).fit(rows()))
    loss = PositiveAwareMNRL(model, collator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for epoch in range(8):
        value, _ = value_and_gradients(model, loss, batch_of(collator, rows(), epoch))
        optimizer.step()
        values.append(value)
    assert values[-1] < values[0] / 2


def test_a_collator_that_makes_scores_is_not_taken_over(frozen: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, make_miner(tmp_path).fit(rows()), labels="scores")
    with pytest.raises(InputError, match="give it its own collator"):
        PositiveAwareMNRL(frozen, collator)
    assert collator.labels == "scores"
