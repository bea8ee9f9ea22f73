"""A small world to push: texts, rows, and what is mined of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from huggingface_hub import RepoCard

from hf_negmine import NegativeMiner
from hf_negmine.hub.load import HubData
from hf_negmine.hub.provenance import LOOKUPS, read_provenance

NAME = "tester/one"
CORPUS = [f"passage {number} about {'tea' if number % 2 else 'coffee'} and cup {number % 5}" for number in range(20)]
QUERIES = [f"which cup {number % 5} holds {'tea' if number % 2 else 'coffee'} number {number}?" for number in range(12)]


def rows(first: int = 0, last: int = 12) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"query": QUERIES[first:last], "positive": CORPUS[first:last]})


def multi_rows() -> datasets.Dataset:
    """Rows of two positives each, the later passage first."""
    pairs = [[CORPUS[number + 1], CORPUS[number]] for number in range(0, 12, 2)]
    return datasets.Dataset.from_dict({"query": QUERIES[:6], "positive": pairs})


def make_miner(folder: Path, teacher: Any = "random:0", **settings: Any) -> NegativeMiner:
    settings = {"num_negatives": 2, "method": "naive", "corpus": CORPUS, "seed": 7, **settings}
    return NegativeMiner(teacher, cache_dir=folder, device="cpu", progress=False, **settings)


def mine(folder: Path, teacher: Any = "random:0", **settings: Any) -> datasets.Dataset:
    return make_miner(folder, teacher, **settings).mine(rows())


def read_card(content: bytes) -> tuple[dict[str, Any], str]:
    """YAML and body of a card, read by other means than ours."""
    card = RepoCard(content.decode(), ignore_metadata_errors=False)
    return card.data.to_dict(), card.text


def code_blocks(text: str) -> list[str]:
    """The Python of a card."""
    return re.findall("^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def opened(folder: Path, path: str = "negmine/default/train.json") -> HubData:
    """What lies in the folder of a dry run, as `load_mined` would give it, but for the pool."""
    provenance = read_provenance((folder / path).read_bytes(), path, where=path)
    tables = {
        name: datasets.Dataset(pq.read_table([folder / file for file in files]))
        for name, files in provenance.files.items()
        if name in ("data", *LOOKUPS)
    }
    return HubData(tables["data"], provenance, *(tables[name] for name in LOOKUPS))
