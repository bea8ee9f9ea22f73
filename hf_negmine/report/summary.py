"""A summary of a mining run in numbers: printed as a table, stored as JSON beside the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.schema import BoolArray, FloatArray
from hf_negmine.base.shapes import (
    Shape,
    anything,
    check_plain,
    flag,
    list_of,
    map_of,
    number,
    optional,
    record,
    text,
    whole,
)
from hf_negmine.base.wording import counted
from hf_negmine.data.texts import TextSet
from hf_negmine.figures import html
from hf_negmine.figures.stats import ScoreHistograms
from hf_negmine.report.truncation import Truncation, truncation_lines
from hf_negmine.select import Selection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ScoreStatistics:
    """Mean, standard deviation, extremes and quartiles of some scores; None for each if there are no scores."""

    count: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    quartile_1: float | None = None
    median: float | None = None
    quartile_3: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, scores: FloatArray) -> ScoreStatistics:
        """Statistics of an array of any length."""
        if not len(scores):
            return cls(0)
        values = scores.astype(np.float64)
        quartiles = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
        low, first, median, third, high = (round(float(value), 6) for value in quartiles)
        return cls(
            len(values), round(float(values.mean()), 6), round(float(values.std()), 6), low, first, median, third, high
        )


@dataclass(frozen=True)
class MiningSummary:
    """A summary of what was mined, and how; printed as a table, stored as JSON beside the data set.

    Attributes:
        settings: teacher, method, sampler and every other setting, with digests and versions.
        rows: number of rows that were given.
        queries, passages: numbers of unique texts.
        positives_per_query: mean number of labeled passages.
        complete, exhausted: queries (or pairs, with one ceiling per positive) that have n negatives, or for which the
            corpus holds fewer eligible passages.
        list_ended: those for which a list from elsewhere ends before that is known; None for candidates of the miner's
            own search.
        removed: for each rule, how many of the pool's candidates it kept out, the best ``pool_depth`` of each query.
        positive_scores, negative_scores, differences: in the teacher's scale; a difference is the positive score that
            set the ceiling minus a negative's score.
        histograms: histograms of the scores; None in a summary from a version without them.
        rows_written: rows of the result; None before it is written.
        inconsistent: labeled pairs whose positive the teacher does not find; None without a consistency rule.
        judged: pairs that a judge was asked about; None without a judge.
        recall: by approximate teacher, the share of the exact best passages that it finds, on a sample of the queries.
        agreement: with an ensemble, its teachers and the mean Jaccard similarity of their best negatives (table 6).
        truncation: how many texts were longer than each teacher reads; empty if no teacher can tell.
    """

    settings: dict[str, Any]
    rows: int
    queries: int
    passages: int
    positives_per_query: float
    complete: int
    exhausted: int
    removed: dict[str, int]
    positive_scores: ScoreStatistics
    negative_scores: ScoreStatistics
    differences: ScoreStatistics
    histograms: ScoreHistograms | None = None
    list_ended: int | None = None
    rows_written: int | None = None
    inconsistent: int | None = None
    judged: int | None = None
    recall: dict[str, float] | None = None
    agreement: dict[str, Any] | None = None
    truncation: tuple[Truncation, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON-able content."""
        return {**asdict(self), "truncation": [asdict(one) for one in self.truncation]}

    @classmethod
    def of(
        cls,
        texts: TextSet,
        selection: Selection,
        rows: int,
        settings: dict[str, Any],
        seconds: dict[str, float],
        *,
        consistent: BoolArray | None = None,
        judged: int | None = None,
        recall: dict[str, float] | None = None,
        truncation: tuple[Truncation, ...] = (),
    ) -> MiningSummary:
        """Summarize a selection."""
        agreement = None
        if selection.agreement is not None:
            agreement = {
                "teachers": [stage["teacher"] for stage in settings["stages"]],
                "jaccard": [[round(float(value), 4) for value in row] for row in selection.agreement],
            }
        status = selection.status
        own = int((texts.own_text >= 0).sum())
        removed = dict(selection.removed)
        if not settings.get("include_positives"):
            own_text = {"having the query's own text": own} if own else {}
            removed = {"being labeled positives": len(texts.positive_ids), **own_text, **removed}
        return cls(
            settings=settings,
            rows=rows,
            queries=len(texts.queries),
            passages=len(texts.corpus),
            positives_per_query=round(len(texts.positive_ids) / max(len(texts.queries), 1), 4),
            complete=int(np.count_nonzero(status == "complete")),
            exhausted=int(np.count_nonzero(status == "exhausted")),
            list_ended=None if selection.list_ended is None else int(selection.list_ended.sum()),
            removed=removed,
            positive_scores=ScoreStatistics.of(selection.pair_scores),
            negative_scores=ScoreStatistics.of(selection.scores),
            differences=ScoreStatistics.of(selection.references - selection.scores),
            histograms=ScoreHistograms.of(
                np.asarray(selection.pair_scores), selection.references, selection.offsets, selection.scores
            ),
            seconds={name: round(value, 3) for name, value in seconds.items()},
            inconsistent=None if consistent is None else int(np.count_nonzero(~consistent)),
            judged=judged,
            recall=recall,
            agreement=agreement,
            truncation=truncation,
        )

    @classmethod
    def from_dict(cls, content: Any, *, where: str = "the summary") -> MiningSummary:
        """The inverse of `as_dict`; nothing in it is trusted.

        Raises:
            StorageError: the content has another shape.
        """
        check_plain(content, where)
        SHAPE(content, where)
        names = ("positive_scores", "negative_scores", "differences")
        parts: dict[str, Any] = {name: ScoreStatistics(**content[name]) for name in names}
        if content.get("histograms") is not None:
            parts["histograms"] = ScoreHistograms.from_dict(content["histograms"])
        parts["truncation"] = tuple(Truncation(**one) for one in content.get("truncation", ()))
        return cls(**{**content, **parts})

    def plot(self) -> Figure:
        """The histograms as a picture; a notebook shows it.

        Raises:
            InputError: the summary has no histograms, or matplotlib is not installed.
        """
        from hf_negmine.figures.plots import plot_scores

        if self.histograms is None:
            raise InputError("plot: this summary was written by a version without histograms; mine again")
        return plot_scores(
            self.histograms,
            title=f"{self.settings['method']} with {self.settings['sampler']}, {self.settings['teacher']}",
        )

    def _repr_html_(self) -> str:
        before, numbers, *after = str(self).split("\n\n", 2)
        heads, *rows = numbers.splitlines()
        cells = [[row[:11].strip(), *row[11:].split()] for row in rows]
        statistics = html.table(["", *heads.split()], cells)
        return html.lines(before.splitlines()) + statistics + html.lines("".join(after).splitlines())

    def __str__(self) -> str:
        settings = self.settings
        repeats = self.rows - self.positive_scores.count
        lines = [
            f"{counted(settings['num_negatives'], 'negative')} per query by {settings['method']} with "
            f"{settings['sampler']}, teacher {settings['teacher']}",
            f"{counted(self.rows, 'row')}: {self.queries:,} {'query' if self.queries == 1 else 'queries'} with "
            f"{self.positives_per_query:.2f} positives each, "
            f"corpus of {counted(self.passages, 'passage')}",
            *(
                [f"{counted(repeats, 'row')} with the query and positive of another row, written as often"]
                if repeats > 0
                else []
            ),
            f"complete {self.complete:,}, exhausted {self.exhausted:,}"
            + ("" if self.list_ended is None else f", list ended {self.list_ended:,}")
            + (
                ""
                if self.rows_written is None
                else f"; {counted(self.rows_written, 'row')} written ({settings['format']})"
            ),
            "",
            f"{'':<9}{'positives':>12}{'negatives':>12}{'difference':>12}",
        ]
        names = ("count", "mean", "std", "min", "quartile_1", "median", "quartile_3", "max")
        for name in names:
            values = [getattr(part, name) for part in (self.positive_scores, self.negative_scores, self.differences)]
            cells = "".join(f"{_cell(value):>12}" for value in values)
            lines.append(f"{name.replace('_', ' '):<11}{cells[2:]}")
        lines.append("")
        lines += [f"{counted(count, 'candidate')} kept out by {rule}" for rule, count in self.removed.items()]
        lines += truncation_lines(self.truncation)
        if self.judged is not None:
            lines.append(f"{counted(self.judged, 'pair')} judged")
        if self.inconsistent is not None:
            lines.append(
                f"{counted(self.inconsistent, 'inconsistent labeled pair')}: the teacher does not find the positive"
            )
        for teacher, share in (self.recall or {}).items():
            lines.append(f"{teacher} finds {100 * share:.1f} % of the best passages")
        if self.agreement is not None:
            lines += ["", *agreement_table(self.agreement["teachers"], self.agreement["jaccard"])]
        return "\n".join(lines).rstrip()


def _agreement(value: Any, where: str) -> None:
    """The names of teachers, and a square matrix of similarities."""
    record({"teachers": list_of(text)}, required=("teachers", "jaccard"))(value, where)
    n = len(value["teachers"])
    list_of(list_of(number, length=n), length=n)(value["jaccard"], f"{where}.jaccard")


_STATISTICS = record(
    {name: whole() if name == "count" else optional(number) for name in ScoreStatistics.__dataclass_fields__},
    required=["count"],
    closed=True,
)
_HISTOGRAM = record(
    {"edges": list_of(number), "counts": list_of(whole()), "mean": optional(number)},
    required=("edges", "counts", "mean"),
    closed=True,
)
_HISTOGRAMS = dict.fromkeys(("positives", "negatives", "differences", "losses"), _HISTOGRAM)
_REQUIRED: dict[str, Shape] = {
    "settings": map_of(anything),
    **{name: whole() for name in ("rows", "queries", "passages", "complete", "exhausted")},
    "positives_per_query": number,
    "removed": map_of(whole()),
    **dict.fromkeys(("positive_scores", "negative_scores", "differences"), _STATISTICS),
}
_TRUNCATION: dict[str, Shape] = {
    "teacher": text,
    "texts": text,
    "limit": whole(),
    "share": number,
    "sampled": flag,
}
SHAPE = record(
    {
        **_REQUIRED,
        "truncation": list_of(record(_TRUNCATION, required=_TRUNCATION, closed=True)),
        "histograms": optional(
            record({**_HISTOGRAMS, "temperature": number}, required=[*_HISTOGRAMS, "temperature"], closed=True)
        ),
        **{name: optional(whole()) for name in ("list_ended", "rows_written", "inconsistent", "judged")},
        "recall": optional(map_of(number)),
        "agreement": optional(_agreement),
        "seconds": map_of(number),
    },
    required=_REQUIRED,
    closed=True,
)
"""The shape of `MiningSummary.as_dict`, except for the settings (`hub.settings`)."""


def agreement_table(teachers: Sequence[str], jaccard: Sequence[Sequence[float]]) -> list[str]:
    """The matrix of the paper's table 6 as lines of text."""
    names = [name if len(name) <= 24 else name[:23] + "…" for name in teachers]
    lines = ["agreement of the teachers (mean Jaccard similarity of their best negatives)"]
    lines.append(" " * 26 + "".join(f"{place + 1:>7}" for place in range(len(names))))
    for place, name in enumerate(names):
        lines.append(f"{place + 1} {name:<24}" + "".join(f"{value:>7.2f}" for value in jaccard[place]))
    return lines


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
