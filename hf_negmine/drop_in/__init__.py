"""`mine_hard_negatives` with the arguments, columns, order and formats of Sentence Transformers' function of that name.

A translation of its arguments into a `NegativeMiner`, and of the result into its layout; nothing is mined here. Where
the two differ on purpose, ``docs/migrating.md`` says so.
"""

from __future__ import annotations

from hf_negmine.drop_in.function import mine_hard_negatives

__all__ = ["mine_hard_negatives"]
