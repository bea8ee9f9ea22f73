"""Benchmarks that need other hardware run here at a small size, so that they work where the hardware is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_search_of_a_gpu_is_that_of_float64(tmp_path: Path) -> None:
    sizes = ("--passages", "3000", "--queries", "200", "--width", "32", "--square", "64", "--repeats", "1")
    arguments = ("--device", "cpu", "--data", str(tmp_path), "--cache", str(tmp_path))
    command = [sys.executable, str(BENCHMARKS / "gpu_search.py"), *sizes, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "64 of 64 queries checked have the ranking of a float64 product." in output
    shares = [float(share) for share in re.findall(r"([\d.]+) % \|", output)]
    assert len(shares) == 3
    assert shares[0] == 100
