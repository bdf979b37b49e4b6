"""Recipes: configuration files that come with the package, each of which reproduces one published number."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

__all__ = ["list_recipes", "recipe_path"]

FOLDER = Path(str(files("uniformerv2.recipes")))


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes, which are those of the models they train, sorted.

    Args:
        pattern: Such as ``"*k400*"``; upper and lower case are the same.

    >>> list_recipes("*b16_ssv2*")
    ['uniformerv2_b16_ssv2_16x224', 'uniformerv2_b16_ssv2_32x224']
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if fnmatchcase(path.stem, pattern.lower()))


def recipe_path(name: str) -> Path:
    """The file of a recipe, or a file of one's own.

    Args:
        name: Of a recipe, or a path.

    Returns:
        An existing file.

    Raises:
        FileNotFoundError: There is neither; the message names the nearest recipe.

    >>> recipe_path("uniformerv2_b16_k400_8x224").name
    'uniformerv2_b16_k400_8x224.yaml'
    """
    path = Path(name)
    if path.is_file():
        return path
    recipe = FOLDER / f"{name}.yaml"
    if path.name == name and recipe.is_file():
        return recipe
    if path.suffix in {".yaml", ".yml"} or path.name != name:
        raise FileNotFoundError(f"There is no file {name}.")
    near = get_close_matches(name, list_recipes(), n=1, cutoff=0.3)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise FileNotFoundError(f"No recipe is called '{name}'.{hint} There are {len(list_recipes())}, see {FOLDER}.")
