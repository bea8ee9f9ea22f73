"""A digest of everything a model computes with: its modules and their settings, every tensor, and its tokenizer.

Two models with the same digest encode every text alike. The digest therefore covers everything that affects a vector,
however a change was made: an attribute of a module, an adapter that was switched off, a hook, a tensor written to
behind torch's back. Everything is read every time; no change counter is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash

from hf_negmine.base.errors import InputError
from hf_negmine.base.schema import AnyArray
from hf_negmine.teachers.value_digest import UNREADABLE, ValueReader, joined, name_of, package_of

OVERRIDDEN = {"prompts", "default_prompt_name", "truncate_dim", "max_active_dims", "activation_fn"}
OVERRIDDEN |= {"_similarity_fn_name", "_similarity", "_similarity_pairwise"}
"""Attributes of the model itself that a teacher may override; the value in effect is part of the teacher's
fingerprint."""
OF_THE_CARD = {"model_card_data", "_model_card_text", "_model_card_vars", "_model_config", "module_kwargs"}
OF_THE_CARD |= {"name_or_path", "trust_remote_code"}
OF_TORCH = {*vars(torch.nn.Module()), "_compiled_call_impl", "gradient_checkpointing"}
SET_IN_USE = {"embedding_dimension", "_prompt_length_mapping", "prompt_length_mapping", "_modules_placed"}
SET_IN_USE |= {"device", "_device", "_target_device", "_device_map", "_accelerate_placement_hook"}
NOT_SETTINGS = OF_THE_CARD | OF_TORCH | SET_IN_USE
"""Attributes that do not affect what a module computes, or are read in another way."""
OF_A_CONFIGURATION = {"_name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype", "architectures"}
OF_A_CONFIGURATION |= {"base_model_name_or_path", "inference_mode", "peft_version", "auto_mapping", "revision"}
"""Entries of a configuration about the file it came from; number formats are read from the tensors."""
WEIGHT_FILES = {".onnx", ".ort", ".xml", ".bin", ".engine", ".plan", ".tflite", ".gguf", ".pt", ".pth", ".pte"}
WEIGHT_FILES |= {".safetensors", ".npy", ".npz"}
"""Endings of files that a runtime opens; further weights may lie beside such a file, under the same name."""
A_FEW = 1024
"""Bytes; anything larger counts as weights."""


class ModelDigest(NamedTuple):
    """A digest, and the number formats of the weights behind it, such as ``{"float32"}``; empty if they are hidden."""

    digest: str
    formats: frozenset[str]

    @property
    def is_exact(self) -> bool:
        """Whether vectors are the same, up to the last digits, on any processor and in any batch."""
        return bool(self.formats) and self.formats <= {"float32", "float64"}


def model_digest(model: Any, *, in_part: bool = False) -> ModelDigest:
    """The digest of a model's modules with their settings, of its tensors, and of its tokenizer.

    Args:
        model: a Sentence Transformers model, or an object that wraps one.
        in_part: whether to accept parts that cannot be read.

    Raises:
        InputError: part of the model cannot be read, or it has no weights.
    """
    reader = _ModelReader(model)
    with reader.owner():
        digest = reader.digest(model).hex()
    if not in_part and (reader.unreadable or not reader.has_weights):
        part = f" ({reader.unreadable} does not show what it holds)" if reader.unreadable else ""
        raise InputError(
            f"no weights can be read from this {type(model).__name__}{part}, so nothing would tell it from another "
            'model; give version="1", and another version whenever the model changes'
        )
    return ModelDigest(digest, frozenset(reader.formats))


def setting_digest(value: Any) -> str:
    """The digest of a setting of any kind, such as a function or a module."""
    return _ModelReader().digest(value).hex()


class _ModelReader(ValueReader):
    """Also reads modules and tensors, and the files that a runtime's session was opened from.

    Attributes:
        has_weights: whether a tensor, an array or a file of weights was read.
        formats: number formats of the parameters and of quantized tensors.
        unreadable: as in `ValueReader`, but only objects with no file of weights among the attributes beside them.
    """

    def __init__(self, model: Any = None) -> None:
        super().__init__()
        self.has_weights = False
        self.formats: set[str] = set()
        self._model = model
        self._has_files = False
        self._folders: list[Path] = []
        self._files: dict[Path, bytes] = {}

    @contextmanager
    def owner(self) -> Iterator[list[bytes]]:
        """Read attributes that belong together, such as a module's: a session, and the path of its file.

        Yields:
            A list; at the end it holds the digests of files of which only the folder is named.
        """
        outer = self.unreadable, self._has_files, self._folders
        self.unreadable, self._has_files, self._folders = "", False, []
        found: list[bytes] = []
        yield found
        if self.unreadable and not self._has_files:
            listed = [path for folder in self._folders for path in sorted(folder.iterdir())]
            found += [self._file(path) for path in listed if path.suffix in WEIGHT_FILES and path.is_file()]
        hidden = "" if self._has_files else self.unreadable
        self.unreadable, self._has_files, self._folders = outer[0] or hidden, *outer[1:]

    def read(self, value: Any) -> bytes:
        """See `ValueReader.read`."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, torch.nn.Module):
            return self._module(value)
        if isinstance(value, torch.device | torch.Generator):
            return joined(name_of(type(value)))
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return joined(repr(value))
        if hasattr(value, "get_vocab") and (hasattr(value, "to_str") or hasattr(value, "init_kwargs")):
            return self._tokenizer(value)
        if hasattr(value, "to_dict") and any(package_of(base) == "transformers" for base in type(value).__mro__):
            attention = getattr(value, "_attn_implementation", None)
            return joined(name_of(type(value)), self.digest([attention, _of_configuration(value.to_dict())]))
        if isinstance(value, bytes | bytearray) and len(value) > A_FEW:
            self.has_weights = self._has_files = True
        return super().read(value)

    def text(self, value: Any) -> bytes:
        """The digest of a text; a path counts as the content of its file, since the same model may lie elsewhere."""
        text = "" if value is None else str(value)
        if len(text) < 4096 and (os.sep in text or Path(text).suffix in WEIGHT_FILES) and os.path.exists(text):
            path = Path(text)
            if path.suffix in WEIGHT_FILES and path.is_file():
                return self._file(path)
            if path.is_absolute():
                self._folders += [path] if path.is_dir() else []
                return joined("path")
        return super().text(value)

    def array(self, array: AnyArray) -> bytes:
        """See `ValueReader.array`."""
        self.has_weights |= array.size > 1
        return super().array(array)

    def attributes(self, attributes: Mapping[str, Any]) -> bytes:
        """The digest of the attributes, except those that are not settings or are caches."""
        chosen = {key: one for key, one in attributes.items() if key not in NOT_SETTINGS and "cache" not in key}
        digests = {key: self.digest(one) for key, one in chosen.items()}
        if UNREADABLE in digests.values():  # a runtime; its numbers, such as its start time, are not settings
            digests = {key: one for key, one in digests.items() if not isinstance(chosen[key], int | float)}
        return joined(*[part for key in sorted(digests) for part in (key, digests[key])])

    def hide(self, value: Any) -> bytes:
        """See `ValueReader.hide`; torch's own objects that hide their content are streams and the like."""
        return joined(name_of(type(value))) if type(value).__module__ in ("torch", "torch._C") else super().hide(value)

    def _file(self, path: Path) -> bytes:
        self.has_weights = self._has_files = True
        if path not in self._files:
            state = xxhash.xxh3_128()
            for beside in sorted(path.parent.glob(f"{escape(path.stem)}.*")):
                if beside.is_file():
                    state.update(joined(beside.name, str(beside.stat().st_size)))
                    with beside.open("rb") as file:
                        while block := file.read(2**20):
                            state.update(block)
            self._files[path] = state.digest()
        return self._files[path]

    def _tensor(self, tensor: torch.Tensor) -> bytes:
        self.has_weights = True
        if isinstance(tensor, torch.nn.Parameter) or tensor.is_quantized:
            self.formats.add(str(tensor.dtype).removeprefix("torch."))
        try:
            plain = tensor.detach().resolve_conj().resolve_neg()
            plain = plain.dequantize() if plain.is_quantized else plain
            plain = plain if plain.layout is torch.strided else plain.to_dense()
            content = plain.to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        except (RuntimeError, NotImplementedError, TypeError):  # on no device, or of a class that packs its numbers
            return super().hide(tensor)
        own_class = type(tensor) not in (torch.Tensor, torch.nn.Parameter)
        more = self.digest(vars(tensor)) if own_class else b""  # such as the scales of quantized weights
        return joined(str(tensor.dtype), repr(tuple(tensor.shape)), content.data, more)

    def _module(self, module: torch.nn.Module) -> bytes:
        children = dict(module._modules.items())
        if "_orig_mod" in children:  # compiled
            return self.digest(children["_orig_mod"])
        with self.owner() as parts:
            own = {key: one for key, one in vars(module).items() if module is not self._model or key not in OVERRIDDEN}
            parts += [self.digest(type(module)), self.attributes(own)]
            for tensors in (module._parameters, module._buffers):
                parts.append(self.attributes(dict(tensors.items())))
            for hooks in (module._forward_hooks, module._forward_pre_hooks):  # under numbers that torch counts up
                parts.append(self.digest(list(hooks.values())))
        named = [part for name, child in children.items() for part in (name, self.digest(child))]
        return joined("module", *parts, *named)

    def _tokenizer(self, tokenizer: Any) -> bytes:
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        names = ["truncation_side", "padding_side", "chat_template", "special_tokens_map"]
        names += ["split_special_tokens", "model_input_names"]
        own = self.digest([getattr(tokenizer, name, None) for name in names])
        if not hasattr(backend, "to_str"):
            words = repr(sorted(tokenizer.get_vocab().items(), key=str))
            return joined(name_of(type(tokenizer)), own, words, self.attributes(tokenizer.init_kwargs))
        # Its serialization begins with truncation and padding, which every encoding call sets; the value they are set
        # from is digested as the length limit.
        text = backend.to_str()
        return joined(name_of(type(tokenizer)), own, text[text.find('"added_tokens"') :])


def _of_configuration(settings: Any) -> Any:
    """The configuration without its file's entries, as JSON would store it: lists for tuples, texts as keys."""
    if isinstance(settings, Mapping):
        kept = {str(key): one for key, one in settings.items() if key not in OF_A_CONFIGURATION}
        return {key: _of_configuration(one) for key, one in kept.items()}
    return [_of_configuration(one) for one in settings] if isinstance(settings, list | tuple) else settings
