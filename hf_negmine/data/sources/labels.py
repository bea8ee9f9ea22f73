"""Columns that label passages as relevant or not, beside rows that are all read as (query, positive).

Such rows are refused if some of their passages are labeled as not relevant: mined unchanged, those would act as
positives and set ceilings. Grades (fractions, such as a similarity) do not define what a positive is, and are not read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.data.checks import in_code, is_list, is_text
from hf_negmine.data.formats import RowFormat

logger = logging.getLogger(__name__)

NAMES = re.compile(
    r"((gold|human|esci)_)?labels?|scores?|grades?|relevance(_(label|score|grade|judge?ment))?|qrels?|rel|judge?ments?"
    r"|(is_|has_)?(relevant|positive|duplicate|match|correct|selected|answer|gold)|targets?|y"
)
NOT_RELEVANT = re.compile(
    r"false|no|n|f|negative|irrelevant|contradiction|neutral|different|hard_negative|non(_?)relevant|(not|non)_.*"
)
MOST_SHOWN = 5
"""Most distinct labels that a message lists."""


def label_columns(available: Iterable[str], query: str, positive: str) -> list[str]:
    """The columns whose name indicates that they label or grade the rows."""
    return [name for name in available if name not in (query, positive) and NAMES.fullmatch(_plain(name))]


def check_labels(batch: pa.Table, query: str, positive: str) -> None:
    """Raise `InputError` if a label column marks passages of these rows as not relevant."""
    labels = Labels.of(label_columns(batch.column_names, query, positive), None)
    labels.add(batch, positive)
    labels.check(positive, "rows", tell_grades=False)


def check_classes(features: datasets.Features | None, row_format: RowFormat) -> None:
    """Raise `InputError` if a format reads a class over 0 as a positive whose name says the opposite."""
    name = row_format.of_negatives[0]
    kind = (features or {}).get(name) if row_format.name.startswith("labeled") else None
    kind = getattr(kind, "feature", kind)
    classes = kind.names if isinstance(kind, datasets.ClassLabel) else []
    wrong = next((number for number, word in enumerate(classes) if number > 0 and _says_no(word)), None)
    if wrong is not None:
        raise InputError(
            f"column {name!r} has the class {classes[wrong]!r} under {wrong}, but {row_format.name!r} takes labels "
            "over 0 for positives; put 1 for the positives and 0 for all others into the column first"
        )


@dataclass
class Labels:
    """The content of the label columns of rows, collected batch by batch."""

    columns: dict[str, _Column]

    @classmethod
    def of(cls, names: Iterable[str], features: Mapping[str, Any] | None) -> Labels:
        """Start with these columns; ``features`` give the class names of those that have classes."""
        kinds = {name: (features or {}).get(name) for name in names}
        return cls(
            {
                name: _Column(kind.names if isinstance(kind, datasets.ClassLabel) else None)
                for name, kind in kinds.items()
            }
        )

    def expect(self, names: Iterable[str]) -> None:
        """Read these columns, too, from now on."""
        for name in names:
            self.columns.setdefault(name, _Column(None))

    def add(self, table: pa.Table, positive: str) -> None:
        """Read the labels of a batch of rows."""
        for name, column in self.columns.items():
            if name in table.column_names:
                column.add(table[name], table[positive])

    def check(self, positive: str, code: str, *, tell_grades: bool = True) -> None:
        """Raise `InputError` for the first column with labels of 0 and the like; warn about grades that are not read.

        ``code`` is the rows as a Dataset in Python.
        """
        for name, column in self.columns.items():
            if column.refused and (column.in_lists or not column.graded):
                raise InputError(_refusal(name, column, positive, code))
            if column.graded and column.in_lists:
                raise InputError(
                    f"column {name!r} grades the passages in {positive!r} (from {column.low:g} to {column.high:g}), "
                    "and all of them would be positives; keep only the real ones, for example with "
                    f"{_kept_in_lists(code, positive, name, f'float(label or 0) >= {column.middle}')}, or leave the "
                    f"column out with remove_columns({name!r}) if they all are"
                )
            if column.graded and tell_grades:
                logger.warning(
                    "column %r holds grades from %g to %g, which are not read: all of the %s rows are mined as a query "
                    "with its positive; leave the others out first, for example with %s",
                    name, column.low, column.high, f"{column.rows:,}",
                    in_code(code, f".filter(lambda row: float(row[{name!r}] or 0) >= {column.middle})"),
                )  # fmt: skip


@dataclass
class _Column:
    """The content of one column so far.

    Attributes:
        names: the names of its classes, if it has classes.
        rows: number of labels that were read.
        refused: how many of them mark a passage as not relevant; ``values`` holds which ones.
        graded: whether some are fractions; ``low`` and ``high`` hold their range.
        in_lists: whether the labels are in lists, beside lists of passages.
    """

    names: list[str] | None
    rows: int = 0
    refused: int = 0
    values: set[Any] = field(default_factory=set)
    graded: bool = False
    in_lists: bool = False
    low: float = np.inf
    high: float = -np.inf

    @property
    def middle(self) -> str:
        """The middle of the range of grades."""
        return f"{(self.low + self.high) / 2:.2g}"

    def add(self, labels: pa.ChunkedArray, positives: pa.ChunkedArray) -> None:
        if is_list(labels.type):
            if not is_list(positives.type):
                return  # the labels belong to something other than this passage
            same = pc.equal(pc.list_value_length(labels), pc.list_value_length(positives))
            labels = pc.list_flatten(labels.filter(pc.fill_null(same, False)))
            self.in_lists |= len(labels) > 0
        if pa.types.is_dictionary(labels.type):
            labels = labels.cast(labels.type.value_type)
        if pa.types.is_decimal(labels.type):
            labels = labels.cast(pa.float64())
        labels = labels.drop_null()
        if is_text(labels.type):
            self._add_words(labels.cast(pa.large_string()))
        elif pa.types.is_boolean(labels.type) or pa.types.is_integer(labels.type) or pa.types.is_floating(labels.type):
            self._add_numbers(labels)

    def _add_numbers(self, labels: pa.ChunkedArray) -> None:
        if self.names is not None:
            counted = ((self._class(value["values"]), value["values"], value["counts"]) for value in _counts(labels))
            self._count((_says_no(name), value, count) for name, value, count in counted)
            return
        own = labels.to_numpy()
        numbers = own.astype(np.float64)
        finite = np.isfinite(numbers)
        own, numbers = own[finite], numbers[finite]
        if not len(numbers):
            return
        self.rows += len(numbers)
        self.graded |= bool((numbers != np.floor(numbers)).any())
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        self.refused += int((numbers <= 0).sum())
        self.values.update(np.unique(own[numbers <= 0])[: MOST_SHOWN + 1].tolist())

    def _add_words(self, labels: pa.ChunkedArray) -> None:
        counted = [(value["values"], value["counts"]) for value in _counts(labels)]
        numbers = [number for word, _ in counted if (number := _number(word)) is not None]
        if any(number != np.floor(number) for number in numbers):
            self.graded = True
            self.low, self.high = min(self.low, *numbers), max(self.high, *numbers)
        self._count((numbers[word] <= 0 if word in numbers else _says_no(word), word, count) for word, count in counted)

    def _count(self, labels: Iterable[tuple[bool, Any, int]]) -> None:
        for says_no, value, count in labels:
            self.rows += count
            if says_no:
                self.refused += count
                self.values.add(value)

    def _class(self, number: int) -> str:
        return self.names[number] if self.names is not None and 0 <= number < len(self.names) else str(number)


def _refusal(name: str, column: _Column, positive: str, code: str) -> str:
    shown = sorted(column.values)[:MOST_SHOWN]
    listed = " or ".join(repr(value) if column.names is None else f"{column._class(value)!r}" for value in shown)
    what = "passages" if column.in_lists else "rows"
    is_kept = f"not in {shown}" if len(column.values) <= MOST_SHOWN else "> 0"
    if column.in_lists:
        kept = _kept_in_lists(code, positive, name, f"label {is_kept}")
    else:
        kept = in_code(code, f".filter(lambda row: row[{name!r}] {is_kept})")
    return (
        f"column {name!r} is {listed} for {column.refused:,} of {column.rows:,} {what}, which marks them as not "
        f"relevant, and all of them would be mined as positives; keep the others, for example with {kept}, or leave "
        f"the column out with remove_columns({name!r}) if it means something else"
    )


def _kept_in_lists(code: str, positive: str, name: str, condition: str) -> str:
    texts = f"[text for text, label in zip(row[{positive!r}], row[{name!r}]) if {condition}]"
    call = f".map(lambda row: {{{positive!r}: {texts}}}, remove_columns=[{name!r}])"
    return in_code(code, f"{call}.filter(lambda row: bool(row[{positive!r}]))")


def _counts(labels: pa.ChunkedArray) -> list[dict[str, Any]]:
    return pc.value_counts(labels).to_pylist()  # type: ignore[no-any-return]


def _says_no(word: str) -> bool:
    number = _number(word)
    return number <= 0 if number is not None else NOT_RELEVANT.fullmatch(_plain(word)) is not None


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
