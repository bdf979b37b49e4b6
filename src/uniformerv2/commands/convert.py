"""``uniformerv2 convert``: a checkpoint of any published format to our folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import (
    add_json,
    add_model_overrides,
    check_model,
    check_output_folder,
    model_overrides,
    refuse_input,
)
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.core.terminal import harmless

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 convert k400_b16_8x224.pth models/k400 --head-classes kinetics400"
LOADS: Final = "uniformerv2.zoo.checkpoint"
WEIGHTS: Final = "model.safetensors"
"""As ``zoo.checkpoint.WEIGHTS``, which brings torch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("model", metavar="MODEL", help="a file, a name of the zoo, or hf:user/name")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--head-classes", metavar="SPACE|FILE", help="names of the model's classes, e.g. kinetics400")
    parser.add_argument("--force", action="store_true", help="replace a model that is in the folder already")
    add_json(parser)
    add_model_overrides(parser, is_explained=True)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: A model is in the folder already, there is none to convert, or no such label space.
    """
    if (options.out / WEIGHTS).exists() and not options.force:
        raise UsageError(f"There is a model in {options.out} already: choose another folder or add --force.")
    check_output_folder(options.out, option="OUT")
    check_model(options.model)
    for written in (options.out, options.out / WEIGHTS):
        refuse_input(written, option="OUT", inputs=(Path(options.model),))


def run(options: argparse.Namespace) -> int:
    """Convert.

    Raises:
        UsageError: There is no model to convert, or the label space is unknown or does not fit the head.
    """
    from uniformerv2.data.annotations.text_lists import named_classes
    from uniformerv2.zoo.checkpoint import load_model, save_model

    with usage_errors():
        model = load_model(options.model, **model_overrides(options))
        names = named_classes(options.head_classes) if options.head_classes else model.info.class_names
    if options.head_classes and len(names) != model.num_classes:
        raise UsageError(f"{options.head_classes} has {len(names)} classes, the head {model.num_classes}.")
    model.info = replace(model.info, class_names=names)
    folder = save_model(model, options.out)
    count = sum(weight.numel() for weight in model.parameters())
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(folder), "parameters": count, **model.config.to_dict()}) + "\n")
    else:
        sys.stdout.write(f"{harmless(str(folder))}: {count / 1e6:.1f} M parameters, {model.num_classes} classes\n")
    return 0
