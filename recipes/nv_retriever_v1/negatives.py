"""Every training set with its negatives, one Arrow file each: mined by the teacher, or drawn from other labels.

Sets are processed one after another, so that only one is in memory. The teacher's vectors of a set are kept until its
rows are written: an interrupted run continues in the middle of a set, and the disk holds one corpus at a time.
"""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.errors import require
from hf_negmine.base.files import write_json
from hf_negmine.data.sources import table_batches
from hf_negmine.data.writing import in_memory, write_dataset
from hf_negmine.miner import NegativeMiner
from hf_negmine.report.summary import MiningSummary, ScoreStatistics
from hf_negmine.teachers import DenseTeacher
from recipes.common.command import Tell
from recipes.common.offline import place_of
from recipes.common.sets import TrainingSet
from recipes.common.sets.layouts import folder_of
from recipes.common.sets.load import LoadedSet, load_set
from recipes.nv_retriever_v1.recipe import BASE, NVRetriever, Stage

VECTORS = "vectors"
"""Folder of the vectors of the set that is being mined."""


@dataclass(frozen=True)
class NegativeRows:
    """What lies in a folder of sets: ``SET.arrow`` (query, positive, negative_1 …) and ``SET.json``, written last.

    Attributes:
        recipe: whose sets they are.
        folder: that they lie in.
        vectors: a folder that keeps the teacher's vectors for other runs, too; None removes them once a set is done.
    """

    recipe: NVRetriever
    folder: Path
    vectors: Path | None = None

    def is_done(self, one: TrainingSet) -> bool:
        """Whether a set is written."""
        return self._note(one).exists()

    def write(self, one: TrainingSet, *, base: Path, data: Path | None, tell: Tell) -> None:
        """Load a set, find its negatives, and write its rows.

        Args:
            one: the set.
            base: folder of the run's own base, which may be the teacher.
            data: folder of the data sets, in the place of the Hub.
            tell: is handed a line about what came out.

        Raises:
            InputError: data that cannot be read, or no row left.
        """
        recipe = self.recipe
        loaded = load_set(
            one,
            source=None if data is None else folder_of(data, one.hub_id),
            evaluation_source=None
            if data is None or one.evaluation is None
            else folder_of(data, one.evaluation.hub_id),
            samples=recipe.samples_of(one),
            negatives=recipe.num_negatives,
            seed=recipe.seed,
            decontaminate=recipe.decontaminate,
            passages=recipe.passages,
        )
        summary = None
        if "negatives" in loaded.rows.column_names:
            rows = self._write_rows(one, _with_columns(loaded.rows, recipe.num_negatives))
        else:
            rows, summary = self._mine(loaded, base)
        require(
            len(rows) > 0,
            f"{one.name}: none of {len(loaded.rows):,} rows has {recipe.num_negatives} negatives under "
            f"{recipe.mining.miner.method}; relax the method, ask for fewer, or leave the set out",
        )
        short = len(loaded.rows) - len(rows)
        how = "drawn from other labels" if summary is None else "mined"
        tell(
            f"{one.name}: {len(rows):,} rows with negatives {how}; of {loaded.found:,} found, {loaded.dropped:,} "
            f"dropped as evaluation data, {short:,} for want of negatives"
        )
        write_json(
            self._note(one),
            {
                "found": loaded.found,
                "dropped": loaded.dropped,
                "rows": len(rows),
                "short": short,
                "mining": None if summary is None else summary.as_dict(),
            },
        )

    def rows(self, stage: Stage) -> datasets.DatasetDict:
        """The sets of a stage with as many negatives as it takes, memory-mapped, by their names."""
        names = ["query", "positive", *(f"negative_{place}" for place in range(1, stage.hard_negatives + 1))]
        return datasets.DatasetDict(
            {
                one.name: datasets.Dataset.from_file(str(self._rows(one))).select_columns(names)
                for one in self.recipe.sets_of(stage)
            }
        )

    def summary(self) -> MiningSummary | None:
        """How the sets were mined, as one; None if none was."""
        notes = [json.loads(self._note(one).read_text(encoding="utf-8")) for one in self.recipe.sets]
        summaries = [MiningSummary.from_dict(note["mining"]) for note in notes if note["mining"] is not None]
        return _together(summaries) if summaries else None

    def _mine(self, loaded: LoadedSet, base: Path) -> tuple[datasets.Dataset, MiningSummary]:
        recipe, one = self.recipe, loaded.set
        settings = asdict(recipe.mining.teacher)
        settings["model"] = base if settings["model"] == BASE else place_of(settings["model"])
        settings["query_prompt"] = settings["query_prompt"].replace("{task}", one.task)
        teacher = DenseTeacher(**settings)
        miner = NegativeMiner(
            teacher,
            num_negatives=recipe.num_negatives,
            query_column="query",
            positive_column="positive",
            seed=recipe.seed,
            cache_dir=self.vectors or self.folder / VECTORS,
            progress=False,
            **asdict(recipe.mining.miner),
        )
        with teacher.processes() if torch.cuda.device_count() > 1 else nullcontext():
            miner.fit(datasets.concatenate_datasets([loaded.rows, loaded.others]), corpus=loaded.corpus)
        rows = self._write_rows(one, miner.mine(loaded.rows))
        if self.vectors is None:
            shutil.rmtree(self.folder / VECTORS)
        return rows, miner.summary

    def _write_rows(self, one: TrainingSet, rows: datasets.Dataset) -> datasets.Dataset:
        features = datasets.Features(dict.fromkeys(rows.column_names, datasets.Value("large_string")))
        tables = (table.cast(features.arrow_schema) for table in table_batches(rows))
        return write_dataset(self._rows(one), tables, features)

    def _rows(self, one: TrainingSet) -> Path:
        return self.folder / f"{one.name}.arrow"

    def _note(self, one: TrainingSet) -> Path:
        return self.folder / f"{one.name}.json"


def _with_columns(rows: datasets.Dataset, count: int) -> datasets.Dataset:
    """Lists of ``count`` negatives as a column each."""
    table = rows.with_format("arrow")[:]
    flat = table["negatives"].combine_chunks().flatten()
    for place in range(count):
        negatives = flat.take(pa.array(np.arange(place, len(flat), count)))
        table = table.append_column(f"negative_{place + 1}", negatives)
    return in_memory(table.drop_columns(["negatives"]))


def _together(summaries: list[MiningSummary]) -> MiningSummary:
    """Sums over several sets, under the settings that are the same in all of them; of scores, their number alone."""
    first = summaries[0]
    same = {
        name: value
        for name, value in first.settings.items()
        if all(one.settings.get(name) == value for one in summaries)
    }
    rules = sorted({rule for one in summaries for rule in one.removed})
    together: dict[str, Any] = {
        "settings": same,
        "removed": {rule: sum(one.removed.get(rule, 0) for one in summaries) for rule in rules},
        "histograms": None,
        "seconds": {},
    }
    for name in ("rows", "queries", "passages", "complete", "exhausted", "rows_written"):
        together[name] = sum(getattr(one, name) for one in summaries)
    for name in ("positive_scores", "negative_scores", "differences"):
        together[name] = ScoreStatistics(sum(getattr(one, name).count for one in summaries))
    labelled = sum(one.positives_per_query * one.queries for one in summaries)
    return replace(first, positives_per_query=labelled / together["queries"], **together)
