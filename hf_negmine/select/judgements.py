"""Judgements of people, or of another tool, about (query, passage) pairs: what they call relevant is no negative."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, require, require_flag
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.ragged import flat_positions
from hf_negmine.base.schema import BoolArray, DigestArray, IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.texts import TextColumn, find_digests, sort_digests
from hf_negmine.select.filters import BoundFilter, Scene
from hf_negmine.select.judge import not_relevant

KEYS = ("query", "document", "relevant")
DIGEST = re.compile("[0-9a-f]{32}")
EXPECTED = 'expected {"query": TEXT, "document": TEXT, "relevant": true or false}'


@dataclass(frozen=True, eq=False, repr=False)
class Judgements:
    """Keeps out passages that somebody has judged relevant; in a sweep they measure how many negatives are false.

    Attributes:
        source: judged (query, passage) pairs, of which those that are relevant do not become negatives: a file of JSON
            lines with ``query``, ``document`` (both texts) and ``relevant`` (true or false), as the page of
            `write_report` exports them. In Python also a list of such dictionaries. Other keys are ignored, and the
            last of two judgements about a pair counts.
        relabel: whether to make a passage that was judged relevant another positive of its query, written with the
            query's first row, with those of that row's negatives that are under its own ceiling.
        complete: whether every passage that is relevant to a judged query is among them, as in exhaustive relevance
            judgements: a sweep then takes all others for not relevant.

    Raises:
        InputError: the file cannot be read, or something in it is not a judgement.
    """

    source: Any
    relabel: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        require_flag(self.relabel, "Judgements: relabel")
        require_flag(self.complete, "Judgements: complete")
        object.__setattr__(self, "relabel", bool(self.relabel))
        require(len(self.relevant) > 0, f"Judgements: {_named(self.source)} holds no judgement; {EXPECTED}")

    @cached_property
    def _table(self) -> tuple[DigestArray, DigestArray, BoolArray]:
        rows = list(_read(self.source))
        try:
            digests = [digests_of(rows, side) for side in KEYS[:2]]
        except UnicodeEncodeError as error:
            raise InputError(f"Judgements: {_named(self.source)} holds text that is not Unicode ({error})") from error
        both = np.concatenate(digests, axis=1)
        # The last judgement of each pair, by pair.
        _, place = np.unique(both[::-1], axis=0, return_index=True)
        chosen = len(rows) - 1 - place
        relevant = np.array([one["relevant"] for one in rows], dtype=bool)
        return digests[0][chosen], digests[1][chosen], relevant[chosen]

    @property
    def queries(self) -> DigestArray:
        """The digests of the queries, shape (judgements, 2)."""
        return self._table[0]

    @property
    def passages(self) -> DigestArray:
        """The digests of the passages, shape (judgements, 2)."""
        return self._table[1]

    @property
    def relevant(self) -> BoolArray:
        """The verdicts, shape (judgements,)."""
        return self._table[2]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that go into provenance, with a digest of the judgements."""
        return {
            "filter": str(self),
            "digest": digest_of("judgements", self.queries, self.passages, self.relevant),
            "judged": len(self.relevant),
            "relevant": int(self.relevant.sum()),
            "relabel": self.relabel,
        }

    def bind(self, scene: Scene) -> BoundFilter:
        """See `Filter`. Those about other texts are counted and told, unless the rows came after the fit.

        Raises:
            InputError: no judgement is about these queries and passages.
        """
        queries, passages, relevant = self.located(text_digests(scene.queries.texts), scene.corpus, told=scene.whole)
        return not_relevant(str(self), queries[relevant], passages[relevant], len(scene.corpus))

    def located(
        self, query_digests: DigestArray, corpus: TextColumn, *, told: bool = True
    ) -> tuple[IdArray, IdArray, BoolArray]:
        """Query id, passage id and verdict of each judgement about these texts, by query.

        Args:
            query_digests: the digests of the queries, shape (queries, 2).
            corpus: the passages.
            told: whether to warn of judgements about other texts, and to refuse if all are.
        """
        order, judged = sort_digests(query_digests)
        at = find_digests(judged, self.queries)
        ids = corpus.find(self.passages)
        known = np.flatnonzero((at >= 0) & (ids >= 0))
        lacking = len(self.relevant) - len(known)
        if told and not len(known):
            raise InputError(
                f"{self}: none is about a query and a passage of these rows and this corpus; give the judgements that "
                "belong to them, with the texts as they are in the rows"
            )
        if told and lacking:
            warnings.warn(
                f"{self}: {lacking:,} of {len(self.relevant):,} are about texts that are neither in the rows nor in "
                "the corpus, and are not used",
                stacklevel=2,
            )
        # Rows that come later may repeat a query.
        last = np.searchsorted(judged[:, 0], judged[at[known], 0], side="right")
        entries, place = flat_positions(at[known], last - at[known])
        same = (judged[entries] == self.queries[known][place]).all(axis=1)
        queries, found = order[entries[same]], known[place[same]]
        by_query = np.lexsort((ids[found], queries))
        return queries[by_query], ids[found][by_query], self.relevant[found][by_query]

    def __str__(self) -> str:
        return counted(len(self.relevant), "judgement")

    def __repr__(self) -> str:
        return f"Judgements({self}, relabel={self.relabel}, complete={self.complete})"


def _read(source: Any) -> Iterator[Mapping[str, Any]]:
    rows = _lines(Path(source).expanduser()) if isinstance(source, str | os.PathLike) else source
    require(isinstance(rows, Iterable), f"Judgements: expected a file of JSON lines or a list, got {source!r:.80}")
    for place, one in enumerate(rows, start=1):
        where = f"Judgements: {_named(source)}, judgement {place}"
        check_judgement(one, where)
        yield one


def check_judgement(one: Any, where: str) -> None:
    """Raise `InputError` unless this is a judgement: texts, a verdict, and perhaps digests of the whole texts."""
    require(isinstance(one, Mapping) and all(key in one for key in KEYS), f"{where} is {one!r:.120}; {EXPECTED}")
    texts = all(isinstance(one[key], str) for key in KEYS[:2])
    require(texts and isinstance(one["relevant"], bool | np.bool_), f"{where} is {one!r:.120}; {EXPECTED}")
    for side in KEYS[:2]:
        written = one.get(f"{side}_digest")
        whole = written is None or (isinstance(written, str) and DIGEST.fullmatch(written) is not None)
        require(whole, f"{where}: {side}_digest is {written!r:.60}, expected 32 hexadecimal digits, or none")


def digests_of(rows: Sequence[Mapping[str, Any]], side: str) -> DigestArray:
    """The digests of the texts on one side; a page that cuts long texts writes those of the whole ones."""
    digests: DigestArray = text_digests(pa.array([one[side] for one in rows], pa.large_string())).copy()
    for place, one in enumerate(rows):
        if (written := one.get(f"{side}_digest")) is not None:
            digests[place] = np.frombuffer(bytes.fromhex(written), dtype="<u8")
    return digests


def _lines(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, path, number)
    except OSError as error:
        raise InputError(f"Judgements: {path} cannot be read ({error.strerror}); give a file of JSON lines") from error


def _parsed(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(
            f"Judgements: {path} does not hold JSON lines (line {number}: {getattr(error, 'msg', error)}); {EXPECTED} "
            "in each"
        ) from error


def _named(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else "the list"
