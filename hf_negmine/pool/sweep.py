"""Many settings at once: what all of them need is searched for together, and then each is selected.

The pool holds the best candidates of every query. Where they do not decide a setting, the ranking must be known further
down, below that setting's ceiling. All ceilings are known beforehand, and those of a query share its products, so one
more search answers every setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import require, require_list, require_whole
from hf_negmine.base.protocols import Sampler
from hf_negmine.select.filters import BoundFilter, Filter
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.samplers import resolve_sampler
from hf_negmine.select.selection import Selection


class Sweeping:
    """What selects by many settings: the pool of one teacher, or those of several."""

    select: Callable[..., Selection]
    look_ahead: Callable[..., None]

    def sweep(
        self,
        methods: Sequence[Method | str],
        samplers: Sequence[Sampler | str | None] = (None,),
        n: int = 4,
        *,
        seed: int = 0,
        positive_score: PositiveScore | None = None,
        filters: Sequence[Filter | BoundFilter] = (),
    ) -> list[Selection]:
        """Select by every method with every sampler, as `select` does one by one, in one more search for all of them.

        Args:
            methods: methods or their specs, such as ``["perc_pos:0.9", "perc_pos:0.95"]``.
            samplers: samplers or their specs, such as ``["top", "sampled:10"]``.
            n, seed, positive_score, filters: as in `select`.

        Returns:
            The selections, sampler by sampler for the first method, then for the next one.

        Raises:
            ShallowPoolError, InputError: as in `select`.
        """
        settings = _settings(methods, samplers)
        require_whole(n, "n", at_least=1)
        require_whole(seed, "seed")
        self.look_ahead(settings, n, positive_score)
        options: dict[str, Any] = {"seed": seed, "positive_score": positive_score, "filters": filters}
        return [self.select(method, sampler, n, **options) for method, sampler in settings]


def _settings(
    methods: Sequence[Method | str], samplers: Sequence[Sampler | str | None]
) -> list[tuple[Method, Sampler]]:
    """Every method with every sampler, resolved."""
    for name, given, example in (("methods", methods, "naive"), ("samplers", samplers, "top")):
        require_list(given, name, f"[{example!r}]")
        require(len(given) > 0, f"{name}: give one or more, such as [{example!r}]; the list is empty")
    return [(resolve_method(method), resolve_sampler(sampler)) for method in methods for sampler in samplers]
