"""The probe: statistics of tokens, grouped cross-validation, and the network that it makes."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.training.fake_clips import tiny_network
from uniformerv2 import UniFormerV2, UniFormerV2Config, arm, load_model, save_model
from uniformerv2.autotrain.linear import fit_heads
from uniformerv2.autotrain.plan import TrainOptions
from uniformerv2.autotrain.probe import ROWS, ClipStatistics, Probe, folds_of
from uniformerv2.autotrain.probe_sizes import choose_size
from uniformerv2.autotrain.probing import (
    FittedProbe,
    can_start_at,
    decide,
    probe_in_words,
    probe_network,
    start_at_probe,
)
from uniformerv2.autotrain.start import beside_probe
from uniformerv2.core.messages import UsageError
from uniformerv2.model.statistics import KINDS, TokenStatistics
from uniformerv2.zoo.arming import rebuild

NAMES = ROWS["all"]


def statistics_of(tokens, names=NAMES, *, num_prefix_tokens=1, has_class_token=True):
    """[B, T, N, C] -> [B, S, C]."""
    own = TokenStatistics(names, tokens.shape[-1], num_prefix_tokens=num_prefix_tokens, has_class_token=has_class_token)
    return own.step(0, own.start(len(tokens)), tokens, (0, 0))


def made_clips(*, informative="motion", num_sources=30, per_source=2, num_classes=2, channels=4, seed=0):
    """Noise, and in the statistics of one kind the class."""
    rng = np.random.default_rng(seed)
    sources = np.repeat(np.arange(num_sources), per_source)
    label = sources % num_classes
    values = rng.normal(size=(len(sources), len(NAMES), channels))
    values += rng.normal(size=(num_sources, len(NAMES), channels))[sources]  # clips of one source are alike
    for name in KINDS[informative]:
        values[:, NAMES.index(name), 0] += 4 * label
    return ClipStatistics(
        values=values,
        names=NAMES,
        target=np.eye(num_classes, dtype=bool)[label],
        sources=tuple(f"source {number:02}" for number in sources),
        class_names=tuple("abcdefgh"[:num_classes]),
    )


class TestStatistics:
    def test_they_are_what_their_names_say(self):
        tokens = torch.randn(2, 5, 4, 3, dtype=torch.float64)
        found = dict(zip(NAMES, statistics_of(tokens).unbind(1), strict=True))
        own, patches = tokens[:, :, 0].float().numpy(), tokens[:, :, 1:].float().numpy()
        ramp = np.linspace(-1, 1, 5)
        expected = {
            "class_mean": own.mean(axis=1),
            "patch_mean": patches.mean(axis=(1, 2)),
            "patch_max": patches.max(axis=(1, 2)),
            "class_std": own.std(axis=1),
            "patch_std": patches.std(axis=1).mean(axis=1),
            "class_step": np.abs(np.diff(own, axis=1)).mean(axis=1),
            "patch_step": np.abs(np.diff(patches, axis=1)).mean(axis=(1, 2)),
            "class_ramp": (own * ramp[:, None]).mean(axis=1),
            "patch_ramp": (patches.mean(axis=2) * ramp[:, None]).mean(axis=1),
        }
        assert set(expected) == set(NAMES)
        for name, value in expected.items():
            assert found[name].numpy() == pytest.approx(value, abs=1e-5), name

    def test_appearance_knows_no_order_and_motion_no_direction(self):
        tokens = torch.randn(2, 6, 4, 3)
        backwards, shuffled = tokens.flip(1), tokens[:, [3, 0, 5, 1, 4, 2]]
        for kind, names in KINDS.items():
            here, there, mixed = (statistics_of(x, names) for x in (tokens, backwards, shuffled))
            sign = -1 if kind == "order" else 1
            assert torch.allclose(there, sign * here, atol=1e-5), kind
            assert torch.allclose(mixed, here, atol=1e-5) == (kind == "appearance"), kind

    def test_one_frame_does_not_move(self):
        found = dict(zip(NAMES, statistics_of(torch.randn(2, 1, 4, 3)).unbind(1), strict=True))
        assert all(not found[name].any() for kind in ("motion", "order") for name in KINDS[kind])
        assert found["class_mean"].all()

    def test_without_a_class_token_the_patches_mean_takes_its_place(self):
        tokens = torch.randn(2, 3, 5, 4)
        found = statistics_of(tokens, ("class_mean", "patch_mean"), num_prefix_tokens=0, has_class_token=False)
        assert torch.allclose(found[:, 0], found[:, 1], atol=1e-6)


CONFIG = {"fusion": "statistics", "statistics": NAMES[:5], "use_gate": False, "fusion_stages": (1, 3)}


class TestNetwork:
    def test_saved_and_loaded_it_gives_the_same(self, tmp_path):
        network = tiny_network(**CONFIG).eval()
        video = torch.randn(2, 4, 3, 32, 32)
        assert network.num_features == network.head.in_features == 2 * 5 * 48
        again = load_model(save_model(network, tmp_path))
        assert torch.equal(again(video), network(video))
        assert torch.equal(network.forward_tokens(network.read_tokens(video), (2, 2)), network(video))
        again.reset_classifier(7)
        assert again(video).shape == (2, 7)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"statistics": ()}, "fusion='statistics' needs at least one of the statistics"),
            ({"statistics": ("class_mean", "class_mean")}, "named once each"),
            ({"statistics": ("class_median",)}, "statistics is one of 'class_mean'"),
            ({"statistics": "class_mean"}, "statistics are names"),
            ({"use_gate": True}, "has no gate"),
        ],
    )
    def test_configurations_that_are_none(self, fields, message):
        with pytest.raises(ValueError, match=message):
            UniFormerV2Config(depth=4, **{**CONFIG, **fields})


class TestRegression:
    def test_it_is_scikit_learns_on_standardised_features(self):
        """Through the space that the clips span, with fewer clips than features and with more."""
        rng = np.random.default_rng(0)
        for num_features in (8, 200):
            features = rng.normal(size=(60, num_features)) * rng.uniform(0.1, 10, num_features) + 3
            features[:, 3] = 1.0  # says nothing
            label = rng.integers(3, size=60)
            deviation = features.std(axis=0)
            standard = (features - features.mean(axis=0)) / np.where(deviation > 1e-9, deviation, np.inf)
            standard /= np.sqrt(num_features)
            heads = fit_heads(features, np.eye(3, dtype=bool)[label], strengths=(0.3, 3.0), is_multi_label=False)
            for strength, head in zip((0.3, 3.0), heads, strict=True):
                expected = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(standard, label)
                found = head.probabilities(features)
                assert found == pytest.approx(expected.predict_proba(standard), abs=5e-3)

    def test_two_classes_an_absent_one_and_several_at_once(self):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(40, 6))
        target = np.zeros((40, 4), dtype=bool)
        target[np.arange(40), np.where(features[:, 0] > 0, 3, 1)] = True
        (head,) = fit_heads(features, target, strengths=(30.0,), is_multi_label=False)
        found = head.probabilities(features)
        assert (found.argmax(axis=1) == target.argmax(axis=1)).mean() > 0.9
        assert found[:, [0, 2]].max() < 1e-6
        target[:, 0] = True
        target[:, 1] |= features[:, 1] > 0
        (head,) = fit_heads(features, target, strengths=(30.0,), is_multi_label=True)
        found = head.probabilities(features)
        assert found[:, 0].min() > 0.99
        assert found[:, 2].max() < 0.01
        assert ((found > 0.5) == target).mean() > 0.9


class TestFolds:
    def test_sources_stay_together_and_classes_apart(self):
        clips = made_clips(num_sources=23, per_source=3, num_classes=3)
        fold = folds_of(clips, 5)
        assert set(fold) == {0, 1, 2, 3, 4}
        for source in set(clips.sources):
            assert len({number for number, own in zip(fold, clips.sources, strict=True) if own == source}) == 1
        for number in range(5):
            counts = clips.target[fold == number].sum(axis=0) / 3
            assert counts.min() >= 1
            assert counts.max() <= 2

    def test_fewer_folds_than_asked_for_and_none(self):
        assert folds_of(made_clips(num_sources=6), 5).max() == 2
        assert folds_of(made_clips(num_sources=2), 5).max() == -1
        alone = replace(made_clips(num_sources=4), sources=("one",) * 8)
        assert folds_of(alone, 5).max() == -1


class TestProbe:
    @pytest.mark.parametrize("kind", list(KINDS))
    def test_it_finds_what_tells_the_classes_apart(self, kind):
        result = Probe(num_resamples=200)(made_clips(informative=kind))
        assert result[kind].score.value > 0.9
        assert all(result[other].score.high < 0.8 for other in KINDS if other != kind)
        assert result.best.name in {kind, "all"}
        assert result.chance == 0.5
        assert result[kind].score.low <= result[kind].score.value <= result[kind].score.high
        assert (result[kind].above_appearance.low > 0) == (kind != "appearance")
        preset = decide(result, TrainOptions(data="videos"), network=tiny_network()).options.preset
        assert preset == ("scene" if kind == "appearance" else "motion")

    def test_clips_of_one_source_on_both_sides_would_flatter(self):
        """Noise that clips of a source share: each source by itself the probe knows nothing, clip by clip all."""
        rng = np.random.default_rng(1)
        sources = np.repeat(np.arange(20), 5)
        values = rng.normal(size=(20, len(NAMES), 30))[sources] + 0.1 * rng.normal(size=(100, len(NAMES), 30))
        target = np.eye(2, dtype=bool)[rng.permutation(np.arange(20) % 2)[sources]]
        clips = ClipStatistics(
            values=values, names=NAMES, target=target, sources=tuple(map(str, sources)), class_names=("a", "b")
        )
        one_row = Probe(rows=("all",), num_resamples=100)
        alone = replace(clips, sources=tuple(map(str, rng.permutation(100))))
        assert one_row(clips)["all"].score.value < 0.75
        assert one_row(alone)["all"].score.value > 0.95
        numbered = replace(clips, sources=tuple(f"clip_{number}" for number in range(100)))
        assert one_row(numbered)["all"].score.value < 0.9  # neighbours by number share a fold, and so their noise

    def test_intervals_are_of_sources(self):
        clips = made_clips(num_sources=10, per_source=8, seed=3)
        alone = replace(clips, sources=tuple(map(str, range(len(clips)))))
        widths = [
            (row.score.high - row.score.low) for row in (Probe()(clips)["appearance"], Probe()(alone)["appearance"])
        ]
        assert widths[0] > 1.2 * widths[1]

    def test_several_labels(self):
        clips = made_clips(num_classes=3)
        target = clips.target.copy()
        target[:, 0] |= clips.values[:, NAMES.index("class_mean"), 1] > 0.5
        result = Probe(num_resamples=100)(replace(clips, target=target, is_multi_label=True))
        assert result.measure == "mean_ap"
        assert result.confusion == ()
        assert 0 < result.chance < result.best.score.value <= 1
        assert "mean average precision" in probe_in_words(result.to_dict(), with_scores=True)[0]

    def test_too_few_sources_are_told(self):
        result = Probe(num_resamples=100)(made_clips(num_sources=2, per_source=3))
        assert (result.num_folds, result.is_held_out) == (0, False)
        assert "to which it was fitted" in probe_in_words(result.to_dict())[0]
        assert "these numbers say nothing of new videos" in probe_in_words(result.to_dict())[1]
        decision = decide(result, TrainOptions(data="videos"), network=tiny_network())
        assert decision.options.preset is None
        assert decision.told == ("The probe has too few sources to decide anything.",)

    def test_bad_input(self):
        clips = made_clips(num_sources=4)
        with pytest.raises(ValueError, match="needs clips of two classes"):
            Probe()(clips.part(clips.target[:, 0]))
        with pytest.raises(ValueError, match="give a source and a row of classes for each clip"):
            replace(clips, sources=("one",))


class TestDecisions:
    def test_what_the_user_chose_stays(self):
        moving, seen = (Probe(num_resamples=200)(made_clips(informative=kind)) for kind in ("motion", "appearance"))
        network = tiny_network()
        assert decide(moving, TrainOptions(data="v", preset="scene"), network=network).options.preset == "scene"
        assert decide(seen, TrainOptions(data="v", preset="motion"), network=network).options.preset == "motion"
        cached = TrainOptions(data="v", freeze_backbone=True, cache_features=True)
        decision = decide(moving, cached, network=network)
        assert decision.options == cached
        assert "--cache-features excludes motion" in decision.told[0]

    def test_freezing_is_enough_where_the_interval_says_so(self):
        clear = made_clips(informative="appearance", num_sources=120, per_source=1)
        values = clear.values.copy()
        values[:, NAMES.index("class_mean"), 0] += 20 * clear.target[:, 1]
        network, result = tiny_network(), Probe(num_resamples=200)(replace(clear, values=values))
        decision = decide(result, TrainOptions(data="v"), network=network)
        assert decision.options.freeze_backbone
        assert decision.options.cache_features
        assert "--no-freeze-backbone lets it learn" in decision.told[0]
        assert "probe" in decision.why["preset"]
        for asked in ({"freeze_backbone": False}, {"preset": "motion"}):
            kept = decide(result, TrainOptions(data="v", **asked), network=network).options
            assert not kept.freeze_backbone
        few = Probe(num_resamples=200)(made_clips(informative="appearance", num_sources=16))
        assert decide(few, TrainOptions(data="v"), network=network).options.freeze_backbone is None

    def test_options_that_say_nothing_to_a_probe(self):
        for asked, flag in (({"epochs": 3}, "--epochs"), ({"num_stages": 2}, "--stages"), ({"preset": "scene"}, "--p")):
            with pytest.raises(UsageError, match=f"{flag}.* is for a training in steps, and --probe stops before it"):
                TrainOptions(data="v", probe=True, **asked)


class TestSizes:
    """Larger pictures and more frames, where they are left open and there is time."""

    PLAN = SimpleNamespace(model=None, image_size=32, num_frames=4)

    @staticmethod
    def fitted(strength, num_left=10_000):
        clips = made_clips(informative="motion", seed=5)
        values = clips.values.copy()
        for name in KINDS["motion"]:
            values[:, NAMES.index(name), 0] += (strength - 4) * clips.target[:, 1]
        result = Probe(num_resamples=100)(replace(clips, values=values))
        return FittedProbe(result=result, network=tiny_network(), num_left=num_left)

    def chosen(self, asked, strengths, num_left=10_000):
        tried = []

        def at_size(changed):
            tried.append(changed)
            return self.fitted(strengths[next(iter(changed))])

        options, network = TrainOptions(data="v", **asked), tiny_network()
        found = choose_size(self.fitted(0.5, num_left), options, self.PLAN, network, at_size=at_size)
        return found, tried

    def test_what_is_better_beyond_chance_is_taken(self):
        found, tried = self.chosen({}, {"image_size": 4.0, "num_frames": 0.5})
        assert tried == [{"image_size": 48}, {"num_frames": 8}]
        assert found.decided == {"image_size": 48}
        assert re.match(r"the probe gains \+\d+\.\d .* points over the usual 32", found.why["image_size"])
        assert found.probe.result.best.score.value > 0.9
        assert re.match(r"8 frames were tried too: \+0\.0 .*which may be chance", found.told[0])

    def test_what_may_be_chance_is_not_and_is_told(self):
        found, _ = self.chosen({}, {"image_size": 0.5, "num_frames": 0.6})
        assert found.decided == {}
        assert len(found.told) == 2

    def test_what_the_user_chose_or_has_no_time_is_not_tried(self):
        everything = {"image_size": 4.0, "num_frames": 4.0}
        assert self.chosen({"image_size": 32}, everything)[1] == [{"num_frames": 8}]
        assert self.chosen({}, everything, num_left=130)[1] == [{"num_frames": 8}]
        assert self.chosen({}, everything, num_left=0)[1] == []


def test_the_network_of_a_probe_says_what_its_head_says(tmp_path):
    network = tiny_network().eval()
    videos = torch.randn(24, 4, 3, 32, 32)
    with torch.no_grad():
        tokens = network.read_tokens(videos)[-1]
    clips = ClipStatistics(
        values=statistics_of(tokens).numpy(),
        names=NAMES,
        target=np.eye(2, dtype=bool)[np.arange(24) % 2],
        sources=tuple(map(str, range(24))),
        class_names=("a", "b"),
    )
    row = Probe(num_resamples=50)(clips)["motion"]
    made = load_model(save_model(probe_network(network, row, ("a", "b")), tmp_path))
    assert isinstance(made, UniFormerV2)
    assert made.info.class_names == ("a", "b")
    with torch.no_grad():
        found = made(videos).softmax(dim=-1).numpy()
    assert found == pytest.approx(row.head.probabilities(clips.features(KINDS["motion"])), abs=1e-4)
    assert network.config.fusion == "sequential"


class TestStart:
    """A network that is armed anew may start at the probe."""

    @pytest.fixture
    def armed(self):
        torch.manual_seed(0)
        return arm("vit_tiny_patch16_224", num_classes=2, image_size=32, num_frames=4, preset="motion", num_blocks=2)

    @staticmethod
    def probe_of(videos, plain):
        with torch.no_grad():
            tokens = plain.read_tokens(videos)[-1]
        clips = ClipStatistics(
            values=statistics_of(tokens).numpy(),
            names=NAMES,
            target=np.eye(2, dtype=bool)[np.arange(len(videos)) % 2],
            sources=tuple(map(str, range(len(videos)))),
            class_names=("a", "b"),
        )
        result = Probe(rows=("motion",), num_resamples=50)(clips)
        return FittedProbe(result=result, network=probe_network(plain, result.best, ("a", "b")))

    @pytest.fixture
    def probe(self, armed):
        torch.manual_seed(1)
        plain = replace(armed.config, num_local_steps=0, tubelet_size=1, tubelet_kernel_size=1)
        return self.probe_of(torch.randn(24, 4, 3, 32, 32), rebuild(plain).eval())

    def test_before_its_first_step_it_says_what_the_probe_says(self, armed, probe, tmp_path):
        """Also in training, with its dropout, and saved and loaded; local steps and video token then have a say."""
        state = {**armed.state_dict()}
        of_probe = {name: value for name, value in probe.network.state_dict().items() if name.startswith("blocks.")}
        armed.load_state_dict({**state, **of_probe})
        assert can_start_at(probe, armed)
        network = start_at_probe(armed, probe)
        videos = torch.randn(3, 4, 3, 32, 32)
        expected = probe.network(videos)
        assert torch.allclose(network(videos), expected, atol=1e-5)
        assert torch.allclose(load_model(save_model(network, tmp_path))(videos), expected, atol=1e-5)
        network.train()
        assert network.head_drop.p == 0.5
        for block in network.blocks:
            block.local.eval()  # of batch norm the running statistics; what follows is zero in either case
        assert torch.allclose(network(videos), expected, atol=1e-5)
        torch.nn.functional.cross_entropy(network(videos), torch.tensor([0, 1, 0])).backward()
        assert network.head.weight.grad[:, : network.config.dim].abs().max() > 0
        assert all(torch.isfinite(value.grad).all() for value in network.parameters() if value.grad is not None)
        assert not any(name.startswith("norm.statistics") for name, _ in network.named_parameters())
        with torch.no_grad():
            network.head.weight[:, : network.config.dim].normal_()
        assert not torch.allclose(network(videos), expected, atol=1e-2)

    def test_beside_the_probe_it_says_the_mean_of_both(self, armed, probe):
        plain = replace(armed.config, num_local_steps=0, tubelet_size=1, tubelet_kernel_size=1)
        network = start_at_probe(rebuild(plain), probe)
        network.blocks.load_state_dict(probe.network.blocks.state_dict())  # as it was frozen
        videos = torch.randn(3, 4, 3, 32, 32)
        with torch.no_grad():
            for weight in (network.head.weight, network.head.bias, network.fusion.video_token):
                weight.add_(torch.randn_like(weight))
            trained, read = network(videos), probe.network(videos)
            beside_probe(network, probe.network)
            assert (trained - read).abs().max() > 0.1
            assert torch.allclose(network(videos), (trained + read) / 2, atol=1e-5)

    def test_only_the_image_vit_that_it_read(self, armed, probe):
        assert can_start_at(probe, armed)
        for fields in ({"num_frames": 8}, {"backbone": None}):
            other = SimpleNamespace(config=replace(armed.config, **fields))
            assert not can_start_at(probe, other)

    def test_where_what_moves_is_best(self):
        for kind in KINDS:
            result = Probe(num_resamples=100, rows=("appearance", "motion", "order"))(made_clips(informative=kind))
            decision = decide(result, TrainOptions(data="v"), network=tiny_network())
            assert decision.starts_at_probe == (kind != "appearance")
            assert not decision.options.freeze_backbone  # a video network keeps on learning
        guessed = Probe(num_resamples=100)(made_clips(informative="motion", num_sources=12, seed=3))
        noise = replace(guessed, chance=0.99)  # what is best may be so by chance
        assert not decide(noise, TrainOptions(data="v"), network=tiny_network()).starts_at_probe

    def test_few_videos_leave_an_image_vit_frozen_and_without_local_steps_unless_the_user_says_otherwise(self, armed):
        moving = Probe(num_resamples=100)(made_clips(informative="motion"))

        def decided(num_train=60, **asked):
            decision = decide(moving, TrainOptions(data="v", **asked), network=armed, num_train=num_train)
            assert decision.starts_at_probe
            return decision.options.preset, bool(decision.options.freeze_backbone), decision.options.cache_features

        assert decided() == ("scene", True, True)
        assert decided(num_train=20_000) == ("motion", False, False)
        assert decided(freeze_backbone=False) == ("scene", False, False)
        assert decided(freeze_backbone=True) == ("scene", True, False)
        assert decided(freeze_backbone=True, cache_features=True) == ("scene", True, True)
        assert decided(preset="motion") == ("motion", False, False)
        assert decided(num_train=20_000, freeze_backbone=False) == ("motion", False, False)
        assert decided(model="somewhere") == ("motion", False, False)
