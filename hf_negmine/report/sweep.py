"""Settings of a sweep side by side: how hard their negatives are, and how far they are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.wording import counted
from hf_negmine.select import Selection
from hf_negmine.select.ensembles import agreement

if TYPE_CHECKING:
    import datasets

HEADS = ("method", "sampler", "complete", "mean score", "95th percentile", "over positive", "Jaccard")
NAMES = 2
"""How many of the first columns are names, and not numbers."""


@dataclass(frozen=True)
class SweptSetting:
    """What one setting selects, in numbers.

    Attributes:
        method, sampler: the setting.
        negatives: how many were selected in all.
        complete: share of the queries (or pairs, with one ceiling per positive) that have n negatives.
        mean_score, percentile_95: of the negatives, in the teacher's scale; None if there are none.
        over_positive: share of the negatives that score over the positive that sets their ceiling; None if
            there are none.
        jaccard: mean Jaccard similarity to the negatives of the miner's own setting.
    """

    method: str
    sampler: str
    negatives: int
    complete: float
    mean_score: float | None
    percentile_95: float | None
    over_positive: float | None
    jaccard: float

    @classmethod
    def of(cls, selection: Selection, reference: Selection) -> SweptSetting:
        """The numbers of a selection; ``reference`` selects for the same targets."""
        scores = selection.scores.astype(np.float64)
        return cls(
            method=str(selection.method),
            sampler=str(selection.sampler),
            negatives=len(scores),
            complete=_mean(selection.complete) or 0.0,
            mean_score=_mean(scores),
            percentile_95=round(float(np.quantile(scores, 0.95)), 6) if len(scores) else None,
            over_positive=_mean(scores > selection.references),
            jaccard=round(float(agreement([selection, reference])[0, 1]), 6),
        )


@dataclass(frozen=True)
class Sweep:
    """Settings that were tried on one candidate pool, as a table: print it, `save` it, or read `settings`.

    Attributes:
        settings: one line for each setting.
        teacher: name of the teacher.
        num_negatives: negatives per query.
        queries: number of queries.
        reference: the miner's own method and sampler, with which the others are compared.
    """

    settings: tuple[SweptSetting, ...]
    teacher: str
    num_negatives: int
    queries: int
    reference: str

    @classmethod
    def of(cls, selections: Sequence[Selection], reference: Selection, *, teacher: str, queries: int) -> Sweep:
        """Put selections for the same targets side by side; ``reference`` is what they are compared with."""
        return cls(
            settings=tuple(SweptSetting.of(selection, reference) for selection in selections),
            teacher=teacher,
            num_negatives=reference.n,
            queries=queries,
            reference=f"{reference.method} {reference.sampler}",
        )

    def to_dataset(self) -> datasets.Dataset:
        """The table as a data set, one row for each setting."""
        import datasets

        kinds = {"method": "string", "sampler": "string", "negatives": "int64"}
        features = {one.name: datasets.Value(kinds.get(one.name, "float64")) for one in fields(SweptSetting)}
        return datasets.Dataset.from_list(
            [asdict(setting) for setting in self.settings], features=datasets.Features(features)
        )

    def save(self, path: Path | str) -> None:
        """Write the table to a file: ``.parquet``, ``.csv``, ``.jsonl`` or, for people, ``.md``.

        Raises:
            InputError: the name of the file ends otherwise.
            StorageError: the file cannot be written.
        """
        path = Path(path).expanduser()
        check_suffix(path)
        table = self.to_dataset()
        writers = {".parquet": table.to_parquet, ".csv": table.to_csv, ".jsonl": table.to_json}
        with finish_or_nothing(path) as file:
            if path.suffix == ".md":
                file.write(self.to_markdown().encode())
            else:
                writers[path.suffix](file)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        heads, rows = list(HEADS), [_cells(setting) for setting in self.settings]
        bounds = ["---"] * NAMES + ["---:"] * (len(heads) - NAMES)
        return "".join(f"| {' | '.join(row)} |\n" for row in (heads, bounds, *rows))

    def __str__(self) -> str:
        heads, rows = list(HEADS), [_cells(setting) for setting in self.settings]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = []
        for row in (heads, *rows):
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            cells[:NAMES] = [cell.ljust(width) for cell, width in zip(row[:NAMES], widths, strict=False)]
            lines.append("  ".join(cells))
        queries = f"{self.queries:,} {'query' if self.queries == 1 else 'queries'}"
        given = f"{counted(self.num_negatives, 'negative')} per query, {queries}, teacher {self.teacher}"
        return "\n".join(
            [given, "", *lines, "", f"Jaccard: how similar the negatives are to those of {self.reference}"]
        )


def check_suffix(path: Path) -> None:
    """Raise `InputError` for the name of a file that `Sweep.save` cannot write."""
    if path.suffix not in (".parquet", ".csv", ".jsonl", ".md"):
        raise InputError(f"{path}: a sweep is written as .parquet, .csv, .jsonl or .md; end the name of the file so")


def _cells(setting: SweptSetting) -> list[str]:
    complete = _percent(setting.complete)
    scores = ["-" if value is None else f"{value:.4f}" for value in (setting.mean_score, setting.percentile_95)]
    over = _percent(setting.over_positive)
    return [setting.method, setting.sampler, complete, *scores, over, f"{setting.jaccard:.2f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return round(float(values.mean(dtype=np.float64)), 6) if len(values) else None
