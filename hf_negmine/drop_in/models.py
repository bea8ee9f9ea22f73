"""The models that Sentence Transformers' function accepts, as teachers: its own, and any object with its methods."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers import CrossEncoderTeacher, DenseTeacher, ScoreFunction

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Prompts:
    """The prompt put before the texts of a role: the prompt itself, or the name of one of the model's own."""

    prompt: str | None
    name: str | None

    def of(self, model: SentenceTransformer) -> str | None:
        """The prompt's text; None leaves the choice to the model."""
        if self.prompt is not None or self.name is None:
            return self.prompt
        if self.name not in model.prompts:
            raise InputError(
                f"Prompt name {self.name!r} not found in the configured prompts dictionary with keys "
                f"{list(model.prompts)}."
            )
        return model.prompts[self.name]


class SimilarityTeacher:
    """An object that encodes and compares as a `SentenceTransformer` does, as a teacher that scores every passage.

    It is called the way Sentence Transformers' function calls a model, and its own ``similarity`` is the score. Nothing
    distinguishes it from another object of its class, so every teacher gets a new fingerprint, and stored results are
    never reused. Where it lacks ``encode_query`` or ``encode_document``, it is asked to ``encode``.
    """

    def __init__(self, model: Any, prompts: dict[Role, Prompts], batch_size: int, *, progress: bool) -> None:
        self._model, self._prompts = model, prompts
        self._batch_size, self._progress = batch_size, progress
        self._version = uuid.uuid4().hex
        self._workers: Any = None

    @property
    def name(self) -> str:
        """The name of the object's class."""
        return type(self._model).__name__

    def fingerprint(self, role: Role) -> str:
        """A new one for each teacher (see `protocols.Teacher`)."""
        return digest_of("similarity", self._version, role)

    def index(self, passages: pa.LargeStringArray) -> _Passages:
        """See `protocols.ScoringTeacher`."""
        return _Passages(self, torch.as_tensor(self.vectors(passages.to_pylist(), "passage")))

    def vectors(self, texts: list[str], role: Role) -> Any:
        """The model's vectors of ``texts``, one row per text."""
        encode = getattr(self._model, "encode_query" if role == "query" else "encode_document", None)
        return (encode or self._model.encode)(
            texts,
            pool=self._workers,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=self._progress,
            prompt_name=self._prompts[role].name,
            prompt=self._prompts[role].prompt,
        )

    def similarities(self, queries: Any, passages: Any) -> FloatArray:
        """The score of each passage for each query, shape (queries, passages)."""
        scores = torch.as_tensor(self._model.similarity(queries, passages))
        return np.asarray(scores.detach().to("cpu", torch.float32).numpy())

    @contextmanager
    def processes(self, devices: list[str] | None = None) -> Iterator[None]:
        """Encode in one process per device inside the block."""
        require(
            hasattr(self._model, "start_multi_process_pool"),
            f"use_multi_process: {self.name} has no start_multi_process_pool; leave use_multi_process out",
        )
        self._workers = self._model.start_multi_process_pool(target_devices=devices)
        try:
            yield
        finally:
            self._model.stop_multi_process_pool(self._workers)
            self._workers = None


class _Passages:
    """The encoded passages of a corpus; a query is encoded only once, so that its scores do not depend on its batch."""

    def __init__(self, teacher: SimilarityTeacher, vectors: torch.Tensor) -> None:
        self._teacher, self._vectors = teacher, vectors
        self._queries: dict[str, FloatArray] = {}

    def scores(self, queries: Sequence[str]) -> FloatArray:
        """See `protocols.PassageScorer`."""
        new = [query for query in queries if query not in self._queries]
        if new:
            vectors = torch.as_tensor(self._teacher.vectors(new, "query")).detach().cpu().numpy()
            self._queries.update(zip(new, vectors, strict=True))
        return self._teacher.similarities(np.stack([self._queries[query] for query in queries]), self._vectors)


@dataclass(frozen=True)
class Teachers:
    """The models that score the passages.

    Attributes:
        encoder: makes the vectors.
        teacher: the encoder itself, or the cross-encoder that scores its candidates.
        keeps: whether results may be kept for later calls, because fingerprints cover everything that affects a score.
    """

    encoder: DenseTeacher | SimilarityTeacher
    teacher: Teacher
    keeps: bool

    @classmethod
    def of(
        cls,
        model: Any,
        cross_encoder: Any,
        prompts: dict[Role, Prompts],
        *,
        candidates: int,
        batch_size: int,
        progress: bool,
    ) -> Teachers:
        """The teachers of the models that were passed in.

        Raises:
            InputError: an object lacks the methods it needs.
        """
        dense = _dense_teacher(model, prompts, batch_size)
        encoder = dense or SimilarityTeacher(model, prompts, batch_size, progress=progress)
        if cross_encoder is None:
            return cls(encoder, encoder, keeps=dense is not None)
        known = _cross_encoder_teacher(cross_encoder, encoder, candidates, batch_size)
        teacher = known or _pair_teacher(cross_encoder, encoder, candidates, batch_size)
        return cls(encoder, teacher, keeps=dense is not None and known is not None)

    def processes(self, use_multi_process: Sequence[str] | bool) -> contextlib.AbstractContextManager[Any]:
        """Encode in several processes inside the block, if requested."""
        if not use_multi_process:
            return contextlib.nullcontext()
        return self.encoder.processes(None if isinstance(use_multi_process, bool) else list(use_multi_process))


def _dense_teacher(model: Any, prompts: dict[Role, Prompts], batch_size: int) -> DenseTeacher | None:
    """The teacher of a `SentenceTransformer`; None for another object, and for a model that cannot be digested."""
    from sentence_transformers import SentenceTransformer

    if not isinstance(model, SentenceTransformer):
        encodes = hasattr(model, "encode") or (hasattr(model, "encode_query") and hasattr(model, "encode_document"))
        another_kind = any(kind.__module__.startswith("sentence_transformers.") for kind in type(model).__mro__)
        require(
            encodes and hasattr(model, "similarity") and not another_kind,
            "model: expected a SentenceTransformer, or an object with encode_query, encode_document and similarity, "
            f"got {type(model).__name__}; NegativeMiner takes other kinds of models as teacher=",
        )
        return None
    own = str(getattr(model.similarity_fn_name, "value", model.similarity_fn_name))
    require(own in ("cosine", "dot"), f"the model compares vectors by {own!r}, supported are 'cosine' and 'dot'")
    teacher = DenseTeacher(
        model,
        query_prompt=prompts["query"].of(model),
        passage_prompt=prompts["passage"].of(model),
        similarity="cosine",  # theirs normalizes every vector, so that the dot product is the cosine, too
        batch_size=batch_size,
    )
    return teacher if _has_fingerprint(teacher) else None


def _cross_encoder_teacher(
    cross_encoder: Any, first_stage: Teacher, candidates: int, batch_size: int
) -> CrossEncoderTeacher | None:
    """The teacher of a `CrossEncoder`; None for another object, and for a model that cannot be digested."""
    from sentence_transformers import CrossEncoder

    if not isinstance(cross_encoder, CrossEncoder):
        require(
            hasattr(cross_encoder, "predict"),
            f"cross_encoder: expected a CrossEncoder, or an object with predict, got {type(cross_encoder).__name__}",
        )
        return None
    teacher = CrossEncoderTeacher(cross_encoder, first_stage=first_stage, candidates=candidates, batch_size=batch_size)
    return teacher if _has_fingerprint(teacher) else None


def _pair_teacher(cross_encoder: Any, first_stage: Teacher, candidates: int, batch_size: int) -> ScoreFunction:
    """The teacher of any object with ``predict``."""

    def predict(queries: list[str], passages: list[str]) -> Any:
        pairs = list(zip(queries, passages, strict=True))
        return cross_encoder.predict(pairs, batch_size=batch_size, convert_to_tensor=True, pool=None)

    name, version = type(cross_encoder).__name__, uuid.uuid4().hex
    return ScoreFunction(predict, first_stage=first_stage, candidates=candidates, version=version, label=name)


def _has_fingerprint(teacher: DenseTeacher | CrossEncoderTeacher) -> bool:
    try:
        teacher.fingerprint("query")
    except InputError:
        return False
    return True
