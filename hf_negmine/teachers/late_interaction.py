"""Late interaction as a teacher: ColBERT and similar models, with one vector per token."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.errors import InputError, TeacherError, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher, TokenVectors
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers.lengths import length_limit, require_positions
from hf_negmine.teachers.probes import PROBES
from hf_negmine.teachers.text_encoders import TextEncoderSettings, TextEncoderTeacher

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from typing_extensions import Unpack

OWN_KINDS = ("MultiVectorEncoder", "ColBERT")
"""The names of late-interaction models in the configurations of Sentence Transformers and PyLate."""


@with_arguments_of(TextEncoderTeacher)
class LateInteractionTeacher(TextEncoderTeacher["MultiVectorEncoder"]):
    """A Sentence Transformers `MultiVectorEncoder` as a teacher, such as ColBERT (arXiv 2004.12832).

    The score of a pair is the model's own: the greatest dot product of each query token with a token of the passage,
    summed over the query. Where the model divides that by the number of query tokens (``"meanmaxsim"``), the query's
    vectors are divided by it. Which tokens count (query expansion, no padding, no punctuation in passages) is up to the
    model, too.

    Args:
        model: a model id, a folder, or a loaded `MultiVectorEncoder`. An id or folder is loaded when first needed.
        first_stage: finds the candidates that it scores: a teacher, or anything that `resolve_teacher` accepts; None
            takes the mean of its own token vectors.
        candidates: candidates per query that the model scores. If too few of them are under the ceiling, the query
            is exhausted.
        max_length: tokens that a passage is cut to; None keeps the model's own limit. Queries keep theirs, which is
            part of how the model was trained.
        loading: the prompts, and how the model is opened and named, see `TextEncoderTeacher`.

    Raises:
        InputError: the model cannot be loaded, or is not a late-interaction model; Sentence Transformers is too old.
    """

    def __init__(
        self,
        model: str | Path | MultiVectorEncoder,
        *,
        first_stage: str | Path | Teacher | None = None,
        candidates: int = 100,
        **loading: Unpack[TextEncoderSettings],
    ) -> None:
        require_whole(candidates, "candidates", at_least=1)
        super().__init__(model, **loading)
        self.first_stage = first_stage
        self.candidates = candidates

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher, except for its first stage; part of the provenance."""
        return {
            "kind": "late-interaction",
            **self._loaded(),
            "candidates": self.candidates,
        }

    def fingerprint(self, role: Role) -> str:
        """Digest of weights, tokenizer, modules, prompts, limits, similarity and dtype; not of the first stage."""
        model = self.model
        return digest_of(
            "late-interaction",
            self._identity(role),
            role,
            {
                **self._prompting(role),
                "max_length": length_limit(model),
                "similarity": str(model.similarity_fn_name),
            },
        )

    def _probe(self, role: Role) -> FloatArray:
        found = self.encode_tokens(PROBES, role)
        sums = np.add.reduceat(found.vectors, found.offsets[:-1], axis=0)
        return np.asarray(sums / np.diff(found.offsets)[:, None], dtype=np.float32)

    def encode_tokens(self, texts: Sequence[str], role: Role) -> TokenVectors:
        """The vectors of the tokens that count, float32.

        A text without such a token has one zero vector: it scores 0 with everything.

        Raises:
            TeacherError: a vector is not finite.
        """
        given = self._encode_texts(texts, role, convert_to_numpy=True)
        vectors = [_at_least_one(np.asarray(some, dtype=np.float32)) for some in given]
        for text, some in zip(texts, vectors, strict=True):
            if not np.isfinite(some).all():
                raise TeacherError(
                    f"{self.name} gave {int((~np.isfinite(some)).any(axis=1).sum())} of {len(some)} vectors that are "
                    f"not finite to {text[:80]!r}"
                )
        if role == "query" and self.model.similarity_fn_name == "meanmaxsim":
            vectors = [some / np.float32(len(some)) for some in vectors]
        width = self.model.get_embedding_dimension() or 0
        flat = np.concatenate([np.empty((0, vectors[0].shape[1] if vectors else width), dtype=np.float32), *vectors])
        return TokenVectors(offsets_of_counts(np.array([len(some) for some in vectors], dtype=np.int64)), flat)

    def _limit_length(self, model: Any, tokens: int) -> None:
        require_positions(model, tokens, "max_length")
        model[0].document_length = tokens

    def _length_limit(self, model: Any) -> int | None:
        limit: int | None = getattr(model[0], "document_length", None)
        return limit

    def _class(self) -> Any:
        try:
            from sentence_transformers import MultiVectorEncoder
        except ImportError as error:
            raise InputError(
                "LateInteractionTeacher needs sentence-transformers 6.0 or newer, installed is "
                f"{version('sentence-transformers')}"
            ) from error
        return MultiVectorEncoder

    @staticmethod
    def _holds(kind: str | None, architectures: list[str]) -> bool:
        native = any(name == "HF_ColBERT" or name.endswith("ForRetrieval") for name in architectures)
        return native or kind in OWN_KINDS

    def _check(self, model: MultiVectorEncoder) -> None:
        if any(getattr(module, "keep_only_token_ids", None) for module in model.children()):
            raise InputError(
                f"{self.name} scores image patches and no words of a passage (keep_only_token_ids), expected a "
                "model of texts"
            )


def _at_least_one(vectors: FloatArray) -> FloatArray:
    return vectors if len(vectors) else np.zeros((1, vectors.shape[1]), dtype=np.float32)
