"""Recipes: a YAML file that says a whole experiment, read strictly into dataclasses."""

from hf_negmine.recipes.config import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
