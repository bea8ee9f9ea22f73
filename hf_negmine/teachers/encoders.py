"""A Sentence Transformers model of any kind as a teacher: how it is opened, named and digested."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, get_args

from hf_negmine.base.choices import NumberFormat
from hf_negmine.base.devices import best_device, require_device
from hf_negmine.base.errors import InputError, require, require_choice, require_whole
from hf_negmine.base.naming import public_name
from hf_negmine.base.paths import model_source
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers.lengths import length_limit, limit_length, require_own_limit, transformers_of
from hf_negmine.teachers.model_digest import model_digest
from hf_negmine.teachers.probes import one_thread, place_of_computing, probe_digest

Model = TypeVar("Model")

_READ: ContextVar[dict[tuple[EncoderTeacher[Any], Role], dict[str, Any]] | None] = ContextVar("_READ", default=None)
"""What has been read of models, inside `models_stay_the_same`."""


class ModelSettings(TypedDict, total=False):
    """The keyword arguments of `EncoderTeacher`, which describes them."""

    dtype: NumberFormat | None
    max_length: int | None
    batch_size: int
    device: str | None
    revision: str | None
    trust_remote_code: bool
    name: str | None
    version: str | None


class EncoderTeacher(ABC, Generic[Model]):
    """The base of all teachers that are a Sentence Transformers model.

    A model named by its id or folder is opened when first needed, and again in a copy of the teacher.

    Args:
        model: a model id, a folder, or a loaded model.
        dtype: number format of the weights; None keeps the one the model is stored in. ``bfloat16`` takes half the
            memory and, on a processor made for it, less than half the time, but it moves scores, and with them some of
            the negatives. See ``benchmarks/README.md``.
        max_length: tokens that a text is cut to; None keeps the model's own limit.
        batch_size: texts per forward pass; fewer take less memory.
        device: ``"cpu"``, ``"cuda"``, …; None takes that of the miner, or a GPU if there is one. A loaded model stays
            where it is.
        revision: branch, tag or commit of a model on the Hub; None takes ``main``.
        trust_remote_code: whether to run Python code that comes with the model. Read it first.
        name: the teacher's name in summaries; None takes the model's id, or its folder's name.
        version: part of the fingerprint: change it when the model changes in a way that cannot be read from its weights
            and settings. A model without readable weights needs one.
    """

    takes_any_kind: ClassVar[bool] = False
    """Whether Sentence Transformers opens every stored model as this kind without random weights."""
    methods: ClassVar[tuple[str, ...]]
    """The methods of the model that the teacher calls."""

    def __init__(
        self,
        model: str | Path | Model,
        *,
        dtype: NumberFormat | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        if dtype is not None:
            require_choice(dtype, get_args(NumberFormat), argument="dtype")
        require_whole(batch_size, "batch_size", at_least=1)
        if max_length is not None:
            require_whole(max_length, "max_length", at_least=1)
        require(version is None or isinstance(version, str), f"version: a text such as '1', got {version!r}")
        require_device(device)
        self._source = model_source(model, "model") if isinstance(model, str | Path) else None
        # Resolved now, while a folder is there: the name must not change when the folder is deleted.
        self._source_name = None if self._source is None else public_name(self._source)
        self._model: Model | None = None if isinstance(model, str | Path) else model
        if self._model is not None and (max_length is not None or dtype is not None or revision is not None):
            raise InputError("max_length, dtype and revision belong to loading; set them on the model that you pass")
        self._dtype = dtype
        self._max_length = max_length
        self._batch_size = batch_size
        self._device = device
        self._revision = revision
        self._trust_remote_code = trust_remote_code
        self._name = name
        self._version = version
        self._is_steady: bool | None = None
        if self._model is not None:
            self._accept(self._model)

    @property
    def name(self) -> str:
        """The given name, the model's id, or its folder's name without the path."""
        return self._name if self._name is not None else self._model_name

    @property
    def _model_name(self) -> str:
        if self._source_name is not None:
            return self._source_name
        model: Any = self.model
        loaded_from = getattr(_config_of(model), "_name_or_path", None)
        return public_name(model.model_card_data.model_id or loaded_from or type(model).__name__)

    @property
    def model(self) -> Model:
        """The loaded model."""
        if self._model is None:
            model = self._load()
            self._accept(model)
            self._model = model
        return self._model

    @abstractmethod
    def _class(self) -> Any:
        """The class of Sentence Transformers that opens the model, imported lazily."""

    @staticmethod
    def _holds(kind: str | None, architectures: list[str]) -> bool:
        """Whether a stored model is complete as one of this kind.

        Args:
            kind: Sentence Transformers' name for its kind, if it saved the model.
            architectures: transformers' names for its classes.
        """
        return True

    def place(self, device: str | None) -> None:
        """Load a named model on this device, unless it is already loaded or was given its own device."""
        if self._device is None:
            self._device = device

    def _accept(self, model: Any) -> None:
        """Raise `InputError` for a model that cannot be this teacher, or not with the given arguments."""
        lacking = [name for name in (*self.methods, "modules", "model_card_data") if not hasattr(model, name)]
        require(
            not lacking,
            f"{type(self).__name__}: the model ({type(model).__name__}) has no {', '.join(lacking)}, expected a "
            f"{self._class().__name__}; a function can be a teacher as EncodeFunction(f) or ScoreFunction(f)",
        )
        self._check(model)
        require_own_limit(model, self.name)

    def _check(self, model: Model) -> None:
        """Raise `InputError` for a model that cannot be this teacher."""

    def _limit_length(self, model: Any, tokens: int) -> None:
        """Make the model cut its input to ``tokens``."""
        limit_length(model, tokens, argument="max_length")

    def _length_limit(self, model: Any) -> int | None:
        """The value that `_limit_length` needs to restore the current limit; None if there is no limit."""
        limit = length_limit(model)
        routes = [route[0] for module in model.children() for route in getattr(module, "sub_modules", {}).values()]
        # A router shows the longest of its routes' limits; setting that would apply it to all of them.
        same = all(getattr(route, "max_seq_length", limit) == limit for route in routes)
        # The limit of a static embedding is infinite, and cannot be set.
        return limit if same and isinstance(limit, int) else None

    def _loaded(self) -> dict[str, Any]:
        """The settings that open the same model again, as far as they affect how it encodes a text."""
        model: Any = self.model
        return {
            "model": self._model_name,
            "revision": getattr(_config_of(model), "_commit_hash", None) or self._loaded_revision or self._revision,
            "dtype": _dtype_of(model),
            "max_length": self._in_effect(self._max_length, self._length_limit(model)),
            **({} if self._version is None else {"version": self._version}),
        }

    def _in_effect(self, given: Any, own: Any) -> Any:
        """The value of an argument for the settings: the one given, or the one set on a model that was passed in.

        Its user may have set it after loading, so that a freshly opened model would have another value.
        """
        return own if given is None and self._source is None else given

    @property
    def _loaded_revision(self) -> str | None:
        """The model's commit on the Hub, according to its card data; transformers 5 does not record it."""
        model: Any = self.model
        card = model.model_card_data
        same = self._source is not None and getattr(card, "base_model", None) == str(self._source)
        return getattr(card, "base_model_revision", None) if same else None

    def _identity(self, role: Role) -> dict[str, Any]:
        """What distinguishes the model in ``role`` from any other: version, digest, and its output for a few texts.

        Vectors in formats other than float32 also depend on the processor and on the texts that share a batch.

        Raises:
            InputError: without a version, a model that cannot be read, or that changes whenever it is used.
        """
        known = _READ.get()
        if known is None:
            return self._read(role)
        if (self, role) not in known:
            known[self, role] = self._read(role)
        return known[self, role]

    def _read(self, role: Role) -> dict[str, Any]:
        model: Any = self.model
        probe = self._probed(role)  # first, because using a model may set some of its attributes
        read = model_digest(model, in_part=self._version is not None)
        if self._is_steady is None:
            self._is_steady = self._probed(role) == probe and model_digest(model, in_part=True).digest == read.digest
        require(
            self._is_steady or self._version is not None,
            f"{self.name} holds something that changes whenever it encodes, such as a counter, so it cannot be told "
            'from another model; give version="1", and another version whenever the model changes',
        )
        place = None if read.is_exact else [place_of_computing(model), self._batch_size]
        known = {"model": read.digest, "probe": probe} if self._is_steady else {}
        return {"version": self._version, "computed": place, **known}

    def _probed(self, role: Role) -> str:
        with one_thread():
            return probe_digest(self._probe(role))

    @abstractmethod
    def _probe(self, role: Role) -> FloatArray:
        """The model's output for the probe texts in one batch, shape (texts, numbers)."""

    def _load(self) -> Model:
        import torch

        if self._source is None:
            raise InputError("a teacher made from a loaded model stays in its process; name the model by id or folder")
        opened = self._class()
        if not self.takes_any_kind:
            self._refuse_other_kinds()
        try:
            model: Model = opened(
                str(self._source),
                device=self._device or best_device(),
                revision=self._revision,
                trust_remote_code=self._trust_remote_code,
                # "auto" keeps the stored format, even where transformers 4 would convert to float32.
                model_kwargs={"dtype": "auto" if self._dtype is None else getattr(torch, self._dtype)},
            )
        except Exception as error:  # each library raises its own errors for a damaged folder
            if type(error).__name__ == "OutOfMemoryError":
                raise
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"teacher {str(self._source)!r} could not be loaded: {reason}") from error
        if self._max_length is not None:
            self._limit_length(model, self._max_length)
        return model

    def _refuse_other_kinds(self) -> None:
        """Raise `InputError` for a model that could only be opened as this kind by adding random weights."""
        stored = str(self._source)
        kind = _configuration(stored, "config_sentence_transformers.json", self._revision).get("model_type")
        architectures = _configuration(stored, "config.json", self._revision).get("architectures") or []
        if (kind or architectures) and not self._holds(kind, architectures):
            wanted = self._class().__name__
            raise InputError(
                f"teacher {stored!r} holds a {kind or architectures[0]}, expected a {wanted}: the missing parts would "
                f"be random weights; if that is wanted, pass a loaded {wanted}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the model: a copy in another process loads a named one again."""
        return {**self.__dict__, "_model": None, "_is_steady": None}


@contextmanager
def models_stay_the_same() -> Iterator[None]:
    """Read each model only once inside, for work during which nobody changes it: a large one takes seconds to read."""
    before = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(before)


def _dtype_of(model: Any) -> str | None:
    """Number format of a model's weights, such as ``"bfloat16"``; None for a runtime that does not expose them."""
    weights = next(model.parameters(), None) if hasattr(model, "parameters") else None
    return None if weights is None else str(weights.dtype).removeprefix("torch.")


def _configuration(source: str, file: str, revision: str | None) -> dict[str, Any]:
    """A configuration file from a folder or the Hub; empty if it does not exist or cannot be read."""
    from sentence_transformers.util import load_file_path

    try:
        path = load_file_path(source, file, revision=revision)
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):  # opening the model itself gives a better error
        return {}
    return found


def _config_of(model: Any) -> Any:
    return getattr(next(transformers_of(model), None), "config", None)
