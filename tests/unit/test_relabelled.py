"""What a judge has made a positive keeps only the negatives that are under its own ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import ExhaustedError
from hf_negmine.base.schema import FloatArray
from hf_negmine.select.ensembles import CrossSample, IntraSample
from hf_negmine.select.judge import Judge
from hf_negmine.select.methods import Method
from tests.reference import OWN_FORMATS
from tests.unit.test_filters import PASSAGES, QUERIES, SCORES, overlap
from tests.unit.test_miner import NEGATIVES, ROWS, WordTeacher, listed, mapped, miner_in

LABELLED = {(row["query"], row["positive"]) for row in ROWS}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def groups_in(mined: list[dict[str, Any]], miner: NegativeMiner) -> list[tuple[str, list[str], list[str]]]:
    """Query, positives and negatives of each row, or of each group of rows that share their negatives."""
    found: list[tuple[str, list[str], list[str]]] = []
    for row in mined:
        if miner.config.format == "ids":
            texts = [miner.corpus[place]["document"] for place in row["document_ids"]]
            found.append((miner.queries[row["query_id"]]["query"], texts[:1], texts[1:]))
        elif miner.config.format == "labeled-list":
            sides: tuple[list[str], list[str]] = ([], [])
            for text, label in zip(row["positive"], row["labels"], strict=True):
                sides[1 - label].append(text)
            found.append((row["query"], *sides))
        elif miner.config.format == "labeled-pair":
            alone = miner.config.positive_score == "each"  # with a ceiling of its own each positive begins a group
            if not found or found[-1][0] != row["query"] or (row["label"] and (alone or found[-1][2])):
                found.append((row["query"], [], []))
            found[-1][2 - row["label"]].append(row["positive"])
        else:
            negatives = [row[name] for name in ("negative", *NEGATIVES) if row.get(name)]
            found.append((row["query"], [row["positive"]], negatives))
    return found


def ceiling(score: float, share: float) -> float:
    return score - abs(score) * (1 - share)


@pytest.mark.parametrize("positive_score", ["min", "each"])
@pytest.mark.parametrize("format", OWN_FORMATS)
def test_nothing_is_at_or_over_the_ceiling_of_a_relabelled_positive(
    cache: Path, format: str, positive_score: str
) -> None:
    settings = {"format": format, "positive_score": positive_score, "on_exhausted": "keep", "method": "perc_pos:0.9"}
    miner = miner_in(cache, **settings, filters=[Judge(overlap, relabel=True)]).fit(ROWS)
    mined = listed(miner.mine(ROWS))
    for batch_size in (1, 7):
        assert listed(mapped(ROWS, miner, batch_size=batch_size)) == mined
    relabelled = 0
    for query, positives, negatives in groups_in(mined, miner):
        relabelled += sum((query, positive) not in LABELLED for positive in positives)
        limit = min(ceiling(SCORES[query][positive], 0.9) for positive in positives)
        assert all(SCORES[query][negative] < limit + 1e-6 for negative in negatives)
    assert relabelled > 5


def test_what_is_short_then_is_settled_as_any_row_is(cache: Path) -> None:
    def mined(on_exhausted: str) -> list[dict[str, Any]]:
        filters = [Judge(overlap, relabel=True)]
        miner = miner_in(cache, on_exhausted=on_exhausted, method="perc_pos:0.9", filters=filters)
        return [row for row in listed(miner.mine(ROWS)) if (row["query"], row["positive"]) not in LABELLED]

    kept = mined("keep")
    assert {sum(row[name] is not None for name in NEGATIVES) for row in kept} == {0, 1, 2}
    assert mined("drop") == [row for row in kept if all(row[name] is not None for name in NEGATIVES)]
    with pytest.raises(ExhaustedError, match="cannot have 2 negatives"):
        mined("error")


def test_a_ceiling_without_a_spec_is_kept_with_the_fit(cache: Path) -> None:
    class Half:
        def ceilings(self, positive_scores: FloatArray) -> FloatArray:
            return positive_scores / 2

        def __str__(self) -> str:
            return "half"

    filters = [Judge(overlap, relabel=True)]
    miner = miner_in(cache, method=Method((Half(),)), filters=filters, on_exhausted="keep").fit(ROWS)
    mined = listed(miner.mine(ROWS))
    assert any((row["query"], row["positive"]) not in LABELLED for row in mined)
    for query, positives, negatives in groups_in(mined, miner):
        limit = min(SCORES[query][positive] / 2 for positive in positives)
        assert all(SCORES[query][negative] < limit + 1e-6 for negative in negatives)


class Backwards(WordTeacher):
    """Has a scale of its own."""

    name, similarity = "backwards", "dot"

    def encode(self, texts: Any, role: Any) -> FloatArray:
        scale = 30.0 if role == "query" else 1.0
        return scale * super().encode([text[::-1] for text in texts], role)


@pytest.mark.parametrize("ensemble", [CrossSample, IntraSample])
def test_each_teacher_of_an_ensemble_has_its_own_ceiling(cache: Path, ensemble: Any) -> None:
    teachers = [WordTeacher(), Backwards()]
    settings = {"method": "perc_pos:0.9", "on_exhausted": "keep", "filters": [Judge(overlap, relabel=True)]}
    miner = miner_in(cache, teacher=ensemble(teachers), **settings).fit(ROWS)
    mined = listed(miner.mine(ROWS))
    assert listed(mapped(ROWS, miner, batch_size=3)) == mined
    second = scores_of(teachers[1])
    relabelled = 0
    for query, positives, negatives in groups_in(mined, miner):
        (positive,) = positives
        relabelled += (query, positive) not in LABELLED
        for negative in negatives:  # one of the teachers has it under its ceiling
            assert any(
                scores[query][negative] < ceiling(scores[query][positive], 0.9) + 1e-4 for scores in (SCORES, second)
            )
    assert relabelled > 5


def scores_of(teacher: Any) -> dict[str, dict[str, float]]:
    scores = teacher.encode(QUERIES, "query") @ teacher.encode(PASSAGES, "passage").T
    return {query: dict(zip(PASSAGES, row.tolist(), strict=True)) for query, row in zip(QUERIES, scores, strict=True)}
