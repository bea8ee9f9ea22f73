"""Judging negatives: a passage the judge calls relevant is dropped, or relabeled a positive (RLHN, arXiv 2505.16967).

A judge is slow and expensive, so it sees only the negatives that would be chosen, the likeliest false negatives first:
those with the highest scores. (Not those nearest to their ceiling: a positive with a low score has a low ceiling, and
passages near that are clearly irrelevant; ``benchmarks/README.md`` compares the two.) A passage it calls relevant is
replaced by the next candidate, which is judged in its turn, until everything chosen has been judged or the budget is
spent. Verdicts are stored by the digests of the texts and of the judge's prompt; a stored one counts against the
budget, too, so that running again gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_negmine.base.errors import TeacherError, require, require_flag, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Teacher
from hf_negmine.base.ragged import flat_positions
from hf_negmine.base.schema import AnyArray, BoolArray, FloatArray, IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.texts import TextSet
from hf_negmine.select import Selection
from hf_negmine.select.filters import Bound, BoundFilter, Listed
from hf_negmine.select.judge_models import PairJudge, ScoreJudge, resolve_judge
from hf_negmine.teachers.pair_store import PairStore, pair_digests
from hf_negmine.teachers.vector_store import VectorStore

ROUNDS = 8
"""A budget is spent in at least this many parts, so that replacements are judged before less likely false negatives."""


@dataclass(frozen=True)
class Judge:
    """Has chosen negatives judged, and those that answer their query replaced.

    Attributes:
        judge: a chat model that reads the negatives; those that answer their query are replaced. It runs at OpenAI or
            on a compatible server, with the key in the variable ``OPENAI_API_KEY``. Or a second teacher and the lowest
            score of a relevant passage, ``cross-encoder:MODEL@0.9``. Of several, cheap ones first, each reads only what
            those before it call relevant, and the last one decides. In Python also a `ChatJudge` with more settings, a
            `ScoreJudge`, a function of queries and passages that returns booleans, your own `PairJudge`, or a list of
            these.
        budget: most pairs that the first judge reads, the likeliest false negatives first; None takes all.
        relabel: whether to make a passage that the judge calls relevant another positive of its query, written with the
            query's first row. The new positive gets those of that row's negatives that are under its own ceiling; if
            they are too few, the miner's ``on_exhausted`` applies. Positives that share their negatives share those
            under the ceilings of all.
    """

    judge: Sequence[str] | Any
    budget: int | None = None
    relabel: bool = False

    def __post_init__(self) -> None:
        given = self.judge if isinstance(self.judge, list | tuple) else (self.judge,)
        require(len(given) > 0, "Judge: judge: the list is empty, expected at least one judge")
        object.__setattr__(self, "judge", tuple(map(resolve_judge, given)))
        if self.budget is not None:
            require_whole(self.budget, "Judge: budget", at_least=0)
            object.__setattr__(self, "budget", int(self.budget))
        require_flag(self.relabel, "Judge: relabel")
        object.__setattr__(self, "relabel", bool(self.relabel))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that go into provenance."""
        fingerprints = [each.fingerprint() for each in self.judges]
        return {
            "filter": str(self),
            "judge": self.name,
            "judge_fingerprint": fingerprints[0] if len(fingerprints) == 1 else digest_of("judges", *fingerprints),
            "budget": self.budget,
            "relabel": self.relabel,
        }

    @property
    def judges(self) -> tuple[PairJudge, ...]:
        """The judges in their order."""
        return tuple(self.judge)

    @property
    def name(self) -> str:
        """The names of the judges in their order."""
        return ", then ".join(each.name for each in self.judges)

    @property
    def teachers(self) -> list[Teacher]:
        """The teachers among the judges."""
        return [each.teacher for each in self.judges if isinstance(each, ScoreJudge)]

    def __str__(self) -> str:
        return f"judge {self.name}"


@dataclass(frozen=True)
class Verdicts:
    """The result of judging.

    Attributes:
        asked: number of judged pairs, including those whose verdict was stored by an earlier run.
        queries, passages: int64, the pairs that the judge called relevant, by query.
        scores: float32, the mining teacher's scores of these.
    """

    asked: int
    queries: IdArray
    passages: IdArray
    scores: FloatArray


def judged_selection(
    select: Callable[[Sequence[BoundFilter]], Selection],
    queries: IdArray,
    judged: Judge,
    texts: TextSet,
    store: VectorStore,
) -> tuple[Selection, Verdicts]:
    """A selection without the passages that the judge calls relevant.

    ``select`` chooses negatives for the targets of these ``queries``, given additional filters. Verdicts are stored in
    the folder of ``store``.
    """
    n_passages = len(texts.corpus)
    kept = [verdicts_of(each, store) for each in judged.judges]
    asked, relevant = np.empty((2, 0), dtype=np.int64)  # keys of pairs: query * n_passages + passage
    scores = np.empty(0, dtype=np.float32)
    while True:
        selection = select([not_relevant(str(judged), *np.divmod(relevant, n_passages), n_passages)])
        keys = np.repeat(queries, selection.counts) * n_passages + selection.passages
        order = np.lexsort((keys, -_likelihood(selection)))  # each pair once, where it is likeliest
        _, first = np.unique(keys[order], return_index=True)
        order = order[np.sort(first)]
        order = order[~np.isin(keys[order], asked)]
        if judged.budget is not None:
            order = order[: min(-(-judged.budget // ROUNDS), judged.budget - len(asked))]
        if not len(order):
            by_pair = np.argsort(relevant)
            return selection, Verdicts(len(asked), *np.divmod(relevant[by_pair], n_passages), scores[by_pair])
        answers = order[verdicts_on(judged.judges, kept, texts, *np.divmod(keys[order], n_passages))]
        asked = np.concatenate([asked, keys[order]])
        relevant = np.concatenate([relevant, keys[answers]])
        scores = np.concatenate([scores, selection.scores[answers]])


def verdicts_of(judge: PairJudge, store: VectorStore) -> PairStore:
    """The verdicts that a judge has given so far, stored in the folder of ``store``."""
    return PairStore.of(store.folder, f"judge {judge.fingerprint()}", judge.name, progress=store.progress)


def verdicts_on(
    judges: Sequence[PairJudge], kept: Sequence[PairStore], texts: TextSet, queries: IdArray, passages: IdArray
) -> BoolArray:
    """Whether all judges call each passage relevant to its query; each reads what those before it call relevant.

    ``kept`` are the verdicts of each (`verdicts_of`), which is asked about a pair only once.

    Raises:
        TeacherError: a judge does not give one verdict per pair.
    """
    relevant = np.ones(len(queries), dtype=bool)
    for judge, its_own in zip(judges, kept, strict=True):
        some = np.flatnonzero(relevant)
        if len(some):
            relevant[some] = _verdicts(judge, its_own, texts, queries[some], passages[some])
    return relevant


def _verdicts(judge: PairJudge, kept: PairStore, texts: TextSet, queries: IdArray, passages: IdArray) -> BoolArray:
    """Whether one judge calls each passage relevant."""

    def ask(places: IdArray) -> Iterator[tuple[IdArray, FloatArray]]:
        query_texts = texts.queries.take(queries[places]).to_pylist()
        passage_texts = texts.corpus.take(passages[places]).to_pylist()
        waiting = set(range(len(places)))
        given = judge.judge(query_texts, passage_texts)
        for verdict in () if given is None else given:
            place, relevant = verdict if isinstance(verdict, tuple) and len(verdict) == 2 else (None, verdict)
            if place not in waiting or not isinstance(relevant, bool | np.bool_):
                raise TeacherError(
                    f"judge {judge.name!r} gave {verdict!r:.80} for {counted(len(places), 'pair')}, expected "
                    "(position, True or False) for each of them once"
                )
            waiting.remove(place)
            yield np.array([place], dtype=np.int64), np.array([relevant], dtype=np.float32)
        if waiting:
            said = len(places) - len(waiting)
            raise TeacherError(f"judge {judge.name!r} gave {said} verdicts on {len(places)} pairs")

    pairs = pair_digests(texts.queries.digests[queries], texts.corpus.digests[passages])
    return np.asarray(kept.complete(pairs, ask) > 0.5)


def _likelihood(selection: Selection) -> AnyArray:
    """How likely each negative is a false one: its score, or with several teachers its rank among its teacher's."""
    if selection.chosen_by is None:
        return selection.scores
    places = np.empty(len(selection.scores))
    for teacher in np.unique(selection.chosen_by):
        here = np.flatnonzero(selection.chosen_by == teacher)
        order = np.argsort(np.argsort(selection.scores[here], kind="stable"), kind="stable")
        places[here] = order / len(here)
    return places


def not_relevant(name: str, queries: IdArray, passages: IdArray, n_passages: int) -> BoundFilter:
    """Keeps out the pairs of these ids, which were called relevant, in a corpus of this many passages."""
    relevant = queries * n_passages + passages

    def keep(listed: Listed) -> BoolArray:
        return ~np.isin(listed.queries[listed.target_of] * n_passages + listed.passages, relevant)

    return Bound(name, keep)


def negatives_under(selection: Selection, targets: IdArray, positive_scores: FloatArray) -> BoolArray:
    """Which negatives of some targets are under the ceilings of other positives, concatenated over these positives.

    Args:
        selection: the chosen negatives.
        targets: one target for each positive, shape (positives,).
        positive_scores: these positives' scores by each teacher, in its own scale, shape (teachers, positives).
    """
    entries, positive = flat_positions(selection.offsets[targets], selection.counts[targets])
    ceilings = np.stack([selection.method.ceilings(scores) for scores in positive_scores])
    teacher = np.zeros(1, dtype=np.int64) if selection.chosen_by is None else selection.chosen_by[entries]
    return np.asarray(selection.scores[entries] < ceilings[teacher, positive])
