"""Number format, device, lengths and prompts of a model that is given by name: every door, every kind of teacher."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from typer.testing import CliRunner

import hf_negmine.teachers.encoders
from hf_negmine import CrossSample, DenseTeacher, Fusion, NegativeMiner, Veto
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.commands.demonstration import Pair
from hf_negmine.teachers import (
    APITeacher,
    CrossEncoderTeacher,
    LateInteractionTeacher,
    SparseEncoderTeacher,
    resolve_teacher,
    settings_of,
    teacher_of_settings,
)
from hf_negmine.teachers.lengths import positions_of
from hf_negmine.train.run import _load
from hf_negmine.train.settings import TrainingSettings
from tests.tiny_models import make_cross, make_sparse, make_tokens
from tests.train.helpers import load_model

KINDS = {
    "dense": DenseTeacher,
    "sparse": SparseEncoderTeacher,
    "tokens": LateInteractionTeacher,
    "cross": CrossEncoderTeacher,
}
PREFIX = {"dense": "", "sparse": "sparse:", "tokens": "late-interaction:", "cross": "cross-encoder:"}
every_kind = pytest.mark.parametrize("stored", KINDS)
with_prompts = pytest.mark.parametrize("stored", ["dense", "sparse", "tokens"])
TEXTS = [f"w{place} w{place + 1} w{2 * place}" for place in range(12)]
ROWS = Dataset.from_dict({"query": [f"w{place} w{place + 2}" for place in range(12)], "answer": TEXTS})
POSITIONS = 40
"""Of the models in `tiny_models`."""


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best device is one that this machine lacks: what is not told to stay on the processor fails."""
    monkeypatch.setattr(hf_negmine.teachers.encoders, "best_device", lambda: "cuda:93")


def refused(call: Callable[[], Any], *facts: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    for fact in facts:
        assert fact in str(caught.value)


def run(*words: Any) -> str:
    """What a failing command says, on one line."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code in (1, 2), done.output
    assert "bug of hf_negmine" not in done.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., str]:
    ROWS.to_json(tmp_path / "rows.jsonl")
    given = ("mine", tmp_path / "rows.jsonl", "-n", 1, "-o", tmp_path / "out", "--cache-dir", tmp_path / "cache")
    return lambda *words: run(*given, *words)


def formats_of(teacher: Any) -> set[torch.dtype]:
    return {weight.dtype for weight in teacher.model.parameters()}


# Number formats


@every_kind
@pytest.mark.parametrize("stored_in", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_model_opens_in_the_format_that_it_is_stored_in(
    stored: str, stored_in: torch.dtype, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_negmine.base.devices.has_fast_bfloat16", lambda: True)
    if stored_in != torch.float32:
        made = {"dense": load_model, "sparse": make_sparse, "tokens": make_tokens, "cross": make_cross}[stored](models)
        made.to(stored_in).save(str(tmp_path / stored))
        models = tmp_path
    teacher: Any = resolve_teacher(f"{PREFIX[stored]}{models / stored}", device="cpu")
    assert formats_of(teacher) == {stored_in}
    settings = settings_of(teacher)
    assert settings is not None
    assert settings["dtype"] == str(stored_in).removeprefix("torch."), "reproduce asks for it by name"
    again: Any = teacher_of_settings({**settings, "model": str(models / stored)})
    assert again.fingerprint("query") == teacher.fingerprint("query")


@every_kind
def test_a_format_that_is_asked_for_is_had_and_auto_is_none(stored: str, models: Path) -> None:
    kind = KINDS[stored]
    assert formats_of(kind(models / stored, dtype="bfloat16", device="cpu")) == {torch.bfloat16}
    refused(lambda: kind(models / stored, dtype="auto"), "dtype: 'auto' is not among", "'float32'")


def test_a_name_mines_as_the_loaded_model_does(models: Path, tmp_path: Path) -> None:
    loaded = SentenceTransformer(str(models / "dense"), device="cpu")
    rows = [
        NegativeMiner(teacher, num_negatives=2, include_scores=True, cache_dir=tmp_path / name, progress=False)
        .mine(ROWS)
        .to_list()
        for name, teacher in (("named", str(models / "dense")), ("loaded", loaded))
    ]
    assert rows[0] == rows[1]


# Devices


@pytest.mark.parametrize(
    "spec",
    [
        "{}/dense",
        "sparse:{}/sparse",
        "late-interaction:{}/tokens",
        "cross-encoder:{}/cross",
        "rrf(bm25, {}/dense)",
        "cross-sample(bm25, {}/dense)",
    ],
)
def test_the_miners_device_is_where_named_models_go(spec: str, models: Path, tmp_path: Path, without_gpu: None) -> None:
    NegativeMiner(
        spec.format(models), method="naive", num_negatives=1, device="cpu", cache_dir=tmp_path, progress=False
    ).mine(ROWS)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: (DenseTeacher(model), []),
        lambda model: (CrossEncoderTeacher(model.parent / "cross", first_stage=str(model)), []),
        lambda model: (Fusion(["bm25", str(model)]), []),
        lambda model: (CrossSample(["bm25", str(model)]), []),
        lambda model: ("bm25", [Veto(str(model), abstain_at=1.0)]),
    ],
    ids=["teacher", "first stage", "fusion", "ensemble", "veto"],
)
def test_so_do_those_of_teachers_and_filters_that_are_handed_over(
    make: Any, models: Path, tmp_path: Path, without_gpu: None
) -> None:
    teacher, filters = make(models / "dense")
    given: dict[str, Any] = {"method": "naive", "num_negatives": 1, "filters": filters, "progress": False}
    NegativeMiner(teacher, device="cpu", cache_dir=tmp_path, **given).mine(ROWS)


def test_a_device_of_its_own_and_a_loaded_model_stay(models: Path, tmp_path: Path, without_gpu: None) -> None:
    own = DenseTeacher(models / "dense", device="cpu:0")
    NegativeMiner(own, device="cpu", cache_dir=tmp_path)
    assert own._device == "cpu:0"
    loaded = SentenceTransformer(str(models / "dense"), device="cpu")
    NegativeMiner(loaded, num_negatives=1, device="cpu", cache_dir=tmp_path, progress=False).mine(ROWS)
    assert loaded.device == torch.device("cpu")
    refused(lambda: resolve_teacher(str(models / "dense"), device="cuda:93"), "device: 'cuda:93'", "finds cpu")


WRONG_DEVICES = ["cuda:93", "mps", "xpu", "gpu", "", "meta", "cpu:1", 5, True]


@pytest.mark.parametrize("device", WRONG_DEVICES)
def test_a_device_that_is_not_there_is_refused_when_it_is_named(device: Any, models: Path) -> None:
    for kind in KINDS.values():
        refused(lambda kind=kind: kind("any/model", device=device), "device: ", repr(device), "cpu")
    refused(lambda: NegativeMiner("bm25", device=device), "device: ", repr(device), "cpu")
    refused(lambda: TrainingSettings(device=device), "device: ", repr(device), "cpu")
    processes = DenseTeacher(models / "dense", device="cpu").processes([device])
    refused(processes.__enter__, "device: ", repr(device), "cpu")


@pytest.mark.parametrize("words", [("mine",), ("train", "--model", "any/model"), ("demo",)], ids=lambda words: words[0])
def test_the_shell_says_the_same(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Pair(f"m.f{place}", f"query {place}", f"code {place}") for place in range(60)]
    monkeypatch.setattr("hf_negmine.commands.demonstration.standard_library_pairs", lambda n: pairs)
    ROWS.to_json(tmp_path / "rows.jsonl")
    rows = () if words[0] == "demo" else (tmp_path / "rows.jsonl",)
    said = run(words[0], *rows, *words[1:], "-t", "bm25", "-o", tmp_path / "out", "--device", "cuda:93")
    assert "device: 'cuda:93' is not on this machine, where torch finds cpu" in said


def test_training_takes_the_first_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_negmine.train.settings.require_device", lambda device: None)
    refused(lambda: TrainingSettings(device="cuda:1"), "device: 'cuda:1'", "CUDA_VISIBLE_DEVICES=1")


# Lengths


@every_kind
@pytest.mark.parametrize("length", [0, -1, True, "9", 1.5])
def test_a_length_that_is_none_is_refused_before_anything_is_loaded(stored: str, length: Any) -> None:
    refused(
        lambda: KINDS[stored]("any/model", max_length=length), f"max_length: a whole number, at least 1, got {length!r}"
    )


@every_kind
@pytest.mark.parametrize("size", [0, True, 2.5])
def test_so_is_a_batch_size(stored: str, size: Any) -> None:
    refused(
        lambda: KINDS[stored]("any/model", batch_size=size), f"batch_size: a whole number, at least 1, got {size!r}"
    )


@every_kind
def test_a_length_beyond_the_models_positions_is_refused_with_both_numbers(
    stored: str, models: Path, mine: Callable[..., str]
) -> None:
    assert KINDS[stored](models / stored, device="cpu", max_length=POSITIONS).model
    facts = ("max_length: 41 tokens", f"positions for {POSITIONS}")
    refused(lambda: KINDS[stored](models / stored, device="cpu", max_length=41).model, *facts)
    said = mine("-t", f"{PREFIX[stored]}{models / stored}", "--max-length", 41)
    assert all(fact in said for fact in facts)


def test_training_has_the_same_limits(models: Path) -> None:
    for length in (0, True, "9"):
        refused(lambda length=length: TrainingSettings(max_seq_length=length), "max_seq_length: a whole number")
    settings = TrainingSettings(max_seq_length=41, device="cpu")
    refused(lambda: _load(str(models / "dense"), settings), "max_seq_length: 41 tokens", f"positions for {POSITIONS}")


@pytest.mark.parametrize(
    ("family", "positions", "longest"),
    [
        ("bert", 24, 24),
        ("roberta", 24, 22),  # it counts from behind its padding
        ("distilbert", 24, 24),
        ("llama", 24, 24),  # rotary: it would run on, but was not made for it
        ("t5", None, None),
    ],
)
def test_positions_are_those_that_a_model_can_read(family: str, positions: int | None, longest: int | None) -> None:
    names = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16,
        "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 99,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(family)
    mine = {name: value for name, value in names.items() if name in config.to_dict()}
    mine |= {} if positions is None else {"max_position_embeddings": positions}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **mine)).eval()
    assert positions_of(model) == longest
    if longest is not None:
        model(torch.full((1, longest), 7), attention_mask=torch.ones(1, longest))
        if family != "llama":
            with pytest.raises((RuntimeError, IndexError)):
                model(torch.full((1, longest + 1), 7), attention_mask=torch.ones(1, longest + 1))


def test_a_model_that_reads_everything_cannot_be_limited(models: Path, tmp_path: Path) -> None:
    static = StaticEmbedding(load_model(models).tokenizer, embedding_dim=4)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"))
    assert len(DenseTeacher(tmp_path / "static", device="cpu").encode([" ".join(["w1"] * 900)], "query")) == 1
    refused(lambda: DenseTeacher(tmp_path / "static", device="cpu", max_length=9).model, "max_length: 9", "any length")


def test_a_model_that_would_fail_on_long_texts_is_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "dense", tmp_path / "dense")
    settings = tmp_path / "dense" / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_seq_length": 512}))
    facts = ("512 tokens", f"positions for {POSITIONS}", f"max_length={POSITIONS}")
    refused(lambda: DenseTeacher(tmp_path / "dense", device="cpu").model, *facts)
    assert DenseTeacher(tmp_path / "dense", device="cpu", max_length=POSITIONS).encode(["w1 " * 900], "query").any()
    long = SentenceTransformer(modules=[Transformer(str(models / "bert")), Pooling(32)], device="cpu")
    long.max_seq_length = 512
    refused(lambda: DenseTeacher(long), *facts)
    refused(lambda: _load(str(tmp_path / "dense"), TrainingSettings(device="cpu")), *facts)


@pytest.mark.parametrize("dim", [0, -3, True, 2.5, "8"])
def test_a_width_that_is_none_is_refused(dim: Any) -> None:
    refused(
        lambda: DenseTeacher("any/model", truncate_dim=dim), f"truncate_dim: a whole number, at least 1, got {dim!r}"
    )


def test_a_width_beyond_the_vectors_is_refused_with_both_numbers(models: Path) -> None:
    facts = ("truncate_dim: 33 dimensions", "have 32")
    refused(lambda: DenseTeacher(models / "dense", device="cpu", truncate_dim=33).model, *facts)
    model = load_model(models)
    model.truncate_dim = 8
    refused(lambda: DenseTeacher(model, truncate_dim=33), *facts)
    assert DenseTeacher(model, truncate_dim=32).encode(TEXTS, "query").shape == (12, 32)


# Prompts


@pytest.mark.parametrize("prompt", [{"query": "query: "}, ["query: "], 5, b"query: "], ids=repr)
def test_a_prompt_is_a_text(prompt: Any) -> None:
    for kind in (DenseTeacher, SparseEncoderTeacher, LateInteractionTeacher, APITeacher):
        for argument in ("query_prompt", "passage_prompt"):
            refused(lambda kind=kind, argument=argument: kind("any", **{argument: prompt}), argument, repr(prompt))
    refused(lambda: TrainingSettings(query_prompt=prompt), "query_prompt", repr(prompt))


@with_prompts
def test_the_name_of_a_prompt_is_not_put_before_texts(stored: str, models: Path, tmp_path: Path) -> None:
    made: Any = {"dense": load_model, "sparse": make_sparse, "tokens": make_tokens}[stored](models)
    made.prompts = {"query": "w1: ", "document": ""}
    made.save(str(tmp_path / stored))
    kind = KINDS[stored]
    for teacher in (
        lambda **prompts: kind(made, **prompts),
        lambda **prompts: kind(tmp_path / stored, device="cpu", **prompts).model,
    ):
        refused(lambda teacher=teacher: teacher(query_prompt="query"), "query_prompt: 'query'", "'w1: '", "'query '")
        refused(lambda teacher=teacher: teacher(passage_prompt="document"), "passage_prompt: 'document'", "''")
        assert teacher(query_prompt="w1: ", passage_prompt="")
        assert teacher(query_prompt="query ")


def test_nor_is_it_in_the_shell_and_in_training(models: Path, tmp_path: Path, mine: Callable[..., str]) -> None:
    model = load_model(models)
    model.prompts = {"query": "w1: "}
    model.save(str(tmp_path / "e5"))
    assert "query_prompt: 'query' would be put before every text literally" in mine(
        "-t", tmp_path / "e5", "--query-prompt", "query"
    )
    settings = TrainingSettings(device="cpu", query_prompt="query")
    refused(lambda: _load(str(tmp_path / "e5"), settings), "query_prompt: 'query'", "'w1: '")


def test_scores_of_a_cross_encoder_by_name_are_those_of_predict(models: Path) -> None:
    loaded = CrossEncoder(str(models / "cross"), device="cpu")
    expected = loaded.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    np.testing.assert_array_equal(
        CrossEncoderTeacher(models / "cross", device="cpu").score(TEXTS, TEXTS[::-1]), expected
    )


def test_a_length_that_leaves_nothing_of_a_text_is_refused(minilm: str, tmp_path: Path) -> None:
    for tokens in (1, 2):
        with pytest.raises(InputError, match=f"max_length: {tokens} tokens, .* the model itself puts 2 .*at least 3"):
            DenseTeacher(minilm, max_length=tokens).encode(["text"], "query")
    assert DenseTeacher(minilm, max_length=3).encode(["text", "tea"], "query").std(axis=0).max() > 0


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.safetensors", lambda content: content[: len(content) // 2]),
        ("config.json", lambda content: content.replace(b'"hidden_act": "gelu"', b'"hidden_act": "nonsense"')),
        ("config.json", lambda content: content.replace(b'"vocab_size": 131', b'"vocab_size": 7')),
        (
            "config_sentence_transformers.json",
            lambda content: content.replace(b'"prompts": {', b'"prompts": 5, "x": {'),
        ),
    ],
)
def test_a_spoilt_model_folder_is_one_sentence(models: Path, tmp_path: Path, file: str, change: Any) -> None:
    shutil.copytree(models / "dense", tmp_path / "model")
    path = next((tmp_path / "model").rglob(file))
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(InputError, match=r"teacher .*model.* could not be loaded: "):
        DenseTeacher(str(tmp_path / "model")).encode(["w1"], "query")
