"""``uniformerv2 convert``: a checkpoint of any published format to our folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from uniformerv2.commands.options import UsageError, model_overrides
from uniformerv2.core.terminal import harmless
from uniformerv2.data.annotations.text_lists import named_classes
from uniformerv2.zoo.checkpoint import load_model, save_model

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Convert.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: There is no model to convert, or the label space is unknown or does not fit the head.
    """
    try:
        model = load_model(options.checkpoint, **model_overrides(options))
        names = named_classes(options.head_classes) if options.head_classes else model.info.class_names
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    if options.head_classes and len(names) != model.num_classes:
        raise UsageError(f"{options.head_classes} has {len(names)} classes, the head {model.num_classes}.")
    model.info = replace(model.info, class_names=names)
    folder = save_model(model, options.folder)
    count = sum(weight.numel() for weight in model.parameters())
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(folder), "parameters": count, **model.config.to_dict()}) + "\n")
    else:
        sys.stdout.write(f"{harmless(str(folder))}: {count / 1e6:.1f} M parameters, {model.num_classes} classes\n")
    return 0
