"""The settings of the losses: literal matrices, Sentence Transformers' own losses, and plain Python."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import dot_score

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.train import CachedPositiveAwareMNRL, HardNegativeCollator, PositiveAwareMNRL
from tests.another_device import DEVICE, AnotherDevice
from tests.train.helpers import CORPUS, QUERIES, make_miner
from tests.train.test_losses import batch_of, clashing, value_and_gradients

ALL: tuple[Any, ...] = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
DATA = [{"query": QUERIES[i], "positive": CORPUS[i], "negatives": CORPUS[20 + 2 * i : 22 + 2 * i]} for i in range(5)]
KINDS = (PositiveAwareMNRL, CachedPositiveAwareMNRL)
OURS: list[dict[str, Any]] = [
    {"student_margin": 0.0},
    {"hardness_mode": "all_negatives", "hardness_strength": 9.0, "student_margin": 0.1},
    {"hardness_mode": "hard_negatives", "hardness_strength": 5.0, "in_batch_negatives": False},
    {"directions": ALL, "student_margin": 0.05},
    {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
]


# ---- literal matrices ------------------------------------------------------------------------------------------------


def loss_of(model: Any, kind: Any, similarities: list[list[float]], labels: Any = None, **settings: Any) -> float:
    """The loss with scale 1 of two or three rows with these similarities to positives, then first negatives, and so on.

    With a query for each axis, a passage's coordinates are its similarities.
    """
    table = torch.tensor(similarities)
    rows, n = len(table), table.shape[1] // len(table)
    loss = kind(
        model, HardNegativeCollator(model, num_negatives=max(n - 1, 1)), similarity_fct=dot_score, scale=1.0, **settings
    )
    embeddings = [torch.eye(rows), *table.T.split(rows)]
    keys = torch.arange(rows * (1 + n)).reshape(1 + n, rows).T.contiguous() if labels is None else labels
    if kind is PositiveAwareMNRL:
        return float(loss.compute_loss_from_embeddings(embeddings, keys))
    return float(loss.calculate_loss([list(column.split(1)) for column in embeddings], keys))


def softmax_loss(positive: float, *others: float) -> float:
    return -math.log(math.exp(positive) / sum(math.exp(one) for one in (positive, *others)))


P = [[0.9, 0.8, 0.5, 0.1], [1.2, 1.0, 0.2, 0.6]]
"""Two rows: their positives (0.9 and 1.0), and one negative each (0.5 and 0.6)."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [(0.9, 0.8, 0.5, 0.1), (1.0, 1.2, 0.2, 0.6)]),
        ({"student_margin": 0.1}, [(0.9, 0.8, 0.5, 0.1), (1.0, 0.2, 0.6)]),
        ({"student_margin": 0.3}, [(0.9, 0.8, 0.5, 0.1), (1.0, 1.2, 0.2, 0.6)]),
        ({"student_margin": -0.5}, [(0.9, 0.5, 0.1), (1.0, 0.2, 0.6)]),  # a row's own negatives stay
        ({"hardness_mode": "hard_negatives", "hardness_strength": 2.0}, [(0.9, 0.8, 1.5, 0.1), (1.0, 1.2, 0.2, 1.8)]),
        (
            {"hardness_mode": "in_batch_negatives", "hardness_strength": 2.0},
            [(0.9, 2.4, 0.5, 0.3), (1.0, 3.6, 0.6, 0.6)],
        ),
        ({"hardness_mode": "all_negatives", "hardness_strength": 2.0}, [(0.9, 2.4, 1.5, 0.3), (1.0, 3.6, 0.6, 1.8)]),
        (
            {"hardness_mode": "all_negatives", "hardness_strength": 2.0, "student_margin": 0.1},
            [(0.9, 2.4, 1.5, 0.3), (1.0, 0.6, 1.8)],  # what is left out stays out
        ),
        (
            {"hardness_mode": "all_negatives", "hardness_strength": 2.0, "in_batch_negatives": False},
            [(0.9, 1.5), (1.0, 1.8)],
        ),
        # queries are orthogonal: 0 to each other; documents: (0.9, 1.2).(0.8, 1.0) = 1.92, and so on
        ({"directions": ("query_to_doc", "query_to_query")}, [(0.9, 0.8, 0.5, 0.1, 0.0), (1.0, 1.2, 0.2, 0.6, 0.0)]),
        (
            {"directions": ("query_to_doc", "doc_to_query")},
            [(0.9, 0.8, 0.5, 0.1, 0.9, 1.2), (1.0, 1.2, 0.2, 0.6, 0.8, 1.0)],
        ),
        (
            {"directions": ("query_to_doc", "doc_to_doc")},
            [(0.9, 0.8, 0.5, 0.1, 1.92, 0.81), (1.0, 1.2, 0.2, 0.6, 1.92, 0.6)],
        ),
        (
            {"directions": ALL, "student_margin": 0.25},
            [(0.9, 0.8, 0.5, 0.1, 0.0, 0.9, 0.81), (1.0, 1.2, 0.2, 0.6, 0.0, 0.8, 1.0, 0.6)],
        ),
    ],
)
def test_small_matrices(frozen: Any, kind: Any, settings: dict[str, Any], rows: list[tuple[float, ...]]) -> None:
    expected = np.mean([softmax_loss(*row) for row in rows])
    assert loss_of(frozen, kind, P, **settings) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_count_a_rows_own_negatives(frozen: Any, kind: Any) -> None:
    weights = np.array([[0.25], [0.0]])
    keys = torch.cat([torch.tensor([[0, 2, 4], [1, 3, 5]]), torch.from_numpy(weights.view(np.int64))], dim=1)
    expected = [softmax_loss(0.9, 0.8, 0.5 + math.log(0.25), 0.1), softmax_loss(1.0, 1.2, 0.2)]
    assert loss_of(frozen, kind, P, keys) == pytest.approx(np.mean(expected), rel=1e-5)
    own = [softmax_loss(0.9, 0.5 + math.log(0.25)), 0.0]
    assert loss_of(frozen, kind, P, keys, in_batch_negatives=False) == pytest.approx(np.mean(own), rel=1e-5)
    with AnotherDevice():
        loss = kind(frozen, HardNegativeCollator(frozen, num_negatives=1), similarity_fct=dot_score, scale=1.0)
        columns = [torch.eye(2).to(DEVICE), *(part.to(DEVICE) for part in torch.tensor(P).T.split(2))]
        batch = loss.false_negatives.batch(columns[0], columns[1:], keys.to(DEVICE))
        found = float(loss.false_negatives.losses(batch, slice(None)).mean())
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_that_is_elsewhere_in_the_batch_has_its_own_weight(frozen: Any, kind: Any) -> None:
    """Row 1's negative is row 0's positive: it counts once, as row 1's negative."""
    weights = np.array([[1.0], [0.5]])
    keys = torch.cat([torch.tensor([[0, 2, 4], [1, 3, 2]]), torch.from_numpy(weights.view(np.int64))], dim=1)
    table = [[0.9, 0.8, 0.5, 0.9], [0.6, 1.0, 0.2, 0.6]]
    expected = [softmax_loss(0.9, 0.8, 0.5), softmax_loss(1.0, 0.2, 0.6 + math.log(0.5))]
    assert loss_of(frozen, kind, table, keys) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_is_left_out_wherever_its_positive_would_be(frozen: Any, kind: Any) -> None:
    """Rows 0 and 1 have the same positive, and rows 1 and 2 the same query."""
    keys = torch.tensor([[0, 9], [1, 9], [1, 8]])
    table = [[0.9, 0.9, 0.3], [0.7, 0.7, 0.8], [0.5, 0.5, 0.6]]
    with_queries = [softmax_loss(0.9, 0.3, 0.0), softmax_loss(0.7), softmax_loss(0.6)]
    # Row 0 keeps query 2, whose positive is another. Rows 1 and 2 keep none: they know all these positives.
    found = loss_of(frozen, kind, table, keys, directions=("query_to_doc", "query_to_query"))
    assert found == pytest.approx(np.mean(with_queries), rel=1e-5)
    # Backward, the positive of row 2 keeps query 0, and each its own.
    backward = [softmax_loss(0.9, 0.3, 0.9), softmax_loss(0.7, 0.7), softmax_loss(0.6, 0.6, 0.3)]
    found = loss_of(frozen, kind, table, keys, directions=("query_to_doc", "doc_to_query"))
    assert found == pytest.approx(np.mean(backward), rel=1e-5)
    # Between documents, (0.9, 0.7, 0.5).(0.3, 0.8, 0.6) = 1.13 is the only pair of which one is not relevant.
    documents = [softmax_loss(0.9, 0.3, 1.13), softmax_loss(0.7), softmax_loss(0.6)]
    found = loss_of(frozen, kind, table, keys, directions=("query_to_doc", "doc_to_doc"))
    assert found == pytest.approx(np.mean(documents), rel=1e-5)


# ---- Sentence Transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"hardness_mode": mode, "hardness_strength": 7.0}
            for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")
        ),
        *({"directions": ("query_to_doc", *more)} for n in (1, 2, 3) for more in itertools.combinations(ALL[1:], n)),
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
        {"directions": ALL, "hardness_mode": "all_negatives", "hardness_strength": 3.0},
    ],
    ids=str,
)
def test_with_nothing_to_leave_out_settings_mean_what_they_do_there(
    model: SentenceTransformer, kind: Any, settings: dict[str, Any]
) -> None:
    collator = HardNegativeCollator(model, num_negatives=2)
    small = {"mini_batch_size": 2} if kind is CachedPositiveAwareMNRL else {}
    batch = batch_of(collator_of(kind, model, collator), DATA)
    value, gradients = value_and_gradients(model, kind(model, collator, **settings, **small), batch)
    expected, expected_gradients = value_and_gradients(model, MultipleNegativesRankingLoss(model, **settings), batch)
    assert value == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6)


def collator_of(kind: Any, model: Any, collator: HardNegativeCollator) -> HardNegativeCollator:
    kind(model, collator)  # tells it to add keys
    return collator


# ---- one form and the other ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", OURS, ids=str)
@pytest.mark.parametrize("weighed", [False, True])
def test_in_mini_batches_every_setting_is_the_same(
    model: SentenceTransformer, miner: NegativeMiner, settings: dict[str, Any], weighed: bool
) -> None:
    data: Any = clashing()
    collator = HardNegativeCollator(model, miner.fit(data))
    if weighed:
        data = [{**row, "weights": [0.1 * place, 1.5]} for place, row in enumerate(DATA)]
        collator = HardNegativeCollator(model, num_negatives=2)
    whole = PositiveAwareMNRL(model, collator, **settings)
    batch = batch_of(collator, data)
    expected, expected_gradients = value_and_gradients(model, whole, batch)
    plain, _ = value_and_gradients(model, PositiveAwareMNRL(model, collator), batch)
    assert expected != pytest.approx(plain, rel=1e-6) or settings == {"student_margin": 0.0}
    for size in (1, 2, 64):
        parts = CachedPositiveAwareMNRL(model, collator, mini_batch_size=size, **settings)
        value, gradients = value_and_gradients(model, parts, batch)
        assert value == pytest.approx(expected, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("settings", [*OURS, {}], ids=str)
def test_gradients_are_those_of_differences(frozen: Any, settings: dict[str, Any]) -> None:
    """Hardness is a constant to the gradient, as in Sentence Transformers; the rest is differentiated."""
    collator = HardNegativeCollator(frozen, num_negatives=1)
    hardness = settings.get("hardness_strength", 0.0)
    loss = PositiveAwareMNRL(frozen, collator, scale=3.0, **settings)
    torch.manual_seed(0)
    embeddings = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.from_numpy(np.array([[0.3], [1.0], [2.0]]).view(np.int64))
    keys = torch.cat([torch.arange(9).reshape(3, 3).T.contiguous(), weights], dim=1)
    if hardness:
        value = loss.compute_loss_from_embeddings(embeddings, keys)
        value.backward()
        assert all(torch.isfinite(column.grad).all() for column in embeddings)  # type: ignore[arg-type]
        return
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(list(columns), keys), embeddings)


# ---- weights from rows to the loss -----------------------------------------------------------------------------------


def weights_in(collator: HardNegativeCollator, data: Any) -> list[list[float]]:
    _, labels = batch_of(collator, data)
    n = (labels.shape[1] - 2) // 2
    found: list[list[float]] = labels[:, 2 + n :].contiguous().view(torch.float64).tolist()
    return found


def test_weights_stay_with_their_negatives(frozen: Any) -> None:
    collator = collator_of(PositiveAwareMNRL, frozen, HardNegativeCollator(frozen, num_negatives=3))
    row = {"query": QUERIES[0], "positive": CORPUS[0], "negatives": [CORPUS[20], CORPUS[0], CORPUS[21], CORPUS[22]]}
    assert weights_in(collator, [{**row, "weights": [0.1, 0.2, 0.3, 0.4]}]) == [[0.1, 0.3, 0.4]]  # the positive is out
    short = {**row, "negatives": CORPUS[20:22], "weights": [0.1, 0.2]}
    assert weights_in(collator, [short]) == [[0.1, 0.2, 0.1]]
    columns = {"query": QUERIES[0], "positive": CORPUS[0], "negative_1": CORPUS[20], "negative_2": CORPUS[21]}
    assert weights_in(collator, [{**columns, "weights": np.array([1, 0])}]) == [[1.0, 0.0, 1.0]]
    sampled = HardNegativeCollator(frozen, num_negatives=2, sampler="sampled:9@inf")
    collator_of(PositiveAwareMNRL, frozen, sampled)
    many = {**row, "negatives": CORPUS[20:29], "weights": [place / 10 for place in range(9)]}
    features, labels = batch_of(sampled, [many])
    drawn = weights_in(sampled, [many])[0]
    from tests.train.helpers import read_texts

    texts = [read_texts(frozen, column["input_ids"])[0] for column in features[2:]]
    assert [CORPUS[20 + round(10 * weight)] for weight in drawn] == texts
    assert labels.shape == (1, 6)


@pytest.mark.parametrize(
    "weights", [[0.1], [0.1, -1.0], [0.1, float("nan")], [0.1, float("inf")], None, "ab", [0.1, "b"], [[0.1], [0.2]]]
)
def test_wrong_weights_are_an_error(frozen: Any, weights: Any) -> None:
    collator = collator_of(PositiveAwareMNRL, frozen, HardNegativeCollator(frozen, num_negatives=2))
    collator.set_epoch(0)
    with pytest.raises(InputError, match=r"'weights' holds .* for '.*', expected 2 finite numbers, 0 or more"):
        collator([{**DATA[0], "weights": weights}])


def test_weights_that_nothing_reads_are_an_error(frozen: Any, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, num_negatives=2)
    collator.set_epoch(0)
    with pytest.raises(InputError, match="which only PositiveAwareMNRL and its cached form read"):
        collator([{**DATA[0], "weights": [1.0, 1.0]}])
    pairs = datasets.Dataset.from_dict({"query": QUERIES[:3], "positive": CORPUS[:3], "weights": [[1.0]] * 3})
    mined = HardNegativeCollator(frozen, make_miner(tmp_path).fit(pairs.remove_columns("weights")))
    mined.set_epoch(0)
    with pytest.raises(InputError, match="for rows with negatives of their own"):
        mined(list(pairs))


# ---- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hardness_mode": "hard", "hardness_strength": 1.0}, "hardness_mode"),
        ({"hardness_mode": "hard_negatives"}, "come together"),
        ({"hardness_strength": 5.0}, "come together"),
        ({"hardness_mode": "hard_negatives", "hardness_strength": -1.0}, "0 or more; got -1.0"),
        ({"student_margin": float("nan")}, "student_margin: a finite number, got nan"),
        ({"student_margin": "a"}, "student_margin: a finite number, got 'a'"),
        (
            {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0, "in_batch_negatives": False},
            "take 'hard_negatives'",
        ),
        ({"directions": ("query_to_query",)}, "'query_to_doc' is always among them"),
        ({"directions": "query_to_doc"}, "a sequence of names"),
        ({"directions": ("query_to_doc", "doc_to_docs")}, "directions"),
        ({"directions": ALL, "partition_mode": "per_direction"}, "take partition_mode='joint'"),
        ({"directions": ALL, "in_batch_negatives": False}, "in_batch_negatives=False leaves nothing"),
        ({"student_margin": 0.1, "in_batch_negatives": False}, "student_margin=0.1"),
    ],
)
def test_settings_that_do_not_go_together(frozen: Any, kind: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(frozen, HardNegativeCollator(frozen, num_negatives=2), **settings)


def test_the_card_shows_what_differs_from_the_defaults(frozen: Any) -> None:
    collator = HardNegativeCollator(frozen, num_negatives=2)
    assert "hardness_mode" not in PositiveAwareMNRL(frozen, collator).get_config_dict()
    loss = PositiveAwareMNRL(frozen, collator, hardness_mode="all_negatives", hardness_strength=9.0, directions=ALL)
    shown = loss.get_config_dict()
    assert (shown["hardness_mode"], shown["hardness_strength"]) == ("all_negatives", 9.0)
    assert (shown["directions"], shown["partition_mode"]) == (list(ALL), "joint")
