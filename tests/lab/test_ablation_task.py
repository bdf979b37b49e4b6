"""Videos forward and reversed: the same frames, read by a real decoder from real files."""

from __future__ import annotations

import pytest
import torch

from tests.data.clips_on_disk import frame_number, write_clip
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import SampleKey, VideoDataset
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.lab.ablation_task import DIRECTIONS, both_directions, read_directions

PREPROCESSING = Preprocessing(num_frames=4, image_size=32)
PLAIN = TrainAugmentation(image_size=32, rand_augment=None, area=(0.9, 1.0), flip=0.0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two videos of 20 frames, of two classes; and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video")
    clips = [write_clip(folder / f"clip_{number}.mp4", base=20 + number) for number in range(2)]
    return [VideoRecord(str(path), label=5, label_name="dunk") for path in (*clips, broken)]


def dataset(records, **options):
    return read_directions(VideoDataset(both_directions(records), PREPROCESSING, **options))


def frames_of(video):
    return [frame_number(frame) for frame in video]


def test_each_video_is_there_twice_and_its_class_is_gone(records):
    found = both_directions(records)
    assert [record.path for record in found] == [record.path for record in records for _ in range(2)]
    assert [record.label for record in found] == [0, 1] * 3
    assert [record.label_name for record in found] == list(DIRECTIONS) * 3
    assert all(record.extra == {} for record in records)


def test_in_testing_both_have_the_very_same_frames(records):
    videos = dataset(records[:2], num_clips=2)
    for index in (0, 2):
        forward, backward = videos[index], videos[index + 1]
        assert (int(forward.label), int(backward.label)) == (0, 1)
        assert torch.equal(forward.video.flip(1), backward.video)  # [V, T, C, h, w]
        assert frames_of(forward.video[0]) == sorted(frames_of(forward.video[0]))
        assert len(set(frames_of(forward.video[0]))) == 4


def test_in_training_the_direction_is_the_label_whatever_is_drawn(records):
    videos = dataset(records[:2], augmentation=PLAIN)
    for epoch in range(4):
        for index in range(4):
            sample = videos[SampleKey(index, epoch)]
            numbers = frames_of(sample.video)
            assert numbers == sorted(numbers, reverse=bool(sample.label))
            assert len(set(numbers)) > 1


def test_what_takes_the_place_of_a_broken_video_has_its_own_direction(records):
    videos = dataset(records, augmentation=PLAIN)
    seen = set()
    for epoch in range(8):
        for index in (4, 5):
            sample = videos[SampleKey(index, epoch)]
            numbers = frames_of(sample.video)
            assert sample.index != index
            assert numbers == sorted(numbers, reverse=bool(sample.label))
            seen.add((index, int(sample.label)))
    assert len(seen) == 4  # both directions in place of both


def test_a_broken_video_is_unreadable_in_both_directions(records):
    videos = dataset(records)
    assert [videos[index].readable for index in (4, 5)] == [False, False]


def test_records_without_a_direction_are_read_as_they_are(records):
    plain = VideoDataset(records[:2], PREPROCESSING)
    expected = plain[0].video
    assert torch.equal(read_directions(plain)[0].video, expected)
