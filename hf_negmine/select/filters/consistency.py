"""The rule that a row counts only if its teacher finds its positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from hf_negmine.base.choices import Inconsistent
from hf_negmine.base.errors import require, require_choice, require_finite, require_whole


@dataclass(frozen=True)
class Consistency:
    """A row counts only if the teacher finds its positive (CoRNStack, arXiv 2412.01007; Gecko, arXiv 2403.20327).

    Attributes:
        top_k: how far down the teacher's ranking a positive may be; below that, its label is likely wrong. Fewer than
            ``top_k`` eligible passages may score higher.
        min_score: the positive must score at least this.
        action: what happens to a row that is not consistent: ``drop`` it, or ``flag`` it in a column ``consistent``.
    """

    top_k: int | None = None
    min_score: float | None = None
    action: Inconsistent = "drop"

    def __post_init__(self) -> None:
        require(
            self.top_k is not None or self.min_score is not None,
            "Consistency: give top_k (a rank), min_score, or both; got neither",
        )
        if self.top_k is not None:
            require_whole(self.top_k, "Consistency: top_k", at_least=1)
            object.__setattr__(self, "top_k", int(self.top_k))
        if self.min_score is not None:
            require_finite(self.min_score, "Consistency: min_score")
            object.__setattr__(self, "min_score", float(self.min_score))
        require_choice(self.action, get_args(Inconsistent), argument="Consistency: action")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that go into provenance."""
        return {"top_k": self.top_k, "min_score": self.min_score, "action": self.action}

    def __str__(self) -> str:
        parts = [f"top {self.top_k}"] if self.top_k is not None else []
        parts += [f"score of at least {self.min_score:g}"] if self.min_score is not None else []
        return f"consistency ({', '.join(parts)})"
