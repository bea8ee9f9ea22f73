"""The command of this recipe: ``python recipes/quickstart/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Run, command


def settings() -> tuple[Any, Any]:
    """Mine, train, evaluate: a small student for each of several kinds of negatives."""
    from recipes.quickstart.recipe import Quickstart, plan

    return Quickstart, plan


def study() -> Run:
    """What does the work."""
    from recipes.quickstart.study import run

    return run


app = command(Path(__file__).with_name("recipe.yaml"), settings, study)

if __name__ == "__main__":
    app()
