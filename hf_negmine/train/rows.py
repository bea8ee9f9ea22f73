"""A training row: its texts, and what is drawn from its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import text_digests
from hf_negmine.base.protocols import PositiveSampler, Sampler
from hf_negmine.base.randomness import KeyArray, random_keys, uniform
from hf_negmine.select.samplers import Mixed, Sampled, Top, draw


@dataclass
class TrainingRow:
    """A query with its positives and negatives.

    Attributes:
        query: the text of the query.
        positives: its positives in this row; one of them is trained on at a time.
        negatives: texts, the hardest first.
        scores: the teacher's score of each negative, NaN if unknown.
        positive_score: the teacher's score of the first positive, NaN if unknown.
        positive_scores: that of each positive; empty if at most the first one's is known.
        weights: how much each negative counts in the loss; None for all alike.
        room: how many negatives the columns have room for, counting nulls in columns of one text each.
    """

    query: str
    positives: list[str]
    negatives: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    positive_score: float = float("nan")
    weights: list[float] | None = None
    positive_scores: list[float] = field(default_factory=list)
    room: int = 0

    def keep(self, places: Sequence[int]) -> None:
        """Keep the negatives at these places, in this order, possibly repeated."""
        self.negatives, self.scores = (
            [self.negatives[place] for place in places],
            [self.scores[place] for place in places],
        )
        self.weights = None if self.weights is None else [self.weights[place] for place in places]

    def drop_known_positives(self) -> None:
        """Remove negatives with the text of a positive or of the query."""
        known = {self.query, *self.positives}
        self.keep([place for place, text in enumerate(self.negatives) if text not in known])

    def repeat_negatives(self, n: int) -> None:
        """Fill up to ``n`` negatives by repeating them from the hardest down.

        Raises:
            InputError: there is none to repeat.
        """
        own = len(self.negatives)
        if not own:
            raise InputError(
                f"a row has no negative to repeat, its query is {self.query[:80]!r}; drop such rows "
                "(on_exhausted='drop'), or take fill='random' with a miner or a pool"
            )
        self.keep([place % own for place in range(max(n, own))])

    def thin_out(self, n: int, sampler: Sampler | None, seed: int) -> None:
        """Keep n negatives: the first, or those that a sampler draws, which looks at as many as of a ranking.

        Raises:
            InputError: the sampler draws by scores, and the row lacks them.
        """
        if len(self.negatives) <= n:
            return
        if sampler is None:
            self.keep(range(n))
            return
        keys = random_keys(seed, _keys([self.query]), _keys(self.negatives)[None, : sampler.depth(n)])
        scores = np.array([self.scores[: sampler.depth(n)]], dtype=np.float32)
        positive_score = np.array([self.positive_score], dtype=np.float32)
        lacking = np.isnan(scores).any() or (isinstance(sampler, PositiveSampler) and np.isnan(positive_score).any())
        if lacking and not _draws_without_scores(sampler):
            raise InputError(
                f"{sampler} draws by the teacher's scores, and the row with the query {self.query[:80]!r} lacks them: "
                "one for the positive and one for each negative; mine with include_scores=True, or take a sampler that "
                "needs none, such as 'sampled:10@inf'"
            )
        self.keep(draw(sampler, positive_score, np.nan_to_num(scores, nan=0.0), keys, n)[0].tolist())

    def choose_positive(self, seed: int) -> None:
        """Move one positive to the front, drawn like the negatives."""
        if len(self.positives) > 1:
            number = uniform(random_keys(seed, _keys([self.query]), np.zeros((1, 1), dtype=np.uint64)))
            chosen = int(number[0, 0] * len(self.positives))
            self.positives.insert(0, self.positives.pop(chosen))
            if chosen:
                self.positive_score = self.positive_scores[chosen] if self.positive_scores else float("nan")


def _draws_without_scores(sampler: Sampler) -> bool:
    return isinstance(sampler, Top | Mixed) or (isinstance(sampler, Sampled) and sampler.temperature == np.inf)


def _keys(texts: Sequence[str]) -> KeyArray:
    return text_digests(pa.array(texts, pa.large_string()))[:, 0]
