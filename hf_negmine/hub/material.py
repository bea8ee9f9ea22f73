"""The parts of a mined data set that can be pushed, gathered from the miner, the cache, or a command's folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import read_sealed
from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import text_digests
from hf_negmine.data.sources import table_batches
from hf_negmine.data.writing import in_memory, lookup_table
from hf_negmine.fitted import Fitted, fit_name
from hf_negmine.hub.provenance import LOOKUPS, POSITIVES
from hf_negmine.hub.settings import check_settings, is_ensemble, require_settings
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool.stored import has_pool
from hf_negmine.report.summary import MiningSummary

TEXTS = (datasets.Value("string"), datasets.Value("large_string"))


@dataclass(frozen=True)
class Material:
    """The parts that can be pushed.

    Attributes:
        rows: the mined rows.
        summary: how they were mined.
        columns: the columns of the query and the positive.
        lookups: queries, corpus and pairs that they were mined from, without those that the cache no longer holds, and
            what a judge has found.
        pool: folder of the candidate pool; None if it is no longer in the cache, if there was no query, or for an
            ensemble, which has several.
        fitted: the fit that the rows were mined from; None if it is no longer in the cache.
    """

    rows: datasets.Dataset
    summary: MiningSummary
    columns: tuple[str, str]
    lookups: dict[str, datasets.Dataset]
    pool: Path | None
    fitted: Fitted | None = None

    @property
    def why_no_pool(self) -> str:
        """The reason why there is no pool to push."""
        if is_ensemble(self.summary.settings):
            return f"{self.summary.settings['teacher']} has a pool per teacher, but a repository holds only one"
        return "the candidate pool is no longer in the cache; mine again"

    @property
    def can_be_mined_again(self) -> bool:
        """Whether everything that `reproduce` needs is here."""
        return set(LOOKUPS) <= set(self.lookups)

    def require_fitted_queries(self) -> None:
        """Raise `InputError` if a row has a query that was not part of the fit, whose texts would be pushed with it."""
        column = self.columns[0]
        if self.fitted is None or self.rows.features.get(column) not in TEXTS:
            return
        queries, unknown = self.fitted.texts.queries, 0
        for table in table_batches(self.rows, [column]):
            texts = table[column].combine_chunks().drop_null()
            unknown += int((queries.find(text_digests(texts)) < 0).sum())
        require(
            not unknown,
            f"push_dataset: {unknown} of {len(self.rows)} rows have a {column!r} that is none of the {len(queries)} "
            "queries that their miner was fitted on, so what they were mined from cannot be pushed with them; push "
            "rows as they were mined, with the miner that was fitted on them (miner=)",
        )

    @classmethod
    def of_fit(cls, rows: datasets.Dataset, fitted: Fitted, cache_dir: Path, summary: MiningSummary) -> Material:
        """Take it from a miner's fit."""
        pool = cache_dir / "pools" / fitted.pool_keys[0]
        return cls(
            rows,
            replace(summary, rows_written=len(rows), seconds={}),
            (fitted.query_column, fitted.positive_column),
            _lookups(fitted),
            pool if len(fitted.pool_keys) == 1 and has_pool(pool) else None,
            fitted,
        )

    @classmethod
    def find(cls, mined: datasets.Dataset, miner: NegativeMiner | None) -> Material:
        """Take it from the note that `NegativeMiner.mine` leaves beside its rows, or else from the miner.

        The note comes first, as the miner may have been fitted on other rows since.

        Raises:
            InputError: the rows have no note, and no miner was given.
        """
        files = [Path(file["filename"]) for file in mined.cache_files]
        note = files[0].with_suffix(".json") if len(files) == 1 else None
        if note is None or not note.exists():
            if miner is not None:
                return cls.of_fit(mined, miner.fitted, miner.config.cache_dir, miner.summary)
            raise InputError(
                "push_dataset: how these rows were mined is not recorded beside them (they come from map, or from "
                "another program); give the miner, miner="
            )
        about = read_sealed(note)
        cache_dir = Path(about.get("cache_dir", note.parent.parent))
        fitted = Fitted.open(cache_dir / "fits" / about["fit"], cache_dir / "texts")
        return cls.of_fit(mined, fitted, cache_dir, fitted.summary)

    @classmethod
    def of_saved(
        cls,
        rows: datasets.Dataset,
        summary: MiningSummary,
        cache_dir: Path,
        lookups: tuple[datasets.Dataset, datasets.Dataset] | None = None,
    ) -> Material:
        """Take it from rows and a summary that a command wrote, and from what the cache still holds of their mining.

        Args:
            rows, summary: as they were written.
            cache_dir: where they were mined; texts and pool that are no longer there are left out.
            lookups: queries and corpus, if they lie beside rows of format ``ids``.

        Raises:
            InputError: the summary has a version that did not record the columns.
        """
        columns = summary.settings.get("columns")
        if columns is None:
            raise InputError(
                "the summary does not record which columns were mined, so another version wrote it; mine again, into "
                "another cache folder"
            )
        check_settings(summary.settings, "the summary, settings")
        require_settings(summary.settings, "the summary")
        folder, texts = cache_dir / "fits" / fit_name(summary.settings, summary.rows), cache_dir / "texts"
        if (folder / "fit.json").exists() and (texts / summary.settings["texts"] / "texts.json").exists():
            return cls.of_fit(rows, Fitted.open(folder, texts), cache_dir, summary)
        summary = replace(summary, rows_written=len(rows), seconds={})
        left = dict(zip(("queries", "corpus"), lookups or (), strict=False))
        return cls(rows, summary, (columns[0], columns[1]), left, None)


def _lookups(fitted: Fitted) -> dict[str, datasets.Dataset]:
    texts, found = fitted.texts, fitted.mined_positives
    counts = np.diff(texts.positive_offsets)
    pairs = {
        "query_id": np.repeat(np.arange(len(counts)), counts),
        "document_id": texts.positive_ids.astype(np.int64),
        "score": np.asarray(fitted.pair_scores),
    }
    return {
        "queries": lookup_table("query_id", "query", texts.queries),
        "corpus": lookup_table("document_id", "document", texts.corpus),
        "pairs": in_memory(pa.table(pairs)),
        **({} if found is None or not len(found) else {POSITIVES: found}),
    }
