"""Dense teachers: any Sentence Transformers model or folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.devices import require_device
from hf_negmine.base.errors import InputError, require_choice, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.teachers.lengths import TOKENS_A_TEXT, TOKENS_A_TEXT_ON_A_CPU, token_batches
from hf_negmine.teachers.probes import PROBES
from hf_negmine.teachers.text_encoders import TextEncoderSettings, TextEncoderTeacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from typing_extensions import Unpack


@with_arguments_of(TextEncoderTeacher)
class DenseTeacher(TextEncoderTeacher["SentenceTransformer"]):
    """A Sentence Transformers model as a teacher.

    Args:
        model: a model id, a folder, or a loaded `SentenceTransformer`. An id or folder is loaded when first needed.
        similarity: ``"cosine"`` or ``"dot"``; None takes the model's own.
        truncate_dim: dimensions of a vector to keep, the first ones, for Matryoshka models; None keeps all.
        batch_size: texts of 128 tokens per forward pass, of 80 on a CPU; of shorter texts a pass takes more, of longer
            ones fewer. A smaller number takes less memory.
        loading: the prompts, and how the model is opened and named, see `TextEncoderTeacher`.

    Raises:
        InputError: the model cannot be loaded, or measures similarity by a distance.
    """

    takes_any_kind = True

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        similarity: Similarity | None = None,
        truncate_dim: int | None = None,
        **loading: Unpack[TextEncoderSettings],
    ) -> None:
        if similarity is not None:
            require_choice(similarity, ("cosine", "dot"), argument="similarity")
        if truncate_dim is not None:
            require_whole(truncate_dim, "truncate_dim", at_least=1)
        self._truncate_dim = truncate_dim
        super().__init__(model, **loading)
        self._similarity = similarity
        self._workers: Any = None

    @property
    def similarity(self) -> Similarity:
        """``"cosine"`` or ``"dot"``."""
        if self._similarity is not None:
            return self._similarity
        own = self.model.similarity_fn_name
        if own not in ("cosine", "dot"):
            raise InputError(
                f"{self.name} compares vectors by {own!r}, supported are 'cosine' and 'dot'; choose one by similarity="
            )
        return own

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher if its model is on the Hub; part of the provenance."""
        return {
            "kind": "dense",
            **self._loaded(),
            "similarity": self.similarity if self._source is None else self._similarity,
            "truncate_dim": self._in_effect(self._truncate_dim, self.model.truncate_dim),
        }

    def fingerprint(self, role: Role) -> str:
        """Digest of weights, tokenizer, modules, prompts, length limit and dtype (see `protocols.Teacher`)."""
        model = self.model
        return digest_of(
            "dense",
            self._identity(role),
            role,
            {
                **self._prompting(role),
                "max_length": model.max_seq_length,
                "truncate_dim": self._truncate_dim or model.truncate_dim,
            },
        )

    def _probe(self, role: Role) -> FloatArray:
        return self._encode(PROBES, role, workers=None)

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``, shape (len(texts), width), float32, as the model gives them (not normalized).

        Batches hold texts of nearly the same number of tokens. Sentence Transformers sorts by characters and fills its
        batches by the number of texts: on SQuAD it adds 22 % of padding to passages, and batches of short texts are
        too small to be fast (``benchmarks/encoding.py``).
        """
        return self._encode(texts, role, self._workers)

    def _encode(self, texts: Sequence[str], role: Role, workers: Any) -> FloatArray:
        if workers is None and len(texts):
            lengths, limit = self.count_tokens(texts, role)
            if limit is not None:
                return self._encode_batches(texts, role, np.minimum(lengths, limit), limit)
        return self._encode_by(self._batch_size, texts, role, workers)

    def _encode_batches(self, texts: Sequence[str], role: Role, lengths: IdArray, limit: int) -> FloatArray:
        tokens = TOKENS_A_TEXT_ON_A_CPU if self.model.device.type == "cpu" else TOKENS_A_TEXT
        batches = token_batches(lengths, self._batch_size * min(limit, tokens))
        listed = list(texts)  # a column of a data set takes long, or fails, at single numpy integers
        vectors = [self._encode_by(len(batch), [listed[place] for place in batch], role) for batch in batches]
        return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]

    def _encode_by(self, batch_size: int, texts: Sequence[str], role: Role, workers: Any = None) -> FloatArray:
        given = {"batch_size": batch_size, "truncate_dim": self._truncate_dim, "pool": workers}
        vectors = self._encode_texts(texts, role, convert_to_numpy=True, **given)
        return np.asarray(vectors, dtype=np.float32)

    @contextmanager
    def processes(self, devices: list[str] | None = None) -> Iterator[None]:
        """Encode in one process per device inside the block; None takes all GPUs, or four processes on a CPU."""
        for device in devices or ():
            require_device(device)
        self._workers = self.model.start_multi_process_pool(target_devices=devices)
        try:
            yield
        finally:
            self.model.stop_multi_process_pool(self._workers)
            self._workers = None

    def _check(self, model: SentenceTransformer) -> None:
        if self._truncate_dim is not None:
            with model.truncate_embeddings(None):
                width = _width_of(model)
            if width is not None and self._truncate_dim > width:
                raise InputError(
                    f"truncate_dim: {self._truncate_dim} dimensions, but the vectors of {self.name} have {width}; give "
                    f"at most {width}"
                )

    def _class(self) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the model and its processes: a copy loads a named model again."""
        return {**super().__getstate__(), "_workers": None}


def _width_of(model: Any) -> int | None:
    """Dimensions of a model's vectors; up to Sentence Transformers 5 the method had another name."""
    width: int | None = getattr(model, "get_embedding_dimension", model.get_sentence_embedding_dimension)()
    return width
