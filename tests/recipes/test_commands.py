"""The command of every recipe, and what holds of the recipes' code as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.unit.test_architecture import imported_modules

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/run.py"))
WITHOUT_PATH = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_there_are_four_with_all_their_parts() -> None:
    assert NAMES == ["ablation", "nv_retriever_v1", "quickstart", "reranker"]
    for name in NAMES:
        assert {"README.md", "recipe.yaml", "run.py"} <= {path.name for path in (RECIPES / name).iterdir()}


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nscript = sys.argv[1]\n"
        "try: runpy.run_path(script, run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'datasets', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    script = str(RECIPES / name / "run.py")
    done = subprocess.run(
        [sys.executable, "-c", code, script, "--help"], capture_output=True, text=True, cwd=tmp_path, env=WITHOUT_PATH
    )
    assert done.returncode == 0, done.stderr
    assert "--scale" in done.stdout


def test_a_script_runs_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPES / "quickstart" / "run.py"), "--dry-run"]
    plan = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=WITHOUT_PATH)
    assert plan.returncode == 0, plan.stderr
    assert "TRAININGS: 5 kinds x 3 seeds" in plan.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output: name a folder for what is written, or see with --dry-run what a run takes"),
        (["--scale", "huge", "--dry-run"], "recipe.yaml: the scale: 'huge' is not among ["),
        (["--recipe", "nothing.yaml", "--dry-run"], "nothing.yaml could not be read: No such file or directory"),
    ],
    ids=["no-output", "no-such-scale", "no-such-file"],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_wrong_is_one_line(name: str, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(import_module(f"recipes.{name}.run").app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("bas: 3\n", encoding="utf-8")
    arguments = ["--recipe", str(tmp_path / "recipe.yaml"), "--dry-run"]
    result = CliRunner().invoke(import_module("recipes.nv_retriever_v1.run").app, arguments)
    assert result.exit_code == 1
    assert "bas: is not known" in result.stderr
    assert "is 'base' meant?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_full_gpu_is_met_with_options_of_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is at hand to be filled: torch's own error is raised where the work begins."""

    def fail(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("recipes.common.command.set_up_libraries", fail)
    result = CliRunner().invoke(import_module(f"recipes.{name}.run").app, ["--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    advice = "make the batches in the recipe smaller, or take a smaller --scale"
    assert (
        result.stderr == f"Error: the GPU's memory is full, {advice}: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    )


# ---- the code -------------------------------------------------------------------------------------------------------


def modules() -> dict[str, set[str]]:
    """What each file of the recipes imports of the others."""
    paths = {}
    for path in RECIPES.rglob("*.py"):
        parts = path.relative_to(RECIPES.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: imported_modules(path) & set(paths) for name, path in paths.items()}


def test_no_two_files_import_one_another_in_a_circle() -> None:
    graph = modules()
    assert len(graph) > 40
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_a_recipe_imports_from_itself_and_from_what_all_share() -> None:
    for name, imported in modules().items():
        own = name.split(".")[1:2]
        rooms = {module.split(".")[1] for module in imported}
        assert rooms <= {"common", *own}, name


def test_the_package_knows_nothing_of_recipes() -> None:
    for path in (RECIPES.parent / "hf_negmine").rglob("*.py"):
        assert not any(module.split(".")[0] == "recipes" for module in imported_modules(path)), path
