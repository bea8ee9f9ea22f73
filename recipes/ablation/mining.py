"""The negatives of every setting, from one pool per teacher and set, and what can be said of them without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine import (
    BM25Teacher,
    CrossSample,
    DenseTeacher,
    IntraSample,
    NegativeMiner,
    RandomTeacher,
    Selection,
    Trial,
    Veto,
    try_settings,
)
from hf_negmine.base.files import text_digests
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import AnyArray, BoolArray, DigestArray
from hf_negmine.figures.stats import ScoreHistograms
from hf_negmine.select.chat_judge import ChatJudge
from hf_negmine.select.ensembles import agreement
from hf_negmine.select.filters.specs import parse_veto
from hf_negmine.select.judge import verdicts_of, verdicts_on
from hf_negmine.teachers import ENSEMBLES, parse_call
from hf_negmine.teachers.vector_store import VectorStore
from recipes.ablation.recipe import BM25, RANDOM, Ablation, Teacher
from recipes.ablation.settings import Setting
from recipes.common.data import TrainingRows
from recipes.common.offline import place_of


@dataclass(frozen=True)
class Mined:
    """The negatives of a set under a setting.

    Attributes:
        miner: fitted.
        selection: what it chose.
    """

    miner: NegativeMiner
    selection: Selection

    @property
    def keys(self) -> AnyArray:
        """Query id * passages + passage id of each negative, int64."""
        queries = np.repeat(np.arange(len(self.selection.counts)), self.selection.counts)
        return np.asarray(queries * len(self.miner.fitted.texts.corpus) + self.selection.passages)


@dataclass
class Mine:
    """Mines the training sets.

    Attributes:
        recipe: its teachers and sets.
        sets: rows and corpora.
        cache: for vectors and pools, which all settings share.
    """

    recipe: Ablation
    sets: Sequence[TrainingRows]
    cache: Path
    _teachers: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)
    _fitted: dict[tuple[str, int], dict[str, NegativeMiner]] = field(default_factory=dict, repr=False)

    def rows(self, setting: Setting, negatives: int, seed: int) -> datasets.DatasetDict:
        """Rows of query, positive and negative_1 to negative_n, by set. A query without n negatives has no row.

        Args:
            setting: teacher, method and sampler.
            negatives: n.
            seed: of draws and random scores.
        """
        mined = self.mined(setting, negatives, seed)
        return datasets.DatasetDict({name: one.selection.to_dataset() for name, one in mined.items()})

    def mined(self, setting: Setting, negatives: int, seed: int) -> dict[str, Mined]:
        """The same as ids and scores, by set."""
        found = {}
        for name, miner in self._miners(setting.teacher, seed).items():
            mining = setting.mining
            vetoes = [] if mining.veto is None else [Veto(*parse_veto(mining.veto))]
            selection = miner.pool.select(mining.method, mining.sampler, negatives, seed=seed, filters=vetoes)
            found[name] = Mined(miner, selection)
        return found

    def agreement(self, student: str, negatives: int) -> dict[str, AnyArray]:
        """By set, the mean Jaccard similarity of the best negatives of each two teachers of the ensembles (table 6).

        Args:
            student: whose settings are mined.
            negatives: that are compared.
        """
        recipe, seed = self.recipe, self.recipe.seeds[0]
        settings = [Setting(student, name, recipe.mining, recipe.in_batch_negatives[0]) for name in recipe.ensemble]
        by_teacher = [self.mined(setting, negatives, seed) for setting in settings]
        return {one.name: agreement([mined[one.name].selection for mined in by_teacher]) for one in self.sets}

    def histograms(self, mined: Mapping[str, Mined], temperature: float) -> ScoreHistograms:
        """Of the teacher's scores in all sets together (figure 4).

        Args:
            mined: by one setting.
            temperature: of the loss.
        """
        selections = [one.selection for one in mined.values()]
        return ScoreHistograms.of(
            np.concatenate([one.pair_scores for one in selections]),
            np.concatenate([one.references for one in selections]),
            offsets_of_counts(np.concatenate([one.counts for one in selections])),
            np.concatenate([one.scores for one in selections]),
            temperature=temperature,
        )

    def hidden_shares(self, mined: Mapping[str, Mined]) -> dict[str, float]:
        """By set that has such, the share of the negatives that are positives which the labels hide."""
        return {
            one.name: float(_hidden(mined[one.name], one.hidden).mean())
            for one in self.sets
            if one.hidden and len(mined[one.name].selection.passages)
        }

    def judged_shares(self, mined: Mapping[str, Mined]) -> dict[str, float]:
        """By set, the share of the negatives that the recipe's judge calls relevant, of its first queries."""
        judge = self.recipe.judge
        assert judge is not None
        chat = ChatJudge(judge.model, base_url=judge.base_url)
        kept = verdicts_of(chat, VectorStore(self.cache, progress=False))
        shares = {}
        for name, one in mined.items():
            queries, passages = np.divmod(one.keys, len(one.miner.fitted.texts.corpus))
            some = queries < judge.queries  # rows come in the order of random keys, and so do the ids of their queries
            relevant = verdicts_on([chat], [kept], one.miner.fitted.texts, queries[some], passages[some])
            shares[name] = float(relevant.mean())
        return shares

    def trials(self, seed: int) -> dict[str, list[Trial]]:
        """By set, what `try_settings` says of the recipe's methods on the training rows, a trial for each sampler."""
        by_sampler: dict[str, list[str]] = {}
        for one in self.recipe.methods:
            by_sampler.setdefault(one.sampler, []).append(one.method)
        return {
            name: [try_settings(miner, methods, [sampler]) for sampler, methods in by_sampler.items()]
            for name, miner in self._miners(self.recipe.teacher, seed).items()
        }

    def _miners(self, teacher: str, seed: int) -> dict[str, NegativeMiner]:
        """A miner for each set, fitted once."""
        if (teacher, seed) not in self._fitted:
            self._fitted[teacher, seed] = {
                one.name: NegativeMiner(
                    self.teacher(teacher, seed), corpus=one.corpus, seed=seed, cache_dir=self.cache, progress=False
                ).fit(one.rows)
                for one in self.sets
            }
        return self._fitted[teacher, seed]

    def teacher(self, name: str, seed: int) -> Any:
        """The teacher or ensemble of a setting, opened once."""
        call = parse_call(name, ENSEMBLES)
        if call is not None:
            kind, names = call
            teachers = [self.teacher(part, seed) for part in names]
            return (
                CrossSample(teachers) if kind == "cross-sample" else IntraSample(teachers, dedup=kind != "intra-sample")
            )
        wanted = self.recipe.teacher_of(name)
        key = (name, seed if wanted.model == RANDOM else 0)
        if key not in self._teachers:
            self._teachers[key] = _open(wanted, seed)
        return self._teachers[key]


def _open(wanted: Teacher, seed: int) -> Any:
    if wanted.model == BM25:
        return BM25Teacher(progress=False)
    if wanted.model == RANDOM:
        return RandomTeacher(seed)
    return DenseTeacher(
        place_of(wanted.model),
        query_prompt=wanted.query_prompt,
        passage_prompt=wanted.passage_prompt,
        max_length=wanted.max_length,
        trust_remote_code=wanted.trust_remote_code,
        name=wanted.name,
        dtype=wanted.dtype,
    )


def _hidden(mined: Mined, hidden: Mapping[str, frozenset[str]]) -> BoolArray:
    """Which negatives are among the hidden positives of their query. Shape (negatives,)."""
    texts = mined.miner.fitted.texts
    queries = np.repeat(texts.queries.find(_digests(list(hidden))), [len(own) for own in hidden.values()])
    passages = texts.corpus.find(_digests([text for own in hidden.values() for text in own]))
    there = (queries >= 0) & (passages >= 0)
    return np.isin(mined.keys, (queries * len(texts.corpus) + passages)[there])


def _digests(texts: list[str]) -> DigestArray:
    return text_digests(pa.array(texts, type=pa.large_string()))
