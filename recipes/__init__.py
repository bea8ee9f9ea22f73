"""Whole experiments, a folder each, and what they share in `recipes.common`. They run from a clone."""
