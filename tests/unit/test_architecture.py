"""The layering of docs/architecture.md, kept."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hf_negmine"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

LIGHT_ROOMS = ["base", "data", "teachers", "search", "select", "pool"]
HEAVY_IN_LIGHT_ROOMS = ("data/sources/", "data/writing.py")
"""The two ends of the way, where data sets are opened and written."""
HEAVY = {"datasets", "huggingface_hub", "matplotlib", "faiss", "pandas"}


def rooms() -> list[str]:
    """The rooms of the table in docs/architecture.md, in its order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("| room | what it is for |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [name.rstrip("/") for cell in cells for name in re.findall(r"`([\w/]+)`", cell)]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@functools.cache
def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports, but for those under `if TYPE_CHECKING:`."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in MODULES} == set(rooms())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_rooms_above(path: Path) -> None:
    order = {room: place for place, room in enumerate(rooms())}
    own = room_of(path)
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "hf_negmine" and len(parts) > 1 and parts[1] != own:
            assert order[parts[1]] < order[own], f"{path.name} in {own!r} imports {module}, which is further down"


def test_no_two_files_import_one_another_in_a_circle() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = {name: imported_modules(path) & set(names) for name, path in names.items()}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_light_rooms_do_without_heavy_libraries(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    if room_of(path) in LIGHT_ROOMS and not place.startswith(HEAVY_IN_LIGHT_ROOMS):
        allowed = {"faiss"} if path.name == "faiss_library.py" else set()  # when it is first needed
        assert not {module.split(".")[0] for module in imported_modules(path)} & (HEAVY - allowed)


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("huggingface_hub", "hub/"),
        ("matplotlib", "figures/plots.py"),
        ("openai", "teachers/endpoint.py"),
        ("faiss", "search/faiss_library.py"),
        ("regex", "teachers/words.py"),
        ("datatrove", "cluster/executors.py"),
        ("ray", "cluster/executors.py"),
    ],
)
def test_a_library_has_one_place(library: str, home: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(module.split(".")[0] == library for module in imported_modules(path))
    }
    assert users
    assert all(user.startswith(home) for user in users), users


def test_teachers_do_not_import_one_another() -> None:
    kinds = {path for path in (PACKAGE / "teachers").glob("*.py") if "fingerprint(self" in path.read_text("utf-8")}
    assert len(kinds) > 8
    for path in kinds:
        others = {f"hf_negmine.teachers.{other.stem}" for other in kinds if other != path}
        assert not imported_modules(path) & others


def test_an_import_loads_no_library_that_it_may_not_need() -> None:
    code = """
import sys, hf_negmine
print([name for name in ("torch", "datasets", "numpy", "pyarrow") if name in sys.modules])
import hf_negmine.select.filters, hf_negmine.select.judge_models
print([name for name in ("datasets", "datasketch", "openai") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_every_public_name_loads() -> None:
    import hf_negmine

    for name in hf_negmine.__all__:
        assert getattr(hf_negmine, name) is not None
    with pytest.raises(AttributeError, match="NegativeMinr"):
        hf_negmine.NegativeMinr  # noqa: B018
