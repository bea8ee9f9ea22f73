"""What a setting with a few possible values may be: one definition for the library and for ``hf-negmine --help``.

This file imports nothing heavy, so that the help appears at once.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

ToolFormat: TypeAlias = Literal["flagembedding", "tevatron", "dpr", "swift", "swift-flat", "automodel"]
"""The columns of another tool's rows."""
Format: TypeAlias = Literal["n-tuple", "triplet", "labeled-pair", "labeled-list", "ids", ToolFormat]
"""The layout of mined rows."""
RowsFormat: TypeAlias = Literal["n-tuple", "labeled-pair", "labeled-list", ToolFormat]
"""The format of rows that may hold negatives."""
OnExhausted: TypeAlias = Literal["drop", "keep", "error"]
"""What happens to a row for which the corpus has too few passages."""
PositiveScore: TypeAlias = Literal["min", "each"]
"""The positive score that sets the ceiling for a query with several: the lowest one, or each row's own."""
Inconsistent: TypeAlias = Literal["drop", "flag"]
"""What happens to a row whose positive the teacher does not find."""
ComparedBy: TypeAlias = Literal["cosine", "minhash"]
"""How near duplicates are found."""
FirstPass: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""The number format of the search's first pass."""
NumberFormat: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""The number format of a model's weights."""
Activation: TypeAlias = Literal["identity", "sigmoid"]
"""What turns a cross-encoder's output into a score."""
Loss: TypeAlias = Literal["positive-aware", "cached", "mnrl"]
"""What a model is trained with."""
RefreshRule: TypeAlias = Literal["student", "easy"]
"""How negatives are refreshed between epochs."""
