"""Many processes: each fills its share of the parts that the stores are made of, and a fit then finds them all.

Vectors are stored in shards and searches in parts, from which a killed run continues. So a rank encodes the shards,
searches the parts, and selects for the parts, that are its own, and the last step is an ordinary fit. Of a large corpus
it searches slices, and what was found in them is merged. Ranks communicate through files alone.
"""

from __future__ import annotations

from hf_negmine.cluster.executors import Executor, parse_executor
from hf_negmine.cluster.plan import Plan, Workload, plan
from hf_negmine.cluster.running import mine_in_ranks, plan_ranks, run_rank
from hf_negmine.cluster.shares import encode_share, search_share, search_slices, select_share
from hf_negmine.cluster.store import Store, parse_store

__all__ = [
    "Executor",
    "Plan",
    "Store",
    "Workload",
    "encode_share",
    "mine_in_ranks",
    "parse_executor",
    "parse_store",
    "plan",
    "plan_ranks",
    "run_rank",
    "search_share",
    "search_slices",
    "select_share",
]
