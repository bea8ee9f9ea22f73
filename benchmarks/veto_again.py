"""What a BM25 veto adds to a selection: the first time, the same again, and with other settings. Needs no model.

The mining teacher compares random projections of the texts' words, so the best candidates share words with the query,
as those of a model do. The last setting looks at candidates that the first has not asked about.
"""

from __future__ import annotations

import re
import tempfile
import time
import warnings
import zlib
from typing import Any

import numpy as np
from common import machine, open_squad, parser, prepare, print_table

from hf_negmine import FixedTeacher, NegativeMiner, Veto

WORDS, WIDTH = 2**15, 64
SETTINGS: tuple[tuple[str, str, str, str | None], ...] = (
    ("no filter", "perc_pos:0.95", "top", None),
    ("veto, first", "perc_pos:0.95", "top", "perc_pos:0.95"),
    ("veto, again", "perc_pos:0.95", "top", "perc_pos:0.95"),
    ("veto at 80 %", "perc_pos:0.95", "top", "perc_pos:0.8"),
    ("perc_pos:0.8, veto", "perc_pos:0.8", "top", "perc_pos:0.95"),
)


def word_teacher(queries: list[str], passages: list[str]) -> FixedTeacher:
    """Vectors that are sums of a random vector for each longer word."""
    table = np.random.default_rng(0).normal(size=(WORDS, WIDTH)).astype(np.float32)

    def vectors(texts: list[str]) -> Any:
        words = ([zlib.crc32(word.encode()) % WORDS for word in re.findall(r"\w{4,}", text.lower())] for text in texts)
        return np.stack([table[ids or [0]].sum(axis=0) for ids in words])

    return FixedTeacher(queries, vectors(queries), passages, vectors(passages))


def main() -> None:
    assert __doc__
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=25_000, help="training rows of SQuAD")
    arguments = options.parse_args()
    prepare(arguments)
    warnings.simplefilter("ignore")  # two of the rows have a positive without a word of the question
    given = open_squad(arguments)
    rows = given.rows.select(range(arguments.rows))
    queries = list(dict.fromkeys(rows["query"]))
    teacher = word_teacher(queries, list(dict.fromkeys([*given.corpus.to_pylist(), *rows["positive"]])))
    print(f"{machine()}; {len(rows):,} rows, {len(given.corpus):,} passages\n", flush=True)
    table = []
    with tempfile.TemporaryDirectory() as cache:
        miner = NegativeMiner(teacher, corpus=given.corpus, cache_dir=cache, device="cpu", progress=False).fit(rows)
        pool = miner.pool
        pool.sweep(["perc_pos:0.95", "perc_pos:0.8"], n=16)  # the pool is deepened before the clock starts
        for name, method, sampler, ceiling in SETTINGS:
            started = time.perf_counter()
            pool.select(method, sampler, filters=[] if ceiling is None else [Veto("bm25", ceiling)])
            table.append([name, f"{time.perf_counter() - started:.2f}"])
    print_table(["selection", "s"], table)


if __name__ == "__main__":
    main()
