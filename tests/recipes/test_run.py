"""NV-Retriever-v1 at scale tiny: the whole recipe runs, and what it leaves is what the paper asks for.

The recipe is run by the command line, pushing to a stand-in for the Hub (``first``). With four sets and two tasks it is
run in one go (``whole``), and interrupted again and again (``broken``).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import RepoCard
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tokenizers import normalizers
from typer.testing import CliRunner

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.data.sources import read_beir_texts
from hf_negmine.data.writing import in_memory
from hf_negmine.train.losses import PositiveAwareMNRL
from recipes.common.config import load_recipe, read_yaml
from recipes.common.sets import SETS
from recipes.common.sets.layouts import folder_of
from recipes.common.sets.load import LoadedSet, normalised
from recipes.nv_retriever_v1 import stages
from recipes.nv_retriever_v1.fixtures import tables
from recipes.nv_retriever_v1.model import cut_spaces_off, sees_later_tokens
from recipes.nv_retriever_v1.negatives import NegativeRows
from recipes.nv_retriever_v1.pipeline import run
from recipes.nv_retriever_v1.plan import Plan
from recipes.nv_retriever_v1.recipe import NVRetriever
from recipes.nv_retriever_v1.run import app
from recipes.nv_retriever_v1.stages import Trained, open_student
from recipes.nv_retriever_v1.tasks import TASKS, table
from tests.hub.server import Hub
from tests.recipes.hub import SHARED, data_sets

FOLDER = Path(__file__).parents[2] / "recipes" / "nv_retriever_v1"
RECIPE = FOLDER / "recipe.yaml"
REPO = "tester/nv-retriever"
STAGES = ("stage-1-retrieval", "stage-2-all-tasks")
QUERY_LENGTH, PASSAGE_LENGTH = 32, 40


def tiny(path: Path = RECIPE) -> NVRetriever:
    return load_recipe(path, NVRetriever, scale="tiny")


# ---- one run -------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """What reached the loss: token ids by column, how many of them are the prompt's, and the loss."""

    ids: list[torch.Tensor]
    masks: list[torch.Tensor]
    prompts: list[int]
    loss: float


class Remembering(PositiveAwareMNRL):
    """Remembers every batch of a stage, and the adapter before the first."""

    runs: ClassVar[list[Remembering]] = []

    def __init__(self, model: Any, *args: Any, **settings: Any) -> None:
        super().__init__(model, *args, **settings)
        self.batches: list[Batch] = []
        self.began_with = {n: w.detach().clone() for n, w in model.named_parameters() if "lora_" in n}
        self.trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self.runs.append(self)

    def forward(self, sentence_features: Any, labels: torch.Tensor) -> torch.Tensor:
        features = list(sentence_features)
        found: torch.Tensor = super().forward([dict(column) for column in features], labels)
        columns = [[column[key] for column in features] for key in ("input_ids", "attention_mask", "prompt_length")]
        lengths = [int(torch.as_tensor(length).reshape(-1)[0]) for length in columns[2]]
        self.batches.append(Batch(columns[0], columns[1], lengths, float(found.detach())))
        return found


@dataclass
class Run:
    """A finished run."""

    recipe: NVRetriever
    output: Path
    report: str
    told: list[str]
    losses: list[Remembering]

    @property
    def trained(self) -> list[Trained]:
        found = [Trained.read(self.output / name) for name in STAGES]
        assert None not in found
        return [one for one in found if one is not None]

    def model(self, name: str = "model") -> SentenceTransformer:
        return SentenceTransformer(str(self.output / name), device="cpu")

    def rows(self, name: str) -> datasets.Dataset:
        return datasets.Dataset.from_file(str(self.output / "sets" / f"{name}.arrow"))


@pytest.fixture(scope="module")
def first(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By the command line, in one go, with a push."""
    folder = tmp_path_factory.mktemp("first")
    path, output = folder / "recipe.yaml", folder / "output"
    text = RECIPE.read_text(encoding="utf-8")
    assert text.count("repo: null") == 1
    path.write_text(text.replace("repo: null", f"repo: {REPO}"), encoding="utf-8")
    Remembering.runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "PositiveAwareMNRL", Remembering)
        result = CliRunner().invoke(app, ["--recipe", str(path), "--scale", "tiny", "--output", str(output), "--debug"])
    assert result.exit_code == 0, result.stderr
    return Run(tiny(path), output, result.stdout, result.stderr.splitlines(), Remembering.runs)


def test_dry_run_at_every_scale() -> None:
    assert "tiny" in read_yaml(RECIPE)["scales"]
    for scale in read_yaml(RECIPE)["scales"]:
        result = CliRunner().invoke(app, ["--scale", scale, "--dry-run"])
        assert result.exit_code == 0, result.stderr
        assert "STEPS PER EPOCH of 'all tasks'" in result.stdout


def test_the_plan_of_the_tiny_run_holds(first: Run) -> None:
    rows = sum(json.loads(path.read_text())["rows"] for path in (first.output / "sets").glob("*.json"))
    plan = str(Plan(first.recipe))
    assert f"In all {16 * 32}:" in plan
    assert 0.8 * 16 * 32 < rows <= 16 * 32  # some have too few negatives under the ceiling
    assert (
        len(first.losses[0].batches)
        == sum(math.ceil(len(first.rows(one.name)) / 8) for one in first.recipe.sets_of(first.recipe.stages[0])) * 3
    )


# ---- the model -----------------------------------------------------------------------------------------------------


def first_token(model: SentenceTransformer, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        output = model[0].auto_model(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)
        )
    found: torch.Tensor = output.last_hidden_state[0, 0]
    return found


@pytest.mark.parametrize("name", ["base", "model"])
def test_it_is_bidirectional_after_it_was_loaded(first: Run, name: str) -> None:
    model = first.model(name)
    ids = model.tokenizer("where does old tea come from")["input_ids"]
    other = [*ids[:-1], ids[-1] + 1]
    assert not torch.allclose(first_token(model, ids), first_token(model, other), atol=1e-4)
    assert sees_later_tokens(model)
    model[0].auto_model.config.is_causal = True  # and the check sees it
    torch.testing.assert_close(first_token(model, ids), first_token(model, other), atol=0, rtol=0)
    assert not sees_later_tokens(model)


def test_a_base_that_stays_causal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes.nv_retriever_v1 import model

    monkeypatch.setattr(model, "sees_later_tokens", lambda student: False)
    with pytest.raises(InputError, match=r"base\.bidirectional: random stays causal"):
        run(tiny(), tmp_path / "run", tell=lambda line: None)
    assert not (tmp_path / "run" / "base").exists()


def by_hand(model: SentenceTransformer, prompt: str, text: str, limit: int) -> Any:
    """The mean over the tokens of the text, which are those that it has alone."""
    alone = model.tokenizer(text)["input_ids"][1:]  # without the beginning of the sequence
    before = model.tokenizer(prompt.strip())["input_ids"]
    ids = [*before, *alone][:limit]
    with torch.no_grad():
        tokens = (
            model[0]
            .auto_model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
            .last_hidden_state[0]
        )
    return tokens[len(before) :].mean(0).numpy()


@pytest.mark.parametrize("name", ["base", "model"])
def test_instructions_are_left_out_of_the_mean_when_texts_are_encoded(first: Run, name: str) -> None:
    model, prompts = first.model(name), first.recipe.prompts
    texts = ["where does old tea come from", "12 are 3?", "tea", "so " * 60]
    for one in SETS.values():
        prompt = prompts.query_of(one)
        assert prompt.endswith(": ")
        found = model.encode_query(texts, prompt=prompt, show_progress_bar=False)  # of different lengths: padded
        expected = [by_hand(model, prompt, text, QUERY_LENGTH) for text in texts]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    found = model.encode_document(texts, show_progress_bar=False)
    np.testing.assert_allclose(
        found, [by_hand(model, prompts.passage, text, PASSAGE_LENGTH) for text in texts], atol=2e-5
    )
    assert model.prompts["query"] == prompts.query_of(SETS["MS-MARCO"])
    assert model.prompts["document"] == "passage: "


def test_a_prompt_that_has_a_token_more_alone_is_the_trap(first: Run) -> None:
    """Without the tokenizer's rule, the word behind the instruction would be left out, too."""
    model = first.model()
    mistral = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model.tokenizer.backend_tokenizer.normalizer = mistral
    prompt, text = "task: ", "where does old tea come from"
    assert len(model.tokenizer(prompt)["input_ids"]) == len(model.tokenizer(prompt.strip())["input_ids"]) + 1
    wrong = model.encode_query(text, prompt=prompt, show_progress_bar=False)
    assert not np.allclose(wrong, by_hand(model, prompt, text, QUERY_LENGTH), atol=1e-3)
    model = first.model()
    model.tokenizer.backend_tokenizer.normalizer = mistral
    cut_spaces_off(model.tokenizer)
    right = model.encode_query(text, prompt=prompt, show_progress_bar=False)
    np.testing.assert_allclose(right, by_hand(model, prompt, text, QUERY_LENGTH), atol=2e-5)


@pytest.mark.parametrize("number", [0, 1])
def test_instructions_are_left_out_of_the_mean_in_training(first: Run, number: int) -> None:
    model = first.model()
    model.eval()
    for batch in first.losses[number].batches[:12]:
        for place, (ids, mask, length) in enumerate(zip(batch.ids, batch.masks, batch.prompts, strict=True)):
            with torch.no_grad():
                features = {"input_ids": ids, "attention_mask": mask, "prompt_length": length}
                found = model(features)["sentence_embedding"].numpy()
            limit = PASSAGE_LENGTH if place else QUERY_LENGTH
            for row in range(len(ids)):
                whole = model.tokenizer.decode(ids[row][mask[row].bool()], skip_special_tokens=True)
                before, sign, text = whole.partition(": ")
                np.testing.assert_allclose(found[row], by_hand(model, before + sign, text, limit), atol=5e-5)


def test_queries_and_passages_have_their_own_lengths(first: Run) -> None:
    for losses in first.losses:
        widths = [[ids.shape[1] for ids in batch.ids] for batch in losses.batches]
        assert max(found[0] for found in widths) == QUERY_LENGTH
        assert {max(column) for column in list(zip(*widths, strict=True))[1:]} == {PASSAGE_LENGTH}
    model = first.model()
    for encode, limit in ((model.encode_query, QUERY_LENGTH), (model.encode_document, PASSAGE_LENGTH)):
        room = limit - len(
            model.tokenizer(model.prompts["query" if limit == QUERY_LENGTH else "document"])["input_ids"]
        )
        words = ["tea"] * 60
        shorter, cut, longer = (encode(" ".join(words[:n]), show_progress_bar=False) for n in (room - 1, room, 60))
        np.testing.assert_allclose(cut, longer, atol=1e-5)
        assert not np.allclose(shorter, cut, atol=1e-4)


def test_merged_weights_are_the_base_with_its_adapter(first: Run) -> None:
    texts = ["where does old tea come from", "red rain is made by the sea"]
    student = open_student(first.recipe, first.output / "base", first.output / STAGES[1])
    merged, base = first.model(), first.model("base")
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    for encode in ("encode_query", "encode_document"):
        unmerged = getattr(student, encode)(texts, show_progress_bar=False)
        np.testing.assert_allclose(getattr(merged, encode)(texts, show_progress_bar=False), unmerged, atol=2e-4)
        assert not np.allclose(getattr(base, encode)(texts, show_progress_bar=False), unmerged, atol=0.1)


# ---- negatives -----------------------------------------------------------------------------------------------------


def test_every_set_has_rows_with_five_negatives(first: Run) -> None:
    names = ["query", "positive", *(f"negative_{place}" for place in range(1, 6))]
    for one in first.recipe.sets:
        rows = first.rows(one.name)
        assert rows.features == datasets.Features(dict.fromkeys(names, datasets.Value("large_string")))
        assert 8 <= len(rows) <= 16
        for row in rows:
            assert len(set(row.values())) == 7
            assert all(row.values())


def test_mined_negatives_are_under_the_ceiling_of_the_teacher_with_its_own_prompts(first: Run) -> None:
    teacher, settings = first.model("base"), first.recipe.mining.teacher
    teacher.max_seq_length = settings.max_length

    def vectors(texts: list[str], prompt: str, query: bool) -> Any:
        encode = teacher.encode_query if query else teacher.encode_document
        return encode(texts, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)

    for name in ("MS-MARCO", "StackExchange", "STS12"):
        rows, prompt = first.rows(name), settings.query_prompt.replace("{task}", SETS[name].task)
        for row in rows:
            passages = vectors([row["positive"], *(row[f"negative_{n}"] for n in range(1, 6))], "", query=False)
            scores = passages @ vectors([row["query"]], prompt, query=True)[0]
            assert (scores[1:] < 0.95 * scores[0] + 1e-5).all()
            assert (np.diff(scores[1:]) < 1e-5).all()  # sampler top: from the best down


@pytest.mark.parametrize("known", [False, True])
def test_a_positive_that_was_not_sampled_is_no_negative(known: bool, encoder: str, tmp_path: Path) -> None:
    mining = tiny().mining
    recipe = replace(tiny(), mining=replace(mining, miner=replace(mining.miner, method="naive", on_exhausted="keep")))
    texts = pa.array([f"d w{place} w{place + 1}" for place in range(20, 60, 8)])  # as many as are wanted
    columns = [pa.array(["q w0 w1 w3"]), pa.array(["d w60 w61"])]
    others = pa.table([columns[0], texts[:1]], ["query", "positive"])[: int(known)]
    rows = in_memory(pa.table(columns, ["query", "positive"]))
    loaded = LoadedSet(SETS["FEVER"], rows, pa.concat_arrays([texts, columns[1]]), in_memory(others), 1, 0)
    mined, _ = NegativeRows(recipe, tmp_path)._mine(loaded, Path(encoder))
    (row,) = mined
    assert (texts[0].as_py() in row.values()) != known


def test_what_is_short_of_negatives_is_dropped_and_counted(first: Run) -> None:
    notes = {
        one.name: json.loads((first.output / "sets" / f"{one.name}.json").read_text()) for one in first.recipe.sets
    }
    assert sum(note["short"] for note in notes.values()) > 0
    for name, note in notes.items():
        assert note["rows"] == len(first.rows(name)) == 16 - note["short"], name
        line = next(line for line in first.told if line.startswith(f"{name}: "))
        assert line.startswith(f"{name}: {note['rows']} rows with negatives ")
        assert f"{note['short']} for want of negatives" in line


def test_vectors_go_when_a_set_is_written(first: Run) -> None:
    assert {path.suffix for path in (first.output / "sets").iterdir()} == {".arrow", ".json"}


# ---- training ------------------------------------------------------------------------------------------------------


def queries_of(first: Run, batch: Batch, tokenizer: Any) -> list[str]:
    return [
        tokenizer.decode(row[mask.bool()], skip_special_tokens=True)
        for row, mask in zip(batch.ids[0], batch.masks[0], strict=True)
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_a_batch_is_of_one_set_under_its_own_task(first: Run, number: int) -> None:
    stage, tokenizer = first.recipe.stages[number], first.model().tokenizer
    known = {one.name: set(first.rows(one.name)["query"]) for one in first.recipe.sets_of(stage)}
    seen: defaultdict[str, int] = defaultdict(int)
    for batch in first.losses[number].batches:
        assert len(batch.ids) == 2 + stage.hard_negatives
        whole = queries_of(first, batch, tokenizer)
        # Sets of the same archive have the same texts: the task tells them apart.
        sets = [
            one.name
            for one in first.recipe.sets_of(stage)
            if all(text.startswith(prompt := first.recipe.prompts.query_of(one)) for text in whole)
            and all(any(query.startswith(text[len(prompt) :]) for query in known[one.name]) for text in whole)
        ]
        assert len(sets) == 1, whole
        seen[sets[0]] += len(whole)
    epochs = stage.training.num_train_epochs
    assert dict(seen) == {name: epochs * len(queries) for name, queries in known.items()}


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_falls(first: Run, number: int) -> None:
    losses = [batch.loss for batch in first.losses[number].batches]
    some = len(losses) // 5
    assert np.mean(losses[-some:]) < 0.75 * np.mean(losses[:some])
    noted = first.trained[number].losses
    assert list(noted)[-1] <= first.trained[number].steps
    assert next(iter(noted.values())) == pytest.approx(np.mean(losses[: _batches_a_note(first, number)]), abs=1e-3)


def _batches_a_note(first: Run, number: int) -> int:
    return first.recipe.stages[number].training.gradient_accumulation_steps * next(iter(first.trained[number].losses))


def test_only_the_adapter_is_trained(first: Run) -> None:
    for losses in first.losses:
        assert losses.trained
        assert all("lora_" in name for name in losses.trained)
        assert set(losses.trained) == set(losses.began_with)
        assert all(weight.dtype == torch.float32 for weight in losses.began_with.values())


def test_stage_2_begins_with_what_stage_1_has_left(first: Run) -> None:
    left = load_file(str(first.output / STAGES[0] / "adapter.safetensors"))
    begun, new = first.losses[1].began_with, first.losses[0].began_with
    assert left.keys() == begun.keys()
    assert all(torch.equal(left[name], begun[name]) for name in left)
    assert all((weight == 0).all() for name, weight in new.items() if "lora_B" in name)
    assert any((weight != 0).any() for name, weight in begun.items() if "lora_B" in name)
    ended = load_file(str(first.output / STAGES[1] / "adapter.safetensors"))
    assert not all(torch.equal(left[name], ended[name]) for name in left)
    one, two = first.trained
    assert one.ended_with == two.began_with
    assert len({one.began_with, one.ended_with, two.ended_with}) == 3


def test_in_batch_negatives_are_a_switch_of_the_stage(first: Run) -> None:
    assert [losses.get_config_dict()["in_batch_negatives"] for losses in first.losses] == [True, False]
    assert [losses.get_config_dict()["scale"] for losses in first.losses] == [pytest.approx(20), pytest.approx(20)]


# ---- evaluation and push -------------------------------------------------------------------------------------------


def test_the_papers_row_stands_beside_ours(first: Run) -> None:
    papers = {  # table 5, written down a second time
        "ArguAna": 68.28, "ClimateFEVER": 43.47, "CQADupstackRetrieval": 49.36, "DBPedia": 50.82, "FEVER": 93.15,
        "FiQA2018": 61.18, "HotpotQA": 79.12, "MSMARCO": 44.89, "NFCorpus": 45.06, "NQ": 72.44,
        "QuoraRetrieval": 88.78, "SCIDOCS": 22.55, "SciFact": 81.31, "Touche2020": 26.60, "TRECCOVID": 86.44,
        "**average**": 60.90,
    }  # fmt: skip
    lines = [
        line.split("|")[1:4] for line in first.report.partition("| NDCG@10 |")[2].splitlines() if line.startswith("| ")
    ]
    found = {name.strip(): (float(theirs), float(ours)) for name, theirs, ours in lines}
    assert {name: theirs for name, (theirs, _) in found.items()} == papers
    ours = {
        name: json.loads((first.output / "evaluation" / f"{name}.json").read_text())["ndcg_at_10"] for name in TASKS
    }
    assert {name: score for name, (_, score) in found.items() if name in ours} == {
        name: pytest.approx(100 * score, abs=0.005) for name, score in ours.items()
    }
    assert found["**average**"][1] == pytest.approx(100 * np.mean(list(ours.values())), abs=0.005)
    assert np.mean(list(papers.values())[:-1]) == pytest.approx(60.90, abs=0.005)
    assert (first.output / "report.md").read_text(encoding="utf-8").strip() in first.report


def test_an_average_of_some_tasks_says_so() -> None:
    assert "| **average of these 2** | 70.36 | 50.00 | -20.36 |" in table({"ArguAna": 0.25, "NQ": 0.75})


@pytest.mark.parametrize("name", ["MSMARCO", "SCIDOCS"])
def test_a_score_by_hand(first: Run, name: str) -> None:
    """NDCG at 10 of the first eight queries, one relevant passage each, under the task's own instruction."""
    model, folder = first.model(), first.output / "fixtures" / "beir" / name
    queries, corpus = (read_beir_texts(folder, which)[1].to_pylist() for which in ("queries", "corpus"))
    prompt = first.recipe.prompts.query.replace("{task}", TASKS[name].instruction)
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    scores = model.encode_query(queries[:8], prompt=prompt, **options) @ model.encode_document(corpus, **options).T
    ranks = [int((row > row[place]).sum()) for place, row in enumerate(scores)]
    expected = np.mean([1 / math.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks])
    found = json.loads((first.output / "evaluation" / f"{name}.json").read_text())["ndcg_at_10"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_pushed_model_is_the_one_here(first: Run, hub: Hub) -> None:
    assert f"Pushed: https://huggingface.co/{REPO}" in first.report
    files = hub.files("model", REPO)
    assert not [name for name in files if "adapter" in name]
    pushed, ours = SentenceTransformer(REPO, device="cpu"), first.model()
    assert sees_later_tokens(pushed)
    texts = ["where does old tea come from", "so " * 60]
    for encode in ("encode_query", "encode_document"):
        np.testing.assert_array_equal(
            getattr(pushed, encode)(texts, show_progress_bar=False),
            getattr(ours, encode)(texts, show_progress_bar=False),
        )
    card = files["README.md"].decode()
    assert "5 hard negatives per query, mined by `perc\\_pos:0.95`" in card or "mined by `perc_pos:0.95`" in card
    assert "the teacher is base" in card
    mined = [one for one in first.recipe.sets if one.kind in ("retrieval", "sts")]
    assert f"{sum(len(first.rows(one.name)) for one in mined)} rows with" in card


# ---- interrupted, and other settings -------------------------------------------------------------------------------


class Interrupted(Exception):
    """In the place of a kill."""


def run_until(recipe: NVRetriever, output: Path, line: str) -> list[str]:
    """Run until a line is told; returns what was told."""
    told: list[str] = []

    def tell(said: str) -> None:
        told.append(said)
        if said.startswith(line):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(recipe, output, tell=tell)
    return told


def short() -> NVRetriever:
    """The tiny scale with four of its sets and two of its tasks."""
    recipe = tiny()
    kept = ("HotpotQA", "TriviaQA", "STS12", "MedrxivClusteringS2S")
    sets = tuple(one.name for one in recipe.sets if one.name not in kept)
    tasks = tuple(name for name in TASKS if name not in ("ArguAna", "NQ"))
    return replace(
        recipe,
        stages=tuple(replace(stage, leave_out=sets) for stage in recipe.stages),
        evaluation=replace(recipe.evaluation, leave_out=tasks),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("whole") / "output"
    return Run(short(), output, run(short(), output, tell=lambda line: None), [], [])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[list[str]]]:
    """Interrupted while it mines, within stage 1, after it, within stage 2, and after the first task."""
    recipe, output = short(), tmp_path_factory.mktemp("broken") / "output"
    lines = ("TriviaQA: ", "retrieval: step 3 ", "retrieval: done", "all tasks: step 6 ", "ArguAna: NDCG@10")
    parts = [run_until(recipe, output, line) for line in lines]
    told: list[str] = []
    report = run(recipe, output, tell=told.append)
    return Run(recipe, output, report, told, []), [*parts, told]


def test_an_interrupted_run_continues(broken: tuple[Run, list[list[str]]]) -> None:
    parts = broken[1]
    in_all = [line for part in parts for line in part]
    for start in ("Made-up data", "Base: ", "HotpotQA: ", "MedrxivClusteringS2S: ", "Merged", "NQ: NDCG@10"):
        assert len([line for line in in_all if line.startswith(start)]) == 1, start
    # A set counts once its rows are written, which the line comes before.
    assert [sum(line.startswith("TriviaQA: 1") for line in part) for part in parts[:3]] == [1, 1, 0]
    assert any(line.startswith("retrieval: continuing from step 2") for line in parts[2])
    assert not any(line.startswith("retrieval: step 1 ") for line in parts[2])
    assert not any(line.startswith("retrieval") for part in parts[3:] for line in part)
    assert any(line.startswith("all tasks: continuing from step 5") for line in parts[4])
    assert not any("step" in line for line in parts[5])


def test_an_interrupted_run_ends_with_the_same_bytes(whole: Run, broken: tuple[Run, list[list[str]]]) -> None:
    again = broken[0]
    for name in (
        "stage-1-retrieval/adapter.safetensors",
        "stage-2-all-tasks/adapter.safetensors",
        "model/model.safetensors",
        "report.md",
    ):
        assert (again.output / name).read_bytes() == (whole.output / name).read_bytes(), name
    for one, other in zip(again.trained, whole.trained, strict=True):
        assert replace(one, folder=Path()) == replace(other, folder=Path())


def test_a_finished_run_has_nothing_to_do(broken: tuple[Run, list[list[str]]]) -> None:
    done, told = broken[0], []
    machines = replace(done.recipe.machines, gpus=3)
    assert run(replace(done.recipe, machines=machines), done.output, tell=told.append) == done.report
    assert told == []


def test_another_run_in_the_same_folder_is_an_error(broken: tuple[Run, list[list[str]]]) -> None:
    recipe, output = broken[0].recipe, broken[0].output
    first_stage = replace(recipe.stages[0], training=replace(recipe.stages[0].training, learning_rate=1e-3))
    others = {
        "seed: .* has 0, now it is 1; give the same settings, or another folder": (replace(recipe, seed=1), None),
        r"stages\[0\]\.training\.learning_rate: .* has 0\.005, now it is 0\.001": (
            replace(recipe, stages=(first_stage, recipe.stages[1])),
            None,
        ),
        "stages: .* has ": (replace(recipe, stages=recipe.stages[:1]), None),
        r"lora\.r: .* has 16, now it is 4": (replace(recipe, lora=replace(recipe.lora, r=4)), None),
        "--data: .* has None, now it is '/": (recipe, output / "fixtures"),
    }
    for message, (other, data) in others.items():
        with pytest.raises(InputError, match=f"^{message}") as raised:
            run(other, output, data=data, tell=lambda line: None)
        assert "\n" not in str(raised.value)


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StorageError, match=r"holds 'thesis\.tex' and no run of this recipe"):
        run(tiny(), tmp_path, tell=lambda line: None)


# ---- before any work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["mteb", "peft"])
def test_a_missing_package_is_one_error_before_any_work(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    recipe = tiny()
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, harness="mteb"))
    with pytest.raises(InputError, match=f"needs the package {package}, which is not installed") as raised:
        run(recipe, tmp_path / "run", tell=lambda line: None)
    assert "pip install -e '.[recipes]'" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_what_can_be_planned_and_not_run(tmp_path: Path) -> None:
    recipe = tiny()
    mixed, alone = (
        replace(recipe, stages=(replace(recipe.stages[0], **change),))
        for change in ({"homogeneous_batches": False}, {"hard_negatives": 0})
    )
    on_hub = replace(recipe, data="hub")
    for other, message in (
        (mixed, r"stages\[0\]\.homogeneous_batches: false can be planned and not run"),
        (alone, r"stages\[0\]\.hard_negatives: 0 can be planned and not run"),
        (on_hub, "'beir' needs --data DIR with BEIR folders"),
    ):
        with pytest.raises(InputError, match=message):
            run(other, tmp_path / "run", tell=lambda line: None)
    for other in (on_hub, recipe):
        with pytest.raises(InputError, match=r"beir lacks \['ArguAna', "):
            run(other, tmp_path / "run", data=tmp_path, tell=lambda line: None)
    with pytest.raises(InputError, match="--data: there is no folder"):
        run(recipe, tmp_path / "run", data=tmp_path / "nowhere", tell=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_prompt_without_room_for_a_text(tmp_path: Path) -> None:
    recipe = tiny()
    recipe = replace(recipe, base=replace(recipe.base, query_length=8))
    with pytest.raises(InputError, match=r"a limit of 8 tokens, and the prompt 'Given .*: ' alone has \d+"):
        run(recipe, tmp_path / "run", tell=lambda line: None)


# ---- the made-up data ----------------------------------------------------------------------------------------------


def test_made_up_tables_have_the_columns_of_the_real_ones(first: Run) -> None:
    """`tests.recipes.hub` writes the columns of each set down a second time."""
    real = data_sets()
    ours: defaultdict[str, set[str]] = defaultdict(set)
    for (hub_id, one), content in tables().items():
        name = one.file.removesuffix(".parquet")
        ours[hub_id].add(name)
        assert set(content) <= set(real[hub_id][name]), (hub_id, name)
        written = pq.read_table(folder_of(first.output / "fixtures", hub_id) / one.file)
        assert written.column_names == list(content)
    assert set(ours) == set(real)
    assert all(names <= set(real[hub_id]) for hub_id, names in ours.items())


def test_made_up_evaluation_data_would_be_trained_on_if_nobody_looked(first: Run) -> None:
    for one in first.recipe.sets:
        if one.evaluation is not None:
            texts = {normalised(text) for name in ("query", "positive") for text in first.rows(one.name)[name]}
            assert normalised(SHARED) not in texts


# huggingface_hub's own; `point_clients_at` says so for the test that it is called in.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_base_of_the_hub_at_a_revision(first: Run, hub: Hub, tmp_path: Path) -> None:
    """In a short run: one stage over three sets, one task."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    hub.create("model", "tester/mistral", {name: (first.output / "base" / name).read_bytes() for name in names})
    revision = hub.commits("model", "tester/mistral")[0].oid
    hub.commit("model", "tester/mistral", {"model.safetensors": b"newer"})
    recipe = first.recipe
    stage = replace(recipe.stages[0], kinds=("sts",), training=replace(recipe.stages[0].training, num_train_epochs=1))
    short = replace(
        recipe,
        base=replace(recipe.base, name="tester/mistral", revision=revision),
        stages=(stage,),
        evaluation=replace(recipe.evaluation, leave_out=tuple(name for name in TASKS if name != "NQ")),
        output=replace(recipe.output, repo="tester/short"),
    )
    told: list[str] = []
    report = run(short, tmp_path / "run", tell=told.append)
    assert "average of these 1" in report
    assert [line.partition(":")[0] for line in told if " rows with " in line] == ["STS12", "STS22", "STSBenchmark"]
    found, expected = (
        SentenceTransformer(str(folder / "base"), device="cpu").encode_query(["old tea"], show_progress_bar=False)
        for folder in (tmp_path / "run", first.output)
    )
    np.testing.assert_array_equal(found, expected)
    for content in (hub.files("model", "tester/short")["README.md"], (tmp_path / "run/model/README.md").read_bytes()):
        metadata = RepoCard(content.decode()).data.to_dict()
        assert metadata["base_model"] == "tester/mistral"


def test_the_readme_shows_what_the_tiny_run_prints(first: Run) -> None:
    """Up to the digits of what was trained, which are those of a machine."""
    shown = (
        (FOLDER / "README.md")
        .read_text(encoding="utf-8")
        .partition("<!-- tiny -->\n")[2]
        .partition("\n<!-- /tiny -->")[0]
    )

    def lines(report: str) -> list[str]:
        cut = [re.sub(r"[-+]?\d+\.\d+ \|( [-+]?\d+\.\d+ \|)?$", "", line) for line in report.strip().splitlines()]
        return [line for line in cut if line]

    assert lines(shown) == lines((first.output / "report.md").read_text(encoding="utf-8"))
    assert len(lines(shown)) > 20
