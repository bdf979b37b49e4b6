"""``VideoClassifier`` with Lightning's Trainer on fake clips."""

from __future__ import annotations

import math
from dataclasses import replace

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch.nn import functional as F

from tests.training.fake_clips import NUM_CLASSES, FakeClips, batch_of, loader, tiny_network
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import BatchMixing
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.module import NonFiniteLossError, VideoClassifier
from uniformerv2.training.optim import Optimization

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

FAST = Optimization(learning_rate=1e-3, batch_size=None, warmup_epochs=0, end_rate=0)


class Recorder(Callback):
    """Losses and rates of every step, and the weights at the end of every epoch."""

    def __init__(self):
        self.losses, self.rates = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train_loss"]))
        self.rates.append(float(trainer.callback_metrics["learning_rate"]))


def trainer(tmp_path, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(
        **{"accelerator": "cpu", "max_epochs": 1, "default_root_dir": tmp_path, **quiet, **options}
    )


def fit(tmp_path, classifier, *, count=12, batch_size=4, val=None, **options):
    recorder = Recorder()
    engine = trainer(tmp_path, **{**options, "callbacks": [recorder, *options.get("callbacks", [])]})
    engine.fit(classifier, loader(FakeClips(count), batch_size=batch_size), val)
    return recorder, engine


def test_learns(tmp_path):
    recorder, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST), max_epochs=8)
    assert len(recorder.losses) == 24
    assert recorder.losses[-1] < 0.3 * recorder.losses[0]


def test_pixels_are_normalised_as_the_network_says():
    network = tiny_network().eval()
    batch = batch_of(FakeClips(2), [0, 1])
    expected = network((batch.video / 255 - 0.45) / 0.225)
    torch.testing.assert_close(VideoClassifier(network).eval()(batch.video), expected)


def test_every_step_has_its_rate(tmp_path):
    optimization = Optimization(learning_rate=1e-3, batch_size=4, warmup_start_rate=1e-4, end_rate=0, warmup_epochs=1)
    recorder, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=optimization), max_epochs=3)
    expected = [optimization.rate(step / 3, 3) for step in range(9)]
    assert recorder.rates == pytest.approx(expected, rel=1e-6)


def test_rates_follow_accumulation_and_epochs_are_of_steps(tmp_path):
    optimization = Optimization(learning_rate=1e-3, batch_size=32, warmup_epochs=1)
    classifier = VideoClassifier(tiny_network(), optimization=optimization)
    recorder, engine = fit(tmp_path, classifier, count=24, accumulate_grad_batches=2, max_epochs=2)
    assert classifier.global_batch_size == 8
    assert engine.global_step == 6
    expected = [8 / 32 * optimization.rate(step / 3, 2) for step in range(6) for _ in range(2)]
    assert recorder.rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "options", "seen"),
    [(12, {"accumulate_grad_batches": 8}, 12), (3, {}, 3), (12, {"limit_train_batches": 1}, 4)],
    ids=["three batches of eight", "less than a batch", "one batch of three"],
)
def test_rates_are_of_the_videos_that_a_step_sees(tmp_path, count, options, seen):
    """An epoch ends with a step, however many batches were to be accumulated."""
    optimization = Optimization(learning_rate=1e-3, batch_size=32, warmup_epochs=1)
    classifier = VideoClassifier(tiny_network(), optimization=optimization)
    recorder, engine = fit(tmp_path, classifier, count=count, max_epochs=2, **options)
    assert engine.global_step == 2
    assert classifier.global_batch_size == seen
    batches = engine.num_training_batches
    expected = [seen / 32 * optimization.rate(step, 2) for step in range(2) for _ in range(batches)]
    assert recorder.rates == pytest.approx(expected, rel=1e-6)


def test_training_goes_on_with_the_settings_of_now(tmp_path):
    """A checkpoint brings the steps that are done, not the rates, decay and betas of before."""
    before = replace(FAST, video_blocks_scale=2.0)
    _, engine = fit(tmp_path, VideoClassifier(tiny_network(), optimization=before), max_epochs=2)
    engine.save_checkpoint(tmp_path / "before.ckpt")
    now = Optimization(
        learning_rate=1e-5, batch_size=None, warmup_epochs=3, video_blocks_scale=3.0, weight_decay=0.1, betas=(0.8, 0.9)
    )
    recorder = Recorder()
    engine = trainer(tmp_path, max_epochs=4, callbacks=[recorder])
    classifier = VideoClassifier(tiny_network(), optimization=now)
    engine.fit(classifier, loader(FakeClips(12), batch_size=4), ckpt_path=tmp_path / "before.ckpt", weights_only=True)
    assert recorder.rates == pytest.approx([3 * now.rate(step / 3, 4) for step in range(6, 12)], rel=1e-6)
    groups = engine.optimizers[0].param_groups
    assert [(group["weight_decay"], group["betas"]) for group in groups] == [(0, now.betas), (0.1, now.betas)] * 2
    assert groups[0]["lr"] == pytest.approx(now.end_rate)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.0},
        {"video_blocks_scale": 10.0},
        {"layer_decay": 0.75},
        {"decay_tokens": False},
        {"layer_decay": 0.5, "video_blocks_scale": 3.0, "weight_decay": 0.0, "decay_tokens": False},
    ],
)
def test_each_parameter_keeps_its_moments_in_other_groups(tmp_path, changes):
    """Decay and scales decide which parameters share a group: into more of them, and back into fewer."""
    options = FAST, replace(FAST, **changes)
    for before, now in (options, options[::-1]):
        classifier = VideoClassifier(tiny_network(), optimization=before)
        _, engine = fit(tmp_path, classifier)
        engine.save_checkpoint(tmp_path / "before.ckpt")
        old = moments(classifier, engine)
        fresh = VideoClassifier(tiny_network(), optimization=now)
        engine = trainer(tmp_path)  # of one epoch, which is over: nothing is trained
        engine.fit(fresh, loader(FakeClips(12), batch_size=4), ckpt_path=tmp_path / "before.ckpt", weights_only=True)
        assert engine.global_step == 3
        new = moments(fresh, engine)
        assert old.keys() == new.keys() == {name for name, _ in fresh.network.named_parameters()}
        assert all(torch.equal(old[name], new[name]) for name in old)
        decays = {group["weight_decay"] for group in engine.optimizers[0].param_groups}
        assert decays == {0.0, now.weight_decay}


def moments(classifier, engine):
    """Mean gradient of each parameter, by name."""
    (optimizer,) = engine.optimizers
    return {name: optimizer.state[value]["exp_avg"] for name, value in classifier.network.named_parameters()}


def test_training_goes_on_with_the_parameters_of_before(tmp_path):
    _, engine = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST))
    engine.save_checkpoint(tmp_path / "all.ckpt")
    network = tiny_network()
    network.freeze_backbone()
    with pytest.raises(
        ValueError, match=r"trained other parameters: \d+, now \d+; .* instance blocks\.0\..*model\.freeze_backbone"
    ):
        trainer(tmp_path, max_epochs=2).fit(
            VideoClassifier(network, optimization=FAST),
            loader(FakeClips(12), batch_size=4),
            ckpt_path=tmp_path / "all.ckpt",
            weights_only=True,
        )


def test_accumulation_equals_a_larger_batch(tmp_path):
    whole, parts = (VideoClassifier(tiny_network(), optimization=FAST) for _ in range(2))
    fit(tmp_path, whole, count=16, batch_size=8)
    fit(tmp_path, parts, count=16, batch_size=4, accumulate_grad_batches=2)
    for ours, theirs in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_numbers_and_of_soft_targets(weights, smoothing):
    classifier = VideoClassifier(tiny_network(), label_smoothing=smoothing, class_weights=weights)
    logits, label = torch.randn(4, NUM_CLASSES), torch.tensor([0, 1, 2, 1])
    target = F.one_hot(label, NUM_CLASSES) * (1 - smoothing) + smoothing / NUM_CLASSES
    weight = torch.tensor(weights or [1.0] * NUM_CLASSES)
    total = -(target * weight * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(classifier.criterion(logits, label), total / weight[label].sum())
    soft = classifier.criterion(logits, F.one_hot(label, NUM_CLASSES).float())
    torch.testing.assert_close(soft, total / 4)


def test_binary_cross_entropy_weighs_positives():
    classifier = VideoClassifier(
        tiny_network(), loss="binary_cross_entropy", class_weights=[1.0, 3.0, 1.0], label_smoothing=0.2
    )
    logits, label = torch.randn(2, NUM_CLASSES), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    target = label * 0.8 + 0.1
    positive = torch.tensor([1.0, 3.0, 1.0]) * target * F.logsigmoid(logits)
    expected = -(positive + (1 - target) * F.logsigmoid(-logits)).mean()
    torch.testing.assert_close(classifier.criterion(logits, label), expected)


def test_mixed_batches_train(tmp_path):
    mixing = BatchMixing(num_classes=NUM_CLASSES)
    plain, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST))
    mixed, again, other = (
        losses_of_seed(tmp_path, seed, VideoClassifier(tiny_network(), optimization=FAST, mixing=mixing))
        for seed in (1, 1, 2)
    )
    assert mixed == again
    assert mixed != plain.losses
    assert mixed != other


def losses_of_seed(tmp_path, seed, classifier):
    """The seed decides nothing but the mixing: the network is there already, without dropout, the clips are fixed."""
    torch.manual_seed(seed)
    return fit(tmp_path, classifier)[0].losses


def test_the_seed_of_the_mixing_travels_with_the_random_states():
    """``ExactResume`` restores them: a resumed training mixes by the seed that it began with."""
    torch.manual_seed(7)
    torch.rand(5)
    state = torch.get_rng_state()
    torch.manual_seed(8)
    torch.set_rng_state(state)
    assert torch.initial_seed() == 7


def test_several_labels(tmp_path):
    labels = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    clips = FakeClips(4, labels=labels)
    classifier = VideoClassifier(tiny_network(), optimization=FAST, loss="binary_cross_entropy")
    engine = trainer(tmp_path, max_epochs=15)
    engine.fit(classifier, loader(clips, batch_size=4), loader(clips, batch_size=2))
    assert engine.callback_metrics["val_mean_ap"] > 0.9
    assert "val_top1" not in engine.callback_metrics


def test_views_are_averaged_as_probabilities():
    classifier = VideoClassifier(tiny_network()).eval()
    video = batch_of(FakeClips(2, num_views=3), [0, 1]).video
    expected = torch.stack([classifier(video[:, view]).softmax(-1) for view in range(3)]).mean(0)
    torch.testing.assert_close(classifier.log_scores(video).exp(), expected)
    torch.testing.assert_close(classifier.log_scores(video[:, 0]).exp(), classifier(video[:, 0]).softmax(-1))


def test_a_whole_test_pass(tmp_path):
    clips = FakeClips(9, num_views=2, unreadable=[5])
    classifier = VideoClassifier(tiny_network(), optimization=FAST)
    fit(tmp_path, classifier, max_epochs=8)
    (result,) = trainer(tmp_path).test(classifier, loader(clips, batch_size=4), verbose=False)
    assert result["test_top1"] == pytest.approx(8 / 9)
    assert result["test_top1_readable"] == 1.0


def test_ema_is_lightnings(tmp_path):
    classifier = VideoClassifier(tiny_network(), optimization=FAST)
    average = EMAWeightAveraging(decay=0.5)
    shadow = {name: value.clone() for name, value in classifier.network.state_dict().items()}

    class Follow(Callback):
        steps = 0

        def on_train_batch_end(self, trainer, pl_module, *_):
            for name, value in pl_module.network.state_dict().items():
                if value.is_floating_point():  # the first update takes the weights as they are
                    shadow[name] = value.clone() if self.steps == 0 else shadow[name].lerp(value, 0.5)
            self.steps += 1

    fit(tmp_path, classifier, callbacks=[Follow(), average], max_epochs=2)
    for name, value in classifier.network.state_dict().items():
        torch.testing.assert_close(value, shadow[name])


def test_checkpointed_blocks_change_no_number(tmp_path):
    plain, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST))
    saving, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST, num_checkpointed=3))
    assert saving.losses == pytest.approx(plain.losses, rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiling_changes_no_number(tmp_path):
    plain, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST))
    compiled, _ = fit(tmp_path, VideoClassifier(tiny_network(), optimization=FAST, compiled=True))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)


def test_frozen_image_vit_stays(tmp_path):
    network = tiny_network(num_local_steps=1)
    network.freeze_backbone()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    fit(tmp_path, VideoClassifier(network, optimization=FAST))
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    frozen = {name for name in before if name.startswith("embedding.") or ".spatial." in name or ".ffn.fn" in name}
    frozen = {name for name in frozen if not name.startswith("fusion.")}
    assert frozen
    assert not changed & frozen
    assert {"head.weight", "fusion.video_token", "blocks.0.local.0.proj.weight"} <= changed


def test_synchronised_batch_norm_converts():
    network = tiny_network(num_local_steps=2)
    video = torch.randn(1, 4, 3, 32, 32)
    expected = network.eval()(video)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    norms = [module for module in converted.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(norms) == 8
    torch.testing.assert_close(converted.eval()(video), expected)


def records(*labels):
    return [VideoRecord(f"{index}.mp4", label=label) for index, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ((0, 1, 2, 3), {}, "The data have 4 classes, the network has 3"),
        ((0, (1, 2)), {}, "several classes: the loss is binary_cross_entropy then, got cross_entropy"),
        ((0, 1, 2), {"loss": "binary_cross_entropy"}, "one class: the loss is cross_entropy then"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_first_step(tmp_path, labels, options, message):
    data = VideoDataModule(records(*labels), Preprocessing(num_frames=4, image_size=32), num_workers=0, batch_size=1)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(VideoClassifier(tiny_network(), **options), datamodule=data)


def test_what_the_data_know_travels_with_the_network():
    preprocessing = Preprocessing(num_frames=4, image_size=32, mean=(0.5, 0.4, 0.3), num_crops=3)
    data = VideoDataModule(records(0, 1, 2), preprocessing, classes=["a", "b", "c"], num_workers=0)
    network = tiny_network()
    network.info = replace(network.info, source="CLIP", metrics={"published_top1": 84.4})
    classifier = VideoClassifier(network)
    classifier._trainer = type("Fitted", (), {"datamodule": data})()
    classifier.setup("fit")
    assert classifier.network.info.class_names == ("a", "b", "c")
    assert (classifier.network.info.source, classifier.network.info.metrics) == ("trained from CLIP", {})
    assert classifier.network.info.preprocessing["mean"] == [0.5, 0.4, 0.3]
    batch = batch_of(FakeClips(2), [0, 1])
    expected = classifier.network.eval()(preprocessing.normalize(batch.video))
    torch.testing.assert_close(classifier.eval()(batch.video), expected)


def set_up(stage, *, own, data):
    """The names in the network after the set-up."""
    network = tiny_network(num_classes=len(own))
    network.info = replace(network.info, class_names=tuple(own))
    size = Preprocessing(num_frames=4, image_size=32)
    classifier = VideoClassifier(network)
    module = VideoDataModule(records(*range(len(data))), size, classes=list(data), num_workers=0)
    classifier._trainer = type("Fitted", (), {"datamodule": module})()
    classifier.setup(stage)
    return "".join(network.info.class_names)


@pytest.mark.parametrize(
    ("stage", "own", "data"),
    [
        ("validate", "yx", "xy"),
        ("validate", "xy", "ab"),
        ("validate", "pqr", "xy"),
        ("test", "pqr", "pr"),
        ("fit", "pqr", "xy"),
        ("fit", "pqr", "qr"),
        ("fit", "yx", "xy"),
    ],
)
def test_other_classes_are_not_taken_for_the_networks(stage, own, data):
    message = f"Class .* is '.' in the data and '.' in the network, whose {len(own)} classes are '{own[0]}', '{own[1]}'"
    with pytest.raises(ValueError, match=f"{message}.* give data.classes .*model.new_head"):
        set_up(stage, own=own, data=data)


@pytest.mark.parametrize(
    ("stage", "own", "data", "names"),
    [
        ("validate", "xy", "xy", "xy"),
        ("validate", "pqr", "pq", "pqr"),
        ("validate", "01", "xy", "xy"),
        ("validate", "xy", ["X", "Y"], "XY"),
        ("fit", "pqr", "pq", "pqr"),
        ("fit", "xy", "ab", "ab"),
        ("fit", "xy", "xb", "xb"),
        ("fit", "pqr", "01", "pqr"),
    ],
)
def test_classes_that_fit_the_networks(stage, own, data, names):
    """Equal ones; bare numbers on either side; and in a training new names for all rows of the head."""
    assert set_up(stage, own=own, data=data) == names


NUMBERED = tuple(map(str, range(12)))


@pytest.mark.parametrize("stage", ["fit", "validate"])
@pytest.mark.parametrize(("own", "data"), [(sorted(NUMBERED), NUMBERED), (NUMBERED, sorted(NUMBERED))])
def test_classes_that_are_numbers_are_matched_as_such(stage, own, data):
    with pytest.raises(ValueError, match=r"Class 2 is '.*' in the data and '.*' in the network, whose 12 classes"):
        set_up(stage, own=own, data=data)
    assert set_up(stage, own=data, data=data) == "".join(data)


def test_a_checkpoint_knows_the_order_of_its_classes(tmp_path):
    size = Preprocessing(num_frames=4, image_size=32)
    named = [replace(record, label_name=str(record.label)) for record in records(*range(12))]
    classifier = VideoClassifier(tiny_network(num_classes=12))

    def load(checkpoint, **fields):
        module = VideoDataModule(named, size, num_workers=0, **fields)
        classifier._trainer = type("Fitted", (), {"datamodule": module})()
        classifier.on_load_checkpoint(checkpoint)

    saved = {}
    classifier.network.info = replace(classifier.network.info, class_names=NUMBERED)
    classifier.on_save_checkpoint(saved)
    assert saved["class_names"] == list(NUMBERED)
    load(saved)
    with pytest.raises(ValueError, match="Class 2 is '2' in the data and '10' in the network"):
        load({"class_names": sorted(NUMBERED)})
    with pytest.raises(ValueError, match=r"does not say .* order .* '0' to '11' .* Give data.classes"):
        load({})  # written before checkpoints said it, when folders were sorted as text
    load({}, classes=sorted(NUMBERED))
    named = records(*range(12))  # of a list of numbers, which always were numbers
    load({})


class Poison(FakeClips):
    """One clip whose pixels are not numbers."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return replace(sample, video=sample.video.float() * (math.nan if index == 9 else 1))


def test_a_loss_that_is_no_number_stops_before_it_does_harm(tmp_path):
    classifier = VideoClassifier(tiny_network(), optimization=FAST)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, filename="{step}")
    engine = trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoint])
    with pytest.raises(NonFiniteLossError) as stopped:
        engine.fit(classifier, loader(Poison(12), batch_size=4))
    message = str(stopped.value)
    assert "step 2 (epoch 1, learning rate 0.00025)" in message
    assert [f"clip_{index}.mp4" in message for index in range(12)] == [False] * 8 + [True] * 4
    good = tmp_path / "step=2.ckpt"
    assert f"Last good checkpoint: {good}" in message
    saved = torch.load(good, weights_only=True)["state_dict"]
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)
        assert value.isfinite().all()


def test_it_names_a_checkpoint_only_where_there_is_one(tmp_path):
    """That of before, where none was written since; and with none, it does not say to go on from it."""
    start = {"optimization": FAST}
    with pytest.raises(NonFiniteLossError, match=r"There is no checkpoint yet: start anew\.$") as stopped:
        trainer(tmp_path).fit(VideoClassifier(tiny_network(), **start), loader(Poison(12), batch_size=4))
    assert "Last good checkpoint" not in str(stopped.value)
    _, engine = fit(tmp_path, VideoClassifier(tiny_network(), **start))
    good = tmp_path / "good.ckpt"
    engine.save_checkpoint(good)
    words = rf"learning rate.*Last good checkpoint: {good}\. fit continues from it.*--ckpt_path.*train.*--out"
    with pytest.raises(NonFiniteLossError, match=words):
        trainer(tmp_path, max_epochs=2).fit(
            VideoClassifier(tiny_network(), **start),
            loader(Poison(12), batch_size=4),
            ckpt_path=good,
            weights_only=True,
        )


def test_endless_data_need_an_end(tmp_path):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            clips = FakeClips(4)
            while True:
                yield from (clips[index] for index in range(4))

    classifier = VideoClassifier(tiny_network())
    with pytest.raises(ValueError, match="limit_train_batches"):
        trainer(tmp_path, max_steps=3).fit(classifier, loader(Endless(), batch_size=2))
    trainer(tmp_path, limit_train_batches=2).fit(classifier, loader(Endless(), batch_size=2))


def test_steps_alone_are_an_end(tmp_path):
    optimization = replace(FAST, warmup_epochs=1)
    recorder, engine = fit(
        tmp_path, VideoClassifier(tiny_network(), optimization=optimization), max_epochs=-1, max_steps=7
    )
    assert engine.global_step == 7
    assert recorder.rates == pytest.approx([optimization.rate(step / 3, 7 / 3) for step in range(7)], rel=1e-6)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("label_smoothing", 1.0, r"\[0, 1\)"),
        ("class_weights", [1.0, 2.0], "one per class: 3, got 2"),
        ("num_checkpointed", 5, "0 to the 4 blocks, got 5"),
        ("mixing", BatchMixing(num_classes=4), "num_classes is the network's 3, got 4"),
    ],
)
def test_refuses(argument, value, message):
    with pytest.raises(ValueError, match=f"{argument}.*{message}"):
        VideoClassifier(tiny_network(), **{argument: value})
