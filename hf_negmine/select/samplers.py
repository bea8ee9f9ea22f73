"""How n negatives are drawn from a query's survivors. Sections are those of NV-Retriever (arXiv 2407.15831).

Draws are keyed by (seed, query text, passage text), so the same seed gives the same negatives for any batch size, row
order or number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.randomness import KeyArray, uniform
from hf_negmine.base.schema import FloatArray, IdArray


@dataclass(frozen=True)
class Top:
    """The n best survivors (section 4.3.2, "top-k")."""

    def depth(self, n: int) -> int:
        """See `protocols.Sampler`."""
        return n

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        return np.broadcast_to(np.arange(n), (len(scores), n))

    def __str__(self) -> str:
        return "top"


@dataclass(frozen=True)
class Sampled:
    """n of the k best survivors, drawn without replacement by softmax probabilities (4.3.2, "sampled top-k").

    Attributes:
        k: how many of the best survivors take part. Table 3 uses 10; the paper found that more hurts.
        temperature: of the softmax over teacher scores; infinity draws uniformly.
    """

    k: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.k, self.temperature)

    def depth(self, n: int) -> int:
        """See `protocols.Sampler`."""
        require(self.k >= n, f"{self} cannot draw {n} negatives from {self.k} candidates; give k >= {n}")
        return self.k

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        # The n largest of (score / temperature + Gumbel noise) are a softmax sample without replacement.
        return _best_columns(_noisy(scores, keys, self.temperature), n)

    def __str__(self) -> str:
        return f"sampled:{self.k}" + _temperature_text(self.temperature)


@dataclass(frozen=True)
class Top1Sampled:
    """The best survivor, and n - 1 of the other k - 1 drawn like `Sampled` (4.3.2, "top-1 + sampled top-k").

    Attributes:
        k: how many of the best survivors take part, the best one included.
        temperature: of the softmax over teacher scores; infinity draws uniformly.
    """

    k: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.k, self.temperature)

    def depth(self, n: int) -> int:
        """See `protocols.Sampler`."""
        require(self.k >= n, f"{self} cannot draw {n} negatives from {self.k} candidates; give k >= {n}")
        return self.k

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        noisy = _noisy(scores, keys, self.temperature)
        noisy[:, 0] = np.inf
        return _best_columns(noisy, n)

    def __str__(self) -> str:
        return f"top1_sampled:{self.k}" + _temperature_text(self.temperature)


def resolve_sampler(sampler: Any) -> Sampler:
    """Make a sampler from what users write: a `Sampler`, its spec, or None for the n best."""
    if sampler is None:
        return Top()
    if isinstance(sampler, str):
        return parse_sampler(sampler)
    valid = isinstance(sampler, Sampler) and not isinstance(sampler, type)
    require(valid, f"sampler: expected a sampler such as Sampled(10), got {sampler!r}")
    return cast(Sampler, sampler)


def parse_sampler(spec: str) -> Top | Sampled | Top1Sampled:
    """Make a sampler from its spec, the inverse of ``str(sampler)``.

    Args:
        spec: how negatives are drawn from these passages: ``top`` the best, ``sampled:10`` by softmax from the 10 best,
            ``top1_sampled:10`` the best and the others by softmax; ``sampled:10@0.05`` with a temperature.

    Raises:
        InputError: the spec is not understood, or a number is out of range.
    """
    name, _, rest = spec.partition(":")
    k, _, temperature = rest.partition("@")
    try:
        if name == "top" and not rest:
            return Top()
        if name in ("sampled", "top1_sampled"):
            kind = Sampled if name == "sampled" else Top1Sampled
            return kind(int(k or 10), float(temperature or 1.0))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
    raise InputError(
        f"sampler {spec!r} is not understood; write top, sampled:10, top1_sampled:10, or with a temperature "
        "sampled:10@0.05"
    )


def _noisy(scores: FloatArray, keys: KeyArray, temperature: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    gumbel = -np.log(-np.log(uniform(keys)))
    present = scores > -np.inf
    return np.where(present, np.where(present, scores, 0.0).astype(np.float64) / temperature + gumbel, -np.inf)


def _best_columns(values: np.ndarray[Any, Any], n: int) -> IdArray:
    """Columns of the n largest values of each row, rising (so that higher scores stay first)."""
    return np.sort(np.argsort(-values, axis=1, kind="stable")[:, :n], axis=1)


def _check(sampler: object, k: int, temperature: float) -> None:
    kind = type(sampler).__name__
    require(isinstance(k, int) and k >= 1, f"{kind}: k is a whole number of candidates, 1 or more; got {k!r}")
    require(temperature > 0, f"{kind}: temperature is positive; got {temperature!r}")


def _temperature_text(temperature: float) -> str:
    return "" if temperature == 1.0 else f"@{temperature:.10g}"
