"""The files of a mined data set in its repository: rows, lookup tables, pictures, pool, page and provenance."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from datasets.features.features import require_storage_embed
from datasets.table import embed_table_storage

from hf_negmine.base.checksums import read_sealed, sums_in, write_sealed
from hf_negmine.base.errors import InputError
from hf_negmine.base.naming import public_content
from hf_negmine.data.writing import write_dataset
from hf_negmine.figures.plots import save_png
from hf_negmine.hub.material import Material
from hf_negmine.hub.provenance import (
    FOLDER,
    LIST_TABLES,
    POSITIVES,
    Provenance,
    library_versions,
    list_config,
    public_summary,
    rows_digest,
)
from hf_negmine.hub.settings import is_ensemble
from hf_negmine.page import Shown, write_report
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.list_writing import SCHEMA, list_tables
from hf_negmine.pool.stored import is_shared
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARD_BYTES = 500 * 2**20
EXAMPLES = 3
HOLDS = {
    "queries": "`query_id` and the text of every query",
    "corpus": "`document_id` and the text of every passage that was searched",
    "pairs": "`query_id`, `document_id` and the teacher's score of every positive",
    POSITIVES: "negatives that a judge calls relevant: the texts of query and passage, and the teacher's score",
}
HOLDS_LISTS = {
    "queries": "the queries of the scored lists",
    "documents": "the passages of the scored lists",
    "scores": "the candidate pool as scored lists: `query_id`, `document_ids`, `scores`, `positive_ids`",
}
FIRST_SCORES = "the first teacher's score of every positive"


def write_files(
    folder: Path,
    material: Material,
    front: Figure | None = None,
    sweep: Sweep | None = None,
    *,
    config_name: str,
    split: str,
    with_pool: bool,
    report: bool,
    sources: Sequence[str],
) -> Provenance:
    """Write all files of the repository except the card."""
    (folder / FOLDER / config_name).mkdir(parents=True)
    material = replace(material, rows=_with_files(material.rows))
    about = f"{FOLDER}/{config_name}/{split}"
    files = {"data": _write_shards(folder, material.rows, f"data/{config_name}/{split}")}
    for name, table in material.lookups.items():
        files[name] = _write_shards(folder, table, f"lookups/{config_name}/{split}/{name}")
    scores = None if material.summary.histograms is None else _figure(material.summary)
    for name, picture, file_name in (("figure", scores, "scores"), ("sweep", front, "sweep")):
        if picture is not None:
            files[name] = [f"{about}-{file_name}.png"]
            save_png(picture, folder / files[name][0])
    if with_pool:
        assert material.pool is not None
        files["pool"] = _copy_pool(folder, material.pool, f"{about}-pool")
        files["scores"] = _write_lists(folder, material.pool, f"lookups/{config_name}/{split}/scores")
    summary = public_summary(material.summary)
    if report:
        assert material.fitted is not None
        shown = Shown.of_fit(material.fitted, material.fitted.folder.parents[1])
        files["report"] = [f"{about}-report.html"]
        write_report(replace(shown, summary=summary), folder / files["report"][0], sweep=sweep)
    provenance = Provenance(
        config_name=config_name,
        split=split,
        summary=summary,
        columns=material.columns,
        rows=len(material.rows),
        rows_digest=rows_digest(material.rows),
        versions=library_versions(),
        files=files,
        source_datasets=list(sources),
        examples=material.rows.select(range(min(EXAMPLES, len(material.rows)))).to_list(),
    )
    (folder / provenance.path).write_text(provenance.to_json(), encoding="utf-8")
    return provenance


def configs_of(parts: Sequence[Provenance]) -> list[dict[str, Any]]:
    """The configs of the card's YAML, each with a description of its content."""
    configs: dict[str, dict[str, Any]] = {}

    def add(name: str, split: str, paths: list[str], holds: str) -> None:
        config = configs.setdefault(name, {"config_name": name, "data_files": [], "holds": holds})
        config["data_files"].append({"split": split, "path": paths if len(paths) > 1 else paths[0]})

    for part in parts:
        add(part.config_name, part.split, part.files["data"], f"mined rows, format `{part.summary.settings['format']}`")
    for part in parts:
        holds = {**HOLDS, "pairs": _holds_pairs(part)} if is_ensemble(part.summary.settings) else HOLDS
        for name in HOLDS:
            if name in part.files:
                add(f"{part.config_name}-{name}", part.split, part.files[name], holds[name])
        for table, name in LIST_TABLES.items():
            config = list_config(part.config_name, table)
            if "scores" in part.files and name in part.files and config != f"{part.config_name}-{name}":
                add(config, part.split, part.files[name], HOLDS_LISTS[table])
    return list(configs.values())


def _holds_pairs(part: Provenance) -> str:
    """The description of an ensemble's pairs."""
    drawn = part.summary.settings["teacher_settings"]["kind"] == "cross-sample"
    whose = "the score of every positive by the teacher that its query drew"
    return f"`query_id`, `document_id` and {whose if drawn else FIRST_SCORES}"


def _with_files(rows: datasets.Dataset) -> datasets.Dataset:
    """Rows with the content of images and the like in the place of paths on this machine."""
    if not require_storage_embed(rows.features):
        return rows
    try:
        return rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100).with_format(None)
    except OSError as error:
        raise InputError(f"push_dataset: a file that a row names cannot be read ({error.strerror or error})") from error


def _write_shards(folder: Path, table: datasets.Dataset, stem: str) -> list[str]:
    size = table.data.nbytes if table.data is not None else 0
    shards = max(1, math.ceil(size / SHARD_BYTES))
    paths = []
    for number in range(shards):
        path = f"{stem}-{number:05d}-of-{shards:05d}.parquet"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        table.shard(shards, number, contiguous=True).to_parquet(folder / path)
        paths.append(path)
    return paths


def _write_lists(folder: Path, pool: Path, stem: str) -> list[str]:
    """Write a pool's lists, which join with the tables of queries and corpus."""
    opened, scratch = CandidatePool.load(pool), folder / "lists.arrow"
    features = datasets.Features.from_arrow_schema(SCHEMA)
    lists = write_dataset(scratch, list_tables(opened.lists, opened.positives), features)
    paths = _write_shards(folder, lists, stem)
    scratch.unlink()
    return paths


def _copy_pool(folder: Path, pool: Path, target: str) -> list[str]:
    (folder / target).mkdir()
    shared = [file for file in sorted(pool.iterdir()) if file.is_file() and is_shared(file.name)]
    for file in shared:
        if file.suffix == ".json":
            content = read_sealed(file)  # nothing damaged is pushed
            write_sealed(folder / target / file.name, public_content(content), kept=sums_in(file))
        else:
            shutil.copyfile(file, folder / target / file.name)
    return [f"{target}/{file.name}" for file in shared]


def _figure(summary: MiningSummary) -> Any:
    try:
        return summary.plot()
    except InputError:  # without matplotlib there is no picture
        return None
