"""Dense teachers: any Sentence Transformers model or folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from hf_negmine.devices import best_device, has_fast_bfloat16
from hf_negmine.errors import InputError, require, require_choice
from hf_negmine.files import digest_of
from hf_negmine.protocols import Role, Similarity
from hf_negmine.schema import FloatArray

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class DenseTeacher:
    """A Sentence Transformers model as a teacher.

    Args:
        model: a model id, a folder, or a loaded `SentenceTransformer`. An id or folder is loaded when first needed.
        query_prompt: put before every query; None takes the model's own prompt for queries, if it has one.
        passage_prompt: the same for passages.
        similarity: ``"cosine"`` or ``"dot"``; None takes the model's own.
        dtype: number format of the weights. ``"auto"`` is bfloat16 where the processor is fast at it, else float32.
        max_length: tokens a text is cut to; None keeps the model's own limit.
        truncate_dim: keep only the first dimensions of a vector (Matryoshka models).
        batch_size: texts a forward pass.
        device: ``"cpu"``, ``"cuda"``, …; None takes a GPU if there is one.
        revision: branch, tag or commit of a model on the Hub.
        trust_remote_code: run Python code that comes with the model.
        name: how the teacher is called in summaries; None takes the model's id, or its folder's name.

    Raises:
        InputError: the model cannot be loaded, or measures similarity by a distance.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        similarity: Similarity | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        max_length: int | None = None,
        truncate_dim: int | None = None,
        batch_size: int = 32,
        device: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        name: str | None = None,
    ) -> None:
        require_choice(dtype, ("auto", "float32", "bfloat16", "float16"), argument="dtype")
        if similarity is not None:
            require_choice(similarity, ("cosine", "dot"), argument="similarity")
        require(batch_size >= 1, f"batch_size: at least 1, got {batch_size}")
        self._source: str | Path | None = model if isinstance(model, str | Path) else None
        self._model: SentenceTransformer | None = None if isinstance(model, str | Path) else model
        if self._model is not None and (max_length is not None or dtype != "auto" or revision is not None):
            raise InputError("max_length, dtype and revision belong to loading; set them on the model that you pass")
        self._prompts: dict[str, str | None] = {"query": query_prompt, "passage": passage_prompt}
        self._similarity = similarity
        self._dtype = dtype
        self._max_length = max_length
        self._truncate_dim = truncate_dim
        self._batch_size = batch_size
        self._device = device
        self._revision = revision
        self._trust_remote_code = trust_remote_code
        self._name = name
        self._weights_digest: str | None = None
        self._workers: Any = None

    @property
    def name(self) -> str:
        """The given name, the model's id, or its folder's name without the path."""
        if self._name is not None:
            return self._name
        if self._source is not None:
            return Path(self._source).resolve().name if Path(self._source).exists() else str(self._source)
        model = self.model
        loaded_from = getattr(getattr(getattr(model[0], "auto_model", None), "config", None), "_name_or_path", None)
        given = str(model.model_card_data.model_id or loaded_from or type(model).__name__)
        return Path(given).name if Path(given).exists() else given

    @property
    def model(self) -> SentenceTransformer:
        """The loaded model."""
        if self._model is None:
            self._model = self._load()
        return self._model

    @property
    def similarity(self) -> Similarity:
        """``"cosine"`` or ``"dot"``."""
        if self._similarity is not None:
            return self._similarity
        own = str(getattr(self.model.similarity_fn_name, "value", self.model.similarity_fn_name))
        if own not in ("cosine", "dot"):
            raise InputError(
                f"{self.name} compares vectors by {own!r}, supported are 'cosine' and 'dot'; choose one by similarity="
            )
        return cast(Similarity, own)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes the same teacher again, if its name is one of the Hub; goes into provenance."""
        config = getattr(getattr(self.model[0], "auto_model", None), "config", None)
        return {
            "kind": "dense",
            "model": self.name,
            "revision": getattr(config, "_commit_hash", None) or self._loaded_revision or self._revision,
            "query_prompt": self._prompts["query"],
            "passage_prompt": self._prompts["passage"],
            "similarity": self._similarity,
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "max_length": self._max_length,
            "truncate_dim": self._truncate_dim,
        }

    @property
    def _loaded_revision(self) -> str | None:
        """The commit on the Hub that the model comes from, as its card data say it; transformers 5 does not."""
        card = self.model.model_card_data
        same = self._source is not None and getattr(card, "base_model", None) == str(self._source)
        return getattr(card, "base_model_revision", None) if same else None

    def fingerprint(self, role: Role) -> str:
        """Digest of weights, tokenizer, modules, prompts, length limit and dtype (see `protocols.Teacher`)."""
        model = self.model
        if self._weights_digest is None:
            self._weights_digest = weights_digest(model)
        return digest_of(
            "dense",
            self._weights_digest,
            role,
            {
                "prompt": self._prompts[role],
                "own_prompts": dict(model.prompts),
                "default_prompt_name": model.default_prompt_name,
                "max_length": model.max_seq_length,
                "dtype": str(next(model.parameters()).dtype),
                "truncate_dim": self._truncate_dim or model.truncate_dim,
            },
        )

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``, shape (len(texts), width), float32, as the model gives them (not normalised)."""
        encode: Any = self.model.encode_query if role == "query" else self.model.encode_document
        vectors = encode(
            list(texts),
            prompt=self._prompts[role],
            batch_size=self._batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            truncate_dim=self._truncate_dim,
            pool=self._workers,
        )
        return np.asarray(vectors, dtype=np.float32)

    @contextmanager
    def processes(self, devices: list[str] | None = None) -> Iterator[None]:
        """Encode in one process a device while the block lasts; None takes all GPUs, or four processes on a CPU."""
        self._workers = self.model.start_multi_process_pool(target_devices=devices)
        try:
            yield
        finally:
            self.model.stop_multi_process_pool(self._workers)
            self._workers = None

    def _load(self) -> SentenceTransformer:
        import torch
        from sentence_transformers import SentenceTransformer

        if self._source is None:
            raise InputError("a teacher made from a loaded model stays in its process; name the model by id or folder")
        device = self._device or best_device()
        dtype = self._dtype
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") or has_fast_bfloat16() else "float32"
        try:
            model = SentenceTransformer(
                str(self._source),
                device=device,
                revision=self._revision,
                trust_remote_code=self._trust_remote_code,
                model_kwargs={"dtype": getattr(torch, dtype)},
            )
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"teacher {str(self._source)!r} could not be loaded: {reason}") from error
        if self._max_length is not None:
            model.max_seq_length = self._max_length
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Without the model: a copy in another process loads it again, if it was named."""
        return {**self.__dict__, "_model": None, "_workers": None}


def weights_digest(model: Any) -> str:
    """Digest of every tensor, the modules' settings and the tokenizer of a Sentence Transformers model of any kind."""
    state = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        state.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(_bytes_of(tensor))
    for module in model.children():
        settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        state.update(type(module).__name__.encode())
        state.update(repr(sorted((key, repr(value)) for key, value in settings.items())).encode())
    state.update(_tokenizer_settings(model.tokenizer).encode())
    return state.hexdigest()


def _tokenizer_settings(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return type(tokenizer).__name__
    settings = json.loads(backend.to_str())
    # Every call that encodes sets these two anew; what they are set from is in the fingerprint as the length limit.
    settings["truncation"] = getattr(tokenizer, "truncation_side", None)
    settings["padding"] = getattr(tokenizer, "padding_side", None)
    return json.dumps(settings, sort_keys=True)


def _bytes_of(tensor: torch.Tensor) -> bytes:
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
