"""A FAISS index of vectors: its construction, and how it is opened.

FAISS is loaded when it is first needed, never by importing this module (`tests/unit/test_faiss_index.py` checks this).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.checksums import is_whole, require_writable, write_sealed
from hf_negmine.base.errors import InputError, StorageError, require
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.progress import bar
from hf_negmine.base.schema import FloatArray
from hf_negmine.search.corpus import VectorSource
from hf_negmine.search.faiss_library import faiss_threads, load_faiss
from hf_negmine.teachers.approximate import IndexSpec

if TYPE_CHECKING:
    import faiss

VECTORS_A_STEP = 16_384
"""Vectors added at a time. Graphs depend on it, so changing it changes indexes."""
TRAINING_BYTES = 2**30
"""Above this size, training uses no more vectors than FAISS' recommended minimum of 39 per cluster."""
EF_SEARCH = 128
FAILURES = (RuntimeError, MemoryError)
"""What FAISS raises."""


def build_index(
    passages: VectorSource, spec: IndexSpec, path: Path, *, seed: int = 0, progress: bool = True
) -> faiss.Index:
    """Open the index of ``passages`` stored at ``path``, ready for searching; it is built if missing or damaged.

    It is trained on a seeded sample of 256 vectors per cluster and is the same, byte for byte, each time it is built.
    Where FAISS does not guarantee that with several threads, it gets only one: for transformations (PCA, OPQ), for
    residual quantizers (RQ), and for graphs (HNSW) if this version of FAISS does not build them in a fixed order; 1.15
    does. An index is held in memory while it is built; afterwards it is read by memory map.

    Without search parameters an IVF index probes an eighth of its clusters, at least 8, and a graph is searched with
    efSearch=128. On SQuAD (all-MiniLM-L6-v2, 20,958 passages) that finds about 92 % of the 48 best passages with
    IVF144,Flat (a sixteenth: 86 %, a quarter: 97 %), and 99 % with HNSW32; the summary has the figure of your data.

    Args:
        passages: vectors, of unit length for cosine similarity; FAISS compares inner products.
        spec: the kind of index, and how it is searched.
        path: one file per set of vectors, ``spec.factory`` and ``seed``.
        seed: the seed of the sample and of the clusters.
        progress: whether to show a bar if it takes longer than a second.

    Raises:
        InputError: FAISS does not know the factory, it does not fit the vectors or memory, it cannot be searched, or
            parameters are unknown.
        StorageError: the file belongs to other vectors, or cannot be written.
    """
    count, width = passages.shape
    note = path.with_suffix(".json")
    if not is_whole(note, aside=note):
        require_writable(path)
        _build(passages, spec.factory, path, seed, progress)
        write_sealed(note, {"factory": spec.factory}, [path])
    library = load_faiss()
    try:
        index: faiss.Index = library.read_index(str(path), _read_flags(library, spec.factory))
    except FAILURES as error:
        raise StorageError(f"cannot read {path}: {_reason(error)}; delete it and run again") from error
    if (index.ntotal, index.d) != (count, width):
        raise StorageError(
            f"{path} is an index of {index.ntotal:,} vectors of width {index.d}, expected {count:,} of width {width}; "
            "delete it and run again"
        )
    _set_parameters(library, index, spec)
    _try_search(index, spec, passages)
    return index


def _build(passages: VectorSource, factory: str, path: Path, seed: int, progress: bool) -> None:
    count, width = passages.shape
    about = f"{count:,} vector(s) of width {width}"
    graph = re.search(r"(?:HNSW|NSG)(\d*)", factory)
    # FAISS would kill the process over these, or divide by zero when searching.
    require(
        graph is None or not graph[1] or int(graph[1]) >= 2,
        f"index: {factory!r} has a graph with {graph and graph[1]} link(s) per vector, expected at least 2",
    )
    require(re.search(r"IVF0(?!\d)", factory) is None, f"index: {factory!r} has 0 clusters, expected at least 1")
    require(count > 0, f"index: {factory!r} needs vectors, the corpus holds none")
    faiss = load_faiss()
    refused = f"index: FAISS cannot build {factory!r} of {about}"
    try:
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except FAILURES as error:
        raise InputError(f"{refused}: {_reason(error)}") from error
    require(
        index.metric_type == faiss.METRIC_INNER_PRODUCT,
        f"{refused}: it makes an index of distances, not of inner products",
    )
    clusters, codes = _prepare_training(faiss, index, seed)
    for parts, what in ((clusters, "clusters"), (codes, "codes")):
        require(
            parts <= count,
            f"index: {factory!r} trains {parts:,} {what}, which needs as many vectors; the corpus holds {count:,}",
        )
    unordered = (
        isinstance(index, faiss.IndexPreTransform)
        or re.search(r"RQ\d", factory) is not None
        or (graph is not None and not hasattr(faiss.HNSW, "compute_forward_links_deterministic"))
    )
    with (
        faiss_threads(1 if unordered else None),
        bar(f"Indexing {factory}", "passages", count, shown=progress) as indexed,
    ):
        try:
            if not index.is_trained:
                index.train(_training_sample(passages, max(clusters, codes, 1), seed))
            for start in range(0, count, VECTORS_A_STEP):
                vectors = passages.slice(start, min(start + VECTORS_A_STEP, count))
                index.add(np.ascontiguousarray(vectors, dtype=np.float32))
                indexed.update(len(vectors))
        except FAILURES as error:
            raise InputError(f"{refused}: {_reason(error)}") from error
    with finish_or_nothing(path) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _prepare_training(faiss: Any, index: Any, seed: int) -> tuple[int, int]:
    """Seed all parts that are trained, and silence FAISS' warnings about few vectors; count the clusters and codes."""
    clusters = codes = 0
    pending = [index]
    while pending:
        part = pending.pop()
        if hasattr(part, "nlist"):
            clusters = max(clusters, int(part.nlist))
        for quantizer, bits in _quantizers_of(faiss, part):
            codes = max(codes, 2**bits)
            pending.append(quantizer)
        if isinstance(part, faiss.OPQMatrix):
            codes = max(codes, 256)  # from its internal quantizer, which may warn about few vectors
        if getattr(part, "cp", None) is not None:
            part.cp.seed, part.cp.min_points_per_centroid = seed + 1234, 1
        for inner in ("index", "base_index", "storage", "quantizer", "refine_index"):
            other = getattr(part, inner, None)
            if isinstance(other, faiss.Index):
                pending.append(faiss.downcast_index(other))
        if hasattr(part, "chain"):
            pending.extend(faiss.downcast_VectorTransform(part.chain.at(place)) for place in range(part.chain.size()))
    return clusters, codes


def _quantizers_of(faiss: Any, part: Any) -> list[tuple[Any, int]]:
    """The quantizers that a part trains, each with the most bits of its codes."""
    if getattr(part, "pq", None) is not None:
        return [(part.pq, int(part.pq.nbits))]
    residual = [part.rq] if getattr(part, "rq", None) is not None else []
    if getattr(part, "prq", None) is not None:
        residual += [faiss.downcast_Quantizer(part.prq.subquantizer(place)) for place in range(part.prq.nsplits)]
    return [(quantizer, int(faiss.vector_to_array(quantizer.nbits).max())) for quantizer in residual]


def _training_sample(passages: VectorSource, clusters: int, seed: int) -> FloatArray:
    count, width = passages.shape
    allowed = max(39 * clusters, TRAINING_BYTES // (4 * width))
    wanted = min(count, max(256 * clusters, VECTORS_A_STEP), allowed)
    ids = np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False)) if wanted < count else None
    vectors = passages.slice(0, count) if ids is None else passages.gather(ids)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _read_flags(faiss: Any, factory: str) -> int:
    """Flags that keep inverted lists, vectors and graphs on disk where this version of FAISS supports it."""
    if "IVF" in factory:
        return int(faiss.IO_FLAG_MMAP)
    return int(getattr(faiss, "IO_FLAG_MMAP_IFC", 0))


def _set_parameters(faiss: Any, index: Any, spec: IndexSpec) -> None:
    space = faiss.ParameterSpace()
    parameters = dict(spec.parameters)
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        parameters.setdefault("nprobe", min(ivf.nlist, max(8, ivf.nlist // 8)))
        lists = faiss.downcast_InvertedLists(ivf.invlists)
        if hasattr(lists, "prefetch_nthread"):
            lists.prefetch_nthread = 0  # it would start 32 threads for every query
    elif re.match(r"(?:.*,)?HNSW", spec.factory):
        parameters.setdefault("efSearch", EF_SEARCH)
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise InputError(f"index: {spec.factory!r} has no search parameter {name!r} = {value}") from error


def _try_search(index: Any, spec: IndexSpec, passages: VectorSource) -> None:
    """Search once: some indexes are built, but cannot be searched."""
    try:
        with faiss_threads(1):
            index.search(np.ascontiguousarray(passages.slice(0, 1), dtype=np.float32), 1)
    except FAILURES as error:
        raise InputError(f"index: FAISS cannot search '{spec}': {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last clause of a FAISS message, which starts with the name of a C++ function, a path and a condition."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "std::vector" in text:
        return "it needs more memory than there is"
    text = re.sub(r"^Error in .* at \S+:\d+: ", "", text)
    if match := re.fullmatch(r".*Error: '(.*?)' failed:? ?(.*)", text):
        text = match[2] or f"{match[1]!r} does not hold"
    readable = text and not text.startswith("C++ exception")
    return text.rstrip(".") if readable else "FAISS does not know it"
