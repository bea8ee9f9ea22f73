"""Defaults that several rooms share. Nothing is imported, so that the command's help appears at once."""

POOL_DEPTH = 48
"""Candidates a query that a pool is retrieved with; `benchmarks/reselect.py` shows how far they reach."""
