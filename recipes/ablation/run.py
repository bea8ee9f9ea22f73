"""The command of this recipe: ``python recipes/ablation/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Run, command


def settings() -> tuple[Any, Any]:
    """Tables 1 to 4 and 6 and figures 1 to 4 of NV-Retriever, beside the paper's numbers."""
    from recipes.ablation.plan import plan
    from recipes.ablation.recipe import Ablation

    return Ablation, plan


def study() -> Run:
    """What does the work."""
    from recipes.ablation.study import run

    return run


app = command(Path(__file__).with_name("recipe.yaml"), settings, study)

if __name__ == "__main__":
    app()
