"""The command `hf-negmine train`: real runs of a tiny model, what they print, write and refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.commands.output import open_mined
from hf_negmine.select.filters import Veto
from hf_negmine.train.data import TrainingData
from hf_negmine.train.output import begin
from hf_negmine.train.settings import TrainingSettings

FRUITS = ["apple", "banana", "cherry", "damson", "elder", "fig", "grape", "hazel", "imbe", "jujube", "kiwi", "lime"]
VERBS = ["eat", "grow", "cook", "buy"]
PAIRS = [(f"how to {verb} {fruit}", f"{fruit} : we {verb} it") for fruit in FRUITS for verb in VERBS]
WORDS = sorted({word for pair in PAIRS for text in pair for word in text.split()} | {"find", "read"})

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer, 32 wide, over the words of the rows."""
    folder = tmp_path_factory.mktemp("model")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: place for place, word in enumerate([*specials, *WORDS])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[call-arg]
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    model.save(str(folder / "tiny"))
    return folder / "tiny"


def write_rows(path: Path) -> Path:
    path.write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in PAIRS), encoding="utf-8")
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "fruits"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{place}", "text": positive} for place, (_, positive) in enumerate(PAIRS)]
    queries = [{"_id": f"q{place}", "text": query} for place, (query, _) in enumerate(PAIRS)]
    for name, lines in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    for split, places in (("train", range(24)), ("test", range(24, 48))):
        judged = "".join(f"q{place}\td{place}\t1\n" for place in places)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TQDM_DISABLE", "0")  # so that what --quiet sets ends with the test

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture(scope="module")
def mined_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mined")
    options = ["-t", "bm25", "-m", "naive", "-n", "3", "--cache-dir", str(folder / "cache")]
    command = ["mine", str(write_rows(folder / "rows.jsonl")), *options, "-o", str(folder / "mined")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf")
        assert CliRunner().invoke(app, command).exit_code == 0
    return folder / "mined"


@pytest.fixture
def mined(mined_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined_once, tmp_path / "mined"))


def vectors(model: Path) -> torch.Tensor:
    found: torch.Tensor = SentenceTransformer(str(model), device="cpu").encode(
        [query for query, _ in PAIRS], convert_to_tensor=True
    )
    return found


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_mined_folder_is_trained_on(run: Run, mined: Path, tiny: Path, beir: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run(
        "train", "--mined", mined, "--model", tiny, "--epochs", "4", "--lr", "5e-3", "--eval", beir, "-o", output
    )
    assert result.exit_code == 0, result.output
    printed = dict(line.split(": ") for line in result.stdout.splitlines() if line.startswith("NDCG@10"))
    before, after = (float(printed[f"NDCG@10 {when} training"]) for when in ("before", "after"))
    assert before + 0.1 < after <= 1
    assert not {"Training", "Batches"} & set(re.findall(r"\w+", result.stderr)), "bars are for terminals"
    assert f"Written: {output} (the model, and its card in README.md) after 8 steps." in result.stdout
    assert not (vectors(output) == vectors(tiny)).all()
    assert not (output / "checkpoints").exists()
    card = card_of(output)
    section = card[card.index("## Negatives") : card.index("## Training Details")]
    assert section.splitlines()[2:] == [
        "- **Rows:** 48, 3 negatives each",
        "- **Teacher:** bm25-english",
        "- **Method:** `naive`",
        "- **Sampler:** `top`, seed 0",
        "- **Searched:** 48 queries in a corpus of 48 passages",
        section.splitlines()[7],
        section.splitlines()[8],
        f"- **NDCG@10** on fruits: {before:.4f} before training, {after:.4f} after",
        "",
    ]
    assert section.splitlines()[7].startswith("- **Mined with:** hf_negmine ")
    assert section.splitlines()[8].endswith("of the passages were left out as likely false negatives")
    assert "PositiveAwareMNRL" in card
    assert str(tmp_path.parent) not in card
    assert str(tiny.parent.parent) not in card


def test_the_written_model_is_the_trained_one(
    run: Run, mined: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = {}
    save = SentenceTransformer.save

    def keep(self: SentenceTransformer, *args: Any, **kwargs: Any) -> None:
        trained["vectors"] = self.encode([query for query, _ in PAIRS], convert_to_tensor=True)
        save(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "save", keep)
    output = tmp_path / "out"
    result = run("train", mined, "--model", tiny, "--device", "cpu", "-o", output, "--quiet")
    assert result.exit_code == 0, result.output
    torch.testing.assert_close(vectors(output), trained["vectors"])
    assert result.stdout.splitlines()[0].startswith("Written: ")
    assert len(result.stdout.splitlines()) == 2
    assert "train:" not in result.stderr


def test_plain_rows_are_mined_on_the_way(run: Run, beir: Path, tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run(
        "train", beir, "-t", tiny, "--model", tiny, "-m", "naive", "-n", "2", "--epochs", "2", "--loss", "cached",
        "--mini-batch-size", "5", "--refresh", "student", "--query-prompt", "find ", "--passage-prompt", "read ",
        "-o", output,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 negatives per query by naive with sampled:10, teacher tiny" in result.stdout
    card = card_of(output)
    for line in (
        "- **Rows:** 24, 2 negatives each",
        "- **Teacher:** tiny (cosine)",
        "- **Every epoch:** redrawn",
        "- **Refreshed:** 1 time; searched again with the model itself",
        "CachedPositiveAwareMNRL",
    ):
        assert line in card
    model = SentenceTransformer(str(output), device="cpu")
    assert model.prompts == {"query": "find ", "document": "read "}
    assert not (output / "checkpoints").exists()


def test_ids_and_lists_are_read_with_their_tables(run: Run, rows_file: Path, tiny: Path, tmp_path: Path) -> None:
    for format in ("ids", "labeled-list"):
        folder = tmp_path / format
        assert run("mine", rows_file, "-t", "bm25", "-m", "naive", "-n", "3", "-f", format, "-o", folder).exit_code == 0
        output = tmp_path / f"{format}-model"
        given = ["--mined", folder, "--model", tiny, "--loss", "mnrl", "-s", "sampled:3@inf", "-n", "2"]
        result = run("train", *given, "-o", output)
        assert result.exit_code == 0, result.output
        assert "- **Every epoch:** redrawn by `sampled:3@inf` from the mined ones" in card_of(output)


def test_rows_beside_mined_rows_choose_among_them(run: Run, mined: Path, tiny: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text("".join(json.dumps({"query": q, "positive": p}) + "\n" for q, p in PAIRS[:20]), encoding="utf-8")
    command = ("train", some, "--mined", mined, "--model", tiny, "-q")
    assert run(*command, "-o", tmp_path / "out").exit_code == 0
    assert "- **Rows:** 20, 3 negatives each" in card_of(tmp_path / "out")
    some.write_text(json.dumps({"query": "something", "positive": "else"}) + "\n", encoding="utf-8")
    result = run(*command, "-o", tmp_path / "none")
    assert result.exit_code == 1
    assert "none of the 48 mined rows that are in" in result.stderr


def test_splits_of_rows_and_of_mined_ones(run: Run, mined: Path, beir: Path, tiny: Path, tmp_path: Path) -> None:
    written = open_mined(mined).rows
    shared = datasets.DatasetDict({"train": written.select(range(30)), "test": written.select(range(30, 40))})
    shared.save_to_disk(str(tmp_path / "shared"))
    for name, arguments, expected in (
        ("mined", ("--mined", tmp_path / "shared", "--split", "test"), 10),
        ("default", ("--mined", tmp_path / "shared"), 30),
        ("rows", (tmp_path / "shared", "--split", "test"), 10),
        ("both", (beir, "--mined", mined, "--split", "test"), 24),
    ):
        result = run("train", *arguments, "--model", tiny, "-q", "-o", tmp_path / f"{name}-model")
        assert result.exit_code == 0, result.output
        assert f"- **Rows:** {expected}, 3 negatives each" in card_of(tmp_path / f"{name}-model")
    result = run("train", "--mined", tmp_path / "shared", "--split", "dev", "--model", tiny, "-o", tmp_path / "none")
    assert "split: 'dev' is not among ['train', 'test']" in result.stderr


def test_rows_without_a_negative_are_left_out(run: Run, tiny: Path, tmp_path: Path) -> None:
    rows = [{"query": q, "positive": p, "negative": "we eat it"} for q, p in PAIRS]
    rows[3]["negative"] = rows[3]["positive"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run("train", path, "--model", tiny, "--no-in-batch-negatives", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Note: rows not trained on, because they lack negatives: 1." in result.stdout
    card = card_of(tmp_path / "out")
    assert "- **Rows:** 47, 1 negative each; 1 left out for lack of negatives" in card
    assert "how those were mined is not recorded" in card
    assert "a query is compared with its own negatives only" in card


# ---- interruptions and the output folder ----------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(
    run: Run, rows_file: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "train", rows_file, "-t", "bm25", "-m", "naive", "-n", "2", "--model", tiny, "--epochs", "3", "-b", "24",
        "--refresh", "easy", "--device", "cpu",
    )  # fmt: skip
    assert run(*command, "-o", tmp_path / "whole").exit_code == 0
    output = tmp_path / "out"
    step = SentenceTransformerTrainer.training_step

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(SentenceTransformerTrainer, "training_step", stop)
        result = run(*command, "-o", output)
    assert result.exit_code == 130
    assert result.stderr.endswith("stopped; run the same command with --resume to continue\n")
    assert not (output / "modules.json").exists()

    refused = run(*command, "-o", output)
    assert refused.exit_code == 1
    assert "holds a run that was interrupted; continue it with --resume" in refused.stderr
    other = run(*command, "--lr", "1", "--resume", "-o", output)
    assert other.exit_code == 1
    assert "the interrupted run had learning_rate 2e-05, now it is 1.0" in other.stderr

    cut_short = output / "checkpoints" / "checkpoint-4"  # killed while it was saved
    cut_short.mkdir()
    result = run(*command, "--resume", "-o", output)
    assert result.exit_code == 0, result.output
    assert "Continuing from step 3" in result.stdout
    torch.testing.assert_close(vectors(output), vectors(tmp_path / "whole"))
    assert "- **Interrupted:** training continued at step 3;" in card_of(output)
    assert "- **Refreshed:** 2 times" in card_of(output)
    assert not (output / "checkpoints").exists()

    finished = run(*command, "--resume", "-o", output)
    assert finished.exit_code == 1
    assert "holds a model, which is finished: there is nothing to resume" in finished.stderr


def test_a_run_goes_on_with_its_own_rows_only(tmp_path: Path) -> None:
    settings = TrainingSettings(resume=True)
    rows = datasets.Dataset.from_dict({"query": ["a", "b"], "positive": ["c", "d"], "negative_1": ["e", "f"]})
    own = TrainingData(rows, {"num_negatives": 1})
    assert begin(tmp_path, "model", own, settings) is None
    assert (
        begin(tmp_path, "model", TrainingData(datasets.Dataset.from_list(rows.to_list()), own.collating), settings)
        is None
    )
    for other in (rows.select([1, 0]), rows.map(lambda row: {"negative_1": row["negative_1"].upper()})):
        with pytest.raises(InputError, match=r"rows \(digest\) .*the same rows and settings"):
            begin(tmp_path, "model", TrainingData(other, own.collating), settings)


def test_a_run_goes_on_with_its_own_way_of_mining_only(rows_file: Path, tmp_path: Path) -> None:
    def data(**given: Any) -> TrainingData:
        settings = {"method": "naive", "num_negatives": 2, "cache_dir": tmp_path / "cache", "progress": False, **given}
        return TrainingData.to_be_mined(rows_file, NegativeMiner("bm25", **settings))

    settings = TrainingSettings(resume=True)
    for _ in range(2):
        assert begin(tmp_path / "run", "model", data(), settings) is None
    for name, other in (("positive_score", "each"), ("filters", [Veto("bm25", "perc_pos:2")])):
        with pytest.raises(InputError, match=f"the interrupted run had {name} "):
            begin(tmp_path / "run", "model", data(**{name: other}), settings)


def test_a_folder_that_holds_a_model_or_other_files(run: Run, mined: Path, tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(tiny, output)
    command = ("train", "--mined", mined, "--model", tiny, "-q", "-o", output)
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {output} holds a model, so nothing was trained; give another folder, or --overwrite\n"
    )
    assert (vectors(output) == vectors(tiny)).all()
    assert run(*command, "--overwrite").exit_code == 0
    assert not (vectors(output) == vectors(tiny)).all()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine", encoding="utf-8")
    result = run(*command[:-1], tmp_path / "notes")
    assert result.exit_code == 1
    assert "holds 'notes.txt' but no run of this command" in result.stderr


def test_what_an_earlier_model_left_is_not_loaded(run: Run, mined: Path, tiny: Path, tmp_path: Path) -> None:
    """An adapter would be put on top of the new weights, and one file of weights is preferred to several."""
    peft = pytest.importorskip("peft")
    output, anew = tmp_path / "out", tmp_path / "anew"
    model = SentenceTransformer(str(tiny), device="cpu")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    model.save(str(output))
    for name in ("pytorch_model.bin", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (output / name).write_bytes(b"old")
    (output / "notes.txt").write_text("mine", encoding="utf-8")
    command = ("train", "--mined", mined, "--model", tiny, "--device", "cpu", "-q")
    assert run(*command, "-o", anew).exit_code == 0
    assert run(*command, "-o", output, "--overwrite").exit_code == 0
    assert {path.name for path in output.iterdir()} == {path.name for path in anew.iterdir()} | {"notes.txt"}
    torch.testing.assert_close(vectors(output), vectors(anew))


def test_an_adapter_is_loaded_frozen_and_refused(run: Run, mined: Path, tiny: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = SentenceTransformer(str(tiny), device="cpu")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    model[0].model.peft_config["default"].base_model_name_or_path = str(tiny.parent / "bert")
    model.save(str(tmp_path / "adapter"))
    result = run("train", "--mined", mined, "--model", tmp_path / "adapter", "-q", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: model '{tmp_path / 'adapter'}' has ")
    assert "all are loaded frozen, like those of an adapter (LoRA)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to train on: give ROWS and --teacher, or --mined"),
        (("ROWS",), "the rows have no negatives, their columns are ['query', 'positive']; give --teacher"),
        (("--mined", "MINED", "-t", "bm25"), "--teacher 'bm25': MINED already holds mined negatives"),
        (("MINED", "-t", "bm25"), "--teacher 'bm25': MINED already holds mined negatives"),
        (("MINED", "-m", "naive", "--refresh", "easy"), "--method, --refresh: for rows that are mined first"),
        (("MINED", "--model", "./no-such-model"), "model './no-such-model' could not be loaded"),
        (("MINED", "--loss", "mnrl", "--no-in-batch-negatives"), "the loss 'mnrl' always has them"),
        (("MINED", "--mini-batch-size", "8"), "mini_batch_size: 8, but the loss 'positive-aware' holds the whole"),
        (("MINED", "--loss", "mnrl", "--mini-batch-size", "32"), "mini_batch_size: 32, but the loss 'mnrl' holds the"),
        (("MINED", "--cache-dir", "c"), "--cache-dir: for rows that are mined first, but no --teacher is given"),
        (("MINED", "--split", "test"), "--split: 'test', but MINED has no splits, as hf-negmine mine has written it"),
        (("--mined", "MINED", "--split", "x"), "--split: 'x', but MINED has no splits, as hf-negmine mine has"),
        (("MINED", "--epochs", "0"), "epochs: more than 0, got 0"),
        (("MINED", "--epochs", "inf"), "epochs: a finite number, got inf"),
        (("MINED", "--lr", "inf"), "learning_rate: a finite number, got inf"),
        (("MINED", "--model", ""), "--model: it is empty, expected a model's id or folder"),
        (("MINED", "--device", "cuda:93"), "device: 'cuda:93' is not on this machine"),
        (("MINED", "--eval-split", "test"), "--eval-split: 'test' is a split of the folder that --eval names"),
        (("MINED", "--query-column", "q"), "query_column: column 'q' is not among"),
        (("ROWS", "-t", "bm25", "--teacher-query-prompt", "x"), "--teacher-query-prompt: for Sentence Transformers"),
        (("PAIRS",), "the rows are pairs with a label (['query', 'positive', 'label'])"),
        (("./nothing.jsonl",), "./nothing.jsonl does not exist"),
        (("ROWS", "-t", "bm25", "--split", "dev"), "split: 'dev', but ROWS has no splits; leave it out"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: tuple[str, ...], message: str, run: Run, mined: Path, rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "a", "positive": "b", "label": 1}\n', encoding="utf-8")
    names = {"ROWS": str(rows_file), "MINED": str(mined), "PAIRS": str(pairs)}
    for name, path in names.items():
        message = message.replace(f"{name} ha", f"{path} ha").replace(f"{name} al", f"{path} al")
    given = [names.get(argument, argument) for argument in arguments]
    result = run("train", "-o", tmp_path / "out", "-q", "--model", tiny, *given)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_that_has_diverged_is_not_saved(run: Run, mined: Path, tiny: Path, tmp_path: Path) -> None:
    result = run("train", mined, "--model", tiny, "-o", tmp_path / "out", "-q", "--lr", "1e38")
    assert result.exit_code == 1
    assert result.stderr.endswith(
        "Error: learning_rate: with 1e+38 the weights became NaN or infinite, so the model was not saved; give a lower "
        "learning rate\n"
    )
    assert not list((tmp_path / "out").iterdir())


def test_a_model_may_be_named_from_the_home_folder(
    run: Run, mined: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    result = run("train", mined, "--model", f"~/{tiny.name}", "-o", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "~" not in card


def test_settings_out_of_range() -> None:
    with pytest.raises(InputError, match="warmup_ratio: from 0 to under 1, got 1"):
        TrainingSettings(warmup_ratio=1)
    with pytest.raises(InputError, match="epochs: a finite number, got '3'"):
        TrainingSettings(epochs="3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="warmup_ratio: a finite number, got nan"):
        TrainingSettings(warmup_ratio=float("nan"))
    with pytest.raises(InputError, match="refresh: 'teacher' is not among"):
        TrainingSettings(refresh="teacher")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"epochs: at most 1,000,000, got 1e\+308"):
        TrainingSettings(epochs=1e308)
    for name in ("in_batch_negatives", "resume", "progress"):
        with pytest.raises(InputError, match=f"{name}: True or False, got 'no'"):
            TrainingSettings(**{name: "no"})  # type: ignore[arg-type]


def test_help_teaches(run: Run) -> None:
    text = " ".join(run("train", "--help").stdout.replace("│", " ").split())
    for word in ("positive-aware", "--mined", "--resume", "NDCG@10", "student searches again", "--no-in-batch"):
        assert word in text
