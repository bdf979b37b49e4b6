"""``TrainingPlan``: every choice of ``uniformerv2 train``, with its reason. Pure: numbers in, a plan out.

Sources:
    Defaults without another remark are the published ones (Li et al., UniFormerV2, 2022,
    https://arxiv.org/abs/2211.09552, and its recipes). Learning rates are ours, see ``default_rates``: the published
    1e-5 at a batch of 256 is made for 50 epochs of 240,000 videos, and small data would be over before it moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

from uniformerv2.training.feature_key import StorageName
from uniformerv2.training.optim import Optimization

__all__ = [
    "DEFAULT_BACKBONES",
    "DEFAULT_CACHE_VIEWS",
    "AugmentationName",
    "Preset",
    "Rates",
    "TrainingPlan",
    "default_augmentation",
    "default_batch_size",
    "default_dropout",
    "default_epochs",
    "default_num_frames",
    "default_rates",
    "default_stages",
    "default_views",
    "in_todays_words",
]

Preset = Literal["scene", "motion"]
AugmentationName = Literal["light", "strong"]
"""light: crops of 40 % of the area or more, and flips; strong: the published RandAugment and crops of 8 % or more."""

DEFAULT_BACKBONES: Final[Mapping[tuple[Preset, bool], str]] = {
    ("scene", True): "uniformerv2_b16_k400_k710_8x224",
    ("motion", True): "vit_base_patch16_clip_224.openai",
    ("scene", False): "vit_small_patch14_dinov2.lvd142m",
    ("motion", False): "vit_small_patch14_dinov2.lvd142m",
}
"""(preset, whether there is a GPU) -> what training starts from. The authors start scenes from Kinetics-710 weights and
motion from the image ViT; without a GPU a base-size network takes days, a small one minutes."""

REFERENCE_BATCH: Final = 16
FROZEN_RATE: Final = 2e-4
FEW_VIDEOS: Final = 10_000
FEW_VIDEOS_DROPOUT: Final = 0.1
VIDEOS_SHOWN: Final = 5000
MANY_SHOWN: Final = 100_000
DEFAULT_CACHE_VIEWS: Final = 4
WARMUP: Final = 0.1
"""Of all epochs."""


@dataclass(frozen=True)
class Rates:
    """How fast each part learns.

    Attributes:
        learning_rate: Highest rate: of the image ViT's last block, or where it is frozen of the video blocks.
        video_blocks_scale: Rate of the video blocks divided by it.
        layer_decay: Rate of a block of the image ViT divided by that of the block above it.
    """

    learning_rate: float
    video_blocks_scale: float = 1.0
    layer_decay: float = 1.0

    def optimization(self, *, epochs: int, warmup: float | None = None) -> Optimization:
        """AdamW with these rates, which are meant for the batch of the training.

        Args:
            epochs: Passes over the training videos.
            warmup: Share of all epochs; a tenth where None.
        """
        return Optimization(
            **asdict(self),
            batch_size=None,
            warmup_start_rate=self.learning_rate / 10,
            end_rate=self.learning_rate / 100,
            warmup_epochs=(WARMUP if warmup is None else warmup) * epochs,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What will be done; ``why`` has a reason for each choice that the user did not make.

    Attributes:
        data: The folder or list.
        out: Folder of everything that is written.
        class_names: In head order.
        num_train: Videos.
        num_val: Videos.
        num_test: Videos; 0: the validation videos are tested on.
        preset: The authors' advice to follow.
        backbone: What training starts from.
        weights: File with the weights of the image ViT; None: those that belong to the name.
        freeze_backbone: The backbone stays as it is.
        num_frames: Of a clip.
        image_size: Pixels of a square input, or (height, width).
        batch_size: Videos of a step.
        num_stages: Global UniBlocks.
        dropout: Before the classifier, and in the FFN of video blocks that are new.
        rates: How fast each part learns.
        epochs: Passes over the training videos.
        num_clips: Clips of a video in the final test.
        num_crops: Crops of a clip in the final test.
        augmentation: How much training clips are varied.
        flip: Probability that a training clip is mirrored.
        label_smoothing: Of the loss.
        is_multi_label: Videos have several classes.
        precision: Lightning's word.
        seed: Of every draw.
        num_workers: Processes that read videos.
        why: Name of a field -> reason.
        warnings: Sentences.
        cache_views: Augmented clips of each training video of which the frozen image ViT's tokens are kept; 0: none
            are, every step starts from the videos.
        cache_dtype: Type of the kept tokens.
        cache_dir: Folder of the caches; None: "features" in ``out``.
        videos_digest: Of ``Splits.digest``; empty where it is not known.

    Raises:
        ValueError: A number outside its range; the message names what is allowed.
    """

    data: str
    out: str
    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    preset: Preset
    backbone: str
    weights: str | None
    freeze_backbone: bool
    num_frames: int
    image_size: int | tuple[int, int]
    batch_size: int
    num_stages: int
    dropout: float
    rates: Rates
    epochs: int
    num_clips: int
    num_crops: int
    augmentation: AugmentationName
    flip: float
    label_smoothing: float
    is_multi_label: bool
    precision: str
    seed: int
    num_workers: int
    why: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    cache_views: int = 0
    cache_dtype: StorageName = "float16"
    cache_dir: str | None = None
    videos_digest: str = ""

    def __post_init__(self) -> None:
        for name in ("num_frames", "batch_size", "epochs", "num_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}.")
        for name in ("seed", "num_workers", "cache_views"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, got {getattr(self, name)}.")
        if not 0 < self.rates.learning_rate < math.inf:
            raise ValueError(f"learning_rate is above 0, got {self.rates.learning_rate}.")

    @property
    def steps_per_epoch(self) -> int:
        """Steps; a last batch that is not full is left out where there is a full one."""
        return max(1, self.num_train // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def monitor(self) -> str:
        """The measure by which the best checkpoint is chosen; higher is better."""
        return "val_mean_ap" if self.is_multi_label else "val_top1"

    @property
    def optimization(self) -> Optimization:
        """AdamW with the rates of this plan, which are meant for its batch."""
        return self.rates.optimization(epochs=self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The plan that ``to_dict`` gave, also after a way through JSON."""
        values = in_todays_words(values)
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, "rates": Rates(**in_todays_words(values["rates"]))})


def in_todays_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a training that was begun before two of them were renamed.

    >>> in_todays_words({"trainable": "armour", "epochs": 5})
    {'epochs': 5, 'freeze_backbone': True}
    """
    found = {"video_blocks_scale" if name == "armour_scale" else name: value for name, value in values.items()}
    if "trainable" in found:
        found["freeze_backbone"] = found.pop("trainable") == "armour"
    return found


def default_batch_size(num_train: int, *, largest: int) -> int:
    """A power of two with four steps or more an epoch, and two videos or more.

    Args:
        num_train: Training videos.
        largest: What the memory holds.

    >>> default_batch_size(529, largest=16), default_batch_size(24, largest=16), default_batch_size(3, largest=16)
    (16, 4, 2)
    """
    wanted = min(largest, max(2, num_train // 4))
    return 1 << (max(1, wanted).bit_length() - 1)


def default_epochs(num_train: int) -> int:
    """As many as show the network 5000 videos, from 5 (the published fine-tuning) to 50 (the published training).

    >>> default_epochs(24), default_epochs(529), default_epochs(240_000)
    (50, 10, 5)
    """
    return min(50, max(5, math.ceil(VIDEOS_SHOWN / num_train)))


def default_augmentation(num_train: int, epochs: int) -> AugmentationName:
    """Light, until training is long enough to profit from strong augmentation.

    >>> default_augmentation(529, 10), default_augmentation(240_000, 5)
    ('light', 'strong')
    """
    return "strong" if num_train * epochs >= MANY_SHOWN else "light"


def default_num_frames(preset: Preset, *, has_gpu: bool) -> int:
    """8, as published for scenes; 16 for motion, where a GPU computes them."""
    return 16 if preset == "motion" and has_gpu else 8


def default_stages(preset: Preset, num_train: int) -> int | None:
    """Global UniBlocks; None: those of the preset.

    >>> default_stages("scene", 529), default_stages("scene", 240_000), default_stages("motion", 529)
    (1, None, None)
    """
    return 1 if preset == "scene" and num_train < FEW_VIDEOS else None


def default_dropout(*, freeze_backbone: bool, num_train: int) -> float | None:
    """Before the classifier and in the FFN of global UniBlocks; None: as published, 0.5.

    >>> default_dropout(freeze_backbone=True, num_train=529)
    0.1
    """
    return FEW_VIDEOS_DROPOUT if freeze_backbone and num_train < FEW_VIDEOS else None


def default_rates(batch_size: int, *, preset: Preset, freeze_backbone: bool, is_armed_anew: bool) -> Rates:
    """How fast each part learns at a batch of 16; others are multiplied by the root of batch / 16.

    That root is the rule for Adam's kind of optimiser (Malladi et al., 2022, https://arxiv.org/abs/2205.10287). The
    blocks of an image ViT that is armed anew learn the slower the lower they are, as in the fine-tuning of BEiT (Bao et
    al., 2021, https://arxiv.org/abs/2106.08254); but not for motion, which the lowest layer, the tubelets, has to see.

    Args:
        batch_size: Videos of a step.
        preset: What tells the classes apart.
        freeze_backbone: Only the video blocks learn.
        is_armed_anew: The video blocks have random weights.

    >>> default_rates(64, preset="scene", freeze_backbone=True, is_armed_anew=True)
    Rates(learning_rate=0.0004, video_blocks_scale=1.0, layer_decay=1.0)
    """
    factor = math.sqrt(batch_size / REFERENCE_BATCH)
    if freeze_backbone:
        return Rates(FROZEN_RATE * factor)
    if not is_armed_anew:
        return Rates(2e-5 * factor, video_blocks_scale=5.0)
    if preset == "motion":
        return Rates(1e-4 * factor, video_blocks_scale=10.0)
    return Rates(1e-4 * factor, video_blocks_scale=5.0, layer_decay=0.65)


def default_views(preset: Preset) -> tuple[int, int]:
    """Clips and crops of the published tests: 4 x 3 for scenes, 1 x 3 for motion."""
    return (4, 3) if preset == "scene" else (1, 3)
