"""The command of this recipe: ``python recipes/reranker/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Run, command


def settings() -> tuple[Any, Any]:
    """A reranker for each kind of negatives, and how well each ranks the candidates of a first stage."""
    from recipes.reranker.plan import plan
    from recipes.reranker.recipe import Reranker

    return Reranker, plan


def study() -> Run:
    """What does the work."""
    from recipes.reranker.study import run

    return run


app = command(Path(__file__).with_name("recipe.yaml"), settings, study)

if __name__ == "__main__":
    app()
