"""The 32 training sets: their counts, a loader each on a few rows of its real columns, and what a row may hold."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_negmine.base.errors import InputError
from recipes.common.sets import KINDS, SETS, choose_sets, table_of_sources
from recipes.common.sets.layouts import Labelled, Similar, Table, Tables
from recipes.common.sets.load import LoadedSet, load_set, normalised
from tests.recipes.hub import SHARED, THINGS, folder_of, write_hub

ROOT = Path(__file__).parents[2]
WITH_EVALUATION = [name for name, one in SETS.items() if one.evaluation is not None]
LABELLED = [name for name, one in SETS.items() if isinstance(one.layout, Labelled)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub"))


def load(hub: Path, name: str, **options: Any) -> LoadedSet:
    one = SETS[name]
    evaluation = None if one.evaluation is None else folder_of(hub, one.evaluation.hub_id)
    options = {"source": folder_of(hub, one.hub_id), "evaluation_source": evaluation, "negatives": 3, **options}
    return load_set(one, **options)


# ---- table 7 --------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_table_7() -> None:
    counts = {kind: [one.samples for one in SETS.values() if one.kind == kind] for kind in KINDS}
    assert {kind: (len(found), sum(found)) for kind, found in counts.items()} == {
        "retrieval": (15, 728_160),  # the paper's own sum
        "classification": (8, 142_499),
        "clustering": (6, 80_460),
        "sts": (3, 5_096),
    }
    assert all(name == one.name for name, one in SETS.items())


def test_nothing_claims_to_be_verified() -> None:
    assert not any(one.verified or one.revision for one in SETS.values())


def test_every_set_has_a_task_and_prompts_fit_it() -> None:
    assert SETS["MS-MARCO"].task == "Given a web search query, retrieve relevant passages that answer the query"
    assert all(one.task and not one.task.endswith((":", ".", " ")) for one in SETS.values())


def test_choosing() -> None:
    assert [one.name for one in choose_sets(["sts"], ["STS22"])] == ["STS12", "STSBenchmark"]
    with pytest.raises(InputError, match=r"kinds: 'sums' is not among \['retrieval', "):
        choose_sets(["sums"])
    with pytest.raises(InputError, match="leave_out: 'STS13' is not among"):
        choose_sets(["sts"], ["STS13"])
    with pytest.raises(InputError, match="no set is left"):
        choose_sets(["sts"], ["STS12", "STS22", "STSBenchmark"])


def test_the_readme_says_where_every_set_comes_from() -> None:
    readme = (ROOT / "recipes" / "nv_retriever_v1" / "README.md").read_text(encoding="utf-8")
    assert table_of_sources() in readme
    for one in SETS.values():
        assert not one.note or f"**{one.name}**: {one.note}" in readme, one.note


# ---- every loader ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_each_set_loads_from_its_columns(name: str, hub: Path) -> None:
    loaded = load(hub, name)
    rows = loaded.rows
    labelled = isinstance(SETS[name].layout, Labelled)
    assert rows.column_names == (["query", "positive", "negatives"] if labelled else ["query", "positive"])
    assert len(rows) >= 8
    assert all(row["query"].strip() and row["positive"].strip() for row in rows)
    assert all(row["query"] != row["positive"] for row in rows)
    pairs = list(zip(rows["query"], rows["positive"], strict=True))
    assert len(set(pairs)) == len(pairs)
    if loaded.corpus is not None:
        corpus = loaded.corpus.to_pylist()
        assert set(rows["positive"]) <= set(corpus)
        assert len(set(corpus)) == len(corpus)
    assert f"{name}: {len(rows)} of {loaded.found} rows, {loaded.dropped} dropped" in str(loaded)


@pytest.mark.parametrize("name", SETS)
def test_what_is_evaluated_is_not_trained_on(name: str, hub: Path) -> None:
    clean, all_rows = load(hub, name), load(hub, name, decontaminate=False)
    texts = [normalised(text) for text in [*clean.rows["query"], *clean.rows["positive"]]]
    shared = normalised(f"{SHARED} it is a long story" if name.endswith("P2P") else SHARED)
    assert any(shared == normalised(text) for text in all_rows.rows["query"])
    if name in WITH_EVALUATION:
        assert shared not in texts
        assert clean.dropped >= 1
        assert len(clean.rows) < len(all_rows.rows)
    else:
        assert clean.rows.to_dict() == all_rows.rows.to_dict()


def test_training_queries_in_the_table_of_the_test_queries_are_not_taken_for_them(hub: Path) -> None:
    assert sorted(load(hub, "FiQA2018", decontaminate=False).rows.unique("query")) == sorted(
        [SHARED, *(f"where does {thing} come from" for thing in THINGS)]
    )
    assert load(hub, "FiQA2018").dropped == 2  # both positives of the shared query


@pytest.mark.parametrize(
    ("text", "same"),
    [("Where's  the\ttea?", "where s THE tea"), ("ﬁne “quotes”", 'fine "quotes"'), ("snake_case", "snake case")],
)
def test_normalised(text: str, same: str) -> None:
    assert normalised(text) == normalised(same)
    assert normalised(text) != normalised(f"{same} not")


def test_a_text_is_not_its_own_positive(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "pair/train.parquet", query=["same", "why"], answer=["same", "because"])
    loaded = load(hub, "TriviaQA", source=tmp_path)
    assert loaded.rows.to_dict() == {"query": ["why"], "positive": ["because"]}
    assert loaded.found == 1


def test_texts_of_signs_alone_are_left_out_and_match_nothing(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "pair/train.parquet", query=["?!", "why"], answer=["because", "..."])
    loaded = load(hub, "TriviaQA", source=tmp_path)
    assert loaded.rows.to_dict() == {"query": ["why"], "positive": ["..."]}


# ---- the same rows every time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SETS if name != "PAQ"])
def test_the_order_and_the_copies_of_the_source_do_not_matter(name: str, hub: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "shuffled"
    source = folder_of(hub, SETS[name].hub_id)
    for path in source.rglob("*.parquet"):
        table = pq.read_table(path)
        order = list(range(len(table)))
        random.Random(3).shuffle(order)
        if "corpus" not in path.parent.name and "queries" not in path.parent.name:  # ids may not repeat
            order.append(order[0])
        write(shuffled / path.relative_to(source), **table.take(pa.array(order)).to_pydict())
    first, again = load(hub, name, samples=6), load(hub, name, samples=6, source=shuffled)
    assert len(first.rows) == 6
    assert again.rows.to_dict() == first.rows.to_dict()
    assert again.found == first.found
    assert load(hub, name, samples=6, seed=1).rows.to_dict() != first.rows.to_dict()


def test_of_a_table_that_is_too_large_some_rows_are_read(hub: Path) -> None:
    assert len(pq.read_table(folder_of(hub, SETS["PAQ"].hub_id) / "pair/train.parquet")) == 13 * 32
    loaded = load(hub, "PAQ", decontaminate=False)
    assert loaded.found == len(loaded.rows.unique("query")) == 13


@pytest.mark.parametrize("name", ["NQ", "Banking77"])
def test_fewer_samples_are_the_first_of_more(name: str, hub: Path) -> None:
    assert load(hub, name, samples=4).rows.to_dict() == load(hub, name, samples=8).rows.select(range(4)).to_dict()


# ---- conversions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LABELLED)
def test_positives_share_the_label_and_negatives_never_do(name: str, hub: Path) -> None:
    one = SETS[name]
    assert isinstance(one.layout, Labelled)
    table = one.layout.labelled(Tables(one.hub_id, folder_of(hub, one.hub_id)))
    label = dict(zip(table.texts.to_pylist(), table.labels.to_pylist(), strict=True))
    for seed in range(5):
        for row in load(hub, name, seed=seed, decontaminate=False).rows:
            assert label[row["positive"]] == label[row["query"]]
            assert len(set(row["negatives"])) == 3
            assert all(label[text] != label[row["query"]] for text in row["negatives"])


def test_a_text_under_two_labels_and_the_only_text_of_a_label(hub: Path) -> None:
    rows = load(hub, "Banking77", decontaminate=False).rows
    texts = {text for row in rows for text in (row["query"], row["positive"], *row["negatives"])}
    assert "under two labels" not in texts
    assert "alone" not in set(rows["query"]) | set(rows["positive"])  # but it may be another label's negative


def test_every_other_text_can_be_drawn(hub: Path) -> None:
    found = [load(hub, "Emotion", seed=seed, decontaminate=False).rows.to_dict() for seed in range(40)]
    of_one = [
        (rows["positive"][place], rows["negatives"][place])
        for rows in found
        for place, query in enumerate(rows["query"])
        if query == SHARED
    ]
    assert len({positive for positive, _ in of_one}) == 8  # all others of its label
    assert len({text for _, negatives in of_one for text in negatives}) == 17  # two labels of 8, and the lonely one
    assert len({frozenset(negatives) for _, negatives in of_one}) > 34  # of 680: each is drawn by itself


def test_as_many_negatives_as_there_are(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "default/train.parquet", text=["a b", "a c", "b d", "b e", "c f"], label=["a", "a", "b", "b", "c"])
    rows = load(hub, "Imdb", source=tmp_path).rows
    assert all(
        sorted([row["query"], row["positive"], *row["negatives"]]) == ["a b", "a c", "b d", "b e", "c f"]
        for row in rows
    )
    assert sorted(rows["query"]) == ["a b", "a c", "b d", "b e"]
    with pytest.raises(InputError, match="negatives: 4 texts of other labels wanted, and one label leaves 3"):
        load(hub, "Imdb", source=tmp_path, negatives=4)


@pytest.mark.parametrize("name", ["STS12", "STS22", "STSBenchmark"])
def test_alike_sentences_are_positives_of_one_another(name: str, hub: Path) -> None:
    loaded = load(hub, name, decontaminate=False)
    assert isinstance(SETS[name].layout, Similar)
    pairs = set(zip(loaded.rows["query"], loaded.rows["positive"], strict=True))
    alike = [SHARED, *(f"a person looks at {thing}" for thing in THINGS[2::3])]
    expected = {(text, f"{text}, as people do") for text in alike}
    assert pairs == expected | {(second, first) for first, second in expected}
    assert loaded.corpus is not None
    assert len(loaded.corpus) == 26  # the others, too


def test_a_query_once(hub: Path) -> None:
    once, every = load(hub, "HotpotQA", decontaminate=False), load(hub, "FEVER", decontaminate=False)
    assert len(once.rows) == len(once.rows.unique("query")) == 13
    assert len(every.rows) == 26
    assert once.rows["positive"] != every.rows["positive"][:13]


@pytest.mark.parametrize(("name", "samples"), [("HotpotQA", None), ("FEVER", 5), ("SciFacts", 6), ("TriviaQA", 5)])
def test_positives_that_are_no_rows_are_known(hub: Path, name: str, samples: int | None) -> None:
    one = SETS[name]
    assert not isinstance(one.layout, Labelled)
    pairs = one.layout.pairs(Tables(one.hub_id, folder_of(hub, one.hub_id)))
    relevant = set(zip(pairs.query.to_pylist(), pairs.positive.to_pylist(), strict=True))
    loaded = load(hub, name, samples=samples)
    rows, others = (set(zip(part["query"], part["positive"], strict=True)) for part in (loaded.rows, loaded.others))
    passages = set(loaded.rows["positive"] if loaded.corpus is None else loaded.corpus.to_pylist())
    asked = set(loaded.rows["query"])
    assert others == {(query, text) for query, text in relevant if query in asked and text in passages} - rows
    assert bool(others) == (name != "TriviaQA")
    hiding = load_set(replace(one, hides_positives=True), source=folder_of(hub, one.hub_id), decontaminate=False)
    assert not len(hiding.others)


def test_titles_stand_before_texts(hub: Path) -> None:
    corpus = load(hub, "SciFacts").corpus
    assert corpus is not None
    assert corpus[0].as_py() == f"About 0 {SHARED}: it is a long story"
    assert corpus[1].as_py() == "where does tea come from: it is a long story"
    assert load(hub, "MedrxivClusteringP2P").rows["query"][0].count("We study it") == 1
    assert "We study" not in load(hub, "MedrxivClusteringS2S").rows["query"][0]


def test_contradictions_can_be_mined(hub: Path) -> None:
    loaded = load(hub, "NLI")
    assert loaded.corpus is not None
    assert f"{SHARED} nobody asks" in loaded.corpus.to_pylist()


def test_lists_of_ids_are_read_as_lists_and_as_text(hub: Path, tmp_path: Path) -> None:
    written = load(hub, "BioASQ").rows.to_dict()
    source = folder_of(hub, SETS["BioASQ"].hub_id)
    questions = pq.read_table(source / "question-answer-passages/test.parquet").to_pydict()
    questions["relevant_passage_ids"] = [[place, place + 100, 9999] for place in range(13)]
    write(tmp_path / "question-answer-passages/test.parquet", **questions)
    write(
        tmp_path / "text-corpus/passages.parquet", **pq.read_table(source / "text-corpus/passages.parquet").to_pydict()
    )
    assert load(hub, "BioASQ", source=tmp_path).rows.to_dict() == written
    questions["relevant_passage_ids"] = ["none"] * 13
    write(tmp_path / "question-answer-passages/test.parquet", **questions)
    with pytest.raises(InputError, match="rag-mini-bioasq: 'none' is not a list of ids"):
        load(hub, "BioASQ", source=tmp_path)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_folder_without_the_table(hub: Path) -> None:
    with pytest.raises(InputError, match=r"lacks default/train\.parquet, it holds \['pair/train\.parquet'\]"):
        load(hub, "Banking77", source=folder_of(hub, "sentence-transformers/paq"))


def test_other_columns(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "default/train.parquet", sentence=["a"], label=[0])
    with pytest.raises(
        InputError, match=r"banking77 \(default/train.parquet\): column 'text' is not among \['sentence'"
    ):
        load(hub, "Banking77", source=tmp_path)


def test_a_judged_id_without_a_text(hub: Path, tmp_path: Path) -> None:
    source = folder_of(hub, "mteb/scifact")
    for path in source.rglob("*.parquet"):
        write(tmp_path / path.relative_to(source), **pq.read_table(path).to_pydict())
    write(tmp_path / "default/train.parquet", **{"query-id": ["q1"], "corpus-id": ["lost"], "score": [1]})
    with pytest.raises(InputError, match=r"scifact: corpus/corpus.parquet lacks 1 judged id\(s\), the first is 'lost'"):
        load(hub, "SciFacts", source=tmp_path)


def test_nothing_left(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "pair/train.parquet", query=[SHARED], answer=["yes"])
    with pytest.raises(InputError, match="NQ: no row is left of 1 after 1 that occur in the evaluation set"):
        load(hub, "NQ", source=tmp_path)


@pytest.mark.parametrize("option", ["samples", "negatives"])
def test_numbers(option: str, hub: Path) -> None:
    with pytest.raises(InputError, match=f"{option}: a whole number, at least 1, got 0"):
        load(hub, "Banking77", **{option: 0})


def test_the_hub_is_asked_for_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> datasets.Dataset:
        asked.append((arguments, options))
        return datasets.Dataset.from_dict({"question": ["q"], "answer": ["a"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_set(SETS["GOOAQ"], decontaminate=False)
    assert asked == [(("sentence-transformers/gooaq", "pair"), {"split": "train", "revision": None})]


def test_without_the_hub() -> None:
    message = (
        r"paq \(pair/train.parquet\) could not be loaded from the Hub: .*give a folder that holds pair/train.parquet"
    )
    with pytest.raises(InputError, match=message):
        Tables("sentence-transformers/paq").read(Table("pair", "train"), ["query"])


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
