"""NV-Retriever-v1 at scale mini: BEIR folders, a BERT as base, a study; here over made-up folders and a tiny BERT."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from hf_negmine.base.errors import InputError
from recipes.common.config import load_recipe
from recipes.common.lora import adapter_weights, add_adapter
from recipes.common.sets import FOLDER_SETS
from recipes.common.sets.load import load_set, normalised
from recipes.nv_retriever_v1.evaluation import own_test
from recipes.nv_retriever_v1.model import write_base
from recipes.nv_retriever_v1.plan import Plan
from recipes.nv_retriever_v1.recipe import Architecture, NVRetriever
from recipes.nv_retriever_v1.study import Outcome, report_of, run, runs_of
from tests.hub.server import Hub

FOLDER = Path(__file__).parents[2] / "recipes" / "nv_retriever_v1"
REPO = "tester/mini"
SHARED = "q w0 w1"
"""A query of the training split and, in another case, of the test."""
SETS = {"squad": "dev", "qed_nq": "dev", "nfcorpus": "test", "scifact": "test", "bioasq_snippets": "test"}
TRAINED, TESTED = 12, 6


def write_folders(root: Path) -> None:
    """Each set in four articles: three of training, the last of the test alone."""
    for place, (name, test) in enumerate(SETS.items()):
        (root / name / "qrels").mkdir(parents=True)
        texts = [f"d w{one % 9} w{(one + place) % 7} w{one}" for one in range(TRAINED + TESTED)]
        queries = [SHARED, *(f"q w{one} w{(one + place) % 7}" for one in range(1, TRAINED + TESTED)), SHARED.upper()]
        articles = [f"article {one % 3 if one < TRAINED else 3}" for one in range(len(texts))]
        columns = (("corpus", "d", texts), ("queries", "q", queries))
        for file, letter, own in columns:
            lines = [
                {"_id": f"{letter}{one}", "text": text} | ({"title": articles[one]} if letter == "d" else {})
                for one, text in enumerate(own)
            ]
            (root / name / f"{file}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        pairs = {
            "train": [*((one, one) for one in range(TRAINED)), *((one, (one + 1) % TRAINED) for one in range(TRAINED))],
            test: [*((one, one) for one in range(TRAINED, len(texts))), (len(texts), TRAINED)],
        }
        for split, own_pairs in pairs.items():
            lines_of = ["query-id\tcorpus-id\tscore", *(f"q{query}\td{passage}\t1" for query, passage in own_pairs)]
            (root / name / "qrels" / f"{split}.tsv").write_text("\n".join(lines_of), encoding="utf-8")


def mini() -> NVRetriever:
    return load_recipe(FOLDER / "recipe.yaml", NVRetriever, scale="mini")


def small(base: str) -> NVRetriever:
    """The scale with a tiny base, one seed and a push."""
    recipe = mini()
    shape = Architecture(1, 32, 32, 32, 64, kind="bert")
    stages = tuple(replace(one, training=replace(one.training, bf16=False, warmup_steps=1)) for one in recipe.stages)
    assert recipe.study is not None
    return replace(
        recipe,
        base=replace(recipe.base, name=base, query_length=36, passage_length=24, architecture=shape),
        mining=replace(
            recipe.mining,
            teacher=replace(recipe.mining.teacher, model=base, max_length=24, dtype="float32"),
            miner=replace(recipe.mining.miner, method="perc_pos:0.99"),
        ),
        stages=stages,
        study=replace(recipe.study, seeds=(0,)),
        output=replace(recipe.output, repo=REPO),
    )


@dataclass
class Study:
    """A finished one."""

    recipe: NVRetriever
    data: Path
    output: Path
    report: str
    told: list[str]


@pytest.fixture(scope="module")
def study(hub: Hub, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("study") / "output"
    write_folders(data)
    recipe, told = small(str(models / "dense")), []
    return Study(recipe, data, output, run(recipe, output, data, told.append), told)


def rows_of(study: Study, run_name: str, name: str) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(study.output / run_name / "sets" / f"{name}.arrow"))


RUNS = ("perc-pos-0-99-seed-0", "naive-seed-0")


# ---- what is trained on --------------------------------------------------------------------------------------------


def test_no_test_query_is_trained_on(study: Study) -> None:
    for name, test in SETS.items():
        asked = {normalised(query) for query in own_test(study.recipe, FOLDER_SETS[name], study.data).relevant}
        assert normalised(SHARED) in asked, (name, test)
        for run_name in RUNS:
            for other in FOLDER_SETS:
                rows = rows_of(study, run_name, other)
                assert not asked & {normalised(text) for column in rows.column_names for text in rows[column]}


def test_no_test_query_of_the_real_folders_is_trained_on(data_dir: Path) -> None:
    recipe, asked, trained = mini(), set(), set()
    for one in recipe.sets:
        rows = load_set(one, source=data_dir / one.hub_id, evaluation_source=data_dir / one.hub_id, samples=500).rows
        assert len(rows) == 500
        trained |= {normalised(text) for name in ("query", "positive") for text in rows[name]}
        if one.evaluation is not None:
            asked |= {normalised(query) for query in own_test(recipe, one, data_dir).relevant}
    assert len(asked) == 500
    assert not asked & trained


def test_articles_of_the_test_are_no_labels(study: Study) -> None:
    lines = [json.loads(line) for line in (study.data / "squad" / "corpus.jsonl").read_text().splitlines()]
    article = {line["text"]: line["title"] for line in lines}
    rows = rows_of(study, RUNS[0], "squad_articles")
    assert len(rows) == TRAINED
    for row in rows:
        titles = [article[row[name]] for name in ("query", "positive", *(f"negative_{one}" for one in range(1, 6)))]
        assert titles[0] == titles[1] != "article 3"
        assert not {titles[0], "article 3"} & set(titles[2:])


def test_one_positive_per_query_and_a_corpus_of_some_passages(study: Study) -> None:
    rows = rows_of(study, RUNS[1], "nfcorpus")
    assert len(set(rows["query"])) == len(rows) == TRAINED - 1  # without the shared one
    source = study.data / "nfcorpus"
    corpora = [load_set(FOLDER_SETS["nfcorpus"], source=source, seed=seed, passages=4, decontaminate=False).corpus
               for seed in (0, 1)]  # fmt: skip
    assert corpora[0] is not None
    assert len(corpora[0]) == 4
    assert corpora[0].equals(corpora[1])


def test_runs_differ_in_seed_and_method_alone(study: Study) -> None:
    notes = [json.loads((study.output / name / "recipe.json").read_text()) for name in RUNS]
    found = [(one["mining"]["miner"].pop("method"), one.pop("seed")) for one in notes]
    assert found == list(runs_of(study.recipe)) == [("perc_pos:0.99", 0), ("naive", 0)]
    assert all(one == notes[0] for one in notes)
    adapters = [(study.output / name / "stage-2-all-tasks" / "adapter.safetensors").read_bytes() for name in RUNS]
    assert len(set(adapters)) == len(RUNS)


# ---- the report ----------------------------------------------------------------------------------------------------


def by_hand(model: SentenceTransformer, study: Study, name: str) -> dict[str, float]:
    test, prompts = own_test(study.recipe, FOLDER_SETS[name], study.data), study.recipe.prompts
    passages = test.corpus.to_pylist()
    options: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": False}
    given = model.encode_document(passages, prompt=prompts.passage, **options)
    found = {}
    for query, relevant in test.relevant.items():
        scores = given @ model.encode_query(query, prompt=prompts.query_of(FOLDER_SETS[name]), **options)
        best = [passages[place] for place in np.argsort(-scores)[:10]]
        gain = sum(1 / math.log2(rank + 2) for rank, text in enumerate(best) if text in relevant)
        found[query] = gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
    return found


@pytest.mark.parametrize("name", ["squad", "bioasq_snippets"])
def test_scores_by_hand(study: Study, name: str) -> None:
    for folder, scores in (("model", f"{RUNS[1]}/evaluation"), ("base", f"{RUNS[0]}/before")):
        model = SentenceTransformer(str(study.output / RUNS[1] / folder), device="cpu")
        found = json.loads((study.output / scores / f"{name}.json").read_text())["queries"]
        assert found == pytest.approx(by_hand(model, study, name), abs=1e-6)
    assert json.loads((study.output / RUNS[0] / "bare" / f"{name}.json").read_text())["queries"] != found


def test_stages_are_scored_one_by_one(study: Study) -> None:
    folder = study.output / RUNS[0]
    parts = [folder / "before", folder / "after" / "stage-1-retrieval", folder / "evaluation"]
    scores = [[json.loads((part / f"{name}.json").read_text())["queries"] for name in SETS] for part in parts]
    assert scores[0] != scores[1] != scores[2] != scores[0]


def test_the_tables_by_hand() -> None:
    recipe = mini()
    assert recipe.study is not None
    recipe = replace(recipe, study=replace(recipe.study, seeds=(0, 1)))
    base = {"squad": {"a": 0.2, "b": 0.4}, "scifact": {"c": 0.5}}

    def plus(gain: float) -> dict[str, dict[str, float]]:
        return {name: {query: score + gain for query, score in own.items()} for name, own in base.items()}

    rows, hidden = {"squad": 4, "scifact": 2}, {"squad": 0.25, "scifact": 0.0}
    found = {
        (method, seed): Outcome((plus(gain), plus(2 * gain + 0.1 * seed)), rows, hidden)
        for method, gain in (("perc_pos:0.95", 0.05), ("naive", 0.02))
        for seed in (0, 1)
    }
    report = report_of(recipe, plus(-0.1), base, found)
    assert (
        "| squad | 0.2000 | 0.3000 | 0.3500 ± 0.0000 | 0.4500 ± 0.0707 | 0.3200 ± 0.0000 | 0.3900 ± 0.0707 |" in report
    )
    assert "| **average** | 0.3000 | 0.4000 | 0.4500 ± 0.0000 | 0.5500 ± 0.0707 |" in report
    assert "| perc_pos:0.95 - naive, after retrieval | +0.0300 [+0.0300, +0.0300] | +0.0300 [" in report
    assert "| perc_pos:0.95 - naive, after all tasks | +0.0600 [+0.0600, +0.0600] | +0.0600 [" in report
    assert "| perc_pos:0.95, all stages - with prompts | +0.1500 [+0.1000, +0.2000] |" in report
    assert "| perc_pos:0.95, all stages - base as it is | +0.2500 [+0.2000, +0.3000] |" in report
    assert "| squad | 4 rows, 25.0% | 4 rows, 25.0% |" in report


def test_hidden_positives_are_counted(study: Study) -> None:
    """Each query has two relevant passages, and a label at most for one of them under each number of rows."""
    line = next(line for line in study.report.splitlines() if line.startswith("| nfcorpus |") and "rows, " in line)
    relevant = load_set(FOLDER_SETS["nfcorpus"], source=study.data / "nfcorpus", decontaminate=False)
    assert len(relevant.rows) == TRAINED  # one of two
    known = {f"q w{one} w{(one + 2) % 7}": {one, (one + 1) % TRAINED} for one in range(1, TRAINED)}
    cells = []
    for run_name in RUNS:
        rows = rows_of(study, run_name, "nfcorpus")
        texts = [(row["query"], row[f"negative_{one}"]) for row in rows for one in range(1, 6)]
        cells.append(f"{np.mean([int(text.rpartition('w')[2]) in known[query] for query, text in texts]):.1%}")
    assert [cell.rpartition(", ")[2] for cell in line.strip("| ").split(" | ")[1:]] == cells


def test_a_finished_study_has_nothing_to_do(study: Study) -> None:
    told: list[str] = []
    assert run(study.recipe, study.output, study.data, told.append) == study.report
    assert told == []
    assert study.recipe.study is not None
    fewer = replace(study.recipe, study=replace(study.recipe.study, against=()))
    report = run(fewer, study.output, study.data, told.append)
    assert told == []
    assert "after 2 stages, 1 seed\n" in report
    assert "naive" not in report


# ---- the model -----------------------------------------------------------------------------------------------------


def test_the_first_run_is_pushed_and_loaded_back(study: Study, hub: Hub) -> None:
    assert study.report.count("Pushed: ") == 1
    files = hub.files("model", REPO)
    assert not [name for name in files if "adapter" in name]
    pushed = SentenceTransformer(REPO, device="cpu")
    ours = SentenceTransformer(str(study.output / RUNS[0] / "model"), device="cpu")
    for encode in ("encode_query", "encode_document"):
        found = getattr(pushed, encode)([SHARED, "d w3 w4"], show_progress_bar=False)
        np.testing.assert_array_equal(found, getattr(ours, encode)([SHARED, "d w3 w4"], show_progress_bar=False))
    card = files["README.md"].decode()
    assert "0.99" in card
    assert "huggingface.co/datasets/squad" not in card


def test_instructions_are_left_out_of_the_mean_of_a_bert(minilm: str, tmp_path: Path) -> None:
    recipe = mini()
    write_base(recipe, tmp_path / "base")
    model = SentenceTransformer(str(tmp_path / "base"), device="cpu")
    text = "a cup of tea"
    for prompt in (recipe.prompts.query_of(FOLDER_SETS["scifact"]), recipe.prompts.passage):
        ids = model.tokenizer(prompt + text)["input_ids"]
        own = len(model.tokenizer(text)["input_ids"]) - 1  # its words and the end
        with torch.no_grad():
            output = model[0].auto_model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long())
        expected = output.last_hidden_state[0, -own:].mean(0)
        found = model.encode(text, prompt=prompt, show_progress_bar=False)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert SentenceTransformer(minilm, device="cpu")[1].get_config_dict().get("include_prompt") is not False
    assert model[1].get_config_dict()["include_prompt"] is False


def test_the_names_of_a_bert_are_its_linear_maps() -> None:
    recipe = mini()
    shape = recipe.base.architecture
    config = BertConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers, num_attention_heads=12,
    )  # fmt: skip
    with torch.device("meta"):
        model = BertModel(config)
    layer = {name: one for name, one in model.encoder.layer[0].named_modules() if isinstance(one, torch.nn.Linear)}
    ends = {name.removeprefix("attention.self."): (one.in_features, one.out_features) for name, one in layer.items()}
    assert ends == shape.linear_layers
    weights = sum(one.numel() for name, one in model.named_parameters() if "pooler" not in name)
    assert shape.parameters == pytest.approx(weights, rel=0.02)
    assert set(recipe.lora.target_modules) == set(shape.linear_layers)


def test_the_plan_counts_the_adapter_of_a_bert(models: Path) -> None:
    recipe = small(str(models / "dense"))
    model = SentenceTransformer(str(models / "dense"), device="cpu")
    model.requires_grad_(False)
    add_adapter(model, recipe.lora, seed=0)
    weights = adapter_weights(model)
    assert sum(weight.numel() for weight in weights.values()) == Plan(recipe).adapter_parameters
    assert not [name for name in weights if "pooler" in name]


# ---- before any work -----------------------------------------------------------------------------------------------


def test_what_does_not_go_together() -> None:
    recipe = mini()
    for change in ({"data": "fixtures"}, {"study": None}, {"evaluation": replace(recipe.evaluation, harness="beir")}):
        with pytest.raises(ValueError, match=r"data: 'folders', evaluation\.harness: 'own' and a study go together"):
            replace(recipe, **change)
    stage = replace(recipe.stages[0], leave_out=("SQuAD",))
    with pytest.raises(ValueError, match="leave_out: 'SQuAD' is not among"):
        replace(recipe, stages=(stage,))


def test_folders_that_are_not_there(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data: 'folders' needs --data DIR"):
        run(study.recipe, tmp_path / "run")
    with pytest.raises(InputError, match="--data: there is no folder"):
        run(study.recipe, tmp_path / "run", tmp_path / "nowhere")
    (tmp_path / "squad").mkdir()
    with pytest.raises(InputError, match=r"squad lacks corpus\.jsonl"):
        run(study.recipe, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


# ---- the committed tables ------------------------------------------------------------------------------------------


def test_the_readme_has_every_set_of_the_scale() -> None:
    shown = (
        (FOLDER / "README.md").read_text(encoding="utf-8").partition("<!-- mini -->\n")[2].partition("<!-- /mini")[0]
    )
    recipe = mini()
    assert recipe.study is not None
    assert f"after 2 stages, {len(recipe.study.seeds)} seeds" in shown
    for name in SETS:
        assert len(re.findall(rf"^\| {name} \|( 0\.\d{{4}}( ± 0\.\d{{4}})? \|){{6}}$", shown, re.MULTILINE)) == 1
        assert len(re.findall(rf"^\| {name} \|( \d+ rows, \d+\.\d% \|){{2}}$", shown, re.MULTILINE)) == 1
