"""The command of this recipe: ``python recipes/reranker/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Recipe, command


def recipe() -> Recipe:
    """A reranker for each kind of negatives, and how well each ranks the candidates of a first stage."""
    from recipes.reranker.plan import Plan
    from recipes.reranker.recipe import Reranker
    from recipes.reranker.study import run

    return Recipe(Reranker, lambda settings: str(Plan(settings)), run)


app = command(Path(__file__).with_name("recipe.yaml"), recipe)

if __name__ == "__main__":
    app()
