"""A training set with one damaged file in twenty: the epoch ends, the counts are exact, testing lists exactly those."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from uniformerv2.data.annotations import read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import TooManyFailuresError, VideoDataset
from uniformerv2.data.epoch_sampler import EpochSampler
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing

PREPROCESSING = Preprocessing(num_frames=2, image_size=32)
AUGMENTATION = TrainAugmentation(image_size=32, rand_augment=None)

pytestmark = pytest.mark.timeout(900)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def not_what_its_name_says(path: Path) -> None:
    path.write_text("<html><body>404: this video is no longer available</body></html>")


def forbidden(path: Path) -> None:
    """The system does not let us read it; root may read everything but a link to itself."""
    if os.geteuid() != 0:
        path.chmod(0)
        return
    path.unlink()
    path.symlink_to(path.name)


DAMAGES = {
    cut: "truncated",
    empty: "empty",
    noise: "not a video",
    not_what_its_name_says: "not a video",
    forbidden: "unreadable",
    Path.unlink: "missing",  # in the middle of the epoch
}


@pytest.fixture
def damaged(shared, tmp_path, request):
    """Copies of clips, one in twenty of which is to be damaged: records, and the damage by number."""
    records = read_records(shared("data/ucf101_6class"))[:: request.param]
    copies = []
    for number, record in enumerate(records):
        # A name that lies about the container does no harm: what is inside counts.
        path = tmp_path / f"{number:04d}{'.avi' if number % 50 == 7 else '.mp4'}"
        shutil.copyfile(record.path, path)
        copies.append(dataclasses.replace(record, path=str(path)))
    chosen = np.random.default_rng(0).choice(len(records), size=round(len(records) / 20), replace=False).tolist()
    return copies, {number: list(DAMAGES)[place % len(DAMAGES)] for place, number in enumerate(chosen)}


def vanish_last(order: list[int], damages: dict[int, object]) -> dict[int, object]:
    """Deal the damages so that the files that vanish are those that are read last."""
    late = sorted(damages, key=order.index)
    kinds = sorted(damages.values(), key=lambda kind: kind is Path.unlink)
    return dict(zip(late, kinds, strict=True))


def check_training(records, damages, *, num_workers):
    sampler = EpochSampler(len(records))
    damages = vanish_last([key.index for key in sampler], damages)
    for number, damage in damages.items():
        if damage is not Path.unlink:
            damage(Path(records[number].path))
    dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
    loader = VideoLoader(dataset, batch_size=4, num_workers=num_workers, drop_last=False, max_failed=0.06)
    shown = []
    for batch in loader:
        if not shown:
            for number, damage in damages.items():
                if damage is Path.unlink:
                    damage(Path(records[number].path))
        shown += batch.index.tolist()
    assert len(shown) == len(records)
    assert set(shown) >= set(range(len(records))) - set(damages)
    assert not set(shown) & set(damages)
    assert (loader.report.num_samples, loader.report.num_failed) == (len(records), len(damages))
    found = {failure.index: failure.kind for failure in loader.report.failures}
    assert found == {number: DAMAGES[damage] for number, damage in damages.items()}


def check_testing(records, damages, *, num_workers, caplog):
    loader = VideoLoader(VideoDataset(records, PREPROCESSING), batch_size=4, num_workers=num_workers)
    unreadable, order = [], []
    with caplog.at_level(logging.WARNING):
        for batch in loader:
            order += batch.index.tolist()
            unreadable += batch.index[~batch.readable].tolist()
            assert not batch.video[~batch.readable].any()
    assert order == list(range(len(records)))
    assert unreadable == sorted(damages)
    assert [failure.path for failure in loader.report.failures] == [records[number].path for number in sorted(damages)]
    assert f"{len(damages)} of {len(records)} samples could not be read" in caplog.text


@pytest.mark.parametrize("damaged", [5], indirect=True)
def test_some_clips(damaged, caplog):
    records, damages = damaged
    assert (len(records), len(damages)) == (129, 6)
    check_training(records, damages, num_workers=1)
    check_testing(records, damages, num_workers=1, caplog=caplog)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [1], indirect=True)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_clips(damaged, num_workers, caplog):
    records, damages = damaged
    assert (len(records), len(damages)) == (641, 32)
    check_training(records, damages, num_workers=num_workers)
    check_testing(records, damages, num_workers=num_workers, caplog=caplog)


@pytest.mark.parametrize("damaged", [20], indirect=True)
def test_five_in_a_hundred_are_too_many_where_nothing_else_is_said(damaged):
    records, damages = damaged
    for number in damages:
        empty(Path(records[number].path))
    dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
    with pytest.raises(TooManyFailuresError, match=r"(?s)could not be read.*: empty: .*max_failed=0.01 allows 0"):
        list(VideoLoader(dataset, batch_size=4, num_workers=0))
