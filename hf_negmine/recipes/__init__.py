"""Recipes: a YAML file that says a whole experiment, read strictly into dataclasses."""

from hf_negmine.recipes.config import load_recipe

__all__ = ["load_recipe"]
