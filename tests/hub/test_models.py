"""Trained models that are pushed, and what the real client loads of them."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_negmine import prepare_card, push_dataset, push_model
from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.hub.models import stale_weights
from hf_negmine.hub.network import HubError
from tests.hub.server import Hub
from tests.hub.world import NAME, code_blocks, make_miner, read_card, rows
from tests.train.helpers import arguments

TEXTS = ["q w1 w2", "d w3 w4 w5", "d w1"]


def card_of(hub: Hub, name: str = NAME) -> tuple[dict[str, Any], str]:
    return read_card(hub.files("model", name)["README.md"])


def section_of(body: str) -> str:
    """What the card says of the negatives."""
    return body.partition("## Hard negatives\n")[2].partition("\n## Training Details")[0]


def vectors(model: SentenceTransformer, **settings: Any) -> Any:
    return model.encode(TEXTS, show_progress_bar=False, **settings)


def test_it_is_loaded_as_it_was(hub: Hub, model: SentenceTransformer, mined: Dataset) -> None:
    done = push_model(
        model,
        NAME,
        mined=mined,
        data_id="tester/data",
        data_ids=["tester/more"],
        evaluation={"nfcorpus NDCG@10": (0.3, 0.33125), "Recall": (0.5, 0.25)},
        base="tester/base",
        prompts={"query": "ask: ", "document": "find: "},
    )
    assert [commit.title for commit in hub.commits("model", NAME)] == ["A model and its card", "initial commit"]
    assert sorted(done.files) == sorted(hub.files("model", NAME))
    assert "model.safetensors" in done.files
    loaded = SentenceTransformer(NAME, device="cpu")
    for settings in ({}, {"prompt_name": "query"}, {"prompt_name": "document"}):
        np.testing.assert_array_equal(vectors(loaded, **settings), vectors(model, **settings))
    assert not np.allclose(vectors(loaded), vectors(loaded, prompt_name="query"))
    metadata, body = card_of(hub)
    assert metadata["datasets"] == ["tester/data", "tester/more"]
    assert {"sentence-transformers", "hf_negmine", "hard-negatives"} <= set(metadata["tags"])
    section = section_of(body)
    assert "mined by `naive` with sampler `top` (seed 7)" in section
    assert "https://huggingface.co/datasets/tester/data" in section
    assert "[tester/more](https://huggingface.co/datasets/tester/more)" in section
    assert "| data | metric | tester/base | this model |" in section
    assert "| nfcorpus | NDCG@10 | 0.3000 | 0.3312 |" in section
    assert "| Recall | Recall | 0.5000 | 0.2500 |" in section or "| Recall |  | 0.5000" not in section


def test_the_code_in_the_card_uses_the_prompts(hub: Hub, model: SentenceTransformer) -> None:
    push_model(model, NAME, prompts={"query": "ask: ", "document": "find: "})
    (code,) = code_blocks(section_of(card_of(hub)[1]))
    names: dict[str, Any] = {}
    exec(code, names)
    query = model.encode(["ask: what is a hard negative?"])
    np.testing.assert_allclose(names["queries"], query, atol=1e-6)
    assert names["passages"].shape == (1, 32)


def test_without_provenance_it_says_so(hub: Hub, model: SentenceTransformer) -> None:
    push_model(model, NAME)
    section = section_of(card_of(hub)[1])
    assert "How the negatives were mined is not recorded." in section
    assert "It was trained without prompts" in section
    assert "Against the base model" not in section


def test_a_second_push_keeps_a_users_words_and_takes_old_weights_away(hub: Hub, model: SentenceTransformer) -> None:
    push_model(model, NAME)
    card = hub.files("model", NAME)["README.md"].decode()
    header, _, body = card[4:].partition("\n---\n")
    edited = f"---\n{header}\nlicense: mit\n---\n\nBefore.\n{body}\nAfter.\n"
    old = {"README.md": edited.encode(), "pytorch_model.bin": b"old", "model-00001-of-00002.safetensors": b"old"}
    hub.commit("model", NAME, old)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    for _ in range(2):
        push_model(model, NAME)
    metadata, body = card_of(hub)
    assert metadata["license"] == "mit"
    assert body.strip().startswith("Before.\n\n<!--")
    assert body.strip().endswith("-->\n\nAfter.")
    assert body.count("## Hard negatives\n") == 1
    assert not {"pytorch_model.bin", "model-00001-of-00002.safetensors"} & hub.files("model", NAME).keys()
    np.testing.assert_array_equal(vectors(SentenceTransformer(NAME, device="cpu")), vectors(model))


def lora(model: SentenceTransformer) -> SentenceTransformer:
    """The model with an adapter that changes its vectors."""
    peft = pytest.importorskip("peft")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def test_a_merged_model_takes_the_place_of_its_adapter(
    hub: Hub, model: SentenceTransformer, models: Path, tmp_path: Path
) -> None:
    adapted = lora(model)
    adapted[0].model.peft_config["default"].base_model_name_or_path = str(models / "bert")
    adapted.save(str(tmp_path / "adapter"))
    paths = [path for path in (tmp_path / "adapter").rglob("*") if path.is_file()]
    files = {path.relative_to(tmp_path / "adapter").as_posix(): path.read_bytes() for path in paths}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files.keys()
    hub.create("model", NAME, {**files, "elsewhere/adapter_config.json": b"{}"})
    np.testing.assert_allclose(vectors(SentenceTransformer(NAME, device="cpu")), vectors(adapted), atol=1e-5)
    done = push_model(adapted, NAME)
    assert sorted(hub.files("model", NAME)) == sorted([*done.files, "elsewhere/adapter_config.json"])
    np.testing.assert_allclose(vectors(SentenceTransformer(NAME, device="cpu")), vectors(adapted), atol=1e-5)


@pytest.mark.parametrize(
    ("there", "written", "stale"),
    [
        ("model.safetensors", "model.safetensors", False),
        ("model.safetensors", "model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", "model.safetensors", True),
        ("pytorch_model.bin", "model.safetensors", True),
        ("adapter_config.json", "model.safetensors", True),
        ("adapter_config.json", "adapter_config.json", False),
        ("2_Dense/pytorch_model.bin", "2_Dense/model.safetensors", True),
        ("2_Dense/pytorch_model.bin", "model.safetensors", False),
        ("config.json", "model.safetensors", False),
        ("modelling.safetensors", "model.safetensors", False),
        ("adapter_config.json", "README.md", False),
    ],
)
def test_what_is_stale_beside_new_weights(there: str, written: str, stale: bool) -> None:
    assert stale_weights([there], [written]) == [there] * stale


def test_branches_and_private_repositories(hub: Hub, model: SentenceTransformer) -> None:
    push_model(model, NAME, private=True, revision="v2")
    assert hub.repository("model", NAME).private
    assert hub.files("model", NAME) == {}
    loaded = SentenceTransformer(NAME, device="cpu", revision="v2")
    np.testing.assert_array_equal(vectors(loaded), vectors(model))


def test_a_dry_run(hub: Hub, model: SentenceTransformer) -> None:
    done = push_model(model, NAME, dry_run=True)
    assert not [request for request in hub.requests if request.method != "GET"]
    assert done.folder is not None
    np.testing.assert_array_equal(vectors(SentenceTransformer(str(done.folder), device="cpu")), vectors(model))


class TestRefused:
    def test_a_model_that_is_another_when_it_is_loaded(self, hub: Hub, model: SentenceTransformer) -> None:
        """As with a causal base that was made bidirectional after loading: the change is not in the files."""
        embeddings = model[0].model.embeddings
        embeddings.register_forward_hook(lambda module, given, output: output.roll(1, dims=-1))
        with pytest.raises(NegmineError, match=r"read back, the model gives different vectors .* nothing was sent"):
            push_model(model, NAME)
        assert ("model", NAME) not in hub.state.repositories

    def test_a_model_of_its_own_code(self, hub: Hub, model: SentenceTransformer) -> None:
        class Own(torch.nn.Module):
            def forward(self, features: Any) -> Any:
                return features

        model.append(Own())
        with pytest.raises(InputError, match="without running code from the Hub"):
            push_model(model, NAME)
        assert ("model", NAME) not in hub.state.repositories

    def test_a_repository_of_something_else(self, hub: Hub, model: SentenceTransformer) -> None:
        hub.create("model", NAME, {"weights.gguf": b"1"})
        with pytest.raises(HubError, match=r"'weights.gguf' but no model of Sentence Transformers"):
            push_model(model, NAME)
        assert hub.files("model", NAME) == {"weights.gguf": b"1"}

    @pytest.mark.parametrize("status", [403, 412, 500])
    def test_a_commit(self, hub: Hub, model: SentenceTransformer, status: int) -> None:
        hub.fail("POST", "/commit/", status=status)
        with pytest.raises(HubError, match=f"^pushing to {NAME}: ") as caught:
            push_model(model, NAME)
        assert not re.search("http|127|hf_test|/tmp", str(caught.value))
        assert hub.files("model", NAME) == {}
        sent = hub.asked("^/[0-9a-f]{64}$", "PUT")
        push_model(model, NAME)
        assert hub.asked("^/[0-9a-f]{64}$", "PUT") == sent
        assert len(hub.commits("model", NAME)) == 2

    def test_rows_without_a_note(self, hub: Hub, model: SentenceTransformer) -> None:
        with pytest.raises(InputError, match="how these rows were mined"):
            push_model(model, NAME, mined=rows())


def test_lora_is_merged(hub: Hub, model: SentenceTransformer) -> None:
    base = vectors(model)
    adapted = vectors(lora(model))
    assert not np.allclose(base, adapted, atol=1e-3)
    push_model(model, NAME)
    files = hub.files("model", NAME)
    assert "model.safetensors" in files
    assert not [path for path in files if "adapter" in path]
    assert b"lora" not in files["model.safetensors"]
    np.testing.assert_allclose(vectors(SentenceTransformer(NAME, device="cpu")), adapted, atol=1e-5)
    np.testing.assert_array_equal(vectors(model), adapted)
    assert [name for name, _ in model.named_parameters() if "lora_A" in name]


def test_a_trainer_pushes_our_card(hub: Hub, tmp_path: Path, model: SentenceTransformer) -> None:
    miner = make_miner(tmp_path / "cache", "bm25")
    mined = miner.mine(rows())
    push_dataset(mined, "tester/data", license="mit")
    prepare_card(model, NAME, mined=mined, data_id="tester/data")
    args = arguments(tmp_path / "run", num_train_epochs=1, push_to_hub=True, hub_model_id=NAME, save_strategy="epoch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SentenceTransformerTrainer(
            model=model, args=args, train_dataset=mined, loss=MultipleNegativesRankingLoss(model)
        )
        trainer.train()
        trainer.push_to_hub()
    body = card_of(hub)[1]
    section = section_of(body)
    assert body.count("## Hard negatives\n") == 1
    assert "mined by `naive` with sampler `top` (seed 7)" in section
    assert "https://huggingface.co/datasets/tester/data" in section
    assert str(tmp_path) not in body
    np.testing.assert_array_equal(vectors(SentenceTransformer(NAME, device="cpu")), vectors(model))
    push_model(model, NAME, mined=mined, data_id="tester/data")
    assert card_of(hub)[1].count("## Hard negatives\n") == 1
    assert card_of(hub)[1].count("<!-- hf_negmine: ") == 2
    assert json.loads(hub.files("model", NAME)["modules.json"])
