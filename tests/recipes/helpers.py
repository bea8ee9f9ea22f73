"""BEIR folders for the tests of the studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Pairs = Sequence[tuple[int, int]]
"""Places of a query and of a passage that is relevant to it."""


def write_beir(folder: Path, corpus: Sequence[str], queries: Sequence[str], relevant: Mapping[str, Pairs]) -> None:
    """Corpus, queries, and the relevant pairs of each split, as JSON lines and tab-separated values."""
    (folder / "qrels").mkdir(parents=True)
    for name, letter, texts in (("corpus", "d", corpus), ("queries", "q", queries)):
        lines = [json.dumps({"_id": f"{letter}{place}", "text": text}) for place, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for split, pairs in relevant.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"q{query}\td{passage}\t1" for query, passage in pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
