from __future__ import annotations

import errno
import inspect
import json
import logging
import multiprocessing
import re
import sys
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import dataloader

from tests.data.clips_on_disk import write_folder
from uniformerv2.core.limits import set_limits
from uniformerv2.core.workers import NEEDS_GUARD, available_cores
from uniformerv2.data import loader as loader_module
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.clips import SampleKey
from uniformerv2.data.dataset import TooManyFailuresError, VideoDataset, balanced_weights
from uniformerv2.data.epoch_sampler import EpochSampler
from uniformerv2.data.loader import VideoLoader, WorkerDiedError
from uniformerv2.data.transforms import Preprocessing

with suppress(ImportError):  # not on Windows
    import resource

PREPROCESSING = Preprocessing(num_frames=2, image_size=16)
AUGMENTATION = TrainAugmentation(image_size=16)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("videos"), per_class=5)


def training(records, *, num_workers=0, batch_size=3, **fields):
    dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION, seed=fields.pop("seed", 0))
    return VideoLoader(dataset, batch_size=batch_size, num_workers=num_workers, drop_last=False, **fields)


def content(batches):
    return [(batch.index.tolist(), batch.label.tolist(), batch.video.numpy().tobytes()) for batch in batches]


class TestOrder:
    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_any_number_of_workers_gives_the_same_batches_epoch_after_epoch(self, records, num_workers):
        alone, together = training(records), training(records, num_workers=num_workers)
        first, second = content(alone), content(alone)
        assert content(together) == first
        assert content(together) == second  # by the same workers: they know the new epoch
        assert first != second
        assert sorted(index for indices, _, _ in first for index in indices) == list(range(10))

    def test_an_epoch_can_be_asked_for(self, records):
        loader = training(records)
        first, second, third = content(loader), content(loader), content(loader)
        loader.set_epoch(1)
        assert [content(loader), content(loader)] == [second, third]
        other = training(records)
        other.set_epoch(2)
        assert content(other) == third != first

    def test_a_pass_that_was_left_is_over(self, records):
        loader, whole = training(records, num_workers=1), training(records)
        epochs = [content(whole) for _ in range(2)]
        assert content(islice(loader, 2)) == epochs[0][:2]
        assert content(loader) == epochs[1]

    def test_another_seed_is_another_order(self, records):
        assert content(training(records)) != content(training(records, seed=1))

    def test_testing_goes_in_order_and_leaves_nothing_out(self, records):
        loader = VideoLoader(VideoDataset(records, PREPROCESSING), batch_size=4, num_workers=0)
        assert [batch.index.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert len(loader) == 3

    def test_training_leaves_out_what_fills_no_batch(self, records):
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
        assert [len(VideoLoader(dataset, batch_size=size, num_workers=0)) for size in (3, 10, 11)] == [3, 1, 1]

    def test_torchs_own_draws_stay_as_they_were(self, records):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        list(training(records, num_workers=1))
        assert torch.equal(torch.rand(2), expected)


class TestResume:
    @pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
    def test_it_goes_on_with_the_very_next_batch(self, records, before, after):
        whole = training(records)
        expected = [content(whole) for _ in range(3)]
        stopped = training(records, num_workers=before)
        list(stopped)
        batches = iter(stopped)
        assert content(islice(batches, 2)) == expected[1][:2]
        state = json.loads(json.dumps(stopped.state_dict()))
        resumed = training(records, num_workers=after)
        resumed.load_state_dict(state)
        assert content(resumed) == expected[1][2:]
        assert content(resumed) == expected[2]
        assert content(batches) == expected[1][2:]  # the one that was saved goes on as well

    def test_after_the_last_batch_comes_the_next_epoch(self, records):
        loader, resumed = training(records), training(records)
        list(loader)
        resumed.load_state_dict(loader.state_dict())
        assert content(resumed) == content(loader)

    def test_a_trainer_may_say_the_epoch_it_resumes(self, records):
        loader, resumed = training(records), training(records)
        expected = content(loader)
        list(islice(loader, 1))
        state = loader.state_dict()
        resumed.load_state_dict(state)
        resumed.sampler.set_epoch(state["epoch"])
        assert content(resumed) == content(training_at(records, 1))[1:]
        resumed.load_state_dict(state)
        resumed.set_epoch(0)
        assert content(resumed) == expected

    def test_the_counts_of_failures_go_on(self, records, tmp_path):
        broken = [VideoRecord(str(tmp_path / "gone.mp4"), label=0), *records]
        whole, stopped, resumed = (training(broken, max_failed=0.5, batch_size=1) for _ in range(3))
        list(whole)
        assert whole.report.num_failed == 1
        list(islice(stopped, 8))
        resumed.load_state_dict(stopped.state_dict())
        list(resumed)
        assert resumed.report == whole.report

    @pytest.mark.parametrize(
        ("change", "message"), [({"batch_size": 2}, "batch_size=3, now it is 2"), ({"seed": 4}, "seed")]
    )
    def test_another_order_is_refused(self, records, change, message):
        state = training(records).state_dict()
        with pytest.raises(ValueError, match=message):
            training(records, **change).load_state_dict(state)


def training_at(records, epoch):
    loader = training(records)
    loader.set_epoch(epoch)
    return loader


class TestSampler:
    def test_weights_draw_as_often_as_they_say(self):
        records = [VideoRecord("x", label=int(number >= 90)) for number in range(100)]
        sampler = EpochSampler(100, weights=balanced_weights(records))
        drawn = Counter()
        for epoch in range(50):
            sampler.set_epoch(epoch)
            drawn.update(records[key.index].label for key in sampler)
        assert abs(drawn[1] / 5000 - 0.5) < 0.03

    def test_a_record_that_comes_again_is_another_draw(self):
        keys = list(EpochSampler(10, weights=[0] * 9 + [1]))
        assert keys == [SampleKey(9, 0, draw) for draw in range(10)]

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_processes_share_an_epoch(self, shuffle):
        parts = [list(EpochSampler(10, shuffle=shuffle, rank=rank, world_size=3)) for rank in range(3)]
        assert [len(part) for part in parts] == [4, 4, 4]
        keys = [key for part in parts for key in part]
        assert {key.index for key in keys} == set(range(10))
        assert len(set(keys)) == 12  # the two that fill up are draws of their own

    @pytest.mark.parametrize("num_items", [1, 3, 4, 7])
    def test_processes_share_equally_what_is_fewer_than_they_are(self, num_items):
        parts = [EpochSampler(num_items, rank=rank, world_size=8) for rank in range(8)]
        assert [len(list(part)) for part in parts] == [len(part) for part in parts] == [1] * 8
        keys = [key for part in parts for key in part]
        times = Counter(key.index for key in keys)
        assert set(times) == set(range(num_items))
        assert max(times.values()) - min(times.values()) <= 1
        assert len(set(keys)) == 8

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"weights": [1.0]}, r"have the shape \[1\], there are 3 items"),
            ({"weights": [0, 0, 0]}, "one at least above it"),
            ({"weights": [1, -1, 1]}, "not below 0"),
            ({"weights": [1, float("nan"), 1]}, "must be finite"),
            ({"rank": 1}, "rank is 1; with world_size=1"),
        ],
    )
    def test_what_makes_no_order_is_refused(self, fields, message):
        with pytest.raises(ValueError, match=message):
            EpochSampler(3, **fields)


class TestFailures:
    def broken(self, records, tmp_path, count):
        return [*records, *(VideoRecord(str(tmp_path / f"gone{n}.mp4"), label=0) for n in range(count))]

    def test_they_are_counted_and_told_at_the_end_of_the_epoch(self, records, tmp_path, caplog):
        loader = training(self.broken(records, tmp_path, 3), num_workers=1, max_failed=0.25, batch_size=13)
        with caplog.at_level(logging.WARNING, "uniformerv2.data.loader"):
            next(iter(loader))  # a trainer does not ask for more than the last batch
        assert (loader.report.num_samples, loader.report.num_failed) == (13, 3)
        assert sorted(failure.path for failure in loader.report.failures) == [
            str(tmp_path / f"gone{n}.mp4") for n in range(3)
        ]
        assert "epoch 1: 3 of 13 samples could not be read" in caplog.text
        assert "gone2.mp4: missing: there is no such file" in caplog.text

    def test_a_sample_counts_once_however_many_were_tried(self, records, tmp_path):
        loader = training(self.broken(records[:6], tmp_path, 6), max_failed=0.5, batch_size=12)
        (batch,) = loader
        assert len(batch.failures) > 6
        assert (loader.report.num_samples, loader.report.num_failed, len(loader.report.failures)) == (12, 6, 6)

    def test_too_many_are_an_error_as_soon_as_it_is_certain(self, records, tmp_path):
        loader = training(self.broken(records, tmp_path, 3), max_failed=0.2, batch_size=1)
        with pytest.raises(TooManyFailuresError, match=r"(?s)3 of .*gone0\.mp4.*max_failed=0.2 allows 2"):
            list(loader)

    def test_one_in_a_hundred_is_the_limit(self, records, tmp_path):
        with pytest.raises(TooManyFailuresError, match="1 of"):
            list(training(self.broken(records, tmp_path, 1)))
        list(training(self.broken(records * 10, tmp_path, 1), batch_size=100))

    def test_a_worker_error_names_the_files_and_ends_the_workers(self, tmp_path):
        before = set(multiprocessing.active_children())
        loader = training(self.broken([], tmp_path, 20), num_workers=1)
        with pytest.raises(TooManyFailuresError, match=r"(?s)10 videos in a row.*gone\d+\.mp4: missing"):
            list(loader)
        assert set(multiprocessing.active_children()) <= before

    def test_testing_has_no_limit_but_all(self, records, tmp_path):
        dataset = VideoDataset(self.broken(records[:1], tmp_path, 3), PREPROCESSING)
        loader = VideoLoader(dataset, batch_size=2, num_workers=0)
        assert [batch.readable.tolist() for batch in loader] == [[True, False], [False, False]]
        assert [failure.index for failure in loader.report.failures] == [1, 2, 3]
        nothing = VideoLoader(VideoDataset(self.broken([], tmp_path, 3), PREPROCESSING), batch_size=2, num_workers=0)
        with pytest.raises(TooManyFailuresError, match="3 of 3 samples could not be read"):
            list(nothing)

    def test_the_report_shows_ten(self, records, tmp_path):
        dataset = VideoDataset(self.broken(records, tmp_path, 12), PREPROCESSING)
        loader = VideoLoader(dataset, batch_size=22, num_workers=0)
        list(loader)
        lines = str(loader.report).splitlines()
        assert len(lines) == 12
        assert lines[-1] == "  and 2 more"


class DiesAtStart(VideoDataset):
    """As a script does that has no guard, or that came from standard input."""

    def __setstate__(self, state):
        sys.exit(1)


class WithoutSharedMemory(VideoDataset):
    """The system refuses to make a file of a batch, as where /dev/shm is full."""

    def __getitem__(self, key):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().__getitem__(key)


def test_pytorch_still_has_the_private_names_that_the_loader_builds_on():
    """Another PyTorch may call them otherwise: then this fails, by name, and not a worker that dies unseen."""
    iterator = dataloader._MultiProcessingDataLoaderIter
    assert {"_get_data", "_try_get_data", "_shutdown_workers"} <= set(vars(iterator))
    assert {"_get_iterator", "check_worker_number_rationality"} <= set(vars(dataloader.DataLoader))
    assert list(inspect.signature(iterator._try_get_data).parameters) == ["self", "timeout"]
    source = inspect.getsource(dataloader)
    for use in (
        "data = self._get_data()",
        "self._workers.append(",
        "self._timeout = ",
        "self._iterator = self._get_iter",
    ):
        assert use in source, use


class TestWorkersThatEnd:
    def last_words(self, dataset):
        with pytest.raises(WorkerDiedError) as error:
            list(VideoLoader(dataset, batch_size=2, num_workers=1))
        return str(error.value)

    def test_one_that_ends_as_it_begins_needs_a_guard(self, records):
        assert self.last_words(DiesAtStart(records, PREPROCESSING)).endswith(NEEDS_GUARD)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a system that limits files")
    def test_shared_memory_that_is_full_is_one_sentence_with_the_way_out(self, records):
        words = self.last_words(WithoutSharedMemory(records, PREPROCESSING))
        assert re.fullmatch(r"The shared memory \(/dev/shm\).* is too small .*: make it larger .* 0\)\.", words)

    def test_shared_memory_that_is_full_from_the_start_too(self, records, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(loader_module, "_WatchedIterator", full)
        assert "--workers 0" in self.last_words(VideoDataset(records, PREPROCESSING))

    def test_workers_have_the_limits_that_hold_when_they_start(self, records):
        with set_limits(pixels_per_frame=10), pytest.raises(TooManyFailuresError, match="too large: a frame of"):
            list(VideoLoader(VideoDataset(records, PREPROCESSING), batch_size=2, num_workers=1))


class TestArguments:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"batch_size": 0}, "batch_size"),
            ({"max_failed": 1.5}, "max_failed is 1.5"),
            ({"weights": [1.0] * 10}, "weights are for training"),
        ],
    )
    def test_what_cannot_be_is_refused(self, records, fields, message):
        with pytest.raises(ValueError, match=message):
            VideoLoader(VideoDataset(records, PREPROCESSING), **{"batch_size": 2, "num_workers": 0, **fields})

    def test_closed_workers_come_back(self, records):
        loader, alone = training(records, num_workers=1), training(records)
        before = set(multiprocessing.active_children())
        list(loader), list(alone)
        assert len(set(multiprocessing.active_children()) - before) == 1
        loader.close()
        loader.close()
        assert set(multiprocessing.active_children()) <= before
        assert content(loader) == content(alone)

    def test_workers_are_as_many_as_cores(self, records):
        loader = VideoLoader(VideoDataset(records, PREPROCESSING), batch_size=2)
        assert loader.num_workers == min(available_cores(), 8)


@pytest.mark.slow
def test_a_workers_memory_stays_flat_over_20_epochs(records):
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs /proc to see the memory of a process")
    before = set(multiprocessing.active_children())
    loader = training(records * 20, num_workers=1, batch_size=8)
    used = []
    for _ in range(25):  # the first five warm up
        list(loader)
        (worker,) = set(multiprocessing.active_children()) - before
        used.append(own_memory(worker.pid))
    assert max(used[5:]) < 1.02 * used[4] + 1024  # a mebibyte lies until the garbage collector comes


def own_memory(pid):
    """KiB that no other process shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@pytest.mark.gpu
def test_batches_come_pinned_and_go_to_the_gpu(records):
    batch = next(iter(training(records, num_workers=1)))
    assert batch.video.is_pinned()
    assert batch.to("cuda").video.device.type == "cuda"
