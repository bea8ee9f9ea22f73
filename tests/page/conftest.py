"""A real browser, and a mined set to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_negmine import FixedTeacher, NegativeMiner

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
HOSTILE = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 2</script>",
    '<img src=x onerror="window.ran = 3">',
    "<!-- <script> -->",
    "line\u2028separator\u2029and NUL\x00 and \u202eright to left\u202c",
    '"quotes", \\u003c, \\ and {{braces}} and @@DATA@@',
    "javascript:window.ran=4",
)
N_QUERIES, N_PASSAGES, WIDTH = 60, 300, 8


def vectors(seed: int, count: int) -> np.ndarray[Any, Any]:
    made = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver: apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield found
    found.quit()


@pytest.fixture
def opened(browser: Any) -> Callable[[str], Any]:
    """Open an address, and wait until the page has drawn itself."""
    from selenium.webdriver.support.ui import WebDriverWait

    def open_page(address: str) -> Any:
        browser.get(address)
        browser.execute_script("try { localStorage.clear() } catch {}")
        browser.get(address)
        WebDriverWait(browser, 20).until(lambda it: it.execute_script("return Boolean(window.hfNegmine)"))
        return browser

    return open_page


@pytest.fixture(scope="session")
def miner(tmp_path_factory: pytest.TempPathFactory) -> NegativeMiner:
    """Scores on both sides of 0, several positives of a query, hostile texts."""
    queries = [f"query {place} {HOSTILE[place % len(HOSTILE)]}" for place in range(N_QUERIES)]
    passages = [f"passage {place} {HOSTILE[place % len(HOSTILE)]}" for place in range(N_PASSAGES)]
    query_vectors, passage_vectors = vectors(1, N_QUERIES), vectors(2, N_PASSAGES)
    teacher = FixedTeacher(queries, query_vectors, passages, passage_vectors, name="<b>fixed</b>")
    best = (query_vectors @ passage_vectors.T).argsort(axis=1)
    positives = [
        [
            passages[best[place, -1 - place % 9]],
            *([passages[best[place, -4]]] if place % 3 == 0 and place % 9 != 3 else []),
        ]
        for place in range(N_QUERIES)
    ]
    rows = Dataset.from_dict({"query": queries, "positive": positives})
    folder: Path = tmp_path_factory.mktemp("page")
    return NegativeMiner(
        teacher, corpus=passages, pool_depth=20, cache_dir=folder, progress=False, query_column="query",
        positive_column="positive", method="perc_pos:0.9",
    ).fit(rows)  # fmt: skip
