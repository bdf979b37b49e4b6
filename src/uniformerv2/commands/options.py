"""What the verbs share: the error of a wrong call, common options, and checks that need no network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

__all__ = [
    "DECODERS",
    "HUB_PREFIX",
    "MODEL_HELP",
    "PRECISIONS",
    "UsageError",
    "add_model_overrides",
    "check_at_least",
    "check_dump",
    "check_exists",
    "check_model",
    "check_output",
    "check_report",
    "model_overrides",
    "refuse_input",
]

PRECISIONS: Final = ("auto", "fp32", "bf16", "int8")
"""As ``inference.predictor.Precision``."""
DECODERS: Final = ("auto", "pyav", "torchcodec")
"""As ``data.decoding.Decoder``."""
HUB_PREFIX: Final = "hf:"
MODEL_HELP: Final = "a model folder or that of a training, a checkpoint file, a name of the zoo, or hf:user/name"


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
    if options.fusion_stages is not None:
        given["fusion_stages"] = tuple(options.fusion_stages)
    return given


def check_at_least(minimum: int, options: argparse.Namespace, *names: str) -> None:
    """Refuse a number below the smallest that is allowed; several numbers of one option each, None never.

    Raises:
        UsageError: One is below it.
    """
    for name in names:
        value = getattr(options, name, None)
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and not number >= minimum:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {minimum}, got {number}.")


def check_exists(path: Path) -> None:
    """Refuse a path where nothing is.

    Raises:
        UsageError: There is nothing.
    """
    if not path.exists():
        raise UsageError(f"There is no file or folder {path}.")


def check_model(word: str) -> None:
    """Refuse what ``load_model`` could not find, without a network and without the library's heavy parts.

    Raises:
        UsageError: Neither a path that exists nor a name of the zoo; one of the hub passes unseen.
    """
    from uniformerv2.zoo.cards import model_card

    path = Path(word)
    if path.exists() or word.startswith(HUB_PREFIX):
        return
    if "/" in word or path.suffix:
        raise UsageError(f"There is no file or folder {path}; a hub repository is written '{HUB_PREFIX}user/name'.")
    try:
        model_card(word)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_output(path: Path | None, *, option: str, suffixes: Collection[str], inputs: Iterable[Path] = ()) -> None:
    """Refuse a file to write whose name is of another kind, or that is read by the same command.

    Args:
        path: As typed; None where the option was not given.
        option: Its name, for the message.
        suffixes: What the name may end with, with the dot.
        inputs: Files and folders that the command reads.

    Raises:
        UsageError: The file must not or cannot be written.
    """
    if path is None:
        return
    if path.suffix not in suffixes:
        raise UsageError(f"{option} writes a file that ends with {' or '.join(suffixes)}, got {path}.")
    if path.is_dir():
        raise UsageError(f"{option} writes a file, and {path} is a folder.")
    refuse_input(path, option=option, inputs=inputs)
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(path if path.exists() else above, os.W_OK)):
        raise UsageError(f"{option} cannot write {path}, as {above} cannot be written: give another name.")


def refuse_input(path: Path, *, option: str, inputs: Iterable[Path]) -> None:
    """Refuse a file or folder to write that the same command reads, by whatever name.

    Raises:
        UsageError: It is one of them.
    """
    if path.exists() and any(each.exists() and each.samefile(path) for each in inputs):
        raise UsageError(f"{option} would write to {path}, which this command reads: give another name.")


def check_dump(path: Path | None, *, view_scores: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse a ``--dump`` that could not be written, before anything is measured.

    Raises:
        UsageError: No format has its suffix, or it has no room for what is to be kept.
    """
    if path is None:
        return
    refuse_input(path, option="--dump", inputs=inputs)
    from uniformerv2.evaluation.dumps import check_dump_path

    try:
        check_dump_path(path, view_scores=view_scores)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_report(folder: Path | None) -> None:
    """Refuse a ``--report`` that could not be written, before anything is measured.

    Raises:
        UsageError: The folder holds something else.
    """
    if folder is None:
        return
    from uniformerv2.evaluation.report import check_report_folder

    try:
        check_report_folder(folder)
    except ValueError as error:
        raise UsageError(f"--report: {error}") from error
