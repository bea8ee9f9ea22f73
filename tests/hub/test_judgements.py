"""Judgements and sweeps on the Hub: a digest and a picture, and never the judgements themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_negmine import InputError, Judgements, push_dataset, reproduce
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, make_miner, rows


def judged() -> list[dict[str, Any]]:
    """Every query with every passage, a third of which are relevant."""
    return [
        {"query": query, "document": passage, "relevant": (one + two) % 3 == 0}
        for one, query in enumerate(QUERIES)
        for two, passage in enumerate(CORPUS)
        if one != two
    ]


@pytest.mark.parametrize("relabel", [False, True])
def test_mining_again_takes_the_same_judgements_and_no_others(hub: Hub, tmp_path: Path, relabel: bool) -> None:
    file = tmp_path / "secret-name.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in judged()))
    miner = make_miner(tmp_path / "cache", filters=[Judgements(file, relabel=relabel)], on_exhausted="keep")
    push_dataset(miner.mine(rows()), NAME, license="mit")
    pushed = hub.files("dataset", NAME)
    card = pushed["README.md"].decode()
    assert "228 judgements (76 relevant), digest `" in card
    assert ("becomes another positive" if relabel else "is no negative") in card
    assert not any(b"secret-name" in content for content in pushed.values())
    with pytest.raises(InputError, match=r"give Judgements\(FILE\) with the same"):
        reproduce(NAME, progress=False)
    same = Judgements(judged()[::-1], relabel=relabel)
    found = reproduce(NAME, filters=[same], progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found
    assert not found.filters_differ
    other = Judgements([{**one, "relevant": not one["relevant"]} for one in judged()], relabel=relabel)
    found = reproduce(NAME, filters=[other], progress=False, cache_dir=tmp_path / "elsewhere")
    assert (found.identical, found.filters_differ) == (False, True)


def test_a_card_shows_the_front_of_a_sweep_that_is_handed_over(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    miner = make_miner(tmp_path / "cache", on_exhausted="keep")
    mined = miner.mine(rows())
    with pytest.raises(InputError, match="nothing tells how many negatives are false"):
        push_dataset(mined, NAME, license="mit", sweep=miner.sweep(["naive"]))
    assert not hub.requests
    push_dataset(mined, NAME, license="mit", sweep=miner.sweep(judgements=judged()))
    files = hub.files("dataset", NAME)
    assert files["negmine/default/train-sweep.png"].startswith(b"\x89PNG")
    assert "(negmine/default/train-sweep.png)" in files["README.md"].decode()
    push_dataset(mined, NAME)
    assert "negmine/default/train-sweep.png" not in hub.files("dataset", NAME), "a later push replaces it"
