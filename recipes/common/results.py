"""What studies keep and show: a file of runs that grows, and tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import scratch_folder
from hf_negmine.base.schema import FloatArray
from hf_negmine.trial import RESAMPLES


def open_results(path: Path, about: Mapping[str, Any], kinds: Sequence[Any]) -> dict[str, Any]:
    """Runs that are done, under ``runs``; a study may add kinds of negatives and seeds to them.

    Args:
        path: of the JSON file; its folder is made.
        about: what all runs depend on.
        kinds: of negatives, settings with a name.

    Raises:
        InputError: the runs that are there were made with something else, or with other kinds of the same name.
        StorageError: a file that is not JSON, or a folder that cannot be written to.
    """
    ours = json.loads(json.dumps({"about": about, "kinds": {one.name: asdict(one) for one in kinds}}))
    if not path.exists():
        with scratch_folder(path.parent):  # now, not after the first training, see that the folder can be written to
            return {**ours, "runs": {}}
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}; remove it to start again") from error
    changed = [name for name, value in ours["about"].items() if results.get("about", {}).get(name) != value]
    changed += [name for name, kind in ours["kinds"].items() if results.get("kinds", {}).get(name, kind) != kind]
    if changed:
        raise InputError(
            f"--output: {path} holds runs with other {', '.join(changed)}; give another folder, or the recipe and data "
            "that they were made with"
        )
    results["kinds"] |= ours["kinds"]
    return results


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation if there are several."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def resampled(gains: FloatArray, seed: int) -> tuple[float, FloatArray]:
    """The mean gain, and those of samples of the seeds and of the queries, shape (RESAMPLES,).

    Args:
        gains: shape (seeds, queries).
        seed: of the samples.
    """
    seeds, queries = gains.shape
    rng = np.random.default_rng(seed)
    means = [
        gains[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, queries, queries))].mean() for _ in range(RESAMPLES)
    ]
    return float(gains.mean()), np.array(means)


def interval(gain: float, samples: FloatArray) -> str:
    """A gain with its 95 % interval."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"
