"""Cached features: the key, the shards, and a training from them that is the training from videos."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.locks import given_back_to_who_waits
from tests.media import write_video
from tests.training.fake_clips import NUM_CLASSES, NUM_FRAMES, SIZE, tiny_network
from uniformerv2 import Preprocessing
from uniformerv2.autotrain.plan import Rates, TrainingPlan
from uniformerv2.autotrain.run import run_plan
from uniformerv2.core.files import DiskFullError
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.clips import SampleKey, TooManyFailuresError
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.splits import Splits
from uniformerv2.media.decoding import open_video
from uniformerv2.training.feature_cache import clip_bytes, token_shape
from uniformerv2.training.feature_key import FeatureSettings, NotCacheableError, check_cacheable, feature_key
from uniformerv2.training.frozen import CachedDataModule, TokenClassifier, missing_bytes

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
]

PREPROCESSING = Preprocessing(num_frames=NUM_FRAMES, image_size=SIZE)
AUGMENTATION = TrainAugmentation(image_size=SIZE)
DENSE = replace(PREPROCESSING, sampling="dense")
"""In a video as long as a clip there is nothing to draw."""
OFF = TrainAugmentation(image_size=SIZE, rand_augment=None, area=(1.0, 1.0), aspect_ratio=(4 / 3, 4 / 3), flip=0.0)
SHARD_BYTES = 2 * 4 * (4 * NUM_FRAMES * 5 * 48) + 1
"""Holds two clips of float32."""
SETTINGS = FeatureSettings(num_views=2, storage="float32", precision="32-true", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Records of nine training and three validation videos, of as many frames as a clip has."""
    top = tmp_path_factory.mktemp("videos")
    return [
        VideoRecord(
            str(write_video(top / f"{index}.mp4", num_frames=NUM_FRAMES, seed=index)),
            label=index % NUM_CLASSES,
            label_name="abc"[index % NUM_CLASSES],
            split="train" if index < 9 else "val",
        )
        for index in range(12)
    ]


def frozen_network(preprocessing=PREPROCESSING, **fields):
    network = tiny_network(**fields)
    network.info = replace(network.info, preprocessing=preprocessing.to_dict())
    network.freeze_backbone()
    return network


def data_of(videos, cache, *, settings=SETTINGS, **fields):
    fields = {"augmentation": AUGMENTATION, "batch_size": 2, "num_workers": 0, **fields}
    preprocessing = fields.pop("preprocessing", PREPROCESSING)
    return CachedDataModule(videos[:9], preprocessing, val=videos[9:], cache=cache, settings=settings, **fields)


def shards(cache):
    return sorted(path.relative_to(cache).name for path in cache.rglob("*.safetensors"))


class TestKey:
    def key(self, videos, *, network=None, settings=SETTINGS, preprocessing=PREPROCESSING, **fields):
        dataset = VideoDataset(videos, preprocessing, **{"augmentation": AUGMENTATION, **fields})
        return feature_key(network or frozen_network(), {"train": dataset}, settings)[0]

    def test_everything_that_decides_the_tokens_is_in_it(self, videos):
        other_weight = frozen_network()
        with torch.no_grad():
            other_weight.blocks[3].ffn.fn.fc2.bias[7] += 1e-4
        keys = [
            self.key(videos),
            self.key(videos, network=other_weight),
            self.key(videos, network=frozen_network(fusion_stages=(2, 3))),
            self.key(videos, preprocessing=replace(PREPROCESSING, resize="bilinear_uint8")),
            self.key(videos, augmentation=replace(AUGMENTATION, flip=0.0)),
            self.key(videos, seed=1),
            self.key(videos, decoder="pyav"),
            self.key(videos, settings=replace(SETTINGS, storage="float16")),
            self.key(videos, settings=replace(SETTINGS, precision="bf16-mixed")),
            self.key(videos[::-1]),
            self.key(videos[:-1]),
            self.key([replace(videos[0], label=2), *videos[1:]]),
            self.key([replace(videos[0], end_frame=3), *videos[1:]]),
        ]
        assert len(set(keys)) == len(keys)
        assert all(len(key) == 64 for key in keys)

    def test_what_does_not_matter_is_not_in_it(self, videos, tmp_path):
        other_blocks = frozen_network()
        torch.nn.init.ones_(other_blocks.head.weight)
        moved = [replace(videos[0], path=str(shutil.copy(videos[0].path, tmp_path / "moved.mp4"))), *videos[1:]]
        os.utime(moved[0].path, (0, 0))
        more_views = replace(SETTINGS, num_views=7)
        keys = {
            self.key(videos),
            self.key(videos, network=other_blocks),
            self.key(moved),
            self.key(videos, settings=more_views),
        }
        assert len(keys) == 1

    def test_a_byte_of_a_video_is_enough(self, videos, tmp_path):
        """Size and time of the file stay as they are."""
        copy = shutil.copy2(videos[0].path, tmp_path / "copy.mp4")
        before = self.key([replace(videos[0], path=str(copy))])
        content, stat = bytearray(copy.read_bytes()), copy.stat()
        content[len(content) // 2] ^= 1
        copy.write_bytes(content)
        os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert copy.stat().st_size == stat.st_size
        assert self.key([replace(videos[0], path=str(copy))]) != before

    def test_folders_of_frames(self, tmp_path):
        frames = tmp_path / "frames"
        frames.mkdir()
        (frames / "0.jpg").write_bytes(b"one")
        before = self.key([VideoRecord(str(frames), label=0)])
        (frames / "0.jpg").write_bytes(b"two")
        assert self.key([VideoRecord(str(frames), label=0)]) != before

    def test_addresses_are_refused(self):
        with pytest.raises(ValueError, match=r"https://host/a\.mp4 is no file here"):
            self.key([VideoRecord("https://host/a.mp4", label=0)])

    def test_tokens_that_learn_are_refused(self):
        with pytest.raises(NotCacheableError, match="Take --preset scene"):
            check_cacheable(frozen_network(num_local_steps=1))
        with pytest.raises(NotCacheableError, match="--freeze-backbone"):
            check_cacheable(tiny_network())
        check_cacheable(frozen_network())


class TestShards:
    @pytest.fixture
    def filled(self, videos, tmp_path):
        """Two clips a shard."""
        network = frozen_network()
        data = data_of(videos, tmp_path / "cache", shard_bytes=SHARD_BYTES)
        counts = []
        data.fill_cache(network, on_clips=counts.append)
        assert sum(counts) == data.num_clips == 2 * 9 + 3
        return data, network

    def test_tokens_are_those_of_the_clips_of_the_first_epochs(self, filled, videos):
        data, network = filled
        network.eval()
        dataset = VideoDataset(videos[:9], PREPROCESSING, augmentation=AUGMENTATION)
        cached = data.train_dataloader().dataset
        for key in (SampleKey(0), SampleKey(8, 1), SampleKey(8, 3), SampleKey(5, 2)):
            clip, sample = dataset[replace(key, epoch=key.epoch % 2)], cached[key]
            with torch.no_grad():
                wanted = torch.stack(network.read_tokens(PREPROCESSING.normalize(clip.video)[None]), dim=1)[0]
            assert torch.allclose(sample.video, wanted, atol=1e-5)
            assert (sample.index, sample.label, sample.readable) == (clip.index, clip.label, True)
        (batch, _) = data.val_dataloader()
        assert batch.index.tolist() == [0, 1]
        assert batch.video.shape == (2, *token_shape(network, PREPROCESSING))

    def test_shards_are_bounded_and_mapped(self, filled):
        data, network = filled
        names = shards(data.cache)
        assert len(names) == 5 + 5 + 2
        assert names[0] == "train_view_0_00000.safetensors"
        (part, *_) = data.open_cache(network)
        assert load_file(part.path(4))["tokens"].shape[0] == 1
        one, two = part.clip(0).video, part.clip(1).video
        assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()  # views of the file

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which files are mapped")
    def test_reading_maps_the_file(self, filled):
        data, network = filled
        (part, *_) = data.open_cache(network)
        assert str(part.path(2)) not in Path("/proc/self/maps").read_text()
        clip = part.clip(4)
        assert str(part.path(2)) in Path("/proc/self/maps").read_text()
        assert clip.video.isfinite().all()

    def test_epochs_need_no_videos(self, filled, videos, tmp_path, monkeypatch):
        data, _ = filled
        monkeypatch.setattr("uniformerv2.data.clips.open_video", None)
        seen = [batch.index.tolist() for batch in data.train_dataloader()]
        assert len(seen) == 4  # of two; the ninth is left out
        assert len(list(data.val_dataloader())) == 2
        assert len(list(data.train_dataloader())) == 4

    def test_a_stopped_run_goes_on_where_it_was(self, filled, videos):
        """A shard is missing, one is cut off, and what a kill left half-written lies beside them."""
        data, network = filled
        parts = data.open_cache(network)
        before = {path: path.read_bytes() for path in data.cache.rglob("*.safetensors")}
        parts[0].path(3).unlink()
        cut = parts[1].path(1)
        cut.write_bytes(cut.read_bytes()[:-1])
        (parts[0].folder / ".train_view_0_00003.safetensors.x").write_bytes(b"half")
        untouched = [parts[0].path(2), parts[1].path(0), parts[2].path(1)]
        for path in untouched:
            os.utime(path, (0, 0))
        counts = []
        data_of(videos, data.cache, shard_bytes=SHARD_BYTES).fill_cache(network, on_clips=counts.append)
        assert {path: path.read_bytes() for path in data.cache.rglob("*.safetensors")} == before
        assert all(path.stat().st_mtime == 0 for path in untouched)
        assert sum(counts) == data.num_clips
        counts.clear()
        data_of(videos, data.cache, shard_bytes=SHARD_BYTES).fill_cache(network, on_clips=counts.append)
        assert counts == [9, 9, 3]

    def test_another_key_is_another_folder(self, filled, videos):
        data, network = filled
        with torch.no_grad():
            network.embedding.weight += 1
        other = data_of(videos, data.cache)
        assert {part.first_missing() for part in other.open_cache(network)} == {0}

    def test_while_another_process_fills_it_one_waits(self, filled, videos):
        """And then computes nothing."""
        data, network = filled
        (folder,) = data.cache.iterdir()
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        with given_back_to_who_waits(folder) as told:
            data_of(videos, data.cache, shard_bytes=SHARD_BYTES).fill_cache(network)
        assert told.words.endswith("this one waits until it ends.")
        assert {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == before

    def test_without_room_nothing_is_computed(self, videos, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(DiskFullError, match="The cache of features needs about"):
            data_of(videos, tmp_path / "cache").fill_cache(frozen_network())
        assert not list(tmp_path.rglob("*.safetensors"))

    def test_mode_of_the_network_stays(self, videos, tmp_path):
        network = frozen_network()
        network.train()
        data_of(videos, tmp_path).fill_cache(network)
        assert network.training
        assert network.head.training

    def test_stored_types(self, videos, tmp_path):
        network = frozen_network()
        tokens = {}
        for storage in ("float32", "float16", "bfloat16"):
            data = data_of(videos, tmp_path, settings=replace(SETTINGS, num_views=1, storage=storage))
            data.fill_cache(network)
            tokens[storage] = data.train_dataloader().dataset[SampleKey(4)].video
            assert str(tokens[storage].dtype) == f"torch.{storage}"
        assert torch.equal(tokens["float16"], tokens["float32"].half())
        assert torch.equal(tokens["bfloat16"], tokens["float32"].bfloat16())

    def test_overflow_is_refused(self, videos, tmp_path):
        network = frozen_network()
        with torch.no_grad():
            network.blocks[3].ffn.fn.fc2.bias += 1e5
        data = data_of(videos, tmp_path, settings=replace(SETTINGS, storage="float16"))
        with pytest.raises(ValueError, match="--cache-dtype bfloat16"):
            data.fill_cache(network)
        assert shards(tmp_path) == []

    def test_broken_videos(self, videos, tmp_path):
        """One is replaced in training and counts as failed in validation; more than allowed end it."""
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video" * 100)
        some = [replace(videos[0], path=str(broken)), *videos[1:9], replace(videos[9], path=str(broken)), *videos[10:]]
        network = frozen_network()
        data = data_of(some, tmp_path / "cache", max_failed=0.2)
        data.fill_cache(network)
        sample = data.train_dataloader().dataset[SampleKey(0)]
        assert sample.index != 0
        assert sample.label == videos[sample.index].label
        assert [list(batch.readable) for batch in data.val_dataloader()] == [[False, True], [True]]
        with pytest.raises(TooManyFailuresError, match=r"broken\.mp4"):
            data_of(some, tmp_path / "other", max_failed=0.0).fill_cache(network)

        before = {path: path.stat().st_mtime_ns for path in data.cache.rglob("*.safetensors")}
        again = data_of(some, tmp_path / "cache", max_failed=0.2)
        again.fill_cache(network)
        assert {path: path.stat().st_mtime_ns for path in data.cache.rglob("*.safetensors")} == before
        for loader in (again.train_dataloader(), again.val_dataloader()):
            loader.sampler.shuffle = False
            assert list(loader)
            assert loader.report.num_failed == 1
            assert [failure.path for failure in loader.report.failures] == [str(broken)]

    def test_videos_that_were_away_are_read_by_the_next_run(self, videos, tmp_path, monkeypatch):
        """One of each split; the shards without them stay as they are."""
        network, away = frozen_network(), {videos[0].path, videos[9].path}

        def late(path, **options):
            if str(path) in away:
                raise TimeoutError("the machine is too busy")
            return open_video(path, **options)

        fields = {"shard_bytes": SHARD_BYTES, "max_failed": 0.2}
        data = data_of(videos, tmp_path / "cache", **fields)
        with monkeypatch.context() as patched:
            patched.setattr("uniformerv2.data.clips.open_video", late)
            data.fill_cache(network)
        assert data.train_dataloader().dataset[SampleKey(0)].index != 0
        loader = data.val_dataloader()
        assert [list(batch.readable) for batch in loader] == [[False, True], [True]]
        assert f"1 of 3 samples could not be read\n  {videos[9].path}: timeout" in str(loader.report)

        before = {path: path.stat().st_mtime_ns for path in data.cache.rglob("*.safetensors")}
        again, counts = data_of(videos, data.cache, **fields), []
        again.fill_cache(network, on_clips=counts.append)
        assert counts == [9, 9, 3]
        changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
        assert changed == {f"{part}_00000.safetensors" for part in ("train_view_0", "train_view_1", "val_view_0")}
        loader = again.val_dataloader()
        assert [list(batch.readable) for batch in loader] == [[True, True], [True]]
        assert loader.report.num_failed == 0
        fresh = data_of(videos, tmp_path / "fresh", **fields)
        fresh.fill_cache(network)
        for part, wanted in zip(again.open_cache(network), fresh.open_cache(network), strict=True):
            for number in range(part.num_videos):
                clip, own = part.clip(number), wanted.clip(number)
                assert torch.allclose(clip.video, own.video, atol=1e-5)
                assert (clip.index, clip.label, clip.readable) == (number, own.label, True)

    def test_room_on_the_disk(self, videos, tmp_path, monkeypatch):
        network, data = frozen_network(), data_of(videos, tmp_path / "cache")
        needed = data.num_bytes(network)
        assert needed == 21 * clip_bytes(network, PREPROCESSING, "float32")
        free = SimpleNamespace(free=2**30 + needed)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
        assert missing_bytes(data, network) == 0
        free.free -= 1000
        assert missing_bytes(data, network) == 1000
        data.fill_cache(network)
        assert missing_bytes(data, network) == 0  # what is there already takes no more

    def test_room_for_what_a_stopped_run_left_out(self, videos, tmp_path, monkeypatch):
        network, data = frozen_network(), data_of(videos, tmp_path, shard_bytes=SHARD_BYTES)
        data.fill_cache(network)
        train, _, val = data.open_cache(network)
        train.path(3).unlink()  # two clips
        val.path(1).unlink()  # one
        free = SimpleNamespace(free=2**30 + 3 * val.clip_bytes)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
        assert missing_bytes(data, network) == 0
        free.free -= 1
        assert missing_bytes(data, network) == 1

    def test_repeats_are_refused(self, videos, tmp_path):
        with pytest.raises(ValueError, match="repeats=2"):
            data_of(videos, tmp_path, repeats=2)


class TestTraining:
    def plan(self, out, **fields):
        some = {
            "data": "videos",
            "class_names": ("a", "b", "c"),
            "num_train": 9,
            "num_val": 3,
            "num_test": 0,
            "preset": "scene",
            "backbone": "tiny",
            "freeze_backbone": True,
            "num_frames": NUM_FRAMES,
            "image_size": SIZE,
            "batch_size": 4,
            "num_stages": 2,
            "dropout": 0.5,
            "rates": Rates(1e-3),
            "num_clips": 1,
            "num_crops": 1,
            "augmentation": "light",
            "flip": 0.5,
            "label_smoothing": 0.1,
            "is_multi_label": False,
            "precision": "32-true",
            "seed": 3,
            "num_workers": 0,
            "why": {},
            "cache_dtype": "float32",
        }
        return TrainingPlan(**{**some, "out": str(out), **fields})

    def trained(self, videos, plan, preprocessing=PREPROCESSING):
        network = frozen_network(preprocessing, global_dropout=(0.3,), drop_path_rate=0.2)
        splits = Splits(
            train=tuple(videos[:9]), val=tuple(videos[9:]), test=(), class_names=plan.class_names, rule="made"
        )
        result = run_plan(network, splits, plan)
        return network.state_dict(), result

    @pytest.mark.parametrize(
        ("augmentation", "preprocessing", "epochs", "num_views"),
        [(OFF, DENSE, 3, 1), (AUGMENTATION, PREPROCESSING, 2, 2)],
        ids=["off", "on"],
    )
    def test_equals_training_from_videos(
        self, videos, tmp_path, monkeypatch, augmentation, preprocessing, epochs, num_views
    ):
        """With the augmentation off from one view, with it on from as many views as epochs; dropout is on."""
        monkeypatch.setattr("uniformerv2.autotrain.run.augmentation_of", lambda name, **_: augmentation)
        start = frozen_network().state_dict()
        plan = self.plan(tmp_path / "videos", epochs=epochs)
        weights, result = self.trained(videos, plan, preprocessing)
        plan = self.plan(tmp_path / "cache", epochs=epochs, cache_views=num_views)
        again, from_cache = self.trained(videos, plan, preprocessing)
        assert shards(tmp_path / "cache")
        for name, tensor in weights.items():
            assert torch.allclose(again[name], tensor, atol=1e-5), name
        assert (weights["head.weight"] - start["head.weight"]).abs().max() > 1e-3
        assert from_cache.val_score == pytest.approx(result.val_score, abs=1e-4)

    def test_more_epochs_than_views_are_another_training(self, videos, tmp_path, monkeypatch):
        """So that the test above can fail."""
        monkeypatch.setattr("uniformerv2.autotrain.run.augmentation_of", lambda name, **_: AUGMENTATION)
        weights, _ = self.trained(videos, self.plan(tmp_path / "videos", epochs=2))
        again, _ = self.trained(videos, self.plan(tmp_path / "cache", epochs=2, cache_views=1))
        assert (again["head.weight"] - weights["head.weight"]).abs().max() > 1e-4

    def test_classifier_starts_from_tokens(self):
        network = frozen_network().eval()
        classifier = TokenClassifier(network).eval()
        video = torch.randint(0, 256, (2, NUM_FRAMES, 3, SIZE, SIZE))
        pixels = classifier.preprocessing.normalize(video)
        tokens = torch.stack(network.read_tokens(pixels), dim=1).half()
        assert torch.allclose(classifier(tokens), network(pixels), atol=1e-2)
        loss = classifier(tokens).square().sum()
        loss.backward()
        assert network.fusion.video_token.grad.abs().sum() > 0
        assert network.embedding.weight.grad is None
