"""Cross-encoders as teachers: a model that reads a query and a passage together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.choices import Activation
from hf_negmine.base.errors import InputError, TeacherError, require, require_choice, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.teachers.encoders import EncoderTeacher, ModelSettings
from hf_negmine.teachers.lengths import count_tokens, length_limit
from hf_negmine.teachers.model_digest import setting_digest
from hf_negmine.teachers.probes import PROBES

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from typing_extensions import Unpack

ACTIVATIONS = {"Identity()": "identity", "Sigmoid()": "sigmoid"}
HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")
"""Endings of transformers' names for models without a head to score a pair with."""


@with_arguments_of(EncoderTeacher)
class CrossEncoderTeacher(EncoderTeacher["CrossEncoder"]):
    """A Sentence Transformers `CrossEncoder` as a teacher: it scores what a first stage finds, and the positives.

    Choose ``activation`` together with the method, because a ceiling is a formula on scores:

    - ``"sigmoid"`` gives probabilities between 0 and 1, for which "95 % of the positive score" (`TopKPercPos`) means
      something: under a positive of 0.9 that is 0.855. Near 1 they crowd together, and above a logit of about 17 they
      are all 1.
    - ``"identity"`` gives the logits. They may be negative, which ceilings allow for, but where their zero lies is an
      accident of training: 95 % of a positive's 8.0 leaves a margin of 0.4, 95 % of 0.2 leaves one of 0.01, which
      filters next to nothing. `TopKMarginPos` does not depend on the zero: prefer it for logits.
    - None keeps the model's own, which is a sigmoid for most models and the identity for the ms-marco family.

    Args:
        model: a model id, a folder, or a loaded `CrossEncoder` with one label. An id or folder is loaded when first
            needed.
        first_stage: finds the candidates that it scores: a teacher, or anything that `resolve_teacher` accepts.
        candidates: candidates per query that the model scores. If too few of them are under the ceiling, the query
            is exhausted.
        activation: what turns a cross-encoder's output into a score: ``identity`` or ``sigmoid``; None keeps the
            model's own.
        dtype: number format of the weights; None keeps the one the model is stored in. A score is a single number, and
            bfloat16 has only 32 values between 4 and 8, so that candidates tie: ``"float32"`` is the better choice for
            a model that is stored in it.
        max_length: tokens that query and passage together are cut to; None keeps the model's own limit.
        batch_size: pairs per forward pass; fewer take less memory.
        loading: how the model is opened and named, see `EncoderTeacher`.

    Raises:
        InputError: the model cannot be loaded, or has several labels.
    """

    methods = ("predict",)

    def __init__(
        self,
        model: str | Path | CrossEncoder,
        *,
        first_stage: str | Path | Teacher = "bm25",
        candidates: int = 100,
        activation: Activation | None = None,
        **loading: Unpack[ModelSettings],
    ) -> None:
        require_whole(candidates, "candidates", at_least=1)
        if activation is not None:
            require_choice(activation, get_args(Activation), argument="activation")
        super().__init__(model, **loading)
        self.first_stage = first_stage
        self.candidates = candidates
        self._activation = activation

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher, except for its first stage; part of the provenance."""
        return {
            "kind": "cross-encoder",
            **self._loaded(),
            "activation": self._in_effect(self._activation, self._own_activation()),
            "candidates": self.candidates,
        }

    def fingerprint(self, role: Role) -> str:
        """Digest of weights, tokenizer, activation, prompts, length limit and dtype; not of the first stage."""
        model: Any = self.model
        return digest_of(
            "cross-encoder",
            self._identity("query"),
            {
                "activation": setting_digest(self._activation_function()),
                "own_prompts": dict(getattr(model, "prompts", None) or {}),
                "default_prompt_name": getattr(model, "default_prompt_name", None),
                "max_length": length_limit(model),
                "in_float32": list(getattr(model, "keep_in_fp32_modules", None) or ()),
            },
        )

    def _probe(self, role: Role) -> FloatArray:
        return self.score(PROBES, PROBES[::-1])[:, None]

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
        """The score of each pair, float32, shape (len(queries),).

        Pairs of similar length share a batch, whatever their order.

        Raises:
            TeacherError: a score is not finite, or there is not exactly one per pair.
        """
        require(len(queries) == len(passages), f"score: {len(queries)} queries, but {len(passages)} passages")
        if not queries:
            return np.empty(0, dtype=np.float32)
        model = self.model
        own = model.activation_fn
        try:
            scores = model.predict(
                list(zip(queries, passages, strict=True)),
                batch_size=self._batch_size,
                show_progress_bar=False,
                activation_fn=self._activation_function(),
            )
        finally:
            model.activation_fn = own  # up to Sentence Transformers 5, predict() leaves it changed
        return self._checked(np.asarray(scores, dtype=np.float32), len(queries))

    def count_pair_tokens(self, queries: Sequence[str], passages: Sequence[str]) -> tuple[IdArray, int | None]:
        """See `protocols.CountsPairTokens`."""
        return count_tokens(self.model, queries, "query", None, passages)

    def _checked(self, scores: FloatArray, pairs: int) -> FloatArray:
        if scores.size != pairs or not np.isfinite(scores).all():
            raise TeacherError(
                f"{self.name} gave scores of shape {scores.shape}, {int((~np.isfinite(scores)).sum())} of them not "
                f"finite, expected one finite score for each of {pairs} pairs"
            )
        return scores.reshape(pairs)

    def _activation_function(self) -> Any:
        import torch

        if self._activation is None:
            return self.model.activation_fn
        return torch.nn.Sigmoid() if self._activation == "sigmoid" else torch.nn.Identity()

    def _own_activation(self) -> str | None:
        """The model's own activation as the argument's value; None if it is neither of the two."""
        return ACTIVATIONS.get(repr(self.model.activation_fn))

    def _class(self) -> Any:
        from sentence_transformers import CrossEncoder

        return CrossEncoder

    @staticmethod
    def _holds(kind: str | None, architectures: list[str]) -> bool:
        return kind == "CrossEncoder" or (kind is None and not all(name.endswith(HEADLESS) for name in architectures))

    def _check(self, model: CrossEncoder) -> None:
        labels = model.num_labels
        if labels != 1:
            raise InputError(f"{self.name} gives {labels} scores per pair (num_labels), a teacher needs a model with 1")
