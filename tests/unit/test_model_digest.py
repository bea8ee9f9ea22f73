"""A model is told from any other by what it computes with, whatever the route by which it was changed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.modules import Pooling, Router, StaticEmbedding, Transformer
from tokenizers.normalizers import Replace
from transformers import AutoTokenizer

from hf_negmine import NegativeMiner, mine_hard_negatives
from hf_negmine.base.errors import InputError
from hf_negmine.teachers import (
    CrossEncoderTeacher,
    DenseTeacher,
    LateInteractionTeacher,
    SparseEncoderTeacher,
    encoders,
)
from hf_negmine.teachers.model_digest import model_digest
from hf_negmine.teachers.probes import PROBES, one_thread, probe_digest
from tests.tiny_models import make_cross
from tests.train.helpers import load_model

ROWS = Dataset.from_dict(
    {"query": [f"w{i} w{i + 1}" for i in range(1, 25)], "positive": [f"w{i} w{i + 2} w{i + 3}" for i in range(1, 25)]}
)


def with_adapters(models: Path) -> SentenceTransformer:
    model = load_model(models)
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        model.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["query"]), name)
    model.set_adapter("a")
    return model


def transformer(model: SentenceTransformer) -> Any:
    return model[0].auto_model


def tuners(model: SentenceTransformer) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


# ---- every way to change a model -----------------------------------------------------------------------------------


def average_weights(model: SentenceTransformer) -> None:
    for tensor in model.parameters():  # as an exponential moving average does; no counter of torch's sees it
        tensor.data.mul_(0.9).add_(torch.ones_like(tensor), alpha=0.01)


def write_one_number(model: SentenceTransformer) -> None:
    next(model.parameters()).detach().numpy()[3, 2] += 0.5


def scale_adapters(model: SentenceTransformer) -> None:
    for layer in tuners(model):
        layer.scaling["a"] *= 3


def merge_adapters(model: SentenceTransformer) -> None:
    for layer in tuners(model):
        layer.weight_ = layer.merge()


def change_activation(model: SentenceTransformer) -> None:
    transformer(model).encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.ReLU()


def change_epsilon(model: SentenceTransformer) -> None:
    transformer(model).embeddings.LayerNorm.eps = 0.3


def add_hook(model: SentenceTransformer, scale: float = 2.0) -> None:
    shift = torch.linspace(-scale, scale, transformer(model).config.hidden_size)

    def shifted(module: Any, inputs: Any, output: Any) -> Any:
        return output + shift

    transformer(model).embeddings.register_forward_hook(shifted)


def change_buffer(model: SentenceTransformer) -> None:
    transformer(model).embeddings.token_type_ids.add_(1)  # not among what is saved


def change_pooling(model: SentenceTransformer) -> None:
    model[1].pooling_mode = "cls"


def change_tokenizer(model: SentenceTransformer) -> None:
    model.tokenizer.backend_tokenizer.normalizer = Replace("w1", "w2")


def replace_forward(model: SentenceTransformer) -> None:
    """By a route that only the probe sees: the class itself."""
    kind = type(model[1])
    before = kind.forward

    class Changed(kind):  # type: ignore[misc, valid-type]
        def forward(self, features: dict[str, Any], **settings: Any) -> dict[str, Any]:
            out: dict[str, Any] = before(self, features, **settings)
            vectors = out["sentence_embedding"]
            out["sentence_embedding"] = vectors * torch.linspace(0, 3, vectors.shape[-1])
            return out

    model[1].__class__ = Changed


CHANGES: dict[str, tuple[Callable[[Path], SentenceTransformer], Callable[[SentenceTransformer], Any]]] = {
    "a moving average of the weights": (load_model, average_weights),
    "one number of one tensor": (load_model, write_one_number),
    "another activation": (load_model, change_activation),
    "another epsilon": (load_model, change_epsilon),
    "a hook": (load_model, add_hook),
    "a buffer that is not saved": (load_model, change_buffer),
    "the pooling": (load_model, change_pooling),
    "the tokenizer": (load_model, change_tokenizer),
    "the class": (load_model, replace_forward),
    "another adapter": (with_adapters, lambda model: model.set_adapter("b")),
    "no adapter": (with_adapters, lambda model: model.disable_adapters()),
    "the scaling of an adapter": (with_adapters, scale_adapters),
    "merged adapters": (with_adapters, merge_adapters),
    "an adapter's weights": (with_adapters, average_weights),
}
MINED = {"one number of one tensor", "the class", "another adapter"}
"""With these, rows are mined too: from the cache that the unchanged model has filled."""


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning", "ignore:.*merged.*:UserWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_another_teacher(models: Path, tmp_path: Path, change: str) -> None:
    make, apply = CHANGES[change]
    model = make(models)
    teacher = DenseTeacher(model)

    def mined(cache: Path) -> Any:
        miner = NegativeMiner(teacher, method="naive", include_scores=True, cache_dir=cache, progress=False)
        return miner.mine(ROWS)[:]

    before, first = teacher.fingerprint("query"), mined(tmp_path / "shared") if change in MINED else None
    apply(model)
    assert teacher.fingerprint("query") != before
    if change in MINED:
        assert mined(tmp_path / "shared") == mined(tmp_path / "honest") != first


def test_what_a_hook_closes_over_tells_hooks_apart(models: Path) -> None:
    models = [load_model(models) for _ in range(3)]
    for model, scale in zip(models, (2.0, 2.0, 1e-4), strict=True):
        add_hook(model, scale)
    one, same, other = (model_digest(model) for model in models)
    assert one == same != other


class Scaled(Module):
    """A module of the user's, with a setting that no tensor and no configuration holds."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        return features

    def save(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class WithoutState(Slotted):
    """With attributes that it does not pickle, as a class does that drops a session."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def nested(value: Any, levels: int) -> Any:
    return {"in": nested(value, levels - 1)} if levels else value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, 1.0000001),
        (Slotted(np.arange(3)), Slotted(np.arange(1, 4))),
        (WithoutState(1), WithoutState(2)),
        (re.compile("a"), re.compile("b")),
        (Decimal("1.1"), Decimal("1.2")),
        (deque([1]), deque([2])),
        (range(3), range(4)),
        (nested(1, 30), nested(2, 30)),
        ({1: 2}, {"1": 2}),
        ((1,), [1]),
        (lambda x: x.sin(), lambda x: x.cos()),
        (lambda x: [one * 2 for one in x], lambda x: [one * 3 for one in x]),
        (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
        (torch.tensor([1j]).conj(), torch.tensor([1j])),
        ({"a": [1, (2, 3)]}, {"a": [1, (2, 4)]}),
        (np.arange(3), np.arange(3)[::-1].copy()),
        (torch.ones(2), torch.zeros(2)),
        (torch.float32, torch.float16),
        ({"a", "b"}, {"a", "c"}),
        (torch.relu, torch.tanh),
        (lambda x: x + 1, lambda x: x + 2),
        ([torch.nn.Linear(1, 1)], [torch.nn.Linear(1, 1)]),
        (None, False),
        ("1", 1),
    ],
)
def test_any_plain_setting_of_a_module_counts(models: Path, one: Any, other: Any) -> None:
    model = load_model(models)
    digests = []
    for factor in (one, one, other):
        model.append(Scaled(factor))
        digests.append(model_digest(model))
        del model[-1]
    assert digests[0] == digests[1] != digests[2]


def test_the_code_of_a_class_of_the_users_counts(models: Path) -> None:
    digests = []
    for body in ("return features", "return dict(features)", "return features"):
        names: dict[str, Any] = {"Scaled": Scaled, "__name__": "pooling"}
        exec(f"class Mine(Scaled):\n    def forward(self, features, **settings):\n        {body}", names)
        model = load_model(models)
        model.append(names["Mine"](1))
        digests.append(model_digest(model))
    assert digests[0] == digests[2] != digests[1]


def test_packed_weights_of_a_quantised_model_are_read(models: Path) -> None:
    digests = []
    for factor in (1.0, 1.0, 1.02):
        model = load_model(models)
        with torch.no_grad():
            transformer(model).encoder.layer[0].attention.self.query.weight.mul_(factor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch moves this function elsewhere
            packed = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        digests.append(model_digest(packed))
    assert digests[0] == digests[1] != digests[2]
    assert not digests[0].is_exact, "a text's vector depends on the others in its batch"


def test_how_attention_is_computed_counts(models: Path) -> None:
    model = load_model(models)
    first = model_digest(model)
    model[0].auto_model.set_attn_implementation("eager")
    assert model_digest(model) != first
    model[0].auto_model.set_attn_implementation("sdpa")
    assert model_digest(model) == first


def test_each_route_of_a_router_counts(models: Path) -> None:
    routes = [[Transformer(str(models / "bert")), Pooling(32)] for _ in range(2)]
    teacher = DenseTeacher(SentenceTransformer(modules=[Router.for_query_document(*routes)], device="cpu"))
    first = teacher.fingerprint("passage")
    use(teacher)
    assert teacher.fingerprint("passage") == first
    routes[1][1].pooling_mode = "cls"
    assert teacher.fingerprint("passage") != first


def test_prompts_of_the_model_count(models: Path) -> None:
    model = load_model(models)
    prints = []
    for prompt in ("", "ask w1 ", ""):
        model.prompts["query"] = prompt
        prints.append(DenseTeacher(model).fingerprint("query"))
    assert prints[0] == prints[2] != prints[1]


def test_an_activation_is_told_by_what_it_does(models: Path) -> None:
    given = [torch.nn.Softplus(1.0), torch.nn.Softplus(2.0), lambda x: x * 2, lambda x: x * 3, lambda x: x * 3]
    prints = [CrossEncoderTeacher(make_cross(models, activation_fn=one)).fingerprint("query") for one in given]
    assert len(set(prints)) == 4
    assert prints[3] == prints[4], "and not by where it lies in memory"


# ---- configuration files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"), [("hidden_act", "relu"), ("num_attention_heads", 1), ("layer_norm_eps", 0.1)]
)
def test_an_edited_configuration_is_another_model(models: Path, tmp_path: Path, setting: str, value: Any) -> None:
    copied = tmp_path / "model"
    load_model(models).save(str(copied))

    def mined(cache: Path) -> Any:
        return NegativeMiner(str(copied), include_scores=True, method="naive", cache_dir=cache, progress=False).mine(
            ROWS
        )

    first = mined(tmp_path / "shared")[:]
    file = next(copied.rglob("config.json"))
    settings = json.loads(file.read_text())
    assert settings[setting] != value
    file.write_text(json.dumps({**settings, setting: value}))
    assert mined(tmp_path / "shared")[:] == mined(tmp_path / "honest")[:] != first


# ---- what changes nothing ------------------------------------------------------------------------------------------

TEACHERS: dict[str, Any] = {
    "dense": DenseTeacher,
    "cross": lambda source, **given: CrossEncoderTeacher(source, first_stage="bm25", **given),
    "sparse": SparseEncoderTeacher,
    "tokens": LateInteractionTeacher,
}


def use(teacher: Any) -> None:
    for role in ("query", "passage"):
        if hasattr(teacher, "score"):
            teacher.score(["w1 w2", "w3"], ["w4", "w5 w6 w7"])
        else:
            encode = next(
                getattr(teacher, f"encode{kind}")
                for kind in ("", "_sparse", "_tokens")
                if hasattr(teacher, f"encode{kind}")
            )
            encode(["w1 w2 w3", "w9"], role)


@pytest.mark.parametrize("kind", TEACHERS)
def test_use_and_another_process_keep_the_fingerprint(models: Path, kind: str, torch_threads: None) -> None:
    teacher = TEACHERS[kind](str(models / kind))
    first = [teacher.fingerprint(role) for role in ("query", "passage")]
    use(teacher)
    assert [teacher.fingerprint(role) for role in ("query", "passage")] == first
    teacher.model.train()
    torch.set_num_threads(2)
    assert [teacher.fingerprint(role) for role in ("query", "passage")] == first
    assert torch.get_num_threads() == 2
    again = pickle.loads(pickle.dumps(teacher))
    assert [again.fingerprint(role) for role in ("query", "passage")] == first
    assert [TEACHERS[kind](teacher.model).fingerprint(role) for role in ("query", "passage")] == first


class Noting(Scaled):
    """Keeps something of its first use, and of its longest text."""

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.seen_width = features["token_embeddings"].shape[-1]
        longest = max(features["token_embeddings"].shape[1], getattr(self, "_positions_cached", 0))
        self._positions_cached, self._cos_cached = longest, torch.arange(longest)
        return features


def test_what_a_module_notes_in_use_keeps_the_fingerprint(models: Path) -> None:
    model = load_model(models)
    model.append(Noting(1))
    teacher = DenseTeacher(model)
    first = teacher.fingerprint("query")
    teacher.encode(["w1 " * 30], "query")
    assert teacher.fingerprint("query") == first


@pytest.mark.parametrize("kind", TEACHERS)
def test_saved_or_copied_it_is_the_same_teacher(models: Path, tmp_path: Path, kind: str) -> None:
    teacher = TEACHERS[kind](str(models / kind))
    first = [teacher.fingerprint(role) for role in ("query", "passage")]
    copied = TEACHERS[kind](copy.deepcopy(teacher.model))
    teacher.model.save_pretrained(str(tmp_path / "saved"))
    saved = TEACHERS[kind](str(tmp_path / "saved"))
    for again in (copied, saved):
        assert [again.fingerprint(role) for role in ("query", "passage")] == first


def test_a_fresh_process_gives_the_same_fingerprint(models: Path) -> None:
    code = (
        "import sys, torch; torch.set_num_threads(2); from hf_negmine.teachers import DenseTeacher; "
        "print(DenseTeacher(sys.argv[1], batch_size=2).fingerprint('query'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(models / "dense")],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == [DenseTeacher(str(models / "dense")).fingerprint("query")]


def test_saved_and_loaded_it_is_the_same_model(models: Path, tmp_path: Path) -> None:
    model = load_model(models)
    model.save(str(tmp_path / "saved"))
    assert model_digest(SentenceTransformer(str(tmp_path / "saved"), device="cpu")) == model_digest(model)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_a_map_know_the_teacher_again(models: Path, tmp_path: Path) -> None:
    miner = NegativeMiner(str(models / "dense"), num_negatives=2, method="naive", cache_dir=tmp_path, progress=False)
    miner.fit(ROWS)
    later = Dataset.from_dict({"query": ["w30 w31", "w32"], "positive": ["w3 w5 w6", "w4 w6 w7"]})
    assert later.map(miner, batched=True, num_proc=2)[:] == miner.mine(later)[:]


# ---- what cannot be read -------------------------------------------------------------------------------------------


class Runtime:
    """A session as one of ONNX Runtime: made by C, which shows nothing of what it holds."""

    def __init__(self, path: Path | str | None = None, content: bytes | None = None) -> None:
        self.model_path, self.model_bytes = path, content
        self.started = time.time_ns()
        self._session = hashlib.blake2b(b"weights")

    def __call__(self, tokens: Any) -> Any:
        raise NotImplementedError


class WithRuntime(Module):
    """The first module of a model with another backend."""

    def __init__(self, model: Any, vector: float) -> None:
        super().__init__()
        self.model, self._vector = model, vector
        self.max_seq_length = 16

    def preprocess(self, inputs: list[Any], *_: Any, **__: Any) -> dict[str, Any]:
        return {"input_ids": torch.tensor([[len(text), self.answer(text)] for text in inputs])}

    tokenize = preprocess

    def answer(self, text: str) -> int:
        return sum(map(ord, text)) % 97

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        found = features["input_ids"].float()
        return {**features, "sentence_embedding": torch.stack([found[:, 0], found[:, 1], found[:, 0] * 0 + 3], 1)}

    def get_embedding_dimension(self) -> int:
        return 3

    get_word_embedding_dimension = get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


class Head(torch.nn.Linear):
    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**features, "sentence_embedding": super().forward(features["sentence_embedding"])}


def with_runtime(runtime: Any, *more: torch.nn.Module) -> SentenceTransformer:
    modules = [WithRuntime(runtime, 1.0), *more]
    return SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine")


def test_a_runtime_is_known_by_its_files(tmp_path: Path) -> None:
    def fingerprint(models: Path) -> str:
        return DenseTeacher(with_runtime(Runtime(models / "model.onnx"))).fingerprint("query")

    for models in (tmp_path / "one", tmp_path / "two"):
        models.mkdir()
        (models / "model.onnx").write_bytes(b"graph")
        (models / "model.onnx_data").write_bytes(b"weights")
    first = fingerprint(tmp_path / "one")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two") == first, "wherever they lie"
    (tmp_path / "two" / "model.onnx_data").write_bytes(b"Weights")
    assert fingerprint(tmp_path / "two") != first


def test_a_runtime_is_known_by_its_bytes_or_by_the_files_of_its_folder(tmp_path: Path) -> None:
    one, same, other = (
        DenseTeacher(with_runtime(Runtime(content=content * 2000))).fingerprint("query")
        for content in (b"a", b"a", b"b")
    )
    assert one == same != other
    (tmp_path / "openvino_model.bin").write_bytes(b"weights")
    model = with_runtime(Runtime(tmp_path))
    one = model_digest(model)
    assert model_digest(with_runtime(Runtime(str(tmp_path)))).formats == frozenset()
    (tmp_path / "openvino_model.bin").write_bytes(b"Weights")
    assert model_digest(model) != one


@pytest.mark.parametrize("attribute", ["model", "session", "parts"])
@pytest.mark.parametrize("more", [[], [Head(3, 3)]], ids=["alone", "before a head of torch's"])
def test_a_runtime_that_cannot_be_read_needs_a_version(tmp_path: Path, attribute: str, more: list[Any]) -> None:
    model = with_runtime(None, *more)
    setattr(model[0], attribute, [Runtime()] if attribute == "parts" else Runtime())
    wanted = (
        r"no weights can be read from this SentenceTransformer \(_blake2.blake2b does not show what it holds\), so "
        r'nothing would tell it from another model; give version="1", and another version whenever the model changes'
    )
    with pytest.raises(InputError, match=wanted):
        NegativeMiner(DenseTeacher(model), cache_dir=tmp_path, progress=False).fit(ROWS)
    one, same, other = (DenseTeacher(model, version=version).fingerprint("query") for version in "112")
    assert one == same != other


def test_tensors_on_no_device_cannot_be_read(models: Path) -> None:
    model = load_model(models)
    transformer(model).embeddings.to("meta")
    with pytest.raises(InputError, match=r"torch\S+ does not show what it holds\), .*give version="):
        model_digest(model)


def test_a_model_without_weights_needs_a_version() -> None:
    with pytest.raises(InputError, match=r"no weights can be read from this SentenceTransformer, so"):
        model_digest(with_runtime(None))


@pytest.mark.parametrize("kind", [DenseTeacher, SparseEncoderTeacher, LateInteractionTeacher, CrossEncoderTeacher])
def test_what_is_no_model_of_sentence_transformers_is_named(kind: Any) -> None:
    class OnlyEncodes:
        def encode(self, texts: list[str], **_: Any) -> Any:
            return np.ones((len(texts), 3))

        def similarity(self, one: Any, other: Any) -> Any:
            return one @ other.T

    for settings in ({}, {"version": "1"}):
        with pytest.raises(
            InputError, match=r"the model \(OnlyEncodes\) has no .*modules.*, expected a .*EncodeFunction\(f\)"
        ):
            kind(OnlyEncodes(), **settings)


def test_a_version_stands_for_what_cannot_be_read(models: Path) -> None:
    readable = [
        DenseTeacher(str(models / "dense"), version=version).fingerprint("query") for version in (None, "1", "2")
    ]
    assert len(set(readable)) == 3
    with pytest.raises(InputError, match="version: a text such as '1', got 1"):
        DenseTeacher(str(models / "dense"), version=1)  # type: ignore[arg-type]


def test_a_static_embedding_is_read(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "bert").backend_tokenizer
    digests = set()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        module = StaticEmbedding(tokenizer, embedding_dim=8)
        digests.add(DenseTeacher(SentenceTransformer(modules=[module], device="cpu")).fingerprint("passage"))
    assert len(digests) == 2


# ---- probes --------------------------------------------------------------------------------------------------------


def test_a_probe_is_the_same_up_to_last_digits_and_differs_beyond(minilm: str, torch_threads: None) -> None:
    model = SentenceTransformer(minilm, device="cpu")
    vectors = model.encode(list(PROBES), show_progress_bar=False)
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(2000, *vectors.shape)) * 1e-7
    flips = np.mean([probe_digest((vectors + one).astype(np.float32)) != probe_digest(vectors) for one in noise])
    assert flips < 0.01
    assert probe_digest(vectors) != probe_digest(vectors[::-1])
    assert probe_digest(vectors) != probe_digest(vectors + 0.01 * draw.normal(size=vectors.shape))
    assert probe_digest(vectors) != probe_digest(vectors * 1.1)
    with one_thread():
        assert torch.get_num_threads() == 1


def test_sixteen_bits_share_vectors_with_the_same_batches_only(models: Path) -> None:
    def prints(dtype: Any) -> set[str]:
        return {
            DenseTeacher(str(models / "dense"), dtype=dtype, batch_size=size).fingerprint("query") for size in (8, 32)
        }

    assert len(prints("float32")) == 1
    assert len(prints("bfloat16")) == 2
    assert not prints("float32") & prints("bfloat16")


# ---- a model that its use changes ------------------------------------------------------------------------------------


def watched(models: Path) -> tuple[SentenceTransformer, list[int]]:
    """A model whose encode is wrapped, as a progress bar, a spy or a cache of one's own would do."""
    model, seen = load_model(models), []
    encode = model.encode

    def watching(texts: Any, *args: Any, **settings: Any) -> Any:
        seen.append(len(texts))
        return encode(texts, *args, **settings)

    model.encode = model.encode_query = model.encode_document = watching  # type: ignore[method-assign]
    return model, seen


def test_a_model_that_its_use_changes_needs_a_version(models: Path, tmp_path: Path) -> None:
    model, _ = watched(models)
    with pytest.raises(InputError, match=r'changes whenever it encodes.*give version="1"'):
        NegativeMiner(model, cache_dir=tmp_path, progress=False).fit(ROWS)
    settings: dict[str, Any] = {"method": "naive", "cache_dir": tmp_path, "progress": False}
    miner = NegativeMiner(DenseTeacher(model, version="1"), **settings).fit(ROWS)
    assert miner.mine(ROWS)[:] == NegativeMiner(load_model(models), **settings).mine(ROWS)[:]
    assert len(miner.pool.select("naive", n=12).passages)
    one, other = (DenseTeacher(model, version=version).fingerprint("query") for version in "12")
    assert one != other


def test_the_drop_in_takes_a_model_that_its_use_changes(models: Path) -> None:
    model, seen = watched(models)
    settings: dict[str, Any] = {"num_negatives": 2, "output_format": "n-tuple", "verbose": False}
    assert (
        mine_hard_negatives(ROWS, model, **settings)[:] == mine_hard_negatives(ROWS, load_model(models), **settings)[:]
    )
    assert sum(seen) >= len(ROWS)


@pytest.mark.parametrize(("setting", "value"), [("split_special_tokens", True), ("model_input_names", ["input_ids"])])
def test_what_only_the_tokenizer_in_python_knows_counts(models: Path, setting: str, value: Any) -> None:
    model = load_model(models)
    before = DenseTeacher(model).fingerprint("query")
    setattr(model.tokenizer, setting, value)
    assert model_digest(model).digest != model_digest(load_model(models)).digest
    assert DenseTeacher(load_model(models)).fingerprint("query") == before


def test_a_fit_reads_a_model_once_and_the_next_one_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of many gigabytes takes seconds to read, so a fit must not do it at every step."""
    read = []
    monkeypatch.setattr(encoders, "model_digest", lambda *given, **more: read.append(1) or model_digest(*given, **more))
    model = load_model(models)
    rows = Dataset.from_dict({"query": ["w1 w2", "w3 w4"], "positive": ["w1 w2 w3", "w3 w4 w5"]})
    teacher = DenseTeacher(model)

    def fit() -> str:
        miner = NegativeMiner(teacher, num_negatives=1, method="naive", cache_dir=tmp_path, progress=False)
        return str(miner.fit(rows).fitted.folder)

    fit()
    read.clear()
    first = fit()
    assert len(read) == 2  # for each role
    average_weights(model)
    assert fit() != first
