"""Pushing a mined data set, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from hf_negmine.base.errors import InputError, require
from hf_negmine.hub.cards import dataset_card
from hf_negmine.hub.data_files import configs_of, write_files
from hf_negmine.hub.material import Material
from hf_negmine.hub.provenance import Provenance, check_dataset_ids, check_name, check_repo_id
from hf_negmine.hub.repository import Repository
from hf_negmine.hub.staging import PushResult, paths_in, push_folder
from hf_negmine.miner import NegativeMiner
from hf_negmine.report.sweep import Sweep


def push_dataset(
    mined: datasets.Dataset | Material,
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
        mined: rows from `NegativeMiner.mine`, or from ``rows.map(miner)`` together with ``miner=``; or the `Material`
            that a folder of mined rows was read into.
        repo_id: the data set on the Hub, ``user/name``.
        config_name: which part of the data set, such as the name of a method: a repository holds several, and each push
            replaces one.
        split: which split of that part.
        miner: the miner that mined them, for rows from ``map``; rows that `mine` returned know theirs.
        sweep: a sweep with judgements, whose front the card shows as a picture, and the report as a table; None shows
            none.
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
    material = mined if isinstance(mined, Material) else Material.find(_checked(mined), miner)
    check_repo_id(repo_id)
    check_name(config_name, "config_name")
    check_name(split, "split")
    check_dataset_ids(source_datasets, "source_datasets")
    require(not isinstance(languages, str), f"languages: expected a list of codes such as ['en'], got {languages!r}")
    require(not with_pool or material.pool is not None, f"with_pool: {material.why_no_pool}")
    require(
        not report or material.fitted is not None,
        "report: what these rows were mined from is no longer in the cache; mine again",
    )
    material.require_fitted_queries()
    front = None if sweep is None else sweep.plot()
    there = Repository(repo_id, "dataset", revision=revision, token=token, dry_run=dry_run)
    _check_columns(material.rows.column_names, there.parts, config_name, split)
    license = license or there.license or there.license_of(source_datasets)
    if license is None:
        raise InputError(
            "license: under which license may the data be used? Give it as the Hub names it, such as 'cc-by-4.0', or "
            "'unknown'"
        )
    with push_folder() as folder:
        part = write_files(
            folder, material, front, sweep, config_name=config_name, split=split, with_pool=with_pool, report=report,
            sources=source_datasets,
        )  # fmt: skip
        parts = [part, *(other for other in there.parts if other.path != part.path)]
        card = dataset_card(
            repo_id, parts, configs=configs_of(parts), existing=there.card, license=license, languages=languages
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        before = [
            path for other in there.parts if other.path == part.path for paths in other.files.values() for path in paths
        ]
        stale = sorted(set(before) & set(there.files) - set(paths_in(folder)))
        message = f"Mined with {material.summary.settings['method']}: {config_name}, {split}"
        return there.send(folder, stale, message, private=private)


def _checked(mined: Any) -> datasets.Dataset:
    """The rows; raises `InputError` unless they are those of one split."""
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
    return mined


def _check_columns(ours: Sequence[str], parts: Sequence[Provenance], config_name: str, split: str) -> None:
    """Raise `InputError` if another split of the config has other columns."""
    for other in parts:
        if other.config_name != config_name or other.split == split or not other.examples:
            continue
        theirs = sorted(other.examples[0])
        require(
            theirs == sorted(ours),
            f"config_name: split {other.split!r} of {config_name!r} has the columns {theirs}, these rows have "
            f"{sorted(ours)}; datasets loads the splits of a config only if they have the same, so give another "
            "config_name",
        )
