"""Peak anonymous memory where data is large: 10 million triplets through `map`, and BM25 over 2 million passages.

Each in a process of its own; memory is what it holds beyond its idle size, without mapped files. A search's memory is
measured by `search_scaling.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import AnonymousPeak, Clock, machine, memory, parser, prepare, print_table

WORDS, VOCABULARY = 12, 200_000
ROWS_A_STEP = 50_000
PASSAGES = 2000
"""Few, since not the search is measured here, but what grows with the rows."""


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--triplets", type=int, default=10_000_000, help="rows to write, one negative each")
    options.add_argument("--passages", type=int, default=2_000_000, help="passages that BM25 indexes")
    options.add_argument("--run", choices=CASES, default=None, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    cache = prepare(arguments)
    if arguments.run is not None:
        idle = memory("RssAnon")
        with AnonymousPeak() as anonymous:
            clock = Clock()
            what = CASES[arguments.run](arguments, cache)
            read = clock.read()
        print(json.dumps([what, round(read["seconds"]), round(anonymous.peak - idle)]))
        return
    print(machine(), end="\n\n")
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, *sys.argv[1:], "--run", case]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(
            [f"{value:,}" if isinstance(value, int) else value for value in json.loads(done.stdout.splitlines()[-1])]
        )
    print_table(["what", "seconds", "MiB, anonymous"], rows)


def texts(name: str, count: int) -> Iterator[list[str]]:
    """Different short texts, made up part by part: words drawn by Zipf's law."""
    rng = np.random.default_rng(len(name))
    words = np.array([f"w{number:x}" for number in range(VOCABULARY)], dtype=object)
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    for start in range(0, count, ROWS_A_STEP):
        some = min(ROWS_A_STEP, count - start)
        drawn = words[np.searchsorted(shares, rng.random((some, WORDS)) * shares[-1])]
        yield [f"{name}{start + place} " + " ".join(row) for place, row in enumerate(drawn)]


def triplets(arguments: argparse.Namespace, cache: Path) -> str:
    """Mine a row for every query, as triplets, from a file to a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_negmine import EncodeFunction, NegativeMiner

    negatives = 4
    count = arguments.triplets // negatives
    folder = Path(tempfile.mkdtemp(dir=cache))
    try:
        corpus = [text for some in texts("c", PASSAGES) for text in some]
        source = folder / "rows.parquet"
        with pq.ParquetWriter(source, pa.schema([("query", pa.string()), ("positive", pa.string())])) as writer:
            for queries in texts("q", count):
                positives = [corpus[place % len(corpus)] for place in range(len(queries))]
                writer.write_table(pa.table({"query": queries, "positive": positives}))
        settings: dict[str, Any] = {"num_negatives": negatives, "format": "triplet", "cache_dir": folder / "cache"}
        miner = NegativeMiner(
            EncodeFunction(hashed, version="1"), corpus=corpus, method="naive", pool_depth=8, progress=False, **settings
        )
        mined = miner.mine(str(source))
        return f"{len(mined):,} triplets, read from Parquet, mined and written"
    finally:
        shutil.rmtree(folder)


def hashed(some: list[str]) -> Any:
    """A vector of 16 numbers for each text, by its hash."""
    import xxhash

    return (
        np.frombuffer(b"".join(xxhash.xxh3_128_digest(text.encode()) for text in some), np.uint8).reshape(-1, 16)
        - 127.5
    )


def bm25(arguments: argparse.Namespace, cache: Path) -> str:
    """Index passages for BM25, and search once."""
    import pyarrow as pa

    from hf_negmine.teachers import BM25Teacher

    chunks = [pa.array(some, pa.large_string()) for some in texts("c", arguments.passages)]
    index = BM25Teacher(progress=False).index(pa.concat_arrays(chunks))
    index.scores(["w1 w2 wff"])
    return f"{arguments.passages:,} passages of {WORDS + 1} words, indexed for BM25"


CASES = {"triplets": triplets, "bm25": bm25}


if __name__ == "__main__":
    main()
