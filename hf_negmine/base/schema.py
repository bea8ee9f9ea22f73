"""Array aliases and the Arrow schemas of every table that is written to disk (see docs/datamodel.md)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

AnyArray: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
IdArray: TypeAlias = npt.NDArray[np.int64]
PassageArray: TypeAlias = npt.NDArray[np.int32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
DigestArray: TypeAlias = npt.NDArray[np.uint64]
"""Shape (n, 2): the 128-bit digest of each text as two unsigned integers."""

FORMAT_VERSION = 2
"""Version of everything under the cache folder. A folder of another version is refused, never reinterpreted."""

MAX_PASSAGES = 2**31 - 1
"""Passage ids are int32."""

CANDIDATES_SCHEMA = pa.schema(
    [pa.field("passage_id", pa.int32(), nullable=False), pa.field("score", pa.float32(), nullable=False)]
)
SEGMENTS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("ceiling", pa.float32(), nullable=False),
        pa.field("first_rank", pa.int64(), nullable=False),
        pa.field("exhausted", pa.bool_(), nullable=False),
    ]
)
POSITIVES_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("passage_id", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
