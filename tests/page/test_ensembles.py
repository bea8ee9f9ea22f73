"""The page of an ensemble: its teachers' agreement as a heat map, and each teacher's own candidates and choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import CrossSample, FixedTeacher, IntraSample, NegativeMiner
from hf_negmine.commands.cli import app
from hf_negmine.page import Shown, write_report
from hf_negmine.page.serving import served
from tests.page.conftest import N_PASSAGES, N_QUERIES, vectors
from tests.page.test_explore import ask
from tests.page.test_report import contrasts, set_value

KINDS: dict[str, Callable[[list[Any]], Any]] = {
    "cross-sample": CrossSample,
    "intra-sample": IntraSample,
    "intra-sample-dedup": lambda teachers: IntraSample(teachers, dedup=True),
}
NAMES = ["<b>one</b>", "two", "two"]


@pytest.fixture(scope="module", params=KINDS)
def ensemble(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NegativeMiner:
    """Three teachers with some negatives in common, two of them with the same name."""
    queries = [f"query {place}" for place in range(N_QUERIES)]
    passages = [f"passage {place}" for place in range(N_PASSAGES)]
    teachers = [
        FixedTeacher(
            queries, vectors(1, N_QUERIES) + 0.3 * vectors(3 + seed, N_QUERIES),
            passages, vectors(2, N_PASSAGES) + 0.3 * vectors(6 + seed, N_PASSAGES), name=name,
        )
        for seed, name in enumerate(NAMES)
    ]  # fmt: skip
    best = (vectors(1, N_QUERIES) @ vectors(2, N_PASSAGES).T).argmax(axis=1)
    rows = Dataset.from_dict({"query": queries, "positive": [passages[place] for place in best]})
    return NegativeMiner(
        KINDS[request.param](teachers), corpus=passages, num_negatives=6, pool_depth=200, progress=False,
        on_exhausted="keep", cache_dir=tmp_path_factory.mktemp("ensemble"),
    ).fit(rows)  # fmt: skip


@pytest.fixture(scope="module")
def page(ensemble: NegativeMiner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(ensemble, tmp_path_factory.mktemp("report") / "report.html")


def chosen(miner: NegativeMiner, teacher: int) -> set[tuple[int, int]]:
    """The queries and passages that a teacher has chosen, from the selection."""
    config = miner.config
    selection = miner.pool.select(config.method, config.sampler, config.num_negatives, seed=config.seed)
    assert selection.chosen_by is not None
    queries = np.repeat(np.arange(len(selection.counts)), selection.counts)
    mine = selection.chosen_by == teacher
    return set(zip(queries[mine].tolist(), selection.passages[mine].tolist(), strict=True))


OWN = (
    "const {now} = hfNegmine.state, ids = hfNegmine.idsOf(now);"
    "return now.itemOf.map((item, n) => [hfNegmine.queryId(item), ids[n]])"
)


def test_each_teacher_shows_what_it_chose(ensemble: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    options = [it.text for it in browser.find_elements("css selector", "#view option")]
    assert options == ["<b>one</b>", "two #1", "two #2"]
    whole: set[tuple[int, int]] = set()
    for teacher in range(len(NAMES)):
        set_value(browser, "view", str(teacher), "change")
        scope = browser.find_element("id", "scope").text
        of_all = f"queries of this teacher ({N_QUERIES} in all), "
        assert (of_all in scope) == (ensemble.config.teacher.name.startswith("cross-sample")), scope
        own = [tuple(pair) for pair in browser.execute_script(OWN)]
        assert set(own) == chosen(ensemble, teacher)
        assert len(set(own)) == len(own) > 0
        whole |= set(own)
    fitted = ensemble.fitted
    queries = np.repeat(np.arange(N_QUERIES), np.diff(fitted.offsets)).tolist()
    assert whole == set(zip(queries, fitted.passages.tolist(), strict=True))


def test_the_slider_is_of_the_teacher_that_is_shown(
    ensemble: NegativeMiner, page: Path, opened: Callable[[str], Any]
) -> None:
    browser = opened(page.as_uri())
    shown = Shown.of(ensemble)
    for teacher in (2, 0, 1):
        set_value(browser, "view", str(teacher), "change")
        set_value(browser, "slider", "0.8")
        selection = ensemble.pool.pools[teacher].select("perc_pos:0.8", n=shown.views[teacher].wanted)  # type: ignore[union-attr]
        expected = selection.ragged.take(shown.views[teacher].targets).arrays[0].tolist()
        assert browser.execute_script("return hfNegmine.idsOf(hfNegmine.state.now)") == expected


def test_the_heat_map_holds_the_numbers_of_the_summary(
    ensemble: NegativeMiner, page: Path, opened: Callable[[str], Any]
) -> None:
    browser = opened(page.as_uri())
    agreement = ensemble.summary.agreement
    assert agreement is not None
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#agreement tbody tr')]"
        ".map((row) => [...row.cells].map((it) => it.textContent))"
    )
    assert [row[0] for row in cells] == ["1 <b>one</b>", "2 two #1", "3 two #2"]
    assert [row[1:] for row in cells] == [[f"{value:.2f}" for value in row] for row in agreement["jaccard"]]
    assert len({value for row in cells for value in row[1:]}) > 2
    shades = browser.execute_script(
        "return [...document.querySelectorAll('#agreement tbody td')].map((it) =>"
        " getComputedStyle(it).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0))"
    )
    values = [value for row in agreement["jaccard"] for value in row]
    by_value = [shade for _, shade in sorted(zip(values, shades, strict=True))]
    assert by_value == sorted(by_value, reverse=True), "the more alike, the darker, also in gray"
    for theme in ("light", "dark"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        assert min(contrasts(browser)) >= 4.5


def test_labels_are_those_of_all_teachers(page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    for teacher in range(len(NAMES)):
        set_value(browser, "view", str(teacher), "change")
        browser.find_elements("css selector", '.passage.chosen [data-label="true"]')[-1].click()
    labels = browser.execute_script("return hfNegmine.labels.size")
    assert len(browser.execute_script("return hfNegmine.asLines()").splitlines()) == labels > 1


def test_a_teacher_is_served_in_slices(
    ensemble: NegativeMiner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[str], Any]
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.setattr("hf_negmine.page.serving.QUERIES_A_SLICE", 12)
    targets = Shown.of(ensemble).views[1].targets
    with served(Shown.of(ensemble), tmp_path / "labels.jsonl") as address:
        browser = opened(address)
        set_value(browser, "view", "1", "change")
        WebDriverWait(browser, 10).until(lambda it: "teacher=1" in it.current_url)
        WebDriverWait(browser, 10).until(lambda it: it.execute_script("return Boolean(window.hfNegmine)"))
        assert browser.find_element("id", "slices").text.startswith(f"Queries 1 to 12 of {len(targets)}")
        browser.find_element("link text", "Later").click()
        WebDriverWait(browser, 10).until(lambda it: "start=12" in it.current_url)
        WebDriverWait(browser, 10).until(lambda it: it.execute_script("return Boolean(window.hfNegmine)"))
        assert browser.find_element("id", "view").get_attribute("value") == "1"
        assert browser.execute_script("return hfNegmine.queryId(0)") == targets[12]
        for wrong in ("?teacher=9", "?teacher=-1", "?teacher=x"):
            assert ask(address, urlsplit(address).path + wrong)[0] == 200


def test_a_teacher_that_no_query_draws(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    rows = Dataset.from_dict({"query": ["what is tea"], "positive": ["tea is a drink"]})
    corpus = ["tea is a drink", "what is coffee", "what is water", "tea leaves"]
    miner = NegativeMiner(
        "cross-sample(bm25, random:1)", corpus=corpus, num_negatives=1, cache_dir=tmp_path, progress=False
    )
    browser = opened(write_report(miner.fit(rows), tmp_path / "page.html").as_uri())
    browser.get_log("browser")
    for teacher in ("1", "0"):
        set_value(browser, "view", teacher, "change")
        set_value(browser, "rule", "abs", "change")
    assert browser.get_log("browser") == []


def test_the_command(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    rows = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"query": f"what is thing {n}", "positive": f"thing {n} is a thing"}) for n in range(20)]
    rows.write_text("\n".join(lines), encoding="utf-8")
    cache, folder, page = ["--cache-dir", str(tmp_path / "cache")], str(tmp_path / "mined"), tmp_path / "page.html"
    teacher = ["-t", "intra-sample(bm25, random:1)"]
    for arguments in (["mine", str(rows), *teacher, "-o", folder, "-q"], ["report", folder, "-o", str(page)]):
        done = CliRunner().invoke(app, [*arguments, *cache])
        assert done.exit_code == 0, done.output
    browser = opened(page.as_uri())
    assert browser.find_element("id", "agreement").is_displayed()
    assert browser.find_element("id", "shared").text.startswith("Each teacher chooses 2 of the 4 negatives")


def test_the_teachers_share_the_queries_of_a_page(ensemble: NegativeMiner) -> None:
    shown = Shown.of(ensemble)
    for place, targets in shown.sample(12).items():
        assert len(targets) == 4
        assert set(targets) <= set(shown.views[place].targets)


def test_the_pool_of_an_ensemble_as_a_picture(ensemble: NegativeMiner) -> None:
    pytest.importorskip("matplotlib")
    (axes,) = ensemble.pool.plot("perc_pos:0.95", 6).axes  # type: ignore[call-arg]
    numbers = [text.get_text() for text in axes.texts]
    assert ensemble.summary.agreement is not None
    assert numbers == [f"{value:.2f}" for row in ensemble.summary.agreement["jaccard"] for value in row]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 <b>one</b>", "2 two #1", "3 two #2"]
