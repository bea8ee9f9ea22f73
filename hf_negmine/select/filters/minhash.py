"""MinHash signatures of texts, from which the similarity of their words is estimated (Broder 1997)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.schema import AnyArray, DigestArray

WORDS_A_SHINGLE = 3
PERMUTATIONS = 128
SEED = 1
SIGNATURES_KEPT = 2**16
"""A signature takes 512 bytes."""
WORD = re.compile(r"\w+")


class Signatures:
    """MinHash signatures of texts; those requested recently are kept."""

    def __init__(self) -> None:
        self._kept: dict[bytes, AnyArray] = {}

    def of(self, digests: DigestArray, texts: pa.LargeStringArray) -> AnyArray:
        """The signature of each of some distinct texts, uint64, shape (texts, `PERMUTATIONS`)."""
        keys = [digest.tobytes() for digest in np.ascontiguousarray(digests)]
        missing = [place for place, key in enumerate(keys) if key not in self._kept]
        shingles = map(_shingles, texts.take(pa.array(missing, pa.int64())).to_pylist())
        made = load_datasketch().MinHash.bulk(shingles, num_perm=PERMUTATIONS, seed=SEED)
        new = {keys[place]: one.hashvalues.astype(np.uint64) for place, one in zip(missing, made, strict=True)}
        found = np.empty((len(keys), PERMUTATIONS), dtype=np.uint64)
        for place, key in enumerate(keys):
            signature = new[key] if key in new else self._kept.pop(key)
            found[place] = self._kept[key] = signature  # the most recently requested comes last
        while len(self._kept) > SIGNATURES_KEPT:
            del self._kept[next(iter(self._kept))]
        return found


def _shingles(text: str) -> list[bytes]:
    """Every three successive words of a text; the whole text if it has fewer."""
    words = WORD.findall(text.lower()) or [text.strip()]
    last = max(len(words) - WORDS_A_SHINGLE, 0)
    return list({" ".join(words[start : start + WORDS_A_SHINGLE]).encode() for start in range(last + 1)})


def load_datasketch() -> Any:
    """The package datasketch, or `InputError` if it is not installed."""
    try:
        import datasketch
    except ImportError as error:
        raise InputError(
            'NearDuplicates: by="minhash" needs the package datasketch: pip install "hf_negmine[filters]"'
        ) from error
    return datasketch
