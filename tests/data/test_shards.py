from __future__ import annotations

import json
import re
import tarfile
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.clips_on_disk import write_folder
from uniformerv2.data import shards as shard_files
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import SampleKey, VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.shards import ShardDataset, write_shards
from uniformerv2.data.transforms import Preprocessing

PREPROCESSING = Preprocessing(num_frames=2, image_size=16)
AUGMENTATION = TrainAugmentation(image_size=16)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("videos"), per_class=6)


@pytest.fixture(scope="module")
def shards(records, tmp_path_factory):
    """12 videos in 4 shards."""
    folder = tmp_path_factory.mktemp("shards") / "train"
    write_shards(records, folder, max_count=3)
    return folder


def training(shards, *, num_workers=0, batch_size=2, max_failed=0.01, **fields):
    dataset = ShardDataset(shards, PREPROCESSING, augmentation=AUGMENTATION)
    options = {"batch_size": batch_size, "num_workers": num_workers, "max_failed": max_failed, **fields}
    return VideoLoader(dataset, drop_last=False, **options)


def content(batches):
    return [(batch.index.tolist(), batch.label.tolist(), batch.video.numpy().tobytes()) for batch in batches]


class TestWriting:
    def test_a_shard_holds_the_videos_as_they_are_and_what_is_known(self, records, shards):
        found = {}
        for path in sorted(shards.glob("*.tar")):
            with tarfile.open(path) as tar:
                members = {member.name: tar.extractfile(member).read() for member in tar}
            assert len(members) == 6
            for name in members:
                if name.endswith(".json"):
                    found[json.loads(members[name])["index"]] = (json.loads(members[name]), members[name[:-4] + "mp4"])
        assert sorted(found) == list(range(12))
        for index, (fields, video) in found.items():
            assert video == Path(records[index].path).read_bytes()
            assert (fields["label"], fields["label_name"]) == (records[index].label, records[index].label_name)
        assert sorted(path.name for path in shards.iterdir()) == [*(f"00000{n}.tar" for n in range(4)), "index.json"]

    def test_neighbours_are_not_of_one_class(self, shards):
        with tarfile.open(shards / "000000.tar") as tar:
            labels = {json.loads(tar.extractfile(name).read())["label"] for name in tar.getnames() if "json" in name}
        assert labels == {0, 1}

    def test_size_and_count_are_bounded(self, records, tmp_path):
        sizes = [Path(record.path).stat().st_size for record in records]
        limit = 2 * max(sizes)
        index = write_shards(records, tmp_path, max_bytes=limit, max_count=100)
        assert index.num_samples == 12
        for path in tmp_path.glob("*.tar"):
            with tarfile.open(path) as tar:
                assert sum(member.size for member in tar if not member.name.endswith("json")) <= limit
        assert len(index.shards) >= 6
        large = write_shards(records[:2], tmp_path / "large", max_bytes=1)
        assert [shard.num_samples for shard in large.shards] == [1, 1]

    def test_it_goes_on_where_it_stopped_and_leaves_nothing_half_written(self, records, tmp_path, monkeypatch):
        write = shard_files._write_shard

        def fail_at_the_third(path, members):
            if path.name == "000002.tar":
                members = {**members, 99: VideoRecord("/nowhere.mp4")}
            write(path, members)

        monkeypatch.setattr(shard_files, "_write_shard", fail_at_the_third)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            write_shards(records, tmp_path, max_count=3)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.tar", "000001.tar", "index.json"]
        with pytest.raises(FileNotFoundError, match=r"lacks 2 of 4 shards, 000002\.tar first"):
            ShardDataset(tmp_path, PREPROCESSING)
        monkeypatch.undo()
        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
        write_shards(records, tmp_path, max_count=3)
        assert all(path.stat().st_mtime_ns == time for path, time in times.items())
        assert len(ShardDataset(tmp_path, PREPROCESSING)) == 12

    def test_other_records_do_not_mix_with_those_there(self, records, shards):
        before = {path.name: path.read_bytes() for path in shards.iterdir()}
        with pytest.raises(ValueError, match="holds shards of other records"):
            write_shards(records[1:], shards, max_count=3)
        with pytest.raises(ValueError, match="divided in another way"):
            write_shards(records, shards, max_count=4)
        assert {path.name: path.read_bytes() for path in shards.iterdir()} == before

    def test_missing_videos_are_listed(self, records, tmp_path):
        index = write_shards([VideoRecord("/no/such.mp4"), *records], tmp_path)
        assert (index.num_samples, index.missing) == (12, ("/no/such.mp4",))
        assert json.loads((tmp_path / "index.json").read_text())["missing"] == ["/no/such.mp4"]
        with pytest.raises(FileNotFoundError, match=r"Not one of 1 videos is there.*/no/such.mp4"):
            write_shards([VideoRecord("/no/such.mp4")], tmp_path / "none")

    @pytest.mark.parametrize(
        ("record", "message"),
        [(VideoRecord("http://x/a.mp4"), "is an address"), (VideoRecord("/"), "is a folder")],
    )
    def test_what_is_no_file_is_refused(self, tmp_path, record, message):
        with pytest.raises(ValueError, match=message):
            write_shards([record], tmp_path)

    def test_numbers_of_numpy_are_written_as_numbers(self, records, tmp_path):
        plain, of_numpy = [
            [
                VideoRecord(records[0].path, label=integer(1), start_frame=integer(2), end_seconds=real(1.5)),
                VideoRecord(records[1].path, label=(integer(0), integer(2))),
            ]
            for integer, real in ((int, float), (np.int64, np.float32))
        ]
        assert write_shards(of_numpy, tmp_path / "a") == write_shards(plain, tmp_path / "b")
        assert (tmp_path / "a/000000.tar").read_bytes() == (tmp_path / "b/000000.tar").read_bytes()
        with pytest.raises(TypeError, match="object"):
            write_shards([VideoRecord(records[0].path, label=object())], tmp_path / "c")
        assert not (tmp_path / "c").exists()

    @pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"max_count": 0}])
    def test_bounds_below_one_are_refused(self, records, tmp_path, bounds):
        with pytest.raises(ValueError, match="at least 1"):
            write_shards(records, tmp_path, **bounds)


class TestReading:
    @pytest.mark.parametrize("num_workers", [0, 1, 2])
    def test_the_clips_are_those_of_the_records(self, records, shards, num_workers):
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
        loader = training(shards, num_workers=num_workers)
        for epoch in range(2):
            draws = Counter()
            for batch in loader:
                for index, label, video in zip(batch.index.tolist(), batch.label, batch.video, strict=True):
                    sample = dataset[SampleKey(index, epoch, draws[index])]
                    assert torch.equal(video, sample.video)
                    assert label == sample.label
                    draws[index] += 1
            assert draws.total() == 12
            assert max(draws.values()) == 1

    def test_epochs_differ_in_their_order(self, shards):
        loader = training(shards)
        first, second = content(loader), content(loader)
        assert [indices for indices, _, _ in first] != [indices for indices, _, _ in second]
        again = training(shards)
        again.set_epoch(1)
        assert content(again) == second

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_it_goes_on_with_the_very_next_batch(self, shards, num_workers):
        whole = training(shards, num_workers=num_workers)
        expected = [content(whole) for _ in range(2)]
        for stop in range(1, len(whole)):
            stopped, resumed = training(shards), training(shards, num_workers=num_workers)
            stopped = training(shards, num_workers=num_workers)
            list(islice(stopped, stop))
            resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
            assert content(resumed) == expected[0][stop:]
        assert content(resumed) == expected[1]

    @pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1)])
    def test_another_number_of_workers_goes_on_too(self, shards, before, after):
        stopped, resumed = training(shards, num_workers=before), training(shards, num_workers=after)
        list(islice(stopped, 2))
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert content(resumed) == content(training(shards))[2:]

    def test_they_are_batches_of_the_records(self, records, shards):
        dataset = VideoDataset(records, PREPROCESSING, augmentation=AUGMENTATION)
        assert content(training(shards)) == content(VideoLoader(dataset, batch_size=2, num_workers=0, drop_last=False))

    def test_testing_gives_each_video_once(self, records, shards):
        whole = VideoDataset(records, PREPROCESSING)
        for num_workers in (0, 2):
            loader = VideoLoader(ShardDataset(shards, PREPROCESSING), batch_size=5, num_workers=num_workers)
            batches = list(loader)
            assert len(batches) == len(loader)
            seen = {}
            for batch in batches:
                seen.update(zip(batch.index.tolist(), batch.video, strict=True))
            assert sorted(seen) == list(range(12))
            assert all(torch.equal(video, whole[index].video) for index, video in seen.items())

    def test_processes_share_the_shards(self, shards):
        parts = [training(shards, rank=rank, world_size=2) for rank in range(2)]
        seen = [[index for batch in part for index in batch.index.tolist()] for part in parts]
        assert [len(part) for part in seen] == [6, 6]
        assert sorted(seen[0] + seen[1]) == list(range(12))

    def test_segments_and_several_labels_survive(self, records, tmp_path):
        odd = [
            VideoRecord(records[0].path, label=(0, 2), label_name=("a", "b"), start_seconds=0.5, end_seconds=1.5),
            VideoRecord(records[1].path, label=1, start_frame=3, extra={"caption": "é"}),
        ]
        write_shards(odd, tmp_path)
        expected = VideoDataset(odd, PREPROCESSING, num_classes=3)
        for sample in map(ShardDataset(tmp_path, PREPROCESSING, num_classes=3).__getitem__, range(2)):
            assert torch.equal(sample.video, expected[sample.index].video)
            assert torch.equal(sample.label, expected[sample.index].label)


class TestBroken:
    @pytest.fixture
    def shards(self, records, tmp_path):
        bad = tmp_path / "bad.avi"
        bad.write_bytes(b"nothing")
        write_shards([*records[:5], VideoRecord(str(bad), label=1), *records[5:]], tmp_path / "shards", max_count=4)
        return tmp_path / "shards"

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_in_training_another_one_takes_its_place(self, shards, num_workers):
        loader = training(shards, num_workers=num_workers, max_failed=0.5, batch_size=1)
        whole = [content(loader), content(loader)]
        assert 5 not in {index for epoch in whole for indices, _, _ in epoch for index in indices}
        stopped = training(shards, num_workers=num_workers, max_failed=0.5, batch_size=1)
        list(islice(stopped, 4))
        resumed = training(shards, num_workers=num_workers, max_failed=0.5, batch_size=1)
        resumed.load_state_dict(stopped.state_dict())
        assert content(resumed) == whole[0][4:]

    def test_it_is_counted_and_named(self, shards):
        loader = training(shards, max_failed=0.5, batch_size=1)
        list(loader)
        (failure,) = loader.report.failures
        assert (loader.report.num_samples, loader.report.num_failed) == (13, 1)
        assert failure.kind == "not a video"
        assert failure.path.endswith(".tar/00000005.avi")

    def test_in_testing_it_is_said_to_be(self, shards):
        samples = list(map(ShardDataset(shards, PREPROCESSING).__getitem__, range(13)))
        assert [sample.index for sample in samples if not sample.readable] == [5]

    def test_a_cut_shard_is_an_error(self, records, tmp_path):
        write_shards(records, tmp_path, max_count=12)
        path = tmp_path / "000000.tar"
        with tarfile.open(path) as tar:
            end = tar.getmembers()[6].offset
        dataset = ShardDataset(tmp_path, PREPROCESSING)
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(ValueError, match=r"000000\.tar holds 3 videos, its index says 12"):
            ShardDataset(tmp_path, PREPROCESSING)
        found = [sample.failures[0].kind if sample.failures else "" for sample in map(dataset.__getitem__, range(12))]
        assert Counter(found) == {"": 3, "truncated": 9}


class TestAddresses:
    @pytest.fixture(params=["ranges", "no ranges"])
    def address(self, shards, request):
        pytest.importorskip("fsspec")
        pytest.importorskip("aiohttp")

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                path = Path(self.translate_path(self.path))
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if request.param == "no ranges" or not asked or not path.is_file():
                    return super().do_GET()
                start, stop = int(asked[1]), int(asked[2]) + 1
                part = path.read_bytes()[start:stop]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{path.stat().st_size}")
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                return self.wfile.write(part)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shards)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_shards_are_read_over_http(self, shards, address):
        assert content(training(address, num_workers=1)) == content(training(shards))

    def test_a_video_that_does_not_come_is_counted_and_named(self, shards, address):
        dataset = ShardDataset(address, PREPROCESSING)
        dataset.root = f"{address}/nowhere"
        (failure,) = dataset[0].failures
        assert failure.kind == "unreadable"
        assert failure.path.startswith(f"{address}/nowhere/00000")

    def test_what_is_not_there_is_an_error(self, address):
        with pytest.raises(OSError, match="nowhere"):
            ShardDataset(f"{address}/nowhere", PREPROCESSING)

    @pytest.mark.parametrize("address", ["pipe:touch x://y", "file:///etc", "s3://bucket/x"])
    def test_other_addresses_are_refused(self, address, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="shards come from a folder or from http"):
            ShardDataset(address, PREPROCESSING)
        assert list(tmp_path.iterdir()) == []


class TestRefused:
    @pytest.mark.parametrize("name", ["../x.tar", "a/b.tar", "x.tgz", "", "-x/.tar", "pipe:ls.tar"])
    def test_names_that_leave_the_folder(self, tmp_path, name):
        index = {"shards": [{"name": name, "num_samples": 1}], "fingerprint": "", "missing": []}
        (tmp_path / "index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="not allowed"):
            ShardDataset(tmp_path, PREPROCESSING)

    @pytest.mark.parametrize("text", ["", "[]", '{"shards": []}', '{"shards": [], "fingerprint": "", "missing": []}'])
    def test_an_index_that_is_none(self, tmp_path, text):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(ValueError, match=r"index\.json (is no index of shards|lists no shards)"):
            ShardDataset(tmp_path, PREPROCESSING)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"shard": 4}, "lists the video '000000.*' of no shard; not allowed"),
            ({"offset": -1}, "not allowed"),
            ({"name": ".."}, "not allowed"),
            ({"name": "a/b.mp4"}, "not allowed"),
            (None, "does not say where each video is"),
        ],
    )
    def test_an_index_of_videos_elsewhere(self, shards, tmp_path, changed, message):
        index = json.loads((shards / "index.json").read_text())
        if changed is None:
            del index["videos"]
        else:
            index["videos"][0] |= changed
        (tmp_path / "index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=message):
            ShardDataset(tmp_path, PREPROCESSING)

    @pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
    @pytest.mark.parametrize(
        ("label", "num_classes", "message"),
        [
            (5, 3, "has label 5; num_classes=3 allows 0 to 2"),
            ((0, 3), 3, "has label 3; num_classes=3 allows 0 to 2"),
            ((0, 2), None, r"has several labels, \(0, 2\); give num_classes"),
        ],
    )
    def test_labels_beyond_the_classes(self, records, tmp_path, augmentation, label, num_classes, message):
        write_shards([VideoRecord(records[0].path, label=label)], tmp_path)
        with pytest.raises(ValueError, match=rf"^{records[0].path} {message}"):
            ShardDataset(tmp_path, PREPROCESSING, augmentation=augmentation, num_classes=num_classes)
