"""How n negatives are drawn from a query's survivors. Sections are those of NV-Retriever (arXiv 2407.15831).

Draws are keyed by (seed, query text, passage text), so the same seed gives the same negatives for any batch size, row
order or number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from hf_negmine.base.errors import InputError, is_integer, is_number, require, require_finite
from hf_negmine.base.protocols import PositiveSampler, Sampler
from hf_negmine.base.randomness import KeyArray, uniform
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray
from hf_negmine.base.wording import number_text

_Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


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
        _check_k(self, self.k)
        valid = is_number(self.temperature) and self.temperature > 0
        require(valid, f"{type(self).__name__}: temperature is positive; got {self.temperature!r}")

    def depth(self, n: int) -> int:
        """See `protocols.Sampler`."""
        return _enough(self, self.k, n)

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        return _best_columns(self._noise(scores, keys), n)

    def _noise(self, scores: FloatArray, keys: KeyArray) -> _Float64:
        # The n largest of (score / temperature + Gumbel noise) are a softmax sample without replacement.
        present = scores > -np.inf
        return _noisy(np.where(present, scores, 0.0).astype(np.float64) / self.temperature, present, keys)

    def __str__(self) -> str:
        return f"sampled:{self.k}" + ("" if self.temperature == 1.0 else f"@{number_text(self.temperature)}")


@dataclass(frozen=True)
class Top1Sampled(Sampled):
    """The best survivor, and n - 1 of the other k - 1 drawn like `Sampled` (4.3.2, "top-1 + sampled top-k").

    Attributes:
        k: how many of the best survivors take part, the best one included.
        temperature: of the softmax over teacher scores; infinity draws uniformly.
    """

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        noisy = self._noise(scores, keys)
        noisy[:, 0] = np.inf
        return _best_columns(noisy, n)

    def __str__(self) -> str:
        return f"top1_{super().__str__()}"


@dataclass(frozen=True)
class SimANS:
    """n of the k best survivors, drawn without replacement: those that score about like the positive are likeliest.

    A candidate's probability is proportional to exp(-a (s - s(positive) - b)^2), over the teacher's scores (SimANS,
    arXiv 2210.11773, equation 4).

    Attributes:
        k: how many of the best survivors take part.
        a: how quickly candidates become unlikely with their distance, 1/sqrt(2a) being one standard deviation: 0.07 for
            100, which suits cosines. Dot products of unnormalized vectors need an ``a`` of about 1.
        b: where the likeliest ones score, as a difference to the positive; below 0 for easier ones.
    """

    k: int = 100
    a: float = 100.0
    b: float = 0.0

    def __post_init__(self) -> None:
        _check_k(self, self.k)
        valid = is_number(self.a) and 0 <= self.a < np.inf
        require(valid, f"SimANS: a is a finite number, 0 or more; got {self.a!r}")
        require_finite(self.b, "SimANS: b")

    def depth(self, n: int) -> int:
        """See `protocols.PositiveSampler`."""
        return _enough(self, self.k, n)

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """Refused: it needs the positive scores.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self} draws by the distance to the positive's score, which was not given: use choose_near")

    def choose_near(self, positive_scores: FloatArray, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.PositiveSampler`."""
        present = scores > -np.inf
        distances = np.where(present, scores, 0.0).astype(np.float64) - positive_scores.astype(np.float64)[:, None]
        return _best_columns(_noisy(-self.a * (distances - self.b) ** 2, present, keys), n)

    def __str__(self) -> str:
        return f"simans:{self.k}@{number_text(self.a)}" + (f"@{number_text(self.b)}" if self.b else "")


@dataclass(frozen=True)
class Mixed:
    """The ``top`` best survivors, and ``random`` others of the k best, each as likely as the next.

    Attributes:
        top: how many of the best are taken.
        random: how many are drawn from the rest; together they are the number of negatives.
        k: how many of the best survivors take part, the top ones included. The larger it is, the easier the drawn ones
            are; one that is as large as the corpus draws from everything under the ceiling, but ranks all of it.
    """

    top: int = 2
    random: int = 2
    k: int = 100

    def __post_init__(self) -> None:
        for name in ("top", "random"):
            count = getattr(self, name)
            require(
                is_integer(count) and count >= 0, f"Mixed: {name} is a number of negatives, 0 or more; got {count!r}"
            )
        require(self.top + self.random > 0, "Mixed: top and random: together 1 or more negatives; got 0")
        _check_k(self, self.k)
        _enough(self, self.k, self.top + self.random)

    def depth(self, n: int) -> int:
        """See `protocols.Sampler`."""
        require(n == self.top + self.random, f"{self} draws {self.top + self.random} negatives per query, not {n}")
        return self.k

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        """See `protocols.Sampler`."""
        noisy = _noisy(np.zeros(scores.shape), scores > -np.inf, keys)
        noisy[:, : self.top] = np.where(scores[:, : self.top] > -np.inf, np.inf, -np.inf)
        return _best_columns(noisy, n)

    def __str__(self) -> str:
        return f"mixed:{self.top}+{self.random}@{self.k}"


def draw(sampler: Sampler, positive_scores: FloatArray, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
    """Columns of the n that a sampler chooses, whether or not it sees the positive scores; see `protocols.Sampler`."""
    if isinstance(sampler, PositiveSampler):
        return sampler.choose_near(positive_scores, scores, keys, n)
    return sampler.choose(scores, keys, n)


def resolve_sampler(sampler: Any) -> Sampler:
    """Make a sampler from what users write: a sampler, its spec, or None for the n best."""
    if sampler is None:
        return Top()
    if isinstance(sampler, str):
        return parse_sampler(sampler)
    valid = isinstance(sampler, Sampler) and not isinstance(sampler, type)
    require(valid, f"sampler: expected a sampler such as Sampled(10), got {sampler!r}")
    return cast(Sampler, sampler)


def parse_sampler(spec: str) -> Top | Sampled | Top1Sampled | SimANS | Mixed:
    """Make a sampler from its spec, the inverse of ``str(sampler)``.

    Args:
        spec: how negatives are drawn from these passages: ``top`` the best, ``sampled:10`` by softmax from the 10 best,
            ``top1_sampled:10`` the best and the others by softmax; ``sampled:10@0.05`` with a temperature;
            ``simans:100@50`` from the 100 best those near the positive's score, the closer the higher 50 is
            (``simans:100@50@-0.1`` near 0.1 below it); ``mixed:2+2@100`` the 2 best and 2 others of the 100 best.

    Raises:
        InputError: the spec is not understood, or a number is out of range.
    """
    name, _, rest = spec.partition(":")
    first, *numbers = rest.split("@")
    try:
        if name == "top" and not rest:
            return Top()
        if name in ("sampled", "top1_sampled") and len(numbers) <= 1:
            kind = Sampled if name == "sampled" else Top1Sampled
            return kind(int(first or 10), *(float(number) for number in numbers if number))
        if name == "simans" and len(numbers) <= 2:
            return SimANS(int(first or 100), *(float(number) for number in numbers))
        if name == "mixed" and len(numbers) <= 1:
            top, random = first.split("+")
            return Mixed(int(top), int(random), *(int(number) for number in numbers))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
    raise InputError(
        f"sampler {spec!r} is not understood; write top, sampled:10, top1_sampled:10, or with a temperature "
        "sampled:10@0.05; simans:100@50, mixed:2+2@100"
    )


def _noisy(log_weights: _Float64, present: BoolArray, keys: KeyArray) -> _Float64:
    """Log weights with Gumbel noise, -inf where no candidate is: the n largest are drawn by weight, each once."""
    return np.where(present, log_weights - np.log(-np.log(uniform(keys))), -np.inf)


def _best_columns(values: np.ndarray[Any, Any], n: int) -> IdArray:
    """Columns of the n largest values of each row, rising (so that higher scores stay first)."""
    return np.sort(np.argsort(-values, axis=1, kind="stable")[:, :n], axis=1)


def _enough(sampler: object, k: int, n: int) -> int:
    require(k >= n, f"{sampler} cannot draw {n} negatives from {k} candidates; give k >= {n}")
    return k


def _check_k(sampler: object, k: int) -> None:
    require(
        is_integer(k) and k >= 1, f"{type(sampler).__name__}: k is a whole number of candidates, 1 or more; got {k!r}"
    )
