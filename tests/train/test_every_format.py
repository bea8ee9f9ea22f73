"""Whatever `mine` writes trains: every format, short rows and rows without negatives included, on every way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from typer.testing import CliRunner

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.commands.output import save
from hf_negmine.train import HardNegativeCollator, RemineCallback
from tests.thorough import sample
from tests.train.helpers import CORPUS, POSITIVES, QUERIES, Remembering, arguments, load_model, make_miner, rows
from tests.train.test_trainer import make_trainer

N = 6
LEFT: dict[str, dict[str, Any]] = {
    "complete": {"method": "abs:-0.3"},
    "short": {"method": "abs:-0.4", "on_exhausted": "keep"},
    "some without": {"method": "abs:-0.6", "on_exhausted": "keep"},
}


def several() -> datasets.Dataset:
    """Every query with two positives."""
    return datasets.Dataset.from_dict({"query": QUERIES, "positive": [[CORPUS[i], CORPUS[16 + i]] for i in range(16)]})


def mine(folder: Path, left: str, data: datasets.Dataset, **settings: Any) -> tuple[NegativeMiner, datasets.Dataset]:
    settings = {"sampler": "top", "num_negatives": N, **LEFT[left], **settings}
    miner = make_miner(folder, query_column="query", positive_column="positive", **settings)
    return miner, miner.mine(data)


def negatives_of(mined: datasets.Dataset, miner: NegativeMiner) -> dict[str, set[str]]:
    """The negatives that a query has in mined rows, as read by hand."""
    found: dict[str, set[str]] = {}
    for row in mined:
        if miner.config.format == "ids":
            texts = [CORPUS[i] for i in row["document_ids"]][1:]
            query = miner.queries[row["query_id"]]["query"]
        else:
            query = row["query"]
            labels = row.get("labels", row.get("label"))
            if miner.config.format == "labeled-list":
                labels = labels or [1] + [0] * (len(row["positive"]) - 1)
                texts = [text for text, label in zip(row["positive"], labels, strict=True) if not label]
            else:
                texts = [row[name] for name in row if name.startswith("negative") and row[name] is not None]
        found.setdefault(query, set()).update(texts)
    return found


def train(model: Any, tmp_path: Path, mined: Any, collator: HardNegativeCollator, loss: Any, **options: Any) -> Any:
    trainer = make_trainer(model, collator, mined, loss, arguments(tmp_path, num_train_epochs=1, **options))
    trainer.train()
    return trainer


def collator_for(model: Any, miner: NegativeMiner, **settings: Any) -> HardNegativeCollator:
    tables = {"queries": miner.queries, "corpus": miner.corpus} if miner.config.format == "ids" else {}
    return HardNegativeCollator(model, **tables, **settings)


# ---- a trainer of one's own ----------------------------------------------------------------------------------------


ROW_FORMATS = ["n-tuple", "triplet", "labeled-list", "ids"]
CASES = [(format, left, one) for left in LEFT for format in ROW_FORMATS for one in (True, False)]


@pytest.mark.parametrize(("format", "left", "one_positive"), sample(CASES, 3))
def test_mined_rows_reach_the_loss_with_all_their_negatives(
    models: Path, tmp_path: Path, format: Any, left: str, one_positive: bool
) -> None:
    data = rows() if one_positive else several()
    miner, mined = mine(tmp_path / "cache", left, data, format=format, include_scores=one_positive)
    model = load_model(models)
    is_list = format in ("labeled-list", "ids")
    collator = collator_for(model, miner, num_negatives=N if is_list and left != "complete" else None)
    if left == "some without" and format != "triplet":
        with pytest.raises(InputError, match=r"^\d+ of \d+ rows have no negative to train on, the first has the query"):
            train(model, tmp_path, mined, collator, Remembering(model))
        mined = collator.with_negatives(mined)
    expected = negatives_of(mined, miner)
    assert min(len(texts) for texts in expected.values()) >= 1
    assert (min(len(texts) for texts in expected.values()) == N) == (left == "complete")
    loss = Remembering(model)
    train(model, tmp_path, mined, collator, loss)
    assert {len(batch) for batch in loss.batches} == {2 + (1 if format == "triplet" else N)}
    seen: dict[str, set[str]] = {}
    for batch in loss.batches:
        for query, _, *negatives in zip(*batch, strict=True):
            seen.setdefault(query, set()).update(negatives)
    assert seen == expected


@pytest.mark.parametrize(("left", "scores"), [("complete", False), ("some without", True)])
def test_mined_pairs_are_trained_on_as_they_are(models: Path, tmp_path: Path, left: str, scores: bool) -> None:
    _, mined = mine(tmp_path / "cache", left, several(), format="labeled-pair", include_scores=scores)
    model = load_model(models)
    trainer = train(model, tmp_path, mined, HardNegativeCollator(model), CosineSimilarityLoss(model))
    assert trainer.state.global_step == -(-len(mined) // 4)


@pytest.mark.parametrize("format", ["n-tuple", "labeled-list"])
def test_rankings_with_their_positives_train_without_them(models: Path, tmp_path: Path, format: Any) -> None:
    miner, mined = mine(tmp_path / "cache", "complete", rows(), format=format, method="naive", include_positives=True)
    assert any(POSITIVES[QUERIES.index(query)] in texts for query, texts in negatives_of(mined, miner).items())
    model = load_model(models)
    collator, loss = collator_for(model, miner), Remembering(model)
    train(model, tmp_path, collator.with_negatives(mined), collator, loss)
    assert {query for batch in loss.batches for query in batch[0]} == set(QUERIES)
    assert all(own not in others for batch in loss.batches for _, own, *others in zip(*batch, strict=True))


@pytest.mark.parametrize("left", ["short", "some without"])
def test_rerankers_train_on_short_rows(models: Path, tmp_path: Path, left: str) -> None:
    model = CrossEncoder(str(models / "bert"), num_labels=1, device="cpu")
    args = arguments(tmp_path, CrossEncoderTrainingArguments, num_train_epochs=1)
    _, mined = mine(tmp_path / "cache", left, rows())
    collator = HardNegativeCollator(model, layout="labeled-list")
    mined = collator.with_negatives(mined)
    trainer = make_trainer(model, collator, mined, LambdaLoss(model), args, kind=CrossEncoderTrainer)
    trainer.train()
    _, pairs = mine(tmp_path / "pairs", left, rows(), format="labeled-pair")
    collator = HardNegativeCollator(model)
    make_trainer(model, collator, pairs, BinaryCrossEntropyLoss(model), args, kind=CrossEncoderTrainer).train()


def test_short_rows_train_beside_others_and_are_evaluated_on(models: Path, tmp_path: Path) -> None:
    """The trainer names the sets of a DatasetDict by a transform, which the card must go on seeing."""
    _, short = mine(tmp_path / "cache", "short", rows(0, 8))
    _, complete = mine(tmp_path / "cache", "complete", rows(8, 16), num_negatives=2)
    model = load_model(models)
    collator = HardNegativeCollator(model)
    losses = {"short": Remembering(model), "complete": Remembering(model)}
    sets = datasets.DatasetDict(short=short, complete=complete)
    args = arguments(tmp_path, num_train_epochs=1, eval_strategy="epoch", dataloader_num_workers=0)
    trainer = SentenceTransformerTrainer(
        model=model, args=args, train_dataset=sets, eval_dataset=datasets.DatasetDict(short=short, complete=complete),
        loss=losses, data_collator=collator, callbacks=[collator],
    )  # fmt: skip
    trainer.train()
    assert {len(batch) for batch in losses["short"].batches} == {2 + N}
    assert {len(batch) for batch in losses["complete"].batches} == {4}
    model.save(str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "#### short" in card
    assert f"* Size: {len(short)} training samples" in card
    assert "<code>negative_6</code>" in card
    assert short["negative_6"][:].count(None) > 0  # as they were


def test_a_card_is_made_of_rows_with_nulls_in_columns_that_are_not_trained_on(models: Path, tmp_path: Path) -> None:
    _, mined = mine(tmp_path / "cache", "short", rows())
    mined = mined.add_column("title", [None, "sea"] * 8).add_column("year", [1999, None] * 8)
    mined = mined.add_column("tags", [["a"], None] * 8)
    model = load_model(models)
    loss = Remembering(model)
    train(model, tmp_path, mined, HardNegativeCollator(model, query_column="query", positive_column="positive"), loss)
    assert {len(batch) for batch in loss.batches} == {2 + N}


# ---- rows without a negative, elsewhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_a_query_for_which_a_pool_has_nothing_is_said_before_the_first_step(
    models: Path, tmp_path: Path, positive_score: Any
) -> None:
    data = several()
    miner = make_miner(tmp_path / "cache", positive_score=positive_score, **LEFT["some without"]).fit(data)
    lists = make_miner(tmp_path / "cache", format="ids", positive_score=positive_score, **LEFT["some without"]).mine(
        data
    )
    without = {row["query_id"] for row in lists if len(row["document_ids"]) == 1}
    model = load_model(models)
    collator, loss = HardNegativeCollator(model, miner), Remembering(model)
    with pytest.raises(InputError, match=rf"^{len(without)} of 16 rows have no negative .* fill='random'"):
        train(model, tmp_path, data, collator, loss)
    assert not loss.batches
    kept = collator.with_negatives(data)
    assert set(kept["query"]) == {query for i, query in enumerate(QUERIES) if i not in without}
    train(model, tmp_path, kept, collator, loss)
    assert loss.batches


def test_random_passages_make_up_for_rows_without(models: Path, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache", **LEFT["some without"]).fit(rows())
    model = load_model(models)
    collator, loss = HardNegativeCollator(model, miner, fill="random"), Remembering(model)
    trainer = make_trainer(
        model, collator, rows(), loss, arguments(tmp_path), callbacks=[RemineCallback(collator, progress=False)]
    )
    trainer.train()
    assert {query for batch in loss.batches for query in batch[0]} == set(QUERIES)


def test_a_refresh_leaves_every_query_what_it_had(models: Path, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache", **LEFT["some without"]).fit(rows())
    model = load_model(models)
    collator, loss = HardNegativeCollator(model, miner), Remembering(model)
    kept = collator.with_negatives(rows())
    assert 0 < len(kept) < 16
    remine = RemineCallback(collator, at_start=True, progress=False)
    make_trainer(model, collator, kept, loss, arguments(tmp_path), callbacks=[remine]).train()
    assert len(remine.history) == 2
    assert {query for batch in loss.batches for query in batch[0]} == set(kept["query"])


def test_a_stream_says_so_at_the_row(models: Path, tmp_path: Path) -> None:
    _, mined = mine(tmp_path / "cache", "some without", rows())
    model = load_model(models)
    collator = HardNegativeCollator(model)
    with pytest.raises(InputError, match="a row has no negative to repeat"):
        train(model, tmp_path, mined.to_iterable_dataset(), collator, Remembering(model), max_steps=4)


# ---- hf-negmine train ----------------------------------------------------------------------------------------------


@pytest.fixture
def student(models: Path) -> Path:
    return models / "dense"


@pytest.mark.parametrize(
    ("format", "left", "scores"),
    [
        ("n-tuple", "some without", True), ("n-tuple", "complete", False), ("triplet", "some without", True),
        ("labeled-list", "short", True), ("labeled-list", "some without", False), ("labeled-pair", "short", False),
        ("labeled-pair", "complete", True), ("ids", "some without", True),
    ],
)  # fmt: skip
def test_the_command_trains_on_a_written_folder(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, left: str, scores: bool
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("TQDM_DISABLE", "0")
    miner, mined = mine(tmp_path / "cache", left, several(), format=format, include_scores=scores)
    save(mined, miner, tmp_path / "mined")
    command = ["train", "--mined", str(tmp_path / "mined"), "--model", str(student), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "-b", "16"])
    if format == "labeled-pair" and scores:
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: the rows are pairs with a label (['query', 'positive', 'score']) that")
        assert "mine without --include-scores" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        return
    assert result.exit_code == 0, result.output
    assert ("because they lack negatives" in result.stdout) == (left == "some without" and format != "triplet")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f", {1 if format == 'triplet' else N} negative" in card


def test_the_command_trains_on_rows_of_a_file(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that went through JSONL, with nulls, and the columns of another tool."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    _, mined = mine(tmp_path / "cache", "short", rows())
    mined.to_json(tmp_path / "mined.jsonl")
    lists = [
        {"query": row["query"], "pos": [row["positive"]], "neg": [row[f"negative_{i}"] for i in (1, 2, 3)]}
        for row in mined
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists), encoding="utf-8")
    for name, given, said in (
        ("mined", [], f"- **Rows:** 16, {N} negatives each"),
        (
            "lists",
            ["--query-column", "query", "--positive-column", "pos", "-n", "3"],
            "- **Rows:** 16, 3 negatives each",
        ),
    ):
        command = ["train", str(tmp_path / f"{name}.jsonl"), "--model", str(student), "-o", str(tmp_path / name)]
        result = CliRunner().invoke(app, [*command, *given, "--device", "cpu", "-q"])
        assert result.exit_code == 0, result.output
        assert said in (tmp_path / name / "README.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "none"), *given[:-2], "--device", "cpu"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: num_negatives: how many negatives per row? Rows with lists do not say, and")


def test_labelled_pairs_of_any_order_train_by_the_command(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    _, mined = mine(tmp_path / "cache", "complete", several(), format="labeled-pair")
    mined.shuffle(seed=1).to_parquet(tmp_path / "pairs.parquet")
    command = ["train", str(tmp_path / "pairs.parquet"), "--model", str(student), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "-q"])
    assert result.exit_code == 0, result.output
    queries = len(set(mined["query"]))
    assert f"- **Rows:** {queries}, {N} negatives each" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


# ---- Sentence Transformers' own collator ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["n-tuple", "triplet"])
def test_complete_rows_train_without_our_collator(model: SentenceTransformer, tmp_path: Path, format: Any) -> None:
    _, mined = mine(tmp_path / "cache", "complete", rows(), format=format)
    loss = Remembering(model)
    args = arguments(tmp_path, num_train_epochs=1)
    SentenceTransformerTrainer(model=model, args=args, train_dataset=mined, loss=loss).train()
    assert {len(batch) for batch in loss.batches} == {2 + (1 if format == "triplet" else N)}
