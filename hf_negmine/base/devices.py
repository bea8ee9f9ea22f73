"""What the machine at hand is good at."""

from __future__ import annotations

import os
from typing import Any

import torch

from hf_negmine.base.errors import InputError

PROCESS_OF_IMPORT = os.getpid()


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones (AVX512-BF16, AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, lambda: False)()) for check in checks)


def is_fork() -> bool:
    """Whether this process was forked from the one that loaded the package: its threads do not exist here."""
    return os.getpid() != PROCESS_OF_IMPORT


def best_device() -> str:
    """``"cuda"`` if it is available, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(device: str | None) -> None:
    """Raise `InputError` unless ``device`` is None or names a device of this machine, as torch names them."""
    if device is None:
        return
    if not isinstance(device, str):
        raise InputError(f"device: {device!r} is not a name such as 'cpu', 'cuda' or 'cuda:1'")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: {device!r} is not a torch device, such as 'cpu', 'cuda' or 'cuda:1'") from error
    if (wanted.index or 0) >= _count(wanted.type):
        found = [f"{kind}:{index}" for kind in ("cuda", "mps", "xpu") for index in range(_count(kind))]
        listed = ", ".join(["cpu", *found])
        raise InputError(
            f"device: {device!r} is not on this machine, where torch finds {listed}; leave it out to use the best"
        )


def _count(kind: str) -> int:
    """How many devices of a kind torch can compute on."""
    backend = getattr(torch, kind, None)
    return backend.device_count() if backend is not None and backend.is_available() else 0


def without_data_parallel(arguments: Any) -> None:
    """Make a trainer with these arguments use one GPU per process: DataParallel gives a loss only part of the batch."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
