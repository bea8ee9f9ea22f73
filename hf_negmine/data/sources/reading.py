"""How rows are read as (query, positive): as they are, or through the format of the tool that they come from."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import datasets
import pyarrow as pa

from hf_negmine.data.formats import RowFormat, format_of, recognized_format
from hf_negmine.data.formats.cells import have_titles, holds_texts
from hf_negmine.data.sources.columns import Rows, choose_columns, table_of
from hf_negmine.data.sources.labels import check_classes

logger = logging.getLogger(__name__)

QUERY, POSITIVE = "query", "positive"


@dataclass(frozen=True)
class Reading:
    """The columns that rows are mined by.

    Attributes:
        query, positive: their names; for rows that hold no plain texts, in the rows that `plain` makes.
        format: the format that the rows are in; None for rows that are read as they are.
        titled: whether their passages have titles, which are read before the texts.
    """

    query: str
    positive: str
    format: RowFormat | None = None
    titled: bool = False

    @classmethod
    def of(cls, rows: Rows, query: str | None, positive: str | None, rows_format: str | None) -> Reading:
        """Find out how to read rows; see `find_format` for the arguments.

        Raises:
            InputError: the columns are not clear, or not those of the format.
        """
        schema = schema_of(rows)
        found = None if schema is None else find_format(schema, query, positive, rows_format)
        if schema is None or found is None:
            return cls(*choose_columns(rows, query, positive))
        check_classes(rows.features, found)
        are_texts = [holds_texts(schema.field(name).type) for name in (found.query, found.positive)]
        query = query or (found.query if are_texts[0] else QUERY)
        titled = have_titles(schema.field(found.positive).type)
        return cls(query, positive or (found.positive if are_texts[1] else POSITIVE), found, titled)

    @property
    def given(self) -> tuple[str, str]:
        """The names of the two columns in the rows as they were given."""
        return (self.query, self.positive) if self.format is None else (self.format.query, self.format.positive)

    def plain(self, table: pa.Table) -> pa.Table:
        """Rows with texts of queries and texts, or lists of texts, of positives; other columns are kept."""
        return table if self.format is None else self.format.pairs(table, self.query, self.positive)

    def plain_columns(self, available: list[str]) -> list[str]:
        """The columns that `plain` makes of these."""
        if self.format is None:
            return available
        return [self.query, self.positive, *(name for name in available if name not in self.format.read_columns)]

    def features(self, features: datasets.Features) -> datasets.Features:
        """The features of the rows that `plain` makes."""
        if self.format is None:
            return features
        schema = self.plain(features.arrow_schema.empty_table()).schema
        made = datasets.Features.from_arrow_schema(schema)
        own = {name: features[name] for name in made if name not in (self.query, self.positive)}
        return datasets.Features({**made, **own})

    def tell(self, available: list[str]) -> None:
        """Say that the rows' own negatives are not used."""
        if self.format is None or not (own := [name for name in self.format.of_negatives if name in available]):
            return
        logger.warning(
            "the rows are read as %s: what is in %s is not used, and new negatives take its place; to keep it beside "
            "them, rename the columns first, for example with rows.rename_column(%r, %r)",
            self.format.name, own, own[0], f"earlier_{own[0]}",
        )  # fmt: skip


def find_format(
    schema: pa.Schema, query: str | None, positive: str | None, rows_format: str | None
) -> RowFormat | None:
    """The format of rows with these columns, if they are in one; None for rows that are read as they are.

    ``query``, ``positive`` and ``rows_format`` are what the user named; without a format, those with labels are not
    recognized.

    Raises:
        InputError: the rows are not in the format that the user named.
    """
    if rows_format is None:
        return recognized_format(schema, query, positive)
    return format_of(schema, rows_format, query_column=query, positive_column=positive)


def schema_of(rows: Rows) -> pa.Schema | None:
    """The schema of rows; of a stream that does not know it, that of its first row; None for a stream without rows."""
    if rows.features is not None:
        return rows.features.arrow_schema
    first = next(iter(rows.take(1)), None)
    return None if first is None else table_of({name: [value] for name, value in first.items()}).schema
