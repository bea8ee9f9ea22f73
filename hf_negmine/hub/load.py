"""Loading pushed data sets. Nothing that comes from the Hub is unpickled or executed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from hf_negmine.base.errors import InputError, NegmineError, StorageError
from hf_negmine.base.files import default_cache_dir, digest_of, publish_folder, scratch_folder
from hf_negmine.base.paths import folder_of
from hf_negmine.data.checks import batches_of
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.texts import TextSet
from hf_negmine.data.writing import in_memory
from hf_negmine.hub.network import HubError, hub_errors
from hf_negmine.hub.provenance import (
    LOOKUPS,
    POSITIVES,
    Provenance,
    check_name,
    check_repo_id,
    provenance_path,
    read_provenance,
)
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.checks import check_pool
from hf_negmine.pool.stored import has_pool, is_shared, read_pool
from hf_negmine.report.summary import MiningSummary

TEXTS = pt.is_string, pt.is_large_string
NUMBERS = (pt.is_integer,)
COLUMNS: dict[str, dict[str, tuple[Any, ...]]] = {
    "queries": {"query": TEXTS},
    "corpus": {"document": TEXTS},
    "pairs": {"query_id": NUMBERS, "document_id": NUMBERS, "score": (pt.is_floating,)},
}
"""The columns that lookup tables need for mining again, with their types."""
SAME = ("teacher", "teacher_fingerprints", "similarity", "stages", "candidates")
"""Facts about its teacher in which a pool must agree with the settings."""
LEFT_THERE = ("scores", "report", POSITIVES)
"""What is not loaded: the pool is there a second time, as scored lists, and the others are for readers."""
POOLS_CHECKED = 1
"""Version of `check_pool`: a pool that an earlier version accepted into the cache is checked again."""


@dataclass(frozen=True)
class HubData:
    """A mined data set from the Hub.

    Attributes:
        rows: the rows as they were pushed.
        provenance: how they were mined.
        queries, corpus, pairs: lookup tables of the mined data; None if they were not pushed.
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
        """A printable summary of what was mined, and how."""
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
    """Load the rows, settings, lookup tables and pool of a mined data set on the Hub.

    Args:
        repo_id: the data set on the Hub, ``user/name``.
        config_name: which part of the data set, such as the name of a method.
        split: which split of that part.
        revision: branch, tag or commit; None takes the main branch.
        token: Hub token; None takes the one of ``hf auth login``.
        cache_dir: where texts and pool are stored; None takes ``$HF_NEGMINE_CACHE`` or ``~/.cache/hf_negmine``.

    Raises:
        HubError: it does not exist, or was not pushed by hf_negmine.
        StorageError: the provenance has a later version, files are damaged or would leave the repository's folder, or
            the pool does not belong to these texts.
    """
    check_repo_id(repo_id)
    path = provenance_path(check_name(config_name, "config_name"), check_name(split, "split"))
    api = HfApi(token=token, library_name="hf_negmine")
    with hub_errors(repo_id, "loading"):
        try:
            local = api.hf_hub_download(repo_id, path, repo_type="dataset", revision=revision)
        except LocalEntryNotFoundError:  # the Hub did not answer, so it may exist
            raise
        except EntryNotFoundError as error:
            raise HubError(
                f"loading {repo_id}: it has no {path}, so hf_negmine has not pushed config {config_name!r}, split "
                f"{split!r}"
            ) from error
    provenance = read_provenance(Path(local).read_bytes(), path, where=f"{repo_id}/{path}")
    wanted = [name for what, paths in provenance.files.items() if what not in LEFT_THERE for name in paths]
    with hub_errors(repo_id, "loading"):
        # The commit that the provenance came from, so that a push in between cannot mix two versions.
        folder = Path(
            api.snapshot_download(
                repo_id, repo_type="dataset", revision=Path(local).parents[path.count("/")].name, allow_patterns=wanted
            )
        )
    for path in wanted:
        if not (folder / path).is_file():
            raise HubError(f"loading {repo_id}: its provenance names {path}, which it does not have; push it again")
    tables = {
        name: read_parquet([folder / path for path in provenance.files[name]], f"{repo_id}/{provenance.files[name][0]}")
        for name in ("data", *LOOKUPS)
        if name in provenance.files
    }
    check_lookups(tables, repo_id)
    data = HubData(tables["data"], provenance, *(tables.get(name) for name in LOOKUPS))
    if "pool" not in provenance.files:
        return data
    home = folder_of(cache_dir, "cache_dir") if cache_dir is not None else default_cache_dir()
    return replace(data, pool=open_pool(data, [folder / path for path in provenance.files["pool"]], home))


def rows_of_pairs(data: HubData, query: str, positive: str) -> datasets.Dataset:
    """The texts of every (query, positive) pair, under these names."""
    try:
        queries = _column(data.queries, "query").take(_column(data.pairs, "query_id"))
        positives = _column(data.corpus, "document").take(_column(data.pairs, "document_id"))
    except (KeyError, pa.ArrowException) as error:
        raise StorageError("the lookup tables are damaged: the pairs name texts that are not there") from error
    return in_memory(pa.table({query: queries, positive: positives}))


def check_lookups(tables: Mapping[str, datasets.Dataset], where: str) -> None:
    """Raise `StorageError` for a lookup table without its required columns, of the right type and without nulls."""
    for name, columns in COLUMNS.items():
        if name not in tables:
            continue
        table = tables[name].with_format("arrow")[:]
        for column, kinds in columns.items():
            right = column in table.column_names and any(is_kind(table.schema.field(column).type) for is_kind in kinds)
            if not right or table[column].null_count:
                raise StorageError(
                    f"{where}: the lookup table {name} has the columns {table.schema.names}, expected "
                    f"{list(columns)} with a value in every row; push it again"
                )


def read_parquet(paths: Sequence[Path], where: str) -> datasets.Dataset:
    """Rows of Parquet files, or `StorageError`."""
    try:
        with hub_errors(where, "reading"):
            loaded = datasets.load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
        assert isinstance(loaded, datasets.Dataset)
        for batch in loaded.data.table.to_batches():
            batch.validate(full=True)  # Parquet does not check that text is UTF-8
    except NegmineError:
        raise
    except Exception as error:  # the builder has many exceptions; all others mean an unreadable file
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise StorageError(f"{where} is not a Parquet file, or a damaged one ({reason})") from error
    return loaded


def open_pool(data: HubData, files: Sequence[Path], cache_dir: Path) -> CandidatePool:
    """Put a pool's files under the cache folder after checking them against their texts, and open it.

    Raises:
        StorageError: the pool is damaged, or belongs to other texts or to another teacher than the settings say.
    """
    if data.queries is None or data.corpus is None or data.pairs is None:
        raise InputError("the pool was pushed without its queries, corpus and pairs")
    texts = text_set_of(data, cache_dir)
    home = cache_dir / "pools"
    with scratch_folder(home) as scratch:
        for file in files:
            if is_shared(file.name):
                shutil.copyfile(file, scratch / file.name)
        content = [(path.name, _digest_of_file(path)) for path in sorted(scratch.iterdir())]
        # Only a checked pool gets its name, which covers everything that was checked: files, texts and rules.
        settings = {name: data.settings.get(name) for name in (*SAME, "include_positives")}
        target = home / digest_of("hub", POOLS_CHECKED, content, texts.fingerprint, settings)
        if not has_pool(target, aside=target):
            check_shared_pool(scratch, texts, data)
            read_pool(scratch)  # checks the seal: nothing was damaged on the way
            publish_folder(scratch, target)
    return CandidatePool.load(target)


def check_shared_pool(folder: Path, texts: TextSet, data: HubData) -> None:
    """Raise `StorageError` unless a pool is intact and belongs to these texts, this teacher and these pairs."""
    try:
        pool = read_pool(folder, sealed=False)
    except NegmineError:
        raise
    except Exception as error:  # numpy and Arrow raise many exceptions for an invalid header
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"the pool is damaged: its files cannot be read ({reason}); push it again") from error
    settings, about = data.settings, pool.about
    other = [name for name in SAME if about.get(name) != settings.get(name)]
    if other:
        raise StorageError(f"the pool belongs to another teacher than the settings say: its {', '.join(other)} differ")
    check_pool(
        pool,
        texts,
        include_positives=settings["include_positives"],
        # A late-interaction teacher may have candidates without a first stage.
        whole_corpus=not ("candidates" in settings and "stages" in settings),
    )
    scores = np.asarray(_column(data.pairs, "score").cast(pa.float32()))
    if not np.array_equal(scores, pool.positives.scores):
        raise StorageError("the pool is damaged: the scores of its positives are not those of the pairs; push it again")


def _digest_of_file(path: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            state.update(block)
    return state.hexdigest()


def text_set_of(data: HubData, cache_dir: Path) -> TextSet:
    """The mined texts, stored under the cache folder."""
    rows = rows_of_pairs(data, "query", "positive").with_format("arrow")[:]
    pairs = [(batch["query"], batch["positive"]) for batch in rows.to_batches()]
    corpus = batches_of(_column(data.corpus, "document"))
    return build_text_set(cache_dir, pairs, corpus, query_column="query", positive_column="positive")


def _column(table: datasets.Dataset | None, name: str) -> pa.ChunkedArray:
    """A column of a lookup table, which is there: what needs it is refused without it."""
    assert table is not None
    return table.with_format("arrow")[:][name]
