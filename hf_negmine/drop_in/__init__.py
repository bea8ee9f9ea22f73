"""`mine_hard_negatives` with the arguments, columns, order and formats of Sentence Transformers' function of that name.

It translates the arguments into a `NegativeMiner`, and the result into that function's layout; nothing is mined here.
The deliberate differences between the two are listed in ``docs/migrating.md``.
"""

from __future__ import annotations

from hf_negmine.drop_in.function import mine_hard_negatives

__all__ = ["mine_hard_negatives"]
