"""Bars of a search: none counts the work of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_negmine import ApproximateTeacher, NegativeMiner
from hf_negmine.pool import retrieving
from tests.train.helpers import CORPUS, WordTeacher, rows


class Recorded(WordTeacher):
    """Notes when it encodes."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "events", events)

    def encode(self, texts: Any, role: Any) -> Any:
        self.events.append(f"encodes {role}")  # type: ignore[attr-defined]
        return super().encode(texts, role)


@pytest.mark.parametrize("index", [None, "IVF2,Flat"])
def test_the_bar_of_the_search_begins_when_everything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str | None
) -> None:
    events: list[str] = []
    tqdm = retrieving.tqdm

    def bar(*args: Any, **kwargs: Any) -> Any:
        events.append(kwargs["desc"])
        return tqdm(*args, **kwargs)

    monkeypatch.setattr(retrieving, "tqdm", bar)
    teacher = Recorded(events) if index is None else ApproximateTeacher(Recorded(events), index)
    NegativeMiner(teacher, corpus=CORPUS, cache_dir=tmp_path, device="cpu", progress=False).fit(rows())
    assert events.index("Searching") > max(i for i, event in enumerate(events) if event.startswith("encodes"))
    assert {"encodes query", "encodes passage"} <= set(events)


def test_what_an_earlier_run_has_searched_is_not_counted_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieving, "QUERIES_A_PART", 4)
    bars: list[dict[str, Any]] = []
    tqdm = retrieving.tqdm

    def bar(*args: Any, **kwargs: Any) -> Any:
        bars.append(kwargs)
        return tqdm(*args, **kwargs)

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrieving, "tqdm", bar)
    settings: dict[str, Any] = {"corpus": CORPUS, "cache_dir": tmp_path, "device": "cpu", "progress": False}
    with monkeypatch.context() as patched:
        patched.setattr(retrieving, "write_pool", stop)
        with pytest.raises(KeyboardInterrupt):
            NegativeMiner(WordTeacher(), **settings).fit(rows())
    part = sorted(next(tmp_path.glob("pools/*/parts")).glob("0*.npy"))
    assert len(part) == 4
    part[-1].unlink()
    NegativeMiner(WordTeacher(), **settings).fit(rows())
    searches = [(kwargs["total"], kwargs["initial"]) for kwargs in bars if kwargs["desc"] == "Searching"]
    assert searches == [(16, 0), (16, 12)]
