"""The reranker recipe: its file says arguments that exist, its loss is InfoNCE, and a small study runs and goes on."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, CrossEncoderTrainingArguments
from typer.testing import CliRunner

from hf_negmine import NegativeMiner
from hf_negmine.base.devices import without_data_parallel
from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.teachers import DenseTeacher
from recipes.common.config import load_recipe, read_yaml
from recipes.common.data import TestSet, TrainingSet, load_test, load_training
from recipes.common.sets import SETS
from recipes.common.training import Training, arguments
from recipes.reranker import study
from recipes.reranker.evaluation import find_candidates, ndcg
from recipes.reranker.loss import RowInfoNCE
from recipes.reranker.plan import Plan
from recipes.reranker.recipe import Base, FirstStage, Negatives, Reranker
from recipes.reranker.run import app
from recipes.reranker.study import run
from recipes.reranker.training import make_reranker, mine
from tests.recipes.helpers import assert_documented, changed, write_beir
from tests.train.helpers import CORPUS, POSITIVES, QUERIES

RECIPE = Path(__file__).parents[2] / "recipes" / "reranker" / "recipe.yaml"
SCALES = [None, *read_yaml(RECIPE)["scales"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BEIR folder ``words``: 12 training queries with a second positive for one, 4 test queries, 40 passages."""
    folder = tmp_path_factory.mktemp("data") / "words"
    train, test = [(i, i) for i in range(12)] + [(0, 39)], [(i, i) for i in range(12, 16)] + [(12, 38)]
    write_beir(folder, CORPUS, QUERIES, {"train": train, "test": test})
    return folder.parent


@pytest.fixture
def tiny(encoder: str) -> Reranker:
    """The small recipe, with the tiny encoder and one set of words."""
    small = load(scale="small")
    tiny_encoder = dataclasses.replace(small.teacher, model=encoder, max_length=32)
    return dataclasses.replace(
        small,
        base=Base(encoder, None, 32),
        training_sets=(TrainingSet("words", 12, None),),
        test_sets=(TestSet("words", "test", 4),),
        teacher=tiny_encoder,
        first_stage=FirstStage(None, 10),
        negatives=(
            Negatives("random", "random", "naive", "sampled:20@inf"),
            Negatives("perc_pos", "teacher", "perc_pos:0.95", "sampled:8"),
        ),
        num_negatives=2,
        training=dataclasses.replace(small.training, per_device_train_batch_size=4, num_train_epochs=2, bf16=False),
        seeds=(0, 1),
    )


def load(scale: str | None = None) -> Reranker:
    return load_recipe(RECIPE, Reranker, scale=scale)


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_every_value_is_taken(scale: str | None, tmp_path: Path) -> None:
    recipe = load(scale)
    training = dataclasses.replace(recipe.training, bf16=False)  # of the machine that tests
    assert (
        arguments(CrossEncoderTrainingArguments, training, 3, tmp_path).learning_rate == recipe.training.learning_rate
    )
    assert arguments(CrossEncoderTrainingArguments, training, 3, tmp_path).get_warmup_steps(1000) == 100
    for kind in recipe.negatives:
        NegativeMiner(
            "random", method=kind.method, sampler=kind.sampler, num_negatives=recipe.num_negatives, cache_dir=tmp_path
        )
    for encoder in (recipe.teacher, recipe.first_stage.encoder):
        if encoder is not None:
            DenseTeacher(**dataclasses.asdict(encoder))  # opened when it is needed


def test_a_process_trains_on_one_gpu(tmp_path: Path) -> None:
    """Where a trainer sees two it would take DataParallel, and hand the loss a part of the batch."""
    made = arguments(CrossEncoderTrainingArguments, dataclasses.replace(load().training, bf16=False), 3, tmp_path)
    assert made.n_gpu <= 1
    made._n_gpu = 2
    without_data_parallel(made)
    assert made.n_gpu == 1


def test_the_settings_are_those_of_the_trainer_and_the_teacher() -> None:
    known = {field.name for field in dataclasses.fields(CrossEncoderTrainingArguments)}
    recipe = load()
    assert set(dataclasses.asdict(recipe.training)) <= known
    assert set(dataclasses.asdict(recipe.teacher)) <= set(inspect.signature(DenseTeacher).parameters)


def test_the_full_scale_trains_on_sets_of_the_hub() -> None:
    assert {one.name for one in load().training_sets} <= set(SETS)


def test_every_value_is_documented() -> None:
    recipe = load()
    parts: list[Any] = [recipe, recipe.base, recipe.teacher, recipe.first_stage, recipe.training, recipe.pace]
    parts += [recipe.training_sets[0], recipe.test_sets[0], recipe.negatives[0]]
    assert_documented(parts)


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("num_negatives: 4", "num_negatives: 0", "num_negatives: expected more than 0, found 0"),
        ("temperature: 1.0", "temperature: 0", "temperature: expected more than 0, found 0"),
        ("seeds: [0]", "seeds: [1, 1]", r"seeds: each once, got \[1, 1\]"),
        ("  - name: naive", "  - name: random", "negatives: at least one, each once"),
        ("  - name: naive", "  - name: a/b", r"negatives\[1\].name: String should match pattern"),
        ("    method: perc_pos:0.95", "    method: perc_pos:95", r"negatives\[2\].method: .*for 95 % give 0.95"),
        ("  trained: 200", "  trained: 0", "pace.trained: expected more than 0, found 0"),
        ("  learning_rate: 2e-5", "  learning_rate: .inf", "training.learning_rate: expected a finite number"),
        ("  warmup_steps: 0.1", "  warmup_steps: -1", "warmup_steps: expected 0 or more"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(line: str, instead: str, message: str, tmp_path: Path) -> None:
    path = changed(RECIPE, tmp_path, line, instead)
    with pytest.raises(InputError, match=message):
        load_recipe(path, Reranker)


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("negatives", [1, 3])
def test_the_loss_is_infonce_over_the_row(encoder: str, negatives: int, temperature: float) -> None:
    model = make_reranker(encoder, Base(encoder, None, 32), seed=1)
    columns = [QUERIES[:4], *(CORPUS[4 * part : 4 * part + 4] for part in range(1 + negatives))]
    loss = RowInfoNCE(model, temperature)(columns, None)

    logits = torch.stack([_logits(model, columns[0], passages) for passages in columns[1:]], dim=1) / temperature
    by_hand = -(logits[:, 0] - torch.logsumexp(logits, dim=1)).mean()
    assert logits.std() > 1e-3
    torch.testing.assert_close(loss, by_hand)

    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    found, expected = (torch.autograd.grad(value, parameters, allow_unused=True) for value in (loss, by_hand))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def _logits(model: CrossEncoder, queries: list[str], passages: list[str]) -> torch.Tensor:
    scores: torch.Tensor = model(model.preprocess(list(zip(queries, passages, strict=True))))["scores"][:, 0]
    return scores


def test_seeds_make_the_head_and_nothing_else(encoder: str) -> None:
    base = Base(encoder, None, 32)
    first, again, other = (make_reranker(encoder, base, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {name.partition(".")[0] for name in first if not torch.equal(first[name], other[name])} == {"2"}


# ---- the measure ----------------------------------------------------------------------------------------------------


def test_ndcg_by_hand() -> None:
    order = np.array([False, True, False, True])
    assert ndcg(order, 3) == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / 2))
    assert ndcg(np.array([True] * 12), 12) == 1.0
    assert ndcg(np.array([False] * 10 + [True]), 1) == 0.0


def test_the_first_stage_is_measured_as_sentence_transformers_does(encoder: str, data: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from hf_negmine.train.evaluation import beir_evaluator

    test = load_test(TestSet("words", "test", 4), data)
    found = find_candidates(test, DenseTeacher(encoder, dtype="float32"), 20, tmp_path)
    evaluator = beir_evaluator(data / "words", split="test")
    theirs = evaluator(SentenceTransformer(encoder, device="cpu"))
    assert found.first_stage == pytest.approx(theirs[evaluator.primary_metric])
    assert 0 < found.first_stage < found.best <= 1
    assert [len(texts) for texts in found.passages] == [20] * 4


def test_relevant_passages_that_were_not_found_count_as_missed(encoder: str, data: Path, tmp_path: Path) -> None:
    test = load_test(TestSet("words", "test", 4), data)
    found = find_candidates(test, "random", 3, tmp_path)
    place = found.queries.index(QUERIES[12])
    assert found.n_relevant[place] == 2
    assert found.best == pytest.approx(
        np.mean([ndcg(np.sort(own)[::-1], n) for own, n in zip(found.relevant, found.n_relevant, strict=True)])
    )
    assert found.best < 1


# ---- the data -------------------------------------------------------------------------------------------------------


def test_rows_have_one_positive_and_are_the_same_in_any_order(data: Path, tmp_path: Path) -> None:
    whole = load_training(TrainingSet("words", 100, None), data)
    assert sorted(whole.rows["query"]) == sorted(QUERIES[:12])
    assert dict(zip(whole.rows["query"], whole.rows["positive"], strict=True))[QUERIES[0]] == POSITIVES[0]
    assert len(whole.corpus) == 40

    few = load_training(TrainingSet("words", 5, 8), data)
    assert few.rows["query"] == whole.rows["query"][:5]
    assert len(few.corpus) == 8
    assert set(few.rows["positive"]) <= set(few.corpus.to_pylist()) <= set(CORPUS)

    other = tmp_path / "words"
    (other / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        head, *lines = (data / "words" / name).read_text(encoding="utf-8").splitlines()
        lines = [head, *lines[::-1]] if name.endswith("tsv") else [*lines[::-1], head]
        (other / name).write_text("\n".join(lines), encoding="utf-8")
    assert load_training(TrainingSet("words", 5, 8), tmp_path).rows["query"] == few.rows["query"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("", r"--data: .* lacks the folder nfcorpus, it holds \['words'\]"),
        ("nowhere", "--data: no folder .*nowhere, expected one with the BEIR folder nfcorpus"),
        ("words", r"--data: .*words lacks the folder nfcorpus, it holds \['qrels'\]"),
    ],
    ids=["without-the-set", "no-folder", "the-set-itself"],
)
def test_a_wrong_data_folder_is_one_error(folder: str, message: str, data: Path, tmp_path: Path) -> None:
    arguments = ["--scale", "small", "--output", str(tmp_path / "output")]
    result = CliRunner().invoke(app, [*arguments, "--data", str(data / folder)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert re.search(message, result.stderr)


def test_the_small_scale_says_that_it_needs_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training_sets: 'nfcorpus' is not among .* as a BEIR folder with --data"):
        run(load("small"), tmp_path)


@pytest.mark.parametrize("passages", [None, 12])
def test_no_positive_of_a_query_becomes_its_negative(
    passages: int | None, tiny: Reranker, data: Path, tmp_path: Path
) -> None:
    words = load_training(TrainingSet("words", 12, passages), data)
    assert words.hidden == {QUERIES[0]: frozenset({CORPUS[39]})}
    for kind in (tiny.negatives[0], Negatives("naive", "teacher", "naive", "top")):
        miner = mine(tiny, DenseTeacher(tiny.teacher.model), kind, [words], tmp_path)["words"]
        assert len(miner.corpus) == len(words.corpus)
        every = miner.pool.select("naive", "top", len(words.corpus) - 2, positive_score="min")
        query = miner.queries["query"].index(QUERIES[0])
        chosen = every.passages[every.offsets[query] : every.offsets[query + 1]].tolist()
        negatives = {miner.corpus["document"][place] for place in chosen}
        assert len(negatives) == len(words.corpus) - 2
        assert not negatives & {POSITIVES[0], CORPUS[39]}


# ---- the study ------------------------------------------------------------------------------------------------------


def test_a_study_runs_goes_on_and_keeps_to_its_settings(
    tiny: Reranker, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, real = [], study.train

    def interrupted(*given: Any) -> Any:
        trained.append(given)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(study, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "one", data=data, tell=lambda line: None)
    kept = json.loads((tmp_path / "one" / study.RESULTS).read_text(encoding="utf-8"))["runs"]
    assert list(kept) == ["perc_pos/0", "random/0", "untrained/0", "untrained/1"]

    told: list[str] = []
    report = run(tiny, tmp_path / "one", data=data, tell=told.append)
    assert len(trained) == 5
    assert [line.partition(":")[0] for line in told] == ["random/1", "perc_pos/1"]
    results = json.loads((tmp_path / "one" / study.RESULTS).read_text(encoding="utf-8"))
    assert {key: results["runs"][key] for key in kept} == kept
    assert (tmp_path / "one" / study.TABLE).read_text(encoding="utf-8").strip() in report
    assert "| perc_pos | " in report

    one = results["runs"]["perc_pos/0"]
    assert one["steps"] == 6
    assert one["last_loss"] < one["first_loss"]
    assert results["runs"]["perc_pos/1"] != one

    # In one go the same comes out.
    run(tiny, tmp_path / "two", data=data, tell=told.append)
    other = json.loads((tmp_path / "two" / study.RESULTS).read_text(encoding="utf-8"))
    assert {key: one["ndcg"] for key, one in other["runs"].items()} == {
        key: one["ndcg"] for key, one in results["runs"].items()
    }

    # Another seed is added to what is there; other settings are refused.
    before = len(trained)
    run(dataclasses.replace(tiny, seeds=(0, 1, 2)), tmp_path / "one", data=data, tell=told.append)
    assert len(trained) == before + 2
    with pytest.raises(InputError, match="holds runs with other settings; give another folder"):
        run(dataclasses.replace(tiny, temperature=0.5), tmp_path / "one", data=data, tell=told.append)
    changed = (dataclasses.replace(tiny.negatives[1], sampler="top"),)
    with pytest.raises(InputError, match="holds runs with other perc_pos; give another folder"):
        run(dataclasses.replace(tiny, negatives=changed), tmp_path / "one", data=data, tell=told.append)
    (tmp_path / "one" / study.RESULTS).write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=r"results.json is not JSON: .*; remove it to start again"):
        run(tiny, tmp_path / "one", data=data, tell=told.append)


def test_models_are_kept_and_load_again(tiny: Reranker, data: Path, tmp_path: Path) -> None:
    few = dataclasses.replace(tiny, keep_models=True, seeds=(0,), negatives=tiny.negatives[1:])
    run(few, tmp_path, data=data, tell=lambda line: None)
    model = CrossEncoder(str(tmp_path / study.MODELS / "perc_pos-0"), device="cpu")
    candidates = find_candidates(load_test(few.test_sets[0], data), study.BM25Teacher(progress=False), 10, tmp_path)
    kept = json.loads((tmp_path / study.RESULTS).read_text(encoding="utf-8"))["runs"]["perc_pos/0"]
    assert candidates.reranked(model, bf16=False) == pytest.approx(kept["ndcg"]["words"])


# ---- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_the_dry_run_prints_the_plan(scale: str | None) -> None:
    arguments = ["--dry-run", *(["--scale", scale] if scale else [])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{Plan(load(scale))}\n"
    for one in load(scale).training_sets:
        assert f"{one.name} {one.rows:,}" in result.stdout


def test_the_plan_counts_as_the_trainer_does(tiny: Reranker) -> None:
    plan = Plan(tiny)
    assert (plan.runs, plan.steps, plan.pairs_trained, plan.pairs_scored) == (4, 6, 72, 40)
    several = dataclasses.replace(
        tiny, training_sets=(TrainingSet("a", 7, None), TrainingSet("b", 13, None)), num_negatives=4
    )
    assert Plan(several).steps == 2 * (1 + 3)
    assert sum(plan.hours.values()) > 0
    assert Training(**dataclasses.asdict(tiny.training)) == tiny.training
