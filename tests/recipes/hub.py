"""The data sets of the recipe as a folder: a few rows in each one's columns, other columns and all.

Columns are written down here a second time, apart from the registry, so that a loader that looks for other ones fails.
Every set shares one text with its evaluation set, in other case and punctuation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, list[Any]]
Tables = dict[str, Columns]

THINGS = ["tea", "rain", "bread", "glass", "sleep", "salt", "wool", "paper", "iron", "honey", "sand", "rope"]
SHARED = "Where does the shared text come from?"
COPY = "where does the SHARED text come from"


def folder_of(root: Path, hub_id: str) -> Path:
    return root / hub_id.replace("/", "--")


def write_hub(root: Path) -> Path:
    """Every data set of table 7 and every evaluation set, a folder each."""
    for hub_id, tables in data_sets().items():
        for name, columns in tables.items():
            path = folder_of(root, hub_id) / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path)
    return root


def data_sets() -> dict[str, Tables]:
    questions = [SHARED, *(f"where does {thing} come from" for thing in THINGS)]
    answers = [f"{question}: it is a long story" for question in questions]
    sets: dict[str, Tables] = {
        "BeIR/arguana-generated-queries": {
            "default/train": {
                "_id": [f"test-{place}" for place in range(13)],
                "title": [""] * 13,
                "text": answers,
                "query": questions,
            }
        },
        "rag-datasets/rag-mini-bioasq": {
            "question-answer-passages/test": {
                "question": questions,
                "answer": ["yes"] * 13,
                "relevant_passage_ids": [f"[{place}, {place + 100}, 9999]" for place in range(13)],
                "id": list(range(13)),
            },
            "text-corpus/passages": {
                "passage": [*answers, *(f"{answer}, told again" for answer in answers[:-1]), "  "],
                "id": [*range(13), *range(100, 113)],
            },
        },
        "sentence-transformers/all-nli": {
            "triplet/train": {
                "anchor": questions,
                "positive": answers,
                "negative": [f"{question} nobody asks" for question in questions],
            }
        },
        "donfu/oa-stackexchange": {
            "default/train": {
                "INSTRUCTION": questions,
                "RESPONSE": answers,
                "SOURCE": ["stackexchange-cooking"] * 13,
                "METADATA": [{"question_score": "1", "answer_score": "2", "tags": "food"}] * 13,
            }
        },
        "mteb/nq": beir(questions, "test"),
    }
    for name in ("natural-questions", "paq", "trivia-qa"):
        copies = 32 if name == "paq" else 1  # of which one is read
        sets[f"sentence-transformers/{name}"] = {
            "pair/train": {
                "query": [text for text in questions for _ in range(copies)],
                "answer": [text for text in answers for _ in range(copies)],
            }
        }
    for name in ("gooaq", "squad"):
        sets[f"sentence-transformers/{name}"] = {"pair/train": {"question": questions, "answer": answers}}
    for name, split in (
        ("arguana", "test"), ("fever", "test"), ("fiqa", "test"), ("hotpotqa", "test"), ("msmarco", "dev"),
        ("nfcorpus", "test"), ("scifact", "test"),
    ):  # fmt: skip
        sets[f"mteb/{name}"] = beir(questions, split)
    for name, config in (
        ("banking77", "default"), ("amazon_counterfactual", "en"), ("AmazonReviewsClassification", "en"),
        ("emotion", "default"), ("imdb", "default"), ("MTOPIntentClassification", "en"),
        ("toxic_conversations_50k", "default"), ("tweet_sentiment_extraction", "default"),
    ):  # fmt: skip
        sets[f"mteb/{name}"] = classes(config)
    for archive in ("arxiv", "biorxiv", "medrxiv"):
        sets[f"mteb/raw_{archive}"] = papers()
        sets[f"mteb/{archive}-clustering-s2s"] = clusters(COPY)
        sets[f"mteb/{archive}-clustering-p2p"] = clusters(f"{COPY} it is a long story")
    for name, config, top in (("sts12-sts", "default", 5), ("sts22-crosslingual-sts", "en", 4)):
        sets[f"mteb/{name}"] = sentences(config, top)
    sets["mteb/stsbenchmark-sts"] = sentences("default", 5)
    return sets


def beir(questions: list[str], test: str) -> Tables:
    """Two positives a query, one judgement of 0; the test queries stand in the same table as the others."""
    ids = [f"q{place}" for place in range(len(questions))]
    judged = [(name, f"d{place}", 1) for place, name in enumerate(ids)]
    judged += [(name, f"d{place + 50}", 2) for place, name in enumerate(ids)]
    judged.append(("q1", "d5", 0))
    corpus = {f"d{place}": f"{question}: it is a long story" for place, question in enumerate(questions)}
    corpus |= {f"d{place + 50}": f"{question}: a short one" for place, question in enumerate(questions)}
    query_ids, passage_ids, scores = map(list, zip(*judged, strict=True))
    return {
        "default/train": {"query-id": query_ids, "corpus-id": passage_ids, "score": scores},
        f"default/{test}": {"query-id": ["t1", "t1"], "corpus-id": ["d3", "d4"], "score": [1, 0]},
        "queries/queries": {"_id": [*ids, "t1"], "text": [*questions, COPY]},
        "corpus/corpus": {
            "_id": list(corpus),
            "title": ["" if place % 2 else f"About {place}" for place in range(len(corpus))],
            "text": list(corpus.values()),
        },
    }


def classes(config: str) -> Tables:
    """Three labels of 8 texts; one text under two labels, and one label with a single text."""
    texts = [f"{thing} is what I want, number {place}" for place, thing in enumerate(THINGS * 2)]
    texts += [SHARED, "under two labels", "under two labels", "alone"]
    labels = [place % 3 for place in range(24)] + [0, 0, 1, 7]
    train = {
        "id": [str(place) for place in range(len(texts))],
        "text": texts,
        "label": labels,
        "label_text": [f"label {label}" for label in labels],
    }
    test = {"id": ["0"], "text": [COPY], "label": [0], "label_text": ["label 0"]}
    return {f"{config}/train": train, f"{config}/test": test}


def papers() -> Tables:
    titles = [f"On {thing} and its uses, part {place}" for place, thing in enumerate(THINGS * 2)] + [SHARED]
    return {
        "default/train": {
            "id": [f"0704.{place:04}" for place in range(25)],
            "title": titles,
            "abstract": [*(f"We study it in {place} ways." for place in range(24)), "it is a long story"],
            "category": [("chemistry", "physics", "botany")[place % 3] for place in range(25)],
        }
    }


def clusters(text: str) -> Tables:
    return {"default/test": {"sentences": [[text, "another"], ["a third"]], "labels": [["physics", "botany"], ["x"]]}}


def sentences(config: str, top: int) -> Tables:
    first = [SHARED, *(f"a person looks at {thing}" for thing in THINGS)]
    second = [f"{text}, as people do" for text in first]
    scores = [float(top), *(top * (place % 3) / 2 for place in range(12))]
    train = {"sentence1": first, "sentence2": second, "score": scores}
    test = {"sentence1": [COPY], "sentence2": ["something else"], "score": [float(top)]}
    return {f"{config}/train": train, f"{config}/test": test}
