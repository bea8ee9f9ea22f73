"""What the recipe knows of one training set, and of the evaluation set that it must not contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import pyarrow as pa
import pyarrow.compute as pc

from recipes.common.sets.layouts import Beir, Layout, Table, Tables

Kind: TypeAlias = Literal["retrieval", "classification", "clustering", "sts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Columns:
    """Texts in columns of one table, alone or in lists (the clustering sets have one list per row)."""

    table: Table
    names: tuple[str, ...]

    def texts(self, tables: Tables) -> pa.Array:
        """All of them, large_string."""
        found = tables.read(self.table, self.names)
        flat: list[pa.Array] = []
        for name in self.names:
            column = found[name]
            while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                column = pc.list_flatten(column)
            flat.extend(chunk.cast(pa.large_string()).drop_null() for chunk in column.chunks)
        return pa.concat_arrays(flat) if flat else pa.array([], pa.large_string())


@dataclass(frozen=True)
class Evaluation:
    """The texts of a test set.

    Of a retrieval set these are the judged queries of its test split, not its corpus: training and test search the
    same corpus in MS MARCO, FEVER, HotpotQA and others, so every positive is in it. Of the other kinds they are
    all texts.

    Attributes:
        name: of the MTEB task.
        hub_id: where it is.
        layout: how its texts are found.
    """

    name: str
    hub_id: str
    layout: Beir | Columns

    def texts(self, tables: Tables) -> pa.Array:
        """What no training row may hold, large_string."""
        return self.layout.judged_queries(tables) if isinstance(self.layout, Beir) else self.layout.texts(tables)


@dataclass(frozen=True)
class TrainingSet:
    """A set of the paper's table 7.

    Attributes:
        name: as in table 7.
        kind: what sort of task it is.
        samples: count of table 7.
        hub_id: where we take it from; the paper does not say where it did.
        layout: tables, splits and columns, and how rows become pairs.
        task: what the query's instruction says, without its colon. Only MS-MARCO's is the authors' (card of the
            released model); the others are in our words, as we do not know the paper's.
        licence: as far as we know it from the Hub or from MTEB, or "unknown".
        evaluation: of the same task in MTEB, or the nearest to it; rows that occur there are dropped.
        tokens: mean length of a query (with its instruction) and a passage. Where the F2LLM report (arXiv 2510.02294,
            tables 3 and 4, tokenizer of Qwen3) has the set they are its figures, otherwise a guess.
        tokens_known: whether they are not a guess.
        corpus_size: passages that negatives are mined from, rounded; None: the positives of the rows.
        one_positive_per_query: whether a query is taken once, with one of its positives.
        hides_positives: whether the miner is not told the other positives of a row's query, so that a study can count
            how many of them it takes for negatives.
        verified: whether the set was loaded and its columns seen. None has been: the recipe was written offline. All
            columns were read in the cards of the sets or in public code that uses them.
        revision: commit on the Hub; None takes the newest.
        note: what else to know.
    """

    name: str
    kind: Kind
    samples: int
    hub_id: str
    layout: Layout
    task: str
    licence: str = UNKNOWN
    evaluation: Evaluation | None = None
    tokens: tuple[int, int] = (32, 128)
    tokens_known: bool = True
    corpus_size: int | None = None
    one_positive_per_query: bool = False
    hides_positives: bool = False
    verified: bool = False
    revision: str | None = None
    note: str = ""


def queries_of_test(name: str, repo: str, split: str = "test") -> Evaluation:
    """The judged queries of an MTEB retrieval task."""
    return Evaluation(name, f"mteb/{repo}", Beir(Table("default", split)))


def texts_of_test(name: str, repo: str, *columns: str, config: str | None = None, split: str = "test") -> Evaluation:
    """All texts of an MTEB task of another kind."""
    return Evaluation(name, f"mteb/{repo}", Columns(Table(config, split), columns))
