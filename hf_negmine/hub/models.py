"""A trained model as files: merged weights, safetensors, a card with the provenance of its negatives, verified."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.base.files import digest_of, finish_or_nothing
from hf_negmine.base.naming import public_name
from hf_negmine.hub.card_metadata import BEGIN, END, TAGS, as_list, join_card, split_card
from hf_negmine.hub.cards import code, escaped, rendered, sentence
from hf_negmine.hub.provenance import check_dataset_ids, public_summary
from hf_negmine.report.summary import MiningSummary

PROBES = ("what is a hard negative?", "A passage that looks relevant to a query and is not.", "a", "tea " * 40)
"""Texts for which a saved model and the one in memory must give the same vectors."""
CLOSEST = 0.999
"""Least cosine between the two; merged adapters and half-precision weights round differently."""
WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model)([-.].*)?\.(safetensors|bin|index\.json)")
ADAPTER = "adapter_config.json"
"""If this file exists, Sentence Transformers adds an adapter's weights on top, and fails if there are none."""
SECTION_BEFORE = "\n## Training Details"
SHOWN = ("teacher", "method", "sampler", "num_negatives", "positive_score", "seed", "library_version")


def template() -> str:
    """The text of ``model_card_template.md``, which is at the root of the project and in the installed package."""
    packaged = Path(__file__).with_name("model_card_template.md")
    at_root = Path(__file__).parents[2] / packaged.name
    return (packaged if packaged.exists() else at_root).read_text(encoding="utf-8")


def negatives_section(
    repo_id: str,
    summary: MiningSummary | None,
    *,
    data_id: str | None = None,
    data_ids: Sequence[str] = (),
    evaluation: Mapping[str, tuple[float, float]] | None = None,
    base: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
    example: tuple[str, str] = ("what is a hard negative?", "A passage that looks relevant to a query and is not."),
) -> str:
    """A model card's section about its negatives, as Markdown.

    Args:
        repo_id: the model's repository.
        summary: the summary of the mining; None if it was not recorded.
        data_id: the mined data set on the Hub.
        data_ids: other data sets that it was trained on.
        evaluation: metric of each data set before and after training, such as ``{"nfcorpus NDCG@10": (0.3, 0.33)}``.
        base: the base model.
        prompts: the model's prompts.
        example: a query and a passage for the snippet.
    """
    check_dataset_ids([*([] if data_id is None else [data_id]), *data_ids], "data_id and data_ids")
    summary = None if summary is None else public_summary(summary)
    rows = []
    for name, (before, after) in (evaluation or {}).items():
        data, _, metric = name.rpartition(" ")
        rows.append({"data": escaped(data or name), "metric": escaped(metric), "before": before, "after": after})
    negatives = None
    if summary is not None:
        negatives = {
            "sentence": sentence(summary),
            "data_id": data_id,
            "settings": [(name.replace("_", " "), code(summary.settings.get(name))) for name in SHOWN],
        }
    return rendered(
        template(),
        repo_id=repo_id,
        negatives=negatives,
        data_ids=list(data_ids),
        evaluation=rows,
        base=escaped(public_name(base)) if base else None,
        prompts={name: text for name, text in (prompts or {}).items() if text},
        example_query=json.dumps(example[0])[1:-1],
        example_passage=json.dumps(example[1])[1:-1],
        version=version("hf_negmine"),
    )


def write_model(
    model: SentenceTransformer, folder: Path, section: str, *, existing: str = "", data_ids: Sequence[str] = ()
) -> None:
    """Save a model with its card, and read it back.

    Args:
        model: a Sentence Transformers model; LoRA adapters are merged into a copy.
        folder: where the files are written.
        section: the card's section, from `negatives_section`.
        existing: the current card; its YAML and the user's text are kept.
        data_ids: data sets on the Hub that it was trained on, for the card's YAML.

    Raises:
        InputError: the model could only be loaded with its own code.
        NegmineError: the saved model gives different vectors.
    """
    whole = merged(model)
    code_of = {type(module).__module__ for module in whole.children()}
    own_code = sorted(name for name in code_of if name.split(".")[0] != "sentence_transformers")
    if own_code:
        raise InputError(
            f"push_model: the model has modules of {own_code}, which nobody could load without running "
            "code from the Hub; use modules of Sentence Transformers"
        )
    whole.save_pretrained(str(folder), safe_serialization=True)
    unsafe = [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pickle")]
    if unsafe:
        raise InputError(f"push_model: {unsafe} would be pickled files; save the model as safetensors")
    card = folder / "README.md"
    text = model_card(card.read_text(encoding="utf-8"), section, existing=existing, data_ids=data_ids)
    card.write_text(text, encoding="utf-8")
    check_same(model, folder)


def stale_weights(there: Iterable[str], written: Sequence[str]) -> list[str]:
    """Weights and adapters of an earlier model that could be loaded instead of the new weights, or on top of them.

    Args:
        there: paths of all files, relative to the model's folder.
        written: those of the new model.
    """
    folders = {PurePosixPath(path).parent for path in written if path.endswith(".safetensors")}
    others = [PurePosixPath(path) for path in there if path not in written]
    return [
        str(path)
        for path in others
        if path.parent in folders and (path.name == ADAPTER or WEIGHTS.fullmatch(path.name))
    ]


def model_card(generated: str, section: str, *, existing: str = "", data_ids: Sequence[str] = ()) -> str:
    """The Sentence Transformers card with our section; a user's own text around it survives."""
    metadata, _ = split_card(generated)
    _, _, body = generated.partition("\n---\n")
    if BEGIN in body:  # from `set_card_template`, or from a model that was loaded from an earlier push
        body = body.partition(BEGIN)[2].partition(END)[0]
    kept, own_text = split_card(existing)
    merged_metadata = {**metadata, **{name: value for name, value in kept.items() if name not in metadata}}
    for name, ours in (("tags", TAGS), ("datasets", data_ids)):
        if values := [*as_list(metadata.get(name)), *as_list(kept.get(name)), *ours]:
            merged_metadata[name] = list(dict.fromkeys(values))
    return join_card(merged_metadata, own_text, with_section(body, section))


def with_section(card: str, section: str) -> str:
    """A Sentence Transformers card with our section before its training details, or at the end.

    The section replaces an earlier one with the same heading.
    """
    heading = section.strip().partition("\n")[0]
    before, found, after = card.partition(SECTION_BEFORE)
    before = before.partition(f"\n{heading}\n")[0]
    return f"{before.rstrip()}\n\n{section.strip()}\n{found}{after}"


def set_card_template(model: SentenceTransformer, section: str, cache_dir: Path) -> None:
    """Make every card that the model writes from now on hold our section, between our marks.

    Sentence Transformers renders its cards from a template file; ours is that template with the section added.
    """
    theirs = Path(inspect.getfile(type(model.model_card_data))).with_name("model_card_template.md")
    if not theirs.exists():
        theirs = Path(str(model.model_card_data.template_path))
    text = theirs.read_text(encoding="utf-8")
    raw = "{% raw %}" + section.strip() + "{% endraw %}\n"
    head, _, body = text.partition("\n---\n")
    before, found, after = body.partition(SECTION_BEFORE)
    if not found:
        raise NegmineError(f"the card template of Sentence Transformers no longer has {SECTION_BEFORE.strip()!r}")
    whole = f"{head}\n---\n\n{BEGIN}\n{before.rstrip()}\n\n{raw}{found}{after.rstrip()}\n\n{END}\n"
    path = cache_dir / "cards" / f"{digest_of(whole)}.md"
    with finish_or_nothing(path) as file:
        file.write(whole.encode())
    model.model_card_data.template_path = path


def merged(model: SentenceTransformer) -> SentenceTransformer:
    """The model without adapters: a copy with LoRA weights merged in, or the model itself if it has none."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return model
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        return model
    copied = copy.deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, module.get_base_layer())
    for module in copied.modules():
        for left in ("peft_config", "_hf_peft_config_loaded"):
            if left in module.__dict__:
                delattr(module, left)
    return copied


def check_same(model: SentenceTransformer, folder: Path) -> None:
    """Load the saved model, and compare it with the one in memory.

    Raises:
        NegmineError: it gives different vectors, such as a bidirectional model whose configuration says causal.
    """
    saved = SentenceTransformer(str(folder), device=str(model.device), trust_remote_code=False, local_files_only=True)
    with torch.no_grad():
        ours, theirs = (np.asarray(which.encode(list(PROBES), show_progress_bar=False)) for which in (model, saved))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-12)
    if cosines.min() < CLOSEST:
        raise NegmineError(
            f"push_model: read back, the model gives different vectors (cosine {cosines.min():.4f} to the one in "
            "memory), so nothing was sent; part of it is not saved, such as a base made bidirectional after loading"
        )
