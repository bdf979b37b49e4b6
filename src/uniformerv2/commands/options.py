"""What the verbs share: common options with one meaning each, and checks that need no network and nothing heavy."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.core.messages import UsageError, usage_errors

if TYPE_CHECKING:
    from uniformerv2.inference.predictor import Predictor

__all__ = [
    "DECODERS",
    "ENGINES",
    "PRECISIONS",
    "add_bootstrap",
    "add_dry_run",
    "add_hardware",
    "add_json",
    "add_model",
    "add_model_overrides",
    "add_test_outputs",
    "add_views",
    "check_at_least",
    "check_exists",
    "check_model",
    "check_output",
    "check_output_folder",
    "check_test_outputs",
    "example",
    "given",
    "make_predictor",
    "model_overrides",
    "refuse_input",
]

PRECISIONS: Final = ("auto", "fp32", "bf16")
"""As ``inference.engines.Precision``."""
ENGINES: Final = ("auto", "torch", "onnxruntime", "openvino")
"""As ``inference.engines.EngineName``."""
DECODERS: Final = ("auto", "pyav", "torchcodec")
"""As ``media.decoding.Decoder``."""
HUB_PREFIX: Final = "hf:"
MODEL_HELP: Final = "folder, file, name of the zoo, hf:user/name"


def example(summary: str, command: str) -> dict[str, Any]:
    """The opening of a verb's help: one sentence and one command."""
    return {"description": f"{summary}\n\n  {command}"}


def add_model(
    parser: argparse.ArgumentParser, *, precisions: Collection[str] = PRECISIONS, decoder: bool = True
) -> argparse._ArgumentGroup:
    """``--model``, ``--device``, ``--precision``, ``--engine`` and ``--decoder``, the same words in every verb."""
    group = parser.add_argument_group("model and hardware")
    group.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    add_hardware(group, precisions=precisions)
    group.add_argument("--engine", default="auto", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))
    if decoder:
        group.add_argument("--decoder", default="auto", choices=DECODERS, metavar="NAME", help="auto, pyav, torchcodec")
    return group


def add_hardware(group: Any, *, precisions: Collection[str], device: str = "auto") -> None:
    """``--device`` and ``--precision``."""
    group.add_argument("--device", default=device, help=f"auto, cpu, cuda, cuda:1, mps (default: {device})")
    words = tuple(precisions)
    group.add_argument("--precision", default="auto", choices=words, metavar="NAME", help=f"{', '.join(words)}")


def add_views(group: Any, *, clips: bool = True) -> None:
    """``--clips``, ``--crops`` and ``--preprocessing``: how a video becomes the network's input."""
    if clips:
        about = "clips per video (default: the model's)"
        group.add_argument("--clips", dest="num_clips", type=int, metavar="K", help=about)
    group.add_argument(
        "--crops", dest="num_crops", type=int, choices=(1, 3), help="crops per clip (default: the model's)"
    )
    group.add_argument(
        "--preprocessing",
        choices=("official", "mmaction2"),
        metavar="NAME",
        help="official, mmaction2 (default: the model's)",
    )


def add_json(parser: Any, what: str = "print one line of JSON; all else goes to stderr") -> None:
    """``--json``: the result on stdout for a program."""
    parser.add_argument("--json", action="store_true", help=what)


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``: say what would be done."""
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its cost; write nothing")


def add_bootstrap(group: Any) -> None:
    """``--resamples`` and ``--seed`` of the intervals."""
    group.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap samples; 0: no intervals")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (default: 0)")


def add_test_outputs(parser: argparse.ArgumentParser) -> None:
    """``--dump`` and ``--report``."""
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write the scores: .pkl .parquet .csv")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a page of figures and examples there")


def add_model_overrides(parser: argparse.ArgumentParser, *, is_explained: bool = False) -> None:
    """``--num-heads`` and the like, for files whose shapes do not tell; the help of one verb explains them."""
    title = "what the shapes of a foreign checkpoint do not tell"
    group = parser.add_argument_group(title) if is_explained else parser
    for option, settings, about in (
        ("--num-heads", {"type": int, "metavar": "N"}, "heads of the spatial attention (default: dim / 64)"),
        ("--global-num-heads", {"type": int, "metavar": "N"}, "heads of the cross attention"),
        ("--num-frames", {"type": int, "metavar": "T"}, "frames per clip (default: 8)"),
        ("--fusion-stages", {"type": int, "nargs": "+", "metavar": "I"}, "fused blocks (default: the last ones)"),
        ("--num-classes", {"type": int, "metavar": "N"}, "check that the head has so many classes"),
        ("--head-map", {"metavar": "NAME"}, "keep these rows, for instance kinetics710_to_kinetics400"),
    ):
        group.add_argument(option, **settings, help=about if is_explained else argparse.SUPPRESS)
    if not is_explained:
        parser.epilog = "A foreign checkpoint may need --num-heads or the like: see uniformerv2 convert --help."


def model_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The overrides that were given, as keyword arguments of ``load_model``."""
    names = ("num_heads", "global_num_heads", "num_frames", "num_classes", "head_map")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.fusion_stages is not None:
        given["fusion_stages"] = tuple(options.fusion_stages)
    return given


def given(options: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """The options that a function takes, by name; a verb's options are called as its function's parameters are."""
    return {name: getattr(options, name) for name in inspect.signature(function).parameters if hasattr(options, name)}


def make_predictor(options: argparse.Namespace, model: str | None = None) -> Predictor:
    """The predictor that the options ask for.

    Args:
        options: Those of a verb with ``add_model`` and ``add_model_overrides``.
        model: Where one verb has several; None: ``--model``.

    Raises:
        ValueError: The model cannot be used as the options ask.
    """
    from uniformerv2.inference.engines import load_network
    from uniformerv2.inference.predictor import Predictor

    network = load_network(model or options.model, **model_overrides(options))
    return Predictor(**{**given(options, Predictor), "model": network})


def check_at_least(minimum: int, options: argparse.Namespace, *names: str) -> None:
    """Refuse a number below the smallest that is allowed; several numbers of one option each, None never.

    Raises:
        UsageError: One is below it.
    """
    for name in names:
        value = getattr(options, name, getattr(options, f"num_{name}", None))
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
    with usage_errors():
        model_card(word)


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
    _check_place(path, option=option)


def check_output_folder(path: Path | None, *, option: str) -> None:
    """Refuse a folder to write to that is a file, or that cannot be made.

    Args:
        path: As typed; None where the option was not given.
        option: Its name, for the message.

    Raises:
        UsageError: Nothing can be written there.
    """
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise UsageError(f"{option} takes a folder, and {path} is a file.")
    _check_place(path, option=option)


def _check_place(path: Path, *, option: str) -> None:
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


def check_test_outputs(options: argparse.Namespace, *, view_scores: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse a ``--dump`` or ``--report`` that could not be written, before anything is measured.

    Raises:
        UsageError: No format has the dump's suffix, it has no room for what is to be kept, or the folder of the report
            holds something else.
    """
    with usage_errors():
        if options.dump is not None:
            from uniformerv2.evaluation.dumps import check_dump_path

            refuse_input(options.dump, option="--dump", inputs=inputs)
            check_dump_path(options.dump, view_scores=view_scores)
        if options.report is not None:
            from uniformerv2.evaluation.page import check_report_folder

            try:
                check_report_folder(options.report)
            except ValueError as error:
                raise UsageError(f"--report: {error}") from error
