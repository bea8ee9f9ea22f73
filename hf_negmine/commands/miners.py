"""The options of commands that mine: the data, the teacher, the filters; and the miner that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands.running import open_miners_teachers
from hf_negmine.commands.signatures import Given, Panels, Signature, argument, option, parameters
from hf_negmine.commands.specs import FILE, spec

if TYPE_CHECKING:
    from hf_negmine.miner import NegativeMiner

TO_SAVE_MEMORY = "give --device cpu, or a smaller --batch-size or --max-length"
ROWS = (
    "Rows of (query, positive), with or without negatives: a data set id on the Hub, a Parquet, JSONL, CSV or TSV file "
    "(compressed or not) or a folder or pattern of them, here or at an address, a BEIR folder, or one of save_to_disk."
)
API_URL = "Address of an api: teacher's server. The key is taken from the variable OPENAI_API_KEY."
FIRST_STAGE = "Finds the candidates that a cross-encoder: or late-interaction: teacher scores: any other teacher."
ENSEMBLES = parameters("select.ensembles", "resolve_ensemble")["teacher"]

part = Signature("part", "miner", "NegativeMiner.fit")
cross = Signature("loading", "teachers.cross_encoder", "CrossEncoderTeacher")
api = Signature("loading", "teachers.api", "APITeacher")
loading = Signature("loading", "teachers.dense", "DenseTeacher")
consistency = Signature("consistency", "select.filters.consistency", "Consistency")
judging = Signature("judging", "select.judge", "Judge")
server = Signature("server", "select.chat_judge", "ChatJudge")

DATA: Panels = {
    None: [argument("rows", str, ROWS, "ROWS")],
    options.DATA: [
        options.CORPUS,
        part("split"),
        part("config_name", "--config"),
        *options.COLUMNS,
        options.CORPUS_CONFIG,
    ],
}
TEACHER: Panels = {
    options.TEACHER: [
        option(
            "teacher", str, f"{options.TEACHERS.help()} {ENSEMBLES.help()}", "-t", metavar="TEACHER", default=...
        ),
        cross(
            "first_stage", metavar="TEACHER", help=FIRST_STAGE,
            show_default="bm25; a late-interaction model's own token vectors",
        ),
        cross("candidates", sentences=2, min=1, show_default="100; 256 of a faiss: teacher"),
        api("base_url", "--api-url", metavar="URL", help=API_URL),
        loading("query_prompt", metavar="TEXT"),
        loading("passage_prompt", metavar="TEXT"),
        loading("dtype", sentences=2, metavar="NAME"),
        loading("max_length", min=1),
        loading("batch_size", min=1),
        loading("truncate_dim", min=1),
        cross("activation"),
        loading("revision"),
        loading("trust_remote_code", sentences=2),
    ],
}  # fmt: skip
FILTERS = [
    option("veto", list[str], **spec("select.filters.specs", "parse_veto", metavar="TEACHER@METHOD")),
    option("near_duplicates", str, **spec("select.filters.specs", "parse_near_duplicates")),
    consistency("top_k", "--consistency", min=1),
    consistency("action", "--consistency-action"),
]
judged = Signature("judged", "select.judgements", "Judgements")
JUDGEMENTS = judged("source", "--judgements", **FILE)
JUDGE = [
    JUDGEMENTS,
    judging("judge", sentences=4, metavar="MODEL"),
    judging("budget", "--judge-budget", min=0),
    server("base_url", "--judge-url", metavar="URL"),
    judging("relabel"),
]


def open_miner(
    teacher: str | None,
    loading: Given,
    settings: Given,
    *,
    lists: Callable[[Any], Any] | None = None,
    veto: list[str] | None,
    near_duplicates: str | None,
    consistency: Given,
    judging: Given | None = None,
    judged: Given | None = None,
    server: Given | None = None,
) -> NegativeMiner:
    """The miner that the options ask for; ``settings`` are others of its configuration.

    ``lists`` makes the teacher of candidates that were scored elsewhere, given the one that continues them, if any.
    """
    judging, judged, server = judging or {}, judged or {}, server or {}
    _check_filters(consistency, judging | server, judged)
    from hf_negmine.miner import NegativeMiner

    opened, vetoes = open_miners_teachers(teacher, veto or [], loading)
    listed = opened if lists is None else lists(opened)
    opened = listed if opened is None else opened
    filters = [*_near_duplicates(near_duplicates, opened), *vetoes, *_others(consistency, judging, judged, server)]
    return NegativeMiner(listed, filters=filters, **settings)


def lists_teacher(candidates: Given, rows: str | None, part: Given, mining: Given) -> Callable[[Any], Any]:
    """What reads candidates that were scored elsewhere, given the teacher that continues them, if any."""
    from hf_negmine.pool import CandidatePool
    from hf_negmine.pool.list_files import open_lists_at

    if "source" not in candidates:
        raise InputError("--qrels: for --candidates-from, which is not given")
    if "config_name" in part:
        raise InputError("--config: the lists are not rows on the Hub; leave it out")
    source = candidates["source"]
    shared = {name: mining[name] for name in ("cache_dir", "device", "progress") if name in mining}

    def make(teacher: Any) -> Any:
        given = open_lists_at(**candidates, **part, rows=rows, corpus=mining.get("corpus"))
        name = None if teacher is not None else Path(source).name if Path(source).exists() else source
        return CandidatePool.from_lists(*given, teacher=teacher, name=name, **shared).list_teacher

    return make


def _check_filters(consistency: Given, judging: Given, judged: Given) -> None:
    """Raise `InputError` for an option of a filter that was not given."""
    judges = {"budget": "--judge-budget", "base_url": "--judge-url", "relabel": "--relabel"}
    for whole, key, parts, given in (
        ("--consistency", "top_k", {"action": "--consistency-action"}, consistency),
        ("--judge", "judge", judges, judging),
    ):
        alone = [flag for name, flag in parts.items() if name in given and not (judged and name == "relabel")]
        if alone and key not in given:
            raise InputError(f"{', '.join(alone)}: for {whole}, which is not given")


def _near_duplicates(value: str | None, teacher: Any) -> list[Any]:
    """The filter of this spec, checked against the teacher."""
    from hf_negmine.base.protocols import VectorTeacher
    from hf_negmine.select.ensembles import Ensemble
    from hf_negmine.select.filters import NearDuplicates
    from hf_negmine.select.filters.specs import parse_near_duplicates
    from hf_negmine.teachers import without_index

    if value is None:
        return []
    by, threshold = parse_near_duplicates(value)
    members = teacher.stages if isinstance(teacher, Ensemble) else [teacher]
    if by == "cosine" and not all(isinstance(without_index(one), VectorTeacher) for one in members):
        raise InputError(
            f"--near-duplicates {threshold:g}: it compares vectors, but {teacher.name} has none; give "
            f"minhash:{threshold:g}, which compares words"
        )
    return [NearDuplicates(threshold, by=by)]


def _others(consistency: Given, judging: Given, judged: Given, server: Given) -> list[Any]:
    """Judgements, the rule for rows and the judge, if they were asked for."""
    from hf_negmine.select.filters import Consistency
    from hf_negmine.select.judge import Judge
    from hf_negmine.select.judge_models import SCORERS, resolve_judge
    from hf_negmine.select.judgements import Judgements

    made: list[Any] = [Consistency(**consistency)] if consistency else []
    if judged:
        made.append(Judgements(judged["source"], relabel=judging.get("relabel", False)))
    if "judge" in judging:
        if server and all(one.startswith(SCORERS) for one in judging["judge"]):
            raise InputError("--judge-url: for a chat model, but no --judge is one; leave it out")
        judges = [resolve_judge(one, **server) for one in judging["judge"]]
        made.append(Judge(**{**judging, "judge": judges}))
    return made
