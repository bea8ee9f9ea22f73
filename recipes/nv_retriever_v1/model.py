"""The model that is trained: a bidirectional base with mean pooling that leaves out the instruction (appendix B.1).

Everything that a reader of the model needs is in its files, as settings of stock classes:

- bidirectional attention is ``is_causal`` of the configuration, which transformers writes and reads,
- the instruction is left out of the pooling by ``include_prompt`` of `Pooling`. It counts the prompt's tokens without
  the text, and a prompt that ends in a space has one more of them alone than in front of a text. So the tokenizer cuts
  spaces off the end of what it reads,
- queries and passages have their own length limits, which the task ``query`` or ``document`` chooses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import publish_folder, scratch_folder
from recipes.common.offline import place_of
from recipes.common.sets.retrieval_sets import WEB_SEARCH
from recipes.nv_retriever_v1.fixtures import texts
from recipes.nv_retriever_v1.recipe import RANDOM, Architecture, Base, NVRetriever
from recipes.nv_retriever_v1.tasks import TASKS

HEAD_WIDTH = 16
"""Width of an attention head of a random base."""
SPREAD = 0.2
"""Standard deviation of the weights of a random base: with less, all texts have almost the same vector."""
SPECIAL = ("<unk>", "<s>", "</s>")
PROBES = ("a", "The first word", "12 are 3", "(so it is)")
"""Texts behind a prompt that must not change the prompt's tokens."""


def write_base(recipe: NVRetriever, folder: Path) -> None:
    """Make the base as a Sentence Transformers model, whole or not at all.

    Raises:
        InputError: a model that cannot be loaded or made bidirectional, or prompts that do not fit its tokenizer.
    """
    base = recipe.base
    with scratch_folder(folder.parent) as scratch:
        name = str(scratch / RANDOM) if base.name == RANDOM else place_of(base.name)
        if base.name == RANDOM:
            _write_random(base, recipe.seed, Path(name))
        model = _as_encoder(name, base, recipe)
        _check_prompts(model, recipe)
        if base.bidirectional and not sees_later_tokens(model):
            raise InputError(f"base.bidirectional: {base.name} stays causal with is_causal=False in its configuration")
        whole = scratch / "whole"
        model.save_pretrained(str(whole), create_model_card=False)
        publish_folder(whole, folder)


def open_base(base: Base, folder: Path, device: str | None) -> SentenceTransformer:
    """The base that `write_base` has written, with frozen weights in the recipe's number format."""
    model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": getattr(torch, base.dtype)})
    model.requires_grad_(False)
    return model


def sees_later_tokens(model: SentenceTransformer) -> bool:
    """Whether the first token's vector depends on the last token, which it does not in a causal model."""
    transformer: Any = model[0].auto_model
    inputs = torch.tensor([[1, 5, 6, 7], [1, 5, 6, 8]], device=model.device)
    with torch.no_grad():
        first, second = transformer(input_ids=inputs).last_hidden_state[:, 0]
    return not torch.equal(first, second)


def _as_encoder(name: str, base: Base, recipe: NVRetriever) -> SentenceTransformer:
    try:
        transformer = Transformer(
            name,
            model_kwargs={"dtype": getattr(torch, base.dtype), "revision": base.revision},
            config_kwargs={"revision": base.revision},
            processor_kwargs={"revision": base.revision},
            query_length=base.query_length,
            document_length=base.passage_length,
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"base.name: {base.name!r} could not be loaded: {reason}") from error
    if base.bidirectional:
        transformer.auto_model.config.is_causal = False
    tokenizer: Any = transformer.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = max(base.query_length, base.passage_length)
    cut_spaces_off(tokenizer)
    pooling = Pooling(transformer.get_embedding_dimension(), base.pooling, include_prompt=not base.mask_instruction)
    prompts = {"query": recipe.prompts.query.replace("{task}", WEB_SEARCH), "document": recipe.prompts.passage}
    return SentenceTransformer(
        modules=[transformer, pooling], prompts=prompts, similarity_fn_name="cosine", device="cpu"
    )


def cut_spaces_off(tokenizer: Any) -> None:
    """Have a tokenizer cut spaces off the end of a text before anything else.

    So ``"x: "`` alone has the tokens that it has in front of a text.
    """
    backend = tokenizer.backend_tokenizer
    others = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Strip(left=False, right=True), *others])


def _check_prompts(model: SentenceTransformer, recipe: NVRetriever) -> None:
    """Check that a prompt leaves room for a text, and that a text behind it does not change its tokens."""
    tokenizer: Any = model.tokenizer
    prompts = [(recipe.prompts.query_of(one), recipe.base.query_length) for one in recipe.sets]
    prompts += [
        (recipe.prompts.query.replace("{task}", task.instruction), recipe.base.query_length) for task in TASKS.values()
    ]
    prompts.append((recipe.prompts.passage, recipe.base.passage_length))
    for prompt, limit in prompts:
        alone = tokenizer(prompt)["input_ids"]
        require(
            len(alone) < limit, f"base: a limit of {limit} tokens, and the prompt {prompt!r} alone has {len(alone)}"
        )
        if alone[-1] in tokenizer.all_special_ids:  # a BERT's end of the text; the pooling does not count it, either
            del alone[-1]
        if not recipe.base.mask_instruction:
            continue
        for probe in PROBES:
            found = tokenizer(prompt + probe)["input_ids"][: len(alone)]
            require(found == alone, f"base.mask_instruction: the prompt {prompt!r} has other tokens before {probe!r}")


def _write_random(base: Base, seed: int, folder: Path) -> None:
    """A Mistral of random weights, with a tokenizer that is put together like Mistral's."""
    shape = base.architecture
    config = MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden_size // HEAD_WIDTH,
        num_key_value_heads=shape.key_value_size // HEAD_WIDTH,
        max_position_embeddings=max(base.query_length, base.passage_length),
        initializer_range=SPREAD,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        MistralModel(config).to(getattr(torch, base.dtype)).save_pretrained(folder)
    _random_tokenizer(shape).save_pretrained(folder)


def _random_tokenizer(shape: Architecture) -> PreTrainedTokenizerFast:
    """Byte pairs with a sign for the space before a word, learned from the fixtures."""
    learning = Tokenizer(models.BPE())
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary, special_tokens=[*SPECIAL, *in_bytes], show_progress=False
    )
    learning.train_from_iterator(texts(), trainer)
    learned = json.loads(learning.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(learned["vocab"], merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True))
    # As Mistral's file says it: no pre-tokenizer, the space's sign by the normalizer.
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    unknown, begin, end = SPECIAL
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end, padding_side="left"
    )
