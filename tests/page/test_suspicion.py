"""Queries in the order of suspicion: what a filter kept out, what a judge called relevant, how near the ceiling is."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_negmine import Consistency, FixedTeacher, FunctionJudge, Judge, NegativeMiner, TopKPercPos, Veto
from hf_negmine.page import Shown, write_report
from hf_negmine.page.views import KEPT_OUT, RELEVANT
from tests.page.conftest import N_PASSAGES, N_QUERIES, vectors
from tests.page.test_report import set_value

QUERIES = [f"query {place}" for place in range(N_QUERIES)]
PASSAGES = [f"passage {place}" for place in range(N_PASSAGES)]
OWN, OTHER = ((vectors(seed, N_QUERIES), vectors(seed + 1, N_PASSAGES)) for seed in (1, 3))
POSITIVES = (OWN[0] @ OWN[1].T).argsort(axis=1)[:, -5]


def teacher(name: str, of: tuple[Any, Any]) -> FixedTeacher:
    return FixedTeacher(QUERIES, of[0], PASSAGES, of[1], name=name)


VETO = Veto(teacher("other", OTHER), "abs:0.3")


def mine(folder: Path, filters: list[Any], **settings: Any) -> NegativeMiner:
    rows = Dataset.from_dict({"query": QUERIES, "positive": [PASSAGES[place] for place in POSITIVES]})
    return NegativeMiner(
        teacher("own", OWN), corpus=PASSAGES, filters=filters, cache_dir=folder, progress=False, pool_depth=40,
        on_exhausted="keep", **settings,
    ).fit(rows)  # fmt: skip


def flagged(miner: NegativeMiner, flag: int) -> list[list[int]]:
    """The passages with a flag, by query."""
    shown = Shown.of(miner)
    content = shown.content({0: np.arange(N_QUERIES)})
    view = content["views"][0]

    def array(text: str, kind: str) -> Any:
        return np.frombuffer(base64.b64decode(text), dtype=kind)

    entries = array(view["entry_offsets"], "<i4")[array(view["segment_offsets"], "<i4")]
    ids = array(content["passage_ids"], "<i4")[array(view["places"], "<i4")]
    flags = array(view["flags"], "u1")
    parts = [slice(start, stop) for start, stop in itertools.pairwise(entries)]
    return [sorted(ids[part][flags[part] & flag > 0].tolist()) for part in parts]


def vetoed(miner: NegativeMiner, share: float) -> list[list[int]]:
    """By hand: over the last negative, under the ceiling, and at or over the veto's."""
    own, other = (np.float32(of[0]) @ np.float32(of[1]).T for of in (OWN, OTHER))
    negatives, found = miner.pool.select(miner.config.method, n=4), []
    for query, positive in enumerate(POSITIVES):
        last = negatives.scores[negatives.offsets[query + 1] - 1]
        ceiling = own[query, positive] * share
        over = np.flatnonzero((own[query] > last) & (own[query] < ceiling) & (other[query] >= 0.3))
        found.append([int(passage) for passage in over if passage != positive])
    return found


@pytest.mark.parametrize(("method", "share"), [("perc_pos:0.9", 0.9), ("naive", np.inf)])
def test_what_a_veto_kept_out_is_told(method: str, share: float, tmp_path: Path) -> None:
    miner = mine(tmp_path, [VETO], method=method)
    kept = flagged(miner, KEPT_OUT)
    assert kept == vetoed(miner, share)
    assert sum(map(len, kept)) > 50


def test_consistency_and_a_judge_are_told_apart(tmp_path: Path) -> None:
    def says(queries: list[str], passages: list[str]) -> list[bool]:
        return [int(passage.split()[1]) % 5 == 0 for passage in passages]

    judge = Judge(FunctionJudge(says, name="every fifth"))
    miner = mine(tmp_path, [VETO, judge, Consistency(40)], method="perc_pos:0.9")
    kept = flagged(miner, KEPT_OUT)
    expected = vetoed(miner, 0.9)
    relevant = flagged(miner, RELEVANT)
    assert sum(map(len, relevant)) > 20
    assert kept == [[one for one in row if one not in told] for row, told in zip(expected, relevant, strict=True)]


def test_a_draw_tells_nothing(tmp_path: Path) -> None:
    assert not any(flagged(mine(tmp_path, [VETO], sampler="sampled:10"), KEPT_OUT))
    assert not any(flagged(mine(tmp_path, []), KEPT_OUT))


def test_the_orders(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    miner = mine(tmp_path, [VETO], method="perc_pos:0.9")
    browser = opened(write_report(miner, tmp_path / "page.html").as_uri())
    options = [it.get_attribute("value") for it in browser.find_elements("css selector", "#order option")]
    assert options == ["given", "near", "few", "kept"]
    set_value(browser, "order", "kept", "change")
    counts = np.array([len(row) for row in flagged(miner, KEPT_OUT)])
    assert browser.execute_script("return hfNegmine.state.order") == np.argsort(-counts, kind="stable").tolist()
    told = [it.text for it in browser.find_elements("css selector", ".held .what")]
    assert told.count("held back by veto by other (abs:0.3)") == counts.max()
    assert "held back: at or over the ceiling" in browser.execute_script("return document.body.textContent")
    set_value(browser, "order", "near", "change")
    fitted = miner.fitted
    ceilings = TopKPercPos(0.9).ceilings(Shown.of(miner).views[0].positives.scores)
    gaps = ceilings.astype(np.float64) - fitted.scores[fitted.offsets[:-1]]
    assert browser.execute_script("return hfNegmine.state.order") == np.argsort(gaps, kind="stable").tolist()
