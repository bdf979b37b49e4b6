"""What happens to the pixels in training: ``TrainAugmentation`` for a clip, ``BatchMixing`` for a batch.

RandAugment is that of Cubuk et al., 2019, https://arxiv.org/abs/1909.13719, in timm's definition (noise on the
magnitude, severity that grows with it), which PySlowFast took over and the recipes name
``rand-m7-n4-mstd0.5-inc1``. Random erasing: Zhong et al., 2017, https://arxiv.org/abs/1708.04896. Mixup: Zhang et al.,
2017, https://arxiv.org/abs/1710.09412. CutMix: Yun et al., 2019, https://arxiv.org/abs/1905.04899. One draw holds for
all frames of a clip, and one for all videos of a batch.

Nothing here touches a global random state: every draw comes from the generator that the caller passes, so that
``numpy.random.default_rng((seed, epoch, index))`` gives the same clip in any worker and after a resume.

Letters: T frames, C colours, H x W pixels of a frame, h x w of the network's input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

__all__ = ["RAND_AUGMENT_OPERATIONS", "BatchMixing", "RandAugment", "TrainAugmentation"]

Interpolation = Literal["bilinear", "bicubic"]
Label = int | tuple[int, ...] | None

FILL = 128
"""Grey where a moved frame has no pixels."""
NOISE_MEAN, NOISE_STD = 0.45 * 255, 0.225 * 255
"""Erased pixels are standard normal after the official normalisation."""


@dataclass(frozen=True, kw_only=True)
class TrainAugmentation:
    """Augmentation of a clip in the published order: RandAugment, crop, flip, colour jitter, erasing.

    RandAugment sees whole frames, which makes it the costly step: one core takes 20 ms for 8 frames of 340 x 256,
    350 ms for 1280 x 720, against 0.5 ms for the crop. Videos prepared to a short side of 256 to 320 keep it low.

    Attributes:
        image_size: Input of the network in pixels: a square, or (h, w).
        rand_augment: timm's notation, or ``None`` for none; see ``RandAugment.parse``.
        interpolation: How RandAugment's rotations, shears and translations interpolate.
        area: Range of the crop's area as a part of the frame's.
        aspect_ratio: Range of the crop's width divided by its height; the draw is uniform on a logarithmic scale.
        crop_interpolation: How the crop is resized: ``bicubic`` with antialiasing, or ``bilinear`` without, as the
            published code does whatever its recipe says.
        flip: Probability of a horizontal flip; 0 where left and right are classes, unless ``flip_label_map`` is given.
        flip_label_map: Class of a clip -> class of its mirror image (Something-Something: "from left to right" ->
            "from right to left"); classes that are not in it stay.
        color_jitter: Brightness, contrast and saturation are multiplied by 1 - x to 1 + x, in random order. The
            recipes list 0.4, but the published code uses it only without RandAugment; hence 0.
        random_erasing: Probability that one rectangle (2 % to 33 % of the area) becomes noise.
    """

    image_size: int | tuple[int, int] = 224
    rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    interpolation: Interpolation = "bicubic"
    area: tuple[float, float] = (0.08, 1.0)
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_interpolation: Interpolation = "bicubic"
    flip: float = 0.5
    flip_label_map: Mapping[int, int] | None = None
    color_jitter: float = 0.0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        sides = (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)
        if len(sides) != 2 or min(sides) < 1:
            message = f"image_size is {self.image_size!r}; it must be a number of pixels or a pair (height, width)"
            raise ValueError(message)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area is {self.area!r}; it must be a range (lowest, highest) above 0 and up to 1")
        if not 0 < self.aspect_ratio[0] <= self.aspect_ratio[1]:
            raise ValueError(f"aspect_ratio is {self.aspect_ratio!r}; it must be a range (lowest, highest) above 0")
        for name in ("flip", "color_jitter", "random_erasing"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value!r}; it must be from 0 to 1")
        for name in ("interpolation", "crop_interpolation"):
            if (value := getattr(self, name)) not in get_args(Interpolation):
                raise ValueError(f"{name} is {value!r}; it must be 'bilinear' or 'bicubic'")
        if self.rand_augment is not None:
            RandAugment.parse(self.rand_augment)

    def __call__(
        self, clip: torch.Tensor, label: Label = None, *, rng: np.random.Generator
    ) -> tuple[torch.Tensor, Label]:
        """[T, C, H, W] uint8 -> [T, C, h, w] uint8, with the label, which a flip may change.

        Args:
            clip: RGB frames; left as they are.
            label: A class, several, or ``None``.
            rng: Generator of all draws.

        Returns:
            The augmented clip, to be normalised by ``Preprocessing.normalize``, and its label.

        Raises:
            ValueError: Not uint8, not three colours, or empty.
        """
        if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3 or clip.numel() == 0:
            raise ValueError(f"clip is {clip.dtype} {list(clip.shape)}; needed is uint8 [T, 3, H, W], none of them 0")
        if self.rand_augment is not None:
            clip = RandAugment.parse(self.rand_augment, interpolation=self.interpolation)(clip, rng=rng)
        clip = self._random_resized_crop(clip, rng)
        if rng.random() < self.flip:
            clip, label = F.horizontal_flip(clip), self._mirrored(label)
        if self.color_jitter:
            clip = self._jitter_colors(clip, rng)
        if rng.random() < self.random_erasing:
            clip = _erase(clip, rng)
        return clip, label

    def _mirrored(self, label: Label) -> Label:
        if label is None or self.flip_label_map is None:
            return label
        if isinstance(label, int):
            return self.flip_label_map.get(label, label)
        return tuple(self.flip_label_map.get(one, one) for one in label)

    def _random_resized_crop(self, clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        top, left, height, width = _random_box(clip.shape[-2], clip.shape[-1], self.area, self.aspect_ratio, rng)
        size = [self.image_size] * 2 if isinstance(self.image_size, int) else list(self.image_size)
        mode = InterpolationMode(self.crop_interpolation)
        antialias = self.crop_interpolation == "bicubic"
        return F.resized_crop(clip, top, left, height, width, size, interpolation=mode, antialias=antialias)

    def _jitter_colors(self, clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        factors = rng.uniform(1 - self.color_jitter, 1 + self.color_jitter, size=3).tolist()
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
        for which in rng.permutation(3):
            clip = adjust[which](clip, factors[which])
        return clip


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A few operations out of 15, drawn with replacement, each applied with probability 1/2.

    Attributes:
        magnitude: Mean severity, 0 to 10.
        num_operations: Operations drawn.
        magnitude_std: Standard deviation of the severity; the draw is clipped to 0 and 10.
        interpolation: How rotations, shears and translations interpolate.
    """

    magnitude: float
    num_operations: int
    magnitude_std: float = 0.0
    interpolation: Interpolation = "bicubic"

    @classmethod
    def parse(cls, notation: str, *, interpolation: Interpolation = "bicubic") -> Self:
        """Read timm's notation: magnitude, number of operations, noise, and severity growing with the magnitude.

        Args:
            notation: ``rand-m7-n4-mstd0.5-inc1``; ``mstd`` may be left out.
            interpolation: How rotations, shears and translations interpolate.

        Returns:
            The augmentation.

        Raises:
            ValueError: Another notation; the form without ``inc1``, where higher magnitudes do less, is not offered.

        >>> RandAugment.parse("rand-m9-n2-inc1")
        RandAugment(magnitude=9.0, num_operations=2, magnitude_std=0.0, interpolation='bicubic')
        """
        number = r"\d+(?:\.\d+)?"
        found = re.fullmatch(rf"rand-m({number})-n([1-9]\d*)(?:-mstd({number}))?-inc1", notation)
        if found is None or float(found[1]) > 10:
            message = (
                f"rand_augment is {notation!r}; it must look like 'rand-m7-n4-mstd0.5-inc1': "
                "magnitude m (up to 10), number of operations n, standard deviation of the magnitude mstd"
            )
            raise ValueError(message)
        return cls(
            magnitude=float(found[1]),
            num_operations=int(found[2]),
            magnitude_std=float(found[3] or 0),
            interpolation=interpolation,
        )

    def __call__(self, clip: torch.Tensor, *, rng: np.random.Generator) -> torch.Tensor:
        """[T, C, H, W] uint8 -> the same shape and type; every frame gets the same operations."""
        operations = tuple(RAND_AUGMENT_OPERATIONS.values())
        for which in rng.integers(len(operations), size=self.num_operations):
            if rng.random() < 0.5:
                severity = min(max(rng.normal(self.magnitude, self.magnitude_std), 0.0), 10.0) / 10
                sign = -1 if rng.random() < 0.5 else 1
                clip = operations[which](clip, severity, sign, self.interpolation)
        return clip


def _solarize_add(clip: torch.Tensor, amount: int) -> torch.Tensor:
    return torch.where(clip < 128, clip + amount, clip)


def _rotate(clip: torch.Tensor, degrees: float, interpolation: Interpolation) -> torch.Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle_y, middle_x = clip.shape[-2] / 2, clip.shape[-1] / 2
    shift_x = middle_x - cos * middle_x + sin * middle_y
    shift_y = middle_y - sin * middle_x - cos * middle_y
    return _affine(clip, (cos, -sin, shift_x, sin, cos, shift_y), interpolation)


def _affine(clip: torch.Tensor, matrix: tuple[float, ...], interpolation: Interpolation) -> torch.Tensor:
    """Move pixels: with ``matrix`` (a, b, c, d, e, f) the new (x, y) is what was at (a x + b y + c, d x + e y + f).

    The first pixel's centre is (0.5, 0.5). torchvision's own kernels know no bicubic for tensors.
    """
    a, b, c, d, e, f = matrix
    height, width = clip.shape[-2:]
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    grid = torch.stack((from_x * (2 / width) - 1, from_y * (2 / height) - 1), dim=-1)[None]
    pixels = clip.reshape(1, -1, height, width).to(torch.float32)  # one frame of T * C colours: one set of weights
    moved = torch.nn.functional.grid_sample(
        pixels, grid, mode=interpolation, padding_mode="border", align_corners=False
    )
    return torch.where(inside, moved.clamp_(0, 255), FILL).to(torch.uint8).view_as(clip)


RAND_AUGMENT_OPERATIONS: dict[str, Callable[[torch.Tensor, float, int, Interpolation], torch.Tensor]] = {
    "AutoContrast": lambda clip, severity, sign, mode: F.autocontrast(clip),
    "Equalize": lambda clip, severity, sign, mode: F.equalize(clip),
    "Invert": lambda clip, severity, sign, mode: F.invert(clip),
    "Rotate": lambda clip, severity, sign, mode: _rotate(clip, 30 * severity * sign, mode),
    "PosterizeIncreasing": lambda clip, severity, sign, mode: F.posterize(clip, 4 - int(severity * 4)),
    "SolarizeIncreasing": lambda clip, severity, sign, mode: (
        F.solarize(clip, 256 - int(severity * 256)) if severity >= 1 / 256 else clip
    ),
    "SolarizeAdd": lambda clip, severity, sign, mode: _solarize_add(clip, int(severity * 110)),
    "ColorIncreasing": lambda clip, severity, sign, mode: F.adjust_saturation(clip, 1 + 0.9 * severity * sign),
    "ContrastIncreasing": lambda clip, severity, sign, mode: F.adjust_contrast(clip, 1 + 0.9 * severity * sign),
    "BrightnessIncreasing": lambda clip, severity, sign, mode: F.adjust_brightness(clip, 1 + 0.9 * severity * sign),
    "SharpnessIncreasing": lambda clip, severity, sign, mode: F.adjust_sharpness(clip, 1 + 0.9 * severity * sign),
    "ShearX": lambda clip, severity, sign, mode: _affine(clip, (1, 0.3 * severity * sign, 0, 0, 1, 0), mode),
    "ShearY": lambda clip, severity, sign, mode: _affine(clip, (1, 0, 0, 0.3 * severity * sign, 1, 0), mode),
    "TranslateXRel": lambda clip, severity, sign, mode: _affine(
        clip, (1, 0, 0.45 * severity * sign * clip.shape[-1], 0, 1, 0), mode
    ),
    "TranslateYRel": lambda clip, severity, sign, mode: _affine(
        clip, (1, 0, 0, 0, 1, 0.45 * severity * sign * clip.shape[-2]), mode
    ),
}
"""timm's names -> (clip [T, C, H, W], severity 0 to 1, sign -1 or 1, interpolation) -> clip."""


def _random_box(
    frame_height: int,
    frame_width: int,
    area: tuple[float, float],
    aspect_ratio: tuple[float, float],
    rng: np.random.Generator,
    tries: int = 10,
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part; after so many misses the largest allowed one in the middle."""
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    for _ in range(tries):
        pixels, ratio = rng.uniform(*area) * frame_height * frame_width, math.exp(rng.uniform(low, high))
        height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < height <= frame_height and 0 < width <= frame_width:
            top = int(rng.integers(0, frame_height - height, endpoint=True))
            left = int(rng.integers(0, frame_width - width, endpoint=True))
            return top, left, height, width
    height = min(frame_height, max(round(frame_width / aspect_ratio[0]), 1))
    width = min(frame_width, max(round(frame_height * aspect_ratio[1]), 1))
    return (frame_height - height) // 2, (frame_width - width) // 2, height, width


def _erase(clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One rectangle, the same in all frames, filled with noise that differs from frame to frame."""
    frames, colours, height, width = clip.shape
    box = _random_box(height, width, (0.02, 1 / 3), (0.3, 1 / 0.3), rng, tries=100)
    noise = rng.standard_normal((frames, colours, box[2], box[3]), dtype=np.float32) * NOISE_STD + NOISE_MEAN
    return F.erase(clip, *box, torch.from_numpy(noise.clip(0, 255)).to(torch.uint8))


@dataclass(frozen=True, kw_only=True)
class BatchMixing:
    """Mixup or CutMix of a batch and its targets, as in torchvision: each sample is mixed with the one before it.

    The published recipes of UniFormerV2 use neither; the defaults are those of DeiT (Touvron et al., 2020,
    https://arxiv.org/abs/2012.12877), which most later recipes took over.

    Attributes:
        num_classes: Length of the soft targets.
        mixup_alpha: Parameter of the Beta distribution of mixup's share; 0 means no mixup.
        cutmix_alpha: The same for CutMix.
        probability: That a batch is mixed at all.
        cutmix_probability: That CutMix is taken, where both are on.
    """

    num_classes: int
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    probability: float = 1.0
    cutmix_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} is {value}; it must be at least 0")
        for name in ("probability", "cutmix_probability"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; it must be at least 1")

    def __call__(self, video: Tensor, label: Tensor, *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            video: [B, T, C, h, w], normalised; on any device.
            label: Class numbers [B], or multi-hot or soft targets [B, num_classes].
            rng: Generator of the draws; torch's own generators stay as they were.

        Returns:
            The batch, and float32 targets [B, num_classes], also where nothing is mixed.

        Raises:
            ValueError: The video is not floating point, or a label is no class.
        """
        if not video.is_floating_point():
            raise ValueError(f"video is {video.dtype}; normalise it before it is mixed")
        if label.ndim == 1:
            if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
                raise ValueError(
                    f"labels go from {int(label.min())} to {int(label.max())}, of {self.num_classes} classes"
                )
            label = torch.nn.functional.one_hot(label, self.num_classes)
        label = label.float()
        mix = self._draw(rng)
        if mix is None:
            return video, label
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            mixed, label = mix(tv_tensors.Video(video), label)
        return mixed.as_subclass(Tensor), label

    def _draw(self, rng: np.random.Generator) -> v2.MixUp | v2.CutMix | None:
        chance, which = rng.random(2).tolist()
        if chance >= self.probability or not (self.mixup_alpha or self.cutmix_alpha):
            return None
        if self.cutmix_alpha and (not self.mixup_alpha or which < self.cutmix_probability):
            return v2.CutMix(alpha=float(self.cutmix_alpha), num_classes=self.num_classes)
        return v2.MixUp(alpha=float(self.mixup_alpha), num_classes=self.num_classes)
