"""The test loop: the predictor's numbers, every video once, whatever breaks and whenever it is stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.evaluation.made_evaluations import assert_same
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, make
from uniformerv2.data import clips
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.dumps import read_dump
from uniformerv2.evaluation.journal import journal_folder
from uniformerv2.inference import scoring
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.scoring import VideoScorer, decoding_workers, middle_view
from uniformerv2.inference.testing import TestRun
from uniformerv2.media.video_file import VideoFile
from uniformerv2.model.config import CheckpointInfo


@pytest.fixture(scope="module")
def model():
    network = make(MOTION)
    network.info = CheckpointInfo(class_names=("a", "b", "c", "d", "e"))
    return network


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Seven videos, the third and the last of them broken."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{index}.mp4", seed=index) for index in range(7)]
    paths[2].write_bytes(b"no video")
    paths[6].unlink()
    return [VideoRecord(str(path), label=index % 5, id=path.name) for index, path in enumerate(paths)]


def scorer_of(model, *, clips=3, crops=3, views_per_batch=None, **options):
    predictor = Predictor(
        model, num_clips=clips, num_crops=crops, precision="fp32", device="cpu", views_per_batch=views_per_batch
    )
    return VideoScorer(predictor, **{"num_workers": 0, **options})


def scored(run):
    """Run it to the end."""
    list(run.videos())
    return run.finish()


@pytest.mark.parametrize("views_per_batch", [1, 4, 100])
def test_scores_are_the_predictors(model, records, views_per_batch):
    scorer = scorer_of(model, views_per_batch=views_per_batch, keep_view_scores=True)
    found = scored(TestRun(scorer, records))
    single = Predictor(model, num_clips=1, num_crops=1, precision="fp32", device="cpu")
    for video in found.videos:
        if video.index in {2, 6}:
            continue
        prediction = scorer.predictor(video.path)
        np.testing.assert_allclose(video.scores, prediction.scores, atol=1e-6)
        np.testing.assert_allclose(video.view_scores, prediction.view_scores, atol=1e-6)
        np.testing.assert_allclose(video.one_view_scores, single(video.path).scores, atol=1e-6)
        assert video.duration_seconds == pytest.approx(2.0)
    assert (found.num_clips, found.num_crops, found.class_names) == (3, 3, ("a", "b", "c", "d", "e"))


def test_a_broken_video_is_listed_and_never_replaced(model, records):
    found = scored(TestRun(scorer_of(model), records))
    assert [video.index for video in found.videos] == list(range(7))
    assert [video.label for video in found.videos] == [record.label for record in records]
    assert [video.index for video in found.videos if not video.is_readable] == [2, 6]
    assert found.videos[2].error.startswith("not a video: ")
    assert not found.videos[2].scores.any()
    assert found.videos[2].one_view_scores is None


def test_a_score_that_is_no_number_is_listed_and_never_counted(model, records):
    scorer = scorer_of(model, clips=1, crops=1)
    logits, calls = scorer.predictor.logits, []

    def first_broken(pixels):
        calls.append(logits(pixels))
        return calls[-1] * float("nan") if len(calls) == 1 else calls[-1]

    scorer.predictor.logits = first_broken
    found = scored(TestRun(scorer, records[:2]))
    assert [video.is_readable for video in found.videos] == [False, True]
    assert found.videos[0].error.startswith("no score: ")
    assert not found.videos[0].scores.any()


def test_a_share_without_a_readable_video_is_still_listed(model, records):
    broken = [records[2], records[6], records[2]]
    found = scored(TestRun(scorer_of(model), broken))
    assert [video.is_readable for video in found.videos] == [False] * 3


def test_logits_are_averaged_on_request(model, records):
    pixels = torch.randint(0, 255, (3, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    for multi_label in (False, True):
        scorer = scorer_of(model, clips=3, crops=1, average="logits", is_multi_label=multi_label)
        logits = model(scorer.predictor.preprocessing.normalize(pixels)).detach().mean(0)
        wanted = logits.sigmoid() if multi_label else logits.softmax(-1)
        scores = scorer._score(scorer.predictor.logits(pixels))["scores"]
        np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-6)


def test_several_classes_are_scored_by_sigmoids(model, records):
    several = [replace(record, label=(0, 3)) for record in records[:2]]
    found = scored(TestRun(scorer_of(model, is_multi_label=True), several))
    assert found.is_multi_label
    assert found.videos[0].label == (0, 3)
    assert found.scores.sum(axis=1) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
@pytest.mark.parametrize("suffix", [".pkl", ".parquet"])
def test_any_number_of_processes_gives_the_same_dump(model, records, tmp_path, world_size, suffix):
    def run(rank, size, dump):
        test = TestRun(scorer_of(model), records, dump=dump, rank=rank, world_size=size)
        return [video.index for video in test.videos()], test

    alone, one = run(0, 1, tmp_path / f"one{suffix}")
    one.finish()
    shares = [run(rank, world_size, tmp_path / f"many{suffix}") for rank in reversed(range(world_size))]
    assert sorted(index for share, _ in shares for index in share) == alone == list(range(7))
    finished = [test.finish() for _, test in shares]
    assert finished[:-1] == [None] * (world_size - 1)
    assert_same(finished[-1], read_dump(tmp_path / f"one{suffix}"))
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"many{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"many{suffix}", f"one{suffix}"]


def test_a_stopped_test_goes_on_with_any_number_of_processes(model, records, tmp_path):
    whole = scored(TestRun(scorer_of(model), records))
    dump = tmp_path / "dump.pkl"
    stopped = TestRun(scorer_of(model), records, dump=dump).videos()
    assert [next(stopped).index for _ in range(3)] == [0, 1, 2]
    stopped.close()
    assert not dump.exists()
    first, second = (TestRun(scorer_of(model), records, dump=dump, rank=rank, world_size=2) for rank in (0, 1))
    assert (first.num_done, first.num_videos, second.num_done, second.num_videos) == (2, 4, 1, 3)
    assert [video.index for video in second.videos()] == [3, 5]
    assert [video.index for video in first.videos()] == [4, 6]
    assert_same(first.finish(), whole)
    assert not journal_folder(dump).exists()


def test_stopped_with_views_of_several_videos_in_a_batch_none_is_lost_or_scored_twice(model, records, tmp_path):
    whole = scored(TestRun(scorer_of(model), records))
    dump = tmp_path / "dump.pkl"
    stopped = TestRun(scorer_of(model, views_per_batch=20), records, dump=dump).videos()
    assert [next(stopped).index for _ in range(3)] == [0, 1, 2]  # two videos and two views of the next filled a batch
    stopped.close()
    again = TestRun(scorer_of(model, views_per_batch=20), records, dump=dump)
    assert again.num_done == 3
    assert [video.index for video in again.videos()] == [3, 4, 5, 6]
    found = again.finish()
    for video, wanted in zip(found.videos, whole.videos, strict=True):
        assert (video.index, video.path, video.error) == (wanted.index, wanted.path, wanted.error)
        np.testing.assert_allclose(video.scores, wanted.scores, atol=1e-6)


def test_a_finished_test_is_not_measured_again(model, records, tmp_path):
    dump = tmp_path / "dump.parquet"
    whole = scored(TestRun(scorer_of(model), records, dump=dump))
    for rank in (0, 1):
        again = TestRun(scorer_of(model), records, dump=dump, rank=rank, world_size=2)
        assert again.is_finished
        assert list(again.videos()) == []
        if rank == 0:
            assert_same(again.finish(), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["dump.parquet"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_test_is_refused(model, records, tmp_path, is_finished):
    dump = tmp_path / "dump.pkl"
    run = TestRun(scorer_of(model), records, dump=dump)
    if is_finished:
        scored(run)
    else:
        next(run.videos())
    other = make(replace(MOTION, num_classes=5))
    with torch.no_grad():
        other.head.bias.add_(1)
    other.info = model.info
    for scorer, videos, said in (
        (scorer_of(model, clips=1), records, "num_clips was 3, is 1"),
        (scorer_of(model), records[:6], r"videos was 7 \(.*\), is 6"),
        (scorer_of(model), [replace(records[0], label=4), *records[1:]], "videos was"),
        (scorer_of(other), records, "checkpoint was"),
        (scorer_of(model, average="logits"), records, "average was softmax, is logits"),
    ):
        with pytest.raises(ValueError, match=said):
            TestRun(scorer, videos, dump=dump)
    assert dump.exists() == is_finished


def test_a_segment_is_as_long_as_it_says(model, records):
    first = records[0]
    segments = [
        replace(first, start_seconds=0.5, end_seconds=1.25),
        replace(first, start_frame=0, end_frame=6),
        replace(first, start_seconds=0.5),
    ]
    found = scored(TestRun(scorer_of(model, clips=1, crops=1), segments))
    assert [video.duration_seconds for video in found.videos] == pytest.approx([0.75, 0.5, 1.5])
    assert not np.array_equal(found.videos[0].scores, found.videos[1].scores)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_video_is_opened_once_and_by_the_worker_where_there_is_one(model, records, monkeypatch, num_workers):
    opened, open_video = [], clips.open_video
    monkeypatch.setattr(clips, "open_video", lambda path, **given: opened.append(path) or open_video(path, **given))
    constructed, construct = [], VideoFile.__init__
    monkeypatch.setattr(VideoFile, "__init__", lambda self, *a, **k: constructed.append(a) or construct(self, *a, **k))
    found = scored(TestRun(scorer_of(model, num_workers=num_workers), records))
    readable = [record.path for record in records[:2] + records[3:6]]
    assert [video.path for video in found.videos if video.duration_seconds] == readable
    assert all(video.duration_seconds == pytest.approx(2.0) for video in found.videos if video.is_readable)
    assert opened == ([] if num_workers else [record.path for record in records])
    assert len(constructed) == len(opened)


def test_the_middle_view_is_in_the_middle():
    first = {"crop_order": "first_middle_last", "num_crops": 3}
    last = {"crop_order": "first_last_middle", "num_crops": 3}
    for views, wanted in (({}, 0), (first, 1), (last, 2), ({**last, "num_clips": 3}, 5), ({"num_clips": 4}, 1)):
        assert middle_view(Preprocessing(**views)) == wanted


def test_wrong_arguments(model, records):
    scorer = scorer_of(model)
    with pytest.raises(ValueError, match="average is 'mean'"):
        scorer_of(model, average="mean")
    with pytest.raises(ValueError, match="no videos"):
        TestRun(scorer, [])
    with pytest.raises(ValueError, match="has the label 5, the network has 5 classes"):
        TestRun(scorer, [replace(records[0], label=5)])
    with pytest.raises(ValueError, match="rank is 2"):
        TestRun(scorer, records, dump="dump.pkl", rank=2, world_size=2)
    with pytest.raises(ValueError, match="meet in the journal"):
        TestRun(scorer, records, world_size=2)
    with pytest.raises(ValueError, match="A dump is called"):
        TestRun(scorer, records, dump="dump.txt")


def test_the_fingerprint_is_plain_and_repeats(model, records):
    prints = [json.dumps(scorer_of(model).fingerprint(records)) for _ in range(2)]
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("device", "cores", "num_devices", "wanted"),
    [("cpu", 1, 1, 1), ("cpu", 2, 1, 1), ("cpu", 4, 1, 3), ("cuda", 4, 1, 4), ("cuda", 16, 4, 4), ("cuda", 64, 2, 8)],
)
def test_a_network_on_the_cpu_keeps_a_core(monkeypatch, device, cores, num_devices, wanted):
    monkeypatch.setattr(scoring, "available_cores", lambda: cores)
    assert decoding_workers(torch.device(device), num_devices=num_devices) == wanted
