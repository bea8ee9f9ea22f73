"""The 15 retrieval tasks that NV-Retriever-v1 is evaluated on, with what the paper found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from recipes.common.sets import SETS


@dataclass(frozen=True)
class Task:
    """A task of MTEB's retrieval in English, which are those of BEIR.

    Attributes:
        name: in MTEB.
        paper: NDCG at 10 of the released model, times 100 (table 5, and the row of table 10).
        instruction: what the query's instruction says, without its colon; that of the training set where there is one,
            otherwise in our words.
    """

    name: str
    paper: float
    instruction: str


PAPER_AVERAGE = 60.90
"""Of the released model over the 15 tasks (table 5)."""


def _trained_on(name: str, paper: float, training_set: str) -> Task:
    return Task(name, paper, SETS[training_set].task)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _trained_on("ArguAna", 68.28, "ArguAna"),
        Task("ClimateFEVER", 43.47, "Given a claim about the climate, retrieve passages that support it or not"),
        Task("CQADupstackRetrieval", 49.36, "Given a question of a forum, retrieve questions that ask the same"),
        Task("DBPedia", 50.82, "Given a query, retrieve descriptions of the entities that it asks for"),
        _trained_on("FEVER", 93.15, "FEVER"),
        _trained_on("FiQA2018", 61.18, "FiQA2018"),
        _trained_on("HotpotQA", 79.12, "HotpotQA"),
        _trained_on("MSMARCO", 44.89, "MS-MARCO"),
        _trained_on("NFCorpus", 45.06, "NFCorpus"),
        _trained_on("NQ", 72.44, "NQ"),
        Task("QuoraRetrieval", 88.78, "Given a question, retrieve questions that ask the same"),
        Task("SCIDOCS", 22.55, "Given the title of a scientific paper, retrieve abstracts of papers that it cites"),
        _trained_on("SciFact", 81.31, "SciFacts"),
        Task("Touche2020", 26.60, "Given a question, retrieve arguments that answer it at length"),
        Task("TRECCOVID", 86.44, "Given a question about COVID-19, retrieve articles that answer it"),
    )
}


def table(ours: Mapping[str, float]) -> str:
    """The paper's row beside ours, as Markdown; the averages are over the tasks that were run.

    Args:
        ours: NDCG at 10 by the names of `TASKS`, from 0 to 1.
    """
    lines = ["| NDCG@10 | the paper's | ours | difference |", "|---|---:|---:|---:|"]
    rows = [(task.name, task.paper, 100 * ours[task.name]) for task in TASKS.values() if task.name in ours]
    whole = len(rows) == len(TASKS)
    theirs = PAPER_AVERAGE if whole else fmean(paper for _, paper, _ in rows)
    name = "**average**" if whole else f"**average of these {len(rows)}**"
    rows.append((name, theirs, fmean(score for _, _, score in rows)))
    lines += [f"| {name} | {theirs:.2f} | {score:.2f} | {score - theirs:+.2f} |" for name, theirs, score in rows]
    return "\n".join(lines)
