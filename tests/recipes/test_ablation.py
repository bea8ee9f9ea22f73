"""The ablation: its file says arguments that exist, its numbers are what they say, a small study runs and goes on."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from transformers import MistralConfig, MistralModel
from typer.testing import CliRunner

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.teachers import DenseTeacher
from recipes.ablation import paper, study
from recipes.ablation.comparing import Outcome, trial_as_a_guide
from recipes.ablation.mining import Mine, Mined
from recipes.ablation.plan import plan
from recipes.ablation.recipe import Ablation, Judge, Mining, Student, Sweep, Teacher
from recipes.ablation.run import app
from recipes.ablation.settings import (
    Setting,
    methods_of,
    runs_of,
    settings_of_ensembles,
    settings_of_methods,
    settings_of_sweeps,
    settings_of_teachers,
)
from recipes.ablation.small import Collection, masked, ndcg_of, train_small
from recipes.ablation.study import run
from recipes.ablation.training import evaluate, make_student, train, trainer_arguments
from recipes.common.config import load_recipe, read_yaml
from recipes.common.data import TestQueries, TestSet, TrainingSet, load_collection, load_test, load_training
from recipes.common.results import resampled
from recipes.common.sets import SETS
from recipes.nv_retriever_v1.model import _random_tokenizer, sees_later_tokens
from recipes.nv_retriever_v1.recipe import Architecture, Lora
from recipes.nv_retriever_v1.tasks import TASKS
from tests.openai_server import OpenAIServer
from tests.recipes.helpers import assert_documented, changed, write_beir

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "ablation" / "recipe.yaml"
SCALES = [None, *read_yaml(RECIPE)["scales"]]
LORA = Lora(4, 8, 0.0, "none", ("q_proj", "v_proj"), "FEATURE_EXTRACTION")

TOPICS = [f"w{topic}" for topic in range(10)]
CORPUS = [f"d {topic} w{20 + number} w{40 + (3 * number) % 50}" for topic in TOPICS for number in range(6)]
"""Six passages a topic; the first three are relevant to the topic's questions, and the first alone is labelled."""
TRAIN = {f"q {topic} w{20 + number}": [6 * place + number] for place, topic in enumerate(TOPICS) for number in (0, 1)}
TEST = {f"ask {topic}": [6 * place, 6 * place + 1] for place, topic in enumerate(TOPICS)}


def positives_of(label: int) -> list[int]:
    """The labelled passage, and behind it the two of its topic that are positives, too."""
    topic = label // 6 * 6
    return [label, *(passage for passage in range(topic, topic + 3) if passage != label)]


def load(scale: str | None = None) -> Ablation:
    return load_recipe(RECIPE, Ablation, scale=scale)


def write_topics(folder: Path, labelled: Callable[[int], list[int]]) -> None:
    """A BEIR folder: 20 training queries with what is labelled of each, 10 test queries, 60 passages."""
    train = [(place, number) for place, (label,) in enumerate(TRAIN.values()) for number in labelled(label)]
    test = [(len(TRAIN) + place, number) for place, relevant in enumerate(TEST.values()) for number in relevant]
    write_beir(folder, CORPUS, [*TRAIN, *TEST], {"train": train, "test": test})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``topics``, where a query has 2 more positives than the one that a training takes."""
    folder = tmp_path_factory.mktemp("data")
    write_topics(folder / "topics", positives_of)
    return folder


@pytest.fixture
def tiny(encoder: str) -> Ablation:
    """The small recipe with the tiny encoder, one set, and a few of its settings."""
    small = load("small")
    students = tuple(
        dataclasses.replace(
            student,
            name=name,
            model=encoder,
            kind="transformer",
            negatives=2,
            max_length=32,
            training=dataclasses.replace(
                student.training, per_device_train_batch_size=5, learning_rate=1e-2, bf16=False
            ),
        )
        for name, student in zip(("first", "second"), small.students, strict=True)
    )
    return dataclasses.replace(
        small,
        training_sets=(TrainingSet("topics", 20, None),),
        test_sets=(TestSet("topics", "test"),),
        teachers=(Teacher("BM25", "bm25", paper="BM25"), Teacher("random", "random"), Teacher("tiny", encoder)),
        teacher="tiny",
        ensemble=("BM25", "tiny"),
        methods=(Mining("naive"), Mining("perc_pos:0.95")),
        students=students,
        in_batch_negatives=(True, False),
        sweeps=(Sweep("abs", (0.01, 0.7)), Sweep("sampled", (5.0,))),
        seeds=(0, 1),
        sweep_seeds=(0,),
    )


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_every_value_is_taken(scale: str | None, tmp_path: Path) -> None:
    recipe = load(scale)
    known = {field.name for field in dataclasses.fields(SentenceTransformerTrainingArguments)}
    for student in recipe.students:
        assert set(dataclasses.asdict(student.training)) <= known
        plain = dataclasses.replace(student, training=dataclasses.replace(student.training, bf16=False))
        made = trainer_arguments(plain, 3, tmp_path)  # bfloat16 is of the machine that tests
        assert made.learning_rate == student.training.learning_rate
        assert made.prompts == {"query": student.query_prompt, "positive": student.passage_prompt}
    for teacher in recipe.teachers:
        DenseTeacher(teacher.model, max_length=teacher.max_length, trust_remote_code=teacher.trust_remote_code)
        assert teacher.paper is None or teacher.paper in paper.TABLE_1
    assert plan(recipe)


def test_the_full_scale_is_the_papers() -> None:
    recipe = load()
    assert {one.name for one in recipe.training_sets} <= set(SETS)
    assert tuple(one.name for one in recipe.test_sets) == paper.TEST_SETS
    assert {one.name for one in recipe.test_sets} <= set(TASKS)
    assert {teacher.paper for teacher in recipe.teachers} == set(paper.TABLE_1)
    assert [str(one) for one in recipe.methods] == list(paper.TABLE_3)
    assert {kind.teacher.partition("(")[0] for kind in settings_of_ensembles(recipe)} == set(paper.TABLE_2)
    assert [student.negatives for student in recipe.students] == [4, 1]
    sweeps = {sweep.name: sweep.values for sweep in recipe.sweeps}
    steps = [round(0.05 * step, 2) for step in range(21)]
    assert list(sweeps["margin_pos"]) == steps
    assert list(sweeps["abs"]) == steps[1:]  # none is under a cosine of 0
    assert sorted(sweeps["perc_pos"]) == sorted([*steps[1:], 0.98, 1.05])
    assert list(sweeps["sampled"]) == list(range(10, 101, 10))


def test_the_papers_averages_are_those_of_its_sets() -> None:
    off = {
        name
        for table in (paper.TABLE_1, paper.TABLE_2, paper.TABLE_3)
        for name, row in table.items()
        if row.average != pytest.approx(statistics.mean(row.sets or ()), abs=1.5e-4)
    }
    assert off == {"cross-sample", "intra-sample-dedup"}  # as they are printed


def test_every_value_is_documented() -> None:
    recipe = load()
    parts: list[Any] = [recipe, recipe.teachers[0], recipe.students[0], recipe.students[0].training, recipe.pace]
    parts += [recipe.training_sets[0], recipe.test_sets[0], recipe.mining, recipe.sweeps[0], recipe.judge]
    assert_documented(parts)


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("teacher: e5-mistral-7b-instruct", "teacher: e5", r"teacher: 'e5' is not among \['BM25'"),
        ("ensemble: [e5-large-v2, ", "ensemble: [e5, ", r"ensemble: 'e5' is not among \['BM25'"),
        ("ensemble: [e5-large-v2, ", "ensemble: [e5-large-v2]  # ", r"ensemble: none, or two teachers or more, got"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", r"seeds: each once, got \[0, 0\]"),
        ("in_batch_negatives: [true, false]", "in_batch_negatives: [true, true]", "in_batch_negatives: each once, got"),
        ("    temperature: 0.02", "    temperature: 0", r"students\[0\].temperature: expected more than 0, found 0"),
        ('"abs:0.7"', '"abs:x"', r"methods\[2\].method: .*abs:x"),
        ("  - name: random", "  - name: BM25", "teachers: at least one, each once"),
        ("  - name: sampled", "  - name: sample", r"sweeps\[3\].name: expected 'abs', .* or 'sampled', found 'sample'"),
        ("  - {method: naive}", "  - {method: naive, mask: 1.0}", "methods: a mask needs a head as the first student"),
        ("  queries: 1000", "  queries: 0", "judge.queries: expected more than 0, found 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(line: str, instead: str, message: str, tmp_path: Path) -> None:
    path = changed(RECIPE, tmp_path, line, instead)
    with pytest.raises(InputError, match=message):
        load_recipe(path, Ablation)


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_the_dry_run_prints_the_plan(scale: str | None) -> None:
    arguments = ["--dry-run", *(["--scale", scale] if scale else [])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{plan(load(scale))}\n"
    for one in load(scale).training_sets:
        assert f"{one.name} ({one.rows:,})" in result.stdout


def test_without_mteb_the_full_scale_says_so_before_it_loads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    with pytest.raises(InputError, match=r"harness: 'mteb' needs the package mteb.*take 'folders' with --data"):
        run(load(), tmp_path)


# ---- what is trained ------------------------------------------------------------------------------------------------


def test_every_training_is_made_once_and_serves_all_tables(tiny: Ablation) -> None:
    runs = runs_of(tiny)
    assert len(set(runs)) == len(runs)
    needed = [*settings_of_teachers(tiny), *settings_of_ensembles(tiny)]
    needed += [
        setting
        for student, in_batch in ((0, True), (0, False), (1, True))
        for setting in settings_of_methods(tiny, tiny.students[student].name, in_batch=in_batch)
    ]
    assert {one.setting for one in runs if one.seed == 1} == set(needed)
    swept = {setting for points in settings_of_sweeps(tiny).values() for _, setting in points}
    assert {one.setting for one in runs if one.seed == 0} == set(needed) | swept
    # PercPos by the main teacher stands in tables 1 and 3, and is one training a seed.
    both = Setting(tiny.students[0].name, "tiny", Mining("perc_pos:0.95"), True)
    assert both in settings_of_teachers(tiny)
    assert both in methods_of(tiny)
    assert sum(one.setting == both for one in runs) == 2
    # The first seed's tables are whole before the second begins.
    seeds = [one.seed for one in runs if one.setting in set(needed)]
    assert seeds == sorted(seeds)


def test_random_negatives_have_no_ceiling(tiny: Ablation) -> None:
    by_chance = [setting for setting in settings_of_teachers(tiny) if setting.teacher == "random"]
    assert [str(setting.mining) for setting in by_chance] == ["naive"]


# ---- mining ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tiny: Ablation, data: Path, tmp_path: Path) -> Mine:
    return Mine(tiny, [load_training(one, data) for one in tiny.training_sets], tmp_path / "cache")


@pytest.fixture
def small(tiny: Ablation) -> Ablation:
    """The same with the two students that train on each set by itself, a mask, and another number of negatives."""
    students = tuple(
        dataclasses.replace(student, name=kind, kind=kind)
        for kind, student in zip(("head", "bag"), tiny.students, strict=True)
    )
    more = Mining("perc_pos:0.95", mask=1.0), Mining("perc_pos:0.95", negatives=1)
    methods = (*tiny.methods, *more)
    return dataclasses.replace(tiny, students=students, in_batch_negatives=(True,), methods=methods)


def test_hidden_positives_are_counted_as_by_hand(mine: Mine) -> None:
    (rows,) = mine.sets
    assert len(rows.hidden) == 20
    assert {len(texts) for texts in rows.hidden.values()} == {2}
    setting = methods_of(mine.recipe)[1]
    mined = mine.rows(setting, 4, 0)["topics"]
    false = [row[f"negative_{place}"] in rows.hidden[row["query"]] for row in mined for place in range(1, 5)]
    assert 0 < sum(false) < len(false)
    assert mine.hidden_shares(mine.mined(setting, 4, 0)) == {"topics": pytest.approx(np.mean(false))}


def test_agreement_is_jaccard_as_by_hand(mine: Mine) -> None:
    student = mine.recipe.students[0].name
    chosen = [mine.rows(Setting(student, name, mine.recipe.mining, True), 4, 0)["topics"] for name in ("BM25", "tiny")]
    by_query = [{row["query"]: {row[f"negative_{place}"] for place in range(1, 5)} for row in rows} for rows in chosen]
    assert by_query[0].keys() == by_query[1].keys()
    similar = [len(by_query[0][q] & by_query[1][q]) / len(by_query[0][q] | by_query[1][q]) for q in by_query[0]]
    assert 0 < np.mean(similar) < 1
    assert mine.agreement(student, 4)["topics"][0, 1] == pytest.approx(np.mean(similar))


def test_every_kind_of_setting_is_mined_under_its_ceiling(mine: Mine) -> None:
    for setting in dict.fromkeys(one.setting for one in runs_of(mine.recipe)):
        for one in mine.mined(setting, 2, 0).values():
            selection = one.selection
            if setting.mining.method.startswith("perc_pos"):
                assert (selection.scores < selection.references - 0.05 * abs(selection.references) + 1e-6).all()
    cross = settings_of_ensembles(mine.recipe)[0]
    chosen_by = mine.mined(cross, 2, 0)["topics"].selection.chosen_by
    assert chosen_by is not None
    assert set(chosen_by.tolist()) == {0, 1}


def test_a_veto_needs_the_other_teacher_to_agree(mine: Mine) -> None:
    student, method = mine.recipe.students[0].name, "naive"
    plain, vetoed = (
        mine.mined(Setting(student, "tiny", Mining(method, veto=veto), True), 4, 0)["topics"]
        for veto in (None, "bm25@perc_pos:0.3@0")
    )
    texts, bm25 = plain.miner.fitted.texts, mine.teacher("BM25", 0).index(plain.miner.fitted.texts.corpus.texts)
    scores = bm25.scores(texts.queries.texts.to_pylist())
    labels = scores[np.arange(len(scores)), texts.positive_ids]

    def over(mined: Mined) -> int:
        queries, passages = np.divmod(mined.keys, len(texts.corpus))
        return int(((labels[queries] > 0) & (scores[queries, passages] >= 0.3 * labels[queries])).sum())

    assert over(plain) > 0
    assert over(vetoed) == 0


def test_seeds_change_draws_and_chance_and_nothing_else(mine: Mine) -> None:
    chance, naive, _ = methods_of(mine.recipe)
    drawn = Setting(naive.student, "tiny", Mining("perc_pos:0.95", "sampled:10"), True)
    for setting, same in ((naive, True), (chance, False), (drawn, False)):
        first, again, other = (mine.rows(setting, 2, seed)["topics"].to_dict() for seed in (0, 0, 1))
        assert first == again
        assert (first == other) is same


@pytest.mark.parametrize("relevant", [True, False])
def test_a_judge_counts_false_negatives(mine: Mine, relevant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer() as server:
        server.reply = lambda question: "Yes" if relevant else "No"
        mine.recipe = dataclasses.replace(mine.recipe, judge=Judge("judge", queries=5, base_url=server.url))
        mined = mine.mined(methods_of(mine.recipe)[1], 2, 0)
        assert mine.judged_shares(mined) == {"topics": float(relevant)}
        asked = len(server.requests)
        assert asked == 10  # two negatives of five queries
        mine.judged_shares(mined)
        assert len(server.requests) == asked


# ---- training and evaluation ---------------------------------------------------------------------------------------


def test_the_evaluation_is_that_of_sentence_transformers(tiny: Ablation, encoder: str, data: Path) -> None:
    from hf_negmine.train.evaluation import beir_evaluator

    evaluator = beir_evaluator(data / "topics", split="test")
    theirs = evaluator(SentenceTransformer(encoder, device="cpu"))[evaluator.primary_metric]
    model = make_student(tiny.students[0], 0)
    tests = [load_test(one, data) for one in tiny.test_sets]
    assert evaluate(model, tiny.students[0], tests)["topics"].mean() == pytest.approx(theirs)
    prompted = dataclasses.replace(tiny.students[0], query_prompt="tell ", passage_prompt="find ")
    evaluator.query_prompt, evaluator.corpus_prompt = "tell ", "find "
    theirs_prompted = evaluator(SentenceTransformer(encoder, device="cpu"))[evaluator.primary_metric]
    assert theirs_prompted != theirs
    assert evaluate(model, prompted, tests)["topics"].mean() == pytest.approx(theirs_prompted)


def test_a_training_lowers_the_loss_and_repeats_itself(tiny: Ablation, mine: Mine, tmp_path: Path) -> None:
    student = tiny.students[0]
    longer = dataclasses.replace(student, training=dataclasses.replace(student.training, num_train_epochs=6))
    rows = mine.rows(methods_of(tiny)[2], 2, 0)
    weights = []
    for seed in (0, 0, 1):
        model = make_student(longer, seed)
        done = train(model, longer, rows, seed, tmp_path, in_batch_negatives=True)
        assert done.steps == 24
        assert done.first_loss is not None
        assert done.last_loss is not None
        assert done.last_loss < done.first_loss
        weights.append(model[0].auto_model.encoder.layer[0].output.dense.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_in_batch_negatives_a_row_is_told_from_its_own_alone(
    tiny: Ablation, mine: Mine, tmp_path: Path
) -> None:
    student = tiny.students[0]
    whole = dataclasses.replace(
        student,
        dropout=False,
        training=dataclasses.replace(student.training, per_device_train_batch_size=20, num_train_epochs=1),
    )
    rows = mine.rows(methods_of(tiny)[2], 2, 0)
    losses = {}
    for in_batch in (True, False):
        done = train(make_student(whole, 0), whole, rows, 0, tmp_path, in_batch_negatives=in_batch)
        losses[in_batch] = done.first_loss
    model = make_student(whole, 0)
    columns = [
        torch.tensor(model.encode(rows["topics"][name], normalize_embeddings=True))
        for name in ("query", "positive", "negative_1", "negative_2")
    ]
    own = torch.stack([(columns[0] * passages).sum(dim=1) for passages in columns[1:]], dim=1) / whole.temperature
    every = columns[0] @ torch.cat(columns[1:]).T / whole.temperature
    assert losses[False] == pytest.approx(
        float(torch.nn.functional.cross_entropy(own, torch.zeros(20).long())), rel=1e-3
    )
    assert losses[True] == pytest.approx(float(torch.nn.functional.cross_entropy(every, torch.arange(20))), rel=1e-3)


def test_a_threshold_that_allows_nothing_trains_nothing(tiny: Ablation, mine: Mine, tmp_path: Path) -> None:
    model = make_student(tiny.students[0], 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    rows = datasets.DatasetDict({"topics": mine.rows(methods_of(tiny)[1], 2, 0)["topics"].select(range(3))})
    done = train(model, tiny.students[0], rows, 0, tmp_path, in_batch_negatives=True)
    assert (done.steps, done.first_loss, done.last_loss) == (0, None, None)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_frozen_embeddings_stay_and_dropout_can_be_off(tiny: Ablation, mine: Mine, tmp_path: Path) -> None:
    student = dataclasses.replace(tiny.students[0], frozen_embeddings=True, dropout=False)
    model = make_student(student, 0)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    network: Any = model[0].auto_model
    words, layer = network.get_input_embeddings().weight, network.encoder.layer[0].output.dense.weight
    before = words.detach().clone(), layer.detach().clone()
    train(model, student, mine.rows(methods_of(tiny)[1], 2, 0), 0, tmp_path, in_batch_negatives=True)
    assert torch.equal(words, before[0])
    assert not torch.equal(layer, before[1])


def test_a_causal_student_is_made_bidirectional_and_trains_an_adapter_alone(
    tiny: Ablation, mine: Mine, tmp_path: Path
) -> None:
    folder = tmp_path / "mistral"
    shape = Architecture(2, hidden_size=64, intermediate_size=64, key_value_size=64, vocabulary=600)
    MistralModel(
        MistralConfig(
            vocab_size=600, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, initializer_range=0.2,
        )
    ).save_pretrained(folder)  # fmt: skip
    _random_tokenizer(shape).save_pretrained(folder)
    causal = dataclasses.replace(tiny.students[1], model=str(folder), lora=LORA)
    assert not sees_later_tokens(make_student(causal, 0))
    student = dataclasses.replace(causal, bidirectional=True)
    model = make_student(student, 0)
    assert sees_later_tokens(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    train(model, student, mine.rows(methods_of(tiny)[1], 2, 0), 0, tmp_path / "scratch", in_batch_negatives=True)
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert changed <= trained


# ---- small students ------------------------------------------------------------------------------------------------


def of_topics(small: Ablation, data: Path, folder: Path, student: Student) -> tuple[Collection, Mined, TestQueries]:
    rows, tests = load_collection(small.training_sets[0], small.test_sets[0], data, [0])
    mine = Mine(small, [rows[0]], folder)
    mined = mine.mined(Setting(student.name, "tiny", Mining("perc_pos:0.95"), True), 2, 0)["topics"]
    return Collection.of(student, mined, tests, mine.teacher("tiny", 0), folder), mined, tests


def test_an_untrained_head_ranks_as_its_teacher(small: Ablation, data: Path, encoder: str, tmp_path: Path) -> None:
    given, _, tests = of_topics(small, data, tmp_path, small.students[0])
    found = ndcg_of(given.student(), given)
    theirs = evaluate(SentenceTransformer(encoder, device="cpu"), small.students[0], [tests])["topics"]
    assert found.shape == (10,)
    assert found == pytest.approx(theirs)


def test_a_bag_is_the_mean_of_its_tokens(small: Ablation, data: Path, tmp_path: Path) -> None:
    given, _, _ = of_topics(small, data, tmp_path, small.students[1])
    ids = np.array([3, 0])
    ours = given.student()(given.passages, ids)
    for row, passage in zip(ours, ids, strict=True):
        tokens = given.passages.arrays[0][given.passages.offsets[passage] : given.passages.offsets[passage + 1]]
        mean = given.weights[torch.from_numpy(tokens)].mean(dim=0)
        assert torch.allclose(row, mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_small_student_learns_and_repeats_itself(small: Ablation, data: Path, kind: int, tmp_path: Path) -> None:
    student = small.students[kind]
    given, mined, _ = of_topics(small, data, tmp_path, student)
    models = [train_small(student, given, mined, small.mining, seed, in_batch=kind == 0) for seed in (0, 0, 1)]
    weights = [next(model.parameters()) for model, _ in models]
    assert [rows for _, rows in models] == [int((mined.selection.counts == 2).sum())] * 3
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    texts, own = mined.miner.fitted.texts, mined.selection
    rows = np.flatnonzero(own.counts == 2)
    negatives = own.ragged.take(rows).arrays[0].reshape(len(rows), 2)
    margins = []
    for model in (given.student(), models[0][0]):
        queries = model(given.queries, rows)
        passages = [model(given.passages, ids) for ids in (texts.positive_ids[rows], negatives[:, 0])]
        margins.append((queries * (passages[0] - passages[1])).sum(dim=1).mean().item())
    assert margins[1] > margins[0]


def test_a_mask_leaves_out_what_the_teacher_scores_high_and_nothing_of_the_row_itself(
    small: Ablation, data: Path, tmp_path: Path
) -> None:
    given, _, _ = of_topics(small, data, tmp_path, small.students[0])
    queries, passages = np.arange(5), np.arange(30)
    own = torch.tensor([[place, place + 6, place + 12] for place in range(5)])
    out = masked(given, queries, passages, own, 0.9)
    for query in queries:
        scores = given.vectors[0][query] @ given.vectors[1][:30].T
        ceiling = scores[own[query, 0]] - abs(scores[own[query, 0]]) * 0.1
        expected = [score >= ceiling and place not in own[query].tolist() for place, score in enumerate(scores)]
        assert out[query].tolist() == [bool(one) for one in expected]
    assert 0 < out.float().mean() < 1


def test_the_seed_draws_the_label_and_the_others_are_hidden(data: Path) -> None:
    wanted, test = TrainingSet("topics", 20, None), TestSet("topics", "test")
    drawn = [load_collection(wanted, test, data, [seed, 5])[0][seed] for seed in (0, 0, 1)]
    labels = [dict(zip(one.rows["query"], one.rows["positive"], strict=True)) for one in drawn]
    assert labels[0] == labels[1] != labels[2]
    assert labels[0].keys() == labels[2].keys()
    for one, own in zip(drawn, labels, strict=True):
        for query, label in own.items():
            first = TRAIN[query][0] // 6 * 6
            assert {label, *one.hidden[query]} == set(CORPUS[first : first + 3])
            assert label not in one.hidden[query]


def test_a_corpus_is_cut_to_what_is_relevant_and_into_chunks_that_overlap(data: Path) -> None:
    wanted, test = TrainingSet("renamed", 5, 20, folder="topics", words=2), TestSet("topics", "test", 2)
    found, tests = load_collection(wanted, test, data, [0])
    found_whole, tests_whole = load_collection(dataclasses.replace(wanted, words=None), test, data, [0])
    rows, whole = found[0], found_whole[0]
    assert len(whole.corpus) == 20
    assert {text for own in tests_whole.relevant.values() for text in own} <= set(whole.corpus.to_pylist())

    def chunks(text: str) -> set[str]:  # of four words
        words = text.split()
        return {" ".join(words[start : start + 2]) for start in range(3)}

    assert set(rows.corpus.to_pylist()) == set().union(*map(chunks, whole.corpus.to_pylist()))
    for query, own in tests.relevant.items():
        assert own == set().union(*map(chunks, tests_whole.relevant[query]))
    assert rows.name == "renamed"


def test_intervals_are_over_seeds_and_queries() -> None:
    rng = np.random.default_rng(0)
    constant, samples = resampled(np.full((5, 40), 0.25), 0)
    assert constant == 0.25
    assert np.ptp(samples) == 0
    # Where only the seeds differ, or only the queries, the samples spread as means of so many do.
    for shape, count in (((5, 1), 5), ((1, 40), 40)):
        own = rng.normal(size=shape)
        _, samples = resampled(np.broadcast_to(own, (5, 40)), 0)
        assert samples.std() == pytest.approx(own.std() / count**0.5, rel=0.1)


def test_a_study_with_small_students_tells_paired_differences(small: Ablation, data: Path, tmp_path: Path) -> None:
    report = run(small, tmp_path, data=data, tell=lambda line: None)
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / study.RESULTS).glob("*.json")]

    def queries(method: str, seed: int) -> list[float]:
        mining = dataclasses.asdict(Mining(method))
        (found,) = [
            one["result"]["queries"]["topics"]
            for one in kept
            if one["about"].get("setting")
            == {"student": "head", "teacher": "tiny", "mining": mining, "in_batch_negatives": True}
            and one["about"]["seed"] == seed
        ]
        return list(found)

    gain = np.mean([np.subtract(queries("naive", seed), queries("perc_pos:0.95", seed)) for seed in (0, 1)])
    assert re.search(rf"\| naive \| {re.escape(f'{gain:+.4f}')} \[[-+.\d]+, [-+.\d]+\] \|", report)
    assert "| perc_pos:0.95, mask at 1 |" in report
    assert "| perc_pos:0.95, 1 negative |" in report
    single = dataclasses.asdict(Mining("perc_pos:0.95", negatives=1))
    about = [one["about"] for one in kept if one["about"].get("setting", {}).get("mining") == single]
    assert len(about) == 4  # two students, two seeds
    assert {one["student"]["negatives"] for one in about} == {1}
    assert "student bag, 2 negatives" in report
    again: list[str] = []
    assert run(small, tmp_path, data=data, tell=again.append) == report
    assert again == []


def test_a_trial_is_held_against_what_the_first_student_gained(small: Ablation) -> None:
    methods = (Mining("perc_pos:0.95"), Mining("naive"), Mining("abs:0.5", "sampled:10"))
    recipe = dataclasses.replace(small, methods=methods)
    settings = settings_of_methods(recipe, "head", in_batch=True)[1:]
    reached = [(0.5, 0.5), (0.7, 0.5), (0.6, 0.5)]  # on two seeds
    outcomes = {
        setting: [Outcome({"topics": value}, 20) for value in values]
        for setting, values in zip(settings, reached, strict=True)
    }
    gains = {"perc_pos:0.95 top": 0.0, "naive top": -0.2, "abs:0.5 sampled:10": 0.1}
    unsure, sure = ({"topics": {"gains": gains, "best": best}} for best in (None, "abs:0.5 sampled:10"))
    _, table = trial_as_a_guide(recipe, outcomes, [unsure, sure])
    row = table.splitlines()[-1]
    # The right order is perc_pos, abs, naive; one choice loses 0.1, the other 0.05.
    both = "perc_pos:0.95 top / abs:0.5 sampled:10"
    assert row == f"| topics | -0.50 | {both} | naive top | 0.0750 | 0.1000 |"
    assert trial_as_a_guide(recipe, outcomes, []) == []


def test_a_trial_of_the_methods_is_made_once_and_kept(tiny: Ablation, tmp_path: Path) -> None:
    queries = [f"q w{one} w{another}" for one in range(20, 40) for another in range(40, 58)]
    passages = [query.replace("q ", "d ") for query in queries]
    positives = [(place, place) for place in range(len(queries))]
    write_beir(tmp_path / "pairs", passages, queries, {"train": positives, "test": positives[:5]})
    methods = (*tiny.methods, Mining("perc_pos:0.95", "sampled:10"))
    recipe = dataclasses.replace(
        tiny, training_sets=(TrainingSet("pairs", 360, None),), methods=methods, seeds=(0,), trial=True
    )
    made = study._Study(recipe, tmp_path, *study._loaded(recipe, tmp_path, tmp_path))
    trial = made.trials(0)
    assert trial["pairs"]["gains"].keys() == {"naive top", "perc_pos:0.95 top", "perc_pos:0.95 sampled:10"}
    assert trial["pairs"]["gains"]["perc_pos:0.95 top"] == 0.0  # it is compared with itself
    (kept,) = (tmp_path / study.RESULTS).glob("*.json")
    before = kept.stat().st_mtime_ns
    assert made.trials(0) == trial
    assert kept.stat().st_mtime_ns == before


# ---- the study -----------------------------------------------------------------------------------------------------


def test_a_study_runs_goes_on_and_adds_to_what_is_there(
    tiny: Ablation, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = dataclasses.replace(tiny, in_batch_negatives=(True,))
    trained, real = [], study.train
    stop_at = 5

    def interrupted(*given: Any, **options: Any) -> Any:
        trained.append(given)
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(study, "train", interrupted)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "one", data=data, tell=told.append)
    assert len(told) == 4
    report = run(tiny, tmp_path / "one", data=data, tell=told.append)
    runs = runs_of(tiny)
    assert len(trained) == len(runs) + 1
    assert len(told) == len(runs)
    assert told[4].startswith(f"5 of {len(runs)}, 0 min: {runs[4]}: NDCG@10 topics 0.")
    assert (tmp_path / "one" / study.REPORT).read_text(encoding="utf-8").strip() in report

    # In one go the same comes out.
    few = dataclasses.replace(tiny, teachers=tiny.teachers[1:], ensemble=(), seeds=(0,), sweeps=(), sweep_seeds=())
    run(few, tmp_path / "two", data=data, tell=told.append)
    kept, in_one_go = _results(tmp_path / "one"), _results(tmp_path / "two")
    assert len(in_one_go) == 2 + len(runs_of(few))  # two before training
    assert in_one_go == {name: kept[name] for name in in_one_go}

    # Another seed and another method are added; what is there is not made again.
    before = len(trained)
    more = dataclasses.replace(tiny, methods=(*tiny.methods, Mining("margin_pos:0.05")))
    run(more, tmp_path / "one", data=data, tell=told.append)
    assert len(trained) - before == len(runs_of(more)) - len(runs) == 4

    # Other settings never take a result that is not theirs.
    before = len(trained)
    hotter = dataclasses.replace(tiny.students[1], temperature=0.5)
    run(dataclasses.replace(tiny, students=(tiny.students[0], hotter)), tmp_path / "one", data=data, tell=told.append)
    assert len(trained) - before == sum(one.setting.student == hotter.name for one in runs)

    _check_report(report, tiny, tmp_path / "one")
    for name in ("figure1", "figure2", "figure3", "figure4-naive", "figure4-perc-pos-0-95"):
        assert (tmp_path / "one" / study.FIGURES / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    for broken in (tmp_path / "one" / study.RESULTS).glob("*.json"):
        broken.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=r"\.json holds no result: .*; remove it to have it measured again"):
        run(tiny, tmp_path / "one", data=data, tell=told.append)


def _results(folder: Path) -> dict[str, Any]:
    found = {}
    for path in (folder / study.RESULTS).glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
        found[path.name] = {name: value for name, value in result.items() if name != "seconds"}
    return found


def _check_report(report: str, recipe: Ablation, output: Path) -> None:
    """The tables' numbers are means and deviations of what the result files hold, by hand."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (output / study.RESULTS).glob("*.json")]
    student = recipe.students[0]
    trained = [one["result"] for one in kept if "steps" in one["result"]]
    assert all((result["steps"] == 0) == (result["rows"] == {}) for result in trained)
    naive = [
        one["result"]["ndcg"]["topics"]
        for one in kept
        if one["about"].get("setting")
        == {
            "student": student.name, "teacher": "tiny",
            "mining": dataclasses.asdict(Mining("naive")),
            "in_batch_negatives": True,
        } and one["about"]["seed"] in recipe.seeds
    ]  # fmt: skip
    assert len(naive) == 2
    cell = f"{statistics.mean(naive):.4f} ± {statistics.stdev(naive):.4f}"
    assert f"| naive | 20 | {cell} | {cell} | 0.5407 | 0.5445 | 0.6120 | 0.4658 |" in report
    assert "| BM25 | 20 | 0." in report
    assert re.search(r"\| cross-sample \| 20 \| .* \| 0\.5806 \|", report)
    assert re.search(r"\| BM25 and tiny \| 0\.\d\d \|  \|  \|  \|", report)
    assert re.search(r"\| naive \| \d+\.\d % \| 38\.8 % \| 47\.0 % \|", report)


def test_a_second_student_has_a_table_of_its_own(tiny: Ablation, data: Path, tmp_path: Path) -> None:
    few = dataclasses.replace(tiny, sweeps=(), in_batch_negatives=(False,), seeds=(0,), sweep_seeds=())
    report = run(few, tmp_path, data=data, tell=lambda line: None)
    assert "### Table 4: methods, teacher tiny (student second, 2 negatives)" in report
    assert "figure1.png" not in report
    assert "negatives only" in report


def test_what_a_study_does_not_ask_has_no_table_and_no_picture(tiny: Ablation, tmp_path: Path) -> None:
    write_topics(tmp_path / "topics", lambda label: [label])  # nothing is hidden
    asked = dataclasses.replace(
        tiny, teachers=tiny.teachers[1:], ensemble=(), sweeps=(), in_batch_negatives=(True,), seeds=(0,), sweep_seeds=()
    )
    report = run(asked, tmp_path / "out", data=tmp_path, tell=lambda line: None)
    assert re.findall(r"### (\w+ \d)", report) == ["Table 1", "Table 3", "Table 4", "Figure 4"]
    pictures = {path.stem for path in (tmp_path / "out" / study.FIGURES).glob("*.png")}
    assert pictures == {"figure4-naive", "figure4-perc-pos-0-95"}
    assert "all in one training" not in report


# ---- the committed tables -----------------------------------------------------------------------------------------


def test_the_committed_tables_have_every_row_of_the_small_scale() -> None:
    text = (RECIPE.parent / "README.md").read_text(encoding="utf-8")
    small = load("small")
    for names in (
        [teacher.name for teacher in small.teachers],
        ["cross-sample", "intra-sample", "intra-sample-dedup"],
        [str(mining) for mining in small.methods],
    ):
        for name in names:
            assert re.search(rf"^\| {re.escape(name)} \| [\d,]+ \| 0\.\d{{4}} ± 0\.\d{{4}} \|", text, re.MULTILINE), (
                name
            )
    for picture in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (RECIPE.parent / picture).exists(), picture
