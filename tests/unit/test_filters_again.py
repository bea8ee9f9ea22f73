"""What a filter's teacher said of a pair is not asked again; and no bar appears that was not asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from hf_negmine import NegativeMiner, RandomTeacher, Veto
from hf_negmine.base.errors import InputError
from hf_negmine.base.files import digest_of
from hf_negmine.commands.cli import app
from hf_negmine.search import index
from tests.unit.test_miner import CORPUS, ROWS, WordTeacher

PAIRS = ROWS.select_columns(["query", "positive"])


@dataclass
class _Scorer:
    passages: list[str]
    scanned: list[str]
    salt: str

    def scores(self, queries: Sequence[str]) -> Any:
        self.scanned.extend(queries)
        table = [[int(digest_of(self.salt, query, text)[:6], 16) for text in self.passages] for query in queries]
        return np.array(table, dtype=np.float32) / 2**24 + 0.5


@dataclass(frozen=True)
class Scanning:
    """Scores every passage of the corpus, and notes which queries it did so for."""

    salt: str = "1"
    scanned: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "scanning"

    def fingerprint(self, role: Any) -> str:
        return digest_of("scanning", self.salt)

    def index(self, passages: pa.LargeStringArray) -> Any:
        return _Scorer(passages.to_pylist(), self.scanned, self.salt)


def fitted(folder: Path, **settings: Any) -> NegativeMiner:
    given = {"corpus": CORPUS, "cache_dir": folder, "device": "cpu", "progress": False, "num_negatives": 3}
    return NegativeMiner(WordTeacher(), **{**given, **settings}).fit(PAIRS)


def chosen(miner: NegativeMiner, teacher: Any, ceiling: str = "perc_pos:1.05") -> list[list[str]]:
    return miner.pool.select("naive", n=3, filters=[Veto(teacher, ceiling)]).texts()


def test_a_second_selection_asks_only_about_new_candidates(tmp_path: Path) -> None:
    teacher, miner = Scanning(), fitted(tmp_path / "a")
    first = chosen(miner, teacher)
    assert set(teacher.scanned) == set(ROWS["query"])
    assert first != miner.pool.select("naive", n=3).texts()  # it drops some
    teacher.scanned.clear()
    assert chosen(miner, teacher) == first
    lower = chosen(miner, teacher, ceiling="perc_pos:1.06")  # the same candidates under another ceiling
    assert teacher.scanned == []
    strict = chosen(miner, teacher, ceiling="perc_pos:0.8")  # looks further down
    assert 0 < len(set(teacher.scanned)) < len(set(PAIRS["query"]))
    for kept, ceiling in ((first, "perc_pos:1.05"), (lower, "perc_pos:1.06"), (strict, "perc_pos:0.8")):
        assert kept == chosen(fitted(tmp_path / f"fresh-{ceiling}"), Scanning(), ceiling=ceiling)


def test_another_miner_over_the_same_texts_asks_nothing(tmp_path: Path) -> None:
    teacher = Scanning()
    first = chosen(fitted(tmp_path), teacher)
    teacher.scanned.clear()
    assert chosen(fitted(tmp_path), teacher) == first
    swept = fitted(tmp_path, method="naive", filters=[Veto(teacher, "perc_pos:1.05")]).pool.sweep(["naive"], n=3)
    assert swept[0].texts() == first
    assert teacher.scanned == []


def test_scores_of_another_teacher_or_corpus_are_not_used(tmp_path: Path) -> None:
    """A scorer may weigh words by the corpus, as BM25 does, so its scores are those of one corpus."""
    chosen(fitted(tmp_path), Scanning())
    other = Scanning("2")
    assert chosen(fitted(tmp_path), other) == chosen(fitted(tmp_path / "fresh"), Scanning("2"))
    assert set(other.scanned) == set(ROWS["query"])
    smaller = Scanning()
    chosen(fitted(tmp_path, corpus=CORPUS[:-2]), smaller)
    assert set(smaller.scanned) == set(ROWS["query"])


def test_a_read_only_cache_stores_no_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chosen(fitted(tmp_path), Scanning())
    shutil.rmtree(tmp_path / "pairs")
    miner = fitted(tmp_path)
    monkeypatch.setattr(index, "is_read_only", lambda folder: True)
    assert chosen(miner, Scanning()) == expected
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("progress", [True, False])
def test_a_veto_shows_its_bars_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], progress: bool
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr("hf_negmine.base.progress.is_watched", lambda: True)
    monkeypatch.setattr("hf_negmine.base.progress.DELAY", 0)
    settings: dict[str, Any] = {"corpus": CORPUS, "cache_dir": tmp_path, "device": "cpu"}
    miner = NegativeMiner(RandomTeacher(), filters=[Veto("bm25", "perc_pos:2")], progress=progress, **settings)
    miner.fit(PAIRS)
    miner.pool.select("naive", filters=[Veto("bm25:german", "perc_pos:2")])
    shown = capsys.readouterr().err
    assert "Indexing" in shown if progress else shown == ""


def test_the_shell_shows_no_bar_with_q(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr("hf_negmine.base.progress.is_watched", lambda: True)
    monkeypatch.setattr("hf_negmine.base.progress.DELAY", 0)
    rows = tmp_path / "rows.csv"
    lines = zip(ROWS["query"], ROWS["positive"], strict=True)
    rows.write_text("query,positive\n" + "".join(f'"{query}","{positive}"\n' for query, positive in lines))
    command = ["mine", str(rows), "-t", "rrf(bm25, random)", "--veto", "bm25", "-n", "1", "-m", "naive", "-o"]
    for name, quiet in (("quiet", ["-q"]), ("loud", [])):
        cache = ["--cache-dir", str(tmp_path / f"{name}-cache")]
        result = CliRunner().invoke(app, [*command, str(tmp_path / name), *cache, *quiet])
        assert result.exit_code == 0, result.output
        assert ("Indexing" in result.stderr) == (not quiet)
        assert not quiet or result.stderr == ""


def test_stored_vectors_are_given_by_text(tmp_path: Path) -> None:
    miner = fitted(tmp_path)
    texts = [CORPUS[2], CORPUS[0], CORPUS[2]]
    expected = WordTeacher().encode(texts, "passage")
    np.testing.assert_allclose(miner.vectors(texts), unit(expected), rtol=1e-6)
    queries = PAIRS["query"][:2]
    np.testing.assert_allclose(miner.vectors(queries, "query"), unit(WordTeacher().encode(queries, "query")), rtol=1e-6)
    assert miner.vectors([]).shape == (0, expected.shape[1])
    with pytest.raises(InputError, match="'no such text' is not among the passages that the miner was fitted on"):
        miner.vectors([CORPUS[0], "no such text"])
    with pytest.raises(InputError, match="texts: expected a list of texts, got 'one'"):
        miner.vectors("one")
    with pytest.raises(InputError, match="expected a list of texts, got \\[1\\]"):
        miner.vectors([1])  # type: ignore[list-item]
    with pytest.raises(InputError, match="role"):
        miner.vectors(texts, "queries")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="random-0 has no vector per text"):
        NegativeMiner(RandomTeacher(), corpus=CORPUS, cache_dir=tmp_path, progress=False).fit(PAIRS).vectors(texts)


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
