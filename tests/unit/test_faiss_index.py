"""A FAISS index: built to the same bytes each time, stored whole or not at all, and refused in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.schema import FloatArray
from hf_negmine.search import faiss_index
from hf_negmine.search.faiss_index import build_index
from hf_negmine.teachers.approximate import IndexSpec
from tests.reference import ArraySource

pytest.importorskip("faiss", reason="needs the package faiss-cpu")

ROOT = Path(__file__).parents[2]


def clustered(count: int, width: int = 16, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, width))
    vectors = centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW8", "IVF8_HNSW4,PQ4x4", "RQ2x4", "PRQ2x2x4"])
def test_an_index_is_built_to_the_same_bytes(tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss, passages = faiss_index.load_faiss(), ArraySource(clustered(1500))
    monkeypatch.setattr(faiss_index, "VECTORS_A_STEP", 400)
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 4):
            faiss.omp_set_num_threads(threads)
            build_index(passages, IndexSpec.parse(factory), tmp_path / str(threads))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "4").read_bytes()


def test_a_stored_index_is_read_and_not_built_again(tmp_path: Path) -> None:
    passages, path = ArraySource(clustered(300)), tmp_path / "new" / "index.faiss"
    build_index(passages, IndexSpec.parse("IVF4,Flat"), path)
    before = path.stat()
    index = build_index(passages, IndexSpec.parse("IVF4,Flat@nprobe=3"), path)
    assert (index.nprobe, index.ntotal) == (3, 300)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.faiss", "index.json"]


def test_an_index_of_other_vectors_is_refused_and_half_an_index_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "index.faiss"
    build_index(ArraySource(clustered(300)), IndexSpec.parse("IVF4,Flat"), path)
    with pytest.raises(StorageError, match=r"is an index of 300 vectors of width 16, expected 301 of width 16"):
        build_index(ArraySource(clustered(301)), IndexSpec.parse("IVF4,Flat"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert build_index(ArraySource(clustered(300)), IndexSpec.parse("IVF4,Flat"), path).ntotal == 300
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
        ("RQ2x8", r"'RQ2x8' trains 256 codes, which needs as many vectors; the corpus holds 200"),
        ("LSH", r"of width 16: 'metric == METRIC_L2' does not hold$"),
        ("ITQ16,LSH", r"of width 16: 'metric == METRIC_L2' does not hold$"),
        ("IVF99999999999,Flat", "of width 16: FAISS does not know it$"),
        ("HNSW999999999", "of width 16: it needs more memory than there is$"),
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
        build_index(ArraySource(clustered(200)), IndexSpec.parse(factory), tmp_path / "index.faiss")
    assert "\n" not in str(caught.value)
    assert not any(word in str(caught.value) for word in (".cpp", "::", "C++"))
    assert not list(tmp_path.glob(".unfinished-*"))


def test_what_cannot_be_searched_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PQ8x2 where FAISS computes with AVX2."""
    text = "Error in void faiss::tables(size_t) [with size_t = long] at /a/b.h:149: Error: 'ksub % 8 == 0' failed"

    def search(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(faiss_index.load_faiss().IndexPQ, "search", search)
    with pytest.raises(InputError, match=r"^index: FAISS cannot search 'PQ8x2': 'ksub % 8 == 0' does not hold$"):
        build_index(ArraySource(clustered(200)), IndexSpec.parse("PQ8x2"), tmp_path / "index.faiss")


def test_a_corpus_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the corpus holds none"):
        build_index(ArraySource(np.empty((0, 4), dtype=np.float32)), IndexSpec.parse("Flat"), tmp_path / "index.faiss")


def test_faiss_says_nothing_about_few_vectors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    factories = ["IVF16,Flat", "IVF4,PQ4x4", "IVF8_HNSW4,Flat", "PQ4x4", "IVF4,SQ8,RFlat", "RQ2x4", "IVF4,PRQ2x2x4"]
    for number, factory in enumerate(factories):
        build_index(ArraySource(clustered(100)), IndexSpec.parse(factory), tmp_path / str(number), progress=False)
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
from hf_negmine.search.faiss_index import build_index
from hf_negmine.search import VectorSearcher, pair_scores
from hf_negmine.search.proposals import IndexProposals
from hf_negmine.search.rerank import RerankingSearcher
from hf_negmine.teachers.approximate import IndexSpec
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
build_index(ArraySource(passages), IndexSpec.parse("IVF16,Flat"), path)
"""
    path = tmp_path / "index.faiss"
    assert run_python(PRELUDE + code, str(path)).returncode == -signal.SIGKILL
    assert not path.exists()
    assert all(left.name.startswith(".unfinished-") for left in tmp_path.iterdir())
    index = build_index(ArraySource(clustered(300)), IndexSpec.parse("IVF16,Flat"), path)
    assert index.ntotal == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_torch_and_faiss_search_with_several_threads_before_and_after_a_fork(tmp_path: Path) -> None:
    """Each brings an OpenMP of its own; whoever waits for the other's threads waits forever."""
    code = """
torch.set_num_threads(4)
def search(name):
    index = build_index(ArraySource(passages), IndexSpec.parse("PCA16,IVF16,Flat@nprobe=4"), path.with_name(name))
    exact = VectorSearcher(ArraySource(queries), ArraySource(passages), exclusions_of([[1]] * 200))
    first_stage = IndexProposals(exact, lambda: index, 64)
    searcher = RerankingSearcher(first_stage, lambda queries, passages: pair_scores(exact, queries, passages))
    found = searcher.block(np.arange(200)).best(np.arange(200), np.full(200, np.inf, dtype="f4"), 60)
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
