"""The settings of a mined set that somebody else wrote: names, types and ranges, checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_negmine.base.errors import StorageError
from hf_negmine.base.naming import is_public_name
from hf_negmine.base.schema import MAX_PASSAGES
from hf_negmine.base.shapes import (
    MOST,
    Shape,
    expect,
    flag,
    list_of,
    number,
    one_of,
    optional,
    record,
    text,
    whole,
)
from hf_negmine.data.layouts import FORMATS, ON_EXHAUSTED

SEED = whole(-MOST, MOST)
ENSEMBLES = ("cross-sample", "intra-sample")


def _model(value: Any, where: str) -> None:
    """A model must be named by its id: provenance must not open a folder of this machine."""
    expect(is_public_name(value), where, "the id of a model on the Hub", value)


def _columns(value: Any, where: str) -> None:
    list_of(text, length=2)(value, where)
    expect(value[0] != value[1], where, "two columns", value)


def _stage(value: Any, where: str) -> None:
    """A teacher's identity, as in `teachers.identity_of`."""
    record(_IDENTITY, required=("teacher", "teacher_fingerprints"))(value, where)


def _teacher(value: Any, where: str) -> None:
    """The settings that recreate a teacher, as in `teachers.settings_of`; None for a teacher without settings."""
    if value is None:
        return
    record({"kind": text, "stages": list_of(_teacher)})(value, where)
    record(_TEACHERS.get(value.get("kind", ""), {}))(value, where)


def _filter(value: Any, where: str) -> None:
    """A filter's settings, as in `rules.settings_of_filters`."""
    record({"filter": text, "kind": text}, required=("filter", "kind"))(value, where)
    fields = _FILTERS.get(value["kind"], {})
    record(fields, required=fields.keys() - {"teacher_settings"})(value, where)


_PROMPTS: dict[str, Shape] = {"query_prompt": optional(text), "passage_prompt": optional(text)}
_OF_MODELS: dict[str, Shape] = {
    "model": _model,
    "revision": optional(text),
    "dtype": optional(text),
    "version": text,
    "max_length": optional(whole(1, MAX_PASSAGES)),
}
_TEACHERS: dict[str, dict[str, Shape]] = {
    "dense": {
        **_OF_MODELS,
        **_PROMPTS,
        "similarity": optional(text),
        "truncate_dim": optional(whole(1, MAX_PASSAGES)),
    },
    "sparse": {**_OF_MODELS, **_PROMPTS, "max_active_dims": optional(whole(1, MAX_PASSAGES))},
    "late-interaction": {**_OF_MODELS, **_PROMPTS, "candidates": whole(1)},
    "cross-encoder": {**_OF_MODELS, "activation": optional(text), "candidates": whole(1)},
    "faiss": {"index": text, "candidates": whole(1)},
    "bm25": {
        "language": optional(text),
        "k1": number,
        "b": number,
        "variant": one_of(("lucene", "robertson", "atire", "bm25l", "bm25+")),
    },
    "random": {"seed": SEED},
    "fusion": {"how": text, "weights": optional(list_of(number)), "rank_constant": whole(0, MAX_PASSAGES)},
    "intra-sample": {"dedup": flag},
}
_FILTERS: dict[str, dict[str, Shape]] = {
    "veto": {"teacher_settings": _teacher, "method": text, "abstain_at": optional(number), "depth": optional(whole(1))},
    "near-duplicates": {"teacher_settings": _teacher, "threshold": number, "of": text, "by": text},
    "consistency": {"top_k": optional(whole(1)), "min_score": optional(number), "action": text},
    "judge": {"budget": optional(whole()), "relabel": flag},
    "judgements": {"digest": text, "judged": whole(), "relevant": whole(), "relabel": flag},
}
_IDENTITY: dict[str, Shape] = {
    "teacher": text,
    "teacher_fingerprints": record({"query": text, "passage": text}, required=("query", "passage")),
    "similarity": optional(text),
    "stages": list_of(_stage),
    "candidates": whole(1),
}
_REQUIRED: dict[str, Shape] = {
    "teacher": text,
    "teacher_fingerprints": _IDENTITY["teacher_fingerprints"],
    "texts": text,
    "library_version": text,
    "columns": _columns,
    "teacher_settings": _teacher,
    "method": text,
    "sampler": text,
    "num_negatives": whole(1, MAX_PASSAGES),
    "positive_score": one_of(("min", "each")),
    "include_positives": flag,
    "on_exhausted": one_of(ON_EXHAUSTED),
    "format": one_of(FORMATS),
    "include_scores": flag,
    "pool_depth": whole(1),
    "seed": SEED,
}
_SHAPE = record({**_IDENTITY, **_REQUIRED, "filters": list_of(_filter)})


def is_ensemble(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a summary are those of an ensemble, with a pool per teacher (`select.ensembles`)."""
    return (settings.get("teacher_settings") or {}).get("kind") in ENSEMBLES


def check_settings(settings: dict[str, Any], where: str) -> None:
    """Raise `StorageError` for a setting of a wrong type or out of range; unknown settings are ignored."""
    _SHAPE(settings, where)
    if is_ensemble(settings):
        record({}, required=["stages"])(settings, where)


def require_settings(settings: dict[str, Any], where: str) -> None:
    """Raise `StorageError` unless every setting that mining again and a card need is there."""
    if lacking := [name for name in _REQUIRED if name not in settings]:
        raise StorageError(
            f"{where} lacks the settings {', '.join(lacking)}: it is damaged, or another version wrote it; mine again"
        )
