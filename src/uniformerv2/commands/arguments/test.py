"""The options of ``uniformerv2 test``."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniformerv2.commands.options import (
    DECODERS,
    MODEL_HELP,
    PRECISIONS,
    UsageError,
    add_model_overrides,
    check_at_least,
    check_dump,
    check_exists,
    check_model,
    check_report,
)
from uniformerv2.training.recipes import recipe_path

__all__ = ["add_arguments", "check"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "videos", metavar="DATA|RECIPE", help="list, folder, folder of lists; a recipe's name or a YAML"
    )
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write the scores: .pkl .parquet .csv")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a page of figures and examples there")
    parser.add_argument("--view-scores", action="store_true", help="keep the scores of each view in the dump")
    parser.add_argument("--json", action="store_true", help="one line of JSON; all else goes to stderr")
    group = parser.add_argument_group("which videos")
    group.add_argument("--data", metavar="LIST", help="videos to test on, where a recipe is given")
    group.add_argument("--root", metavar="FOLDER", help="where the relative paths of the list start")
    group.add_argument("--split", metavar="NAME", help="train, val, test, all (default: test, else val, else unmarked)")
    group.add_argument("--only-classes", nargs="+", metavar="NAME", help="leave out the videos of other classes")
    group.add_argument("--max-videos", type=int, metavar="N", help="the first N videos alone")
    group = parser.add_argument_group("which class is which")
    group.add_argument("--classes", metavar="SPACE|FILE", help="names of the list's class numbers")
    group.add_argument("--head-classes", metavar="SPACE|FILE", help="names of the checkpoint's classes")
    group = parser.add_argument_group("how")
    group.add_argument("--clips", type=int, metavar="K", help="clips of a video (default: recipe, else checkpoint)")
    group.add_argument("--crops", type=int, choices=(1, 3), help="crops of a clip")
    group.add_argument("--average", default="softmax", choices=("softmax", "logits"), help="mean over views of what")
    group.add_argument("--multi-label", action="store_true", help="sigmoid scores, mAP (default: as list or model)")
    group.add_argument("--preprocessing", choices=("official", "mmaction2"), help="instead of the checkpoint's own")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument("--devices", type=int, default=1, metavar="N", help="processes, each with a GPU of its own")
    group.add_argument("--precision", default="auto", choices=PRECISIONS, help="int8: on a CPU (default: auto)")
    group.add_argument(
        "--views-per-batch",
        type=int,
        metavar="N",
        help="views at once, of several videos (default: 1 on a CPU, else 8)",
    )
    group.add_argument("--decoder", default="auto", choices=DECODERS, help="default: auto")
    group.add_argument("--workers", type=int, metavar="N", help="processes that decode, for each device")
    group.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap; 0: no intervals")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    add_model_overrides(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such checkpoint, an option is out of range, or a file must not be written.
    """
    check_at_least(1, options, "clips", "max_videos", "devices", "views_per_batch")
    check_at_least(0, options, "workers", "resamples", "seed")
    _check_data(options)
    for path in filter(None, (options.data, options.root)):
        check_exists(Path(path))
    check_model(options.model)
    if options.dump is None and options.view_scores:
        raise UsageError("--view-scores stand in a dump: give --dump FILE.")
    check_dump(
        options.dump,
        view_scores=options.view_scores,
        inputs=[Path(word) for word in (options.videos, options.data, options.model) if word],
    )
    check_report(options.report)
    options.is_dump_wanted = options.dump is not None


def _check_data(options: argparse.Namespace) -> None:
    word = options.videos
    if Path(word).exists():
        if options.data is not None and Path(word).suffix not in {".yaml", ".yml"}:
            raise UsageError(
                f"{word} and --data {options.data} both name the videos; give one of them, or a recipe's name."
            )
        return
    try:
        recipe_path(word)
    except FileNotFoundError as error:
        near = f": {error}" if Path(word).name == word and not Path(word).suffix else "."
        raise UsageError(f"There is no file or folder {word}, and no recipe of this name{near}") from error
