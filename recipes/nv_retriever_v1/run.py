"""The command of this recipe: ``python recipes/nv_retriever_v1/run.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone: recipes are not part of the package

from recipes.common.command import Run, command


def settings() -> tuple[Any, Any]:
    """NV-Retriever-v1, from its training sets to its repository on the Hub."""
    from recipes.nv_retriever_v1.plan import plan
    from recipes.nv_retriever_v1.recipe import NVRetriever

    return NVRetriever, plan


def study() -> Run:
    """What does the work."""
    from recipes.nv_retriever_v1.study import run

    return run


app = command(Path(__file__).with_name("recipe.yaml"), settings, study)

if __name__ == "__main__":
    app()
