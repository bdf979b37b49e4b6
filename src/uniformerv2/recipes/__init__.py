"""Recipes, each of which reproduces one published number, and suites of ablations: files that come with the package."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from uniformerv2.core.messages import UsageError, did_you_mean

__all__ = ["list_recipes", "list_suites", "read_recipe", "recipe_path", "suite_path"]

FOLDER: Final = Path(__file__).parent
SUITES: Final = FOLDER / "ablations"


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
        name: Name of a recipe, or a path.

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
    hint = did_you_mean(name, list_recipes(), cutoff=0.3)
    raise FileNotFoundError(f"No recipe is called '{name}'.{hint} There are {len(list_recipes())}, see {FOLDER}.")


def read_recipe(name: str) -> dict[str, Any]:
    """What a recipe says.

    Args:
        name: Of a recipe, or a path.

    Raises:
        FileNotFoundError: There is neither.
        UsageError: The file is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(recipe_path(name).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is no YAML: {error}") from error


def list_suites() -> list[str]:
    """Names of the suites that come with the package.

    >>> list_suites()
    ['components', 'fusion', 'global_block', 'local_block', 'pretraining', 'recipe']
    """
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def suite_path(name: str) -> Path:
    """The file of a suite of ablations, or a file of one's own.

    Raises:
        FileNotFoundError: There is neither; the message names the nearest suite.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.name != name or path.suffix in {".yaml", ".yml"}:
        raise FileNotFoundError(f"There is no file {name}.")
    if name not in list_suites():
        hint = did_you_mean(name, list_suites()) or f" There are: {', '.join(list_suites())}."
        raise FileNotFoundError(f"No suite is called '{name}'.{hint} Or give the path of a YAML file.")
    return SUITES / f"{name}.yaml"
