"""The collator in the trainers of Sentence Transformers: a few real steps each."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    MultiVectorEncoder,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)
from sentence_transformers.base.modules import Router
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss, ListNetLoss
from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss as RerankerMNRL
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CosineSimilarityLoss,
    GISTEmbedLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
    TripletLoss,
)
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
from transformers import TrainerCallback

from hf_negmine.base.errors import InputError
from hf_negmine.train import (
    CachedPositiveAwareMNRL,
    HardNegativeCollator,
    PositiveAwareMNRL,
    RemineCallback,
    trainer_arguments,
)
from tests.thorough import sample
from tests.train.helpers import (
    CORPUS,
    QUERIES,
    Remembering,
    arguments,
    columns_of,
    load_model,
    logged_losses,
    make_miner,
    rows,
    rows_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


class KilledError(Exception):
    """What stops a run here."""


class KillAfter(TrainerCallback):
    """Stops a run as if it were killed, after the checkpoint of ``step``."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            raise KilledError


def make_trainer(
    model: Any,
    collator: Any,
    data: Any,
    loss: Any,
    args: Any,
    callbacks: Any = (),
    kind: Any = SentenceTransformerTrainer,
) -> Any:
    return kind(
        model=model, args=args, train_dataset=data, loss=loss, data_collator=collator, callbacks=[collator, *callbacks]
    )


def drawn_alone(model: SentenceTransformer, collator: HardNegativeCollator, data: Any, epoch: int) -> Any:
    """What the collator draws for all rows of an epoch, without a trainer."""
    before = collator.epoch
    collator.set_epoch(epoch)
    found = rows_of(columns_of(collator(list(data)), model))
    collator.set_epoch(before)
    return found


def collator_of(model: Any, miner: Any) -> HardNegativeCollator:
    collator = HardNegativeCollator(model, miner)
    collator.set_epoch(0)
    return collator


# ---- epochs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_accumulation_steps": 3}, {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}],
    ids=str,
)
def test_every_epoch_of_a_run_has_its_own_negatives(
    model: SentenceTransformer, tmp_path: Path, settings: dict[str, Any]
) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss = Remembering(model)
    make_trainer(model, collator, rows(), loss, arguments(tmp_path, num_train_epochs=3, **settings)).train()
    assert len(loss.batches) == 12
    epochs = [loss.drawn(first, first + 4) for first in (0, 4, 8)]
    assert [len(epoch) for epoch in epochs] == [16] * 3
    assert epochs == [drawn_alone(model, collator, rows(), epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_stream_with_features_trains(model: SentenceTransformer, tmp_path: Path) -> None:
    stream = rows().to_iterable_dataset()
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss = Remembering(model)
    make_trainer(model, collator, stream, loss, arguments(tmp_path, max_steps=8)).train()
    assert [loss.drawn(0, 4), loss.drawn(4, 8)] == [drawn_alone(model, collator, rows(), epoch) for epoch in (0, 1)]


def test_a_collator_that_is_no_callback_is_an_error(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(tmp_path),
        train_dataset=rows(),
        loss=MultipleNegativesRankingLoss(model),
        data_collator=collator,
    )
    with pytest.raises(InputError, match=r"callbacks=\[collator\]"):
        trainer.train()


def test_a_callback_that_is_added_late_reads_the_prompts_all_the_same(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss = Remembering(model)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(tmp_path, num_train_epochs=1, prompts={"query": "ask ", "positive": "tell "}),
        train_dataset=rows(),
        loss=loss,
        data_collator=collator,
    )
    trainer.add_callback(collator)
    trainer.train()
    for queries, *passages in loss.batches:
        assert all(text.startswith("ask q ") for text in queries)
        assert all(text.startswith("tell d ") for column in passages for text in column)


def test_one_collator_serves_stages_with_prompts_of_their_own(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    losses = [Remembering(model), Remembering(model)]
    stages = [
        make_trainer(model, collator, rows(), loss, arguments(tmp_path, num_train_epochs=1, prompts={"query": prompt}))
        for loss, prompt in zip(losses, ("ask ", "find "), strict=True)
    ]
    for stage in stages:
        stage.train()
    for loss, prompt in zip(losses, ("ask ", "find "), strict=True):
        assert all(text.startswith(f"{prompt}q ") for batch in loss.batches for text in batch[0])


def test_late_interaction_trains_at_the_lengths_of_its_arguments(models: Path, tmp_path: Path) -> None:
    model = MultiVectorEncoder(str(models / "tokens"), device="cpu")
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    args = arguments(tmp_path, MultiVectorEncoderTrainingArguments, max_length={"query": 12, "document": 5})
    collator.on_init_end(args, None, None)
    batch = collator(list(rows(0, 4)))
    assert batch["positive_input_ids"].shape[1] == batch["negative_1_input_ids"].shape[1] == 5
    assert batch["query_input_ids"].shape[1] == 12
    plain = HardNegativeCollator(model, collator.sources[""].miner)
    plain.set_epoch(0)
    assert plain(list(rows(0, 4)))["positive_input_ids"].shape[1] > 5


def test_evaluation_before_during_and_after(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(tmp_path, num_train_epochs=1, eval_strategy="steps", eval_steps=2, eval_on_start=True),
        train_dataset=rows(0, 8),
        eval_dataset=rows(8, 16),
        loss=MultipleNegativesRankingLoss(model),
        data_collator=collator,
        callbacks=[collator],
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    seen = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert seen[0] == pytest.approx(before)
    assert len(seen) >= 2
    assert seen[-1] != pytest.approx(before)


# ---- killed and resumed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "workers"), sample([(6, 2), (3, 0), (4, 0)], 2))
def test_a_resumed_run_continues_the_very_same_losses(models: Path, tmp_path: Path, step: int, workers: int) -> None:
    settings = {"num_train_epochs": 3, "save_steps": step, "save_strategy": "steps", "dataloader_num_workers": workers}

    def begin(folder: str, *callbacks: Any) -> tuple[Any, Remembering]:
        model = load_model(models)
        collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
        loss = Remembering(model)
        return make_trainer(model, collator, rows(), loss, arguments(tmp_path / folder, **settings), callbacks), loss

    whole, expected = begin("whole")
    whole.train()
    assert len(expected.losses) == 12
    killed, _ = begin("killed", KillAfter(step + 1))
    with pytest.raises(KilledError):
        killed.train()
    resumed, loss = begin("killed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{step}"))
    assert loss.batches == expected.batches[step:]
    assert loss.losses == pytest.approx(expected.losses[step:], rel=1e-5)
    assert logged_losses(resumed) == pytest.approx(logged_losses(whole), rel=1e-4)


# ---- prompts and routes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "epochs"),
    [
        ({}, {"per_device_train_batch_size": 8}, [1, 2, 2]),
        ({}, {"gradient_accumulation_steps": 2}, [1, 1, 2, 2, 2, 2]),
        ({"per_device_train_batch_size": 8}, {}, [0, 1, 1, 1, 1, 2, 2, 2, 2]),
    ],
    ids=str,
)
def test_a_run_that_is_resumed_with_other_batches_is_in_the_epoch_of_its_trainer(
    models: Path, tmp_path: Path, first: dict[str, Any], second: dict[str, Any], epochs: list[int]
) -> None:
    """The trainer divides the steps that are done by those of an epoch of now, whatever they were before."""
    for settings, callbacks in ((first, [KillAfter(3)]), (second, [])):
        model = load_model(models)
        collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
        loss, began = Remembering(model), bool(callbacks)
        args = arguments(tmp_path, num_train_epochs=3, save_strategy="steps", save_steps=3, **settings)
        trainer = make_trainer(model, collator, rows(), loss, args, callbacks)
        with pytest.raises(KilledError) if began else contextlib.nullcontext():
            trainer.train(resume_from_checkpoint=None if began else str(tmp_path / "checkpoint-3"))
    drawn = [drawn_alone(model, collator, rows(), epoch) for epoch in range(3)]
    seen = [loss.drawn(batch, batch + 1) for batch in range(len(loss.batches))]
    assert seen == [{query: drawn[epoch][query] for query in batch} for epoch, batch in zip(epochs, seen, strict=True)]


def test_the_trainers_prompts_reach_every_column(model: SentenceTransformer, tmp_path: Path) -> None:
    data = rows().rename_columns({"query": "question", "positive": "answer"})
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(data))
    loss = Remembering(model)
    args = arguments(tmp_path, prompts={"question": "ask ", "answer": "tell "}, max_steps=2)
    make_trainer(model, collator, data, loss, args).train()
    for queries, *passages in loss.batches:
        assert all(text.startswith("ask q ") for text in queries)
        assert [len(column) for column in passages] == [4, 4, 4]
        assert all(text.startswith("tell d ") for column in passages for text in column)


def test_prompts_given_twice_must_agree(model: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    prompts = {"query": "ask ", "positive": "tell "}
    loss = MultipleNegativesRankingLoss(model)
    other = HardNegativeCollator(model, miner, prompts="find ", router_mapping={"query": "document"})
    with pytest.raises(InputError, match=r"prompts: the trainer has .*ask.* the collator 'find '"):
        make_trainer(model, other, rows(), loss, arguments(tmp_path, prompts=prompts))
    with pytest.raises(InputError, match=r"router_mapping: the trainer has .*, the collator \{'query': 'document'\}"):
        make_trainer(model, other, rows(), loss, arguments(tmp_path, router_mapping={"query": "query"}))
    same = HardNegativeCollator(model, miner, prompts=dict(prompts))
    make_trainer(model, same, rows(), loss, arguments(tmp_path, prompts=prompts))
    assert same.prompts == prompts


def two_data_sets() -> datasets.DatasetDict:
    second = rows(8, 16).rename_columns({"query": "question", "positive": "answer"})
    return datasets.DatasetDict(first=rows(0, 8), second=second)


def two_miners(folder: Path) -> dict[str, Any]:
    data = two_data_sets()
    return {name: make_miner(folder / name).fit(data[name]) for name in data}


def test_each_data_set_has_the_prompts_of_its_columns(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, two_miners(tmp_path / "cache"))
    loss = Remembering(model)
    prompts = {"first": {"query": "ask ", "positive": "tell "}, "second": {"question": "find ", "answer": "seek "}}
    make_trainer(
        model, collator, two_data_sets(), loss, arguments(tmp_path, prompts=prompts, num_train_epochs=1)
    ).train()
    seen = set()
    for queries, *passages in loss.batches:
        ask = queries[0].split()[0]
        seen.add(ask)
        tell = {"ask": "tell", "find": "seek"}[ask]
        assert {text.split()[2] in {f"w{3 * i}" for i in range(8)} for text in queries} == {ask == "ask"}
        assert all(text.startswith(f"{ask} q ") for text in queries)
        assert all(text.startswith(f"{tell} d ") for column in passages for text in column)
    assert seen == {"ask", "find"}


@pytest.mark.parametrize("with_losses", [False, True])
def test_each_data_set_has_its_own_miner(model: SentenceTransformer, tmp_path: Path, with_losses: bool) -> None:
    miners = two_miners(tmp_path / "cache")
    collator = HardNegativeCollator(model, miners)
    loss = Remembering(model)
    losses: Any = {"first": loss, "second": Remembering(model)} if with_losses else loss
    make_trainer(model, collator, two_data_sets(), losses, arguments(tmp_path, num_train_epochs=1)).train()
    seen = loss.drawn() | (losses["second"].drawn() if with_losses else {})
    data = two_data_sets()
    expected = {}
    for name in data:
        expected |= drawn_alone(model, collator_of(model, miners[name]), data[name], 0)
    assert seen == expected
    if with_losses:
        assert set(loss.drawn()) == set(QUERIES[:8])


def test_the_trainers_routes_reach_every_column(models: Path, tmp_path: Path) -> None:
    query, document = load_model(models), load_model(models)
    router = Router.for_query_document(query_modules=list(query.children()), document_modules=list(document.children()))
    model = SentenceTransformer(modules=[router], device="cpu")
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss = Remembering(model)
    args = arguments(tmp_path, router_mapping={"query": "query", "positive": "document"}, num_train_epochs=1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    make_trainer(model, collator, rows(), loss, args).train()
    assert loss.tasks == [["query", "document", "document", "document"]] * 4
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.split(".")[2] for name in moved} == {"query", "document"}


# ---- losses ----------------------------------------------------------------------------------------------------


LOSSES: dict[str, tuple[Callable[[Any, Any, Any], Any], dict[str, Any]]] = {
    "MNRL": (lambda model, _, guide: MultipleNegativesRankingLoss(model), {}),
    "CachedMNRL": (lambda model, _, guide: CachedMultipleNegativesRankingLoss(model, mini_batch_size=2), {}),
    "GIST": (lambda model, _, guide: GISTEmbedLoss(model, guide), {"num_negatives": 1}),
    "CachedGIST": (lambda model, _, guide: CachedGISTEmbedLoss(model, guide, mini_batch_size=2), {}),
    "Triplet": (lambda model, _, guide: TripletLoss(model), {"num_negatives": 1}),
    "MarginMSE": (lambda model, _, guide: MarginMSELoss(model), {"labels": "scores"}),
    "PositiveAware": (lambda model, collator, _: PositiveAwareMNRL(model, collator), {}),
    "own only": (lambda model, collator, _: PositiveAwareMNRL(model, collator, in_batch_negatives=False), {}),
    "CachedPositiveAware": (lambda model, collator, _: CachedPositiveAwareMNRL(model, collator, mini_batch_size=3), {}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns(models: Path, model: SentenceTransformer, tmp_path: Path, name: str) -> None:
    make_loss, settings = LOSSES[name]
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()), **settings)
    loss = make_loss(model, collator, load_model(models))
    args = arguments(tmp_path, num_train_epochs=5, learning_rate=3e-3)
    trainer = make_trainer(model, collator, rows(), loss, args)
    trainer.train()
    losses = logged_losses(trainer)
    assert len(losses) == 20
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_labelled_pairs_train(model: SentenceTransformer, tmp_path: Path) -> None:
    mined = make_miner(tmp_path / "cache", format="labeled-pair").mine(rows())
    collator = HardNegativeCollator(model)
    trainer = make_trainer(model, collator, mined, CosineSimilarityLoss(model), arguments(tmp_path, num_train_epochs=1))
    trainer.train()
    assert len(logged_losses(trainer)) == 12


@pytest.mark.parametrize("format", ["n-tuple", "triplet", "labeled-list", "ids"])
def test_mined_rows_train(model: SentenceTransformer, tmp_path: Path, format: Any) -> None:
    miner = make_miner(tmp_path / "cache", format=format, include_scores=True)
    mined = miner.mine(rows())
    tables = {"queries": miner.queries, "corpus": miner.corpus} if format == "ids" else {}
    n = 1 if format == "triplet" else 2
    collator = HardNegativeCollator(model, num_negatives=n, **tables)
    loss = Remembering(model)
    make_trainer(model, collator, mined, loss, arguments(tmp_path, num_train_epochs=1)).train()
    assert all(len(batch) == 2 + n for batch in loss.batches)
    assert set(loss.drawn()) == set(QUERIES)


@pytest.mark.parametrize("refresh", [None, "student", "easy"])
def test_a_trainer_takes_all_it_needs_of_a_collator_at_once(
    model: SentenceTransformer, tmp_path: Path, refresh: Any
) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()), seed=3)
    args = arguments(tmp_path, num_train_epochs=2)
    trainer = SentenceTransformerTrainer(model, args, rows(), **trainer_arguments(collator, refresh=refresh))
    trainer.train()
    refreshed = [entry for entry in trainer.state.log_history if "negatives_changed" in entry]
    assert len(refreshed) == (0 if refresh is None else 1)
    assert isinstance(trainer.loss, PositiveAwareMNRL)
    assert collator.epoch == 1


def test_a_trainer_is_given_a_loss_and_a_callback_of_the_users(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss, remine = Remembering(model), RemineCallback(collator, every_steps=3)
    given = trainer_arguments(collator, loss=loss, refresh=remine)
    assert given == {"loss": loss, "data_collator": collator, "callbacks": [collator, remine]}


def test_a_stored_pool_trains(model: SentenceTransformer, tmp_path: Path) -> None:
    folder = make_miner(tmp_path / "cache").fit(rows()).pool.folder
    collator = HardNegativeCollator(model, folder, num_negatives=3)
    trainer = make_trainer(
        model, collator, rows(), PositiveAwareMNRL(model, collator), arguments(tmp_path, num_train_epochs=1)
    )
    trainer.train()
    assert len(logged_losses(trainer)) == 4


def test_a_miner_on_a_corpus_alone_mines_while_training(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache"))
    loss = Remembering(model)
    args = arguments(tmp_path, num_train_epochs=1, dataloader_num_workers=2)
    make_trainer(model, collator, rows(), loss, args).train()
    fitted = collator_of(model, make_miner(tmp_path / "fitted").fit(rows()))
    assert loss.drawn() == drawn_alone(model, fitted, rows(), 0)


# ---- other models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_loss", "layout"), [(LambdaLoss, "labeled-list"), (ListNetLoss, "labeled-list"), (RerankerMNRL, "n-tuple")]
)
def test_rerankers_train(models: Path, tmp_path: Path, make_loss: Any, layout: Any) -> None:
    torch.manual_seed(0)
    model = CrossEncoder(str(models / "bert"), num_labels=1, device="cpu")
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()), layout=layout)
    args = arguments(tmp_path, CrossEncoderTrainingArguments, num_train_epochs=8, learning_rate=3e-3)
    trainer = make_trainer(model, collator, rows(), make_loss(model), args, kind=CrossEncoderTrainer)
    trainer.train()
    losses = logged_losses(trainer)
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])


def test_rerankers_train_on_labelled_pairs(models: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(models / "bert"), num_labels=1, device="cpu")
    mined = make_miner(tmp_path / "cache", format="labeled-pair").mine(rows())
    args = arguments(tmp_path, CrossEncoderTrainingArguments, max_steps=2)
    collator = HardNegativeCollator(model)
    trainer = make_trainer(model, collator, mined, BinaryCrossEntropyLoss(model), args, kind=CrossEncoderTrainer)
    trainer.train()
    assert len(logged_losses(trainer)) == 2


def test_sparse_models_train(models: Path, tmp_path: Path) -> None:
    modules = [Transformer(str(models / "mlm"), transformer_task="fill-mask"), SpladePooling()]
    model = SparseEncoder(modules=modules, device="cpu")
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model),
        query_regularizer_weight=1e-3,
        document_regularizer_weight=1e-3,
    )
    args = arguments(tmp_path, SparseEncoderTrainingArguments, num_train_epochs=3)
    trainer = make_trainer(model, collator, rows(), loss, args, kind=SparseEncoderTrainer)
    trainer.train()
    losses = logged_losses(trainer)
    assert len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])


def test_the_corpus_is_not_held_by_what_goes_to_workers(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()), labels="keys")
    collator.set_epoch(2)
    collator.model = None  # the model's own size is not the point
    sent = pickle.dumps(collator.sources)
    assert CORPUS[30].encode() not in sent
    again = pickle.loads(sent)[""]
    collator.model = model
    expected = drawn_alone(model, collator, rows(), 1)
    collator.sources = {"": again}
    assert drawn_alone(model, collator, rows(), 1) == expected
