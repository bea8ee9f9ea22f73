"""JSON files that hold ids, and their texts elsewhere: those of LlamaIndex and of NeMo Automodel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources.columns import OpenedRows, with_same_names
from hf_negmine.data.writing import in_memory

LLAMA_INDEX = {"queries", "corpus", "relevant_docs"}
AUTOMODEL = {"corpus", "data"}


def open_joined(path: str) -> OpenedRows | None:
    """Open a JSON file of one object, if it has the keys of LlamaIndex's or Automodel's; None for any other file.

    ``EmbeddingQAFinetuneDataset`` has queries and passages by id, and the ids of each query's passages. Automodel's has
    rows with ids, and folders with the passages. The rows are (query, positive texts, their ids), the corpus is whole.

    Raises:
        InputError: an id has no text, or something is not where the tool would have it.
    """
    content = _only_object(path)
    if content is None:
        return None
    if content.keys() >= LLAMA_INDEX:
        return _of_llama_index(content, path)
    return _of_automodel(content, path) if content.keys() >= AUTOMODEL else None


def _only_object(path: str) -> dict[str, Any] | None:
    """The object that a file consists of; None if it holds anything else, such as lines of JSON."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline()
            if not first.lstrip().startswith("{"):
                return None
            if not first.rstrip().endswith("}"):
                first += file.read()
            elif file.read(1):  # lines of JSON, of which there may be very many
                return None
        content = json.loads(first)
    except (OSError, ValueError, RecursionError):  # the reader of data files says what is wrong
        return None
    return content if isinstance(content, dict) else None


def _of_llama_index(content: Mapping[str, Any], path: str) -> OpenedRows:
    queries, corpus, relevant = (content[name] for name in ("queries", "corpus", "relevant_docs"))
    for name, part in (("queries", queries), ("corpus", corpus), ("relevant_docs", relevant)):
        require(isinstance(part, dict), f"{path}: {name} is {type(part).__name__}, expected an object with ids as keys")
    rows = [
        {
            "query_id": query,
            "query": _text_of(queries, query, f"{path}: queries"),
            "positive": [_text_of(corpus, passage, f"{path}: corpus") for passage in passages],
            "positive_ids": list(passages),
        }
        for query, passages in relevant.items()
    ]
    return _opened(rows, list(corpus.values()), path)


def _of_automodel(content: Mapping[str, Any], path: str) -> OpenedRows:
    given = content["corpus"] if isinstance(content["corpus"], list) else [content["corpus"]]
    paths = [part.get("path") if isinstance(part, dict) else None for part in given]
    require(None not in paths, f"{path}: corpus is {str(given)[:80]}, expected objects with the path of a folder")
    folders = [Path(path).parent / str(part) for part in paths]
    corpora = {}
    for folder in folders:
        name, passages = _passages(folder)
        require(name not in corpora, f"{path}: two folders of passages are named {name!r}; give each a name of its own")
        corpora[name] = passages
    rows, data = [], content["data"]
    require(
        isinstance(data, list) and all(isinstance(row, dict) for row in data),
        f"{path}: data is {str(data)[:80]}, expected a list of objects",
    )
    for row in data:
        name = row.get("corpus_id")
        require(name in corpora, f"{path}: the corpus_id {name!r} is not among {list(corpora)}")
        ids = [str(_id_of(one)) for one in row.get("pos_doc") or []]
        texts = [_text_of(corpora[name], one, f"{name}") for one in ids]
        known = {key: value for key, value in row.items() if key not in ("question", "pos_doc", "neg_doc")}
        rows.append({**known, "query": row.get("question"), "positive": texts, "positive_ids": ids})
    return _opened(rows, [text for passages in corpora.values() for text in passages.values()], path)


def _passages(folder: Path) -> tuple[str, dict[str, str]]:
    """The name of a corpus folder, and its texts by id."""
    about = folder / "merlin_metadata.json"
    require(about.is_file(), f"{folder} lacks merlin_metadata.json, which names the corpus")
    try:
        name = json.loads(about.read_text(encoding="utf-8"))["corpus_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{about} does not name a corpus_id ({error}); write {{"corpus_id": NAME}}') from error
    try:
        table = datasets.load_dataset(str(folder), split="train")
    except Exception as error:  # from datasets or whatever reads the files
        raise InputError(f"{folder} could not be read: {' '.join(str(error).split())[:300]}") from error
    for column in ("id", "text"):
        require(column in table.column_names, f"{folder} has the columns {table.column_names}, expected id and text")
    passages: dict[str, str] = {}
    for key, text in zip(map(str, table["id"]), table["text"], strict=True):
        if passages.setdefault(key, text) != text:
            raise InputError(f"{folder}: the id {key!r} has two texts, {passages[key]!r:.60} and {text!r:.60}")
    return name, passages


def _id_of(passage: Any) -> Any:
    return passage.get("id") if isinstance(passage, dict) else passage


def _text_of(texts: Mapping[str, Any], key: str, where: str) -> str:
    text = texts.get(key)
    if not isinstance(text, str):
        raise InputError(f"{where} has {text!r:.80} under the id {key!r}, expected a text")
    return text


def _opened(rows: list[dict[str, Any]], corpus: list[str], path: str) -> OpenedRows:
    require(bool(rows), f"{path} holds no rows")
    texts = pa.chunked_array([pa.array(corpus, pa.large_string())])
    return OpenedRows(in_memory(pa.Table.from_pylist(with_same_names(rows)[0])), texts, columns=("query", "positive"))
