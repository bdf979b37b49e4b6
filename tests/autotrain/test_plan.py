"""The choices of ``uniformerv2 train``: splits, plan, start, cost, and what is kept when it stops."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.media import write_video
from tests.training.fake_clips import NUM_FRAMES, SIZE, tiny_network
from uniformerv2 import Preprocessing, save_model
from uniformerv2.autotrain.choose import make_plan
from uniformerv2.autotrain.defaults import (
    default_batch_size,
    default_dropout,
    default_epochs,
    default_num_frames,
    default_rates,
    default_stages,
    default_views,
)
from uniformerv2.autotrain.fitting import _choose, _keep_best, make_trainer
from uniformerv2.autotrain.folder import RunFolder
from uniformerv2.autotrain.measure import Trial, estimate, largest_batch_size
from uniformerv2.autotrain.plan import Rates, TrainingPlan, TrainOptions, is_video_network
from uniformerv2.autotrain.start import arm_image_vit, check_backbone, load_video_network, weights_to_fetch
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.splits import Splits, read_splits
from uniformerv2.zoo.download import DownloadError

CPU = torch.device("cpu")
TINY_VIT = "vit_tiny_patch16_224"


def records(split, counts):
    """So many videos of each class."""
    return tuple(
        VideoRecord(f"{split}/{label}_{index}.mp4", label=label, label_name="abc"[label], split=split)
        for label, count in enumerate(counts)
        for index in range(count)
    )


def splits(train=(8, 8, 8), val=(2, 2, 2), test=(0, 0, 0)) -> Splits:
    every = {"train": records("train", train), "val": records("val", val), "test": records("test", test)}
    return Splits(**every, class_names=("a", "b", "c"), rule="made")


def write_list(path, rows, header="path,label"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """A video network of three classes a, b, c."""
    network = tiny_network()
    network.info = replace(network.info, class_names=("a", "b", "c"))
    return str(save_model(network, tmp_path / "network"))


class TestSplits:
    def test_a_list_without_split_holds_out_whole_sources(self, tmp_path):
        rows = [
            f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi,{name}"
            for name in ("Run", "Swim")
            for group in range(10)
            for clip in (1, 2)
        ]
        found = read_splits(write_list(tmp_path / "clips.csv", rows))
        assert (len(found.train), len(found.val), found.class_names) == (32, 8, ("Run", "Swim"))
        source = {record.path[-11:-8] + str(record.label) for record in found.train}
        assert not source & {record.path[-11:-8] + str(record.label) for record in found.val}
        assert "held out" in found.rule
        assert read_splits(tmp_path / "clips.csv") == found

    def test_a_folder_is_split_as_its_reader_does(self, tmp_path):
        for name in ("run", "swim"):
            (tmp_path / name).mkdir()
            for index in range(5):
                (tmp_path / name / f"{index}.mp4").touch()
        found = read_splits(tmp_path)
        assert list(found.val) == read_records(tmp_path, split="val", format="folder")
        assert len(found.val) == 2
        assert "held out" in found.rule

    def test_folder_list_and_copies_hold_out_the_same(self, tmp_path):
        """Whatever the order, the folder they are in, the suffix, and whether classes have names or numbers."""
        of_class = [f"{number:03}" for number in range(30)] + [f"day{day}/cam" for day in range(6)]
        of_class += [f"v_x_g{group:02}_c{clip:02}" for group in range(4) for clip in range(3)]
        names = [f"{label}/{name}" for label in ("run", "swim") for name in of_class]
        for name in names:
            (tmp_path / "videos" / f"{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "videos" / f"{name}.mp4").touch()
        rows = [f"videos/{name}.mp4,{name.partition('/')[0]}" for name in reversed(names)]
        copies = [f"copies/{name}.webm,{int(name.startswith('swim'))}" for name in names]

        def held(data, top):
            return {str(Path(record.path).relative_to(top).with_suffix("")) for record in read_splits(data).val}

        folder = held(tmp_path / "videos", tmp_path / "videos")
        assert held(write_list(tmp_path / "named.csv", rows), tmp_path / "videos") == folder
        assert held(write_list(tmp_path / "numbered.csv", copies), tmp_path / "copies") == folder
        assert {name.partition("/")[0] for name in folder} == {"run", "swim"}
        assert 8 <= sum(name.startswith("run") for name in folder) <= 10

    def test_videos_of_several_classes_are_held_out_together(self, tmp_path):
        """Few of them have the very same classes."""
        rows = [f'{index}.mp4,"{index % 7};{index % 5}"' for index in range(35)]
        found = read_splits(write_list(tmp_path / "clips.csv", rows))
        assert (len(found.train), len(found.val)) == (28, 7)

    def test_names_of_the_class_numbers(self, tmp_path):
        rows = [f"{index}.mp4,{index % 2}" for index in range(10)]
        data = write_list(tmp_path / "clips.csv", rows)
        assert "--classes FILE" in read_splits(data).warnings()[0]
        found = read_splits(data, classes=("run", "swim"))
        assert found.class_names == ("run", "swim")
        assert not any("--classes" in warning for warning in found.warnings())
        with pytest.raises(
            ValueError, match=r"3 class names are given, but the class numbers .* end at 1: give 2 names"
        ):
            read_splits(data, classes=("run", "swim", "fly"))
        with pytest.raises(
            ValueError, match=r"clips\.csv:3: The label 1 is outside the classes.*there are 1 class names"
        ):
            read_splits(data, classes=("run",))

    def test_names_in_the_list_may_be_fewer_than_those_of_the_head(self, tmp_path):
        rows = [f"{index}.mp4,{('run', 'swim')[index % 2]}" for index in range(10)]
        found = read_splits(write_list(tmp_path / "clips.csv", rows), classes=("swim", "run", "fly"))
        assert found.class_names == ("swim", "run", "fly")
        assert any("No training video of fly" in warning for warning in found.warnings())

    def test_root(self, tmp_path):
        rows = [f"{index}.mp4,{'ab'[index % 2]}" for index in range(10)]
        found = read_splits(write_list(tmp_path / "clips.csv", rows), root=tmp_path / "elsewhere")
        assert {Path(record.path).parent for record in found.every} == {tmp_path / "elsewhere"}

    def test_what_the_data_say_is_kept(self, tmp_path):
        (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 1\n")
        (tmp_path / "val.txt").write_text("c.mp4 1\n")
        found = read_splits(tmp_path)
        assert [record.path for record in found.val] == [str(tmp_path / "c.mp4")]
        assert found.rule == "as the data say"
        assert any("No validation video of 0" in warning for warning in found.warnings())

    def test_test_videos_do_not_choose(self, tmp_path):
        rows = [f"{index}.mp4,{'ab'[index % 2]},{'test' if index < 4 else 'train'}" for index in range(14)]
        found = read_splits(write_list(tmp_path / "clips.csv", rows, "path,label,split"))
        assert (len(found.train), len(found.val), len(found.test)) == (8, 2, 4)
        assert not {record.path for record in found.val} & {record.path for record in found.test}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (["0.mp4,a", "1.mp4,b"], "No video is left to validate on"),
            (["0.mp4,a", "1.mp4,a"], "There is one class, 'a'"),
            (["0.mp4,", "1.mp4,"], "2 of 2 videos have no class"),
        ],
    )
    def test_refused(self, tmp_path, rows, message):
        with pytest.raises(ValueError, match=message):
            read_splits(write_list(tmp_path / "clips.csv", rows))

    def test_only_validation_videos(self, tmp_path):
        with pytest.raises(ValueError, match="nothing of it is 'train'"):
            read_splits(write_list(tmp_path / "clips.csv", ["0.mp4,a,val", "1.mp4,b,val"], "path,label,split"))

    def test_warnings(self):
        enough = (8, 8, 8)
        assert splits(val=enough).warnings() == []
        assert splits(train=(8, 8, 0), val=enough).warnings() == [
            "No training video of c: they will never be recognised."
        ]
        assert "No validation video of c" in splits(val=(12, 12, 0)).warnings()[0]
        assert "Fewer than 5 training videos of b (1)" in splits(train=(8, 1, 8), val=enough).warnings()[0]
        assert splits(val=(2, 1, 1)).warnings() == ["4 validation videos: each is 25 % of the accuracy."]
        twice = splits(val=enough)
        assert "1 video trains and validates" in replace(twice, val=(*twice.val, twice.train[0])).warnings()[0]

    def test_without(self):
        whole = splits()
        left = whole.without([whole.train[0], whole.val[3]])
        assert (len(left.train), len(left.val)) == (23, 5)
        with pytest.raises(ValueError, match="left to validate on"):
            splits(val=(1, 0, 0)).without(splits(val=(1, 0, 0)).val)


class TestRules:
    def test_batch_has_four_steps_an_epoch(self):
        assert [default_batch_size(count, largest=64) for count in (1, 8, 30, 100, 10_000)] == [2, 2, 4, 16, 64]
        assert default_batch_size(10_000, largest=24) == 16

    def test_epochs(self):
        assert [default_epochs(count) for count in (1, 529, 5000, 240_000)] == [50, 10, 5, 5]
        assert [default_epochs(count, most=3) for count in (60, 529)] == [3, 3]
        assert [default_epochs(count, most=20) for count in (60, 529)] == [20, 10]

    def test_rates_follow_the_root_of_the_batch(self):
        for preset in ("scene", "motion"):
            for freeze_backbone in (False, True):
                made = {"preset": preset, "freeze_backbone": freeze_backbone, "is_armed_anew": True}
                rates, fourth = default_rates(16, **made), default_rates(4, **made)
                assert fourth.learning_rate == pytest.approx(rates.learning_rate / 2)
                assert replace(fourth, learning_rate=rates.learning_rate) == rates

    @pytest.mark.parametrize("preset", ["scene", "motion"])
    def test_from_a_probe_everything_learns_slowly_unless_the_backbone_is_frozen(self, preset):
        made = {"preset": preset, "is_armed_anew": True}
        usual, slow = (default_rates(16, freeze_backbone=False, keeps_start=start, **made) for start in (False, True))
        assert slow.learning_rate <= usual.learning_rate / 100
        of_new_parts = [rates.learning_rate * rates.video_blocks_scale for rates in (slow, usual)]
        assert of_new_parts[0] <= of_new_parts[1] / 20
        frozen = [default_rates(16, freeze_backbone=True, keeps_start=start, **made) for start in (False, True)]
        assert frozen[0] == frozen[1]

    def test_lower_blocks_learn_slower_unless_they_see_the_motion(self):
        made = {"freeze_backbone": False, "is_armed_anew": True}
        assert default_rates(16, preset="scene", **made).layer_decay < 1
        assert default_rates(16, preset="motion", **made).layer_decay == 1

    def test_few_videos_get_one_stage(self):
        assert [default_stages("scene", count) for count in (9_999, 10_000)] == [1, None]
        assert default_stages("motion", 10) is None

    def test_few_videos_and_a_frozen_image_vit_get_little_dropout(self):
        assert [default_dropout(freeze_backbone=True, num_train=count) for count in (9_999, 10_000)] == [0.1, None]
        assert default_dropout(freeze_backbone=False, num_train=10) is None

    def test_published_views_and_frames(self):
        assert (default_views("scene"), default_views("motion")) == ((4, 3), (1, 3))
        assert (default_num_frames("scene", has_gpu=True), default_num_frames("motion", has_gpu=True)) == (8, 16)


class TestMakePlan:
    def make(self, checkpoint, found=None, **asked):
        options = TrainOptions(data="videos", model=checkpoint, num_workers=0, **asked)
        return make_plan(options, found or splits(), device=CPU)

    def test_every_open_choice_has_a_reason(self, checkpoint):
        plan, network = self.make(checkpoint)
        assert (plan.num_frames, plan.image_size) == (NUM_FRAMES, SIZE)
        assert (plan.batch_size, plan.epochs, plan.preset) == (4, 50, "scene")
        assert plan.rates == Rates(pytest.approx(1e-5), video_blocks_scale=5.0)
        assert plan.num_stages == len(network.config.fusion_stages)
        assert (plan.num_steps, plan.monitor) == (300, "val_top1")
        assert set(plan.why) == {
            "split",
            "preset",
            "num_stages",
            "dropout",
            "num_frames",
            "image_size",
            "augmentation",
            "precision",
            "batch_size",
            "learning_rate",
            "epochs",
            "num_clips",
            "num_crops",
        }
        assert network.info.class_names == plan.class_names
        assert TrainingPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan

    def test_what_was_asked_for_is_done(self, checkpoint):
        asked = {
            "epochs": 3,
            "batch_size": 5,
            "num_clips": 2,
            "num_crops": 1,
            "num_frames": 6,
            "image_size": 48,
            "preset": "motion",
            "freeze_backbone": True,
            "augmentation": "strong",
            "seed": 7,
        }
        plan, network = self.make(checkpoint, learning_rate=1e-3, precision="bf16", **asked)
        assert plan.precision == "bf16-mixed"
        assert {name: getattr(plan, name) for name in asked} == asked
        assert plan.rates.learning_rate == 1e-3
        assert set(plan.why) == {"split", "num_stages", "dropout"}
        assert plan.flip == 0  # left and right may be classes
        assert not any(weight.requires_grad for weight in network.embedding.parameters())
        assert network.head.weight.requires_grad

    def test_schedule_is_of_this_batch(self, checkpoint):
        optimization = self.make(checkpoint, epochs=10)[0].optimization
        assert optimization.batch_factor(123) == 1
        assert optimization.rate(1.0, 10) == pytest.approx(1e-5)
        assert optimization.rate(0.0, 10) == pytest.approx(1e-6)
        assert optimization.rate(10, 10) == pytest.approx(1e-7)

    def test_a_batch_of_more_than_all_videos_has_the_rate_of_all(self, checkpoint):
        num_train = len(splits().train)
        rates = [self.make(checkpoint, batch_size=size)[0].rates for size in (num_train, 10 * num_train)]
        assert rates[0] == rates[1]

    def test_several_classes_a_video(self, checkpoint):
        found = splits()
        several = replace(found.train[0], label=(0, 1), label_name=("a", "b"))
        plan, _ = self.make(checkpoint, replace(found, train=(several, *found.train[1:])))
        assert plan.is_multi_label
        assert plan.monitor == "val_mean_ap"

    def test_refused(self, checkpoint):
        with pytest.raises(ValueError, match="has its own: name the image ViT"):
            self.make(checkpoint, backbone_weights="vit.safetensors")
        with pytest.raises(ValueError, match="--learning-rate must be above 0"):
            self.make(checkpoint, learning_rate=-1.0)
        with pytest.raises(ValueError, match="--stages is for an image ViT"):
            self.make(checkpoint, num_stages=2)
        with pytest.raises(ValueError, match="--dropout is for an image ViT"):
            self.make(checkpoint, dropout=0.3)


class TestStart:
    def test_own_head_stays_where_the_classes_are_the_same(self, checkpoint):
        before = tiny_network().head.weight
        same = load_video_network(checkpoint, class_names=("a", "b", "c"), num_frames=None, image_size=None)
        assert torch.equal(same.head.weight, before)
        other = load_video_network(checkpoint, class_names=("x", "y"), num_frames=8, image_size=64)
        assert other.head.weight.shape == (2, 48)
        assert other.info.class_names == ("x", "y")
        assert (other.info.preprocessing["num_frames"], other.info.preprocessing["image_size"]) == (8, 64)

    def test_names(self, checkpoint):
        check_backbone("vit_small_patch14_dinov2.lvd142m")
        assert not is_video_network("vit_small_patch14_dinov2.lvd142m")
        for name in ("uniformerv2_b16_k400_8x224", checkpoint):
            assert is_video_network(name)
            with pytest.raises(ValueError, match=f"is a video network: give --model {re.escape(name)}"):
                check_backbone(name)
        with pytest.raises(
            ValueError, match=r"'vit_tiny_patch61_224' is no image ViT of timm; such are: .*Did you mean 'vit_"
        ):
            check_backbone("vit_tiny_patch61_224")

    def test_image_vit_from_a_file(self, tmp_path):
        vit = timm.create_model(TINY_VIT, num_classes=0)
        save_file(vit.state_dict(), tmp_path / "vit.safetensors")
        wanted = {"preset": "scene", "class_names": ("a", "b"), "num_stages": 2, "num_frames": 4, "image_size": 32}
        network = arm_image_vit(TINY_VIT, dropout=0.2, weights=str(tmp_path / "vit.safetensors"), **wanted)
        assert any(torch.equal(weight, vit.blocks[3].mlp.fc1.weight) for weight in network.blocks[3].parameters())
        assert network.config.num_classes == 2
        assert network.config.fusion_stages == (10, 11)
        assert (network.head_drop.p, network.config.global_dropout) == (0.2, (0.2, 0.2))

    def test_a_plan_needs_no_weights_of_a_name(self, tmp_path, monkeypatch):
        """It says which would be fetched; the network has as many, random ones."""
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("UNIFORMERV2_HOME", str(tmp_path))
        wanted = {"preset": "motion", "class_names": ("a", "b"), "num_stages": None, "dropout": None}
        wanted |= {"num_frames": 4, "image_size": 32}
        network = arm_image_vit(TINY_VIT, weights=None, fetch=False, **wanted)
        told = weights_to_fetch(TINY_VIT, network, weights=None)
        assert re.fullmatch(r"timm/vit_tiny_patch16_224\.\w+ of the Hugging Face hub, about 2\d MB", told)
        assert weights_to_fetch(TINY_VIT, network, weights="vit.safetensors") is None
        monkeypatch.setenv("UNIFORMERV2_OFFLINE", "1")
        with pytest.raises(DownloadError, match="--backbone-weights FILE"):
            arm_image_vit(TINY_VIT, weights=None, **wanted)

    def test_a_plan_needs_no_weights_of_the_zoo(self, tmp_path, monkeypatch, checkpoint):
        monkeypatch.setenv("UNIFORMERV2_HOME", str(tmp_path))
        name = "uniformerv2_b16_k400_8x224"
        size = {"class_names": ("a", "b"), "num_frames": None, "image_size": None}
        with torch.device("meta"):
            network = load_video_network(name, fetch=False, **size)
        assert network.num_classes == 2
        assert re.fullmatch(r"http.*\.pyth?, about \d+ MB", weights_to_fetch(name, network, weights=None))
        assert weights_to_fetch(checkpoint, load_video_network(checkpoint, **size), weights=None) is None


class TestCost:
    def test_batch_shrinks_until_the_memory_holds_it(self, monkeypatch):
        network, preprocessing = tiny_network(), Preprocessing(num_frames=NUM_FRAMES, image_size=SIZE)
        arguments = {"wanted": 50, "device": CPU, "precision": "32-true"}
        assert largest_batch_size(network, preprocessing, **arguments) == 16
        sizes = []
        monkeypatch.setattr(
            "uniformerv2.autotrain.measure.memory_bytes", lambda: sizes.append(0) or (0 if len(sizes) < 3 else 1e12)
        )
        assert largest_batch_size(network, preprocessing, **arguments) == 4
        monkeypatch.setattr("uniformerv2.autotrain.measure.memory_bytes", lambda: 0)
        with pytest.raises(ValueError, match="does not hold a single clip"):
            largest_batch_size(network, preprocessing, **arguments)

    def test_estimate_leaves_the_network_and_the_draws_alone(self, tmp_path, checkpoint):
        video = str(write_video(tmp_path / "a.mp4"))
        found = splits()
        found = replace(found, train=tuple(replace(record, path=video) for record in found.train))
        plan, network = TestMakePlan().make(checkpoint, found, epochs=7)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        torch.manual_seed(3)
        preprocessing = Preprocessing(num_frames=NUM_FRAMES, image_size=SIZE)
        augmentation = TrainAugmentation(image_size=SIZE)
        cost = estimate(network, plan, preprocessing, augmentation, found.train, device=CPU)
        drawn = torch.rand(1)
        assert torch.equal(torch.manual_seed(3) and torch.rand(1), drawn)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(weight.grad is None for weight in network.parameters())
        assert cost.num_parameters == sum(weight.numel() for weight in network.parameters()) == cost.num_trainable
        assert cost.total_seconds > plan.num_steps * cost.step_seconds > 0
        assert cost.memory_bytes > 16 * cost.num_parameters
        assert 0 < cost.frozen_seconds < cost.total_seconds

    def test_a_rough_estimate_takes_two_steps_of_one_clip(self, tmp_path, checkpoint, monkeypatch):
        """As a dry run makes it; its numbers are of whole batches all the same."""
        video = str(write_video(tmp_path / "a.mp4"))
        found = splits()
        found = replace(found, train=tuple(replace(record, path=video) for record in found.train))
        plan, network = TestMakePlan().make(checkpoint, found, batch_size=4)
        sizes, read = [], []
        step, item = Trial.step, VideoDataset.__getitem__
        monkeypatch.setattr(Trial, "step", lambda trial: (sizes.append(len(trial.batch)), step(trial)))
        monkeypatch.setattr(VideoDataset, "__getitem__", lambda data, key: (read.append(key), item(data, key))[1])
        monkeypatch.setattr("uniformerv2.autotrain.measure._typical_seconds", self.one_second)
        preprocessing = Preprocessing(num_frames=NUM_FRAMES, image_size=SIZE)
        arguments = network, plan, preprocessing, TrainAugmentation(image_size=SIZE), found.train
        cost = estimate(*arguments, device=CPU, is_rough=True)
        assert sizes == [1, 1]
        assert len(read) == 3
        assert 4 < cost.step_seconds < 5  # one second for each clip, and the reading
        sizes.clear()
        assert 1 < estimate(*arguments, device=CPU).step_seconds < 2
        assert sizes == [4] * 10

    @staticmethod
    def one_second(work, wait, runs):
        for _ in range(runs.stop):
            work()
        return 1.0


def test_run_folder_brings_back_plan_and_architecture(tmp_path, checkpoint):
    plan, network = TestMakePlan().make(checkpoint, freeze_backbone=True)
    folder = RunFolder(tmp_path / "run")
    folder.write(plan, network, {"epochs": None})
    again, rebuilt = folder.read()
    assert again == plan
    assert folder.request() == {"epochs": None}
    assert rebuilt.config == network.config
    assert rebuilt.info.preprocessing == network.info.preprocessing
    assert [weight.requires_grad for weight in rebuilt.parameters()] == [
        weight.requires_grad for weight in network.parameters()
    ]


class Scripted(lightning.LightningModule):
    """Learns nothing; its validation accuracy is given, epoch by epoch."""

    def __init__(self, accuracies):
        super().__init__()
        self.weight, self.accuracies = torch.nn.Parameter(torch.zeros(1)), accuracies

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, _):
        loss = (self.weight * batch).sum()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val_top1", self.accuracies[self.current_epoch])


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Checkpoint directory")
def test_of_equally_good_epochs_the_latest_is_kept(tmp_path, checkpoint):
    """Five validation videos allow six accuracies; the first epoch that reached one has learnt least."""
    plan, _ = TestMakePlan().make(checkpoint)
    folder, module = RunFolder(tmp_path), Scripted([0.2, 0.8, 0.6, 0.8, 0.4])
    batches = torch.utils.data.DataLoader(torch.ones(2))
    device, callbacks = torch.device("cpu"), [_keep_best(plan, folder)]
    trainer = make_trainer(
        tmp_path, epochs=5, precision="32-true", device=device, callbacks=callbacks, logger=False, log_every_n_steps=1
    )
    trainer.fit(module, batches, batches)
    assert torch.load(folder.best, weights_only=True)["epoch"] == 3
    assert [path.name for path in folder.checkpoints.iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize(("last", "kept"), [(0.8, "last"), (0.75, "best")])
def test_last_epoch_is_kept_unless_another_was_better(tmp_path, checkpoint, last, kept):
    plan, _ = TestMakePlan().make(checkpoint)
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    torch.save({"epoch": 4}, folder.best)
    choice = _choose(last, 0.8, folder, plan.epochs, plan, log=tmp_path / "metrics.csv")
    assert choice.path == tmp_path / "checkpoints" / f"{kept}.ckpt"
    assert choice.score == pytest.approx(0.8)
    assert ("epoch 5" in choice.words) == (kept == "best")
