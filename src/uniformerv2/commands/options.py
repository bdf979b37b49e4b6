"""What the verbs share: the error of a wrong call, and options for what the shapes of a checkpoint do not tell."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["UsageError", "add_model_overrides", "model_overrides"]


class UsageError(ValueError):
    """The command was called wrongly; exit code 2."""


def add_model_overrides(parser: argparse.ArgumentParser) -> None:
    """``--num-heads`` and the like, for files whose shapes do not tell."""
    group = parser.add_argument_group("what the shapes of a foreign checkpoint do not tell")
    group.add_argument("--num-heads", type=int, metavar="N", help="heads of the spatial attention (default: dim / 64)")
    group.add_argument("--global-num-heads", type=int, metavar="N", help="heads of the cross attention")
    group.add_argument("--num-frames", type=int, metavar="T", help="frames of a clip (default: 8)")
    group.add_argument(
        "--fusion-stages", type=int, nargs="+", metavar="I", help="blocks that are fused (default: the last ones)"
    )
    group.add_argument("--num-classes", type=int, metavar="N", help="check that the head has so many classes")
    group.add_argument("--head-map", metavar="NAME", help="keep these rows, e.g. kinetics710_to_kinetics400")


def model_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The overrides that were given, as keyword arguments of ``load_model``."""
    names = ("num_heads", "global_num_heads", "num_frames", "num_classes", "head_map")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.num_heads is not None and options.global_num_heads is None:
        given["global_num_heads"] = options.num_heads
    if options.fusion_stages is not None:
        given["fusion_stages"] = tuple(options.fusion_stages)
    return given
