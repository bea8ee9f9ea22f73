"""What mining in ranks takes, on paper: hours, bytes, files and memory, before anything is rented."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from hf_negmine.pool.parts import PASSAGES_A_SLICE
from hf_negmine.pool.retrieving import QUERIES_A_PART
from hf_negmine.search.exact import QUERIES_A_BLOCK_ON_A_GPU
from hf_negmine.teachers.vector_store import TEXTS_A_SHARD

FILES_A_SHARD = 3
"""The vectors, the digests of their texts, and the JSON with their checksums."""
BYTES_A_TEXT = 48
"""In memory: a digest, sorted, and where the vector is, by digest and by id."""
HELD = 1 / 4
"""The part of a GPU's memory that a slice of the corpus may take; a larger one is read for each part of the queries."""
BYTES_A_CANDIDATE = 8
"""A passage id and a score."""


@dataclass(frozen=True)
class Workload:
    """What is mined, and where.

    Attributes:
        passages: texts of the corpus.
        queries: texts to search with.
        ranks: processes, each with a GPU of its own.
        parameters: of the model.
        tokens: per text, on average.
        width: of a vector.
        depth: candidates stored per query.
        deepened: share of the queries that must be searched again under their ceilings.
        gpu_gigabytes: memory of a GPU.
        teraflops: what a GPU sustains, in encoding as in a matrix product.
        gigabytes_per_second: what a rank reads from the shared folder while all ranks read.
    """

    passages: int
    queries: int
    ranks: int
    parameters: float = 110e6
    tokens: int = 128
    width: int = 768
    depth: int = 100
    deepened: float = 0.07
    gpu_gigabytes: float = 80.0
    teraflops: float = 200.0
    gigabytes_per_second: float = 2.0


@dataclass(frozen=True)
class Plan:
    """What a workload takes.

    Attributes:
        encode_hours: hours of each rank to encode its share.
        product_hours: hours of the rank with most to do, for the products of parts of the queries with slices.
        read_hours: its hours to read its slices of the corpus, each once, or for each part of the queries if the GPU
            cannot hold it. Reading and computing do not overlap, so a search takes the sum of both.
        check_hours: its hours to verify the vectors that it has encoded, and those that it searches.
        deeper_hours: its hours to search deeper for some of its queries; a corpus of several slices is not searched
            deeper by ranks.
        last_hours: hours of the last step, in which one process verifies all vectors, and searches deeper if ranks do
            not.
        gpu_hours: of all ranks, and the last step.
        stored_gigabytes: vectors in the shared folder.
        moved_gigabytes: what is read from it, and what ranks find in slices, written and read.
        pool_gigabytes: candidates, which the last step joins in memory.
        files: files of the vectors.
        maps: files that the last step maps to read all vectors; Linux allows 65,530 by default (``vm.max_map_count``).
        memory_gigabytes: its memory for the places of vectors, without what sorting them takes for a while.
    """

    encode_hours: float
    product_hours: float
    read_hours: float
    check_hours: float
    deeper_hours: float
    last_hours: float
    gpu_hours: float
    stored_gigabytes: float
    moved_gigabytes: float
    pool_gigabytes: float
    files: int
    maps: int
    memory_gigabytes: float

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {name: f"{value:,.{0 if value >= 100 else 2}f}" for name, value in values.items()}
        return "\n".join(f"{name:16} {value:>10}" for name, value in shown.items())


def plan(work: Workload) -> Plan:
    """The arithmetic of mining with a model that makes one vector per text."""
    texts = work.passages + work.queries
    shards = math.ceil(work.passages / TEXTS_A_SHARD) + math.ceil(work.queries / TEXTS_A_SHARD)
    corpus, queries = (4 * work.width * count / 1e9 for count in (work.passages, work.queries))
    operations, read = 3600e12 * work.teraflops, 3600 * work.gigabytes_per_second  # per hour
    parts, slices = math.ceil(work.queries / QUERIES_A_PART), math.ceil(work.passages / PASSAGES_A_SLICE)
    again, pool = work.deepened * work.queries, BYTES_A_CANDIDATE * work.depth * work.queries / 1e9
    turns = math.ceil(slices * parts / work.ranks)  # searches of a slice for a part, of the rank with most
    visits = min(slices, math.ceil((turns - 1) / parts) + 1)  # of slices, most of them for one part after another
    all_visits = min(slices * parts, slices + work.ranks - 1)
    held = corpus / slices <= HELD * work.gpu_gigabytes
    reads, all_reads = (visits, all_visits) if held else (turns, slices * parts)
    searchers = work.ranks if slices == 1 else 1  # of those that must be searched deeper for
    more_reads = math.ceil(again / searchers / QUERIES_A_BLOCK_ON_A_GPU)
    encode = 2 * work.parameters * work.tokens * texts / work.ranks / operations
    product = 2 * work.width * work.passages * min(QUERIES_A_PART, work.queries) / operations  # for a part
    check = (corpus + queries) / work.ranks + visits * corpus / slices + queries
    more = product * again / searchers / min(QUERIES_A_PART, work.queries) + more_reads * corpus / read
    deeper, last = (more, 0.0) if slices == 1 else (0.0, more)
    last += (corpus + queries) / read
    each = encode + turns * product / slices + (reads * corpus / slices + check) / read + deeper
    searched = (all_reads + all_visits) * corpus / slices + work.ranks * queries
    found = 2 * slices * pool if slices > 1 else 0
    return Plan(
        encode_hours=encode,
        product_hours=turns * product / slices,
        read_hours=reads * corpus / slices / read,
        check_hours=check / read,
        deeper_hours=deeper,
        last_hours=last,
        gpu_hours=work.ranks * each + last,
        stored_gigabytes=corpus + queries,
        moved_gigabytes=searched + found + (searchers * more_reads + 2) * corpus + 2 * queries,
        pool_gigabytes=pool,
        files=FILES_A_SHARD * shards,
        maps=shards,
        memory_gigabytes=BYTES_A_TEXT * texts / 1e9,
    )
