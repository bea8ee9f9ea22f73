"""Late interaction as a teacher: ColBERT and similar models, with one vector per token."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.choices import NumberFormat
from hf_negmine.base.errors import InputError, TeacherError, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher, TokenVectors
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.teachers.encoders import EncoderTeacher
from hf_negmine.teachers.lengths import count_tokens, length_limit, require_positions
from hf_negmine.teachers.probes import PROBES

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

OWN_KINDS = ("MultiVectorEncoder", "ColBERT")
"""The names of late-interaction models in the configurations of Sentence Transformers and PyLate."""


class LateInteractionTeacher(EncoderTeacher["MultiVectorEncoder"]):
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
        query_prompt: text put before every query; None takes the model's own, if it has one.
        passage_prompt: text put before every passage; None takes the model's own, if it has one.
        dtype: number format of the weights; None keeps the one the model is stored in. ``bfloat16`` takes half the
            memory and, on a processor made for it, less than half the time, but it moves scores, and with them some of
            the negatives. See ``benchmarks/README.md``.
        max_length: tokens that a passage is cut to; None keeps the model's own limit. Queries keep theirs, which is
            part of how the model was trained.
        batch_size: texts per forward pass; fewer take less memory.
        device: ``"cpu"``, ``"cuda"``, …; None takes that of the miner, or a GPU if there is one. A loaded model stays
            where it is.
        revision: branch, tag or commit of a model on the Hub; None takes ``main``.
        trust_remote_code: whether to run Python code that comes with the model. Read it first.
        name: the teacher's name in summaries; None takes the model's id, or its folder's name.
        version: part of the fingerprint: change it when the model changes in a way that cannot be read from its weights
            and settings. A model without readable weights needs one.

    Raises:
        InputError: the model cannot be loaded, or is not a late-interaction model; Sentence Transformers is too old.
    """

    def __init__(
        self,
        model: str | Path | MultiVectorEncoder,
        *,
        first_stage: str | Path | Teacher | None = None,
        candidates: int = 100,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        dtype: NumberFormat | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        require_whole(candidates, "candidates", at_least=1)
        super().__init__(
            model,
            dtype=dtype,
            max_length=max_length,
            batch_size=batch_size,
            device=device,
            revision=revision,
            trust_remote_code=trust_remote_code,
            name=name,
            version=version,
            query_prompt=query_prompt,
            passage_prompt=passage_prompt,
        )
        self.first_stage = first_stage
        self.candidates = candidates

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher, except for its first stage; part of the provenance."""
        return {
            "kind": "late-interaction",
            **self._loaded(),
            "query_prompt": self._prompts["query"],
            "passage_prompt": self._prompts["passage"],
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
                **self._prompting(self._prompts[role]),
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
        encode: Any = self.model.encode_query if role == "query" else self.model.encode_document
        vectors = encode(
            list(texts),
            prompt=self._prompts[role],
            batch_size=self._batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        vectors = [_at_least_one(np.asarray(some, dtype=np.float32)) for some in vectors]
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

    def count_tokens(self, texts: Sequence[str], role: Role) -> tuple[IdArray, int | None]:
        """See `protocols.CountsTokens`."""
        return count_tokens(self.model, texts, role, self._prompts[role])

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
