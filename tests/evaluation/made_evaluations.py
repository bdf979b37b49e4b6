"""Evaluations out of random numbers."""

from __future__ import annotations

import numpy as np

from uniformerv2.evaluation.scores import SEGMENT, Evaluation, VideoScores

SEGMENTS = ({}, {"start_seconds": 0.1, "end_seconds": 2.0}, {"start_frame": 0, "end_frame": 7}, {"start_seconds": 3.0})


def make_evaluation(
    *,
    num_videos=40,
    num_classes=7,
    multi_label=False,
    unreadable=(),
    unlabelled=(),
    no_class=(),
    segments=False,
    view_scores=False,
    seed=0,
    label_seed=0,
    **fields,
) -> Evaluation:
    """Probabilities that favour the label; 2 clips x 3 crops; the labels are those of ``label_seed``."""
    rng, chance = np.random.default_rng(seed), np.random.default_rng(label_seed)
    videos = []
    for index in range(num_videos):
        several = tuple(int(number) for number in np.flatnonzero(chance.random(num_classes) < 0.3)) or (0,)
        label = several if multi_label else int(chance.integers(num_classes))
        logits = rng.normal(size=(6, num_classes))
        logits[:, list(np.atleast_1d(label))] += 1.0
        odds = np.exp(logits)
        views = (odds / (1 + odds if multi_label else odds.sum(axis=1, keepdims=True))).astype(np.float32)
        is_read = index not in unreadable
        videos.append(
            VideoScores(
                index=index,
                path=f"folder/ü {index}.mp4",
                id=f"id{index}",
                label=None if index in unlabelled else () if index in no_class else label,
                scores=views.mean(axis=0) if is_read else np.zeros(num_classes, np.float32),
                view_scores=views if view_scores and is_read else None,
                one_view_scores=views[1] if is_read else None,
                error="" if is_read else 'truncated: no "end", 3 bytes',
                duration_seconds=1.5 * index if is_read else None,
                **(SEGMENTS[index % 4] if segments else {}),
            )
        )
    names = tuple(f"class, {number}" for number in range(num_classes))
    given = {"class_names": names, "num_clips": 2, "num_crops": 3, "info": {"checkpoint": "demo"}, **fields}
    return Evaluation(videos=tuple(videos), is_multi_label=multi_label, **given)


def assert_same(found: Evaluation, wanted: Evaluation, *, one_view=True) -> None:
    """Equal to the last bit."""
    assert found.class_names == wanted.class_names
    assert (found.num_clips, found.num_crops) == (wanted.num_clips, wanted.num_crops)
    assert (found.is_multi_label, dict(found.info)) == (wanted.is_multi_label, dict(wanted.info))
    assert len(found.videos) == len(wanted.videos)
    for video, other in zip(found.videos, wanted.videos, strict=True):
        for name in ("index", "path", "id", "label", "error", "duration_seconds", *SEGMENT):
            mine, theirs = getattr(video, name), getattr(other, name)
            assert (mine, type(mine)) == (theirs, type(theirs)), name
        names = ("scores", "view_scores", "one_view_scores") if one_view else ("scores",)
        for name in names:
            mine, theirs = getattr(video, name), getattr(other, name)
            assert (mine is None) == (theirs is None), name
            if mine is not None:
                assert mine.dtype == np.float32
                assert np.array_equal(mine, theirs), name
