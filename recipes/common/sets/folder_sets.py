"""Sets that are BEIR folders, for a run without the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import ColumnError, InputError
from hf_negmine.data.sources import open_beir, read_beir_table, read_judgements
from recipes.common.sets.layouts import Beir, Labelled, PairTable, Table, Tables, as_texts
from recipes.common.sets.retrieval_sets import RETRIEVAL_SETS
from recipes.common.sets.training_set import UNKNOWN, Evaluation, TrainingSet

TRAIN = Table(None, "train")


@dataclass(frozen=True)
class Folder(Beir):
    """A BEIR folder in any spelling that `open_beir` reads; of ``judged`` the split alone counts."""

    def pairs(self, tables: Tables) -> PairTable:
        """A row for each relevant passage of each query of the split."""
        opened = open_beir(_place(tables), split=self.judged.split)
        assert isinstance(opened.rows, datasets.Dataset)
        assert opened.corpus is not None
        rows = opened.rows.with_format("arrow")[:]
        return PairTable(as_texts(rows["query"]), as_texts(rows["positive"]), pc.unique(as_texts(opened.corpus)))

    def judged_queries(self, tables: Tables) -> pa.Array:
        """The queries of the split."""
        return pc.unique(self.pairs(tables).query)


@dataclass(frozen=True)
class FolderTexts(Labelled):
    """Passages of a BEIR folder with a column as their label: those that are relevant to a query of the split."""

    def _read(self, tables: Tables) -> pa.Table:
        folder = _place(tables)
        table, ids = read_beir_table(folder, "corpus")
        for column in (*self.texts, self.label):
            if column not in table.column_names:
                raise ColumnError(column, table.column_names, argument=f"{folder} (corpus)")
        _, relevant = read_judgements(folder, self.table.split, self.table.split)
        return table.filter(pc.is_in(ids, value_set=relevant)).select([*self.texts, self.label])


def _place(tables: Tables) -> Path:
    assert tables.source is not None
    if not tables.source.is_dir():
        raise InputError(f"--data: there is no folder {tables.source}, expected {tables.hub_id} as a BEIR folder")
    return tables.source


def _retrieval(
    name: str, samples: int, passages: int, like: str, test: str, licence: str, *, once: bool = False
) -> TrainingSet:
    """A set with the task of one of table 7, and the split that it is tested on."""
    task = next(one.task for one in RETRIEVAL_SETS if one.name == like)
    return TrainingSet(
        name,
        "retrieval",
        samples,
        name,
        Folder(TRAIN),
        task,
        licence=licence,
        evaluation=Evaluation(name, name, Folder(Table(None, test))),
        tokens_known=False,
        corpus_size=passages,
        one_positive_per_query=once,
        hides_positives=once,
        verified=True,
    )


FOLDER_SETS: dict[str, TrainingSet] = {
    one.name: one
    for one in (
        _retrieval("squad", 87_599, 20_958, "SQuAD", "dev", "cc-by-sa-4.0"),
        _retrieval("qed_nq", 7_167, 8_096, "NQ", "dev", "cc-by-sa-3.0"),
        _retrieval("nfcorpus", 2_590, 3_633, "NFCorpus", "test", UNKNOWN, once=True),
        _retrieval("scifact", 919, 5_183, "SciFacts", "test", "cc-by-nc-2.0"),
        _retrieval("bioasq_snippets", 2_772, 52_904, "BioASQ", "test", "cc-by-2.5", once=True),
        TrainingSet(
            "squad_articles",
            "clustering",
            18_891,
            "squad",
            FolderTexts(TRAIN, ("text",), "title"),
            "Find paragraphs of the same article",
            licence="cc-by-sa-4.0",
            tokens=(162, 162),
            tokens_known=False,
            verified=True,
            note="Of training articles alone.",
        ),
    )
}
"""By name, which is also the folder's."""
