"""Whatever lies on the Hub, one sentence comes of it: provenance, pools, cards and tables, changed at random.

Nothing may be raised but a `NegmineError`, nothing may be executed, and no input may take a gigabyte more than the
process had.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from hf_negmine import push_dataset
from hf_negmine.base.errors import NegmineError
from hf_negmine.data.texts import TextSet
from hf_negmine.hub.card_metadata import decoded_card
from hf_negmine.hub.cards import dataset_card
from hf_negmine.hub.data_files import configs_of
from hf_negmine.hub.load import HubData, check_lookups, check_shared_pool, open_pool, read_parquet, text_set_of
from hf_negmine.hub.models import model_card
from hf_negmine.hub.provenance import LOOKUPS, Provenance, read_provenance
from hf_negmine.hub.reproducing import mine_again
from hf_negmine.pool import CandidatePool
from tests.hub.world import NAME, mine
from tests.thorough import examples

MOST_MEMORY = 2**30
PATH = "negmine/default/train.json"
seen: Counter[str] = Counter()

fuzz = examples(2000, every=50, suppress_health_check=list(HealthCheck))
few = examples(400, every=50, suppress_health_check=list(HealthCheck))


class Honest:
    """What was pushed, as files, and a folder for what is made of it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.provenance = (folder / PATH).read_bytes()
        self.card = (folder / "README.md").read_text(encoding="utf-8")

    @cached_property
    def data(self) -> HubData:
        provenance = read_provenance(self.provenance, PATH, where="here")
        tables = {name: self.table(name, provenance) for name in ("data", *LOOKUPS)}
        return HubData(tables["data"], provenance, *(tables[name] for name in LOOKUPS))

    @cached_property
    def texts(self) -> TextSet:
        return text_set_of(self.data, self.cache)

    @cached_property
    def pool(self) -> list[Path]:
        return [self.folder / path for path in self.data.provenance.files["pool"]]

    def table(self, name: str, provenance: Provenance) -> datasets.Dataset:
        return datasets.Dataset(pq.read_table(self.folder / provenance.files[name][0]))


@pytest.fixture(autouse=True)
def _no_hanging_test() -> None:
    """No limit of seconds here: how long a test runs depends on how many inputs were asked for."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    """A dry run of a push, and a limit on what the process may take from here on."""
    home = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_NEGMINE_CACHE", str(home / "negmine"))
        mined = mine(home / "cache", "bm25", include_scores=True, pool_depth=4)
        folder = push_dataset(mined, NAME, license="mit", with_pool=True, dry_run=True).folder
        assert folder is not None
        found = Honest(folder, home / "other")
        assert open_pool(found.data, found.pool, found.cache).n_queries == 12
        assert mine_again(found.data, NAME, cache_dir=found.cache, progress=False).identical
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, before[1]))
        try:
            yield found
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            print("\nfuzzed:", dict(sorted(seen.items())))


def outcome(surface: str, call: Callable[[], object]) -> None:
    """Count what a call does; all but `NegmineError` is a failure of the test."""
    try:
        call()
        seen[f"{surface}: taken"] += 1
    except NegmineError as error:
        said = str(error)
        seen[f"{surface}: refused"] += 1
    else:
        said = "taken"
    assert 0 < len(said) < 3000, "an error without a word, or of a page"


# ---- provenance

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**9, 10**30, 1e400, -1e400, 1e30, float("nan"), 0.5, 5, "x", "", "\0"]),
    st.text(max_size=12),
    st.sampled_from(
        ["../x", "/etc/passwd", "bm25", "sampled:1000000000000", "shifted:" + "9" * 30, "band:5-3", "naive"]
    ),
    st.sampled_from(
        ["perc_pos:nan", "abs:1e400", "top1_sampled:1", "sampled:1", "\ud800", "ids", "each", "min", "keep"]
    ),
    st.sampled_from(
        ["labeled-list", "labeled-pair", "triplet", "IVF100000000,Flat", "HNSW8", "random", "cross-sample"]
    ),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
teachers = st.one_of(
    st.fixed_dictionaries({"kind": st.just("random"), "seed": odd}),
    st.fixed_dictionaries({"kind": st.just("bm25"), "k1": odd, "b": odd}),
    st.fixed_dictionaries({"kind": st.just("bm25"), "language": odd, "variant": odd}),
    st.fixed_dictionaries({"kind": st.just("dense"), "model": odd}, optional={"dtype": odd, "max_length": odd}),
    st.fixed_dictionaries(
        {"kind": st.just("fusion"), "stages": st.lists(st.just({"kind": "random", "seed": 1}), max_size=3)},
        optional={"weights": odd, "how": st.sampled_from(["rrf", "sum", "x"]), "rank_constant": odd},
    ),
    st.fixed_dictionaries({"kind": odd}),
)
filters = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"kind": st.just("consistency"), "filter": odd, "top_k": odd, "min_score": odd, "action": odd}
        ),
        st.fixed_dictionaries(
            {
                "kind": st.just("veto"),
                "filter": st.just("v"),
                "method": odd,
                "abstain_at": odd,
                "depth": odd,
                "teacher_settings": teachers,
            }
        ),
        st.fixed_dictionaries(
            {
                "kind": st.just("near-duplicates"),
                "filter": st.just("n"),
                "threshold": odd,
                "of": odd,
                "by": st.just("minhash"),
            }
        ),
        odd,
    ),
    max_size=2,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands, but for what the examples and the histograms hold."""
    found = [path] if path else []
    if path[-1:] and path[-1] in ("examples", "histograms"):
        return found
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return found + [place for name, value in inner for place in places(value, (*path, name))]


def changed(data: st.DataObject, content: Any, *, under: tuple[str, ...] = ()) -> Any:
    """The content with one to three things changed: dropped, replaced, nested, renamed or added."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        everywhere = [place for place in places(content) if place[: len(under)] == under and len(place) > len(under)]
        if not everywhere:
            return content
        place = data.draw(st.sampled_from(everywhere))
        parent = content
        for name in place[:-1]:
            parent = parent[name]
        how = data.draw(st.sampled_from(["drop", "replace", "replace", "nest", "add", "teacher", "filters"]))
        if how == "drop":
            del parent[place[-1]]
        elif how == "nest":
            for _ in range(data.draw(st.sampled_from([1, 3, 200]))):
                parent[place[-1]] = data.draw(st.sampled_from([list, dict]))([("a", parent[place[-1]])])
        elif how == "add" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = data.draw(odd)
        elif how in ("teacher", "filters"):
            settings = content.get("summary")
            settings = settings.get("settings") if isinstance(settings, dict) else None
            if isinstance(settings, dict):
                name = "teacher_settings" if how == "teacher" else "filters"
                settings[name] = data.draw(teachers if how == "teacher" else filters)
        else:
            parent[place[-1]] = data.draw(odd)
    return content


@fuzz
@given(data=st.data())
def test_provenance(honest: Honest, data: st.DataObject) -> None:
    text = json.dumps(changed(data, json.loads(honest.provenance)))
    ours = read_provenance(honest.provenance, PATH, where="here")

    def use() -> None:
        found = read_provenance(text.encode(), PATH, where="here")
        str(found.summary)
        other = dataclasses.replace(found, config_name="other")
        dataset_card(NAME, [ours, other], configs=configs_of([ours, other]), existing=honest.card, license="mit")
        assert Provenance.from_json(found.to_json(), where="here") == found

    outcome("provenance", use)


@fuzz
@given(
    content=st.one_of(
        st.binary(max_size=60), st.text(alphabet='{}[]",:0123456789.eE-+truefalsn\\u', max_size=60).map(str.encode)
    )
)
def test_provenance_of_any_bytes(honest: Honest, content: bytes) -> None:
    outcome("bytes", lambda: read_provenance(content, PATH, where="here"))


@few
@given(data=st.data())
def test_settings_are_mined_with(honest: Honest, data: st.DataObject) -> None:
    content = changed(data, json.loads(honest.provenance), under=("summary", "settings"))
    given = honest.data

    def use() -> None:
        provenance = read_provenance(json.dumps(content).encode(), PATH, where="here")
        str(mine_again(dataclasses.replace(given, provenance=provenance), NAME, cache_dir=honest.cache, progress=False))

    outcome("settings", use)


# ---- pools


def use_pool(honest: Honest, folder: Path) -> None:
    check_shared_pool(folder, honest.texts, honest.data)
    pool = CandidatePool.load(folder)
    for method in ("naive", "perc_pos:0.9", "shifted:1"):
        try:
            selection = pool.select(method, n=2)
        except NegmineError:
            continue
        assert np.isfinite(selection.scores).all()
        assert ((selection.passages >= 0) & (selection.passages < pool.n_passages)).all()


def copied_pool(honest: Honest, folder: Path) -> list[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in honest.pool:
        shutil.copyfile(path, folder / path.name)
    return sorted(folder.iterdir())


@fuzz
@given(data=st.data())
def test_pools_with_bytes_changed(honest: Honest, data: st.DataObject) -> None:
    folder = honest.cache / "flipped"
    file = data.draw(st.sampled_from(copied_pool(honest, folder)))
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    file.write_bytes(bytes(content))
    outcome("pool bytes", lambda: use_pool(honest, folder))


numbers = st.sampled_from([0, -1, 1, 2, 5, 19, 20, 2**31 - 1, -(2**31)])
scores = st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e30, -1.0, 0.5])


@fuzz
@given(data=st.data())
def test_pools_with_values_changed(honest: Honest, data: st.DataObject) -> None:
    folder = honest.cache / "changed"
    file = data.draw(st.sampled_from(copied_pool(honest, folder)))
    if file.suffix == ".json":
        file.write_text(json.dumps(changed(data, json.loads(file.read_text()))))
    elif file.suffix == ".npy":
        array = np.load(file)
        kinds = [np.float64, np.int64, np.uint32, np.bool_, "S3", np.complex128]
        other = data.draw(st.sampled_from([array[:-1], array[::-1], array.reshape(-1, 1), array + np.uint64(1)]))
        np.save(file, data.draw(st.sampled_from([other, array.astype(data.draw(st.sampled_from(kinds)))])))
        if data.draw(st.booleans()):
            header = data.draw(
                st.sampled_from(
                    [
                        "{'descr': '<u8', 'fortran_order': False, 'shape': (1000000000000000,), }",
                        "{'descr': '<u8', 'fortran_order': False, 'shape': (-3,), }",
                        "{'descr': '|O', 'fortran_order': False, 'shape': (12,), }",
                        "{'descr': [('a', '<u8')], 'fortran_order': False, 'shape': (12,), }",
                        "{'descr': '<u8', 'fortran_order': False, 'shape': (12, 0), }",
                        "{'descr': '<u8', 'fortran_order': 5, 'shape': 12, }",
                        "[1, 2",
                        "__import__('os').system('exit')",
                    ]
                )
            )
            text = header.encode().ljust(117) + b"\n"
            file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes())
    else:
        table = pa.ipc.open_file(file).read_all()
        names = table.schema.names
        name = data.draw(st.sampled_from(names))
        values = table[name].to_pylist()
        how = data.draw(st.sampled_from(["value", "value", "value", "null", "type", "drop", "rows", "rename"]))
        if how in ("value", "null") and values:
            kind = scores if pa.types.is_floating(table.schema.field(name).type) else numbers
            place = data.draw(st.integers(0, len(values) - 1))
            values[place] = None if how == "null" else data.draw(kind)
            field = table.schema.field(name)
            if field.type == pa.bool_():
                values[place] = None if how == "null" else not values[place]
            try:
                column = pa.array(values, field.type)
            except (pa.ArrowException, OverflowError):
                return
            arrays = [column if other == name else table[other].combine_chunks() for other in names]
            table = pa.Table.from_arrays(arrays, schema=table.schema)
        elif how == "type":
            table = table.set_column(names.index(name), name, pa.array([str(value) for value in values]))
        elif how == "drop":
            table = table.drop_columns([name])
        elif how == "rows":
            table = table.slice(data.draw(st.integers(0, 3)), data.draw(st.integers(0, len(values))))
        elif how == "rename":
            table = table.rename_columns([f"{other}_" for other in names])
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    outcome("pool values", lambda: use_pool(honest, folder))


# ---- cards

yaml_words = st.sampled_from(
    ["a", "tags", "configs", "language", "license", "- ", ": ", "&a ", "*a", "<<: ", "{", "}", "[", "]", "\n", "  ",
     "!!", "!!python/object/apply:os.system ", "!!timestamp ", "!!binary ", "!!set ", "|", ">", '"', "'", "\\ud800",
     "2024-99-99", "0x", "1e400", "~", "%", "@", "? ", "-", "config_name", "default", "1:2:3", "\u2028", "\0", "# "]
)  # fmt: skip
yaml_values = st.recursive(
    odd.filter(lambda value: value == value),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@fuzz
@given(
    header=st.one_of(
        st.lists(yaml_words, max_size=25).map("".join),
        st.dictionaries(
            st.sampled_from(
                ["tags", "configs", "language", "license", "task_categories", "datasets", "pretty_name", "x"]
            ),
            yaml_values,
            max_size=4,
        ).map(json.dumps),
    ),
    body=st.text(max_size=30),
)
def test_cards(honest: Honest, header: str, body: str) -> None:
    ours = read_provenance(honest.provenance, PATH, where="here")
    there = f"---\n{header}\n---\n{body}"

    def use() -> None:
        card = decoded_card(there.encode("utf-8", "surrogatepass"))
        dataset_card(NAME, [ours], configs=configs_of([ours]), existing=card, license="mit").encode()
        model_card("---\ntags:\n- a\n---\n\n# Model\n", "## One", existing=card, data_ids=["a/b"]).encode()

    outcome("cards", use)


# ---- tables


def parquet_of(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


huggingface = st.one_of(
    odd.map(json.dumps),
    st.text(max_size=10),
    st.dictionaries(
        st.sampled_from(["info", "features"]),
        st.dictionaries(
            st.sampled_from(["features", "query", "positive"]),
            st.one_of(
                odd,
                st.dictionaries(
                    st.sampled_from(["query", "positive", "document", "_type", "dtype", "names_file", "feature"]),
                    st.sampled_from(
                        [
                            {"_type": "Value", "dtype": "int64"},
                            {"_type": "os"},
                            "Value",
                            "ClassLabel",
                            "/etc/passwd",
                            5,
                            {"_type": "List"},
                        ]
                    ),
                    max_size=3,
                ),
            ),
            max_size=2,
        ),
        max_size=2,
    ).map(json.dumps),
)
kinds = st.sampled_from(
    [pa.string(), pa.large_string(), pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.bool_(),
     pa.binary(), pa.null(), pa.list_(pa.string()), pa.timestamp("s"), pa.dictionary(pa.int8(), pa.string())]
)  # fmt: skip


@few
@given(data=st.data())
def test_tables(honest: Honest, data: st.DataObject) -> None:
    provenance = read_provenance(honest.provenance, PATH, where="here")
    name = data.draw(st.sampled_from(["data", *LOOKUPS]))
    table = honest.table(name, provenance).with_format("arrow")[:].replace_schema_metadata(None)
    how = data.draw(
        st.sampled_from(["type", "type", "drop", "rename", "rows", "null", "huggingface", "bytes", "bytes", "ids"])
    )
    column = data.draw(st.sampled_from(table.column_names))
    place = table.column_names.index(column)
    if how == "type":
        kind = data.draw(kinds)
        try:
            cast = table[column].cast(kind, safe=False)
        except pa.ArrowException:
            cast = pa.nulls(len(table), kind)
        table = table.set_column(place, column, cast)
    elif how == "drop":
        table = table.drop_columns([column])
    elif how == "rename":
        table = table.rename_columns([other + "_" if other == column else other for other in table.column_names])
    elif how == "rows":
        table = table.take(pa.array(data.draw(st.lists(st.integers(0, len(table) - 1), max_size=30)), pa.int64()))
    elif how == "null":
        values = table[column].to_pylist()
        values[data.draw(st.integers(0, len(values) - 1))] = None
        table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
    elif how == "ids" and pa.types.is_integer(table.schema.field(column).type):
        values = table[column].to_pylist()
        values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.integers(-(2**63), 2**63 - 1))
        table = table.set_column(place, column, pa.array(values, pa.int64()))
    elif how == "huggingface":
        table = table.replace_schema_metadata({"huggingface": data.draw(huggingface).encode("utf-8", "replace")})
    content = bytearray(parquet_of(table))
    if how == "bytes":
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = honest.cache / "table.parquet"
    file.write_bytes(bytes(content))

    def use() -> None:
        rows = read_parquet([file], "here")
        check_lookups({name: rows}, "here")
        given = dataclasses.replace(honest.data, **{"rows" if name == "data" else name: rows})
        str(mine_again(given, NAME, cache_dir=honest.cache, progress=False))

    outcome("tables", use)
