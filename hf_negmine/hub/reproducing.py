"""Mining a pushed data set again, and comparing the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.naming import public_content
from hf_negmine.base.protocols import Role, Teacher
from hf_negmine.config import MiningConfig
from hf_negmine.hub.comparing import columns_of_mining, compared
from hf_negmine.hub.load import HubData, load_mined, rows_of_pairs
from hf_negmine.hub.provenance import KEPT, LOOKUPS, rows_digest
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.list_writing import SCHEMA, list_tables
from hf_negmine.select.ensembles import ensemble_of_settings, resolve_ensemble
from hf_negmine.select.rules import settings_of_filters
from hf_negmine.teachers import ApproximateTeacher, DenseTeacher, identity_of

OPENED = ("dense", "cross-encoder", "sparse", "late-interaction")
"""Kinds of teachers that are one model."""
OF_BOTH_ROLES = ("similarity", "candidates")
"""Facts by which teachers with equal fingerprints can differ."""


@dataclass(frozen=True)
class Reproduction:
    """The result of mining again.

    Attributes:
        identical: whether the rows are the same, in any order, in the columns that mining writes.
        rows, rows_again: how many were pushed, and how many came out. Mining again takes each (query, positive) pair
            once, so a pair that was given in several rows comes out once.
        missing: pushed rows that did not come out again.
        repeated: pushed rows that occur more often than the mined rows explain.
        not_compared: columns of the pushed rows that mining does not write.
        teacher_differs: roles in which the weights or settings of the teacher, or of one that it builds on, have
            changed since.
        filters_differ: whether the filters, or the teachers of vetoes, have changed since.
        rows_differ: whether the rows are not those that were pushed.
    """

    identical: bool
    rows: int
    rows_again: int
    missing: int
    repeated: int
    not_compared: list[str]
    teacher_differs: list[str]
    filters_differ: bool = False
    rows_differ: bool = False

    def __str__(self) -> str:
        columns = ", ".join(map(repr, self.not_compared))
        besides = f" (not compared: {columns}, which mining does not write)" if columns else ""
        return self.verdict + besides

    @property
    def verdict(self) -> str:
        """Whether the rows are the same, and what differs, as one sentence."""
        if self.identical:
            return f"identical: all {self.rows:,} rows came out again"
        if self.missing:
            return f"different: {self.missing:,} of {self.rows:,} rows did not come out again; {self._why}"
        if self.repeated:
            return (
                f"different: {self.repeated:,} of {self.rows:,} rows are copies that did not come out again; rows were "
                f"repeated {self._when} they were pushed"
            )
        return (
            f"different: all {self.rows:,} rows came out again, plus others; rows were left out {self._when} they were "
            "pushed"
        )

    @property
    def _when(self) -> str:
        return "after" if self.rows_differ else "before"

    @property
    def _why(self) -> str:
        if self.teacher_differs:
            return f"the teacher has changed since (as {' and '.join(self.teacher_differs)} encoder)"
        if self.filters_differ:
            return "the filters have changed since"
        if self.rows_differ:
            return "the rows were changed after they were pushed"
        return (
            "the teacher is the same; its vectors may differ on this processor, or the rows were changed before they "
            "were pushed"
        )


def reproduce(
    repo_id: str,
    config_name: str = "default",
    *,
    split: str = "train",
    revision: str | None = None,
    token: str | None = None,
    teacher: str | Path | Teacher | None = None,
    filters: Sequence[Any] | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Reproduction:
    """Mine a pushed data set again with its settings, and compare.

    Args:
        repo_id, config_name, split, revision, token, cache_dir: see `load_mined`.
        teacher: a replacement for the teacher that mined, such as a local copy of it; None takes the same model from
            the Hub. The name or folder of a model is opened the way the first one was. For lists that were scored
            elsewhere, the teacher that continues them; they are taken from the pushed pool.
        filters: used instead of those that the settings name: all of them, in their order. Needed for filters that
            settings cannot recreate: a judge (a key is never sent to an address from the Hub), a `Where`, your own.
        progress: whether to show bars.

    Raises:
        InputError: the texts were not pushed, the rows lack a column that mining writes, or a teacher or a filter
            cannot be made from its settings.
    """
    data = load_mined(repo_id, config_name, split=split, revision=revision, token=token, cache_dir=cache_dir)
    return mine_again(data, repo_id, teacher=teacher, filters=filters, cache_dir=cache_dir, progress=progress)


def mine_again(
    data: HubData,
    repo_id: str,
    *,
    teacher: str | Path | Teacher | None = None,
    filters: Sequence[Any] | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Reproduction:
    """Like `reproduce`, but with data that has already been loaded."""
    if data.queries is None or data.corpus is None or data.pairs is None:
        lacking = ", ".join(name for name in LOOKUPS if getattr(data, name) is None)
        raise InputError(f"reproduce: {repo_id} was pushed without its {lacking}, so there is nothing to mine again")
    settings = data.settings
    if settings["num_negatives"] >= len(data.corpus):  # before anything of that length is allocated
        raise StorageError(
            f"the provenance of {repo_id} says {settings['num_negatives']} negatives per query, from a corpus of "
            f"{len(data.corpus)} passages"
        )
    query, positive = data.provenance.columns
    from_lists = (settings.get("teacher_settings") or {}).get("kind") == "lists"
    config = MiningConfig.from_dict(
        settings,
        **({} if filters is None else {"filters": list(filters)}),
        teacher=_lists_again(data, repo_id, teacher, cache_dir)
        if from_lists
        else _teacher_again(teacher, settings.get("teacher_settings")),
        pool_depth=min(settings["pool_depth"], len(data.corpus)),
        query_column=query,
        positive_column=positive,
        corpus_column="document",
        cache_dir=cache_dir,
        progress=progress,
    )
    columns = columns_of_mining(data, config, repo_id)
    miner = NegativeMiner.from_config(config)
    miner.fit(rows := rows_of_pairs(data, query, positive), corpus=None if from_lists else data.corpus)
    mined = miner.mine(rows).select_columns(columns)
    missing, repeated, left_out = compared(data, mined, repo_id)
    return Reproduction(
        identical=not (missing or repeated or left_out),
        rows=len(data.rows),
        rows_again=len(mined),
        missing=missing,
        repeated=repeated,
        not_compared=[name for name in data.rows.column_names if name not in columns],
        teacher_differs=_roles_that_differ(identity_of(config.teacher), settings),
        filters_differ=_as_json(public_content(settings_of_filters(config.filters), kept=KEPT))
        != _as_json(settings.get("filters", [])),
        rows_differ=rows_digest(data.rows) != data.provenance.rows_digest,
    )


def _teacher_again(teacher: str | Path | Teacher | None, settings: dict[str, Any] | None) -> Teacher:
    """The teacher of the settings, or the given one; a given model is opened as the first one was, prompts included."""
    if teacher is None:
        return ensemble_of_settings(settings)
    if not isinstance(teacher, str | Path) or settings is None:
        return cast(Teacher, resolve_ensemble(teacher))
    kind, name = settings.get("kind"), str(teacher)
    if kind == "faiss":
        stage = next(iter(settings.get("stages", [])), None)
        dense = _teacher_again(re.sub(r"^faiss:[^:]*:", "", name), stage)
        return ApproximateTeacher(dense, settings.get("index", ""), candidates=settings.get("candidates", 0))
    again: Teacher = resolve_ensemble(teacher)
    model = name.removeprefix(f"{kind}:")
    if kind in OPENED and (isinstance(again, DenseTeacher) or model != name):
        return ensemble_of_settings({**settings, "model": model, "revision": None})
    return again


@dataclass(frozen=True)
class _Pushed:
    """The lists of a pushed pool, as a `ListSource`."""

    pool: CandidatePool
    column_names: list[str] = field(default_factory=lambda: list(SCHEMA.names))

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """See `ListSource`."""
        return (table.select(columns) for table in list_tables(self.pool.lists, self.pool.positives))


def _lists_again(data: HubData, repo_id: str, teacher: Any, cache_dir: Any) -> Teacher:
    """What stands in the place of a teacher for lists that were scored elsewhere: the pushed pool, read as lists."""
    if data.pool is None:
        raise InputError(
            f"reproduce: the rows of {repo_id} were mined from lists that were scored elsewhere, whose pool was not "
            "pushed with them; push again with_pool=True"
        )
    lists = _Pushed(data.pool)
    name = data.settings["teacher"]
    pool = CandidatePool.from_lists(
        data.queries, data.corpus, lists, teacher=teacher, name=name, cache_dir=cache_dir, progress=False
    )
    assert pool.list_teacher is not None
    return pool.list_teacher


def _roles_that_differ(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """The roles in which a teacher, or one that it builds on, has changed since (see `identity_of`)."""
    mine, theirs = now.get("stages", []), then.get("stages", [])
    below = [role for one, other in zip(mine, theirs, strict=False) for role in _roles_that_differ(one, other)]
    roles: tuple[Role, ...] = ("query", "passage")
    if any(name in then and now.get(name) != then[name] for name in OF_BOTH_ROLES):
        return list(roles)
    return [
        role
        for role in roles
        if now["teacher_fingerprints"][role] != then.get("teacher_fingerprints", {}).get(role)
        or role in below
        or len(mine) != len(theirs)
    ]


def _as_json(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True, default=str)
