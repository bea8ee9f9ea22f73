"""The arithmetic of `plan`, checked by hand, and the table of docs/cluster.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_negmine.cluster import Workload, plan
from tests.conftest import ROOT

BILLION = Workload(passages=1_000_000_000, queries=1_000_000, ranks=64)


def test_the_figures_of_a_billion_passages() -> None:
    found = plan(BILLION)
    assert found.stored_gigabytes == pytest.approx(1.001e9 * 768 * 4 / 1e9)
    assert found.maps == 488_282 + 489
    assert found.files == 3 * found.maps
    assert found.encode_hours == pytest.approx(2 * 110e6 * 128 * 1.001e9 / 200e12 / 3600 / 64)
    # 239 slices of 2**22 passages by 123 parts of 8,192 queries: 460 searches a rank, in five slices at most.
    assert found.read_hours == pytest.approx(5 * 3072 / 239 / 2 / 3600)
    assert found.product_hours == pytest.approx(460 * 2 * 768 * 8192 * 1e9 / 239 / 200e12 / 3600)
    # The last step verifies everything, and reads the corpus twice for 70,000 queries.
    product = 2 * 768 * 70_000 * 1e9 / 200e12
    assert found.last_hours == pytest.approx((product + (3072 + 3.072 + 2 * 3072) / 2) / 3600)
    assert found.pool_gigabytes == pytest.approx(0.8)


def test_twice_the_ranks_take_half_the_time_and_read_hardly_more() -> None:
    one, two = plan(BILLION), plan(replace(BILLION, ranks=128))
    assert two.encode_hours == pytest.approx(one.encode_hours / 2)
    assert two.product_hours == pytest.approx(one.product_hours / 2)
    assert two.last_hours == one.last_hours
    # The queries, and at most one slice more each: those in the middle of which a rank begins.
    assert two.moved_gigabytes - one.moved_gigabytes == pytest.approx(64 * (3.072 + 2 * 3072 / 239))


def test_a_slice_that_a_gpu_holds_is_read_once_by_each_rank() -> None:
    small = Workload(passages=4_000_000, queries=1_000_000, ranks=4)
    assert plan(small).read_hours == pytest.approx(4e6 * 768 * 4 / 1e9 / 2 / 3600)
    assert plan(replace(small, gpu_gigabytes=16)).read_hours == pytest.approx(31 * plan(small).read_hours)


def test_ranks_search_a_corpus_of_one_slice_deeper() -> None:
    found = plan(Workload(passages=4_000_000, queries=1_000_000, ranks=4))
    product, corpus, queries = 2 * 768 * 17_500 * 4e6 / 200e12, 4e6 * 768 * 4 / 1e9, 1e6 * 768 * 4 / 1e9
    assert found.deeper_hours == pytest.approx((product + corpus / 2) / 3600)
    assert found.last_hours == pytest.approx((corpus + queries) / 2 / 3600)
    # Each rank reads the corpus and verifies it, and reads it again, and so does the last step; all read the queries.
    assert found.moved_gigabytes == pytest.approx((3 * 4 + 2) * corpus + (4 + 2) * queries)
    assert plan(BILLION).deeper_hours == 0


def test_the_table_of_the_docs_is_this_arithmetic() -> None:
    table = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    smaller = plan(replace(BILLION, passages=100_000_000, ranks=16))
    for one, other in zip(str(smaller).splitlines(), str(plan(BILLION)).splitlines(), strict=True):
        name, value = one.split()
        assert f"| {name} | {value} | {other.split()[1]} |" in table
