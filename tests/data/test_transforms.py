"""Preprocessing: the record, the geometry and the kernels. Real videos are in tests/parity/test_preprocessing.py."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from uniformerv2.data.sampling import dense_clips, segment_clips
from uniformerv2.data.transforms import Preprocessing, resize_bicubic


def clip_of(height, width, num_frames=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator)


def position_clip(height, width):
    """One frame whose red is the column and whose green is the row, so that a crop tells where it was."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.zeros_like(rows)])[None].to(torch.uint8)


def corners(crops):
    """(top, left) of each crop of ``position_clip``."""
    return [(int(crop[0, 1, 0, 0]), int(crop[0, 0, 0, 0])) for crop in crops]


class TestRecord:
    @pytest.mark.parametrize(
        "preprocessing",
        [
            Preprocessing(),
            Preprocessing.official(num_frames=16, image_size=336, num_clips=4, num_crops=3),
            Preprocessing.mmaction2(image_size=(112, 168), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            Preprocessing(sampling="dense", frame_stride=4, resize="bicubic_antialias", std=(1 / 3, 0.1, 1e-3)),
        ],
    )
    def test_survives_json_exactly(self, preprocessing):
        text = json.dumps(preprocessing.to_dict())
        assert Preprocessing.from_dict(json.loads(text)) == preprocessing
        assert set(json.loads(text)) == {field.name for field in dataclasses.fields(Preprocessing)}

    def test_missing_keys_come_from_the_protocol(self):
        assert Preprocessing.from_dict({}) == Preprocessing.official()
        assert Preprocessing.from_dict({"protocol": "mmaction2"}) == Preprocessing.mmaction2()
        found = Preprocessing.from_dict({"protocol": "mmaction2", "num_frames": 32, "resize": "bilinear_float"})
        assert found == dataclasses.replace(Preprocessing.mmaction2(), num_frames=32, resize="bilinear_float")

    def test_from_dict_leaves_its_argument_alone(self):
        fields = {"protocol": "mmaction2", "num_frames": 4}
        Preprocessing.from_dict(fields)
        assert fields == {"protocol": "mmaction2", "num_frames": 4}

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"num_frame": 8}, "no field 'num_frame'. Did you mean 'num_frames'"),
            ({"protocl": "official"}, "Did you mean 'protocol'"),
            ({"zzz": 1}, "Known are: num_frames, image_size"),
            ({"protocol": "mmaction"}, "protocol is 'mmaction'.*Did you mean 'mmaction2'"),
            ({"resize": "bilinear"}, "resize is 'bilinear'; it must be one of 'bilinear_float'"),
            ({"sampling": "segment"}, "Did you mean 'segments'"),
            ({"long_side": None}, "long_side is None"),
            ({"num_frames": 0}, "num_frames is 0"),
            ({"num_frames": 8.0}, "num_frames is 8.0"),
            ({"num_clips": True}, "num_clips is True"),
            ({"image_size": [224, 0]}, r"image_size is \(224, 0\)"),
            ({"image_size": [1, 2, 3]}, "image_size is"),
            ({"mean": [0.5, 0.5]}, r"mean is \(0.5, 0.5\)"),
            ({"mean": 0.5}, "mean is 0.5"),
            ({"std": [0.2, 0.2, 0.0]}, "std is .* all above 0"),
            ({"std": [0.2, math.nan, 0.2]}, "std is"),
            ({"num_crops": 5}, "num_crops is 5; it must be 1"),
        ],
    )
    def test_wrong_fields_are_named(self, fields, named):
        with pytest.raises(ValueError, match=named):
            Preprocessing.from_dict(fields)


class TestIndices:
    def test_published_frames_and_the_number_of_clips(self):
        preprocessing = Preprocessing(num_frames=16, num_clips=4)
        assert preprocessing.indices(250) == segment_clips(250, 16, 4)
        assert preprocessing.indices(250, 1, start=40) == segment_clips(250, 16, 1, start=40)
        dense = Preprocessing(sampling="dense", frame_stride=4)
        assert dense.indices(250, 3) == dense_clips(250, 8, 3, frame_stride=4)

    @pytest.mark.parametrize("sampling", ["segments", "dense"])
    def test_a_generator_draws_one_clip_unless_more_are_asked_for(self, sampling):
        preprocessing = Preprocessing(sampling=sampling, num_clips=4)
        assert len(preprocessing.indices(250, rng=np.random.default_rng(0))) == 1
        first, second = preprocessing.indices(250, 2, rng=np.random.default_rng(0))
        assert first != second
        assert preprocessing.indices(250, 2, rng=np.random.default_rng(0)) == [first, second]


class TestGeometry:
    """Frames that already cover the input are cropped only, so that positions can be read from the pixels."""

    @pytest.mark.parametrize(
        ("protocol", "size", "num_crops", "expected"),
        [
            # 65 x 64 and 65 x 74: slack of 1 and of 9; the halves are rounded up, the last crop ends at the end.
            ("official", (64, 65), 1, [(0, 1)]),
            ("official", (64, 73), 1, [(0, 5)]),
            ("official", (64, 73), 3, [(0, 0), (0, 5), (0, 9)]),
            ("official", (73, 64), 3, [(0, 0), (5, 0), (9, 0)]),
            ("official", (64, 64), 3, [(0, 0), (0, 0), (0, 0)]),
            # MMAction2: rounded down, order left, right, middle, and the right crop at twice the middle's offset.
            ("mmaction2", (64, 65), 1, [(0, 0)]),
            ("mmaction2", (64, 73), 1, [(0, 4)]),
            ("mmaction2", (64, 73), 3, [(0, 0), (0, 8), (0, 4)]),
            ("mmaction2", (73, 64), 3, [(0, 0), (8, 0), (4, 0)]),
        ],
    )
    def test_crops_lie_where_the_protocol_puts_them(self, protocol, size, num_crops, expected):
        preprocessing = getattr(Preprocessing, protocol)(image_size=64, num_crops=num_crops)
        crops = preprocessing.resize_and_crop(position_clip(*size))
        assert crops.shape == (num_crops, 1, 3, 64, 64)
        assert corners(crops) == expected

    @pytest.mark.parametrize(
        ("protocol", "frame", "expected"),
        [
            # 340 / 256 * 224 = 297.5: floored, and rounded half up.
            ("official", (256, 340), (224, 297)),
            ("mmaction2", (256, 340), (224, 298)),
            ("official", (340, 256), (297, 224)),
            ("mmaction2", (340, 256), (298, 224)),
            ("official", (240, 320), (224, 298)),
            ("official", (100, 100), (224, 224)),
            ("mmaction2", (2, 1000), (224, 112000)),
        ],
    )
    def test_the_short_side_fits_and_the_long_one_is_rounded(self, protocol, frame, expected):
        assert getattr(Preprocessing, protocol)().covering_size(*frame) == expected

    @pytest.mark.parametrize("protocol", ["official", "mmaction2"])
    def test_frames_of_every_shape_are_covered_exactly_on_one_side(self, protocol):
        for image_size in (64, (48, 96), (96, 48), (33, 65)):
            preprocessing = getattr(Preprocessing, protocol)(image_size=image_size)
            height, width = preprocessing.input_size
            for frame in ((256, 340), (340, 256), (1080, 1920), (17, 31), (49, 99), (33, 65), (1, 1), (3, 500)):
                size = preprocessing.covering_size(*frame)
                assert size[0] >= height
                assert size[1] >= width
                assert size[0] == height or size[1] == width
                assert abs(size[0] / frame[0] - size[1] / frame[1]) <= 1 / min(frame) + 1e-9

    def test_a_wide_input_is_cropped_along_the_side_with_slack(self):
        preprocessing = Preprocessing.official(image_size=(32, 64), num_crops=3)
        assert corners(preprocessing.resize_and_crop(position_clip(40, 64))) == [(0, 0), (4, 0), (8, 0)]
        assert corners(preprocessing.resize_and_crop(position_clip(32, 80))) == [(0, 0), (0, 8), (0, 16)]

    @pytest.mark.parametrize("num_crops", [0, 2, 5])
    def test_other_numbers_of_crops_are_refused(self, num_crops):
        with pytest.raises(ValueError, match=f"num_crops is {num_crops}"):
            Preprocessing().resize_and_crop(clip_of(64, 64), num_crops)


def opencv_row(pixels, new_side):
    """One row by OpenCV's documented arithmetic, in plain Python: sums of two pixels times weights out of 2048."""
    side, found = len(pixels), []
    for index in range(new_side):
        centre = np.float32((index + 0.5) * (side / new_side) - 0.5)
        near = math.floor(centre)
        weight = np.float32(centre - np.float32(near))
        if near < 0:
            near, weight = 0, np.float32(0)
        if near >= side - 1:
            near, weight = side - 1, np.float32(0)
        pair = round(float((1 - weight) * 2048)), round(float(weight * 2048))
        found.append((near, min(near + 1, side - 1), *pair))
    return found


def opencv_resize(image, height, width):
    """[H, W] -> [height, width], pixel by pixel."""
    columns, rows = opencv_row(image[0], width), opencv_row([row[0] for row in image], height)
    result = []
    for top, bottom, weight_top, weight_bottom in rows:
        line = []
        for left, right, weight_left, weight_right in columns:
            upper = image[top][left] * weight_left + image[top][right] * weight_right
            lower = image[bottom][left] * weight_left + image[bottom][right] * weight_right
            line.append((((upper >> 4) * weight_top >> 16) + ((lower >> 4) * weight_bottom >> 16) + 2) >> 2)
        result.append(line)
    return result


class TestKernels:
    @pytest.mark.parametrize(("frame", "size"), [((19, 31), (8, 13)), ((9, 12), (20, 26)), ((16, 16), (8, 8))])
    def test_uint8_kernel_is_opencvs_arithmetic(self, frame, size):
        clip = clip_of(*frame, num_frames=1)
        preprocessing = Preprocessing.mmaction2(image_size=size)
        found = preprocessing._resize(clip, size)
        expected = [opencv_resize(colour, *size) for colour in clip[0].tolist()]
        assert found.dtype == torch.uint8
        assert found[0].tolist() == expected

    def test_uint8_kernel_is_within_a_level_of_the_float_one(self):
        clip = clip_of(256, 340)
        rounded = Preprocessing.mmaction2()._resize(clip, (224, 298))
        exact = torch.nn.functional.interpolate(clip.float(), (224, 298), mode="bilinear")
        assert (rounded.float() - exact).abs().max() < 1.0
        assert -0.2 < (rounded.float() - exact).mean() < 0  # the dropped bits darken by an eighth of a level

    @pytest.mark.parametrize("resize", ["bilinear_float", "bilinear_uint8", "bicubic_antialias"])
    def test_a_frame_of_the_right_size_keeps_its_pixels(self, resize):
        clip = clip_of(64, 64)
        assert torch.equal(Preprocessing(image_size=64, resize=resize).resize_and_crop(clip)[0].to(torch.uint8), clip)

    def test_official_order_of_normalising_first_gives_the_same(self):
        clip = clip_of(256, 340, num_frames=3)
        published = torch.nn.functional.interpolate((clip / 255 - 0.45) / 0.225, (224, 297), mode="bilinear")
        left, middle, right = (published[..., at : at + 224] for at in (0, 37, 73))
        found = Preprocessing.official().views([clip], num_crops=3)
        assert torch.allclose(found, torch.stack([left, middle, right]), atol=5e-6)

    def test_antialiasing_removes_what_bilinear_lets_through(self):
        stripes = torch.tensor([0, 0, 0, 255], dtype=torch.uint8).repeat(64).expand(1, 3, 256, 256)
        sharp = Preprocessing(image_size=64, resize="bilinear_float").resize_and_crop(stripes)
        smooth = Preprocessing(image_size=64, resize="bicubic_antialias").resize_and_crop(stripes)
        assert sharp.float().mean() < 1  # the bright column is never read
        assert abs(smooth.float().mean() - 255 / 4) < 2


class TestViews:
    def test_crops_of_one_clip_come_before_the_next_clip(self):
        clips = torch.stack([clip_of(40, 90, seed=seed) for seed in range(3)])
        preprocessing = Preprocessing.mmaction2(num_frames=2, image_size=32, num_crops=3)
        views = preprocessing.views(clips)
        assert views.shape == (9, 2, 3, 32, 32)
        assert views.dtype == torch.float32
        for index, clip in enumerate(clips):
            assert torch.equal(views[3 * index : 3 * index + 3], preprocessing.views([clip]))
        assert torch.equal(preprocessing.views(list(clips), 1), preprocessing.views(clips)[2::3])

    @pytest.mark.parametrize(
        ("resize", "dtype"),
        [("bilinear_float", torch.float32), ("bilinear_uint8", torch.uint8), ("bicubic_antialias", torch.uint8)],
    )
    def test_only_the_unrounded_protocol_leaves_uint8(self, resize, dtype):
        assert Preprocessing(resize=resize).resize_and_crop(clip_of(32, 40)).dtype == dtype

    def test_normalize_is_per_colour_and_takes_uint8(self):
        preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
        pixels = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
        expected = torch.tensor([(0.2 - 0.1) / 0.5, 0.0, 0.2 - 0.3])
        for given in (pixels, pixels.float(), pixels[None]):
            found = preprocessing.normalize(given)
            assert found.dtype == torch.float32
            assert torch.allclose(found, expected.view(3, 1, 1).expand_as(found), atol=1e-6)
        assert torch.equal(pixels, torch.full_like(pixels, 51))

    @pytest.mark.parametrize(
        "frames",
        [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 0, 8, dtype=torch.uint8)],
    )
    def test_what_is_not_a_clip_is_refused(self, frames):
        with pytest.raises(ValueError, match="needed are uint8"):
            Preprocessing().resize_and_crop(frames)


@pytest.mark.parametrize(("height", "width"), [(90, 160), (48, 60), (30, 300), (64, 84)])
def test_bicubic_is_torchvisions_to_the_bit(height, width):
    """For bytes and floating frames, in either layout; it is not imported for a prediction, as it takes longer."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    frames = clip_of(height, width)
    for given in (frames, frames.contiguous(memory_format=torch.channels_last), frames[:1], frames.float()):
        found = resize_bicubic(given, (64, 84))
        wanted = functional.resize(given, [64, 84], interpolation=InterpolationMode.BICUBIC, antialias=True)
        assert found.dtype == given.dtype
        assert torch.equal(found, wanted)
