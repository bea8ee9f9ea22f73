"""One rank of a run in a store, as a command: ``python -m hf_negmine.cluster.rank ADDRESS WORK RANK RANKS``."""

from __future__ import annotations

import sys

from hf_negmine.base.files import default_cache_dir
from hf_negmine.cluster.running import run_rank

if __name__ == "__main__":
    address, work, rank, ranks = sys.argv[1:]
    run_rank(address, work, int(rank), int(ranks), default_cache_dir())
