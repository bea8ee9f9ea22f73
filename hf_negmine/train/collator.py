"""`HardNegativeCollator`: takes rows and gives ``query, positive, negative_1 … negative_n``, redrawn every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import datasets
import torch
from sentence_transformers.base.data_collator import BaseDataCollator
from transformers import TrainerCallback

from hf_negmine.base.errors import InputError, require, require_choice, require_whole
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.randomness import seed_of_epoch
from hf_negmine.data.sources import pair_batches
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.select import resolve_sampler
from hf_negmine.select.methods import Method
from hf_negmine.train.card import let_card_read_mined_rows
from hf_negmine.train.layout import Labels, Layout, labeled_pair, laid_out
from hf_negmine.train.model_collators import model_collator
from hf_negmine.train.reading import LABEL_COLUMNS, NOT_TEXT, Feature, LookupTables, RowReader, feature_batches
from hf_negmine.train.row_sources import RowSources
from hf_negmine.train.rows import TrainingRow
from hf_negmine.train.source import NegativeSource

Negatives: TypeAlias = NegativeMiner | CandidatePool | str | Path

NOT_TOLD = -1


class HardNegativeCollator(TrainerCallback):
    """Makes training batches with hard negatives, for Sentence Transformers' trainers.

    Give it to the trainer twice, ``data_collator=collator, callbacks=[collator]``: as a callback it learns the epoch,
    the prompts and the router mapping. In your own training loop, call `set_epoch`.

    Rows may be of any mined format (negatives as columns, as lists of any length, labeled lists, ids with lookup
    tables), or plain (query, positive) rows, whose negatives come from ``negatives``. The loss always gets ``query,
    positive, negative_1 … negative_n`` with exactly n negatives, and no other column.

    The negatives of a row are redrawn every epoch from its survivors, keyed by seed, epoch, query and passage: every
    worker, rank and resumed run draws the same ones.

    Args:
        model: the model in training; it tokenizes texts, and its kind decides what a batch looks like.
        negatives: a `NegativeMiner` (one that is not fitted mines each batch on the fly), a stored pool or its folder,
            or a mapping to one of these for each data set of a DatasetDict. None for rows with their own negatives.
        num_negatives: n; None takes the miner's, the number of ``negative_`` columns, or the length of the rows' lists,
            which must then all have the same length.
        method: which candidates of a stored pool may be negatives; a miner has its own.
        sampler: how n are drawn; None takes the miner's, or the first n of a row's own.
        seed: the seed of the draws; None takes the miner's, or 0.
        fill: how a row with fewer than n is filled up: ``"repeat"`` repeats its own from the best down; ``"random"``
            adds random passages of the corpus (no positive, not the query's text, under the ceiling if the teacher
            compares vectors), and then repeats its own.
        query_column, positive_column: may be left out for rows with only these two besides negatives and labels.
        queries, corpus: lookup tables of format ``ids``.
        labels: ``"scores"`` adds the teacher's scores of the positive and the n negatives as the label, for
            MarginMSELoss; ``"keys"`` adds what `PositiveAwareMNRL` needs, which sets it by itself.
        layout: ``"n-tuple"``, or ``"labeled-list"`` for the listwise losses of CrossEncoderTrainer: a query, a list of
            passages, and their labels 1 and 0 (or scores).
        prompts, router_mapping: by column; None takes the trainer's. A negative has the entry of its positive.

    Raises:
        InputError: the arguments do not fit together.
    """

    def __init__(
        self,
        model: Any,
        negatives: Negatives | Mapping[str, Negatives | None] | None = None,
        *,
        num_negatives: int | None = None,
        method: Method | str | None = None,
        sampler: Sampler | str | None = None,
        seed: int | None = None,
        fill: Literal["repeat", "random"] = "repeat",
        query_column: str | None = None,
        positive_column: str | None = None,
        queries: datasets.Dataset | None = None,
        corpus: datasets.Dataset | None = None,
        labels: Labels = "none",
        layout: Layout = "n-tuple",
        prompts: str | dict[str, Any] | None = None,
        router_mapping: dict[str, Any] | None = None,
    ) -> None:
        if num_negatives is not None:
            require_whole(num_negatives, "num_negatives", at_least=1)
        if seed is not None:
            require_whole(seed, "seed")
        require_choice(fill, ("repeat", "random"), argument="fill")
        require_choice(labels, ("none", "scores", "keys"), argument="labels")
        require_choice(layout, ("n-tuple", "labeled-list"), argument="layout")
        require((queries is None) == (corpus is None), "queries and corpus: the lookup tables come together")
        self.model, self.num_negatives, self.fill = model, num_negatives, fill
        self.labels: Labels = labels
        self.layout: Layout = layout
        self.sampler = None if sampler is None else resolve_sampler(sampler)
        self.query_column, self.positive_column = query_column, positive_column
        self.prompts, self.router_mapping = prompts, router_mapping
        self._given = {"prompts": prompts, "router_mapping": router_mapping}
        self._max_length: int | dict[str, int] | None = None
        self.valid_label_columns = list(LABEL_COLUMNS)
        self._lookups = None if queries is None or corpus is None else LookupTables(queries, corpus)
        self._method, self._seed = method, seed
        named = negatives if isinstance(negatives, Mapping) else {"": negatives}
        miners = [id(given) for given in named.values() if isinstance(given, NegativeMiner)]
        require(
            len(set(miners)) == len(miners),
            "negatives: two data sets have the same miner, which only knows the rows of its last fit; make one each",
        )
        self.sources = {name: self._source(given) for name, given in named.items() if given is not None}
        self._row_sources = RowSources(self.sources, is_named=isinstance(negatives, Mapping))
        require(
            fill == "repeat" or bool(self.sources),
            "fill='random' draws from a corpus: give negatives=, a miner or a pool",
        )
        self._readers: dict[tuple[str | None, ...], RowReader] = {}
        self._inner: dict[RowReader, BaseDataCollator] = {}
        # Shared with worker processes that outlive an epoch.
        self._epoch = torch.full((1,), NOT_TOLD, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._epochs_begun = 0
        let_card_read_mined_rows(model)

    def _source(self, given: Negatives) -> NegativeSource:
        if isinstance(given, NegativeMiner):
            require(self._method is None, f"method: the miner has its own; got {self._method!r} as well")
            seed = given.config.seed if self._seed is None else self._seed
            return NegativeSource.of_miner(given, self.num_negatives, self.sampler, seed)
        require(
            isinstance(given, CandidatePool | str | Path),
            f"negatives: expected a NegativeMiner, a pool or its folder, got {type(given).__name__}",
        )
        if self.num_negatives is None:
            raise InputError("num_negatives: how many negatives per row? A pool does not say")
        return NegativeSource.of_pool(given, self.num_negatives, self._method, self.sampler, self._seed or 0)

    # ---- the epoch ---------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batches; as a callback of the trainer the collator does so itself."""
        require_whole(epoch, "epoch", at_least=0)
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch that batches are made for.

        Raises:
            InputError: no epoch was set.
        """
        epoch = int(self._epoch[0])
        if epoch == NOT_TOLD:
            raise InputError(
                "the collator was not told the epoch: give it to the trainer as a callback, too "
                "(data_collator=collator, callbacks=[collator]), or call collator.set_epoch(epoch) in your own "
                "training loop"
            )
        return epoch

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take prompts, router mapping and lengths from the trainer's arguments."""
        self._take_from(args)
        self.set_epoch(0)

    def _take_from(self, args: Any) -> None:
        """Set prompts, router mapping and, for late interaction, lengths: the arguments', or the collator's own."""
        for name, ours in self._given.items():
            theirs = getattr(args, name, None) or None
            if ours is not None and theirs is not None and ours != theirs:
                raise InputError(f"{name}: the trainer has {theirs!r}, the collator {ours!r}; give them to one")
            setattr(self, name, ours if ours is not None else theirs)
        self._max_length = getattr(args, "max_length", None)
        self._inner = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start counting epochs where a resumed run stopped.

        Raises:
            InputError: a row has no negative, or lists have different lengths without ``num_negatives``.
        """
        self._take_from(args)  # again: a callback added later, or given to several trainers, saw other arguments
        self._epochs_begun = int(epochs_done(args, state, kwargs.get("train_dataloader")))
        self.set_epoch(self._epochs_begun)
        loaded = getattr(kwargs.get("train_dataloader"), "dataset", None)
        for rows in getattr(loaded, "datasets", [loaded]):
            if isinstance(rows, datasets.Dataset):  # a stream can only be checked in its batches
                self._check(rows, progress=not args.disable_tqdm)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch, before the data loader makes its first batch."""
        self.set_epoch(self._epochs_begun)
        self._epochs_begun += 1

    # ---- before the first step ---------------------------------------------------------------------------------

    def with_negatives(self, rows: datasets.Dataset) -> datasets.Dataset:
        """The rows of a data set that have a negative to train on."""
        lacking = dict(self._lacking(rows))
        return rows.select([place for place in range(len(rows)) if place not in lacking])

    def _check(self, rows: datasets.Dataset, *, progress: bool) -> None:
        """Check that all rows have a negative; one without would stop the run at its batch.

        Rows that take another's negatives may not have been part of a fit, which would refuse those labeled as not
        relevant.
        """
        first = next(feature_batches(rows), [])[:1]
        if first and self._row_sources.of(first[0].get("dataset_name")):
            reader = self._reader(first[0])
            if reader.tool is None and not reader.holds_negatives(first[0]):
                for _ in pair_batches(rows, reader.query_column, reader.positive_column):
                    pass  # reading the rows checks their labels
        lacking = self._lacking(rows, progress=progress)
        if lacking:
            raise InputError(
                f"{len(lacking):,} of {len(rows):,} rows have no negative to train on, the first has the query "
                f"{lacking[0][1][:80]!r}; leave them out with rows = collator.with_negatives(rows), or, if "
                "negatives= is a miner or a pool, take fill='random'"
            )

    def _lacking(self, rows: datasets.Dataset, *, progress: bool = False) -> list[tuple[int, str]]:
        """The place and query of each row without a negative."""
        lacking: list[tuple[int, str]] = []
        start = 0
        with bar("Checking", "rows", len(rows), shown=progress) as checked:
            for features in feature_batches(rows):
                lacking += [(start + place, query) for place, query in self._lacking_of_batch(features)]
                start += len(features)
                checked.update(len(features))
        return lacking

    def _lacking_of_batch(self, features: Sequence[Feature]) -> list[tuple[int, str]]:
        reader = self._reader(features[0])
        name = features[0].get("dataset_name")
        has_source = bool(self._row_sources.of(name))
        if reader.is_labeled_pair(features[0]) and not has_source:
            return []
        rows = [reader.read(feature) for feature in features]
        if reader.holds_negatives(features[0]):
            for row in rows:
                row.drop_known_positives()
            if self.num_negatives is None:
                reader.n_of(rows)
            lacks = [not row.negatives for row in rows]
        elif not has_source:
            raise self._no_negatives(reader, features[0])
        else:
            lacks = [False] * len(rows) if self.fill == "random" else self._row_sources.lacking(rows, name)
        return [(place, row.query) for place, row in enumerate(rows) if lacks[place]]

    # ---- the batch ---------------------------------------------------------------------------------------------

    def __call__(self, features: Sequence[Feature]) -> dict[str, Any]:
        """Make a batch for the loss.

        Raises:
            InputError: a row has no known format, no negative, or is unknown to a pool.
        """
        if not features:
            return {}
        reader = self._reader(features[0])
        name: str | None = features[0].get("dataset_name")
        if reader.is_labeled_pair(features[0]) and not self._row_sources.of(name):
            return self._collate([labeled_pair(feature, reader) for feature in features], reader)
        epoch = self.epoch
        rows = [reader.read(feature) for feature in features]
        for row in rows:
            row.choose_positive(seed_of_epoch(self._seed or 0, epoch))
        self._give_negatives(rows, reader, features[0], epoch)
        return self._collate([laid_out(row, name, self.layout, self.labels) for row in rows], reader)

    def _reader(self, feature: Feature) -> RowReader:
        name, columns = feature.get("dataset_name"), tuple(feature)
        key = (name, *columns)
        if key not in self._readers:
            query, positive = self.query_column, self.positive_column
            if query is None and positive is None:
                of_sources = [source.columns for source in self._row_sources.of(name)]
                known = next((names for names in of_sources if None not in names and set(names) <= set(columns)), None)
                query, positive = known or (None, None)
            self._readers[key] = RowReader(columns, query_column=query, positive_column=positive, lookups=self._lookups)
        return self._readers[key]

    def _give_negatives(self, rows: list[TrainingRow], reader: RowReader, first: Feature, epoch: int) -> None:
        """Give every row its n negatives, its own or a source's; ``first`` is the feature of the first row."""
        name = first.get("dataset_name")
        has_source = bool(self._row_sources.of(name))
        if reader.holds_negatives(first):
            if has_source and (name is not None or not self._row_sources.is_named):
                raise InputError(
                    "the rows hold negatives, and negatives= was given as well; remove the rows' own "
                    f"({reader.negative_columns or 'lists'}), or leave out negatives="
                )
            for row in rows:
                row.drop_known_positives()
            n = self.num_negatives or reader.n_of(rows)
            for row in rows:
                row.thin_out(n, self.sampler, seed_of_epoch(self._seed or 0, epoch))
                row.repeat_negatives(n)
            return
        if not has_source:
            raise self._no_negatives(reader, first)
        self._row_sources.give(rows, name, epoch, add_random=self.fill == "random")

    def _no_negatives(self, reader: RowReader, feature: Feature) -> InputError:
        pair = (reader.query_column, reader.positive_column)
        others = [name for name in feature if name not in (*pair, *NOT_TEXT)]
        rename = f"; if one of the columns {others} holds them, rename it 'negatives'" if others else ""
        return InputError(
            f"the rows have no negatives ({', '.join(pair)}), and the collator has no place to take them from; give "
            f"negatives=, a fitted miner or a pool{rename}"
        )

    def _collate(self, laid: list[dict[str, Any]], reader: RowReader) -> dict[str, Any]:
        if reader not in self._inner:
            self._inner[reader] = model_collator(
                self.model,
                reader,
                prompts=self.prompts,
                router_mapping=self.router_mapping,
                max_length=self._max_length,
                most_negatives=self._most_negatives(),
            )
        batch: dict[str, Any] = self._inner[reader](laid)
        return batch

    def prompt_of(self, column: Literal["query", "positive"], dataset: str = "") -> str | None:
        """The prompt that a column is trained with; ``dataset`` is the data set's name in a DatasetDict."""
        prompts: Any = self.prompts
        if isinstance(prompts, Mapping) and dataset in prompts:
            prompts = prompts[dataset]
        if not isinstance(prompts, Mapping):
            return prompts if isinstance(prompts, str) else None
        source = self.sources.get(dataset)
        number = 0 if column == "query" else 1
        names = (column, (self.query_column, self.positive_column)[number], source and source.columns[number])
        return next((prompts[name] for name in names if isinstance(prompts.get(name), str)), None)

    def _most_negatives(self) -> int:
        known = [source.n for source in self.sources.values()] + [reader.n or 0 for reader in self._readers.values()]
        return max([*known, self.num_negatives or 0])

    def __repr__(self) -> str:
        held = f"{len(self.sources)} source(s)" if self.sources else "rows that hold their negatives"
        return f"HardNegativeCollator({held}, n={self.num_negatives or 'as given'}, fill={self.fill!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the inner collators, for workers that are not forks."""
        return {**self.__dict__, "_inner": {}}


def epochs_done(args: Any, state: Any, train_dataloader: Any) -> float:
    """The epochs that lie behind a run, as its trainer counts them.

    ``state.epoch`` is what the run that saved it counted, perhaps with batches of another size or on other devices.
    """
    try:
        steps_an_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
    except TypeError:  # a stream has no length
        return float(state.epoch or 0.0)
    return float(state.global_step / max(steps_an_epoch, 1))
