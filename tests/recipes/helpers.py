"""What the tests of the studies share."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def changed(recipe: Path, folder: Path, line: str, instead: str) -> Path:
    """A recipe's file, with other text in the place of a line."""
    text = recipe.read_text(encoding="utf-8")
    assert line in text
    path = folder / "recipe.yaml"
    path.write_text(text.replace(line, instead, 1), encoding="utf-8")
    return path


def assert_documented(parts: Iterable[Any]) -> None:
    """Every field of some dataclasses stands in the docstring of its class."""
    for part in parts:
        text = inspect.getdoc(type(part)) or ""
        for field in dataclasses.fields(part):
            assert field.name in text, f"{type(part).__name__}.{field.name}"
