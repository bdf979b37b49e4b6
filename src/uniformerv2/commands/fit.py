"""``uniformerv2 fit`` and ``validate``: train by a recipe; Lightning parses most of the options.

``--config`` takes the name of a recipe or a file; several are laid over each other. Every option of the classifier,
the data and Lightning's Trainer can follow: ``--model.optimization.learning_rate 2e-5``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

from uniformerv2.core.messages import UsageError, did_you_mean, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.recipes import recipe_path

__all__ = ["add_arguments", "check", "run", "with_recipe_files"]

RECIPE: Final = "--config uniformerv2_b16_k400_8x224"
EXAMPLE: Final[Mapping[str, str]] = {
    "fit": f"uniformerv2 fit {RECIPE} --data.train train.csv --data.val val.csv",
    "validate": f"uniformerv2 validate {RECIPE} --data.val val.csv --model.weights runs/mine",
}
LOADS: Final = "uniformerv2.training.recipe_cli"
CONFIG_OPTIONS: Final = frozenset({"--config", "-c"})
OPENINGS: Final = ("--config", "-c", "--data", "--model", "--trainer", "--ckpt_path", "--weights_only")
"""What every option begins with, before its first dot; those of Lightning alone follow."""
OF_LIGHTNING: Final = ("--print_config", "--seed_everything", "--verbose", "-h")
USUAL: Final[Mapping[str, str]] = {
    "--config RECIPE|FILE": "several are laid over each other, later ones on top",
    "--data.train LIST": "videos to train on; they number the classes",
    "--data.val LIST": "videos to validate on",
    "--data.root FOLDER": "where the relative paths of the lists start",
    "--model.weights CHECKPOINT": "where training starts, or what is validated",
    "--model.optimization.learning_rate RATE": "highest rate",
    "--trainer.max_epochs N": "passes over the videos",
    "--trainer.devices N": "GPUs or processes",
    "--trainer.default_root_dir FOLDER": "where checkpoints and model are written",
    "--ckpt_path last|FILE": "go on with a training, or validate its checkpoint",
    "--print_config": "print all options with values, for --config, and end",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.usage = f"{parser.prog} --config RECIPE|FILE [--config FILE ...] [--OPTION VALUE ...]"
    width = max(map(len, USUAL))
    listed = "\n".join(f"  {option:<{width}}  {text}" for option, text in USUAL.items())
    parser.epilog = f"the usual options of the recipe, the data, the model and Lightning's Trainer:\n{listed}"
    parser.add_argument("--help-all", action="store_true", help="explain every option of them, hundreds of lines")


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such recipe or file, or an option that nothing is called like.
    """
    check_installed("lightning", "torchmetrics", extra="train")
    with_recipe_files(options.rest)
    for word in options.rest:
        opening = word.partition("=")[0].partition(".")[0]
        if word.startswith("--") and opening not in {*OPENINGS, *OF_LIGHTNING}:
            meant = did_you_mean(word.partition("=")[0], [option.split()[0] for option in USUAL]).replace("'", "")
            raise UsageError(f"There is no option {word}.{meant} See --help, and --help-all for every option.")


def with_recipe_files(words: Sequence[str]) -> list[str]:
    """Replace the names of recipes by their files.

    Raises:
        UsageError: There is no such recipe or file.

    >>> with_recipe_files(["--config=uniformerv2_b16_k400_8x224"])[0].endswith("uniformerv2_b16_k400_8x224.yaml")
    True
    """
    replaced = list(words)
    with usage_errors():
        for position, word in enumerate(words):
            option, equals, value = word.partition("=")
            if option in CONFIG_OPTIONS and equals:
                replaced[position] = f"{option}={recipe_path(value)}"
            elif word in CONFIG_OPTIONS and position + 1 < len(words):
                replaced[position + 1] = str(recipe_path(words[position + 1]))
    return replaced


def run(options: argparse.Namespace) -> int:
    """Train, or validate; 143 where SIGTERM stopped it, with a checkpoint.

    Args:
        options: ``words`` with the verb, and of these what Lightning parses as ``rest``.
    """
    from uniformerv2.training.recipe_cli import run_recipe

    return run_recipe(options.words[0], ["--help"] if options.help_all else with_recipe_files(options.rest))
