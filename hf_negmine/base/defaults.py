"""Defaults that several rooms share. This file imports nothing, so that ``hf-negmine --help`` appears at once."""

POOL_DEPTH = 48
"""Candidates per query in a pool; `benchmarks/reselect.py` shows how far they reach."""

SWEPT_METHODS = (
    "naive",
    "shifted:10",
    "margin_pos:0",
    "margin_pos:0.05",
    "margin_pos:0.1",
    "margin_pos:0.2",
    "perc_pos:1",
    "perc_pos:0.98",
    "perc_pos:0.95",
    "perc_pos:0.9",
    "perc_pos:0.85",
    "perc_pos:0.8",
    "perc_pos:0.7",
)
"""What a sweep tries. Absolute ceilings are left out: which ones make sense depends on the teacher's scale."""
SWEPT_SAMPLERS = ("top", "sampled:10")
PAGE_QUERIES = 2000
"""Queries that a page to look at holds: about 5 MB."""

TOLERANCE = 0.1
"""The share of false negatives that a recommended setting may have."""
