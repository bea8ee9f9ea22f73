"""A device that is not the processor, for machines that have no other: it computes there, and mixing is an error.

Code for GPUs mostly fails by a tensor that was left on the processor. Tensors on this device are called ``meta`` to
torch and hold their numbers inside. Every operation looks at where its arguments are, as a GPU's would.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
MAY_MIX = {"aten::copy_", "aten::_to_copy"}
"""Operations that bring tensors from one device to another."""
INDEXED = {"aten::index", "aten::index_put_"}
"""Operations whose indices may be on the processor."""


class Elsewhere(torch.Tensor):
    """A tensor on that device."""

    __slots__ = ("inner",)
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class AnotherDevice(TorchDispatchMode):
    """While it is entered, ``device="meta"`` makes tensors of `Elsewhere`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    elsewhere = [isinstance(tensor, Elsewhere) for tensor in tensors]
    here = [not away and tensor.dim() > 0 for tensor, away in zip(tensors, elsewhere, strict=True)]
    if name in INDEXED and elsewhere[0]:
        of_index = {id(index) for index in args[1]}
        here = [is_here and id(tensor) not in of_index for tensor, is_here in zip(tensors, here, strict=True)]
    if any(elsewhere) and any(here) and name not in MAY_MIX:
        raise RuntimeError(f"{name}: of its tensors some are on the processor and some are not")
    device = kwargs.get("device")
    away = any(elsewhere) if device is None else torch.device(device).type == DEVICE
    given = {id(_inner(tensor)): tensor for tensor in tensors}
    result = func(
        *tree_map(_inner, args),
        **{**tree_map(_inner, kwargs), **({} if device is None else {"device": torch.device("cpu")})},
    )

    def placed(made: Any) -> Any:
        if not isinstance(made, torch.Tensor):
            return made
        if id(made) in given:  # the operation works in place
            return given[id(made)]
        return Elsewhere(made) if away else made

    return tree_map(placed, result)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value
