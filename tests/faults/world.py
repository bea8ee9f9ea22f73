"""Small runs of every kind, done one after another in forks of a process that has everything imported.

As a program (``python -m tests.faults.world FOLDER``) it makes the cache of each run under FOLDER, then reads trials
from its input, a JSON a line: which cache, which file of it to damage and how, and whether to fit again or only to use
what is fitted. It prints how each ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, disable_progress_bars

import hf_negmine.data.texts
import hf_negmine.pool.parts
import hf_negmine.pool.retrieving
import hf_negmine.search.faiss_index
import hf_negmine.teachers.vector_store
from hf_negmine import NegativeMiner, NegmineError
from hf_negmine.base.files import digest_of, only_writer, text_digests
from hf_negmine.base.protocols import Role, SparseVectors, TokenVectors
from hf_negmine.commands.cache_folder import verify
from hf_negmine.select.filters import Consistency, NearDuplicates, Veto
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers import ApproximateTeacher, FixedTeacher
from hf_negmine.teachers.function import ScoreFunction
from hf_negmine.train.bank import BankVersion
from hf_negmine.train.source import NegativeSource

SECONDS_A_TRIAL = 60
N_QUERIES, WIDTH = 24, 6
ROWS = {
    "query": [f"which number is {i % N_QUERIES}, of {i % 5}" for i in range(30)],
    "positive": [f"positive {i} of {i % 5} is a number" for i in range(30)],
}
CORPUS = [f"passage {i} of {i % 5} names the number {i % 7}" for i in range(40)]


def small() -> None:
    """Have many files of a few things each."""
    torch.set_num_threads(1)
    disable_progress_bars()
    hf_negmine.teachers.vector_store.TEXTS_A_SHARD = 16
    hf_negmine.pool.retrieving.QUERIES_A_PART = 10
    hf_negmine.pool.parts.PASSAGES_A_SLICE = 32


def vectors_of(texts: Sequence[str]) -> Any:
    seeds = text_digests(pa.array(list(texts), type=pa.large_string()))
    return np.stack([np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]).astype(np.float32)


class Named:
    name, similarity, first_stage, candidates = "hash", "cosine", None, 20

    def fingerprint(self, role: Role) -> str:
        return digest_of(type(self).__name__, role)


class Dense(Named):
    def encode(self, texts: Sequence[str], role: Role) -> Any:
        return vectors_of(texts)


class Streaming(Dense):
    def encode_parts(self, texts: Sequence[str], role: Role) -> Any:
        for start in range(0, len(texts), 9):
            yield np.arange(start, min(start + 9, len(texts))), vectors_of(texts[start : start + 9])


class Sparse(Named):
    def encode_sparse(self, texts: Sequence[str], role: Role) -> SparseVectors:
        weights = np.abs(vectors_of(texts)).reshape(-1)
        offsets = np.arange(len(texts) + 1) * WIDTH
        return SparseVectors(offsets, np.tile(np.arange(WIDTH, dtype=np.int32), len(texts)), weights)


class Tokens(Named):
    def encode_tokens(self, texts: Sequence[str], role: Role) -> TokenVectors:
        return TokenVectors(np.arange(len(texts) + 1) * 2, np.repeat(vectors_of(texts), 2, axis=0))


def judge(queries: Sequence[str], passages: Sequence[str]) -> list[bool]:
    return [(len(query) + len(passage)) % 5 == 0 for query, passage in zip(queries, passages, strict=True)]


def score(queries: list[str], passages: list[str]) -> Any:
    return (vectors_of(queries) * vectors_of(passages)).sum(1)


def fixed() -> FixedTeacher:
    queries, passages = sorted(set(ROWS["query"])), [*ROWS["positive"], *CORPUS]
    return FixedTeacher(queries, vectors_of(queries), passages, vectors_of(passages))


RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    "dense": lambda: {"teacher": Dense(), "method": "band:2-9+perc_pos:1.2", "sampler": "sampled:4"},
    "judged": lambda: {
        "teacher": Dense(),
        "method": "perc_pos:1.5",
        "filters": [
            NearDuplicates(0.95),
            Veto("bm25", "perc_pos:2"),
            Consistency(min_score=-0.9),
            Judge(FunctionJudge(judge, name="lengths"), relabel=True),
        ],
    },
    "sparse": lambda: {"teacher": Sparse()},
    "tokens": lambda: {"teacher": Tokens()},
    "streaming": lambda: {"teacher": Streaming(), "on_exhausted": "keep"},
    "approximate": lambda: {"teacher": ApproximateTeacher(Dense(), "IVF4,Flat", candidates=30)},
    "fixed": lambda: {"teacher": fixed(), "positive_score": "each"},
    "pairs": lambda: {"teacher": ScoreFunction(score, first_stage="bm25", candidates=20, version="1")},
}
"""What a miner is made with, for each kind of run."""
UNFINISHED = "killed"
"""A run that was killed: as ``dense``, with parts of the search and shards that are not joined."""


@dataclass(frozen=True)
class Done:
    """What a run gives its user."""

    miner: NegativeMiner
    rows: str


def miner_of(run: str, cache: Path) -> NegativeMiner:
    settings = {"num_negatives": 3, "pool_depth": 5, "include_scores": True, "method": "perc_pos:1.2"}
    return NegativeMiner(
        **{**settings, **RUNS["dense" if run == UNFINISHED else run]()},
        corpus=CORPUS, cache_dir=cache, device="cpu", progress=False,
    )  # fmt: skip


def use(miner: NegativeMiner) -> list[Any]:
    """Everything that a fitted miner has: mined rows, another selection, and a bank."""
    rows = Dataset.from_dict(ROWS)
    mined = miner.mine(rows).to_list()
    mapped = miner(rows.with_format("arrow")[:]).to_pylist()
    selection = miner.pool.select("naive", "top", 8, seed=1) if hasattr(miner.pool, "lists") else None
    chosen = None if selection is None else [selection.passages.tolist(), selection.scores.tolist()]
    if miner.config.judge is not None or miner.config.positive_score == "each":
        return [mined, mapped, chosen]
    source = NegativeSource.of_miner(miner, 2, None, 0)
    assert source.bank is not None
    if not source.bank.versions():  # as a refresh does; of several processes one, as of the ranks of a training
        with only_writer(miner.config.cache_dir / "banks"):
            if not source.bank.versions():
                _, version = source.bank.current()
                source.bank.publish(BankVersion(version.offsets, version.passages, -version.scores), {"step": 1})
    number, version = source.bank.current()
    return [mined, mapped, chosen, number, version.passages.tolist(), version.scores.tolist()]


def digest(found: list[Any]) -> str:
    return digest_of(json.loads(json.dumps(found)))


def outcome(run: str, cache: Path, fit: bool) -> dict[str, Any]:
    """Rows of a run over a cache that is there, or the sentence of its error."""
    try:
        if fit:
            miner = miner_of(run, cache)
            miner.fit(Dataset.from_dict(ROWS))
        else:
            miner = pickle.loads((cache.parent / "miner").read_bytes())
        rows = digest(use(miner))
    except NegmineError as error:
        return {"error": str(error)}
    left = [str(damage.error) for damage in verify(cache) if damage is not None and damage.kind != "pairs"]
    return {"rows": rows, "left": left}


def in_forks(work: Callable[[], Any], count: int = 1) -> list[dict[str, Any]]:
    """What some work gives in processes of its own, all at once, or how they ended."""
    children = []
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(SECONDS_A_TRIAL)
            try:
                found = work()
            except BaseException:
                found = {"exception": traceback.format_exc()}
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
        os.close(writer)
        children.append((child, reader))
    ends = []
    for child, reader in children:
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ends.append(dict(json.loads(said)) if said else {"exit": code})
    return ends


def made_read_only(folder: Path) -> bool:
    """Let this process, and no other, see a folder as read-only; False where that is not allowed."""
    if os.geteuid():
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        return True
    libc, source = ctypes.CDLL(None), os.fsencode(folder)
    new_namespace, bind, recursive, private, remount, read_only = 0x20000, 0x1000, 0x4000, 0x40000, 0x20, 0x1
    return not (
        libc.unshare(new_namespace)
        or libc.mount(None, b"/", None, recursive | private, None)
        or libc.mount(source, source, None, bind, None)
        or libc.mount(None, source, None, bind | remount | read_only, None)
    )


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a folder: size, inode, time of change."""
    paths = [(path, path.lstat()) for path in folder.rglob("*")]
    return {str(path): (status.st_size, status.st_ino, status.st_mtime_ns) for path, status in paths}


def make(run: str, live: Path, kept: Path) -> dict[str, Any]:
    """An honest cache, kept as a copy that trials begin from, and what it gives."""
    live.mkdir(parents=True)

    def work() -> dict[str, Any]:
        miner = miner_of(run, live / "cache")
        if run == UNFINISHED:
            return kill(miner)
        miner.fit(Dataset.from_dict(ROWS))
        found = {"rows": digest(use(miner))}
        (live / "miner").write_bytes(pickle.dumps(miner))
        return found

    (found,) = in_forks(work)
    shutil.copytree(live, kept)
    return found


def kill(miner: NegativeMiner) -> dict[str, Any]:
    """Stop where the pool is about to be written, so that its parts are left."""

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    hf_negmine.pool.retrieving.write_pool = stop
    try:
        miner.fit(Dataset.from_dict(ROWS))
    except Stop:
        return {}
    raise AssertionError("it was not stopped")


def kind_of(path: str) -> str:
    """A file's path without what differs from file to file."""
    return re.sub(r"[0-9a-f]{12,32}(-\d+)?", "*", path)


def damage(path: Path, how: str, place: float) -> None:
    """Flip one bit, or cut the file, at a place from 0 to 1."""
    size = path.stat().st_size
    if how == "flip":
        content = bytearray(path.read_bytes())
        bit = min(int(place * 8 * size), 8 * size - 1)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
    else:
        os.truncate(path, min(int(place * size), size - 1))


def files_of(cache: Path) -> list[str]:
    """All files of a cache that hold something, but for what nobody reads."""
    paths = [path for path in sorted(cache.rglob("*")) if path.is_file() and path.stat().st_size]
    return [path for path in (str(path.relative_to(cache)) for path in paths) if "/." not in path]


def main(folder: Path) -> None:
    small()
    expected = {run: make(run, folder / run, folder / f"{run}-kept") for run in [*RUNS, UNFINISHED]}
    for run, found in expected.items():
        assert run == UNFINISHED or "rows" in found, (run, found)
    expected[UNFINISHED] = expected["dense"]
    print(json.dumps({run: files_of(folder / f"{run}-kept" / "cache") for run in expected}), flush=True)
    for line in sys.stdin:
        trial = json.loads(line)
        run = trial["run"]
        live = folder / run
        for path in [live, *live.rglob("*")] if os.geteuid() else ():
            path.chmod(path.stat().st_mode | 0o200)
        shutil.rmtree(live)
        shutil.copytree(folder / f"{run}-kept", live)
        if trial["file"] is not None:
            if trial["file"].startswith(("vectors", "indexes", "pairs")) and trial["fit"]:
                shutil.rmtree(live / "cache" / "pools")  # else there is nothing to be searched, and they are not used
            damage(live / "cache" / trial["file"], trial["how"], trial["place"])
        for name in trial.get("without", ()):
            shutil.rmtree(live / "cache" / name)
        read_only, before = trial.get("read_only", False), states(live)

        def work(run: str = run, live: Path = live, fit: bool = trial["fit"], read_only: bool = read_only) -> Any:
            if read_only and not made_read_only(live / "cache"):
                return {"not allowed": True}
            return outcome(run, live / "cache", fit)

        ends = in_forks(work, trial.get("at_once", 1))
        same = all(found.get("rows") == expected[run]["rows"] for found in ends)
        print(json.dumps({**ends[0], "same": same, "ends": ends, "unchanged": states(live) == before}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
