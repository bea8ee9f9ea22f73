"""What a notebook shows: pictures and tables, with all text escaped."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from datasets import Dataset

from hf_negmine import CandidatePool, NegativeMiner, RandomTeacher
from tests.unit.test_recommendation import judged, odd
from tests.unit.test_sweep import METHODS, OTHERS, ROWS, miner

ROOT = Path(__file__).parents[2]
HOSTILE = ["<script>alert(1)</script>", "</td></table><img src=x onerror=alert(1)>", "a $x$ \u202e\u2028 & \"b\" 'c'"]


class Tags(HTMLParser):
    """Collects the tags of a page, and what it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def safe(page: str) -> str:
    """What a page shows, once it is known to be whole and to hold nothing but tables."""
    found = Tags(page)
    assert not found.open
    assert set(found.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "p", "bdi"}
    assert found.attributes <= {"style"}
    assert "$" not in page  # which starts a formula
    return found.text


def test_hostile_text_is_shown_and_runs_nothing(tmp_path: Path) -> None:
    rows = Dataset.from_dict(
        {"query": [f"{text} 1" for text in HOSTILE], "positive": [f"{text} 2" for text in HOSTILE]}
    )

    class Hostile(RandomTeacher):
        name = HOSTILE[0]

    given = NegativeMiner(Hostile(1), corpus=HOSTILE, num_negatives=1, cache_dir=tmp_path, progress=False).fit(rows)
    selection = given.pool.select("naive", n=2)
    shown = safe(selection._repr_html_())
    for text in HOSTILE[:2]:
        assert text in shown
    assert HOSTILE[0] in safe(given.summary._repr_html_())
    assert HOSTILE[0] in safe(given.sweep(["naive"])._repr_html_())


def test_a_selection_shows_the_first_targets_and_their_negatives(tmp_path: Path) -> None:
    for positive_score in ("min", "each"):
        pool = miner(tmp_path, positive_score=positive_score).fit(ROWS).pool
        selection = pool.select("naive", n=3)
        shown = safe(selection._repr_html_())
        assert "120 negatives by naive with top, 40 of 40 targets complete" in shown
        texts = selection.texts()
        assert all(text in shown for some in texts[:5] for text in some)
        assert shown.count("positive") == 5
        assert all(f"{score:.4f}" in shown for score in selection.scores[: 3 * 5])
    alone = CandidatePool.load(tmp_path / "pools" / next((tmp_path / "pools").iterdir()).name)
    assert "came without its texts" in safe(alone.select("naive", n=3)._repr_html_())
    assert safe(pool.select("abs:-1", n=3)._repr_html_())


def test_a_sweep_and_a_summary_show_what_they_print(tmp_path: Path) -> None:
    fitted = miner(tmp_path).fit(ROWS)
    pairs = [(query, passage) for query in ROWS["query"] for passage in [*OTHERS, *ROWS["answer"]]]
    for found in (fitted.sweep(METHODS), fitted.sweep(METHODS, judgements=judged(pairs, odd)), fitted.summary):
        words = set(re.findall(r"[\w.:]+", str(found)))
        assert words <= set(re.findall(r"[\w.:]+", re.sub(r"<[^>]+>", " ", found._repr_html_())))


def test_pictures_of_pools_selections_and_fronts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    fitted = miner(tmp_path).fit(ROWS)
    (axes,) = fitted.pool.plot().axes
    assert len(axes.lines[0].get_xdata()) == 48
    assert list(axes.lines[0].get_ydata()) == sorted(axes.lines[0].get_ydata(), reverse=True)
    assert len(fitted.pool.select("naive", n=3).plot().axes) == 3
    pairs = [(query, passage) for query in ROWS["query"] for passage in [*OTHERS, *ROWS["answer"]]]
    table = fitted.sweep(METHODS, judgements=judged(pairs, odd))
    (axes,) = table.plot().axes
    drawn = sorted(zip(*axes.lines[1].get_data(), strict=True))
    assert drawn == sorted((one.mean_score, 100 * (one.estimated or 0)) for one in table.settings if one.front)
    assert axes.lines[2].get_label() == f"recommended: {table.recommended.name if table.recommended else ''}"


def test_the_example_runs_from_top_to_bottom(minilm: str, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(ROOT / "examples" / "explore.ipynb", as_version=4)
    environment = {**os.environ, "HF_NEGMINE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute(cwd=str(tmp_path), env=environment)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [next(out.data for out in cell.outputs if "data" in out) for cell in code]
    assert ["image/png" in data for data in shown] == [False, True, False, True, False, True, False]
    assert all("text/html" in data for data in shown if "image/png" not in data)
    assert "Take " in shown[4]["text/html"]
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
