from __future__ import annotations

import dataclasses
import itertools
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.clips_on_disk import FPS, frame_number, write_clip, write_folder
from uniformerv2.data import clips
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import (
    PackedRecords,
    SampleKey,
    TooManyFailuresError,
    VideoDataset,
    balanced_weights,
    collate,
)
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.media.decoding import VideoError, open_video

PREPROCESSING = Preprocessing(num_frames=4, image_size=32)
AUGMENTATION = TrainAugmentation(image_size=32)
PLAIN = TrainAugmentation(image_size=32, rand_augment=None, flip=0, area=(1, 1), aspect_ratio=(4 / 3, 4 / 3))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    return VideoRecord(str(path), label=1)


class TestTraining:
    @pytest.mark.parametrize("key", [SampleKey(3), SampleKey(3, epoch=2), SampleKey(3, epoch=2, draw=1)])
    def test_a_clip_is_what_seed_epoch_and_index_say(self, records, key):
        sample = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, seed=5)[key]
        rng = np.random.default_rng((5, key.epoch, key.index, key.draw, 0))
        with open_video(records[3].path) as video:
            (indices,) = PREPROCESSING.indices(len(video), rng=rng)
            expected, label = AUGMENTATION(video.frames(indices), records[3].label, rng=rng)
        assert sample.video.dtype == torch.uint8
        assert torch.equal(sample.video, expected)
        assert (int(sample.label), sample.index, sample.readable, sample.failures) == (label, 3, True, ())

    def test_seed_epoch_and_draw_change_the_clip(self, records):
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
        other = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, seed=1)
        found = [dataset[0], other[0], dataset[SampleKey(0, epoch=1)], dataset[SampleKey(0, draw=1)]]
        assert not any(torch.equal(a.video, b.video) for a, b in itertools.combinations(found, 2))
        assert torch.equal(dataset[0].video, dataset[SampleKey(0)].video)

    def test_repeats_are_different_clips_of_one_decode(self, records, monkeypatch):
        opened = []
        monkeypatch.setattr(clips, "open_video", lambda path, **how: opened.append(path) or open_video(path, **how))
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, repeats=3)
        samples = dataset[2]
        assert opened == [records[2].path]
        assert len(samples) == 3
        assert not any(torch.equal(a.video, b.video) for a, b in itertools.combinations(samples, 2))

    def test_a_mirrored_clip_has_the_mirrored_label(self, records):
        mirrored = dataclasses.replace(PLAIN, flip=1.0, flip_label_map={0: 7})
        assert int(VideoDataset(records, PREPROCESSING, augmentation=mirrored)[0].label) == 7
        several = [VideoRecord(records[0].path, label=(0, 2))]
        sample = VideoDataset(several, PREPROCESSING, augmentation=mirrored, num_classes=8)[0]
        assert sample.label.tolist() == [0, 0, 1, 0, 0, 0, 0, 1]

    def test_a_broken_video_is_replaced_and_noted(self, records, broken):
        dataset = VideoDataset([broken, *records], PREPROCESSING, augmentation=AUGMENTATION, repeats=2)
        first, second = dataset[0]
        assert first.index == second.index > 0
        assert int(first.label) == dataset.records[first.index].label
        (failure,) = first.failures
        assert (failure.index, failure.path, failure.kind, failure.attempt) == (0, broken.path, "not a video", 0)
        assert second.failures == ()
        assert torch.equal(dataset[0][0].video, first.video)

    def test_the_replacement_is_not_the_clip_of_its_own_turn(self, records, broken):
        dataset = VideoDataset([broken, *records], PREPROCESSING, augmentation=AUGMENTATION)
        sample = dataset[0]
        assert not torch.equal(sample.video, dataset[sample.index].video)

    def test_nothing_but_broken_videos_is_an_error_that_lists_them(self, tmp_path):
        dataset = VideoDataset([VideoRecord(str(tmp_path / "gone.mp4"))], PREPROCESSING, augmentation=AUGMENTATION)
        with pytest.raises(TooManyFailuresError, match=r"10 videos in a row(?s:.*)gone\.mp4: missing"):
            dataset[0]


class TestTesting:
    @pytest.mark.parametrize("protocol", [Preprocessing.official, Preprocessing.mmaction2])
    def test_views_are_the_published_ones(self, records, protocol):
        preprocessing = protocol(num_frames=4, image_size=32, num_clips=2, num_crops=3)
        sample = VideoDataset(records, preprocessing)[1]
        with open_video(records[1].path) as video:
            parts = [video.frames(indices) for indices in preprocessing.indices(len(video))]
        assert sample.video.shape == (6, 4, 3, 32, 32)
        assert torch.equal(preprocessing.normalize(sample.video), preprocessing.views(parts))
        assert sample.video.dtype == (torch.float32 if protocol == Preprocessing.official else torch.uint8)

    def test_separate_views_are_the_stacked_ones_one_by_one(self, records):
        stacked = VideoDataset(records, PREPROCESSING, num_clips=2, num_crops=3)
        separate = VideoDataset(records, PREPROCESSING, num_clips=2, num_crops=3, views="separate")
        assert len(separate) == 6 * len(stacked)
        for view in range(6):
            sample = separate[6 * 2 + view]
            assert sample.index == 2
            assert torch.equal(sample.video, stacked[2].video[view])

    @pytest.mark.parametrize("protocol", [Preprocessing.official, Preprocessing.mmaction2])
    @pytest.mark.parametrize("views", ["stacked", "separate"])
    def test_a_broken_video_is_said_to_be_and_never_replaced(self, records, broken, protocol, views):
        preprocessing = protocol(num_frames=4, image_size=32, num_clips=2, num_crops=3)
        dataset = VideoDataset([records[0], broken], preprocessing, views=views)
        good, bad = dataset[0], dataset[len(dataset) - 1]
        assert (bad.video.shape, bad.video.dtype) == (good.video.shape, good.video.dtype)
        assert not bad.video.any()
        assert (bad.index, bad.readable, int(bad.label)) == (1, False, 1)
        assert [(failure.index, failure.path) for failure in bad.failures] == [(1, broken.path)]
        batch = collate([good, bad])
        assert batch.readable.tolist() == [True, False]
        assert batch.failures == bad.failures


class TestSegments:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, (0, 20)),
            ({"start_frame": 5}, (5, 20)),
            ({"start_frame": 5, "end_frame": 9}, (5, 9)),
            ({"end_frame": 99}, (0, 20)),
            ({"start_seconds": 0.5, "end_seconds": 1.0}, (5, 10)),
            ({"start_seconds": 0.55, "end_seconds": 1.01}, (5, 11)),
            ({"start_seconds": 0.4999999}, (5, 20)),
            ({"start_seconds": 0.5, "end_seconds": 0.5001}, (5, 6)),
            ({"start_seconds": 1.9, "end_seconds": 60.0}, (19, 20)),
        ],
    )
    def test_seconds_become_frames(self, tmp_path, fields, expected):
        path = write_clip(tmp_path / "clip.mp4")
        with open_video(path) as video:
            assert video.fps == FPS
            assert video.segment_frames(**fields) == expected

    def test_only_frames_of_the_segment_are_shown(self, tmp_path):
        path = str(write_clip(tmp_path / "clip.mp4"))
        segment = VideoRecord(path, start_seconds=0.6, end_seconds=1.2)
        (view,) = VideoDataset([segment], PREPROCESSING)[0].video
        assert [frame_number(frame) for frame in view] == [6, 7, 8, 10]
        dataset = VideoDataset([segment], PREPROCESSING, augmentation=PLAIN)
        shown = {frame_number(frame) for epoch in range(30) for frame in dataset[SampleKey(0, epoch)].video}
        assert shown == set(range(6, 12))

    @pytest.mark.parametrize("fields", [{"start_seconds": 2.0}, {"start_frame": 20}])
    def test_a_segment_after_the_end_is_a_broken_video(self, tmp_path, fields):
        path = write_clip(tmp_path / "clip.mp4")
        with open_video(path) as video, pytest.raises(VideoError, match=r"its segment starts at .*20 frames, 2\.00 s"):
            video.segment_frames(**fields)
        assert not VideoDataset([VideoRecord(str(path), **fields)], PREPROCESSING)[0].readable

    def test_a_folder_of_frames_knows_no_seconds(self, tmp_path):
        for number in range(6):
            Image.new("RGB", (64, 48), (20 + 8 * number,) * 3).save(tmp_path / f"img_{number:05d}.png")
        sample = VideoDataset([VideoRecord(str(tmp_path), start_frame=2, end_frame=4)], PREPROCESSING)[0]
        assert [frame_number(frame) for frame in sample.video[0]] == [2, 2, 2, 3]
        (failure,) = VideoDataset([VideoRecord(str(tmp_path), start_seconds=1.0)], PREPROCESSING)[0].failures
        assert "give start_frame and end_frame" in failure.detail


class TestTimeout:
    def test_a_hanging_video_is_left_behind_and_not_tried_again(self, records, monkeypatch):
        tried = []

        def open_slowly(path, **how):
            tried.append(path)
            if path == records[0].path:
                time.sleep(3)
            return open_video(path, **how)

        monkeypatch.setattr(clips, "open_video", open_slowly)
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, timeout_seconds=0.3)
        start = time.monotonic()
        first, second = dataset[0], dataset[SampleKey(0, epoch=1)]
        assert time.monotonic() - start < 2
        assert [sample.failures[0].kind for sample in (first, second)] == ["timeout", "timeout"]
        assert first.index != 0 != second.index
        assert tried.count(records[0].path) == 1

    def test_what_is_no_video_error_is_not_hidden(self, records, monkeypatch):
        monkeypatch.setattr(clips, "open_video", lambda path, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            VideoDataset(records, PREPROCESSING)[0]


class TestLabels:
    def test_several_labels_are_multi_hot(self, records):
        several = [VideoRecord(records[0].path, label=label) for label in ((0, 2), 1, None)]
        dataset = VideoDataset(several, PREPROCESSING, num_classes=3)
        batch = collate([dataset[0], dataset[1], dataset[2]])
        assert batch.label.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
        assert batch.label.dtype == torch.float32

    def test_no_label_is_minus_one(self, records):
        assert int(VideoDataset([VideoRecord(records[0].path)], PREPROCESSING)[0].label) == -1

    def test_balanced_weights_make_classes_equal(self):
        labels = [0, 0, 0, 1, (1, 2), None]
        weights = balanced_weights([VideoRecord("x", label=label) for label in labels])
        assert weights == [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1, 1]


class TestBatch:
    def test_clips_of_one_video_are_not_neighbours(self, records):
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, repeats=2)
        items = [dataset[index] for index in (4, 0, 1)]
        batch = collate(items)
        assert batch.index.tolist() == [4, 0, 1, 4, 0, 1]
        assert batch.video.shape == (6, 4, 3, 32, 32)
        assert torch.equal(batch.video[3], items[0][1].video)

    def test_it_moves_whole(self, records):
        dataset = VideoDataset(records, PREPROCESSING)
        batch = collate([dataset[0], dataset[1]]).to("meta")
        tensors = (batch.video, batch.label, batch.index, batch.readable)
        assert {tensor.device.type for tensor in tensors} == {"meta"}


class TestShown:
    def test_a_sample_is_plotted(self, records, broken):
        pytest.importorskip("matplotlib")
        testing = VideoDataset([records[1], broken], replace(PREPROCESSING, num_clips=2))
        figure = testing.plot(0, num_frames=3)
        shown = [axes.images[0].get_array() for axes in figure.axes]
        views = testing[0].video
        assert len(shown) == 2 * 3
        assert np.array_equal(shown[0], views[0, 0].permute(1, 2, 0).round().to(torch.uint8))
        assert np.array_equal(shown[-1], views[-1, -1].permute(1, 2, 0).round().to(torch.uint8))
        assert Path(records[1].path).name in figure.get_suptitle()
        assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["clip 1, crop 1", "clip 2, crop 1"]
        separate = VideoDataset([records[1]], replace(PREPROCESSING, num_clips=2, num_crops=3), views="separate")
        assert separate.plot(4).axes[0].get_ylabel() == "clip 2, crop 2"
        assert "cannot be read" in testing.plot(1).get_suptitle()
        training = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, repeats=2)
        assert len(training.plot(SampleKey(0, epoch=1)).axes) == 2 * PREPROCESSING.num_frames

    def test_what_is_printed_is_short(self, records):
        dataset = VideoDataset(records, PREPROCESSING)
        assert repr(dataset).startswith(f"VideoDataset({len(records)} records; testing, 1 view [")
        assert repr(dataset[0]).startswith("VideoSample(torch.")
        assert "label=[" in repr(collate([dataset[0], dataset[1]]))
        record = VideoRecord("a.mp4", label=0, start_seconds=1.5, end_seconds=2.0)
        assert repr(record) == "VideoRecord('a.mp4', label=0, start_seconds=1.5, end_seconds=2.0)"


class TestRecords:
    def test_they_come_back_as_they_were(self, records):
        odd = VideoRecord("v", label=(1, 2), label_name=("a", "b"), start_seconds=0.1, extra={"caption": "é"})
        packed = PackedRecords([*records, odd])
        assert len(packed) == len(records) + 1
        assert list(packed) == [*records, odd]
        assert packed[-1] == odd
        assert packed[1:3] == records[1:3]
        with pytest.raises(IndexError):
            packed[len(packed)]

    def test_workers_get_a_handle_not_a_copy(self):
        dataset = VideoDataset([VideoRecord(f"videos/{n:08d}.mp4", label=1) for n in range(20_000)], PREPROCESSING)
        assert len(ForkingPickler.dumps(dataset)) < 5_000
        assert len(pickle.dumps(list(dataset.records))) > 500_000


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"views": "both"}, "views is 'both'"),
            ({"num_crops": 2}, "num_crops is 2"),
            ({"num_clips": 0}, "num_clips is 0"),
            ({"seed": -1}, "seed is -1"),
            ({"repeats": 2}, "repeats is 2; .*only with an augmentation"),
            ({"timeout_seconds": 0}, "timeout_seconds is 0"),
            ({"augmentation": AUGMENTATION, "num_clips": 2}, "are for testing"),
            ({"augmentation": AUGMENTATION, "views": "separate"}, "are for testing"),
            ({"augmentation": TrainAugmentation(image_size=64)}, "image_size is 64, the preprocessing's 32"),
            ({"num_classes": 1}, "has label 1; num_classes=1 allows 0 to 0"),
        ],
    )
    def test_arguments(self, records, fields, message):
        with pytest.raises(ValueError, match=message):
            VideoDataset(records, PREPROCESSING, **fields)

    def test_no_records(self):
        with pytest.raises(ValueError, match="no records"):
            VideoDataset([], PREPROCESSING)

    def test_several_labels_without_a_number_of_classes(self):
        with pytest.raises(ValueError, match=r"a.mp4 has several labels, \(0, 1\); give num_classes"):
            VideoDataset([VideoRecord("a.mp4", label=(0, 1))], PREPROCESSING)

    @pytest.mark.parametrize("index", [-1, 8])
    def test_an_index_outside(self, records, index):
        with pytest.raises(IndexError, match="the 8 items are 0 to 7"):
            VideoDataset(records, PREPROCESSING)[index]


def test_threads_may_share_a_dataset(records):
    dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(dataset.__getitem__, range(len(records))))
    assert all(torch.equal(sample.video, dataset[index].video) for index, sample in enumerate(together))
