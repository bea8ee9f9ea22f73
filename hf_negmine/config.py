"""`MiningConfig`: every setting of a miner, in one place, checked and frozen."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

from hf_negmine.base.choices import FirstPass, Format, OnExhausted, PositiveScore, RowsFormat
from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.errors import InputError, require, require_choice, require_flag, require_whole
from hf_negmine.base.files import default_cache_dir
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Sampler, Teacher
from hf_negmine.data.layouts import Layout
from hf_negmine.select import resolve_sampler
from hf_negmine.select.ensembles import Ensemble, IntraSample, ensemble_of_settings, resolve_ensemble
from hf_negmine.select.filters import Consistency, Filter, Veto
from hf_negmine.select.judge import Judge
from hf_negmine.select.judgements import Judgements
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.rules import filters_of_settings, ordered_filters, settings_of_filters
from hf_negmine.teachers import ListTeacher, place, settings_of, with_stages

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from hf_negmine.data.sources import CorpusSource

    Given = TypeVar("Given", contravariant=True)
    Held = TypeVar("Held", covariant=True)

    class Read(Generic[Given, Held]):
        """A field that takes one type and, once `MiningConfig` has resolved it, holds another."""

        def __get__(self, config: object, owner: object = None) -> Held: ...
        def __set__(self, config: object, given: Given) -> None: ...


P = ParamSpec("P")

NOTHING: Any = None
NO_FILTERS: Any = ()
"""Defaults of `Read` fields; type checkers take a default for the type that the field holds."""

SHARED = (
    "num_negatives",
    "positive_score",
    "include_positives",
    "on_exhausted",
    "format",
    "include_scores",
    "pool_depth",
    "seed",
)
"""Settings that are recorded as they are."""
FLAGS = ("include_scores", "include_positives", "progress")
NAMES = ("query_column", "positive_column", "corpus_column", "corpus_config_name")


@dataclass(frozen=True, eq=False)
class MiningConfig:
    """All settings for mining; everything that `NegativeMiner` takes.

    Attributes:
        teacher: a Sentence Transformers model id, folder or model, ``"bm25"``, or any other spec of `resolve_teacher`,
            such as ``"cross-encoder:MODEL"``, ``"faiss:HNSW32:MODEL"`` or ``"rrf(bm25, MODEL)"``; any object that
            follows the `Teacher` protocol; an ensemble of them (`CrossSample`, `IntraSample`, or
            ``"cross-sample(bm25, MODEL)"``).
        method: which passages may be negatives (a `Method`, or its spec, see `parse_method`); None takes
            ``perc_pos:0.95``. That is the paper's best (NV-Retriever, table 3).
        sampler: how the negatives are drawn from them (a `Sampler`, or its spec, see `parse_sampler`); None takes
            ``top``.
        num_negatives: negatives per query.
        filters: conditions on negatives besides the ceiling, cheap ones first: `Veto`, `NearDuplicates`, `Where`; a
            `Consistency` rule for rows; a `Judge`, which has the last word.
        corpus: passages to search besides the positives: a file, a folder or a data set on the Hub; None takes the
            positives alone, or a BEIR folder's own. In Python also texts, or a Dataset.
        query_column: column of the query texts; None takes the first of just two columns, or the one that is not
            ``positive_column``.
        positive_column: column of the positives, one text or a list of texts per row; None takes the second of just two
            columns, or the one that is not ``query_column``.
        rows_format: format of rows that may have negatives already, which only an audit reads: ``n-tuple``, or with
            labels ``labeled-pair`` or ``labeled-list``, or that of another tool, ``flagembedding``, ``tevatron``,
            ``dpr``, ``swift``, ``swift-flat``, ``automodel``; None takes the one that the columns show, unless they
            hold labels.
        corpus_column: column of the passages in the corpus; None takes ``text``, ``passage``, ``document``, or the only
            one that holds text.
        corpus_config_name: config of a corpus on the Hub that has several; None takes the only one.
        format: layout of the rows: ``n-tuple`` with all negatives, ``triplet`` with one row per negative,
            ``labeled-pair`` with one row per passage and its label, ``labeled-list`` with lists of passages and labels,
            ``ids`` with passage ids and scores, beside lookup tables of the texts, or with the columns of another tool:
            ``flagembedding``, ``tevatron``, ``dpr``, ``swift``, ``swift-flat``, ``automodel``.
        include_scores: whether to write the teacher's scores, too.
        positive_score: if a query has several positives, the lowest score sets the ceiling (``min``), or each positive
            sets its own (``each``).
        include_positives: whether positives (and a passage with the query's own text) stay candidates; for full
            rankings that rerankers are evaluated on, not for training.
        on_exhausted: what happens to a row if the whole corpus has too few passages for its query: ``drop`` it,
            ``keep`` it with fewer negatives, or ``error``.
        pool_depth: candidates per query that are stored for later selections.
        seed: seed of the sampler; the same seed gives the same negatives, for any batch size or row order.
        cache_dir: where vectors, scores and results are stored, so that a second run is quick; None takes
            ``$HF_NEGMINE_CACHE`` or ``~/.cache/hf_negmine``.
        device: where to encode and search, such as ``cpu``, ``cuda`` or ``cuda:1``; None takes a GPU if there is one.
            Models given by name, including those of first stages, vetoes and ensembles, are loaded there; a model that
            is already loaded stays where it is, and ``device`` is then only for the search.
        first_pass: number format of the search's first pass; it affects the speed, never the result.
        progress: whether to show progress bars.

    Raises:
        InputError: a setting has the wrong type or is out of range, or two settings exclude each other.
    """

    teacher: Read[str | Path | Teacher | SentenceTransformer, Teacher] = NOTHING
    _: KW_ONLY
    method: Read[Method | str | None, Method] = NOTHING
    sampler: Read[Sampler | str | None, Sampler] = NOTHING
    num_negatives: int = 4
    filters: Read[Sequence[Filter | Consistency | Judge], tuple[Filter | Consistency | Judge, ...]] = NO_FILTERS
    corpus: CorpusSource | None = None
    query_column: str | None = None
    positive_column: str | None = None
    rows_format: RowsFormat | None = None
    corpus_column: str | None = None
    corpus_config_name: str | None = None
    format: Format = "n-tuple"
    include_scores: bool = False
    positive_score: PositiveScore = "min"
    include_positives: bool = False
    on_exhausted: OnExhausted = "drop"
    pool_depth: int = POOL_DEPTH
    seed: int = 0
    cache_dir: Read[str | Path | None, Path] = NOTHING
    device: str | None = None
    first_pass: FirstPass = "auto"
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("num_negatives", "pool_depth"):
            require_whole(getattr(self, name), name, at_least=1)
        require_whole(self.seed, "seed")
        for name in FLAGS:
            require_flag(getattr(self, name), name)
        for name in NAMES:
            _require_name(getattr(self, name), name)
        require_choice(self.positive_score, get_args(PositiveScore), argument="positive_score")
        if self.rows_format is not None:
            require_choice(self.rows_format, get_args(RowsFormat), argument="rows_format")
        require_choice(self.first_pass, get_args(FirstPass), argument="first_pass")
        cache_dir = default_cache_dir() if self.cache_dir is None else folder_of(self.cache_dir, "cache_dir")
        teacher = resolve_ensemble(self.teacher, progress=self.progress)
        self._hold(
            teacher=teacher,
            method=resolve_method(self.method),
            sampler=resolve_sampler(self.sampler),
            filters=ordered_filters(self.filters),
            cache_dir=cache_dir,
            # numpy's numbers cannot be written as JSON.
            **{name: bool(getattr(self, name)) for name in FLAGS},
            **{name: int(getattr(self, name)) for name in ("num_negatives", "pool_depth", "seed")},
        )
        ensemble = teacher if isinstance(teacher, Ensemble) else None
        wanted = self.num_negatives if ensemble is None else ensemble.negatives_a_teacher(self.num_negatives)
        self.sampler.depth(wanted)
        for member in self.members:
            _require_candidates(member, wanted)
        others = () if self.judge is None else self.judge.teachers
        for each in (teacher, *others, *(rule.teacher for rule in self.filters if isinstance(rule, Veto))):
            place(each, self.device)
        if ensemble is not None and self.consistency is not None:
            raise InputError("filters: a Consistency rule needs one teacher's ranking, but an ensemble has several")
        if ensemble is not None and self.judge is not None and self.method.sees_all_positives:
            raise InputError(
                f"method: {self.method} is a threshold in each teacher's own scale, which a judge's relabelling for an "
                "ensemble cannot tell apart; take another method, one teacher, or no judge"
            )
        if isinstance(ensemble, IntraSample) and self.include_scores:
            raise InputError(
                "include_scores: the negatives of an intra-sample are scored by several teachers, each in its own scale"
            )
        if len({one.relabel for one in self._relevance}) > 1:
            raise InputError(
                "filters: some make relevant passages positives (relabel=True) and others leave them out; give all the "
                "same relabel="
            )
        if self.judgements and self.relabels and any(isinstance(one, ListTeacher) for one in self.members):
            raise InputError(
                "filters: Judgements(relabel=True) needs a teacher that scores any passage, but the candidates are "
                "from lists; leave relabel out"
            )
        self.layout("query", "positive")  # checks format and on_exhausted

    def _hold(self, **values: Any) -> None:
        self.__dict__.update(values)

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers that search: one, or those of an ensemble, each by itself."""
        return self.teacher.stages if isinstance(self.teacher, Ensemble) else (self.teacher,)

    @property
    def candidate_filters(self) -> tuple[Filter, ...]:
        """The filters that apply to candidates."""
        return tuple(one for one in self.filters if not isinstance(one, Consistency | Judge))

    @property
    def consistency(self) -> Consistency | None:
        """The rule that rows must meet."""
        return next((one for one in self.filters if isinstance(one, Consistency)), None)

    @property
    def judge(self) -> Judge | None:
        """The judge, which has the last word."""
        return next((one for one in self.filters if isinstance(one, Judge)), None)

    @property
    def judgements(self) -> tuple[Judgements, ...]:
        """The judgements that are there already."""
        return tuple(one for one in self.filters if isinstance(one, Judgements))

    @property
    def relabels(self) -> bool:
        """Whether passages that are called relevant become positives."""
        return any(one.relabel for one in self._relevance)

    @property
    def _relevance(self) -> list[Judge | Judgements]:
        """The filters that call passages relevant."""
        return [one for one in self.filters if isinstance(one, Judge | Judgements)]

    def layout(self, query_column: str, positive_column: str) -> Layout:
        """The layout of written rows, for these columns."""
        return Layout(
            format=self.format,
            query_column=query_column,
            positive_column=positive_column,
            n=self.num_negatives,
            scores=self.include_scores,
            on_exhausted=self.on_exhausted,
            share_negatives=self.positive_score == "min",
            inconsistent=None if self.consistency is None else self.consistency.action,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings that determine the result, as JSON: for summaries, cards, provenance, and digests."""
        return {
            "teacher_settings": settings_of(self.teacher),
            "method": str(self.method),
            "sampler": str(self.sampler),
            **({"filters": settings_of_filters(self.filters)} if self.filters else {}),
            **{name: getattr(self, name) for name in SHARED},
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **given: Any) -> MiningConfig:
        """Recreate a configuration from the `to_dict` in provenance.

        Args:
            settings: the result of `to_dict`; other entries are ignored.
            given: settings that replace recorded ones, and those that are never recorded, such as ``cache_dir``.

        Raises:
            InputError: a teacher or a filter cannot be recreated from its settings.
        """
        known = {name: settings[name] for name in ("method", "sampler", *SHARED) if name in settings}
        if "teacher" not in given:
            known["teacher"] = ensemble_of_settings(settings.get("teacher_settings"))
        if "filters" not in given:
            known["filters"] = filters_of_settings(settings.get("filters", []))
        return cls(**{**known, **given})

    def without_corpus(self) -> MiningConfig:
        """A copy for another process, which finds the corpus in the cache after the fit."""
        other = copy.copy(self)
        other._hold(corpus=None)
        return other


def _require_name(value: Any, argument: str) -> None:
    require(value is None or (isinstance(value, str) and value != ""), f"{argument}: expected a name, got {value!r}")


def _require_candidates(teacher: Teacher, wanted: int) -> None:
    for stage in with_stages(teacher):
        candidates = getattr(stage, "candidates", None)
        require(
            candidates is None or candidates >= wanted,
            f"candidates: {stage.name} ranks {candidates} passage(s) per query, too few for {wanted} negatives; set "
            f"candidates to at least {wanted}, better many more",
        )


def taking(config: Callable[P, object]) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give ``__init__`` the signature of the configuration it makes, so that settings are listed once."""

    def typed(init: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(config)
        init.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
        return init

    return typed
