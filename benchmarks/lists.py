"""What it takes to make a pool of scored lists: seconds and memory for lists of made-up scores, as Parquet files.

The files are about 12 bytes for each candidate, and the pool 8; while it is made, twice that.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import AnonymousPeak, machine, print_table

LISTS_A_BATCH = 1000


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=2048, help="candidates in a list")
    parser.add_argument("--texts", action="store_true", help="ids are texts rather than numbers")
    parser.add_argument("--folder", type=Path, default=None, help="for the files; a temporary folder if not given")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lists-", dir=arguments.folder))
    try:
        measure(arguments, folder)
    finally:
        shutil.rmtree(folder)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Write lists, read them into a pool, select from it, and print what that took."""
    write(arguments, folder)
    from hf_negmine import CandidatePool

    tables = [folder / f"{name}.parquet" for name in ("queries", "documents", "scores")]
    started = time.perf_counter()
    with AnonymousPeak() as reading:
        pool = CandidatePool.from_lists(*tables, cache_dir=folder / "cache", progress=False)
    read, started = time.perf_counter() - started, time.perf_counter()
    with AnonymousPeak() as selecting:
        selection = pool.select("perc_pos:0.95", "sampled:10", 4)
    selected = time.perf_counter() - started
    complete = 100 * float(np.mean(selection.status == "complete"))
    print(f"{machine()}; {arguments.queries:,} lists of {arguments.length:,}, {arguments.passages:,} passages\n")
    rows = [
        ["from_lists", f"{read:.0f}", f"{reading.peak:,.0f}"],
        ["select perc_pos:0.95 sampled:10", f"{selected:.1f}", f"{selecting.peak:,.0f}"],
    ]
    print_table(["", "seconds", "peak MiB"], rows)
    print(f"{complete:.1f} % of the queries are complete.")


def write(arguments: argparse.Namespace, folder: Path) -> None:
    """Made-up texts, and lists of random passages with falling scores; a list holds its positive."""
    rng = np.random.default_rng(0)
    for name, count in (("queries", arguments.queries), ("documents", arguments.passages)):
        singular = {"queries": "query", "documents": "document"}[name]
        texts = pa.array([f"the text of {singular} {place}" for place in range(count)])
        pq.write_table(
            pa.table({f"{singular}_id": ids(arguments, np.arange(count)), singular: texts}), folder / f"{name}.parquet"
        )
    schema = None
    for start in range(0, arguments.queries, LISTS_A_BATCH):
        count = min(LISTS_A_BATCH, arguments.queries - start)
        documents = rng.integers(0, arguments.passages, (count, arguments.length))
        scores = -np.sort(-rng.random((count, arguments.length), dtype=np.float32), axis=1)
        bounds = np.arange(0, documents.size + 1, arguments.length, dtype=np.int32)
        table = pa.table(
            {
                "query_id": ids(arguments, np.arange(start, start + count)),
                "document_ids": pa.ListArray.from_arrays(bounds, ids(arguments, documents.reshape(-1))),
                "scores": pa.ListArray.from_arrays(bounds, scores.reshape(-1)),
                "positive_ids": pa.ListArray.from_arrays(
                    np.arange(count + 1, dtype=np.int32), ids(arguments, documents[:, arguments.length // 50])
                ),
            }
        )
        if schema is None:
            schema = table.schema
            writer = pq.ParquetWriter(folder / "scores.parquet", schema)
        writer.write_table(table)
    writer.close()


def ids(arguments: argparse.Namespace, numbers: np.ndarray) -> pa.Array:
    """Numbers as ids."""
    return pa.array(numbers).cast(pa.string()) if arguments.texts else pa.array(numbers)


if __name__ == "__main__":
    main()
