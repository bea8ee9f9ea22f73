"""The command of this recipe: ``python recipes/ablation/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Recipe, command


def recipe() -> Recipe:
    """Tables 1 to 4 and 6 and figures 1 to 4 of NV-Retriever, beside the paper's numbers."""
    from recipes.ablation.plan import plan
    from recipes.ablation.recipe import Ablation
    from recipes.ablation.study import run

    return Recipe(Ablation, plan, run)


app = command(Path(__file__).with_name("recipe.yaml"), recipe)

if __name__ == "__main__":
    app()
