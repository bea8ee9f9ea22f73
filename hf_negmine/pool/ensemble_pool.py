"""The candidate pools of several teachers, for selecting from them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import require_whole
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.schema import FloatArray
from hf_negmine.base.wording import numbered
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.sweep import Sweeping
from hf_negmine.select import Positives, Selection, Top, resolve_sampler
from hf_negmine.select.ensembles import CrossSample, Ensemble, agreement
from hf_negmine.select.filters import BoundFilter, Filter
from hf_negmine.select.methods import Method, resolve_method

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EnsemblePool(Sweeping):
    """One pool per teacher, and the rule that joins the selections from them.

    Attributes:
        ensemble: the rule.
        pools: the pools of its teachers, in their order.
    """

    def __init__(self, ensemble: Ensemble, pools: Sequence[CandidatePool]) -> None:
        self.ensemble, self.pools = ensemble, tuple(pools)

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return self.pools[0].n_queries

    @property
    def n_passages(self) -> int:
        """Number of passages in the corpus."""
        return self.pools[0].n_passages

    @property
    def positives(self) -> Positives:
        """The positives, with the first teacher's scores."""
        return self.pools[0].positives

    @property
    def about(self) -> dict[str, Any]:
        """Where the pools come from."""
        return {"teacher": self.ensemble.name, "stages": [pool.about for pool in self.pools]}

    @property
    def recall(self) -> dict[str, float]:
        """See `CandidatePool.recall`."""
        return {name: share for pool in self.pools for name, share in pool.recall.items()}

    def __repr__(self) -> str:
        return f"EnsemblePool({self.ensemble.name!r}, {self.n_queries:,} queries, {self.n_passages:,} passages)"

    def select(
        self,
        method: Method | str,
        sampler: Sampler | str | None = None,
        n: int = 4,
        *,
        seed: int = 0,
        positive_score: PositiveScore | None = None,
        filters: Sequence[Filter | BoundFilter] = (),
    ) -> Selection:
        """Choose n negatives for every query, each teacher under its own ceilings; see `CandidatePool.select`."""
        method, sampler = resolve_method(method), resolve_sampler(sampler)
        require_whole(n, "n", at_least=1)
        share = self.ensemble.negatives_a_teacher(n)
        options: dict[str, Any] = {"seed": seed, "positive_score": positive_score, "filters": filters}
        selections = [pool.select(method, sampler, share, **options) for pool in self.pools]
        reserves = [pool.select(method, Top(), n, **options) for pool in self.pools]
        first = self.pools[0]
        queries, _ = first.positives.targets(selections[0].positive_score)
        joined = self.ensemble.joined(selections, reserves, n, seed, first.query_keys[queries])
        removed = {
            f"{rule} ({name})": count
            for selection, name in zip(selections, self._names, strict=True)
            for rule, count in selection.removed.items()
        }
        return Selection(
            **{
                **joined.__dict__,
                "removed": removed,
                "pair_scores": self._pair_scores(seed),
                "agreement": agreement(reserves),
            }
        )

    def look_ahead(
        self, settings: Sequence[tuple[Method, Sampler]], n: int, positive_score: PositiveScore | None = None
    ) -> None:
        """Search every pool for what selections by all these settings will need."""
        for pool in self.pools:
            pool.look_ahead(settings, self.ensemble.negatives_a_teacher(n), positive_score)

    def plot(self, method: Method | str = "perc_pos:0.95", n: int = 4) -> Figure:
        """How much the teachers agree, as a heat map (table 6 of NV-Retriever); a notebook shows it.

        Args:
            method: which passages may be negatives.
            n: how many of the best negatives of each are compared (`ensembles.agreement`).

        Raises:
            ShallowPoolError, InputError: as in `select`, or matplotlib is not installed.
        """
        from hf_negmine.figures.plots import plot_agreement, require_matplotlib

        require_matplotlib()
        best = [pool.select(method, Top(), n) for pool in self.pools]
        title = f"Jaccard similarity of the best {n} negatives under {best[0].method}"
        return plot_agreement(self._names, agreement(best), title=title)

    @property
    def _names(self) -> list[str]:
        """The teachers' names, numbered where several have the same."""
        return numbered([str(pool.about["teacher"]) for pool in self.pools])

    def _pair_scores(self, seed: int) -> FloatArray:
        """The score of every positive by the teacher that its query draws, or by the first if queries draw none."""
        scores = np.stack([np.asarray(pool.positives.scores) for pool in self.pools])
        if not isinstance(self.ensemble, CrossSample):
            return np.asarray(scores[0])
        by = self.ensemble.drawn(seed, np.asarray(self.pools[0].query_keys))
        return np.asarray(scores[by[self.positives.query_of_pair], np.arange(scores.shape[1])])
