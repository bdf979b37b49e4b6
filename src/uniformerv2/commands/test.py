"""``uniformerv2 test``: a checkpoint on a list of videos, many views per video, in one process or several."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import (
    add_bootstrap,
    add_json,
    add_model,
    add_model_overrides,
    add_test_outputs,
    add_views,
    check_at_least,
    check_exists,
    check_model,
    check_test_outputs,
    given,
    model_overrides,
)
from uniformerv2.core.messages import UsageError, counted, usage_errors
from uniformerv2.recipes import read_recipe, recipe_path

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.evaluation.scores import Evaluation
    from uniformerv2.evaluation.summary import Summary
    from uniformerv2.inference.testing import TestRun

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 test val.csv --model runs/mine --dump scores.parquet --report pages/val"
LOADS: Final = "uniformerv2.inference.testing"
IN_COMMAND: Final = (
    *("data", "root", "split", "only_classes", "max_videos", "classes", "head_classes", "preprocessing"),
    *("num_heads", "global_num_heads", "num_frames", "fusion_stages", "num_classes", "head_map"),
)
"""Options that decide the scores, and have no value of their own where they are not given."""
YAML: Final = frozenset({".yaml", ".yml"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("videos", metavar="DATA|RECIPE", help="list, folder, folder of lists; recipe's name or YAML")
    add_test_outputs(parser)
    parser.add_argument(
        "--view-scores", dest="keep_view_scores", action="store_true", help="keep the scores of each view in the dump"
    )
    add_json(parser)
    group = parser.add_argument_group("which videos, and which class is which")
    group.add_argument("--data", metavar="LIST", help="videos to test on, where a recipe is given")
    group.add_argument("--root", metavar="FOLDER", help="where the relative paths of the list start")
    group.add_argument("--split", metavar="NAME", help="train, val, test, all (default: test, else val)")
    group.add_argument("--only-classes", nargs="+", metavar="NAME", help="leave out the videos of other classes")
    group.add_argument("--max-videos", type=int, metavar="N", help="test on the first N videos only")
    group.add_argument("--classes", metavar="SPACE|FILE", help="names of the list's class numbers")
    group.add_argument("--head-classes", metavar="SPACE|FILE", help="names of the model's classes")
    group = add_model(parser)
    add_views(group)
    group.add_argument("--devices", type=int, default=1, metavar="N", help="processes, each with a GPU of its own")
    group.add_argument("--views-per-batch", type=int, metavar="N", help="of several videos (default: CPU 1, else 8)")
    group.add_argument(
        "--workers", dest="num_workers", type=int, metavar="N", help="processes that decode, for each device"
    )
    group.add_argument(
        "--average", default="softmax", choices=("softmax", "logits"), metavar="NAME", help="softmax, logits"
    )
    about = "sigmoid scores, mAP (default: as list or model)"
    group.add_argument("--multi-label", dest="is_multi_label", action="store_true", default=None, help=about)
    add_bootstrap(group)
    add_model_overrides(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong.

    Raises:
        UsageError: There is no such checkpoint, an option is out of range, or a file must not be written.
    """
    check_at_least(1, options, "clips", "max_videos", "devices", "views_per_batch")
    check_at_least(0, options, "workers", "resamples", "seed")
    options.is_recipe = _is_recipe(options)
    for path in filter(None, (options.data, options.root)):
        check_exists(Path(path))
    check_model(options.model)
    if options.dump is None and options.keep_view_scores:
        raise UsageError("--view-scores stand in a dump: give --dump FILE.")
    inputs = [Path(word) for word in (options.videos, options.data, options.model) if word]
    check_test_outputs(options, view_scores=options.keep_view_scores, inputs=inputs)
    options.is_dump_wanted = options.dump is not None


def _is_recipe(options: argparse.Namespace) -> bool:
    word = options.videos
    if Path(word).exists():
        is_recipe = Path(word).suffix in YAML
        if options.data is not None and not is_recipe:
            raise UsageError(
                f"{word} and --data {options.data} both name the videos; give one of them, or a recipe's name."
            )
        return is_recipe
    try:
        recipe_path(word)
    except FileNotFoundError as error:
        near = f": {error}" if Path(word).name == word and not Path(word).suffix else "."
        raise UsageError(f"There is no file or folder {word}, and no recipe of this name{near}") from error
    return True


def run(options: argparse.Namespace) -> int:
    """Test; 1 where no video could be read.

    Raises:
        UsageError: There are no such videos or no such checkpoint, or they do not fit each other.
    """
    from uniformerv2.core.processes import ProcessGroup, own_place

    if options.devices == 1:
        return run_process(options)
    if own_place().world_size > 1:
        raise UsageError("--devices starts processes, but this one was started as one of several: leave it out.")
    with tempfile.TemporaryDirectory() if options.dump is None else nullcontext() as folder:
        shared = argparse.Namespace(**vars(options))
        shared.devices, shared.dump = 1, options.dump or Path(str(folder), "test.pkl")
        return ProcessGroup(run_process, shared, options.devices).join()


def run_process(options: argparse.Namespace) -> int:
    """The share of this process; the first one prints."""
    from uniformerv2.core.console import Progress, make_console
    from uniformerv2.core.processes import cleaning_up_at_sigterm, own_place
    from uniformerv2.inference.engines import load_network
    from uniformerv2.inference.testing import failures_unlogged, prepare_test

    place = own_place()
    console = make_console(stderr=options.json, quiet=place.rank > 0)
    with usage_errors():
        model = load_network(options.model, **model_overrides(options))
    recipe = read_recipe(options.videos) if options.is_recipe else None
    own = {"model": model, "source": options.videos, "recipe": recipe, "place": place}
    test = prepare_test(**{**given(options, prepare_test), **own})
    test.info |= {"checkpoint": options.model, "command": _command(options, test)}
    _announce(console, options, test)
    started = time.monotonic()
    bar = Progress("test", test.num_videos, done=test.num_done, is_quiet=place.rank > 0)
    with cleaning_up_at_sigterm(), bar, failures_unlogged():
        for video in test.videos():
            bar.advance(is_bad=not video.is_readable)
    evaluation = test.finish()
    seconds = time.monotonic() - started if test.num_done == 0 else None
    return 0 if evaluation is None else _show(console, options, evaluation, test, seconds)


def _command(options: argparse.Namespace, test: TestRun) -> str:
    """The command, for the dump; nothing that differs between two runs of the same test."""
    predictor = test.scorer.predictor
    preprocessing = predictor.preprocessing
    words = ["uniformerv2", "test", options.videos, "--model", options.model]
    words += ["--clips", str(preprocessing.num_clips), "--crops", str(preprocessing.num_crops)]
    words += ["--precision", predictor.precision]
    words += ["--engine", predictor.engine.name] if predictor.engine.name != "torch" else []
    for name in IN_COMMAND:
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    words += ["--decoder", options.decoder] if options.decoder != "auto" else []
    words += ["--average", "logits"] if options.average == "logits" else []
    words += ["--multi-label"] if options.is_multi_label else []
    return shlex.join(words)


def _announce(console: Console, options: argparse.Namespace, test: TestRun) -> None:
    from uniformerv2.evaluation.scores import views_in_words
    from uniformerv2.zoo.exported import ExportedNetwork

    predictor, videos = test.scorer.predictor, test.tested
    assert videos is not None  # prepare_test has read them
    preprocessing = predictor.preprocessing
    kind = "sigmoids" if test.scorer.is_multi_label else "probabilities"
    mean = "logits" if test.scorer.average == "logits" else kind
    views = views_in_words(preprocessing.num_clips, preprocessing.num_crops)
    computed = [str(predictor.device), {"bf16": "bfloat16", "fp32": "float32"}[predictor.precision]]
    if isinstance(predictor.network, ExportedNetwork):
        computed += [predictor.engine.name, f"exported in {predictor.network.precision}"]
    height, width = preprocessing.input_size
    lines = [
        f"checkpoint  {options.model}, {len(predictor.class_names)} classes; {', '.join(computed)}",
        f"videos      {len(test.records)} of {videos.source} ({videos.split}); {videos.matched}",
        f"views       {views} of {preprocessing.num_frames} frames, {height} x {width}; mean of {mean}",
    ]
    console.print("\n".join(lines), markup=False)
    if test.is_finished:
        console.print(f"{options.dump} is the dump of this very test; nothing is measured anew.", markup=False)
    elif test.num_done:
        console.print(f"Resumed: {test.num_done} of {counted(test.num_videos, 'video')} are done.", markup=False)


def _processor(test: TestRun) -> str:
    import torch

    from uniformerv2.core.devices import processor_name

    device = test.scorer.predictor.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def _show(
    console: Console, options: argparse.Namespace, evaluation: Evaluation, test: TestRun, seconds: float | None
) -> int:
    from uniformerv2.commands.score_table import commands_of, list_failures, print_summary
    from uniformerv2.evaluation.page import facts_of
    from uniformerv2.evaluation.report import write_report
    from uniformerv2.evaluation.summary import summarize
    from uniformerv2.inference.strips import strips_of

    summary = summarize(evaluation, num_resamples=options.resamples, seed=options.seed)
    console.print()
    print_summary(console, {"": summary})
    if summary.num_labelled < summary.num_videos:
        words = f"{summary.num_videos - summary.num_labelled} videos have no label, and are not in the numbers."
        console.print(words, markup=False)
    list_failures(console, evaluation)
    if options.is_dump_wanted:
        console.print(f"Scores: {options.dump}", markup=False)
    page = None
    if options.report is not None:
        assert test.tested is not None  # prepare_test has read them
        page = write_report(
            evaluation,
            options.report,
            title=f"Test on {Path(test.tested.source).name}",
            summary=summary,
            strips=strips_of(record.path for record in test.tested.records),
            facts=facts_of(datetime.now(UTC), processor=_processor(test), seconds=seconds),
            commands=commands_of([evaluation], options),
            model=str(options.model),
        )
        console.print(f"Report: {page}", markup=False)
    if options.json:
        sys.stdout.write(json.dumps(_content(options, evaluation, summary, page)) + os.linesep)
    return 1 if summary.num_unreadable == summary.num_videos else 0


def _content(
    options: argparse.Namespace, evaluation: Evaluation, summary: Summary, page: Path | None
) -> Mapping[str, Any]:
    from uniformerv2.commands.score_table import as_json, unreadable

    written = {
        "dump": str(options.dump) if options.is_dump_wanted else None,
        "report": None if page is None else str(page),
    }
    content = {"metrics": summary.to_dict(), "unreadable": unreadable(evaluation), **written}
    return as_json({**content, "info": dict(evaluation.info)})
