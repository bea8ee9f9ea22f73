"""The candidate pool: each query's best candidates and their scores, retrieved once and selected from many times."""

from __future__ import annotations

from hf_negmine.pool.candidate_pool import CandidatePool
from hf_negmine.pool.retrieving import retrieve

__all__ = ["CandidatePool", "retrieve"]
