"""The function: takes Sentence Transformers' arguments, runs a miner, and returns their layout with their notices."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import datasets

from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.errors import require_choice
from hf_negmine.data.writing import in_memory
from hf_negmine.drop_in.arguments import Limits, check_numbers, settle_format
from hf_negmine.drop_in.models import Prompts, Teachers
from hf_negmine.drop_in.rows import (
    choose_columns,
    group_rows,
    in_their_types,
    most_negatives,
    no_tuples,
    notice_of_missing,
)
from hf_negmine.miner import NegativeMiner
from hf_negmine.select import Sampled, Top
from hf_negmine.select.methods import RankBand, TopKShifted

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)


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
        model: scores the passages, by the cosine of its vectors. Any other object with ``encode_query`` and
            ``encode_document`` (or ``encode``) and ``similarity`` scores them by its own similarity, and none of its
            results are kept for later calls.
        anchor_column_name: the first column if None.
        positive_column_name: the second column if None.
        corpus: passages besides the positives.
        cross_encoder: a `CrossEncoder`, or any object with ``predict``. It rescores the model's candidates; ranks,
            margins and scores are then its own.
        range_min: ranks before it are left out. Ranks count the passages that are not positives, before any other
            limit.
        range_max: ranks from it on are left out; if None, there is no end (with a cross-encoder, as many candidates as
            Sentence Transformers would score).
        max_score: negatives score under it.
        min_score: negatives score at least this.
        absolute_margin: negatives score under the positive score minus this margin.
        relative_margin: negatives score under the positive score minus this share of its magnitude.
        num_negatives: negatives per query; fewer if the corpus or the limits allow no more.
        sampling_strategy: the best ones (``"top"``), or a seeded uniform draw (``"random"``).
        query_prompt_name, query_prompt: put before every anchor; the prompt itself takes precedence over a name.
        corpus_prompt_name, corpus_prompt: the same for passages.
        include_positives: whether to rank the positives among the candidates; the format is then ``n-tuple``.
        output_format: ``triplet``, ``n-tuple``, ``labeled-pair`` or ``labeled-list``.
        output_scores: whether to write scores (instead of labels in the labeled formats).
        batch_size: texts of 128 tokens per forward pass, of 80 on a CPU; of shorter texts a pass takes more, of longer
            ones fewer.
        faiss_batch_size, use_faiss: accepted; the search is exact and bounded with or without them.
        use_multi_process: whether to encode in several processes, one per device.
        verbose: whether to show progress, and to print a summary and how many rows lack negatives.
        cache_folder: where vectors and pools are stored; the library's cache folder if None.
        as_triplets, margin: deprecated there; use ``output_format`` and ``absolute_margin`` instead.
        seed: the seed of the random draw.

    Returns:
        A data set in the order of the first appearance of each anchor, with the columns of ``output_format``.

    Raises:
        InputError: an argument is invalid; a `ValueError` that states what was given and what was expected.
    """
    if margin is not None:
        absolute_margin = margin
        logger.warning("`margin` is deprecated: use absolute_margin=%r", margin)
    limits = Limits(absolute_margin, relative_margin, max_score, min_score)
    if include_positives and (limits.given or range_min or range_max is not None or sampling_strategy != "top"):
        logger.warning("include_positives=True: a range, a limit on scores or a random draw may leave positives out")
    format, output_scores = settle_format(
        output_format, output_scores, as_triplets, include_positives=include_positives
    )
    require_choice(sampling_strategy, ("random", "top"), argument="sampling_strategy")
    anchor, positive = choose_columns(dataset, anchor_column_name, positive_column_name)
    check_numbers(num_negatives, range_min, range_max, faiss_batch_size)
    grouped = group_rows(dataset, anchor, positive, as_lists=format == "labeled-pair")
    corpus = list(corpus) if isinstance(corpus, Iterator) else corpus  # it is read twice
    n = most_negatives(num_negatives, grouped.positives, corpus, include_positives=include_positives)
    limited = set(limits.given) - ({"min_score"} if cross_encoder is None else set())
    ranks = TopKShifted(range_min) if range_max is None else RankBand(range_min, range_max)
    # Where theirs stops: it looks at more candidates if limits on their scores leave some out.
    last = range_max if range_max is not None else range_min + n * (10 if limited else 1) + grouped.most_positives
    teachers = Teachers.of(
        model,
        cross_encoder,
        {"query": Prompts(query_prompt, query_prompt_name), "passage": Prompts(corpus_prompt, corpus_prompt_name)},
        candidates=last,
        batch_size=batch_size,
        progress=verbose,
    )
    with teachers.processes(use_multi_process), _cache_folder(cache_folder, teachers) as folder:
        miner = NegativeMiner(
            teachers.teacher,
            method=ranks & limits.method,
            sampler=Top() if sampling_strategy == "top" else Sampled(max(last - range_min, n), float("inf")),
            num_negatives=n,
            corpus=corpus,
            query_column=anchor,
            positive_column=positive,
            format=format,
            include_scores=output_scores,
            include_positives=include_positives,
            on_exhausted="drop" if format == "n-tuple" else "keep",
            pool_depth=max(POOL_DEPTH, last + grouped.most_positives),
            seed=seed,
            cache_dir=folder,
            progress=verbose,
        )
        mined = in_their_types(miner.mine(grouped.rows), anchor, positive, format)
        summary = miner.summary
        if not teachers.keeps:
            mined = in_memory(mined.with_format("arrow")[:])
    if format == "n-tuple" and n < num_negatives:
        mined = no_tuples(mined, num_negatives)
    if verbose:
        print(replace(summary, rows_written=len(mined)))  # noqa: T201 - `verbose` asks for it
        ranged = ["range_max"] if range_max is not None or cross_encoder is not None else []
        limiting = [*ranged, *(["range_min"] if range_min else []), *limits.given]
        if n < num_negatives or not limiting:  # the whole corpus was considered, and held no more
            limiting += ["num_negatives", "corpus"]
        if notice := notice_of_missing(len(mined), grouped.most_rows(format, num_negatives), limiting):
            print(notice)  # noqa: T201
    return mined


@contextmanager
def _cache_folder(given: str | None, teachers: Teachers) -> Iterator[str | Path | None]:
    """The folder for a miner; one that is deleted with the block if nothing may be kept."""
    if teachers.keeps:
        yield given
        return
    if given is not None:
        name = teachers.teacher.name
        logger.warning("cache_folder: nothing is kept in %s, since %s has no weights to recognize it by", given, name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder
