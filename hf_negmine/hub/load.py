"""Loading what was pushed, and mining it again. Nothing that comes from the Hub is unpickled or executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from hf_negmine.errors import InputError, StorageError
from hf_negmine.files import default_cache_dir, digest_of, folder_of, publish_folder, scratch_folder
from hf_negmine.hub.network import HubError, hub_errors
from hf_negmine.hub.provenance import LOOKUPS, Provenance, check_name, check_repo_id, provenance_path, row_digests
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.stored import has_pool, is_shared, read_pool
from hf_negmine.protocols import Role, Teacher
from hf_negmine.rules import filters_of_settings, settings_of_filters
from hf_negmine.schema import DigestArray
from hf_negmine.select.ensembles import ensemble_of_settings, resolve_ensemble
from hf_negmine.sources import table_batches, table_of
from hf_negmine.summary import MiningSummary
from hf_negmine.teachers import DenseTeacher, identity_of
from hf_negmine.texts import TextSet, batches_of, build_text_set, find_digests
from hf_negmine.writing import in_memory

OPENED = ("dense", "cross-encoder", "sparse", "late-interaction")
"""Kinds of teachers that are a model."""
OF_BOTH_ROLES = ("similarity", "candidates")
"""What else makes a teacher another one, though its fingerprints are the same."""
MINER_SETTINGS = (
    "method",
    "sampler",
    "num_negatives",
    "positive_score",
    "include_positives",
    "on_exhausted",
    "format",
    "include_scores",
    "pool_depth",
    "seed",
)


@dataclass(frozen=True)
class HubData:
    """A mined data set from the Hub.

    Attributes:
        rows: as they were pushed.
        provenance: how they were mined.
        queries, corpus, pairs: lookup tables of what was mined; None if they were not pushed.
        pool: candidates to select from again; None if it was not pushed.
    """

    rows: datasets.Dataset
    provenance: Provenance
    queries: datasets.Dataset | None = None
    corpus: datasets.Dataset | None = None
    pairs: datasets.Dataset | None = None
    pool: CandidatePool | None = None

    @property
    def summary(self) -> MiningSummary:
        """What was mined and how; print it."""
        return self.provenance.summary

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the miner."""
        return self.provenance.summary.settings


def load_mined(
    repo_id: str,
    config_name: str = "default",
    *,
    split: str = "train",
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> HubData:
    """Rows, settings, lookup tables and pool of a mined data set on the Hub.

    Args:
        repo_id: ``user/name``.
        config_name, split: which part of the data set.
        revision: branch, tag or commit.
        token: of the Hub; None takes the one that is logged in.
        cache_dir: where texts and pool are kept; None takes hf_negmine's own.

    Raises:
        HubError: it is not there, or was not pushed by hf_negmine.
        StorageError: provenance of a later version, files that are damaged or would leave the repository's folder.
    """
    check_repo_id(repo_id)
    path = provenance_path(check_name(config_name, "config_name"), check_name(split, "split"))
    api = HfApi(token=token, library_name="hf_negmine")
    with hub_errors(repo_id, "loading"):
        try:
            local = api.hf_hub_download(repo_id, path, repo_type="dataset", revision=revision)
        except LocalEntryNotFoundError:  # the Hub did not answer: nobody knows whether it is there
            raise
        except EntryNotFoundError as error:
            raise HubError(
                f"loading {repo_id}: it has no {path}, so hf_negmine has not pushed config {config_name!r}, split "
                f"{split!r}"
            ) from error
    provenance = Provenance.from_json(Path(local).read_text(encoding="utf-8"), where=f"{repo_id}/{path}")
    wanted = [name for paths in provenance.files.values() for name in paths]
    with hub_errors(repo_id, "loading"):
        # The commit that the provenance came from, so that a push in between does not mix two versions.
        folder = Path(
            api.snapshot_download(
                repo_id, repo_type="dataset", revision=Path(local).parents[path.count("/")].name, allow_patterns=wanted
            )
        )
    for path in wanted:
        if not (folder / path).is_file():
            raise HubError(f"loading {repo_id}: its provenance names {path}, which it does not have; push it again")
    tables = {
        name: _read_parquet(folder, provenance.files[name], repo_id)
        for name in ("data", *LOOKUPS)
        if name in provenance.files
    }
    data = HubData(tables["data"], provenance, *(tables.get(name) for name in LOOKUPS))
    if "pool" not in provenance.files:
        return data
    home = folder_of(cache_dir, "cache_dir") if cache_dir is not None else default_cache_dir()
    return HubData(data.rows, provenance, data.queries, data.corpus, data.pairs, _open_pool(data, folder, home))


@dataclass(frozen=True)
class Reproduction:
    """What mining again has given.

    Attributes:
        identical: whether the rows are the same, in any order.
        rows, rows_again: how many were pushed, and how many came out.
        missing: pushed rows (of labelled lists: positives with their negatives) that did not come out again.
        teacher_differs: roles in which the weights or settings of the teacher, or of one that it stands on, are others
            than then.
        filters_differ: whether the filters, or the teachers of vetoes, are others than then.
    """

    identical: bool
    rows: int
    rows_again: int
    missing: int
    teacher_differs: list[str]
    filters_differ: bool = False

    def __str__(self) -> str:
        if self.identical:
            return f"identical: all {self.rows:,} rows came out again"
        if not self.missing:
            return (
                f"different: all {self.rows:,} rows came out again, and others besides; rows were left out before they "
                "were pushed"
            )
        why = (
            f"the teacher is another than then (as {' and '.join(self.teacher_differs)} encoder)"
            if self.teacher_differs
            else "the filters are others than then"
            if self.filters_differ
            else "the teacher is the same; its vectors may differ on this processor, or the rows were changed before "
            "they were pushed"
        )
        return f"different: {self.missing:,} of {self.rows:,} rows did not come out again; {why}"


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
        teacher: in place of the one that the settings name, such as a local copy of it. The name or folder of a model
            is opened as the first one was.
        filters: in place of those that the settings name: all of them, in their order. For filters that settings
            cannot make: a judge (nobody's key is sent to an address from the Hub), a `Where`, one of your own.
        progress: show bars.

    Raises:
        InputError: the texts were not pushed, or a teacher or a filter that cannot be made from its settings.
    """
    data = load_mined(repo_id, config_name, split=split, revision=revision, token=token, cache_dir=cache_dir)
    if data.queries is None or data.corpus is None or data.pairs is None:
        lacking = ", ".join(name for name in LOOKUPS if getattr(data, name) is None)
        raise InputError(f"reproduce: {repo_id} was pushed without its {lacking}, so there is nothing to mine again")
    settings = data.settings
    again = _teacher_again(teacher, settings.get("teacher_settings"))
    then = settings.get("filters", [])
    rules = filters_of_settings(then) if filters is None else list(filters)
    query, positive = data.provenance.columns
    miner = NegativeMiner(
        again,
        **{name: settings[name] for name in MINER_SETTINGS},
        engine=settings.get("engine", "exact"),
        filters=rules,
        query_column=query,
        positive_column=positive,
        corpus_column="document",
        cache_dir=cache_dir,
        progress=progress,
    )
    differs = _roles_that_differ(identity_of(again), settings)
    others = _as_json(settings_of_filters(rules)) != _as_json(then)
    rows = _rows_of_pairs(data, query, positive)
    mined = miner.fit(rows, corpus=data.corpus).mine(rows)
    columns = [name for name in data.rows.column_names if name in mined.column_names]
    pushed, found = (_facts(table.select_columns(columns), positive) for table in (data.rows, mined))
    missing = int((find_digests(found, pushed) < 0).sum())
    return Reproduction(np.array_equal(pushed, found), len(data.rows), len(mined), missing, differs, others)


def _facts(rows: datasets.Dataset, positive: str) -> DigestArray:
    """What rows say, each thing once, as digests in order.

    Labelled lists are taken apart, an entry a positive: mining again has one positive a row, the first time may have
    had several.
    """
    if "labels" in rows.column_names and positive in rows.column_names:

        def taken_apart(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            entries: dict[str, list[Any]] = {name: [] for name in [*batch, "negatives"] if name != "labels"}
            for place, (texts, labels) in enumerate(zip(batch[positive], batch["labels"], strict=True)):
                negatives = [text for text, label in zip(texts, labels, strict=True) if not label]
                for text in (text for text, label in zip(texts, labels, strict=True) if label):
                    for name in entries:
                        own = {positive: text, "negatives": negatives}
                        entries[name].append(own[name] if name in own else batch[name][place])
            return entries

        tables = [table_of(taken_apart(table.to_pydict())) for table in table_batches(rows)]
        rows = in_memory(pa.concat_tables(tables))
    return np.asarray(np.unique(row_digests(rows), axis=0))


def _teacher_again(teacher: str | Path | Teacher | None, settings: dict[str, Any] | None) -> Teacher:
    """The teacher of the settings, or another; another model is opened as the first one was, with its prompts."""
    if teacher is None:
        return ensemble_of_settings(settings)
    again: Teacher = resolve_ensemble(teacher)
    kind = (settings or {}).get("kind")
    if isinstance(teacher, str | Path) and kind in OPENED:
        model = str(teacher).removeprefix(f"{kind}:")
        if isinstance(again, DenseTeacher) or model != str(teacher):
            return ensemble_of_settings({**(settings or {}), "model": model, "revision": None})
    return again


def _roles_that_differ(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Roles in which a teacher, or one that it stands on, is another than then (see `identity_of`)."""
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


def _rows_of_pairs(data: HubData, query: str, positive: str) -> datasets.Dataset:
    assert data.pairs is not None
    assert data.queries is not None
    assert data.corpus is not None
    pairs = data.pairs.with_format("arrow")[:]
    try:
        queries = data.queries.with_format("arrow")[:]["query"].take(pairs["query_id"])
        positives = data.corpus.with_format("arrow")[:]["document"].take(pairs["document_id"])
    except (KeyError, pa.ArrowException) as error:
        raise StorageError("the lookup tables are damaged: the pairs name texts that are not there") from error
    return in_memory(pa.table({query: queries, positive: positives}))


def _read_parquet(folder: Path, paths: list[str], repo_id: str) -> datasets.Dataset:
    try:
        loaded = datasets.load_dataset("parquet", data_files=[str(folder / path) for path in paths], split="train")
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        raise StorageError(f"loading {repo_id}: {paths[0]} is no Parquet file, or a damaged one") from error
    assert isinstance(loaded, datasets.Dataset)
    return loaded


def _open_pool(data: HubData, folder: Path, cache_dir: Path) -> CandidatePool:
    """The pool under the cache folder, with the texts it is about."""
    if data.queries is None or data.corpus is None or data.pairs is None:
        raise InputError("the pool was pushed without its queries, corpus and pairs")
    texts = _text_set(data, cache_dir)
    names = [name for name in data.provenance.files["pool"] if is_shared(Path(name).name)]
    target = cache_dir / "pools" / digest_of("hub", data.provenance.rows_digest, texts.fingerprint, names)
    if not has_pool(target, aside=target):
        with scratch_folder(target.parent) as scratch:
            for name in names:
                shutil.copyfile(folder / name, scratch / Path(name).name)
            _check_pool(CandidatePool.load(scratch, sealed=False), texts)
            read_pool(scratch)  # what was tampered with, or damaged on its way
            publish_folder(scratch, target)
    return CandidatePool.load(target)


def _check_pool(pool: CandidatePool, texts: TextSet) -> None:
    """`StorageError` unless all that the pool's numbers name is there."""
    lists, positives = pool.lists, pool.positives
    same = pool.about.get("texts") == texts.fingerprint
    for keys, digests in ((pool.query_keys, texts.queries.digests), (pool.passage_keys, texts.corpus.digests)):
        same = same and np.array_equal(keys, digests[:, 0])
    if not same:
        raise StorageError("the pool is about other texts than those that were pushed with it")
    ids = np.concatenate([lists.passages, positives.ids])
    rising = (lists.starts <= lists.stops).all() and (lists.starts >= 0).all() and (np.diff(lists.offsets) > 0).all()
    inside = (ids >= 0).all() and (ids < pool.n_passages).all() and (lists.stops <= len(lists.passages)).all()
    if not (rising and inside):
        raise StorageError("the pool is damaged: it names candidates that are not there")


def _text_set(data: HubData, cache_dir: Path) -> TextSet:
    assert data.corpus is not None
    rows = _rows_of_pairs(data, "query", "positive").with_format("arrow")[:]
    corpus = data.corpus.with_format("arrow")[:]["document"]
    pairs = [(batch["query"], batch["positive"]) for batch in rows.to_batches()]
    return build_text_set(cache_dir, pairs, batches_of(corpus), query_column="query", positive_column="positive")
