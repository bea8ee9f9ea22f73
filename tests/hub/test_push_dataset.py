"""Mined data sets that are pushed, as the real clients see them afterwards."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, load_dataset

from hf_negmine import HubError, load_mined, push_dataset
from hf_negmine.base.errors import InputError
from hf_negmine.hub import data_files
from hf_negmine.hub.provenance import rows_digest
from tests.hub.conftest import draw
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, code_blocks, make_miner, mine, multi_rows, read_card, rows


def card_of(hub: Hub, revision: str = "main") -> tuple[dict[str, Any], str]:
    return read_card(hub.files("dataset", NAME, revision)["README.md"])


def load_configs(metadata: dict[str, Any]) -> dict[tuple[str, str], Dataset]:
    """Every split of every config that a card names, as the real client loads it."""
    return {
        (config["config_name"], data["split"]): load_dataset(NAME, config["config_name"], split=data["split"])
        for config in metadata["configs"]
        for data in config["data_files"]
    }


def test_one_commit_holds_everything_that_the_card_names(
    hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "_figure", draw)
    done = push_dataset(mined, NAME, license="cc-by-4.0", languages=["en"], with_pool=True)
    assert [commit.title for commit in hub.commits("dataset", NAME)] == [
        "Mined with naive: default, train",
        "initial commit",
    ]
    assert done.commit == hub.commits("dataset", NAME)[0].oid
    assert str(done) == f"{NAME}: 14 files pushed to https://huggingface.co/datasets/{NAME}"
    assert sorted(done.files) == sorted(hub.files("dataset", NAME))
    metadata, body = card_of(hub)
    assert (metadata["license"], metadata["language"]) == ("cc-by-4.0", ["en"])
    assert {"hf_negmine", "hard-negatives"} <= set(metadata["tags"])
    assert "text-retrieval" in metadata["task_categories"]
    found = load_configs(metadata)
    lists = {"queries", "documents", "scores"}
    assert {config for config, _ in found} == {"default", "default-queries", "default-corpus", "default-pairs"} | lists
    assert found["default", "train"].to_list() == mined.to_list()
    assert found["default", "train"].features == mined.features
    assert found["default-queries", "train"].to_dict() == {"query_id": list(range(12)), "query": QUERIES}
    assert found["default-corpus", "train"].to_dict() == {"document_id": list(range(20)), "document": CORPUS}
    pairs = found["default-pairs", "train"]
    assert pairs["query_id"][:] == pairs["document_id"][:] == list(range(12))
    assert pairs["score"][:] == [scores[0] for scores in mined["scores"]]
    for path in ("negmine/default/train-scores.png", "negmine/default/train.json"):
        assert f"({path})" in body
        assert path in done.files
    assert hub.files("dataset", NAME)["negmine/default/train-scores.png"].startswith(b"\x89PNG")


def test_the_code_in_the_card_runs(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit", config_name="tea", split="test")
    body = card_of(hub)[1]
    first, second = code_blocks(body)
    assert f"`hf-negmine reproduce {NAME} --config tea --split test` mines" in body
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["rows"].to_list() == mined.to_list()
    exec(second, names)
    assert names["mined"].rows.to_list() == mined.to_list()


@pytest.mark.parametrize("settings", [{"format": "triplet"}, {"format": "labeled-list"}, {"format": "ids"}])
def test_formats(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    mined = mine(tmp_path / "cache", **settings)
    push_dataset(mined, NAME, license="mit")
    found = load_dataset(NAME, split="train")
    assert found.to_list() == mined.to_list()
    assert found.features == mined.features
    if settings["format"] == "ids":
        corpus = load_dataset(NAME, "default-corpus", split="train")["document"][:]
        queries = load_dataset(NAME, "default-queries", split="train")["query"][:]
        for row in found:
            assert corpus[row["document_ids"][0]] == CORPUS[QUERIES.index(queries[row["query_id"]])]


def test_a_second_config_and_split_leave_the_others(hub: Hub, tmp_path: Path, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    before = hub.files("dataset", NAME)
    more = make_miner(tmp_path / "more", include_scores=True).mine(rows(0, 4))
    with pytest.raises(InputError, match="another config_name"):
        push_dataset(more.remove_columns("scores"), NAME, split="test")
    push_dataset(more, NAME, split="test")
    push_dataset(more, NAME, config_name="second")
    metadata, body = card_of(hub)
    found = load_configs(metadata)
    assert len(found) == 12
    assert found["default", "train"].to_list() == mined.to_list()
    assert found["default", "test"].to_list() == found["second", "train"].to_list() == more.to_list()
    assert len(found["default-queries", "test"]) == 4
    after = hub.files("dataset", NAME)
    assert {path: after[path] for path in before if path != "README.md"} == {
        path: data for path, data in before.items() if path != "README.md"
    }
    places = [body.index(f"## `{part}`") for part in ("second`, split `train", "default`, split `test")]
    assert places == sorted(places)
    assert body.count("### Settings") == body.count("### Examples") == 3
    assert body.count("- **query**: ") == 9
    assert metadata["license"] == "mit"


def test_a_second_push_replaces_what_was_there(hub: Hub, tmp_path: Path, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit", with_pool=True)
    assert any("train-pool/" in path for path in hub.files("dataset", NAME))
    done = push_dataset(mine(tmp_path / "cache", num_negatives=1), NAME)
    assert sorted(hub.files("dataset", NAME)) == sorted(done.files)
    assert not any("train-pool/" in path for path in done.files)
    assert load_dataset(NAME, split="train").column_names == ["query", "positive", "negative_1"]
    assert card_of(hub)[1].count("### Settings") == 1
    assert len(hub.commits("dataset", NAME)) == 3


def test_the_same_again_changes_nothing(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    before = hub.files("dataset", NAME)
    hub.requests.clear()
    push_dataset(mined, NAME)
    assert hub.files("dataset", NAME) == before
    assert not hub.asked("^/[0-9a-f]{64}$", "PUT")


def test_a_users_own_text_and_metadata_survive(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    card = hub.files("dataset", NAME)["README.md"].decode()
    header, _, body = card[4:].partition("\n---\n")
    edited = f"---\n{header}\npretty_name: Tea or coffee\nextra: [1]\n---\nMy words before.\n{body}\nMy words after.\n"
    hub.commit("dataset", NAME, {"README.md": edited.encode(), "notes/mine.txt": b"kept"})
    for _ in range(2):
        push_dataset(mined, NAME, license="apache-2.0")
    metadata, body = card_of(hub)
    assert body.strip().startswith("My words before.\n\n<!--")
    assert body.strip().endswith("-->\n\nMy words after.")
    assert body.count("# Tea or coffee\n") == 1
    assert (metadata["extra"], metadata["license"], metadata["pretty_name"]) == ([1], "apache-2.0", "Tea or coffee")
    assert hub.files("dataset", NAME)["notes/mine.txt"] == b"kept"


def test_a_split_that_datasets_has_pushed_stays(hub: Hub, tmp_path: Path, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit", with_pool=True)
    rows().push_to_hub(NAME, split="validation")  # writes into the card which columns the config has
    more = rows(0, 2).add_column("negative_1", CORPUS[4:6])
    more.push_to_hub(NAME, split="validation")
    more.push_to_hub(NAME, "extra")
    push_dataset(mine(tmp_path / "cache", num_negatives=1), NAME)
    loaded = datasets.load_dataset(NAME)
    assert loaded["validation"].to_list() == more.to_list()
    assert loaded["train"].column_names == ["query", "positive", "negative_1"]
    assert load_dataset(NAME, "extra", split="train").to_list() == more.to_list()
    assert "scores" not in {config["config_name"] for config in card_of(hub)[0]["configs"]}


@pytest.mark.parametrize("license", ["mit", ["mit"], ["mit", "cc-by-4.0"]])
def test_a_license_may_be_a_list(hub: Hub, mined: Dataset, license: str | list[str]) -> None:
    hub.create("dataset", "tester/source", {"README.md": f"---\nlicense: {license}\n---\n".encode()})
    hub.create("dataset", NAME, {"README.md": f"---\nlicense: {license}\n---\n".encode()})
    for name, sources in ((NAME, ()), ("tester/new", ["tester/source"])):
        if len(license) == 2:
            with pytest.raises(InputError, match="under which license"):
                push_dataset(mined, name, source_datasets=sources)
            continue
        push_dataset(mined, name, source_datasets=sources)
        assert read_card(hub.files("dataset", name)["README.md"])[0]["license"] == "mit"


def test_a_branch(hub: Hub, tmp_path: Path, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    main = hub.files("dataset", NAME)
    push_dataset(mine(tmp_path / "cache", num_negatives=1), NAME, config_name="more", revision="v2")
    assert hub.files("dataset", NAME) == main
    assert len(load_dataset(NAME, "more", split="train", revision="v2").column_names) == 3
    assert load_dataset(NAME, "default", split="train", revision="v2").to_list() == mined.to_list()
    push_dataset(mined, "tester/new", license="mit", revision="first")
    assert set(hub.files("dataset", "tester/new")) == set()
    assert "README.md" in hub.files("dataset", "tester/new", "first")


def test_private(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit", private=True)
    assert hub.repository("dataset", NAME).private
    push_dataset(mined, "tester/open", license="mit")
    assert not hub.repository("dataset", "tester/open").private


def test_rows_of_map_need_their_miner(hub: Hub, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    mapped = rows().map(miner, batched=True, features=miner.features(rows()))
    with pytest.raises(InputError, match="miner="):
        push_dataset(mapped, NAME, license="mit")
    with pytest.raises(InputError, match="miner="):
        push_dataset(rows(), NAME, license="mit")
    assert not hub.requests
    push_dataset(mapped, NAME, license="mit", miner=miner)
    assert load_dataset(NAME, split="train").to_list() == mapped.to_list()


def test_rows_go_with_the_texts_that_they_were_mined_from(hub: Hub, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache")
    mined = {split: miner.fit(some).mine(some) for split, some in (("train", rows(0, 6)), ("test", rows(6, 12)))}
    for split, some in mined.items():  # the miner is fitted on the last ones now
        push_dataset(some, NAME, split=split, miner=miner, license="mit")
        queries = load_mined(NAME, split=split).queries
        assert queries is not None
        assert queries["query"][:] == some["query"][:]


def test_rows_that_the_miner_was_not_fitted_on(hub: Hub, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows(0, 6))
    mapped = rows(0, 6).map(miner, batched=True)
    for some in (miner.mine(rows(3, 12)), mapped):
        with pytest.raises(InputError, match=r"6 of \d rows have a 'query' that is none of the 6 queries"):
            push_dataset(some, NAME, miner=miner.fit(rows(6, 12)) if some is mapped else None, license="mit")
    assert not hub.requests


def test_columns_of_other_kinds(hub: Hub, tmp_path: Path) -> None:
    given = rows().add_column("day", [datetime.date(2026, 1, 1 + number) for number in range(12)])
    day = datetime.datetime(2026, 1, 1)
    for value in (
        float("nan"),
        0.1,
        2**63 - 1,
        b"\xff",
        day,
        datetime.timedelta(1),
        datetime.time(1),
        {"a": [{"b": 1}]},
    ):
        given = given.add_column(f"{value!r}", [value] * 12)
    given = given.cast_column("0.1", datasets.Value("float32"))
    push_dataset(
        make_miner(tmp_path / "cache", query_column="query", positive_column="positive").mine(given),
        NAME,
        license="mit",
    )
    assert load_dataset(NAME, split="train")["day"][:] == given["day"][:]
    assert "- **day**: 2026-01-01" in card_of(hub)[1]
    loaded = load_mined(NAME)
    assert rows_digest(loaded.rows) == loaded.provenance.rows_digest


def test_images_go_along_and_their_paths_do_not(hub: Hub, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    given = rows().add_column("image", [str(tmp_path / "one.png")] * 12).cast_column("image", datasets.Image())
    mined = make_miner(tmp_path / "cache", query_column="query", positive_column="positive").mine(given)
    push_dataset(mined, NAME, license="mit")
    assert not [path for path, data in hub.files("dataset", NAME).items() if str(tmp_path).encode() in data]
    (tmp_path / "one.png").unlink()
    assert load_dataset(NAME, split="train")[0]["image"].size == (4, 4)
    with pytest.raises(InputError, match="a file that a row names cannot be read"):
        push_dataset(mined.select(range(3)), NAME)


def test_rows_with_several_positives(hub: Hub, tmp_path: Path) -> None:
    mined = make_miner(tmp_path / "cache", format="labeled-list").mine(multi_rows())
    push_dataset(mined, NAME, license="mit")
    assert load_dataset(NAME, split="train").to_list() == mined.to_list()
    assert len(load_dataset(NAME, "default-pairs", split="train")) == 12
    assert "6 queries with 2.00 positives each" in card_of(hub)[1]


def test_several_shards(hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "SHARD_BYTES", 800)
    push_dataset(mined, NAME, license="mit")
    shards = [path for path in hub.files("dataset", NAME) if path.startswith("data/default/train-")]
    assert len(shards) > 2
    assert load_dataset(NAME, split="train").to_list() == mined.to_list()


class TestLicence:
    def test_it_is_asked_for(self, hub: Hub, mined: Dataset) -> None:
        with pytest.raises(InputError, match="license"):
            push_dataset(mined, NAME)
        assert ("dataset", NAME) not in hub.state.repositories

    def test_it_is_that_of_the_sources(self, hub: Hub, mined: Dataset) -> None:
        for name, licence in (("one", "mit"), ("two", "mit"), ("other", "cc0-1.0"), ("none", None)):
            header = f"---\nlicense: {licence}\n---\n" if licence else "# None\n"
            hub.create("dataset", f"source/{name}", {"README.md": header.encode()})
        push_dataset(mined, NAME, source_datasets=["source/one", "source/two"])
        metadata, _ = card_of(hub)
        assert (metadata["license"], metadata["source_datasets"]) == ("mit", ["source/one", "source/two"])
        for sources in (["source/one", "source/other"], ["source/none"]):
            with pytest.raises(InputError, match="license"):
                push_dataset(mined, "tester/two", source_datasets=sources)


def test_a_dry_run_writes_all_files_and_asks_nothing(hub: Hub, mined: Dataset) -> None:
    done = push_dataset(mined, NAME, license="mit", with_pool=True, dry_run=True)
    assert not hub.requests
    assert (done.commit, done.url) == (None, None)
    assert done.folder is not None
    assert "nothing was sent" in str(done)
    files = {path: (done.folder / path).read_bytes() for path in done.files}
    assert push_dataset(mined, NAME, license="mit", with_pool=True).files == done.files
    assert hub.files("dataset", NAME) == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repo_id": "one"}, "user/name"),
        ({"repo_id": "../one"}, "user/name"),
        ({"repo_id": "tester/one/two"}, "user/name"),
        ({"config_name": "../up"}, "config_name"),
        ({"config_name": "data"}, "config_name"),
        ({"config_name": "tea-corpus"}, "config_name"),
        ({"split": "a/b"}, "split"),
        ({"split": "a-b"}, "split"),
    ],
)
def test_names_that_cannot_be(hub: Hub, mined: Dataset, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        push_dataset(mined, **{"repo_id": NAME, **arguments}, license="mit")
    assert not hub.requests


def test_no_rows(hub: Hub, mined: Dataset) -> None:
    with pytest.raises(InputError, match="no row"):
        push_dataset(mined.select([]), NAME, license="mit")


def test_a_teachers_prompt_stays_in_its_cell(hub: Hub, tmp_path: Path, mined: datasets.Dataset) -> None:
    class Prompted:
        name, similarity = "a`b|c", "cosine"
        settings = {"kind": "custom", "query_prompt": "Instruct: find | this\nQuery: "}  # noqa: RUF012

        def fingerprint(self, role: str) -> str:
            return f"prompted-{role}"

        def encode(self, texts: Any, role: str) -> Any:
            import numpy as np

            return np.array([[len(text), text.count("e") + 1.0] for text in texts], dtype=np.float32)

    push_dataset(mine(tmp_path / "cache", Prompted()), NAME, license="mit")
    body = card_of(hub)[1]
    assert '| teacher settings query prompt | `"Instruct: find \\| this\\nQuery: "` |' in body
    assert "| teacher | ``a`b\\|c`` |" in body


def test_a_public_repository_does_not_take_what_is_to_be_private(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit", private=False)
    before = hub.files("dataset", NAME)
    with pytest.raises(HubError, match="it is public"):
        push_dataset(mined, NAME, config_name="secret", private=True)
    assert hub.files("dataset", NAME) == before


def test_the_config_that_loads_without_a_name_stays_the_same(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, config_name="first", license="mit")
    push_dataset(mined.select(range(3)), NAME, config_name="second", miner=None)
    configs = read_card(hub.files("dataset", NAME)["README.md"])[0]["configs"]
    assert [config["config_name"] for config in configs if config.get("default")] == ["first"]


def test_a_page_goes_along_and_the_card_links_it(hub: Hub, mined: Dataset, tmp_path: Path) -> None:
    push_dataset(mined, NAME, license="mit", with_pool=True, report=True)
    path = "negmine/default/train-report.html"
    assert path in hub.files("dataset", NAME)
    _, body = card_of(hub)
    assert f"[A page to look at these negatives]({path})" in body
    data = load_mined(NAME, cache_dir=tmp_path)
    assert data.pool is not None
    assert data.provenance.files["report"] == [path]
    push_dataset(mined, NAME, license="mit")  # without it, the old page goes
    assert path not in hub.files("dataset", NAME)
