"""Teachers: what scores passages for a query. They never import one another."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_negmine.errors import InputError, require
from hf_negmine.protocols import (
    FusionTeacher,
    PairTeacher,
    Role,
    ScoringTeacher,
    SparseTeacher,
    Teacher,
    TokenTeacher,
    VectorTeacher,
)
from hf_negmine.teachers.api import APITeacher
from hf_negmine.teachers.bm25 import BM25Teacher
from hf_negmine.teachers.cross_encoder import CrossEncoderTeacher
from hf_negmine.teachers.dense import DenseTeacher
from hf_negmine.teachers.fixed import FixedTeacher, RandomTeacher
from hf_negmine.teachers.function import EncodeFunction, ScoreFunction
from hf_negmine.teachers.fusion import Fusion
from hf_negmine.teachers.late_interaction import LateInteractionTeacher
from hf_negmine.teachers.sparse import SparseEncoderTeacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "APITeacher",
    "BM25Teacher",
    "CrossEncoderTeacher",
    "DenseTeacher",
    "EncodeFunction",
    "FixedTeacher",
    "Fusion",
    "LateInteractionTeacher",
    "RandomTeacher",
    "ScoreFunction",
    "SparseEncoderTeacher",
    "identity_of",
    "resolve_teacher",
    "settings_of",
    "stages_of",
    "teacher_of_settings",
]

KINDS = (VectorTeacher, ScoringTeacher, SparseTeacher, TokenTeacher, PairTeacher, FusionTeacher)

MODEL_SETTINGS = {"model", "revision", "query_prompt", "passage_prompt", "dtype", "max_length"}
DENSE_SETTINGS = MODEL_SETTINGS | {"similarity", "truncate_dim"}
"""What `DenseTeacher.settings` holds besides its kind."""


def resolve_teacher(teacher: str | Path | Teacher | SentenceTransformer, *, progress: bool = True) -> Teacher:
    """A teacher from what users write.

    ``"bm25"``, ``"bm25:german"``, ``"random"``, ``"random:7"``, ``"fixed:FOLDER"``, any Sentence Transformers model id,
    folder or loaded model, or an object that keeps the `Teacher` protocol. A teacher that stands on others gets these
    resolved, too. ``progress`` is for those that show bars of their own.
    """
    require(teacher != "", "teacher: it is empty, expected a model's id or folder, 'bm25', 'random' or 'fixed:FOLDER'")
    if isinstance(teacher, KINDS):
        return _with_first_stage(teacher, progress)
    if isinstance(teacher, str):
        kind, _, rest = teacher.partition(":")
        if kind == "bm25":
            return BM25Teacher(rest or "english", progress=progress)
        if kind == "random" and (not rest or rest.lstrip("-").isdigit()):
            return RandomTeacher(int(rest or 0))
        if kind == "fixed" and rest:
            return FixedTeacher.from_folder(rest)
    if isinstance(teacher, str | Path) or hasattr(teacher, "encode_query"):
        return DenseTeacher(teacher)  # type: ignore[arg-type]
    raise InputError(
        f"teacher {teacher!r} is not a model, and lacks what a teacher needs: name, fingerprint(role), and either "
        "similarity with encode(texts, role), or index(passages), or first_stage and candidates with score(queries, "
        "passages); a function can be wrapped as EncodeFunction(f) or ScoreFunction(f)"
    )


def _with_first_stage(teacher: Teacher, progress: bool) -> Teacher:
    """The teacher with its first stage resolved; itself where that changes nothing."""
    first = getattr(teacher, "first_stage", None)
    resolved = None if first is None else resolve_teacher(first, progress=progress)
    if resolved is first:
        return teacher
    other = copy.copy(teacher)
    other.__dict__["first_stage"] = resolved  # some teachers are frozen
    return other


def stages_of(teacher: Teacher) -> tuple[Teacher, ...]:
    """The teachers that this one stands on."""
    if (first := getattr(teacher, "first_stage", None)) is not None:
        return (first,)
    return tuple(getattr(teacher, "stages", ()))


def identity_of(teacher: Teacher) -> dict[str, Any]:
    """Everything that decides the scores of a teacher, those that it stands on included; goes into provenance."""
    roles: tuple[Role, ...] = ("query", "passage")
    identity: dict[str, Any] = {
        "teacher": teacher.name,
        "teacher_fingerprints": {role: teacher.fingerprint(role) for role in roles},
        "similarity": getattr(teacher, "similarity", None),
    }
    if stages := stages_of(teacher):
        identity["stages"] = [identity_of(stage) for stage in stages]
    if (candidates := getattr(teacher, "candidates", None)) is not None:
        identity["candidates"] = candidates
    return identity


def settings_of(teacher: Teacher) -> dict[str, Any] | None:
    """What makes the same teacher again, with the teachers that it stands on; None for one that cannot say."""
    own: dict[str, Any] | None = getattr(teacher, "settings", None)
    if own is None or not (stages := stages_of(teacher)):
        return own
    return {**own, "stages": [settings_of(stage) for stage in stages]}


def teacher_of_settings(settings: dict[str, Any] | None) -> Teacher:
    """The teacher whose settings (`settings_of`) went into provenance, loaded from the Hub if it is a model.

    Raises:
        InputError: a teacher that settings cannot make: precomputed vectors, one of the user's own, an endpoint (a key
            is not sent to an address that somebody else wrote down).
    """
    given = dict(settings or {})
    kind = given.pop("kind", "custom")
    try:
        stages = [teacher_of_settings(stage) for stage in given.pop("stages", [])]
        if kind == "dense":
            _only(given, DENSE_SETTINGS)
            return DenseTeacher(given.pop("model"), **given)
        if kind == "sparse":
            _only(given, MODEL_SETTINGS | {"max_active_dims"})
            return SparseEncoderTeacher(given.pop("model"), **given)
        if kind == "late-interaction":
            _only(given, MODEL_SETTINGS | {"candidates"})
            return LateInteractionTeacher(given.pop("model"), first_stage=stages[0] if stages else None, **given)
        if kind == "cross-encoder":
            _only(given, {"model", "revision", "dtype", "max_length", "activation", "candidates"})
            return CrossEncoderTeacher(given.pop("model"), first_stage=stages[0], **given)
        if kind == "fusion":
            return Fusion(stages, **given)
        if kind == "bm25":
            return BM25Teacher(**given)
        if kind == "random":
            return RandomTeacher(**given)
    except (TypeError, KeyError, IndexError) as error:
        raise InputError(f"teacher: the settings {settings} are none that this version knows ({error})") from error
    raise InputError(f"teacher: one of kind {kind!r} cannot be made from its settings; give it as teacher=")


def _only(given: dict[str, Any], known: set[str]) -> None:
    """`TypeError` for settings that may come from the Hub and name something else: nobody else runs code here."""
    if unknown := set(given) - known:
        raise TypeError(f"unknown: {sorted(unknown)}")
