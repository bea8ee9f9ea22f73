"""What a model computes with, as a digest: its modules and their settings, every tensor, its tokenizer, and proof.

Two models with the same digest make the same of every text. So it holds all that decides a vector, whatever route a
change took: an attribute of a module, an adapter that was switched off, a hook, a tensor written to behind torch's
back. Everything is read each time; no counter of changes is trusted.
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from hf_negmine.errors import InputError
from hf_negmine.schema import AnyArray, FloatArray

PROBES = ("What is tea?", "Hard negatives look relevant.", "Über 3.50 €", "tea")
"""Texts whose vectors are part of a fingerprint; short ones, which no model cuts."""
OF_THE_CARD = {"model_card_data", "_model_card_text", "_model_config", "module_kwargs", "name_or_path"}
NOT_SETTINGS = {*vars(torch.nn.Module()), *OF_THE_CARD}
"""Attributes of modules that say nothing of what they compute, or are read in another way."""
CHANGES_IN_USE = {"embedding_dimension", "_prompt_length_mapping", "prompt_length_mapping"}
CHANGES_IN_USE |= {"device", "_device", "_target_device", "_similarity", "_similarity_pairwise", "_similarity_fn_name"}
"""Attributes that using a model sets; the similarity stands in the fingerprint itself."""
OF_A_CONFIGURATION = {"_name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype"}
"""What a configuration says of the file it came from; number formats are read off the tensors."""
RUNTIMES = ("model", "auto_model")
"""What a module calls a model that is not torch's, such as ONNX Runtime's."""
DEEPEST = 8
"""Levels of objects in objects."""
GRID = 64
"""Steps of 1/64 in a probe's numbers, of which there are three a text. In float32 a number moves by some 1e-6 from
machine to machine, so that one of twelve crosses a step with a chance of about 12 * 2e-6 * 64 = 0.2 %."""


def model_digest(model: Any) -> str:
    """Digest of a model's modules with their settings, of its tensors, and of its tokenizer.

    Raises:
        InputError: a model in which there is neither a tensor nor a file to read.
    """
    digest = _Digest()
    digest.model(model)
    if not (digest.has_weights and digest.is_read):
        raise InputError(
            f"no weights can be read from this {type(model).__name__}, so nothing would tell it from another model; "
            'give version="1", and another version whenever the model changes'
        )
    return digest.hexdigest()


def probe_digest(vectors: FloatArray) -> str:
    """Digest of the vectors of some texts, shape (texts, width), the same for vectors that differ in last digits.

    Each vector is reduced to its length and to two projections of its direction, rounded to a grid.
    """
    found = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=1)
    # Directions that no version of a random generator can change; a projection is about 0.7 in size.
    directions = np.cos(np.outer(np.arange(1, found.shape[1] + 1), [1.0, 2.0]))
    projected = (found / np.where(lengths > 0, lengths, 1.0)[:, None]) @ directions
    numbers = np.column_stack([np.log(np.where(lengths > 0, lengths, 1.0)), projected])
    return xxhash.xxh3_128_hexdigest((np.rint(numbers * GRID) + 0.0).tobytes())


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute in one thread, as a worker of a map does, so that a probe's last digits are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def place_of_computing(model: Any) -> str:
    """What vectors of 16-bit models depend on besides the model: kind of device, and what the processor can do."""
    kind = str(getattr(model, "device", "cpu")).partition(":")[0]
    return f"{kind} {torch.backends.cpu.get_cpu_capability()}" if kind == "cpu" else kind


class _Digest:
    """Reads a model and what hangs on it into one hash."""

    def __init__(self) -> None:
        self.has_weights, self.is_read = False, True
        self._state = xxhash.xxh3_128()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no address is given twice while it reads

    def hexdigest(self) -> str:
        return self._state.hexdigest()

    def model(self, model: Any) -> None:
        """A module with all that it is made of, or an object that wraps a runtime."""
        if not isinstance(model, torch.nn.Module):
            return self._object(model, 0)
        self._say("model", _name_of(type(model)))
        for name, module in model.named_modules(remove_duplicate=False):
            if self._is_new(module):
                self._say("module", name, _name_of(type(module)))
                self._module(module)
            else:
                self._say("module", name, "is", self._seen[id(module)])
        return None

    def _module(self, module: torch.nn.Module) -> None:
        for tensors in (module._parameters, module._buffers):
            for name, tensor in sorted(tensors.items()):
                self._say("tensor", name)
                self._value(tensor, 0)
        settings = {key: value for key, value in vars(module).items() if _is_setting(key) and key not in NOT_SETTINGS}
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            settings[name] = list(getattr(module, name).values())  # their keys are numbers that torch counts up
        runtimes = {name: settings.pop(name) for name in RUNTIMES if settings.get(name) is not None}
        self._mapping(settings, 0)
        for name, runtime in runtimes.items():
            before, self.has_weights = self.has_weights, False
            self._say(name)
            self._value(runtime, 0)
            self.is_read &= self.has_weights
            self.has_weights |= before

    def _value(self, value: Any, depth: int) -> None:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | Path):
            self._say(type(value).__name__, value)
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic):
            self._array(np.asarray(value))
        elif isinstance(value, enum.Enum):
            self._say("enum", _name_of(type(value)), value.name)
        elif isinstance(value, torch.device):
            self._say("device")
        elif isinstance(value, type):
            self._say("class", _name_of(value))
        elif isinstance(value, torch.nn.Module):
            self.model(value)
        elif not self._is_new(value):
            self._say("is", self._seen[id(value)])
        elif depth < DEEPEST:
            self._compound(value, depth + 1)

    def _compound(self, value: Any, depth: int) -> None:
        if isinstance(value, Mapping):
            self._mapping(value, depth)
        elif isinstance(value, list | tuple):
            self._say("list", len(value))
            for one in value:
                self._value(one, depth)
        elif isinstance(value, set | frozenset):
            self._say("set", sorted(map(str, value)))
        elif hasattr(value, "get_vocab") and (hasattr(value, "to_str") or hasattr(value, "init_kwargs")):
            self._tokenizer(value, depth)
        elif isinstance(value, _FUNCTIONS):
            self._function(value, depth)
        else:
            self._object(value, depth)

    def _mapping(self, items: Mapping[Any, Any], depth: int) -> None:
        self._say("mapping", len(items))
        for key in sorted(items, key=str):
            self._say(str(key))
            self._value(items[key], depth)

    def _object(self, value: Any, depth: int) -> None:
        self._say("object", _name_of(type(value)))
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):  # a configuration of transformers
            settings = {key: one for key, one in value.to_dict().items() if key not in OF_A_CONFIGURATION}
            return self._mapping(settings, depth)
        settings = {key: one for key, one in getattr(value, "__dict__", {}).items() if _is_setting(key)}
        self._mapping(settings, depth)
        self._files(settings.values())
        return None

    def _function(self, value: Any, depth: int) -> None:
        if isinstance(value, functools.partial):
            return self._value([value.func, value.args, value.keywords], depth)
        if isinstance(value, types.MethodType):
            return self._value([value.__func__, value.__self__], depth)
        self._say("function", getattr(value, "__module__", None), getattr(value, "__qualname__", type(value).__name__))
        if isinstance(value, types.FunctionType):
            code = value.__code__
            self._say(code.co_code, [one for one in code.co_consts if not isinstance(one, types.CodeType)])
            self._value([cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)], depth)
            self._value([value.__defaults__, value.__kwdefaults__], depth)
        return None

    def _tokenizer(self, tokenizer: Any, depth: int) -> None:
        self._say("tokenizer", _name_of(type(tokenizer)))
        sides = [getattr(tokenizer, f"{name}_side", None) for name in ("truncation", "padding")]
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(backend, "to_str"):
            settings = {key: one for key, one in tokenizer.init_kwargs.items() if key != "name_or_path"}
            return self._value([sides, tokenizer.get_vocab(), settings], depth)
        # Its serialisation begins with truncation and padding, which every call that encodes sets; what they are set
        # from is told as the length limit.
        text = backend.to_str()
        self._say(sides, text[text.find('"added_tokens"') :])
        return None

    def _files(self, values: Iterable[Any]) -> None:
        """What lies in files that a runtime was made from, such as ONNX Runtime's."""
        for value in values:
            if isinstance(value, str | Path) and len(str(value)) < 4096 and Path(value).suffix in RUNTIME_FILES:
                for path in sorted(Path(value).parent.glob(f"{Path(value).stem}*")):
                    if path.is_file():
                        self.has_weights = True
                        with path.open("rb") as file:
                            while block := file.read(2**20):
                                self._state.update(block)

    def _tensor(self, tensor: torch.Tensor) -> None:
        self.has_weights = True
        self._say("tensor", tensor.dtype, tuple(tensor.shape))
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        self._state.update(flat.view(torch.uint8).numpy().data)

    def _array(self, array: AnyArray) -> None:
        self._say("array", array.dtype.str, array.shape)
        if array.dtype.hasobject:
            self._value(array.reshape(-1).tolist(), 0)
        else:
            self.has_weights |= array.size > 1
            self._state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _is_new(self, value: Any) -> bool:
        new = id(value) not in self._seen
        if new:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
        return new

    def _say(self, *parts: Any) -> None:
        self._state.update(repr(parts).encode(errors="surrogatepass"))


_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
RUNTIME_FILES = {".onnx", ".xml"}
"""Endings of the files that ONNX Runtime and OpenVINO open; weights lie beside them under the same name."""


def _is_setting(name: str) -> bool:
    return name not in CHANGES_IN_USE and not name.endswith("_cache")


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
