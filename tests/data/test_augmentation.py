"""Train augmentation: against timm's PIL operations, the same for all frames, and only ever from the generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment

from uniformerv2.data.augmentation import RAND_AUGMENT_OPERATIONS, RandAugment, TrainAugmentation, _random_box

GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
RECIPE = "rand-m7-n4-mstd0.5-inc1"
QUIET = {"rand_augment": None, "area": (1.0, 1.0), "aspect_ratio": (1.0, 1.0), "flip": 0.0}


def generator(*seed):
    return np.random.default_rng(seed)


def picture(height=120, width=160):
    """Smooth shapes, edges and some noise, in colour: what the operations meet in a video."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (7 + 5 * colour) + y / 23) for colour in range(3)]
    image = np.stack(waves, axis=-1) * np.where((x // 40 + y // 30) % 2, 1.0, 0.55)[..., None]
    return (image + np.random.default_rng(0).normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def as_clip(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def timm_operation(monkeypatch, name, image, severity, sign, resample):
    """What timm makes of one PIL frame; its coin is held on one side."""
    monkeypatch.setattr(random, "random", lambda: 0.9 if sign < 0 else 0.1)
    level = auto_augment.LEVEL_TO_ARG[name]
    arguments = level(severity * 10, {}) if level else ()
    operation = auto_augment.NAME_TO_OP[name]
    return np.array(operation(Image.fromarray(image), *arguments, fillcolor=(128,) * 3, resample=resample))


class TestRandAugment:
    def test_the_operations_are_timms(self):
        assert list(RAND_AUGMENT_OPERATIONS) == auto_augment._RAND_INCREASING_TRANSFORMS

    @pytest.mark.parametrize("name", RAND_AUGMENT_OPERATIONS)
    @pytest.mark.parametrize("severity", [0.0, 0.35, 0.7, 0.76, 0.99])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_each_operation_is_within_a_level_of_timms(self, monkeypatch, name, severity, sign):
        images = [picture(), picture()[::-1, ::-1] // 2 + 40]
        expected = [
            timm_operation(monkeypatch, name, image, severity, sign, Image.Resampling.BILINEAR) for image in images
        ]
        found = RAND_AUGMENT_OPERATIONS[name](as_clip(*images), severity, sign, "bilinear")
        assert found.dtype == torch.uint8
        difference = (found.int() - as_clip(*expected).int()).abs()
        assert difference.max() <= 1

    @pytest.mark.parametrize("severity", [0.0, 0.003, 1 / 256, 1.0])
    def test_solarize_turns_what_timms_turns_up_to_white(self, monkeypatch, severity):
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        expected = timm_operation(monkeypatch, "SolarizeIncreasing", levels, severity, 1, Image.Resampling.BILINEAR)
        found = RAND_AUGMENT_OPERATIONS["SolarizeIncreasing"](as_clip(levels), severity, 1, "bilinear")
        assert torch.equal(found, as_clip(expected))
        assert torch.equal(found, as_clip(levels)) == (severity < 1 / 256)

    @pytest.mark.parametrize("name", sorted(GEOMETRIC))
    @pytest.mark.parametrize("sign", [1, -1])
    def test_bicubic_is_near_timms(self, monkeypatch, name, sign):
        # PyTorch's cubic has the parameter -0.75, PIL's -1: the same picture, a little softer.
        expected = timm_operation(monkeypatch, name, picture(), 0.7, sign, Image.Resampling.BICUBIC)
        found = RAND_AUGMENT_OPERATIONS[name](as_clip(picture()), 0.7, sign, "bicubic")
        difference = (found.int() - as_clip(expected).int()).abs().float()
        assert difference.mean() < 0.6
        assert (difference > 8).float().mean() < 0.002

    def test_the_notation_is_read(self):
        found = RandAugment.parse(RECIPE, interpolation="bilinear")
        assert found == RandAugment(magnitude=7, num_operations=4, magnitude_std=0.5, interpolation="bilinear")

    @pytest.mark.parametrize(
        "notation", ["", "rand", "rand-m7-n4", "rand-m7-n4-mstd0.5", "rand-m11-n2-inc1", "rand-m7-n0-inc1", "augmix-m3"]
    )
    def test_other_notations_are_refused(self, notation):
        with pytest.raises(ValueError, match="must look like 'rand-m7-n4"):
            TrainAugmentation(rand_augment=notation)

    def test_draws_have_timms_distribution(self, monkeypatch):
        calls = []
        spies = {
            name: lambda clip, severity, sign, mode, name=name: calls.append((name, severity, sign)) or clip
            for name in RAND_AUGMENT_OPERATIONS
        }
        monkeypatch.setattr("uniformerv2.data.augmentation.RAND_AUGMENT_OPERATIONS", spies)
        augment, rng, clip = RandAugment.parse(RECIPE), generator(0), as_clip(picture(8, 8))
        for _ in range(3000):
            augment(clip, rng=rng)
        names, severities, signs = zip(*calls, strict=True)
        assert abs(len(calls) / 3000 - 2) < 0.08  # four drawn, each applied every other time
        counts = [names.count(name) for name in spies]
        assert min(counts) > 320  # 400 expected
        assert max(counts) < 480
        assert abs(np.mean(severities) - 0.7) < 0.003
        assert abs(np.std(severities) - 0.05) < 0.003
        assert abs(np.mean(signs)) < 0.05


class TestTrainAugmentation:
    @pytest.mark.parametrize("image_size", [32, (24, 40)])
    def test_gives_uint8_of_the_input_size_and_leaves_the_clip_alone(self, image_size):
        clip = as_clip(*[picture()] * 3)
        before = clip.clone()
        augment = TrainAugmentation(image_size=image_size, color_jitter=0.4, random_erasing=1.0)
        size = (32, 32) if image_size == 32 else image_size
        for seed in range(20):
            found, label = augment(clip, 5, rng=generator(seed))
            assert found.shape == (3, 3, *size)
            assert found.dtype == torch.uint8
            assert label == 5
        assert torch.equal(clip, before)

    @pytest.mark.parametrize("crop_interpolation", ["bilinear", "bicubic"])
    def test_all_frames_get_the_same_draw(self, crop_interpolation):
        clip = as_clip(*[picture()] * 4)
        augment = TrainAugmentation(image_size=48, color_jitter=0.4, crop_interpolation=crop_interpolation)
        for seed in range(30):
            found, _ = augment(clip, rng=generator(seed))
            assert torch.equal(found, found[:1].expand_as(found))

    def test_the_seed_decides_and_no_global_state_is_touched(self):
        clip = as_clip(picture(), picture()[::-1])
        augment = TrainAugmentation(image_size=32, color_jitter=0.4, random_erasing=0.5)
        torch.manual_seed(0)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        first = [augment(clip, rng=generator(7, 0, index))[0] for index in range(6)]
        again = [augment(clip, rng=generator(7, 0, index))[0] for index in reversed(range(6))][::-1]
        other_epoch = [augment(clip, rng=generator(7, 1, index))[0] for index in range(6)]
        assert all(map(torch.equal, first, again))
        assert not any(map(torch.equal, first, other_epoch))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.array_equal(np.random.get_state()[1], states[2])

    def test_without_augmentation_the_clip_is_only_resized(self):
        clip = as_clip(picture(64, 64))
        found, _ = TrainAugmentation(image_size=64, **QUIET)(clip, rng=generator(0))
        assert torch.equal(found, clip)

    def test_a_flip_mirrors_the_pixels_and_the_class(self):
        clip = as_clip(picture(64, 64))
        options = QUIET | {"flip": 0.5, "flip_label_map": {1: 2, 2: 1}}
        augment = TrainAugmentation(image_size=64, **options)
        flips = 0
        for seed in range(200):
            found, label = augment(clip, 1, rng=generator(seed))
            assert torch.equal(found, clip.flip(-1) if label == 2 else clip)
            flips += label == 2
        assert 70 < flips < 130
        certain = TrainAugmentation(image_size=64, **options | {"flip": 1.0})
        assert [certain(clip, label, rng=generator(0))[1] for label in (2, 9, (0, 1, 2), None)] == [
            1,
            9,
            (0, 2, 1),
            None,
        ]

    def test_colours_are_jittered_within_the_range(self):
        grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
        augment = TrainAugmentation(image_size=8, color_jitter=0.4, **QUIET)
        levels = [int(augment(grey, rng=generator(seed))[0][0, 0, 0, 0]) for seed in range(300)]
        assert 58 <= min(levels) < 65  # brightness 0.6 to 1.4; truncation takes a level or two
        assert 135 < max(levels) <= 140

    def test_erasing_takes_one_rectangle_of_every_frame_and_fills_it_with_noise(self):
        clip = torch.full((4, 3, 60, 80), 7, dtype=torch.uint8)
        augment = TrainAugmentation(image_size=(60, 80), random_erasing=1.0, **QUIET | {"aspect_ratio": (4 / 3, 4 / 3)})
        for seed in range(30):
            found, _ = augment(clip, rng=generator(seed))
            changed = (found != 7).any(dim=1).any(dim=0)
            rows, columns = (changed.any(dim=axis).nonzero().flatten() for axis in (1, 0))
            box = found[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert 0.015 < box[0, 0].numel() / 4800 < 0.35
            assert (box != 7).float().mean() > 0.95
            assert abs(box.float().mean() - 114.75) < 12
            assert not torch.equal(box[0], box[1])
            assert int((found != 7).any(dim=1).sum()) <= 4 * box[0, 0].numel()

    def test_boxes_have_the_published_areas_and_shapes(self):
        rng = generator(0)
        boxes = np.array([_random_box(256, 340, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(4000)])
        top, left, height, width = boxes.T
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + height <= 256).all()
        assert (left + width <= 340).all()
        area, ratio = height * width / (256 * 340), width / height
        assert area.min() < 0.09
        assert area.max() > 0.95
        assert 0.74 < ratio.min() < 0.77
        assert 1.31 < ratio.max() < 1.35
        assert top.min() == 0
        assert (top + height).max() == 256  # both ends are reached

    def test_a_box_that_never_fits_is_the_largest_allowed_in_the_middle(self):
        assert _random_box(10, 1000, (1.0, 1.0), (3 / 4, 4 / 3), generator(0)) == (0, 493, 10, 13)
        assert _random_box(1000, 10, (1.0, 1.0), (3 / 4, 4 / 3), generator(0)) == (493, 0, 13, 10)

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 3)])
    def test_tiny_frames_pass(self, size):
        clip = as_clip(picture(*size))
        for seed in range(40):
            found, _ = TrainAugmentation(image_size=16, random_erasing=1.0)(clip, rng=generator(seed))
            assert found.shape == (1, 3, 16, 16)

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"image_size": 0}, "image_size is 0"),
            ({"image_size": (224,)}, "image_size is"),
            ({"area": (0.0, 1.0)}, "area is"),
            ({"area": (0.5, 0.2)}, "area is"),
            ({"aspect_ratio": (2.0, 1.0)}, "aspect_ratio is"),
            ({"flip": 1.5}, "flip is 1.5"),
            ({"color_jitter": -0.1}, "color_jitter is -0.1"),
            ({"random_erasing": 2}, "random_erasing is 2"),
            ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
            ({"crop_interpolation": "lanczos"}, "crop_interpolation is 'lanczos'"),
        ],
    )
    def test_wrong_fields_are_named(self, fields, named):
        with pytest.raises(ValueError, match=named):
            TrainAugmentation(**fields)

    @pytest.mark.parametrize(
        "clip",
        [
            torch.zeros(2, 3, 8, 8),
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
        ],
    )
    def test_what_is_not_a_clip_is_refused(self, clip):
        with pytest.raises(ValueError, match="needed is uint8"):
            TrainAugmentation()(clip, rng=generator(0))
