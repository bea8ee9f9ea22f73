"""The page says what the library says, runs nothing that is in a text, and asks nobody."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

from hf_negmine import InputError, Judgements, NegativeMiner, NotFittedError, Sweep, TopKAbs, TopKMarginPos, TopKPercPos
from hf_negmine.commands.cli import app
from hf_negmine.page import Shown, write_report
from hf_negmine.pool import CandidatePool
from hf_negmine.select.methods import Method
from tests.page.conftest import HOSTILE, N_QUERIES

NOW = """
    const chosen = hfNegmine.select(arguments[0], arguments[1]), numbers = hfNegmine.measured(chosen);
    return {ids: hfNegmine.idsOf(chosen), counts: [...chosen.counts], unknown: chosen.unknown,
            complete: numbers.complete, meanScore: numbers.meanScore, over: numbers.over, losses: numbers.losses};
"""
RULES = {"perc_pos": TopKPercPos, "margin_pos": TopKMarginPos, "abs": TopKAbs}


@pytest.fixture(scope="module")
def page(miner: NegativeMiner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(miner, tmp_path_factory.mktemp("report") / "report.html")


def keys(browser: Any, *pressed: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*pressed).perform()


def set_value(browser: Any, name: str, value: str, event: str = "input") -> None:
    browser.execute_script(
        "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
        "it.dispatchEvent(new Event(arguments[2], {bubbles: true}));",
        name, value, event,
    )  # fmt: skip


def test_the_numbers_are_the_librarys(miner: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    """200 settings: the same negatives and numbers, and where the page cannot tell, the library would search."""
    browser = opened(page.as_uri())
    shown = Shown.of(miner)
    limits = np.random.default_rng(0)
    compared = 0
    for place in range(200):
        rule = list(RULES)[place % 3]
        value = float(limits.uniform(*{"perc_pos": (0.3, 1.2), "margin_pos": (0, 0.6), "abs": (0.2, 1)}[rule]))
        found = browser.execute_script(NOW, rule, value)
        # The stored pool alone, without the teacher that would search deeper.
        pool = CandidatePool(
            shown.views[0].lists, shown.views[0].positives, miner.pool.query_keys, miner.pool.passage_keys,
            {**miner.pool.about, "source": "lists"}, progress=False,
        )  # fmt: skip
        selection = pool.select(RULES[rule](value), n=4)
        assert selection.list_ended is not None
        assert found["unknown"] == int(selection.list_ended.sum())
        assert found["ids"] == selection.passages.tolist()
        assert found["counts"] == selection.counts.tolist()
        assert found["complete"] == int((selection.counts == 4).sum())
        assert found["over"] == int((selection.scores > selection.references).sum())
        if len(selection.scores):
            assert found["meanScore"] == pytest.approx(selection.scores.astype(np.float64).mean(), rel=1e-12)
            compared += not found["unknown"]
    assert compared > 20


def test_what_was_mined_is_shown_as_mined(miner: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    ids = browser.execute_script("return hfNegmine.idsOf(hfNegmine.state.now)")
    assert ids == miner.fitted.passages.tolist()
    set_value(browser, "slider", "0.5")
    assert browser.find_element("id", "now-head").text == "perc_pos:0.5"
    browser.find_element("id", "reset").click()
    assert browser.execute_script("return hfNegmine.idsOf(hfNegmine.state.now)") == ids


def test_a_move_of_the_slider_takes_less_than_a_tenth_of_a_second(page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    milliseconds = browser.execute_script(
        "const start = performance.now(); for (let i = 0; i < 20; i++) hfNegmine.move('perc_pos', 0.5 + i / 40);"
        "return (performance.now() - start) / 20"
    )
    assert milliseconds < 100  # 23 with 2,000 queries of SQuAD


def test_texts_are_shown_and_never_run(miner: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    browser.get_log("browser")
    texts = [text.lower() for text in HOSTILE]
    for place in range(len(HOSTILE)):
        buttons = browser.find_elements("css selector", "#list button")
        buttons[place].click()
        heading = browser.execute_script("return document.querySelector('#detail h3').textContent").lower()
        assert heading == f"query {place} {texts[place % len(texts)]}"
    assert browser.execute_script("return window.ran") is None
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert browser.execute_script("return document.scripts.length") == 2
    assert browser.find_element("id", "teacher").text == "<b>fixed</b>"
    assert browser.get_log("browser") == []


def test_the_page_asks_nobody(page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    browser.get_log("performance")
    browser.execute_script("fetch('https://example.org/').catch(() => { window.refused = true })")
    set_value(browser, "search", "passage 7")
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert not [address for address in asked if not address.startswith(("file:", "data:", "blob:"))]


def test_search_order_and_keys(miner: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    browser = opened(page.as_uri())
    set_value(browser, "search", "query 17 ")
    assert len(browser.find_elements("css selector", "#list button")) == 1
    set_value(browser, "search", "no such text")
    assert browser.find_element("id", "detail").text == "No query matches."
    set_value(browser, "search", "")
    assert len(browser.find_elements("css selector", "#list button")) == N_QUERIES
    set_value(browser, "order", "near", "change")
    fitted = miner.fitted
    highest = fitted.scores[fitted.offsets[:-1]]
    gaps = TopKPercPos(0.9).ceilings(Shown.of(miner).views[0].positives.targets("min")[1]) - highest
    assert browser.execute_script("return hfNegmine.state.order") == np.argsort(gaps, kind="stable").tolist()
    before = browser.execute_script("return hfNegmine.state.current")
    keys(browser, "j", "j", "k")
    assert browser.execute_script("return hfNegmine.state.current") == before + 1
    keys(browser, "/", "x")
    assert browser.find_element("id", "search").get_attribute("value") == "x"


def test_labels_are_exported(miner: NegativeMiner, page: Path, opened: Callable[[str], Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(page.as_uri())
    keys(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN, "1", Keys.ARROW_DOWN, "0", "j", Keys.ARROW_DOWN, "0", "1")
    lines = [json.loads(line) for line in browser.execute_script("return hfNegmine.asLines()").splitlines()]
    assert [line["relevant"] for line in lines] == [True, False, True]
    texts = miner.fitted.texts
    for line in lines:
        assert line["query"] == texts.queries.texts[line["query_id"]].as_py()
        assert line["document"] == texts.corpus.texts[line["document_id"]].as_py()
    qrels = browser.execute_script("return hfNegmine.asQrels()").splitlines()
    assert qrels[0] == f"{lines[0]['query_id']} 0 {lines[0]['document_id']} 1"
    assert browser.find_element("id", "labelled").text == "3 labeled"


def test_labels_are_exported_under_the_users_ids(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    for name, text in (("corpus", "thing {} is a thing"), ("queries", "what is thing {}")):
        lines = [json.dumps({"_id": f"{name[0]}/{place}", "text": text.format(place)}) for place in range(20)]
        (beir / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = "".join(f"q/{place}\tc/{place}\t1\n" for place in range(20))
    (beir / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    miner = NegativeMiner("bm25", cache_dir=tmp_path / "cache", progress=False, num_negatives=2).fit(beir)
    number = {text: name for name, text in ((f"c/{n}", f"thing {n} is a thing") for n in range(20))}
    for ids in (beir, (beir, beir), ({f"q/{n}": f"what is thing {n}" for n in range(20)}, beir)):
        browser = opened(write_report(miner, tmp_path / "page.html", ids=ids).as_uri())
        browser.find_elements("css selector", '.passage.chosen [data-label="true"]')[0].click()
        (line,) = map(json.loads, browser.execute_script("return hfNegmine.asLines()").splitlines())
        query, document = f"q/{line['query'].split()[-1]}", number[line["document"]]
        assert (line["query_id"], line["document_id"]) == (query, document)
        assert browser.execute_script("return hfNegmine.asQrels()") == f"{query} 0 {document} 1\n"
        assert browser.find_element("id", "export-qrels").text == "Export labels (qrels)"
    browser = opened(write_report(miner, tmp_path / "page.html").as_uri())
    assert browser.find_element("id", "export-qrels").text == "Export labels (qrels, positions as ids)"
    some = {"q/1": "what is thing 1"}
    spaced = {f"q {n}": f"what is thing {n}" for n in range(20)}
    for wrong, words in [
        (7, r"ids: expected a BEIR folder .*, got 7"),
        ((some, beir), "queries: 19 of the pool's 20 texts are not among the 1 given ones"),
        ((spaced, beir), "cannot be a field of relevance judgements, the first is 'q "),
    ]:
        with pytest.raises(InputError, match=words):
            write_report(miner, tmp_path / "page.html", ids=wrong)


def test_everything_has_a_name(page: Path, opened: Callable[[str], Any]) -> None:
    """What a screen reader needs: every control and picture has a name, every heading its level."""
    browser = opened(page.as_uri())
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, [role=img]')].filter((it) =>"
        "!(it.getAttribute('aria-label') || it.textContent.trim() || (it.labels && it.labels.length))"
        ").map((it) => it.outerHTML)"
    )
    assert nameless == []
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map((it) => +it.tagName[1])")
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert browser.execute_script("return document.documentElement.lang") == "en"


def contrasts(browser: Any) -> list[float]:
    """The contrast of every text with what is behind it."""
    colors = browser.execute_script(
        "const of = (it, name) => { const value = getComputedStyle(it)[name];"
        " return value.match(/[\\d.]+/g).map((part) => value.startsWith('color(') ? 255 * part : +part); };"
        "const back = (it) => { for (; it; it = it.parentElement) { const c = of(it, 'backgroundColor');"
        " if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };"
        "return [...document.querySelectorAll('p, th, td, button, h1, h2, h3, pre, span, li, label')]"
        ".filter((it) => it.textContent.trim()).map((it) => [of(it, 'color'), back(it)])"
    )

    def luminance(color: list[float]) -> float:
        parts = [value / 255 for value in color[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = ((luminance(letters), luminance(ground)) for letters, ground in colors)
    return [(max(pair) + 0.05) / (min(pair) + 0.05) for pair in pairs]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_stand_out(theme: str, page: Path, opened: Callable[[str], Any]) -> None:
    """A contrast of 4.5 for every text (WCAG AA)."""
    browser = opened(page.as_uri())
    browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    assert min(contrasts(browser)) >= 4.5


def test_each_pair_has_a_ceiling_of_its_own(miner: NegativeMiner, tmp_path: Path, opened: Callable[[str], Any]) -> None:
    each = miner.with_(positive_score="each").fit(miner.labeled_rows)
    browser = opened(write_report(each, tmp_path / "each.html").as_uri())
    assert browser.execute_script("return hfNegmine.idsOf(hfNegmine.state.now)") == each.fitted.passages.tolist()
    ids = browser.execute_script("return hfNegmine.idsOf(hfNegmine.select('perc_pos', 0.9))")
    assert ids == each.fitted.passages.tolist()


@pytest.mark.parametrize("budget", [7_000_000, 8000])
def test_labels_come_back_into_the_miner(
    budget: int, miner: NegativeMiner, tmp_path: Path, opened: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the page holds the texts cut."""
    monkeypatch.setattr("hf_negmine.page.content.TEXT_BYTES", budget)
    monkeypatch.setattr("hf_negmine.page.content.SHORTEST_CUT", 10)
    browser = opened(write_report(miner, tmp_path / "page.html").as_uri())
    for place, label in enumerate(("true", "true", "false")):
        browser.find_elements("css selector", f'.passage.chosen [data-label="{label}"]')[place].click()
    labels = tmp_path / "labels.jsonl"
    labels.write_text(browser.execute_script("return hfNegmine.asLines()"), encoding="utf-8")
    lines = [json.loads(line) for line in labels.read_bytes().split(b"\n")[:-1]]
    relevant = {(line["query_id"], line["document_id"]) for line in lines if line["relevant"]}
    assert len(relevant) == 2
    judged = miner.with_(filters=[Judgements(str(labels))]).fit(miner.labeled_rows)
    fitted = judged.fitted
    queries = np.repeat(np.arange(N_QUERIES), np.diff(fitted.offsets))
    assert not relevant & set(zip(queries.tolist(), fitted.passages.tolist(), strict=True))
    before = np.repeat(np.arange(N_QUERIES), np.diff(miner.fitted.offsets))
    assert relevant < set(zip(before.tolist(), miner.fitted.passages.tolist(), strict=True))


def test_a_sweep_is_shown_as_it_is_printed(miner: NegativeMiner, tmp_path: Path, opened: Callable[[str], Any]) -> None:
    sweep = miner.sweep(["naive", "perc_pos:0.8"], ["top", "sampled:5"])
    browser = opened(write_report(miner, tmp_path / "page.html", sweep=sweep).as_uri())
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#sweep tr')].map((row) => [...row.cells].map((it) => it.textContent))"
    )
    assert rows == sweep.cells()
    assert browser.find_element("css selector", "#sweep caption").text == sweep.heading
    assert browser.find_element("css selector", "#sweep > p").text == sweep.recommendation.replace("`", "")
    with pytest.raises(InputError, match=r"sweep: expected miner.sweep\(…\), got 'naive'"):
        write_report(miner, tmp_path / "page.html", sweep="naive")  # type: ignore[arg-type]


def test_labels_of_one_set_are_not_those_of_another(
    miner: NegativeMiner, page: Path, tmp_path: Path, browser: Any, opened: Callable[[str], Any]
) -> None:
    """Files share the browser's storage."""
    opened(page.as_uri())
    browser.find_elements("css selector", '[data-label="true"]')[0].click()
    rows = miner.labeled_rows.select(range(20, 70))
    other = NegativeMiner(miner.config.teacher, cache_dir=tmp_path, progress=False, num_negatives=2).fit(rows)
    browser.get(write_report(other, tmp_path / "other.html").as_uri())
    browser.execute_async_script("const done = arguments[0]; setTimeout(done, 1000)")
    assert browser.execute_script("return hfNegmine.labels.size") == 0


def test_overlapping_stretches_of_a_ranking_count_once(miner: NegativeMiner) -> None:
    banded = miner.with_(method="perc_pos:0.9+band:5-40", sampler="sampled:10").fit(miner.labeled_rows)
    shown = Shown.of(banded)
    content = shown.content({0: np.arange(shown.n_targets)})
    flags = np.frombuffer(base64.b64decode(content["views"][0]["flags"]), dtype=np.uint8)
    assert (flags & 1).sum() == len(banded.fitted.passages)


# ---- without a browser -----------------------------------------------------------------------------------------------


def test_a_page_holds_a_sample_that_does_not_depend_on_the_order(miner: NegativeMiner) -> None:
    shown = Shown.of(miner)
    sample = shown.sample(10)[0]
    assert len(sample) == 10
    assert set(sample) <= set(shown.sample(20)[0])
    assert len(shown.sample(1000)[0]) == N_QUERIES


def test_long_texts_are_cut_to_fit(miner: NegativeMiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_negmine.page.content.TEXT_BYTES", 8000)
    monkeypatch.setattr("hf_negmine.page.content.SHORTEST_CUT", 10)
    content = Shown.of(miner).content({0: np.arange(N_QUERIES)})
    texts = [*content["queries"], *content["passages"]]
    assert 10 < content["cut"] < max(len(text) for text in miner.fitted.texts.corpus.texts.to_pylist())
    assert max(len(text) for text in texts) == content["cut"] + 1
    assert sum(len(text.encode()) for text in texts) < 8000 * 1.2


def test_frequent_negatives_without_a_space_are_shown(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"query": [*"abcdef"], "positive": [f"第{place}段" * 99 for place in range(6)]})
    miner = NegativeMiner("random", method="naive", cache_dir=tmp_path, progress=False).fit(rows)
    hubs = Shown.of(miner).content({0: np.arange(1)})["hubs"]
    assert len({text for text, _ in hubs}) == 6
    assert all(text.startswith("第") and text.endswith("…") for text, _ in hubs)


@pytest.mark.parametrize(
    ("method", "start"), [("perc_pos:0.9+shifted:2", 0.9), ("percentile:25+shifted:2", 0.95), ("abs:0.2+min:0.1", 0.2)]
)
def test_the_slider_begins_at_the_ceiling_of_a_combined_method(
    method: str, start: float, miner: NegativeMiner, tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    page = write_report(miner.with_(method=method, on_exhausted="keep").fit(miner.labeled_rows), tmp_path / "page.html")
    browser = opened(page.as_uri())
    low, high, value, number = browser.execute_script(
        "return [slider.min, slider.max, slider.value, number.value].map(parseFloat)"
    )
    assert low <= value == number == start <= high < 100


def test_a_ceiling_of_ones_own(tmp_path: Path) -> None:
    class Half:
        def ceilings(self, positive_scores: Any) -> Any:
            return positive_scores / 2

        def __str__(self) -> str:
            return "half"

    rows = datasets.Dataset.from_dict({"query": [*"abcdef"], "positive": [*"ghijkl"]})
    miner = NegativeMiner("random", method=Method((Half(),)), cache_dir=tmp_path, progress=False).fit(rows)
    (view,) = Shown.of(miner).views
    assert view.method.ceilings(np.ones(1)).tolist() == [0.5]


def test_a_miner_that_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        write_report(NegativeMiner("bm25", cache_dir=tmp_path), tmp_path / "page.html")


@pytest.mark.parametrize(("queries", "path"), [(0, "page.html"), (True, "page.html"), (1.5, "page.html")])
def test_wrong_arguments(miner: NegativeMiner, tmp_path: Path, queries: Any, path: str) -> None:
    with pytest.raises(InputError, match="queries"):
        write_report(miner, tmp_path / path, queries=queries)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"query": f"what is thing {n}", "positive": f"thing {n} is a thing"}) for n in range(20)]
    rows.write_text("\n".join(lines), encoding="utf-8")
    run = CliRunner()
    cache = ["--cache-dir", str(tmp_path / "cache")]
    mined = run.invoke(app, ["mine", str(rows), "-t", "bm25", "-o", str(tmp_path / "mined"), "-q", *cache])
    assert mined.exit_code == 0, mined.output
    page, table = tmp_path / "page.html", tmp_path / "sweep.jsonl"
    swept = run.invoke(app, ["sweep", str(rows), "-t", "bm25", "-m", "naive", "-o", str(table), "-q", *cache])
    assert swept.exit_code == 0, swept.output
    datasets.enable_progress_bars()  # as at the beginning of a process
    told = run.invoke(app, ["report", str(tmp_path / "mined"), "-o", str(page), "--sweep", str(table), *cache])
    assert told.exit_code == 0, told.output
    assert told.stderr == ""
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    packed = page.read_text(encoding="utf-8").split('type="application/gzip">')[1].split("<")[0]
    content = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert content["sweep"]["cells"] == Sweep.read(table).cells()
    for arguments, words in [
        (["report", str(tmp_path / "mined"), "-o", "page.pdf"], "ends in .html"),
        (["report", str(tmp_path / "mined"), "--sweep", str(rows)], "is not a sweep"),
        (["report", str(tmp_path / "mined"), "--ids", str(tmp_path), *cache], "ids: expected a BEIR folder"),
        (["report", str(rows)], "not a folder that hf-negmine mine has written"),
        (["report", str(tmp_path / "mined"), "-o", str(page), "--cache-dir", str(tmp_path / "other")], "mine again"),
    ]:
        refused = run.invoke(app, arguments)
        assert refused.exit_code == 1
        assert words in " ".join(refused.stderr.split())
