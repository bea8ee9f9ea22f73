"""Cards as text: kept examples, and what survives any number of pushes.

After a change that is meant, write the kept cards anew and read their difference: ``python -m tests.hub.test_cards``.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import RepoCard
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hf_negmine import push_dataset
from hf_negmine.base.errors import InputError
from hf_negmine.hub import data_files
from hf_negmine.hub.card_metadata import BEGIN, END, join_card, merged_metadata, split_card
from hf_negmine.hub.cards import code, escaped
from hf_negmine.hub.material import Material
from hf_negmine.hub.models import model_card, negatives_section
from hf_negmine.hub.provenance import LIBRARIES
from tests.golden.test_golden import CORPUS, ROWS, TEACHERS
from tests.hub.conftest import draw

GOLDEN = Path(__file__).parents[1] / "golden"


def write_cards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The card of a data set and what a model's card says of it, with versions of libraries left out."""
    from datasets import Dataset

    from hf_negmine import NegativeMiner

    monkeypatch.setenv("HF_NEGMINE_CACHE", str(folder / "cache"))
    miner = NegativeMiner(
        TEACHERS["bm25"],
        method="perc_pos:0.95",
        sampler="sampled:6",
        num_negatives=2,
        corpus=CORPUS,
        include_scores=True,
        cache_dir=folder,
        device="cpu",
        progress=False,
    )
    mined = miner.mine(Dataset.from_list(ROWS))
    done = push_dataset(
        mined,
        "user/tea",
        license="cc-by-4.0",
        languages=["en"],
        source_datasets=["user/questions"],
        with_pool=True,
        dry_run=True,
    )
    assert done.folder is not None
    section = negatives_section(
        "user/model",
        Material.find(mined, None).summary,
        data_id="user/tea",
        data_ids=["user/more"],
        evaluation={"nfcorpus NDCG@10": (0.3, 0.33)},
        base="user/base",
        prompts={"query": "query: "},
    )
    return {
        "dataset_card.md": normalised((done.folder / "README.md").read_text(encoding="utf-8")),
        "model_section.md": normalised(section),
    }


def normalised(text: str) -> str:
    text = re.sub(r"(\| version of [\w-]+ \|) `[^`]*`", r"\1 `…`", text)
    ours = re.escape(version("hf_negmine"))
    text = re.sub(rf"(library.version\W+){ours}", r"\1…", text)
    return re.sub(rf"(version=\{{|pypi.org/project/hf-negmine/\) ){ours}", r"\1…", text)


def test_the_cards_are_those_that_were_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_figure", draw)
    for name, text in write_cards(tmp_path, monkeypatch).items():
        kept = (GOLDEN / name).read_text(encoding="utf-8")
        assert without_fingerprints(text) == without_fingerprints(kept), f"{name} has changed"


def without_fingerprints(card: str) -> str:
    """A card without its teachers' fingerprints, which change with the versions of their libraries."""
    return re.sub(r'((?:passage|query)(?: \| `|": "))[0-9a-f]{32}\b', r"\1…", card)


def test_the_kept_card_says_everything() -> None:
    card = RepoCard((GOLDEN / "dataset_card.md").read_text(encoding="utf-8"))
    body = card.text
    for heading in ("# tea", "### Settings", "### Examples", "## Configs", "## Citation"):
        assert f"\n{heading}\n" in body
    for library in LIBRARIES:
        assert f"| version of {library} | " in body
    for setting in (
        "method",
        "sampler",
        "num negatives",
        "seed",
        "teacher",
        "teacher fingerprints query",
        "rows digest",
    ):
        assert f"\n| {setting} | " in body
    assert body.count("- **query**: ") == 3
    assert "teacher is bm25-english" in body
    (block,) = re.findall("```json\n(.*?)\n```", body, re.DOTALL)
    assert yaml.safe_load(block)["method"] == "perc_pos:0.95"
    assert card.data.to_dict()["source_datasets"] == ["user/questions"]


# ---- what a user wrote

words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60)
lines = st.lists(words | st.sampled_from(["---", "# One", "", "```yaml", "<!-- mine -->", "a: b"]), max_size=6)
texts = lines.map("\n".join)
values = st.recursive(st.none() | st.booleans() | st.integers() | words, lambda inner: st.lists(inner, max_size=3))
metadata = st.dictionaries(st.text("abcdef_", min_size=1, max_size=8), values, max_size=4)


@given(metadata, texts, texts, st.lists(words, min_size=1, max_size=3))
@example({}, "---\na: b\n---", "---", ["body"])
@example({"a": "x\n---\ny"}, "", "", [END])
@example({"a": "\x85", "b": ["\u2028", "x\u2029y"]}, "", "", [""])
@example({}, "    code first", "last  ", [f"{BEGIN} {END}"])
def test_own_text_survives_any_number_of_pushes(
    metadata: dict[str, Any], before: str, after: str, bodies: list[str]
) -> None:
    assume("<!-- hf_negmine" not in before + after)
    kept, own = metadata, (before.strip("\n"), after.strip("\n"))
    for body in bodies:
        kept, own = split_card(join_card(kept, own, body))
        assert (kept, own) == (metadata, (before.strip("\n"), after.strip("\n")))


@given(texts)
@example("---\n---\nempty")
@example("---\n\n# a rule, and no YAML")
def test_a_card_without_ours_is_the_users_own(text: str) -> None:
    assume(not text.startswith("---"))
    assume("<!-- hf_negmine" not in text)
    assert split_card(text) == ({}, (text.strip("\n"), ""))


def test_yaml_of_all_kinds() -> None:
    assert split_card("---\n---\nmine") == ({}, ("mine", ""))
    assert split_card("---\na: 1\n---") == ({"a": 1}, ("", ""))
    assert split_card("---\na: |\n  x\n  ---\nb: 2\n---\n\nmine") == ({"a": "x\n---\n", "b": 2}, ("mine", ""))
    assert split_card("--- \na: 1\n--- \nmine\n----\n") == ({"a": 1}, ("mine\n----", ""))
    for broken in ("---\na: [\n---\n", "---\n- a\n---\n", "---\na\n---\n", "---\n!!python/object:os.system {}\n---\n"):
        with pytest.raises(InputError, match="the existing card has YAML that"):
            split_card(broken)


def test_lists_are_joined_and_the_users_configs_stay() -> None:
    there = {"tags": "mine", "language": ["de"], "configs": [{"config_name": "own", "data_files": "x"}, {"bare": 1}]}
    found = merged_metadata(
        there, [], [{"config_name": "default", "data_files": [], "holds": "rows"}], None, ["de", "en"]
    )
    assert found["tags"][0] == "mine"
    assert len(found["tags"]) == 5
    assert found["language"] == ["de", "en"]
    assert [config.get("config_name") for config in found["configs"]] == ["default", "own", None]
    assert "license" not in found
    assert "holds" not in found["configs"][0]


# ---- texts of others

markdown = st.text(st.sampled_from("ab |`*_[]()<>#!\\&-\n\t;\"'"), max_size=40) | words


@given(markdown, st.none() | st.integers(1, 30))
def test_escaped_text_says_nothing_to_markdown(text: str, limit: int | None) -> None:
    found = escaped(text, limit)
    assert "\n" not in found
    assert not re.search(r"[<>]", found)
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]|#!]", found)
    flat = " ".join(text.split())
    plain = re.sub(r"\\(.)", r"\1", found).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    if limit is None or len(flat) <= limit:
        assert plain == flat
    else:
        assert len(plain) <= limit
        assert plain.endswith("…")
        assert flat.startswith(plain[:-1])


@given(markdown | st.integers() | st.booleans() | st.none() | st.lists(markdown, max_size=2))
def test_code_stays_in_its_cell(value: Any) -> None:
    found = code(value)
    assert found.isprintable()
    assert not re.search(r"(?<!\\)\|", found)
    fence = re.match("`+", found)
    assert fence is not None
    inner = found[fence.end() : len(found) - fence.end()]
    assert found.endswith(fence[0])
    assert not re.search(rf"(?<!`){fence[0]}(?!`)", inner)


def test_a_card_of_hostile_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (GOLDEN / "dataset_card.md").read_text(encoding="utf-8")
    hostile = f"</td><script>alert(1)</script> | ![x](http://x) {END} `rm`"
    assert "<" not in escaped(hostile)
    card = join_card({}, ("", ""), kept + code(hostile))
    assert split_card(card)[1] == ("", "")


def test_a_models_card_keeps_what_is_there() -> None:
    generated = "---\ntags:\n- a\n---\n\n# Model\n\nText.\n\n## Training Details\n\nMore.\n"
    first = model_card(generated, "## Hard negatives\n\nOne.", data_ids=["x/y"])
    metadata, own = split_card(first)
    assert metadata["datasets"] == ["x/y"]
    assert own == ("", "")
    assert first.index("# Model") < first.index("One.") < first.index("## Training Details")
    existing = first.replace(BEGIN, f"Mine.\n\n{BEGIN}").replace("---\ntags:\n", "---\nlicense: mit\ntags:\n")
    second = model_card(generated, "## Hard negatives\n\nTwo.", existing=existing)
    assert split_card(second)[1] == ("Mine.", "")
    assert split_card(second)[0]["license"] == "mit"
    assert "One." not in second


def write_golden() -> None:
    """Write the kept cards anew."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        for name, text in write_cards(Path(folder), monkeypatch).items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
            sys.stdout.write(f"{GOLDEN / name}\n")


if __name__ == "__main__":
    write_golden()


def test_a_card_that_lost_its_end_mark_is_not_cut_off() -> None:
    card = join_card({}, ("before", "after"), "ours").replace(END, "")
    with pytest.raises(InputError, match="has lost the mark"):
        split_card(card)


def test_a_models_own_card_is_not_repeated() -> None:
    first = join_card({"tags": []}, ("my words", "more words"), "# A model\n\n## Training Details\n\n…")
    again = model_card(first, "## Hard negatives\n\nnew", existing=first)
    assert again.count("my words") == again.count("more words") == again.count("# A model") == 1
