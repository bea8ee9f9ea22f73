"""Approximate search: exact in everything but what the index misses, and the same each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.schema import FloatArray
from hf_negmine.search import VectorSearcher, ann, ann_index, exact
from hf_negmine.search.ann import FaissSearcher, measured_recall
from hf_negmine.search.ann_index import Engine, build_index
from hf_negmine.select.filters import Veto
from tests.properties.test_search import (
    Problem,
    assert_best,
    ceiling_kinds,
    problems,
    some_ceilings,
    vector_searcher,
)
from tests.reference import ArraySource, exclusions_of, ranked, rows_of
from tests.thorough import examples
from tests.unit.test_miner import CORPUS, ROWS, WordTeacher, miner_in

pytest.importorskip("faiss", reason="needs the package faiss-cpu")

ROOT = Path(__file__).parents[2]


def clustered(count: int, width: int = 16, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, width))
    vectors = centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_searcher(
    folder: Path, factory: str, passages: FloatArray, queries: FloatArray, *, first_rung: int = 8
) -> FaissSearcher:
    index = build_index(ArraySource(passages), factory, folder / f"{Engine.parse(factory).factory}.faiss")
    searcher = VectorSearcher(
        ArraySource(queries),
        ArraySource(passages),
        exclusions_of([[row % len(passages)] for row in range(len(queries))]),
    )
    return FaissSearcher(searcher, index, first_rung=first_rung)


def problem_index(problem: Problem, factory: str, folder: Path) -> Any:
    return build_index(ArraySource(problem.passages), factory, folder / "index.faiss", progress=False)


@examples(150)
@given(
    problem=problems(),
    kind=ceiling_kinds,
    depth=st.integers(1, 40),
    skip=st.sampled_from([0, 0, 1, 3, 250]),
    first_rung=st.integers(1, 12),
)
def test_a_flat_index_gives_what_the_exact_search_gives(
    problem: Problem,
    kind: str,
    depth: int,
    skip: int,
    first_rung: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    index = problem_index(problem, "Flat", tmp_path_factory.mktemp("flat"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "PLACES_A_STEP", 64)
        searcher = FaissSearcher(vector_searcher(problem), index, first_rung=first_rung)
        assert_best(searcher.block(np.arange(len(problem.queries))), problem, some_ceilings(problem, kind), depth, skip)


@examples(100)
@given(
    problem=problems(),
    factory=st.sampled_from(["IVF4,Flat@nprobe=1", "HNSW4@efSearch=1", "IVF3,SQ8", "SQ8", "L2norm,Flat"]),
    kind=ceiling_kinds,
    depth=st.integers(1, 40),
    skip=st.sampled_from([0, 0, 1, 3, 250]),
)
def test_whatever_the_index_misses_the_rest_is_kept(
    problem: Problem,
    factory: str,
    kind: str,
    depth: int,
    skip: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if len(problem.passages) < 4:
        return
    index = problem_index(problem, factory, tmp_path_factory.mktemp("index"))
    searcher = FaissSearcher(vector_searcher(problem), index, first_rung=2)
    rows, ceilings = problem.rng.permutation(len(problem.queries)), some_ceilings(problem, kind)
    block = searcher.block(np.arange(len(problem.queries)))
    ranking = block.best(rows, ceilings[rows], depth, skip)
    top = block.best(rows, ceilings[rows], depth + skip)
    for row, found, whole, exhausted in zip(rows, rows_of(ranking), rows_of(top), ranking.exhausted, strict=True):
        eligible = [pair for pair in ranked(problem.scores[row], problem.excluded[row]) if pair[0] < ceilings[row]]
        # Canonical scores, under the ceiling, nothing excluded, nothing twice, in order, and as many as there are.
        assert set(found) <= set(eligible)
        assert found == sorted(set(found), key=lambda pair: (-pair[0], pair[1]))
        assert len(found) == len(eligible[skip : skip + depth])
        assert exhausted == (len(eligible) <= skip + depth)
        assert found == (eligible if exhausted else whole)[skip : skip + depth]


@pytest.mark.parametrize("factory", ["IVF16,Flat@nprobe=2", "HNSW8@efSearch=4", "IVF4,PQ4x4", "PCA8,IVF4,Flat"])
def test_every_answer_is_a_window_of_one_ranking(tmp_path: Path, factory: str) -> None:
    """Otherwise the segments of a pool, which asks several times, would not fit together."""
    queries = clustered(40, seed=1)
    searcher = make_searcher(tmp_path, factory, clustered(2000), queries, first_rung=5)
    block, rows = searcher.block(np.arange(40)), np.arange(40)
    no_ceiling = np.full(40, np.inf, dtype=np.float32)
    whole = rows_of(block.best(rows, no_ceiling, 600))
    for depth, skip in [(1, 0), (3, 2), (10, 7), (48, 0), (48, 48), (100, 480)]:
        assert rows_of(block.best(rows, no_ceiling, depth, skip)) == [row[skip : skip + depth] for row in whole]
    ceilings = np.array([row[20][0] for row in whole], dtype=np.float32)
    under = [[pair for pair in row if pair[0] < ceiling] for row, ceiling in zip(whole, ceilings, strict=True)]
    assert rows_of(block.best(rows, ceilings, 30)) == [row[:30] for row in under]


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat@nprobe=2", "HNSW8", "PCA8,IVF4,Flat", "IVF4,PQ4x4fs"])
@pytest.mark.usefixtures("torch_threads")
def test_blocks_and_threads_do_not_change_a_bit(tmp_path: Path, factory: str) -> None:
    searcher = make_searcher(tmp_path, factory, clustered(1000), clustered(70, seed=1))
    everything = np.arange(70)
    no_ceiling = np.full(70, np.inf, dtype=np.float32)
    together = rows_of(searcher.block(everything).best(everything, no_ceiling, 20))
    for size, threads in [(1, 1), (7, 2), (33, 3)]:
        torch.set_num_threads(threads)
        apart = []
        for start in range(0, 70, size):
            some = everything[start : start + size]
            apart += rows_of(searcher.block(some).best(np.arange(len(some)), no_ceiling[some], 20))
        assert apart == together


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW8", "IVF8_HNSW4,PQ4x4"])
def test_an_index_is_built_to_the_same_bytes(tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss, passages = ann_index.load_faiss(), ArraySource(clustered(1500))
    monkeypatch.setattr(ann_index, "VECTORS_A_STEP", 400)
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 4):
            faiss.omp_set_num_threads(threads)
            build_index(passages, factory, tmp_path / str(threads))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "4").read_bytes()


def test_recall_is_that_of_the_index(tmp_path: Path) -> None:
    passages, queries = clustered(3000), clustered(60, seed=1)

    def recall(factory: str) -> float:
        return measured_recall(make_searcher(tmp_path, factory, passages, queries, first_rung=64), 60, 20)

    assert recall("Flat") == 1.0
    assert recall("IVF32,Flat@nprobe=32") == 1.0
    one, four = recall("IVF32,Flat@nprobe=1"), recall("IVF32,Flat@nprobe=4")
    assert 0.2 < one < four <= 1.0
    assert one < 1.0


def test_other_queries_search_the_same_index(tmp_path: Path) -> None:
    passages = clustered(400)
    searcher = make_searcher(tmp_path, "Flat", passages, clustered(3, seed=1))
    other = searcher.with_queries(ArraySource(passages[7:8]), exclusions_of([[0]]))
    row, no_ceiling = np.zeros(1, dtype=np.int64), np.array([np.inf], dtype=np.float32)
    assert other.block(row).best(row, no_ceiling, 1).passages.tolist() == [7]
    assert len(searcher.exact.queries.slice(0, 9)) == 3
    assert (other.block_size, other.n_passages) == (searcher.exact.block_size, 400)
    pair = other.block(row).pair_scores(row, np.array([7], dtype=np.int32))
    assert pair.tobytes() == other.exact.block(row).pair_scores(row, np.array([7], dtype=np.int32)).tobytes()


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, "Flat", clustered(400), clustered(3, seed=1))
    none = np.empty(0, dtype=np.int64)
    ranking = searcher.block(np.arange(3)).best(none, none.astype(np.float32), 4)
    assert (ranking.offsets.tolist(), len(ranking.exhausted)) == ([0], 0)


def test_the_exact_search_is_left_alone_where_the_index_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = make_searcher(tmp_path, "IVF16,Flat", clustered(3000), clustered(40, seed=1), first_rung=64)
    block, rows = searcher.block(np.arange(40)), np.arange(40)
    monkeypatch.setattr(exact._VectorBlock, "best", lambda *_: pytest.fail("searched exactly"))
    assert np.diff(block.best(rows, np.full(40, np.inf, dtype=np.float32), 48).offsets).tolist() == [48] * 40


def test_a_stored_index_is_read_and_not_built_again(tmp_path: Path) -> None:
    passages, path = ArraySource(clustered(300)), tmp_path / "new" / "index.faiss"
    build_index(passages, "IVF4,Flat", path)
    before = path.stat()
    index = build_index(passages, "IVF4,Flat@nprobe=3", path)
    assert (index.nprobe, index.ntotal) == (3, 300)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.faiss", "index.json"]


def test_an_index_is_built_when_candidates_are_looked_for(tmp_path: Path) -> None:
    passages, queries, rows = clustered(300), clustered(20, seed=1), np.arange(20)
    eager = make_searcher(tmp_path, "HNSW8", passages, queries)
    opened: list[Any] = []
    lazy = FaissSearcher(eager.exact, lambda: opened.append(eager.index) or eager.index, first_rung=8)
    other = lazy.with_queries(eager.exact.queries, eager.exact.exclusions)
    block, no_ceiling = other.block(rows), np.full(20, np.inf, dtype=np.float32)
    assert (other.n_passages, other.block_size) == (300, eager.block_size)
    assert np.array_equal(block.pair_scores(rows, rows), eager.block(rows).pair_scores(rows, rows))
    assert not opened
    for searcher in (other, lazy):
        assert_same(searcher.block(rows).best(rows, no_ceiling, 5), eager.block(rows).best(rows, no_ceiling, 5))
    assert len(opened) == 1


def assert_same(found: Any, expected: Any) -> None:
    for name in ("offsets", "passages", "scores", "exhausted"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_a_veto_needs_no_index(tmp_path: Path) -> None:
    def indexes(folder: Path) -> int:
        return len(list(folder.glob("indexes/*.faiss")))

    settings: dict[str, Any] = {"engine": "HNSW8", "on_exhausted": "keep"}
    plain = miner_in(tmp_path / "plain", **settings)
    plain.fit(ROWS)
    vetoed = miner_in(tmp_path / "vetoed", filters=[Veto(WordTeacher("others"), "perc_pos:0.5")], **settings)
    vetoed.mine(ROWS)
    assert (indexes(tmp_path / "plain"), indexes(tmp_path / "vetoed")) == (1, 1)
    assert vetoed.summary.removed["veto by words (perc_pos:0.5)"] > 0
    assert vetoed.summary.recall is not None
    # Without rows it is built at fit(), too, and not in every process that maps.
    miner_in(tmp_path / "alone", **settings).fit(corpus=CORPUS)
    assert indexes(tmp_path / "alone") == 1


def test_an_index_of_other_vectors_is_refused_and_half_an_index_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "index.faiss"
    build_index(ArraySource(clustered(300)), "IVF4,Flat", path)
    with pytest.raises(StorageError, match=r"is an index of 300 vectors of width 16, expected 301 of width 16"):
        build_index(ArraySource(clustered(301)), "IVF4,Flat", path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert build_index(ArraySource(clustered(300)), "IVF4,Flat", path).ntotal == 300
    assert path.read_bytes() == whole
    assert f"{path} is damaged" in caplog.text


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nonsense", r"cannot build 'nonsense' of 200 vector\(s\) of width 16: could not parse index string"),
        ("IVF300,Flat", r"'IVF300,Flat' trains 300 clusters, which needs as many vectors; the corpus holds 200"),
        ("OPQ4,IVF4,PQ4x4", r"trains 256 codes, which needs as many vectors; the corpus holds 200"),
        ("PQ4", r"'PQ4' trains 256 codes, which needs as many vectors; the corpus holds 200"),
        ("IVF4,PQ3x4", r"'IVF4,PQ3x4' of 200 vector\(s\) of width 16: The dimension of the vector \(d\) should be"),
        ("HNSW8,PQ4x4", "makes an index of distances, not of inner products"),
        ("PCA32,Flat", r"PCA matrix cannot output 32 dimensions from 16"),
        ("IDMap,Flat", r"'IDMap,Flat' of 200"),
        ("HNSW1", r"a graph with 1 link\(s\) per vector, expected at least 2"),
        ("IVF0,Flat", "has 0 clusters"),
        ("", "a FAISS factory such as"),
        ("Flat@", r"'' in 'Flat@' is not a setting such as"),
        ("IVF4,Flat@nprobe=0", "is not a setting"),
        ("IVF4,Flat@nprobe", "is not a setting"),
        ("Flat@nprobe=3", r"'Flat' has no search parameter 'nprobe' = 3"),
        ("IVF4,Flat@efSearch=3", "has no search parameter 'efSearch' = 3"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(tmp_path: Path, factory: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_index(ArraySource(clustered(200)), factory, tmp_path / "index.faiss")
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert not list(tmp_path.glob(".unfinished-*"))


def test_a_corpus_of_nothing_and_an_index_of_another_corpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the corpus holds none"):
        build_index(ArraySource(np.empty((0, 4), dtype=np.float32)), "Flat", tmp_path / "index.faiss")
    searcher = make_searcher(tmp_path, "Flat", clustered(30), clustered(3))
    other = make_searcher(tmp_path / "other", "Flat", clustered(31), clustered(3))
    with pytest.raises(InputError, match="the index holds 31 vectors, the corpus 30"):
        FaissSearcher(searcher.exact, other.index)
    with pytest.raises(InputError, match="first_rung: at least 1 proposal per query, got 0"):
        FaissSearcher(searcher.exact, searcher.index, first_rung=0)


def test_an_engine_is_read_and_said() -> None:
    engine = Engine.parse("IVF256,PQ32@nprobe=8, k_factor_rf=1.5")
    assert (engine.factory, engine.parameters) == ("IVF256,PQ32", {"nprobe": 8.0, "k_factor_rf": 1.5})
    assert str(engine) == "IVF256,PQ32@k_factor_rf=1.5,nprobe=8"
    assert Engine.parse(str(engine)) == engine
    assert str(Engine.parse(" Flat ")) == "Flat"


def test_faiss_says_nothing_about_few_vectors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    factories = ["IVF16,Flat", "IVF4,PQ4x4", "IVF8_HNSW4,Flat", "PQ4x4", "IVF4,SQ8,RFlat"]
    for number, factory in enumerate(factories):
        build_index(ArraySource(clustered(100)), factory, tmp_path / str(number), progress=False)
    assert capfd.readouterr() == ("", "")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=100, check=False
    )


PRELUDE = """
import os, sys, signal
from pathlib import Path
from typing import Any
import numpy as np, torch
from hf_negmine.search.ann import FaissSearcher
from hf_negmine.search.ann_index import build_index
from hf_negmine.search import VectorSearcher
from tests.reference import ArraySource, exclusions_of
assert "faiss" not in sys.modules, "faiss was loaded by an import"
rng = np.random.default_rng(0)
passages, queries = rng.standard_normal((3000, 32)).astype("f4"), rng.standard_normal((200, 32)).astype("f4")
path = Path(sys.argv[1])
"""


def test_killed_while_it_writes_it_leaves_no_half_index(tmp_path: Path) -> None:
    code = """
import faiss
real = faiss.PyCallbackIOWriter
def counted(write):
    parts = []
    def call(part):
        parts.append(part)
        write(part)
        if len(parts) == 20:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(call, 1000)
faiss.PyCallbackIOWriter = counted
build_index(ArraySource(passages), "IVF16,Flat", path)
"""
    path = tmp_path / "index.faiss"
    assert run_python(PRELUDE + code, str(path)).returncode == -signal.SIGKILL
    assert not path.exists()
    assert all(left.name.startswith(".unfinished-") for left in tmp_path.iterdir())
    index = build_index(ArraySource(clustered(300)), "IVF16,Flat", path)
    assert index.ntotal == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_torch_and_faiss_search_with_several_threads_before_and_after_a_fork(tmp_path: Path) -> None:
    """Each brings an OpenMP of its own; whoever waits for the other's threads waits forever."""
    code = """
torch.set_num_threads(4)
def search(name):
    index = build_index(ArraySource(passages), "PCA16,IVF16,Flat@nprobe=4", path.with_name(name))
    exact = VectorSearcher(ArraySource(queries), ArraySource(passages), exclusions_of([[1]] * 200))
    block, rows = FaissSearcher(exact, index, first_rung=16).block(np.arange(200)), np.arange(200)
    found = block.best(rows, np.full(200, np.inf, dtype="f4"), 60)
    return found.passages.tobytes() + found.scores.tobytes()
first = search("parent")
child = os.fork()
if not child:
    torch.set_num_threads(1)  # as fresh.py does
    os._exit(0 if search("parent") == first and search("child") else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert search("parent") == first
assert path.with_name("child").read_bytes() == path.with_name("parent").read_bytes()
"""
    done = run_python(PRELUDE + code, str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
