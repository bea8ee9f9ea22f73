"""A recipe file is read strictly, and what it says are arguments that really exist."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic.dataclasses import dataclass

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.teachers import DenseTeacher
from recipes.common.config import STRICT, load_recipe
from recipes.nv_retriever_v1.recipe import NVRetriever
from tests.recipes.helpers import changed

RECIPE = Path(__file__).parents[2] / "recipes" / "nv_retriever_v1" / "recipe.yaml"


@pytest.fixture(scope="module")
def recipe() -> NVRetriever:
    return load_recipe(RECIPE, NVRetriever)


# ---- the real recipe ------------------------------------------------------------------------------------------------


def test_the_papers_values(recipe: NVRetriever) -> None:
    base, lora = recipe.base, recipe.lora
    assert (base.name, base.bidirectional, base.pooling) == ("mistralai/Mistral-7B-v0.1", True, "mean")
    assert (base.query_length, base.passage_length, base.mask_instruction) == (192, 512, True)
    assert (lora.r, lora.lora_alpha) == (16, 32)
    assert recipe.mining.teacher.model == "intfloat/e5-mistral-7b-instruct"
    assert recipe.mining.teacher.max_length == 4096
    assert recipe.mining.miner.method == "perc_pos:0.95"
    found = [
        (
            stage.hard_negatives,
            stage.in_batch_negatives,
            stage.training.per_device_train_batch_size,
            stage.training.gradient_accumulation_steps,
            stage.training.learning_rate,
            stage.training.warmup_steps,
            stage.training.num_train_epochs,
            len(recipe.sets_of(stage)),
        )
        for stage in recipe.stages
    ]
    assert found == [(1, True, 32, 4, 1e-5, 100, 12, 15), (5, True, 8, 16, 1e-5, 100, 12, 32)]
    assert recipe.num_negatives == 5


def test_the_released_models_prompts(recipe: NVRetriever) -> None:
    web_search = next(one for one in recipe.sets if one.name == "MS-MARCO")
    assert (
        recipe.prompts.query_of(web_search)
        == "Given a web search query, retrieve relevant passages that answer the query: "
    )
    assert recipe.prompts.passage == "passage: "


def test_mistral_has_7_11_billion_weights_without_its_head(recipe: NVRetriever) -> None:
    from transformers import MistralConfig, MistralModel

    shape = recipe.base.architecture
    import torch

    with torch.device("meta"):
        model = MistralModel(
            MistralConfig(
                num_hidden_layers=shape.layers,
                hidden_size=shape.hidden_size,
                intermediate_size=shape.intermediate_size,
                vocab_size=shape.vocabulary,
                num_attention_heads=32,
                num_key_value_heads=8,
            )
        )
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters == 7_110_660_096
    linear = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert linear == shape.linear_layers


def test_every_value_is_an_argument_of_what_it_is_for(recipe: NVRetriever) -> None:
    import peft
    from sentence_transformers import SentenceTransformerTrainingArguments

    training = {field.name for field in dataclasses.fields(SentenceTransformerTrainingArguments)}
    for stage in recipe.stages:
        assert set(dataclasses.asdict(stage.training)) <= training
    assert set(dataclasses.asdict(recipe.lora)) <= {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert set(dataclasses.asdict(recipe.mining.miner)) <= set(inspect.signature(NegativeMiner).parameters)
    assert set(dataclasses.asdict(recipe.mining.teacher)) <= set(inspect.signature(DenseTeacher).parameters)


def test_every_value_is_taken(recipe: NVRetriever, tmp_path: Path) -> None:
    import peft
    from sentence_transformers import SentenceTransformerTrainingArguments

    lora = dataclasses.asdict(recipe.lora) | {"target_modules": list(recipe.lora.target_modules)}
    assert peft.LoraConfig(**lora).r == 16
    for stage in recipe.stages:
        settings = dataclasses.asdict(stage.training) | {"bf16": False}  # of the machine that tests
        args = SentenceTransformerTrainingArguments(str(tmp_path), use_cpu=True, report_to=[], **settings)
        assert args.warmup_steps == 100
        assert args.get_warmup_steps(10_000) == 100
    NegativeMiner(
        "random", num_negatives=recipe.num_negatives, cache_dir=tmp_path, **dataclasses.asdict(recipe.mining.miner)
    )
    DenseTeacher(**dataclasses.asdict(recipe.mining.teacher))  # opened when it is needed


def test_every_value_is_documented() -> None:
    seen, waiting = set(), [NVRetriever]
    while waiting:
        cls = waiting.pop()
        if cls in seen:
            continue
        seen.add(cls)
        text = inspect.getdoc(cls) or ""
        for field in dataclasses.fields(cls):
            nested = [kind for kind in _dataclasses_in(field.type) if kind not in seen]
            waiting += nested
            assert cls.__name__ == "Mining" or field.name in text, f"{cls.__name__}.{field.name}"
    assert len(seen) == 14


def _dataclasses_in(annotation: Any) -> list[Any]:
    from recipes.nv_retriever_v1 import recipe as module

    names = str(annotation).replace("[", " ").replace(",", " ").split()
    return [kind for name in names if dataclasses.is_dataclass(kind := getattr(module, name, None))]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_every_key_of_the_file_is_needed_and_no_other_is_known(tmp_path: Path) -> None:
    text = RECIPE.read_text(encoding="utf-8")
    with_defaults = ("paper_steps", "repo", "private", "decontaminate", "seed")
    lines = text.partition("\nscales:")[0].splitlines()
    for place, line in enumerate(lines):
        key = line.strip().removeprefix("- ").partition(":")[0]
        if not line.strip() or line.strip().startswith("#") or key in with_defaults or line.rstrip().endswith(":"):
            continue
        if "architecture:" in line or "machines:" in line or line.strip().startswith("- "):
            continue
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join([*lines[:place], *lines[place + 1 :]]), encoding="utf-8")
        with pytest.raises(InputError, match=rf"{key}: is missing"):
            load_recipe(path, NVRetriever)


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("      learning_rate: 1e-5", "      learnign_rate: 1e-5",
         r"stages\[0\]\.training\.learnign_rate: is not known, known are \[.*\]; is 'learning_rate' meant\?"),
        ("      learning_rate: 1e-5", "      learning_rate: small",
         r"stages\[0\]\.training\.learning_rate: expected a number, found 'small'"),
        ("      learning_rate: 1e-5", "      learning_rate: -1e-5",
         r"stages\[0\]\.training\.learning_rate: expected more than 0, found -1e-05"),
        ("      learning_rate: 1e-5", "      learning_rate: .nan", "learning_rate: expected a finite number"),
        ("  bidirectional: true", "  bidirectional: 1", "base.bidirectional: expected true or false, found 1"),
        ("  r: 16", "  r: true", "lora.r: expected a whole number, found True"),
        ("  r: 16", "  r: 16.5", "lora.r: expected a whole number, found 16.5"),
        ("  pooling: mean", "  pooling: average",
         "base.pooling: expected 'mean', 'cls' or 'lasttoken', found 'average'"),
        ("  name: mistralai/Mistral-7B-v0.1", "  name:", "base.name: expected text, found nothing"),
        ("    kinds: [retrieval]", "    kinds: retrieval", r"stages\[0\]\.kinds: expected a list, found 'retrieval'"),
        ("    kinds: [retrieval]", "    kinds: [retrieval, 3]", r"stages\[0\]\.kinds\[1\]: expected text, found 3"),
        ("    kinds: [retrieval]", "    kinds: [reading]", r"stages\[0\]: kinds: 'reading' is not among"),
        ("  passage: \"passage: \"", "  passage: [a, b]", "prompts.passage: expected text, found a list of 2"),
        ("  query: \"{task}: \"", "  query: \"query: \"",
         r"prompts.query: expected \{task\} in the prompt, got 'query: '"),
        ("    method: perc_pos:0.95", "    method: perc_pos:95", "mining.miner.method: .*for 95 % give 0.95"),
        ("    sampler: top", "    sampler: best", "mining.miner.sampler: sampler 'best' is not understood"),
        ("  - name: all tasks", "  - name: retrieval", "stages: at least one, each once; got"),
        ("  utilisation: 0.4  # ours", "  utilisation: 40", "machines.utilisation: expected 1 or less, found 40"),
        ("    hard_negatives: 1", "    hard_negatives: 0\n    hard_negatives: 1",
         r"line \d+: the key 'hard_negatives' occurs twice"),
        ("lora:", "- lora", "recipe.yaml is not YAML"),
        ("base:", "base: 3\nbases:", "base: expected keys with values, found 3|bases: is not known"),
        ("  target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]",
         "  target_modules: [q_proj, query]", "lora.target_modules: 'query' is not among"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(line: str, instead: str, message: str, tmp_path: Path) -> None:
    path = changed(RECIPE, tmp_path, line, instead)
    with pytest.raises(InputError, match=message) as raised:
        load_recipe(path, NVRetriever)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys with values, found nothing"),
        (b"[1, 2]", "expected keys with values, found a list of 2"),
        (b"\xff\xfe", "could not be read"),
        (b"1: 2", "line 1: the key 1 is not text"),
        (b"a: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_files_that_are_not_recipes(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_recipe(path, NVRetriever)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.yaml could not be read: No such file or directory"):
        load_recipe(tmp_path / "nothing.yaml", NVRetriever)


# ---- any dataclass --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class Inner:
    size: int
    ratio: float = 0.5


@dataclass(frozen=True, config=STRICT)
class Outer:
    name: str
    inner: Inner
    others: tuple[Inner, ...] = ()
    by_name: Mapping[str, int] = dataclasses.field(default_factory=dict)
    choice: Literal["a", 1] = "a"
    maybe: Inner | None = None


def outer(folder: Path, **changes: Any) -> Outer:
    path = folder / "outer.yaml"
    path.write_text(json.dumps({"name": "n", "inner": {"size": 1}, **changes}), encoding="utf-8")
    return load_recipe(path, Outer)


def test_every_type_is_made(tmp_path: Path) -> None:
    made = outer(
        tmp_path, inner={"size": 1, "ratio": 2}, others=[{"size": 2}], by_name={"x": 3}, choice=1, maybe={"size": 4}
    )
    assert made == Outer("n", Inner(1, 2.0), (Inner(2),), {"x": 3}, 1, Inner(4))
    assert type(made.inner.ratio) is float
    assert outer(tmp_path, maybe=None) == Outer("n", Inner(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choice": "b"}, "choice: expected 'a' or 1, found 'b'"),
        ({"by_name": {"x": "3"}}, "by_name.x: expected a whole number, found '3'"),
        ({"by_name": [1]}, "by_name: expected keys with values, found a list of 1"),
        ({"others": [{"size": 1}, 2]}, r"others\[1\]: expected keys with values, found 2"),
        ({"others": [{}]}, r"others\[0\].size: is missing, found \[\]"),
        ({"others": [{"size": 1, "sizes": 2}]}, r"others\[0\].sizes: is not known, known are \['ratio', 'size'\]"),
        ({"maybe": {"sizes": 1}}, r"maybe.sizes: is not known, known are \['ratio', 'size'\]; is 'size' meant\?"),
        ({"maybe": {"size": True}}, "maybe.size: expected a whole number, found True"),
        ({"scales": {"tiny": 3}}, r"scales: expected names with keys and values, found keys with values \(tiny\)"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"outer.yaml: {message}"):
        outer(tmp_path, **changes)


def test_a_scale_changes_fields_inside_fields_and_replaces_lists(tmp_path: Path) -> None:
    path = tmp_path / "outer.yaml"
    text = "name: n\ninner: {size: 1, ratio: 1e-1}\nothers: [{size: 1}, {size: 2}]\n"
    path.write_text(f"{text}scales:\n  tiny: {{inner: {{size: 5}}, others: []}}\n", encoding="utf-8")
    assert load_recipe(path, Outer) == Outer("n", Inner(1, 0.1), (Inner(1), Inner(2)))
    assert load_recipe(path, Outer, scale="tiny") == Outer("n", Inner(5, 0.1))
    with pytest.raises(InputError, match=r"outer.yaml: the scale: 'small' is not among \['tiny'\]"):
        load_recipe(path, Outer, scale="small")
