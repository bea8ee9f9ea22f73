"""`mine_hard_negatives` with the arguments, columns, order and formats of Sentence Transformers' function of that name.

A translation of its arguments into a `NegativeMiner`, and of the result into its layout; nothing is mined here. Where
the two differ on purpose, ``docs/migrating.md`` says so.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.defaults import POOL_DEPTH
from hf_negmine.errors import ColumnError, InputError, require, require_choice
from hf_negmine.methods import Method, NaiveTopK, RankBand, ScoreFloor, TopKAbs, TopKMarginPos, TopKPercPos, TopKShifted
from hf_negmine.mined import Format
from hf_negmine.miner import NegativeMiner
from hf_negmine.protocols import Sampler, Teacher
from hf_negmine.select import Sampled, Top
from hf_negmine.sources import pair_batches
from hf_negmine.teachers import CrossEncoderTeacher, DenseTeacher
from hf_negmine.writing import in_memory

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)

ROWS_A_PIECE = 65_536
"""Few enough that their texts, as a piece of a string column, stay under its 2 GiB."""
FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


def mine_hard_negatives(
    dataset: datasets.Dataset,
    model: SentenceTransformer,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: list[str] | None = None,
    cross_encoder: CrossEncoder | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Literal["random", "top"] = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"] = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: list[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
    *,
    seed: int = 0,
) -> datasets.Dataset:
    """Add hard negatives to a data set of (anchor, positive) pairs, with Sentence Transformers' arguments.

    Args:
        dataset: rows of (anchor, positive); rows with the same anchor share their positives.
        model: scores the passages, by the cosine of its vectors.
        anchor_column_name: the first column if None.
        positive_column_name: the second column if None.
        corpus: passages besides the positives.
        cross_encoder: scores the model's candidates again; ranks, margins and scores are then its own.
        range_min: ranks before it are left out. Ranks count passages that are no positives, before any other limit.
        range_max: ranks from it on are left out; as far as it takes if None (with a cross-encoder, so many candidates
            as Sentence Transformers would score).
        max_score: negatives score under it.
        min_score: negatives score at least this.
        absolute_margin: negatives score under the positive score minus this margin.
        relative_margin: negatives score under the positive score minus this share of its magnitude.
        num_negatives: negatives a query.
        sampling_strategy: the best ones (``"top"``), or a seeded uniform draw (``"random"``).
        query_prompt_name, query_prompt: put before every anchor; the prompt itself wins over a name.
        corpus_prompt_name, corpus_prompt: the same for passages.
        include_positives: rank the positives among the candidates; the format is then ``n-tuple``.
        output_format: ``triplet``, ``n-tuple``, ``labeled-pair`` or ``labeled-list``.
        output_scores: write scores (in the labelled formats in place of labels).
        batch_size: texts a forward pass.
        faiss_batch_size, use_faiss: accepted; the search is exact and bounded with or without them.
        use_multi_process: encode in several processes, one a device.
        verbose: show progress and print a summary.
        cache_folder: where vectors and pools are kept; the library's cache folder if None.
        as_triplets, margin: deprecated there; ``output_format`` and ``absolute_margin`` take their place.
        seed: of the random draw.

    Returns:
        A data set in the order of the first appearance of each anchor, with the columns of ``output_format``.

    Raises:
        InputError: a `ValueError` with both facts in it.
    """
    if as_triplets is not None:
        output_format = "triplet" if as_triplets else "n-tuple"
        logger.warning("`as_triplets` is deprecated: use output_format=%r", output_format)
    if margin is not None:
        absolute_margin = margin
        logger.warning("`margin` is deprecated: use absolute_margin=%r", margin)
    if str(output_format) == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
        logger.warning("output_format='n-tuple-scores' is deprecated: use 'n-tuple' with output_scores=True")
    if include_positives and output_format != "n-tuple":
        output_format = "n-tuple"
        logger.warning("include_positives=True keeps the ranking: output_format is set to 'n-tuple'")
    require_choice(output_format, FORMATS, argument="output_format")
    require_choice(sampling_strategy, ("random", "top"), argument="sampling_strategy")
    require(len(dataset) > 0, "dataset: it is empty")
    require(faiss_batch_size > 0, f"faiss_batch_size: a positive number of queries, got {faiss_batch_size}")
    require(num_negatives >= 1, f"num_negatives: at least 1, got {num_negatives}")
    anchor, positive = _columns(dataset, anchor_column_name, positive_column_name)
    grouped = _grouped_rows(dataset, anchor, positive, as_lists=output_format == "labeled-pair")
    limited = any(value is not None for value in (max_score, absolute_margin, relative_margin)) or (
        cross_encoder is not None and min_score is not None
    )
    window = _Window.of(range_min, range_max, num_negatives, grouped.most_positives, limited=limited)
    dense = DenseTeacher(
        model,
        query_prompt=_prompt(model, query_prompt_name, query_prompt),
        passage_prompt=_prompt(model, corpus_prompt_name, corpus_prompt),
        similarity=_cosine(model),
        batch_size=batch_size,
    )
    teacher: Teacher = dense
    if cross_encoder is not None:
        teacher = CrossEncoderTeacher(
            cross_encoder, first_stage=dense, candidates=window.default_last, batch_size=batch_size
        )
    miner = NegativeMiner(
        teacher,
        method=_method(window, max_score, min_score, absolute_margin, relative_margin),
        sampler=_sampler(sampling_strategy, window, num_negatives),
        num_negatives=num_negatives,
        corpus=corpus,
        query_column=anchor,
        positive_column=positive,
        format=output_format,
        include_scores=output_scores,
        include_positives=include_positives,
        on_exhausted="drop" if output_format == "n-tuple" else "keep",
        pool_depth=max(POOL_DEPTH, window.default_last + grouped.most_positives),
        seed=seed,
        cache_dir=cache_folder,
        progress=verbose,
    )
    with _encoding_processes(dense, use_multi_process):
        mined = miner.mine(grouped.rows)
    if verbose:
        print(miner.summary)  # noqa: T201 - what `verbose` asks for
    return _in_their_types(mined, anchor, positive, output_format)


@dataclass(frozen=True)
class _Grouped:
    """Rows in the order of each anchor's first appearance, each (anchor, positive) pair once."""

    rows: datasets.Dataset
    most_positives: int


@dataclass(frozen=True)
class _Window:
    """The ranks that take part, and the last one that Sentence Transformers would look at."""

    first: int
    last: int | None
    default_last: int

    @classmethod
    def of(cls, first: int, last: int | None, n: int, most_positives: int, *, limited: bool) -> _Window:
        require(first >= 0, f"range_min: at least 0, got {first}")
        default_last = last if last is not None else first + n * (10 if limited else 1) + most_positives
        require(first < default_last, f"range_min must be smaller than range_max, got {first} and {default_last}")
        require(
            n <= default_last - first,
            f"num_negatives: {n} do not fit between range_min={first} and range_max={default_last}",
        )
        return cls(first, last, default_last)


def _columns(dataset: datasets.Dataset, anchor: str | None, positive: str | None) -> tuple[str, str]:
    """The named columns; without a name the first and the second one."""
    available = dataset.column_names
    for argument, name in (("anchor_column_name", anchor), ("positive_column_name", positive)):
        if name is not None and name not in available:
            raise ColumnError(name, available, argument=argument)
    require(len(available) >= 2, f"dataset: two columns are needed, it has {available}")
    anchor = anchor if anchor is not None else available[0]
    positive = positive if positive is not None else available[1]
    require(anchor != positive, f"anchor_column_name and positive_column_name are both {anchor!r}")
    return anchor, positive


def _grouped_rows(dataset: datasets.Dataset, anchor: str, positive: str, *, as_lists: bool) -> _Grouped:
    for _ in pair_batches(dataset, anchor, positive, code="dataset"):
        pass  # it reads the labels beside them, too
    table = dataset.with_format("arrow").select_columns([anchor, positive])[:]
    anchors, positives = (_text_column(table, name) for name in (anchor, positive))
    anchor_codes, positive_codes = (
        np.asarray(pc.fill_null(column.dictionary_encode().indices, -1)).astype(np.int64)
        for column in (anchors, positives)
    )
    _, first = np.unique(np.stack([anchor_codes, positive_codes]), axis=1, return_index=True)
    order = first[np.lexsort((first, anchor_codes[first]))]
    codes = anchor_codes[order]
    counts = np.bincount(codes - codes.min())
    starts = np.concatenate([[0], np.cumsum(counts)]) if as_lists else np.arange(len(order) + 1)
    pieces = []
    for begin in range(0, len(starts) - 1, ROWS_A_PIECE):
        bounds = starts[begin : begin + ROWS_A_PIECE + 1]
        chosen = order[bounds[0] : bounds[-1]]
        texts = positives.take(pa.array(chosen)).cast(pa.string())
        if as_lists:
            texts = pa.ListArray.from_arrays(pa.array(bounds - bounds[0], pa.int32()), texts)
        queries = anchors.take(pa.array(order[bounds[:-1]])).cast(pa.string())
        pieces.append(pa.table({anchor: queries, positive: texts}))
    return _Grouped(in_memory(pa.concat_tables(pieces)), int(counts.max()))


def _text_column(table: pa.Table, name: str) -> pa.Array:
    kind = table[name].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"column {name!r} holds {kind}, expected text (string)")
    chunks = table[name].cast(pa.large_string()).chunks
    return pa.concat_arrays(chunks) if chunks else pa.array([], type=pa.large_string())


def _prompt(model: SentenceTransformer, name: str | None, prompt: str | None) -> str | None:
    if prompt is not None or name is None:
        return prompt
    require_choice(name, model.prompts, argument="prompt name")
    return model.prompts[name]


def _cosine(model: SentenceTransformer) -> Literal["cosine"]:
    own = str(getattr(model.similarity_fn_name, "value", model.similarity_fn_name))
    require(own in ("cosine", "dot"), f"the model compares vectors by {own!r}, supported are 'cosine' and 'dot'")
    return "cosine"  # theirs normalises every vector, so that the dot product is the cosine, too


def _method(
    window: _Window,
    max_score: float | None,
    min_score: float | None,
    absolute_margin: float | None,
    relative_margin: float | None,
) -> Method:
    method = NaiveTopK() if window.last is None else RankBand(window.first, window.last)
    if window.last is None and window.first:
        method = TopKShifted(window.first)
    if absolute_margin is not None:
        method &= TopKMarginPos(absolute_margin)
    if relative_margin is not None:
        method &= TopKPercPos(1.0 - relative_margin)
    if max_score is not None:
        method &= TopKAbs(max_score)
    if min_score is not None:
        method &= ScoreFloor(min_score)
    return method


def _sampler(strategy: str, window: _Window, n: int) -> Sampler:
    if strategy == "top":
        return Top()
    return Sampled(k=max(window.default_last - window.first, n), temperature=float("inf"))


def _encoding_processes(
    teacher: DenseTeacher, use_multi_process: Sequence[str] | bool
) -> contextlib.AbstractContextManager[Any]:
    if not use_multi_process:
        return contextlib.nullcontext()
    return teacher.processes(None if isinstance(use_multi_process, bool) else list(use_multi_process))


def _in_their_types(mined: datasets.Dataset, anchor: str, positive: str, output_format: Format) -> datasets.Dataset:
    """Scores as float64, columns in their order, and no row of a labelled list without a negative."""
    if output_format == "labeled-list":
        lengths = pc.list_value_length(mined.with_format("arrow")[positive])
        mined = mined.select(np.flatnonzero(np.asarray(lengths) > 1))
    names = [anchor, positive, *(name for name in mined.column_names if name not in (anchor, positive))]
    features = mined.features.copy()
    for name in ("score", "scores"):
        if name in features:
            float64 = datasets.Value("float64")
            features[name] = float64 if name == "score" else datasets.List(float64)
    return mined.select_columns(names).cast(features) if features != mined.features else mined.select_columns(names)
