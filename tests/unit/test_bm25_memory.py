"""BM25 indexes a corpus in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHILD = """
import json, pickle, resource
import numpy as np, pyarrow as pa
from hf_negmine.teachers import BM25Teacher

rng = np.random.default_rng(0)
words = np.array([f"w{number:x}" for number in range(100_000)], dtype=object)
shares = np.cumsum(1 / np.arange(1, len(words) + 1))
parts = []
for _ in range(20):  # passages of 100 words on average, by Zipf's law
    ends = np.cumsum(rng.integers(50, 150, 1000))
    drawn = words[np.searchsorted(shares, rng.random(ends[-1]) * shares[-1])]
    parts.append(pa.array([" ".join(part) for part in np.split(drawn, ends[:-1])], pa.large_string()))
passages = pa.concat_arrays(parts)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

BM25Teacher().index(passages[:100])  # imports
before = peak()
scorer = BM25Teacher(progress=False).index(passages)
after = peak()
print(json.dumps({"more": after - before, "index": len(pickle.dumps(scorer)) / 2**20}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere")
def test_indexing_takes_little_more_than_the_index() -> None:
    """A Python list of all words would take 100 MiB here."""
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert 10 < found["index"] < 20
    assert found["more"] < found["index"] + 50
