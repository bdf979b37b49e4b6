"""``uniformerv2 convert``: a checkpoint of any published format to our folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from uniformerv2.checkpoint import load_model, save_model
from uniformerv2.commands.options import UsageError, add_model_overrides, model_overrides
from uniformerv2.data.labels import label_names

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("checkpoint", metavar="IN", help="a file, a name of the zoo, or hf:user/name")
    parser.add_argument("folder", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--labels", metavar="SPACE", help="class names by label space, e.g. kinetics400")
    parser.add_argument("--force", action="store_true", help="replace a model that is in the folder already")
    parser.add_argument("--json", action="store_true", help="print what was written as one line of JSON")
    add_model_overrides(parser)


def run(options: argparse.Namespace) -> int:
    """Convert.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: A model is in the folder already, there is none to convert, or the label space is unknown or does
            not fit the head.
    """
    if (options.folder / "model.safetensors").exists() and not options.force:
        raise UsageError(f"There is a model in {options.folder} already: choose another folder or add --force.")
    try:
        model = load_model(options.checkpoint, **model_overrides(options))
        names = tuple(label_names(options.labels)) if options.labels else model.info.class_names
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    if options.labels and len(names) != model.num_classes:
        raise UsageError(f"{options.labels} has {len(names)} classes, the head {model.num_classes}.")
    model.info = replace(model.info, class_names=names)
    folder = save_model(model, options.folder)
    count = sum(weight.numel() for weight in model.parameters())
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(folder), "parameters": count, **model.config.to_dict()}) + "\n")
    else:
        sys.stdout.write(f"{folder}: {count / 1e6:.1f} M parameters, {model.num_classes} classes\n")
    return 0
