"""Settings of a sweep side by side: how hard their negatives are, how many are false, and which to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_negmine.base.defaults import TOLERANCE
from hf_negmine.base.errors import require
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.schema import IdArray
from hf_negmine.base.wording import counted
from hf_negmine.figures import html
from hf_negmine.figures.stats import FrontPoint
from hf_negmine.report.false_negatives import FEWEST, Labels, Share, shares
from hf_negmine.report.sweep_files import check_suffix, read_table
from hf_negmine.report.swept_setting import FALSE, HEADS, NAMES, SweptSetting, percent, with_front
from hf_negmine.select import Selection

if TYPE_CHECKING:
    import datasets
    from matplotlib.figure import Figure

ENOUGH = 0.95
"""Share of the queries that must have all their negatives under a setting that is recommended."""

ABOUT = {
    "teacher": "string",
    "num_negatives": "int64",
    "queries": "int64",
    "reference": "string",
    "tolerance": "float64",
}
"""The columns of a file that say what was swept, with their types."""
_WRITTEN = {"method": "string", "sampler": "string", "negatives": "int64", "judged": "int64", "front": "bool"}
COLUMNS = {one.name: _WRITTEN.get(one.name, "float64") for one in fields(SweptSetting)} | ABOUT
OPTIONAL = {one.name for one in fields(SweptSetting) if "None" in str(one.type)}


@dataclass(frozen=True)
class Sweep:
    """Settings that were tried on one candidate pool, as a table: print it, `save` it, or read `settings`.

    Without judgements nothing tells how many negatives are false: scores alone do not. With them, the share is measured
    on the judged negatives, and estimated for all: a negative that nobody judged counts with the probability that
    judged ones with such scores have (a logistic regression on its score and its distance to the positive's).

    Attributes:
        settings: one line for each setting.
        teacher: name of the teacher.
        num_negatives: negatives per query.
        queries: number of queries.
        reference: the miner's own method and sampler, with which the others are compared.
        tolerance: the share of false negatives that the recommended setting may have.
    """

    settings: tuple[SweptSetting, ...]
    teacher: str
    num_negatives: int
    queries: int
    reference: str
    tolerance: float = TOLERANCE

    @classmethod
    def of(
        cls,
        selections: Sequence[Selection],
        reference: Selection,
        *,
        teacher: str,
        target_queries: IdArray,
        queries: int,
        labels: Labels | None = None,
        tolerance: float = TOLERANCE,
    ) -> Sweep:
        """Put selections for the same targets side by side.

        Args:
            selections: what was selected.
            reference: what they are compared with.
            teacher: name of the teacher.
            target_queries: the query of each target.
            queries: number of queries.
            labels: judged pairs.
            tolerance: the share of false negatives that the recommended setting may have.
        """
        found = [Share()] * len(selections) if labels is None else shares(selections, target_queries, labels)
        settings = [SweptSetting.of(one, reference, share) for one, share in zip(selections, found, strict=True)]
        return cls(
            settings=with_front(settings),
            teacher=teacher,
            num_negatives=reference.n,
            queries=queries,
            reference=f"{reference.method} {reference.sampler}",
            tolerance=tolerance,
        )

    @property
    def recommended(self) -> SweptSetting | None:
        """The hardest setting with at most `tolerance` false negatives, or that with the fewest; None if unknown."""
        return self._best(self.tolerance)

    @property
    def _eligible(self) -> list[SweptSetting]:
        """The settings with an estimate that give most queries all their negatives, or all if none does."""
        known = [one for one in self.settings if one.estimated is not None]
        return [one for one in known if one.complete >= ENOUGH] or known

    def _best(self, tolerance: float) -> SweptSetting | None:
        open_ = self._eligible
        if not open_:
            return None
        allowed = [one for one in open_ if (one.estimated or 0.0) <= tolerance]
        if allowed:
            return max(allowed, key=lambda one: one.mean_score or 0.0)
        return min(open_, key=lambda one: one.estimated or 0.0)

    @property
    def recommendation(self) -> str:
        """Which setting to take, why, and what would change it."""
        best = self.recommended
        trying = "`hf-negmine sweep --try` (`try_settings`) trains a small student on each setting."
        if best is None:
            return f"Keep {self.reference}: {self._why_unknown} {trying}"
        hardest = max(self._eligible, key=lambda one: one.mean_score or 0.0)
        within = (best.estimated or 0.0) <= self.tolerance
        most = f"{100 * self.tolerance:g} %"
        why = (
            f"its negatives are the hardest of the settings with at most {most} false ones ({percent(best.estimated)})"
            if within
            else f"no setting has at most {most} false negatives, and it has the fewest ({percent(best.estimated)})"
        )
        others = "" if hardest is best else f"; {hardest.name}, the hardest, has {percent(hardest.estimated)}"
        half = self._best(self.tolerance / 2)
        changed = ""
        if within and half is not None and half is not best and (half.estimated or 0.0) <= self.tolerance / 2:
            changed = f" If only {100 * self.tolerance / 2:g} % may be false, take {half.name}."
        unsure = ""
        if within and best.judged != best.negatives and best.high is not None and best.high > self.tolerance:
            unsure = (
                f" More judgements may change this: measured on {counted(best.judged, 'negative')} of it, the share is "
                f"at most {percent(best.high)}."
            )
        left_out = ""
        if any(one.estimated is not None and one not in self._eligible for one in self.settings):
            left_out = f" Settings that leave over {100 * (1 - ENOUGH):g} % of the queries short were not considered."
        return f"Take {best.name}: {why}{others}.{changed}{unsure}{left_out} {trying}"

    @property
    def _why_unknown(self) -> str:
        """Why nothing tells how many negatives are false, and what would."""
        relevant = [round((one.measured or 0.0) * one.judged) for one in self.settings]
        others = [one.judged - count for one, count in zip(self.settings, relevant, strict=True)]
        if not any(relevant + others):
            return (
                "nothing here tells how many negatives are false, and scores alone do not; judge some negatives of "
                "several settings (--judgements) to have it measured."
            )
        lacking = [kind for kind, of in (("relevant", relevant), ("not relevant", others)) if max(of) < FEWEST]
        return (
            f"to estimate how many negatives are false takes at least {FEWEST} that were judged relevant and {FEWEST} "
            f"that were judged not relevant, and of those judged {' and '.join(lacking)} there are fewer; judge more "
            "negatives of several settings (--judgements)."
        )

    def as_dict(self) -> dict[str, Any]:
        """The sweep as JSON-able content, with the recommendation."""
        recommended = None if self.recommended is None else asdict(self.recommended)
        return {**asdict(self), "recommended": recommended, "recommendation": self.recommendation}

    def to_dataset(self) -> datasets.Dataset:
        """The table as a data set, one row for each setting, which also says what was swept."""
        import datasets

        about = {name: getattr(self, name) for name in ABOUT}
        features = datasets.Features({name: datasets.Value(kind) for name, kind in COLUMNS.items()})
        return datasets.Dataset.from_list([asdict(one) | about for one in self.settings], features=features)

    @classmethod
    def read(cls, path: Path | str) -> Sweep:
        """Read what `save` wrote into a file: ``.parquet``, ``.csv`` or ``.jsonl``.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        rows = read_table(path, COLUMNS, OPTIONAL)
        abouts = [{name: row.pop(name) for name in ABOUT} for row in rows]
        several = len({tuple(about.values()) for about in abouts})
        require(several == 1, f"sweep: {path} holds {several} sweeps, expected one; give a file for each")
        return cls(tuple(SweptSetting(**row) for row in rows), **abouts[0])

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
        """The table in Markdown, and the recommendation."""
        heads, *rows = self.cells()
        bounds = ["---"] * NAMES + ["---:"] * (len(heads) - NAMES)
        table = "".join(f"| {' | '.join(row)} |\n" for row in (heads, bounds, *rows))
        return f"{table}\n{self.recommendation}\n"

    def plot(self) -> Figure:
        """The front as a picture: how hard each setting's negatives are, and how many are false.

        Raises:
            InputError: there are no estimates, or matplotlib is not installed.
        """
        from hf_negmine.figures.plots import plot_front

        points = [
            FrontPoint(one.name, one.mean_score, one.estimated, bool(one.front), one == self.recommended)
            for one in self.settings
            if one.mean_score is not None and one.estimated is not None
        ]
        require(
            self.recommended is not None,
            "plot: nothing tells how many negatives are false; sweep with more judgements= (--judgements)",
        )
        return plot_front(points, title=self.heading.rpartition(", teacher")[0])

    def _repr_html_(self) -> str:
        heads, *rows = self.cells()
        best = [place for place, one in enumerate(self.settings) if one == self.recommended]
        return (
            html.lines([self.heading])
            + html.table(heads, rows, names=NAMES, bold=best)
            + html.lines([*self._told, self.recommendation])
        )

    @property
    def _told(self) -> list[str]:
        """What the columns mean."""
        told = [f"Jaccard: how similar the negatives are to those of {self.reference}"]
        if any(one.front for one in self.settings):
            told.append("front: no other setting has negatives as hard with a lower share of false ones")
        return told

    def cells(self) -> list[list[str]]:
        """The heads of the columns, then a row for each setting, as people read them."""
        with_judged = any(one.judged or one.estimated is not None for one in self.settings)
        rows = [one.cells for one in self.settings]
        if not with_judged:
            return [list(HEADS), *rows]
        return [[*HEADS, *FALSE], *(row + one.false_cells for row, one in zip(rows, self.settings, strict=True))]

    def __str__(self) -> str:
        table = self.cells()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            cells[:NAMES] = [cell.ljust(width) for cell, width in zip(row[:NAMES], widths, strict=False)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([self.heading, "", *lines, "", *self._told, "", self.recommendation])

    @property
    def heading(self) -> str:
        """What was swept."""
        queries = f"{self.queries:,} {'query' if self.queries == 1 else 'queries'}"
        return f"{counted(self.num_negatives, 'negative')} per query, {queries}, teacher {self.teacher}"
