"""Benchmarks that need other hardware run here at a small size, so that they work where the hardware is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), "--device", "cpu", "--repeats", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_search_of_a_gpu_is_that_of_float64(tmp_path: Path) -> None:
    sizes = ("--passages", "3000", "--queries", "200", "--width", "32", "--square", "64")
    output = run("gpu_search.py", *sizes, "--data", str(tmp_path), "--cache", str(tmp_path))
    assert "64 of 64 queries checked have the ranking of a float64 product." in output
    shares = [float(share) for share in re.findall(r"([\d.]+) % \|", output)]
    assert len(shares) == 3
    assert shares[0] == 100


def test_encoding_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    for name in ("corpus", "queries"):
        texts = [f"text {number} of the {name}" for number in range(40)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "squad" / f"{name}.parquet")
    output = run("encoding.py", "--texts", "16", "--data", str(tmp_path), "--cache", str(tmp_path))
    distances = [float(line.split("|")[-2]) for line in output.splitlines() if "texts, float32" in line]
    assert len(distances) == 2
    assert max(distances) < 1e-6
