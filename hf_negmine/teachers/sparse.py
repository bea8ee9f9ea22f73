"""Learned sparse vectors as teachers: SPLADE and similar models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.errors import InputError, TeacherError, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, SparseVectors
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.teachers.lengths import length_limit
from hf_negmine.teachers.probes import PROBES
from hf_negmine.teachers.text_encoders import TextEncoderSettings, TextEncoderTeacher

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder
    from typing_extensions import Unpack

TEXTS_A_STEP = 512
"""Texts whose vectors are held at a time; a row in torch takes several times the memory of a row in arrays."""


@with_arguments_of(TextEncoderTeacher)
class SparseEncoderTeacher(TextEncoderTeacher["SparseEncoder"]):
    """A Sentence Transformers `SparseEncoder` as a teacher, such as SPLADE (arXiv 2107.05720).

    Args:
        model: a model id, a folder, or a loaded `SparseEncoder` that compares vectors by ``"dot"`` or ``"cosine"``. An
            id or folder is loaded when first needed.
        max_active_dims: dimensions that a vector keeps, those with the greatest weights; None takes the model's own
            limit, if it has one.
        loading: the prompts, and how the model is opened and named, see `TextEncoderTeacher`.

    Raises:
        InputError: the model cannot be loaded, or measures similarity by a distance.
    """

    def __init__(
        self,
        model: str | Path | SparseEncoder,
        *,
        max_active_dims: int | None = None,
        **loading: Unpack[TextEncoderSettings],
    ) -> None:
        if max_active_dims is not None:
            require_whole(max_active_dims, "max_active_dims", at_least=1)
        super().__init__(model, **loading)
        self._max_active_dims = max_active_dims

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher if its model is on the Hub; part of the provenance."""
        return {
            "kind": "sparse",
            **self._loaded(),
            "max_active_dims": self._in_effect(self._max_active_dims, self.model.max_active_dims),
        }

    def fingerprint(self, role: Role) -> str:
        """Digest of weights, tokenizer, modules, prompts, limits, similarity and dtype (see `protocols.Teacher`)."""
        model = self.model
        return digest_of(
            "sparse",
            self._identity(role),
            role,
            {
                **self._prompting(role),
                "max_length": length_limit(model),
                "max_active_dims": self._max_active_dims or model.max_active_dims,
                "similarity": model.similarity_fn_name,
            },
        )

    def _probe(self, role: Role) -> FloatArray:
        found = self.encode_sparse(PROBES, role)
        vectors = np.zeros((len(PROBES), int(found.terms.max(initial=0)) + 1), dtype=np.float32)
        vectors[np.repeat(np.arange(len(PROBES)), np.diff(found.offsets)), found.terms] = found.weights
        return vectors

    def encode_sparse(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """The vectors of ``texts``, of length 1 if the model compares them by cosine; a text may have no term at all.

        Raises:
            TeacherError: a weight is not finite.
        """
        parts: list[tuple[IdArray, PassageArray, FloatArray]] = [
            (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        ]
        step = max(TEXTS_A_STEP, self._batch_size)
        for start in range(0, len(texts), step):
            some = list(texts[start : start + step])
            rows, terms, weights = self._encode(some, role)
            if not np.isfinite(weights).all():
                first = int(rows[~np.isfinite(weights)][0])
                raise TeacherError(
                    f"{self.name} gave {int((~np.isfinite(weights)).sum())} weights that are not finite, the first one "
                    f"to {some[first][:80]!r}"
                )
            if self.model.similarity_fn_name == "cosine":
                weights = _of_length_one(rows, weights, len(some))
            kept = weights != 0
            parts.append((rows[kept] + start, terms[kept].astype(np.int32), weights[kept]))
        all_rows, all_terms, all_weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return SparseVectors(offsets_of_rows(all_rows, len(texts)), all_terms, all_weights)

    def _encode(self, texts: list[str], role: Role) -> tuple[IdArray, IdArray, FloatArray]:
        """Text, term and weight of each entry, by rising text and term."""
        vectors = self._encode_texts(
            texts,
            role,
            convert_to_tensor=True,
            convert_to_sparse_tensor=True,
            save_to_cpu=True,
            max_active_dims=self._max_active_dims,
        ).coalesce()
        rows, terms = vectors.indices().numpy()
        return rows, terms, vectors.values().float().numpy()

    def _class(self) -> Any:
        from sentence_transformers import SparseEncoder

        return SparseEncoder

    @staticmethod
    def _holds(kind: str | None, architectures: list[str]) -> bool:
        return kind == "SparseEncoder" or (kind is None and any(name.endswith("ForMaskedLM") for name in architectures))

    def _check(self, model: SparseEncoder) -> None:
        own = model.similarity_fn_name
        if own not in ("cosine", "dot"):
            raise InputError(f"{self.name} compares vectors by {own!r}, supported are 'cosine' and 'dot'")


def _of_length_one(rows: IdArray, weights: FloatArray, n_rows: int) -> FloatArray:
    squares = np.bincount(rows, weights=weights.astype(np.float64) ** 2, minlength=n_rows)
    return (weights / np.sqrt(squares)[rows]).astype(np.float32)
