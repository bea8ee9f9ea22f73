"""Tries settings on the user's own rows: a small student is trained on the negatives of each, and tested on the rest.

The student is one matrix on top of a teacher's vectors, which are stored already, so that a training takes seconds. It
is a stand-in for the model that will be trained: `benchmarks/README.md` says how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as _normalize

from hf_negmine.base.defaults import SWEPT_METHODS, SWEPT_SAMPLERS
from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Sampler, VectorTeacher
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.pairs import PairFinder
from hf_negmine.data.texts import TextSet
from hf_negmine.miner import NegativeMiner
from hf_negmine.select import Selection
from hf_negmine.select.methods import Method
from hf_negmine.teachers import resolve_teacher, without_index
from hf_negmine.teachers.probes import one_thread
from hf_negmine.teachers.vector_store import VectorStore

TENTH = 10
MOST_QUERIES = 10_000
"""Queries that a training takes at most; more would cost time and tell little more."""
FEWEST_QUERIES = 20
"""Held-out queries that there must be: intervals over fewer mean nothing."""
EPOCHS, BATCH, RATE, SCALE = 4, 64, 3e-4, 20.0
FEWEST_STEPS = 200
"""Few rows are trained on for more epochs: in fewer steps the matrix hardly moves."""
CUTOFF = 10
RESAMPLES = 2000
QUERIES_A_BLOCK = 512

normalize = partial(_normalize, dim=1)


@dataclass(frozen=True)
class TriedSetting:
    """How the student did with the negatives of one setting.

    Attributes:
        method, sampler: the setting.
        negatives: how many it gives per query, on average.
        ndcg: mean NDCG@10 over the held-out queries and the seeds.
        gain: how much more it is than with the miner's own setting.
        low, high: the 95 % interval of the gain over the queries.
    """

    method: str
    sampler: str
    negatives: float
    ndcg: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """Settings that were tried on the user's rows; print it.

    Attributes:
        settings: one line for each setting, in the order in which they were given.
        before: NDCG@10 of the student before training, which is the teacher's own.
        own: NDCG@10 with the miner's own setting.
        reference: that setting.
        train_queries, held_out: number of queries that were trained on, and tested on.
        seeds: trainings per setting.
        best: the setting that is better than the miner's own beyond chance; None if all are level with it, or worse.
    """

    settings: tuple[TriedSetting, ...]
    before: float
    own: float
    reference: str
    train_queries: int
    held_out: int
    seeds: int
    best: TriedSetting | None

    @property
    def recommendation(self) -> str:
        """Which setting to take, and why, in one sentence."""
        if self.best is not None:
            name = f"{self.best.method} {self.best.sampler}"
            return (
                f"Take {name}: {self.best.ndcg:.4f} is {self.best.gain:.4f} more than with {self.reference}, more than "
                f"chance makes of {counted(len(self.settings), 'setting')}."
            )
        top = max(self.settings, key=lambda one: one.ndcg)
        return (
            f"Keep {self.reference}: no setting is better beyond chance; {top.method} {top.sampler} comes first with "
            f"{top.ndcg:.4f}, {top.gain:+.4f} [{top.low:+.4f}, {top.high:+.4f}]."
        )

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON-able content, with the recommendation."""
        return {**asdict(self), "recommendation": self.recommendation}

    def __str__(self) -> str:
        heads = ("method", "sampler", "negatives", "NDCG@10", "gain", "95 % interval")
        rows = [
            (
                *(one.method, one.sampler, f"{one.negatives:.1f}", f"{one.ndcg:.4f}", f"{one.gain:+.4f}"),
                f"[{one.low:+.4f}, {one.high:+.4f}]",
            )
            for one in self.settings
        ]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = []
        for row in (heads, *rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        given = (
            f"{self.train_queries:,} queries to train on, {self.held_out:,} held out, "
            f"{counted(self.seeds, 'seed')}; NDCG@10 before training {self.before:.4f}, with {self.reference} "
            f"{self.own:.4f}"
        )
        return "\n".join([given, "", *lines, "", self.recommendation])


def try_settings(
    miner: NegativeMiner,
    methods: Sequence[Method | str] = SWEPT_METHODS,
    samplers: Sequence[Sampler | str | None] = SWEPT_SAMPLERS,
    *,
    student: Any = None,
    seeds: int = 3,
) -> Trial:
    """Train a small student on the negatives of every setting, and compare them on held-out queries.

    A tenth of the queries, drawn by their texts, is held out. The student is a matrix on top of the vectors of a dense
    teacher. It is trained on the other queries, each with a positive, its negatives and those of the batch, and must
    then find the labeled positives of the held-out queries in the whole corpus. Intervals are bootstrapped over these
    queries. A setting is recommended only if it is better than the miner's own in an interval that is widened for the
    number of settings (Bonferroni).

    Args:
        miner: a fitted miner; its own setting is what the others are compared with.
        methods, samplers: as in `NegativeMiner.sweep`.
        student: the dense teacher whose vectors are the student's; None takes the miner's.
        seeds: trainings per setting, whose results are averaged.

    Raises:
        NotFittedError: the miner is not fitted.
        InputError: there is no dense teacher, or there are too few queries.
    """
    require_whole(seeds, "seeds", at_least=1)
    require(isinstance(miner, NegativeMiner), f"miner: expected a fitted miner, got {miner!r:.80}")
    config, texts, pool = miner.config, miner.fitted.texts, miner.pool
    given = config.teacher if student is None else resolve_teacher(student, device=config.device)
    teacher = without_index(given)
    if not isinstance(teacher, VectorTeacher):
        raise InputError(
            f"try_settings: the student needs the vectors of a dense model, which {teacher.name} does not have; give "
            "one as student= (--student)"
        )
    rows = _Rows.of(texts, teacher, VectorStore(config.cache_dir, progress=config.progress))
    settings: dict[str, Any] = {"n": config.num_negatives, "seed": config.seed}
    selections = pool.sweep(methods, samplers, **settings)
    selections.append(pool.select(config.method, config.sampler, **settings))
    with one_thread():  # the products are small: several threads would wait for one another, and take 12 times as long
        results = [
            np.mean([rows.ndcg(rows.train(one, seed)) for seed in range(seeds)], axis=0)
            for one in bar("Training", "settings", len(selections), over=selections, shown=config.progress)
        ]
        before = rows.ndcg(np.eye(rows.queries.shape[1], dtype=np.float32))
    own = results.pop()
    level = 0.05 / max(1, len(results))
    tried, best = [], None
    for selection, result in zip(selections, results, strict=False):
        gains = _bootstrapped(result - own)
        low, high = np.quantile(gains, [0.025, 0.975])
        numbers = (selection.counts.mean(), result.mean(), (result - own).mean(), low, high)
        tried.append(TriedSetting(str(selection.method), str(selection.sampler), *(float(one) for one in numbers)))
        if np.quantile(gains, level / 2) > 0 and (best is None or tried[-1].ndcg > best.ndcg):
            best = tried[-1]
    return Trial(
        settings=tuple(tried),
        before=float(before.mean()),
        own=float(own.mean()),
        reference=f"{config.method} {config.sampler}",
        train_queries=len(rows.train_ids),
        held_out=len(rows.held_out),
        seeds=seeds,
        best=best,
    )


def _rate(steps: int, at: int) -> float:
    """The share of the learning rate at a step: it rises for a tenth of them, and falls to 0."""
    return min(1.0, TENTH * (at + 1) / steps) * (1 - at / steps)


def _bootstrapped(gains: FloatArray) -> FloatArray:
    """The means of samples of the queries, shape (RESAMPLES,)."""
    rng = np.random.default_rng(0)
    return np.array([gains[rng.integers(0, len(gains), len(gains))].mean() for _ in range(RESAMPLES)])


@dataclass(frozen=True)
class _Rows:
    """The rows as vectors, and which of them are held out.

    Attributes:
        texts: queries, corpus and positives.
        finder: tells positives.
        queries, passages: float32, one row per text, of unit length.
        train_ids, held_out: int64 query ids.
    """

    texts: TextSet
    finder: PairFinder
    queries: torch.Tensor
    passages: torch.Tensor
    train_ids: IdArray
    held_out: IdArray

    @classmethod
    def of(cls, texts: TextSet, teacher: VectorTeacher, store: VectorStore) -> _Rows:
        """The rows with the vectors of this teacher, encoding what the store lacks."""
        order = np.lexsort(texts.queries.digests.T)  # by chance, but the same for any order of the rows
        is_held_out = texts.queries.digests[order, 0] % TENTH == 0
        held_out, train = order[is_held_out][:MOST_QUERIES], order[~is_held_out][:MOST_QUERIES]
        if len(held_out) < FEWEST_QUERIES:
            raise InputError(
                f"try_settings: of {len(order):,} queries {len(held_out)} are held out, expected at least "
                f"{FEWEST_QUERIES} to test on; give more rows"
            )
        stored = store.vectors(teacher, texts.queries, "query"), store.vectors(teacher, texts.corpus, "passage")
        queries, passages = (normalize(torch.from_numpy(np.array(one.slice(0, one.shape[0])))) for one in stored)
        return cls(texts, PairFinder(texts), queries, passages, train, held_out)

    def train(self, selection: Selection, seed: int) -> FloatArray:
        """Train on a selection's negatives; returns the matrix, float32, shape (width, width)."""
        rng = np.random.default_rng(seed)
        matrix = torch.eye(self.queries.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([matrix], lr=RATE)
        steps_an_epoch = -(-len(self.train_ids) // BATCH)
        epochs = max(EPOCHS, -(-FEWEST_STEPS // steps_an_epoch))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, epochs * steps_an_epoch))
        for _ in range(epochs):
            order = rng.permutation(self.train_ids)
            for start in range(0, len(order), BATCH):
                loss = self._loss(matrix, order[start : start + BATCH], selection, rng)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return matrix.detach().numpy()

    def _loss(
        self, matrix: torch.Tensor, queries: IdArray, selection: Selection, rng: np.random.Generator
    ) -> torch.Tensor:
        """The contrastive loss of some queries, each with a positive, against all passages of the batch."""
        offsets = self.texts.positive_offsets
        pairs = offsets[queries] + rng.integers(0, np.diff(offsets)[queries])
        targets = queries if selection.positive_score == "min" else pairs
        positives = self.texts.positive_ids[pairs]
        negatives = selection.ragged.take(targets).arrays[0]
        passages, places = np.unique(np.concatenate([positives, negatives]), return_inverse=True)
        places = places[: len(queries)]
        left = normalize(self.queries[queries] @ matrix)
        right = normalize(self.passages[passages] @ matrix)
        scores = SCALE * left @ right.T
        known = self.finder.contains(np.repeat(queries, len(passages)), np.tile(passages, len(queries)))
        known = known.reshape(scores.shape)
        known[np.arange(len(queries)), places] = False  # its own stays; other positives are no negatives
        return cross_entropy(scores.masked_fill(torch.from_numpy(known), -torch.inf), torch.from_numpy(places))

    def ndcg(self, matrix: FloatArray) -> FloatArray:
        """NDCG@10 of each held-out query, float64."""
        turned = torch.from_numpy(matrix)
        passages = normalize(self.passages @ turned)
        discounts = 1 / np.log2(np.arange(2, CUTOFF + 2))
        results = []
        for start in range(0, len(self.held_out), QUERIES_A_BLOCK):
            ids = self.held_out[start : start + QUERIES_A_BLOCK]
            scores = normalize(self.queries[ids] @ turned) @ passages.T
            own = self.texts.own_text[ids]
            scores[np.flatnonzero(own >= 0), own[own >= 0]] = -torch.inf
            best = scores.topk(min(CUTOFF, scores.shape[1])).indices.numpy()
            hits = self.finder.contains(np.repeat(ids, best.shape[1]), best.ravel()).reshape(best.shape)
            counts = np.diff(self.texts.positive_offsets)[ids]
            ideal = np.cumsum(discounts)[np.minimum(counts, CUTOFF) - 1]
            results.append((hits * discounts[: best.shape[1]]).sum(axis=1) / ideal)
        return np.concatenate(results)
