"""Defaults that several rooms share. This file imports nothing, so that ``hf-negmine --help`` appears at once."""

POOL_DEPTH = 48
"""Candidates per query in a pool; `benchmarks/reselect.py` shows how far they reach."""
