"""Mining a pushed data set again, and comparing the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, StorageError, require
from hf_negmine.base.naming import public_content
from hf_negmine.base.protocols import Role, Teacher
from hf_negmine.base.schema import DigestArray, IdArray
from hf_negmine.config import MiningConfig
from hf_negmine.data.sources import table_batches, table_of
from hf_negmine.data.texts import find_digests, sort_digests
from hf_negmine.data.writing import in_memory
from hf_negmine.hub.load import HubData, load_mined, rows_of_pairs
from hf_negmine.hub.provenance import KEPT, LOOKUPS, row_digests
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
    """

    identical: bool
    rows: int
    rows_again: int
    missing: int
    repeated: int
    not_compared: list[str]
    teacher_differs: list[str]
    filters_differ: bool = False

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
                "repeated before they were pushed"
            )
        return (
            f"different: all {self.rows:,} rows came out again, plus others; rows were left out before they were pushed"
        )

    @property
    def _why(self) -> str:
        if self.teacher_differs:
            return f"the teacher has changed since (as {' and '.join(self.teacher_differs)} encoder)"
        if self.filters_differ:
            return "the filters have changed since"
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
    columns = _columns_of_mining(data, config, repo_id)
    miner = NegativeMiner.from_config(config)
    miner.fit(rows := rows_of_pairs(data, query, positive), corpus=None if from_lists else data.corpus)
    mined = miner.mine(rows)
    pushed = _with_types_of(data.rows.select_columns(columns), mined.select_columns(columns), repo_id)
    missing, repeated, left_out = _compared(pushed, mined.select_columns(columns), data)
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
    )


def _columns_of_mining(data: HubData, config: MiningConfig, repo_id: str) -> list[str]:
    """The columns that mining again writes; `InputError` unless the pushed rows have all of them."""
    query, positive = data.provenance.columns
    layout = config.layout(query, positive)
    require(
        layout.tool is None,
        f"reproduce: the rows of {repo_id} are in format {config.format!r}, whose rows may hold several pairs; "
        "only the formats of Sentence Transformers and 'ids' are compared, pair by pair",
    )
    columns = [*([] if query in layout.replaced_columns else [query]), *layout.new_columns]
    if lacking := [name for name in columns if name not in data.rows.column_names]:
        raise InputError(
            f"reproduce: the rows of {repo_id} have the columns {data.rows.column_names} and lack {lacking[:4]}, which "
            f"format {config.format!r} writes, so there is nothing to compare; push the rows under the names that "
            "mine gave them"
        )
    return columns


def _with_types_of(pushed: datasets.Dataset, mined: datasets.Dataset, repo_id: str) -> datasets.Dataset:
    """The pushed rows with the types of mined rows, since a column may have been cast before the push."""
    table = pushed.with_format("arrow")[:]
    try:
        return in_memory(table.cast(mined.data.table.schema.remove_metadata()))
    except pa.ArrowException as error:
        raise InputError(
            f"reproduce: the rows of {repo_id} have the types {pushed.data.table.schema.types}, expected those of "
            f"mined rows, {mined.data.table.schema.types}; push the rows as mine gave them"
        ) from error


def _compared(pushed: datasets.Dataset, mined: datasets.Dataset, data: HubData) -> tuple[int, int, int]:
    """The numbers of pushed rows that did not come out again, of surplus copies, and of other rows that came out.

    A row comes out once for each (query, positive) pair, and was pushed once for each row that was given: as many
    copies are legitimate as rows were given beyond the pairs. A negative of format ``labeled-pair`` is shared by the
    positives that were given in one row, and may therefore occur less often than it came out.
    """
    settings, (_, positive) = data.settings, data.provenance.columns
    shared = settings["format"] == "labeled-pair"
    facts, rows = _facts(pushed, positive)
    facts_again, _ = _facts(mined, positive)
    _, ordered = sort_digests(np.unique(facts_again, axis=0))
    came = np.bincount(find_digests(ordered, facts_again), minlength=len(ordered))
    place = find_digests(ordered, facts)
    missing = len(np.unique(rows[place < 0]))
    there = np.bincount(place[place >= 0], minlength=len(ordered))
    of_a_pair = {"triplet": settings["num_negatives"], "labeled-pair": settings["num_negatives"] + 1}
    assert data.pairs is not None
    given_again = max(0, data.summary.rows - len(data.pairs)) * of_a_pair.get(settings["format"], 1)
    repeated = int(np.maximum(there - came, 0).sum())
    left_out = int(np.maximum((np.minimum(came, 1) if shared else came) - there, 0).sum())
    return missing, repeated if repeated > given_again else 0, left_out


def _facts(rows: datasets.Dataset, positive: str) -> tuple[DigestArray, IdArray]:
    """The facts stated by rows, as digests, and the row of each.

    Labeled lists are split into one entry per positive: mining again has one positive per row, but the first time may
    have had several.
    """
    if "labels" not in rows.column_names or positive not in rows.column_names:
        return row_digests(rows), np.arange(len(rows))
    counts: list[int] = []

    def taken_apart(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        entries: dict[str, list[Any]] = {name: [] for name in [*batch, "negatives"] if name != "labels"}
        for place, (texts, labels) in enumerate(zip(batch[positive], batch["labels"], strict=True)):
            marked = list(zip(texts or [], labels or [], strict=False))
            negatives = [text for text, label in marked if not label]
            # A row without a positive states something, too.
            positives = [text for text, label in marked if label] or [None]
            counts.append(len(positives))
            for text in positives:
                for name in entries:
                    own = {positive: text, "negatives": negatives}
                    entries[name].append(own[name] if name in own else batch[name][place])
        return entries

    tables = [table_of(taken_apart(table.to_pydict())) for table in table_batches(rows)]
    whole = in_memory(pa.concat_tables(tables, promote_options="permissive"))
    return row_digests(whole), np.repeat(np.arange(len(counts)), counts)


def _teacher_again(teacher: str | Path | Teacher | None, settings: dict[str, Any] | None) -> Teacher:
    """The teacher of the settings, or the given one; a given model is opened as the first one was, prompts included."""
    if teacher is None:
        return ensemble_of_settings(settings)
    kind = (settings or {}).get("kind")
    if settings is not None and kind == "faiss" and isinstance(teacher, str | Path):
        stage = next(iter(settings.get("stages", [])), None)
        dense = _teacher_again(re.sub(r"^faiss:[^:]*:", "", str(teacher)), stage)
        return ApproximateTeacher(dense, settings.get("index", ""), candidates=settings.get("candidates", 0))
    again: Teacher = resolve_ensemble(teacher)
    if isinstance(teacher, str | Path) and kind in OPENED:
        model = str(teacher).removeprefix(f"{kind}:")
        if isinstance(again, DenseTeacher) or model != str(teacher):
            return ensemble_of_settings({**(settings or {}), "model": model, "revision": None})
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
