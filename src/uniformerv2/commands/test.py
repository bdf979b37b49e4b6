"""``uniformerv2 test``: a checkpoint on a list of videos, many views a video, in one process or several."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from uniformerv2.commands.console import make_console
from uniformerv2.commands.options import UsageError, model_overrides
from uniformerv2.commands.processes import Place, ProcessGroup, own_place
from uniformerv2.commands.progress import Progress
from uniformerv2.commands.score_table import (
    as_json,
    failures_unlogged,
    list_failures,
    print_report,
    print_summary,
    unreadable,
)
from uniformerv2.commands.tested_videos import (
    TestVideos,
    in_head_order,
    read_classes,
    read_videos,
    recipe_views,
)
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.labels import ClassNames
from uniformerv2.evaluation.scores import Evaluation, views_in_words
from uniformerv2.evaluation.summary import Summary, summarize
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer, decoding_workers
from uniformerv2.inference.strips import strips_of
from uniformerv2.inference.testing import TestRun
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model

__all__ = ["run"]

IN_COMMAND: Final = (
    *("data", "root", "split", "only_classes", "max_videos", "classes", "head_classes", "preprocessing"),
    *("num_heads", "global_num_heads", "num_frames", "fusion_stages", "num_classes", "head_map"),
)
"""Options that decide the scores, and have no value of their own where they are not given."""


def run(options: argparse.Namespace) -> int:
    """Test; 1 where no video could be read.

    Args:
        options: As ``add_arguments`` made them.

    Raises:
        UsageError: There are no such videos or no such checkpoint, or they do not fit each other.
    """
    if options.devices == 1:
        return run_process(options)
    if own_place().world_size > 1:
        raise UsageError("--devices starts processes, but this one was started as one of several: leave it out.")
    with tempfile.TemporaryDirectory() if options.dump is None else nullcontext() as folder:
        shared = argparse.Namespace(**vars(options))
        shared.devices, shared.dump = 1, options.dump or Path(str(folder), "test.pkl")
        shared.is_dump_wanted = options.dump is not None
        return ProcessGroup(run_process, shared, options.devices).join()


def run_process(options: argparse.Namespace) -> int:
    """The share of this process; the first one prints."""
    place = own_place()
    console = make_console(stderr=options.json, quiet=place.rank > 0)
    model = _load(options)
    if options.head_classes:
        _name_head(model, options.head_classes)
    videos = read_videos(
        options.videos, data=options.data, root=options.root, classes=options.classes, split=options.split
    )
    records, matched = in_head_order(_subset(videos.records, options), model)
    scorer = _scorer(options, model, videos, records, place)
    test = _test_run(options, scorer, records, place, _info(options, videos, scorer))
    _announce(console, options, videos, scorer, test, matched)
    watched = Progress("test", test.num_videos, done=test.num_done) if place.rank == 0 else nullcontext()
    with watched as progress, failures_unlogged():
        for video in test.videos():
            if progress is not None:
                progress.advance(is_bad=not video.is_readable)
    evaluation = test.finish()
    return 0 if evaluation is None else _show(console, options, evaluation, videos)


def _load(options: argparse.Namespace) -> UniFormerV2:
    try:
        return load_model(options.model, **model_overrides(options)).merge_linear()
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def _test_run(
    options: argparse.Namespace,
    scorer: VideoScorer,
    records: list[VideoRecord],
    place: Place,
    info: Mapping[str, Any],
) -> TestRun:
    try:
        return TestRun(scorer, records, dump=options.dump, rank=place.rank, world_size=place.world_size, info=info)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _name_head(model: UniFormerV2, word: str) -> None:
    names = read_classes(word)
    if len(names) != model.num_classes:
        raise UsageError(f"--head-classes {word} has {len(names)} names, the checkpoint {model.num_classes} classes.")
    model.info = replace(model.info, class_names=names)


def _subset(records: Any, options: argparse.Namespace) -> list[VideoRecord]:
    kept = list(records)
    if options.only_classes:
        wanted = ClassNames(options.only_classes, called="--only-classes")
        kept = [record for record in kept if _is_of(record, wanted)]
    if not kept:
        raise UsageError(f"No video is of the classes {', '.join(options.only_classes)}.")
    return kept[: options.max_videos]


def _is_of(record: VideoRecord, wanted: ClassNames) -> bool:
    """By name, or by number where the list has no names."""
    named = record.label if record.label_name is None else record.label_name
    return any(wanted.find(str(name)) is not None for name in (named if isinstance(named, tuple) else (named,)))


def _scorer(
    options: argparse.Namespace,
    model: UniFormerV2,
    videos: TestVideos,
    records: list[VideoRecord],
    place: Place,
) -> VideoScorer:
    try:
        predictor = Predictor(
            model,
            options.preprocessing,
            device=_device(options.device, place),
            precision=options.precision,
            decoder=options.decoder,
            views_per_batch=options.views_per_batch,
        )
        own = predictor.preprocessing
        views = recipe_views(videos.recipe, own)
        num_clips = options.clips or views.get("num_clips", own.num_clips)
        num_crops = options.crops or views.get("num_crops", own.num_crops)
        predictor.preprocessing = replace(own, num_clips=num_clips, num_crops=num_crops)
        workers = options.workers
        if workers is None:
            workers = decoding_workers(predictor.device, num_devices=place.local_size)
        return VideoScorer(
            predictor,
            average=options.average,
            is_multi_label=options.multi_label
            or predictor.is_multi_label
            or any(isinstance(record.label, tuple) for record in records),
            keep_view_scores=options.view_scores,
            num_workers=workers,
        )
    except UsageError:
        raise
    except (ValueError, ModuleNotFoundError) as error:
        raise UsageError(str(error)) from error


def _device(device: str, place: Place) -> str:
    """A GPU for each process of a machine. Threads stay as many: on a CPU the last bit of a score depends on them."""
    if place.local_size > 1 and device == "auto" and torch.cuda.is_available():
        return f"cuda:{place.local_rank % torch.cuda.device_count()}"
    return device


def _info(options: argparse.Namespace, videos: TestVideos, scorer: VideoScorer) -> dict[str, Any]:
    """What the dump says beside the scores; nothing that differs between two runs of the same test."""
    preprocessing = scorer.predictor.preprocessing
    words = ["uniformerv2", "test", options.videos, "--model", options.model]
    words += ["--clips", str(preprocessing.num_clips), "--crops", str(preprocessing.num_crops)]
    words += ["--precision", scorer.predictor.precision]
    for name in IN_COMMAND:
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    words += ["--decoder", options.decoder] if options.decoder != "auto" else []
    words += ["--average", "logits"] if options.average == "logits" else []
    words += ["--multi-label"] if options.multi_label else []
    model = scorer.predictor.model
    return {
        "checkpoint": options.model,
        "source": model.info.source,
        "data": f"{videos.source} ({videos.split})",
        "preprocessing": preprocessing.to_dict(),
        "average": options.average,
        "precision": scorer.predictor.precision,
        "command": shlex.join(words),
    }


def _announce(
    console: Console,
    options: argparse.Namespace,
    videos: TestVideos,
    scorer: VideoScorer,
    test: TestRun,
    matched: str,
) -> None:
    predictor = scorer.predictor
    preprocessing = predictor.preprocessing
    kind = "sigmoids" if scorer.is_multi_label else "probabilities"
    mean = "logits" if scorer.average == "logits" else kind
    views = views_in_words(preprocessing.num_clips, preprocessing.num_crops)
    precision = {"bf16": "bfloat16", "fp32": "float32", "int8": "8-bit integers"}[predictor.precision]
    height, width = preprocessing.input_size
    lines = [
        f"checkpoint  {options.model}, {len(predictor.class_names)} classes; {predictor.device}, {precision}",
        f"videos      {len(test.records)} of {videos.source} ({videos.split}); {matched}",
        f"views       {views} of {preprocessing.num_frames} frames, {height} x {width}; mean of {mean}",
    ]
    console.print("\n".join(lines), markup=False)
    if test.is_finished:
        console.print(f"{options.dump} is the dump of this very test; nothing is measured anew.", markup=False)
    elif test.num_done:
        console.print(f"Going on: {test.num_done} of {test.num_videos} videos are done.", markup=False)


def _show(console: Console, options: argparse.Namespace, evaluation: Evaluation, videos: TestVideos) -> int:
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
        title, strips = f"Test on {Path(videos.source).name}", strips_of(record.path for record in videos.records)
        page = print_report(console, options, evaluation, summary, title=title, strips=strips)
    if options.json:
        sys.stdout.write(json.dumps(_content(options, evaluation, summary, page)) + os.linesep)
    return 1 if summary.num_unreadable == summary.num_videos else 0


def _content(
    options: argparse.Namespace, evaluation: Evaluation, summary: Summary, page: Path | None
) -> Mapping[str, Any]:
    written = {
        "dump": str(options.dump) if options.is_dump_wanted else None,
        "report": None if page is None else str(page),
    }
    content = {"metrics": summary.to_dict(), "unreadable": unreadable(evaluation), **written}
    return as_json({**content, "info": dict(evaluation.info)})
