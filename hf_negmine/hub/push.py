"""Pushing mined data sets and trained models, each in one commit."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer

from hf_negmine.base.checksums import read_sealed, sums_in, write_sealed
from hf_negmine.base.errors import InputError, NegmineError, StorageError, require
from hf_negmine.base.files import default_cache_dir, storage_errors
from hf_negmine.base.naming import public_content, public_name
from hf_negmine.data.writing import write_dataset
from hf_negmine.figures.plots import save_png
from hf_negmine.hub.cards import dataset_card
from hf_negmine.hub.material import Material
from hf_negmine.hub.models import negatives_section, set_card_template, stale_weights, write_model
from hf_negmine.hub.network import hub_errors
from hf_negmine.hub.provenance import (
    FOLDER,
    LIST_TABLES,
    POSITIVES,
    Provenance,
    check_dataset_ids,
    check_name,
    check_repo_id,
    library_versions,
    list_config,
    public_summary,
    rows_digest,
)
from hf_negmine.hub.repository import Repository
from hf_negmine.hub.settings import is_ensemble
from hf_negmine.miner import NegativeMiner
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


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Attributes:
        repo_id: the repository that was pushed to.
        commit: the id of the commit; None for a dry run.
        url: the URL of the data set or model; None for a dry run.
        folder: the folder of the files; None except for a dry run.
        files: their paths in the repository.
    """

    repo_id: str
    commit: str | None
    url: str | None
    folder: Path | None
    files: list[str]

    def __str__(self) -> str:
        where = f"written to {self.folder}, nothing was sent" if self.commit is None else f"pushed to {self.url}"
        return f"{self.repo_id}: {len(self.files)} files {where}"


def push_dataset(
    mined: datasets.Dataset,
    repo_id: str,
    *,
    config_name: str = "default",
    split: str = "train",
    miner: NegativeMiner | None = None,
    sweep: Sweep | None = None,
    private: bool | None = None,
    revision: str | None = None,
    with_pool: bool = False,
    report: bool = False,
    license: str | None = None,
    languages: Sequence[str] = (),
    source_datasets: Sequence[str] = (),
    token: str | None = None,
    dry_run: bool = False,
) -> PushResult:
    """Push mined rows with the corpus they were mined from, their provenance and a card, in one commit.

    A second push to the same config and split replaces it; other configs, and text that a user added to the card, stay.

    Args:
        mined: rows from `NegativeMiner.mine`, or from ``rows.map(miner)`` together with ``miner=``.
        repo_id: the data set on the Hub, ``user/name``.
        config_name: which part of the data set, such as the name of a method: a repository holds several, and each push
            replaces one.
        split: which split of that part.
        miner: the miner that mined them; may be left out for rows that `mine` returned.
        sweep: a sweep with judgements, whose front the card shows as a picture; None shows none.
        private: whether the repository is private, if this push creates it; None takes the account's default.
        revision: branch to push to, created if it does not exist; None takes the main one.
        with_pool: whether to push the candidates and scores, too, so that others can select by another method without
            the teacher. They are there twice: as a pool, and as scored lists (`CandidatePool.from_lists`).
        report: whether to push a page to look at the negatives, too, as `write_report` writes it; the card links it.
        license: license of the data, as the Hub names it, such as ``cc-by-4.0``, ``mit`` or ``unknown``; None takes
            what the card has, or what all source data sets have.
        languages: languages of the texts, as codes such as ``en``.
        source_datasets: data sets on the Hub that the rows come from.
        token: Hub token; None takes the one of ``hf auth login``.
        dry_run: whether to write all files and the card to a folder, and send nothing. See `PushResult.folder`.

    Raises:
        InputError: the arguments do not fit together, there is no license, or how the rows were mined is not recorded.
        HubError: the Hub refused, or the connection broke. Nothing has changed there; a second call continues.
        StorageError: the disk is full.
    """
    _check_rows(mined)
    material = Material.find(mined, miner)
    return push_material(
        material, repo_id, config_name=config_name, split=split, sweep=sweep, private=private, revision=revision,
        with_pool=with_pool, report=report, license=license, languages=languages, source_datasets=source_datasets,
        token=token, dry_run=dry_run,
    )  # fmt: skip


def _check_rows(mined: Any) -> None:
    """Raise `InputError` unless these are the rows of one split."""
    if isinstance(mined, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(
            f"push_dataset: got a {type(mined).__name__} with the splits {list(mined)}, expected the rows of one; push "
            "each by itself: for split, rows in mined.items(): push_dataset(rows, repo_id, split=split, miner=miner)"
        )
    if isinstance(mined, datasets.IterableDataset):
        raise InputError(
            "push_dataset: got an IterableDataset, which holds no rows yet, expected a Dataset; collect it first: "
            "Dataset.from_list(list(rows), features=rows.features), and give the miner, miner="
        )
    if not isinstance(mined, datasets.Dataset):
        raise InputError(f"push_dataset: expected the Dataset that mine returned, got {type(mined).__name__}")
    require(len(mined) > 0, "push_dataset: there is no row to push")


def push_material(
    material: Material,
    repo_id: str,
    *,
    config_name: str = "default",
    split: str = "train",
    sweep: Sweep | None = None,
    private: bool | None = None,
    revision: str | None = None,
    with_pool: bool = False,
    report: bool = False,
    license: str | None = None,
    languages: Sequence[str] = (),
    source_datasets: Sequence[str] = (),
    token: str | None = None,
    dry_run: bool = False,
) -> PushResult:
    """Like `push_dataset`, but with material that has already been found."""
    check_repo_id(repo_id)
    check_name(config_name, "config_name")
    check_name(split, "split")
    check_dataset_ids(source_datasets, "source_datasets")
    require(not isinstance(languages, str), f"languages: expected a list of codes such as ['en'], got {languages!r}")
    for name, wanted in (("with_pool", with_pool), ("report", report)):
        require(not wanted or material.pool is not None, f"{name}: {material.why_no_pool}")
    front = None if sweep is None else sweep.plot()
    api = HfApi(token=token, library_name="hf_negmine")
    there = Repository(api, repo_id, revision, "dataset") if not dry_run else None
    if there is not None:
        there.look()
    for other in there.parts if there is not None else []:
        if other.config_name != config_name or other.split == split or not other.examples:
            continue
        theirs, ours = sorted(other.examples[0]), sorted(material.rows.column_names)
        require(
            theirs == ours,
            f"config_name: split {other.split!r} of {config_name!r} has the columns {theirs}, these rows have {ours}; "
            "datasets loads the splits of a config only if they have the same, so give another config_name",
        )
    license = license or (there.license if there is not None else None) or _inherited(api, source_datasets, dry_run)
    if license is None:
        raise InputError(
            "license: under which license may the data be used? Give it as the Hub names it, such as 'cc-by-4.0', or "
            "'unknown'"
        )
    with _scratch() as folder:
        part = write_files(
            folder, material, front, config_name=config_name, split=split, with_pool=with_pool, report=report,
            sources=source_datasets,
        )  # fmt: skip
        others = [other for other in (there.parts if there is not None else []) if other.path != part.path]
        card = dataset_card(
            repo_id,
            [part, *others],
            configs=_configs([part, *others]),
            existing=there.card if there is not None else None,
            license=license,
            languages=languages,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        paths = _paths(folder)
        if there is None:
            return PushResult(repo_id, None, None, _keep(folder, repo_id), paths)
        message = f"Mined with {material.summary.settings['method']}: {config_name}, {split}"
        commit = there.commit(folder, paths, there.stale(part, paths), message, private=private)
        return PushResult(repo_id, commit, f"https://huggingface.co/datasets/{repo_id}", None, paths)


def write_files(
    folder: Path,
    material: Material,
    front: Figure | None = None,
    *,
    config_name: str,
    split: str,
    with_pool: bool,
    report: bool,
    sources: Sequence[str],
) -> Provenance:
    """Write all files of the repository except the card."""
    files = {"data": _write_shards(folder, material.rows, f"data/{config_name}/{split}")}
    for name, table in material.lookups.items():
        files[name] = _write_shards(folder, table, f"lookups/{config_name}/{split}/{name}")
    scores = None if material.summary.histograms is None else _figure(material.summary)
    for name, picture, file_name in (("figure", scores, "scores"), ("sweep", front, "sweep")):
        if picture is not None:
            path = f"{FOLDER}/{config_name}/{split}-{file_name}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            save_png(picture, folder / path)
            files[name] = [path]
    if with_pool:
        assert material.pool is not None
        files["pool"] = _copy_pool(folder, material.pool, f"{FOLDER}/{config_name}/{split}-pool")
        files["scores"] = _write_lists(folder, material.pool, f"lookups/{config_name}/{split}/scores")
    summary = public_summary(material.summary)
    if report:
        assert material.pool is not None
        assert material.fitted is not None
        shown = Shown.of_fit(material.fitted, material.pool.parent.parent)
        path = f"{FOLDER}/{config_name}/{split}-report.html"
        write_report(replace(shown, summary=summary), folder / path)
        files["report"] = [path]
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
    (folder / provenance.path).parent.mkdir(parents=True, exist_ok=True)
    (folder / provenance.path).write_text(provenance.to_json(), encoding="utf-8")
    return provenance


def push_model(
    model: SentenceTransformer,
    repo_id: str,
    *,
    mined: datasets.Dataset | NegativeMiner | MiningSummary | None = None,
    data_id: str | None = None,
    data_ids: Sequence[str] = (),
    evaluation: Mapping[str, tuple[float, float]] | None = None,
    base: str | None = None,
    prompts: Mapping[str, str] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> PushResult:
    """Push a trained model with a card that says how its negatives were mined, in one commit.

    LoRA adapters are merged into a copy. The saved model is loaded again and compared before anything is sent.

    Args:
        model: a Sentence Transformers model.
        repo_id: ``user/name``.
        mined: the rows it was trained on, or the miner, or its summary.
        data_id: the mined data set, if it is on the Hub.
        data_ids: other data sets on the Hub that it was trained on.
        evaluation: metrics before and after training, such as ``{"nfcorpus NDCG@10": (0.30, 0.33)}``.
        base: the base model; None takes it from the model's card data.
        prompts: the prompts it was trained with, ``{"query": …, "document": …}``; they become the model's own.
        private: whether a new repository is private; None takes the account's default.
        revision: the branch, created if it does not exist. None is the main one.
        token: a Hub token; None takes that of the current login.
        dry_run: whether to write all files to a folder (``PushResult.folder``), and send nothing.

    Raises:
        InputError: the model needs code from the Hub, or how the rows were mined is not recorded.
        NegmineError: read back, the model gives different vectors.
        HubError: the Hub refused, or the connection broke. Nothing has changed there; a second call continues.
    """
    check_repo_id(repo_id)
    for name, prompt in (prompts or {}).items():
        model.prompts[name] = prompt
    there = None if dry_run else Repository(HfApi(token=token, library_name="hf_negmine"), repo_id, revision, "model")
    if there is not None:
        there.look_at_model()
    section = negatives_section(
        repo_id,
        _summary_of(mined),
        data_id=data_id,
        data_ids=data_ids,
        evaluation=evaluation,
        base=base or model.model_card_data.base_model,
        prompts=model.prompts,
    )
    with _scratch() as folder:
        model.model_card_data.set_model_id(repo_id)
        if model.model_card_data.base_model:
            model.model_card_data.base_model = public_name(model.model_card_data.base_model)
        trained_on = [*([data_id] if data_id else []), *data_ids]
        write_model(model, folder, section, existing=there.card if there is not None else "", data_ids=trained_on)
        paths = _paths(folder)
        if there is None:
            return PushResult(repo_id, None, None, _keep(folder, repo_id), paths)
        stale = stale_weights(there.files, paths)
        commit = there.commit(folder, paths, stale, "A model and its card", private=private)
        return PushResult(repo_id, commit, f"https://huggingface.co/{repo_id}", None, paths)


def prepare_card(
    model: SentenceTransformer,
    repo_id: str,
    *,
    mined: datasets.Dataset | NegativeMiner | MiningSummary | None = None,
    data_id: str | None = None,
    data_ids: Sequence[str] = (),
    base: str | None = None,
) -> None:
    """Make the trainer write our card: with ``push_to_hub=True`` in its arguments, every card it pushes is ours.

    Args:
        model: the model to be trained.
        repo_id: where it will be pushed.
        mined, data_id, data_ids, base: see `push_model`.
    """
    section = negatives_section(
        check_repo_id(repo_id),
        _summary_of(mined),
        data_id=data_id,
        data_ids=data_ids,
        base=base or model.model_card_data.base_model,
        prompts=model.prompts,
    )
    set_card_template(model, section, default_cache_dir())


def _summary_of(mined: datasets.Dataset | NegativeMiner | MiningSummary | None) -> MiningSummary | None:
    if mined is None or isinstance(mined, MiningSummary):
        return mined
    return mined.summary if isinstance(mined, NegativeMiner) else Material.find(mined, None).summary


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the files of a push; errors name no path, as they may end up in public logs."""
    try:
        with tempfile.TemporaryDirectory(prefix="hf_negmine-") as temporary:
            yield Path(temporary)
    except NegmineError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        reason = "the disk is full; make room, or set TMPDIR to a folder on another disk, and run again"
        if error.errno != errno.ENOSPC:
            reason = f"{os.strerror(error.errno)}; set TMPDIR to a folder that can be written to"
        raise StorageError(f"cannot write the files of the push: {reason}; nothing was sent") from error


def _paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _keep(folder: Path, repo_id: str) -> Path:
    """Copy the files of a dry run to their own folder."""
    target = default_cache_dir() / "dry-runs" / repo_id
    with storage_errors(target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return target


def _configs(parts: Sequence[Provenance]) -> list[dict[str, Any]]:
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
    (folder / target).mkdir(parents=True)
    paths = []
    for file in sorted(pool.iterdir()):
        if file.is_file() and is_shared(file.name):
            if file.suffix == ".json":
                content = read_sealed(file)  # nothing damaged is pushed
                write_sealed(folder / target / file.name, public_content(content), kept=sums_in(file))
            else:
                shutil.copyfile(file, folder / target / file.name)
            paths.append(f"{target}/{file.name}")
    return paths


def _figure(summary: MiningSummary) -> Any:
    try:
        return summary.plot()
    except InputError:  # without matplotlib there is no picture
        return None


def _inherited(api: HfApi, sources: Sequence[str], dry_run: bool) -> str | None:
    """The license of the sources, if they share one."""
    if dry_run:
        return None
    found = set()
    for source in sources:
        with hub_errors(source, "reading the license of"):
            info = api.dataset_info(source)
        found.add(getattr(info.card_data, "license", None) if info.card_data is not None else None)
    only = found.pop() if len(found) == 1 else None
    return only if isinstance(only, str) else None
