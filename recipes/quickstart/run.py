"""The command of this recipe: ``python recipes/quickstart/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Recipe, command


def recipe() -> Recipe:
    """Mine, train, evaluate: a small student for each of several kinds of negatives."""
    from recipes.quickstart.recipe import Quickstart, plan
    from recipes.quickstart.study import run

    return Recipe(Quickstart, plan, run)


app = command(Path(__file__).with_name("recipe.yaml"), recipe)

if __name__ == "__main__":
    app()
