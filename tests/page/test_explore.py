"""The served page answers this machine's own pages only, and a label is on disk before it is called saved."""

from __future__ import annotations

import http.client
import json
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hf_negmine import InputError, NegativeMiner, StorageError
from hf_negmine.page import Shown
from hf_negmine.page.serving import LabelFile, served


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


NOT_LABELS = [
    "a diary\nof mine\n",
    "one line of my notes",
    '[{"query": "a", "document": "b", "relevant": true}]',
    '{"a": 1}',
    '{"query": "\\ud800", "document": "b", "relevant": true}\n',
]


@pytest.fixture
def address(miner: NegativeMiner, labels: Path) -> Iterator[str]:
    with served(Shown.of(miner), labels) as found:
        yield found


def ask(address: str, path: str | None = None, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """The status and the body of an answer; ``path`` replaces that of the address."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path or parts.path, content, given)
    answer = connection.getresponse()
    return answer.status, answer.read()


def origin(address: str) -> str:
    return address.rsplit("/", 2)[0]


def test_labels_of_the_browser_are_written_at_once(
    address: str, labels: Path, miner: NegativeMiner, opened: Callable[[str], Any]
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    browser = opened(address)
    ActionChains(browser).send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, "1").perform()
    WebDriverWait(browser, 10).until(lambda _: labels.exists() and labels.read_text(encoding="utf-8").endswith("\n"))
    line = json.loads(labels.read_text(encoding="utf-8"))
    texts = miner.fitted.texts
    assert line["relevant"] is True
    assert line["query"] in texts.queries.texts.to_pylist()
    assert line["document"] in texts.corpus.texts.to_pylist()
    browser.get(address)
    WebDriverWait(browser, 10).until(lambda it: it.execute_script("return Boolean(window.hfNegmine)"))
    assert browser.execute_script("return hfNegmine.labels.size") == 1


def test_slices(miner: NegativeMiner, labels: Path, monkeypatch: pytest.MonkeyPatch, opened: Any) -> None:
    monkeypatch.setattr("hf_negmine.page.serving.QUERIES_A_SLICE", 25)
    with served(Shown.of(miner), labels) as found:
        browser = opened(f"{found}?start=25")
        assert browser.find_element("id", "slices").text.split("\n") == ["Queries 26 to 50 of 60", "Earlier", "Later"]
        assert len(browser.find_elements("css selector", "#list button")) == 25
        browser.find_element("link text", "Later").click()
        assert len(browser.find_elements("css selector", "#list button")) == 10
        for wrong in ("?start=-5", "?start=x", "?start=99999999999"):
            assert ask(found, urlsplit(found).path + wrong)[0] == 200


def test_others_get_nothing(address: str, labels: Path) -> None:
    label = {"query_id": 1, "document_id": 2, "relevant": True}
    own = origin(address)
    path = urlsplit(address).path
    assert ask(address)[0] == 200
    assert ask(address, "/")[0] == 404
    assert ask(address, "/wrong-token/")[0] == 404
    assert ask(address, path + "../../etc/passwd")[0] == 404
    assert ask(address, Host="evil.example")[0] == 404
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert ask(address, path + "judgements", label, **headers)[0] == 403
    assert ask(address, "/wrong-token/judgements", label, Origin=own)[0] == 404
    assert not labels.exists()
    assert ask(address, path + "judgements", label, Origin=own)[0] == 204
    assert len(labels.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null",
        {"query_id": -1, "document_id": 0, "relevant": True},
        {"query_id": 10**9, "document_id": 0, "relevant": True},
        {"query_id": 0, "document_id": 0, "relevant": 1},
        {"query_id": True, "document_id": 0, "relevant": True},
        {"query_id": "0", "document_id": 0, "relevant": True},
        {"query_id": 0, "relevant": True},
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused(body: Any, address: str, labels: Path) -> None:
    path = urlsplit(address).path + "judgements"
    assert ask(address, path, body, Origin=origin(address))[0] == 400
    assert not labels.exists()


def test_the_last_label_counts_and_a_cut_line_is_no_harm(miner: NegativeMiner, labels: Path) -> None:
    shown = Shown.of(miner)

    def add(**label: Any) -> None:
        with served(shown, labels) as found:
            assert ask(found, urlsplit(found).path + "judgements", label, Origin=origin(found))[0] == 204

    add(query_id=3, document_id=4, relevant=True)
    with labels.open("ab") as file:
        file.write(b'{"query": "query 3, cut')
    add(query_id=3, document_id=4, relevant=False)
    add(query_id=5, document_id=6, relevant=True)
    lines = [json.loads(line) for line in labels.read_bytes().split(b"\n")[:-1]]
    assert [line["relevant"] for line in lines] == [True, False, True]
    assert LabelFile(labels, shown).labels == {(3, 4): False, (5, 6): True}


def test_a_label_that_a_full_disk_cuts_off_leaves_the_others_readable(miner: NegativeMiner, labels: Path) -> None:
    kept = LabelFile(labels, Shown.of(miner))
    kept.add(3, 4, True)
    whole = labels.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
    try:
        with pytest.raises(StorageError):
            kept.add(5, 6, True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert labels.read_bytes() == whole
    kept.add(7, 8, False)
    assert LabelFile(labels, Shown.of(miner)).labels == kept.labels == {(3, 4): True, (7, 8): False}


@pytest.mark.parametrize("content", NOT_LABELS)
def test_a_file_of_something_else_is_not_written_to(content: str, miner: NegativeMiner, labels: Path) -> None:
    labels.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r'line 1: expected ."query"'), served(Shown.of(miner), labels):
        pass
    assert labels.read_text(encoding="utf-8") == content


def test_labels_of_a_cut_page_are_found_and_others_are_kept(miner: NegativeMiner, labels: Path) -> None:
    texts = miner.fitted.texts
    cut = {"query": "que…", "document": "pas…", "relevant": True}
    digests = {
        "query_digest": texts.queries.digests[7].astype("<u8").tobytes().hex(),
        "document_digest": texts.corpus.digests[9].astype("<u8").tobytes().hex(),
    }
    other = {"query": "of another set", "document": "elsewhere", "relevant": True}
    content = "".join(f"{json.dumps(line)}\n" for line in (cut | digests, other))
    labels.write_text(content, encoding="utf-8")
    assert LabelFile(labels, Shown.of(miner)).labels == {(7, 9): True}
    assert labels.read_text(encoding="utf-8") == content


def test_pages_are_read_while_others_are_labelled(miner: NegativeMiner, labels: Path) -> None:
    shown = Shown.of(miner)
    sizes = len(shown.texts.queries), len(shown.texts.corpus)
    digests = [column.digests.astype("<u8") for column in (shown.texts.queries, shown.texts.corpus)]
    lines = [
        {"query": "", "document": "", "relevant": True, "query_digest": one.tobytes().hex(), "document_digest": two}
        for one in digests[0][:-1]
        for two in [other.tobytes().hex() for other in digests[1]]
    ]
    labels.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    failed: list[int] = []

    def read(found: str) -> None:
        for _ in range(20):
            status, body = ask(found)
            failed.extend([status] * (status != 200 or not body))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with served(shown, labels) as found:
            reading = threading.Thread(target=read, args=(found,))
            reading.start()
            for place in range(sizes[1]):
                label = {"query_id": sizes[0] - 1, "document_id": place, "relevant": False}
                assert ask(found, urlsplit(found).path + "judgements", label, Origin=origin(found))[0] == 204
            reading.join()
    finally:
        sys.setswitchinterval(before)
    assert not failed


def test_a_place_for_labels_that_is_not_there(miner: NegativeMiner, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "labels.jsonl", tmp_path):
        with pytest.raises(InputError, match="is not the name of a file"), served(Shown.of(miner), path):
            pass


def test_a_port_that_is_taken(miner: NegativeMiner, labels: Path, address: str) -> None:
    port = urlsplit(address).port
    assert port is not None
    with (
        pytest.raises(InputError, match=f"port: {port} cannot be listened on"),
        served(Shown.of(miner), labels, port=port),
    ):
        pass
