"""Teachers: what scores passages for a query. They never import one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_negmine.errors import InputError, require
from hf_negmine.protocols import ScoringTeacher, Teacher, VectorTeacher
from hf_negmine.teachers.bm25 import BM25Teacher
from hf_negmine.teachers.dense import DenseTeacher
from hf_negmine.teachers.fixed import FixedTeacher, RandomTeacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["BM25Teacher", "DenseTeacher", "FixedTeacher", "RandomTeacher", "resolve_teacher", "teacher_of_settings"]

DENSE_SETTINGS = {
    "model", "revision", "query_prompt", "passage_prompt", "similarity", "dtype", "max_length", "truncate_dim"
}  # fmt: skip
"""What `DenseTeacher.settings` holds besides its kind."""


def resolve_teacher(teacher: str | Path | Teacher | SentenceTransformer, *, progress: bool = True) -> Teacher:
    """A teacher from what users write.

    ``"bm25"``, ``"bm25:german"``, ``"random"``, ``"random:7"``, ``"fixed:FOLDER"``, any Sentence Transformers model id,
    folder or loaded model, or an object that keeps the `Teacher` protocol. ``progress`` is for those that show bars of
    their own.
    """
    require(teacher != "", "teacher: it is empty, expected a model's id or folder, 'bm25', 'random' or 'fixed:FOLDER'")
    if isinstance(teacher, VectorTeacher | ScoringTeacher):
        return teacher
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
        "similarity with encode(texts, role) or index(passages)"
    )


def teacher_of_settings(settings: dict[str, Any] | None) -> Teacher:
    """The teacher whose ``settings`` went into provenance, loaded from the Hub if it is a model.

    Raises:
        InputError: a teacher that settings cannot make: precomputed vectors, one of the user's own.
    """
    given = dict(settings or {})
    kind = given.pop("kind", "custom")
    try:
        if kind == "dense":
            if unknown := set(given) - DENSE_SETTINGS:  # they may come from the Hub: nobody else runs code here
                raise TypeError(f"unknown: {sorted(unknown)}")
            return DenseTeacher(given.pop("model"), **given)
        if kind == "bm25":
            return BM25Teacher(**given)
        if kind == "random":
            return RandomTeacher(**given)
    except (TypeError, KeyError) as error:
        raise InputError(f"teacher: the settings {settings} are none that this version knows ({error})") from error
    raise InputError(f"teacher: one of kind {kind!r} cannot be made from its settings; give it as teacher=")
