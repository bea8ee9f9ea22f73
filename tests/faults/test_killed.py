"""Killed at any moment, the next run goes on and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.thorough import sample

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SERVER = '''
"""Reads runs from its input, does each in a fork that may kill itself, and prints how it ended."""
import json, os, signal, sys
import numpy as np, pyarrow as pa, torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
import hf_negmine.transform, hf_negmine.pool, hf_negmine.teachers.vector_store, hf_negmine.data.collecting
from hf_negmine import NegativeMiner
from hf_negmine.base.files import digest_of, text_digests

hf_negmine.teachers.vector_store.TEXTS_A_SHARD = 16
hf_negmine.pool.retrieving.QUERIES_A_PART = 10
hf_negmine.transform.ROWS_A_BATCH = 9
hf_negmine.data.collecting.TEXTS_A_BATCH = 7

class Teacher:
    name, similarity = "hash", "cosine"
    def fingerprint(self, role):
        return digest_of("hash", role)
    def encode(self, texts, role):
        return np.stack([np.random.default_rng(seed).normal(size=6) for seed in text_digests(pa.array(texts))])

def mine(cache, run):
    events = []
    def counted(name, real):
        def call(*arguments, **named):
            if run["before"] == len(events):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            events.append([name, str(arguments[1]) if name != "row" else "mined"])
            if run["after"] == len(events):
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call
    os.replace, os.rename = counted("file", os.replace), counted("folder", os.rename)
    ArrowWriter.write_table = counted("row", ArrowWriter.write_table)
    rows = Dataset.from_dict({
        "query": [f"query {i % 30}" for i in range(36)],
        "positive": [f"positive {i}" for i in range(36)],
    })
    corpus = [f"passage {i}" for i in range(40)]
    settings = dict(num_negatives=3, pool_depth=4, include_scores=True, on_exhausted="keep", progress=False)
    miner = NegativeMiner(Teacher(), method="band:2-9+perc_pos:1.2", sampler="sampled:4", corpus=corpus,
                          cache_dir=cache, device="cpu", **settings)
    miner.mine(rows)
    with open(os.path.join(cache, "events.json"), "w") as file:
        json.dump(events, file)

print("ready", flush=True)
for line in sys.stdin:
    run = json.loads(line)
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        code = 1
        try:
            mine(run["cache"], run)
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
'''

Run = Callable[..., int]
ENDS: list[int] = []
"""How each run of these tests ended."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Mine into a folder in a process of its own, perhaps killed before or after its n-th step; its exit code."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

        def mine(cache: Path, *, before: int | None = None, after: int | None = None) -> int:
            assert server.stdin is not None
            assert server.stdout is not None
            cache.mkdir(exist_ok=True)
            server.stdin.write(json.dumps({"cache": str(cache), "before": before, "after": after}) + "\n")
            server.stdin.flush()
            ENDS.append(int(server.stdout.readline()))
            return ENDS[-1]

        yield mine
        server.stdin.close()


def contents(cache: Path) -> dict[str, bytes]:
    """Everything that lasts; a fit's summary holds times, a leftover is nobody's."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
        and path.name not in ("fit.json", "events.json")
        and not any(part.startswith(".unfinished-") or part == "parts" for part in path.relative_to(cache).parts)
    }


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its steps, each what and where, and what it left."""

    steps: list[tuple[str, str]]
    files: dict[str, bytes]

    def last(self, step: str, *, within: str) -> int:
        """The number of the last step of this kind."""
        return max(self._numbers(step, within))

    def first(self, step: str, *, within: str) -> int:
        """The number of the first step of this kind."""
        return min(self._numbers(step, within))

    def _numbers(self, step: str, within: str) -> list[int]:
        return [number for number, (kind, path) in enumerate(self.steps) if kind == step and within in path]


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    cache = tmp_path_factory.mktemp("whole")
    assert run(cache) == 0
    steps = [(kind, path.replace(str(cache), "")) for kind, path in json.loads((cache / "events.json").read_text())]
    return Whole(steps, contents(cache))


def test_the_run_has_many_steps_of_every_kind(whole: Whole) -> None:
    """Otherwise the tests below would show little."""

    def count(pattern: str) -> int:
        return sum(pattern in name for name in whole.files)

    assert count("/shard.json") == 2 + 5  # shards of 16: 30 queries, 76 passages
    assert (count("candidates-"), count("segments-"), count("mined/")) == (1, 1, 2)  # rows and their note
    parts = [path for kind, path in whole.steps if kind == "file" and "/parts/" in path and path.endswith(".npy")]
    assert len(parts) == 3
    assert sum(path.endswith("pool.json") for _, path in whole.steps) == 2  # it was deepened
    assert [kind for kind, _ in whole.steps].count("row") == 4


POINTS = {
    "at once": lambda whole: 0,
    "before the texts have their name": lambda whole: whole.last("folder", within="/texts/"),
    "while the texts are collected": lambda whole: whole.first("file", within="/texts/") + 3,
    "before the first vectors": lambda whole: whole.first("file", within="/vectors/"),
    "between vectors and the digests of their texts": lambda whole: whole.first("file", within="/vectors/") + 2,
    "before the first shard has its name": lambda whole: whole.first("folder", within="/vectors/"),
    "before the last shard has its name": lambda whole: whole.last("folder", within="/vectors/"),
    "before the first part has its name": lambda whole: whole.first("file", within="/parts/"),
    "before the second part has its name": lambda whole: whole.first("file", within="/parts/") + 2,
    "before the second part is sealed": lambda whole: whole.first("file", within="/parts/") + 3,
    "before the last part has its name": lambda whole: whole.last("file", within="/parts/"),
    "before the pool's candidates": lambda whole: whole.first("file", within="/candidates-"),
    "before the pool's segments": lambda whole: whole.first("file", within="/segments-"),
    "before the pool counts": lambda whole: whole.first("file", within="/pool.json"),
    "before the deepened pool's segments": lambda whole: whole.last("file", within="/segments-"),
    "before the deepened pool counts": lambda whole: whole.last("file", within="/pool.json"),
    "before the fit": lambda whole: whole.first("file", within="/fits/"),
    "in the middle of the fit": lambda whole: whole.first("file", within="/fits/") + 2,
    "before the fit has its name": lambda whole: whole.last("folder", within="/fits/"),
    "before the first row is written": lambda whole: whole.first("row", within="mined"),
    "before the last rows are written": lambda whole: whole.last("row", within="mined"),
    "before the mined file has its name": lambda whole: whole.first("file", within="/mined/"),
}


@pytest.mark.parametrize("point", sample(POINTS, 3))
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(run: Run, whole: Whole, tmp_path: Path, point: str) -> None:
    step = POINTS[point](whole)
    cache = tmp_path / "cache"
    assert run(cache, before=step) == -signal.SIGKILL
    assert not list(cache.glob("mined/*.arrow"))
    spoil_leftovers(cache)
    assert run(cache) == 0
    assert contents(cache) == whole.files


@pytest.mark.parametrize("within", sample(["/texts/", "/vectors/", "/fits/", "/parts/", "/pool.json", "/mined/"], 3))
def test_what_was_finished_when_it_was_killed_is_not_done_again(
    run: Run, whole: Whole, tmp_path: Path, within: str
) -> None:
    kind = "file" if within in ("/parts/", "/pool.json", "/mined/") else "folder"
    cache = tmp_path / "cache"
    assert run(cache, after=whole.last(kind, within=within) + 1) == -signal.SIGKILL
    finished = contents(cache)
    assert {name: whole.files[name] for name in finished if "vectors/" in name} == {
        name: content for name, content in finished.items() if "vectors/" in name
    }
    spoil_leftovers(cache)
    assert run(cache) == 0
    found = contents(cache)
    assert {name: found.get(name) for name in whole.files} == whole.files
    assert all("/candidates-" in name or "/segments-" in name for name in found.keys() - whole.files.keys())
    rest = [path for _, path in json.loads((cache / "events.json").read_text())]
    if within != "/texts/":
        shards = [path for path in rest if "/vectors/" in path and "shard-" in path]
        assert shards == []
    if within in ("/parts/", "/pool.json", "/fits/", "/mined/"):
        assert not any("/parts/" in path for path in rest)


def test_killed_again_and_again_it_still_ends(
    run: Run, whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    for steps in (5, 12, 3, 30, 8, 40):
        assert run(cache, before=steps) in (-signal.SIGKILL, 0)
        spoil_leftovers(cache)
    assert run(cache) == 0
    assert contents(cache) == whole.files
    with capsys.disabled():
        killed = ENDS.count(-signal.SIGKILL)
        print(f"\nkills: {killed} of {len(ENDS)} runs killed, and after each the same bytes")


def spoil_leftovers(cache: Path) -> None:
    """Fill whatever has a temporary name with rubbish, so that a run that reads it is found out."""
    for leftover in cache.rglob(".unfinished-*"):
        for path in [leftover, *leftover.rglob("*")]:
            if path.is_file():
                path.write_bytes(b"rubbish")
