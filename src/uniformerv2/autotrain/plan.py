"""``TrainOptions``: every option of a training, said once; ``TrainingPlan``: the same with every choice made.

The fields make the options of ``uniformerv2 train``, the table of its plan and ``docs/train_options.md``. Nothing heavy
is imported.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from uniformerv2.core.messages import UsageError, seconds_of
from uniformerv2.core.options import flag_of, option
from uniformerv2.core.run_paths import RunPaths
from uniformerv2.zoo.cards import list_models

if TYPE_CHECKING:
    from uniformerv2.training.optim import Optimization

__all__ = [
    "DEFAULT_CACHE_VIEWS",
    "FEW_VIDEOS",
    "AugmentationName",
    "Preset",
    "Rates",
    "TrainOptions",
    "TrainingPlan",
    "in_todays_words",
    "is_video_network",
    "request_in_todays_words",
]

Preset = Literal["scene", "motion"]
AugmentationName = Literal["light", "strong"]
"""light: crops of 40 % of the area or more, and flips; strong: the published RandAugment and crops of 8 % or more."""
StorageName = Literal["float16", "bfloat16", "float32"]
"""As ``training.feature_key.StorageName``, which brings torch."""
LoggerName = Literal["tensorboard", "wandb", "mlflow", "none"]
PrecisionName = Literal["auto", "fp32", "bf16"]

LARGEST_SEED: Final = 2**32 - 1
"""The largest seed of NumPy's global generator, which Lightning seeds too."""
DEFAULT_CACHE_VIEWS: Final = 4
FEW_VIDEOS: Final = 10_000
"""With fewer other choices are better than the published ones."""
WARMUP: Final = 0.1
"""Part of all epochs."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a user decides about a training; None leaves a choice to the plan. See ``core.options``.

    Raises:
        UsageError: A number out of range, or options that contradict each other.
    """

    data: str = option("folder of class folders, list, CSV, folder of lists", "", metavar="DATA", flag="DATA")
    root: str | None = option("where the relative paths of the list start", metavar="FOLDER")
    classes: str | None = option("names of the list's class numbers", metavar="SPACE|FILE")
    out: str = option("folder to write (default: runs/NAME_OF_DATA)", "", metavar="FOLDER", is_of_run=False)
    preset: Preset = option("scene or motion: what tells the classes apart", row="preset")
    model: str | None = option("folder, checkpoint, zoo, hf:user/name to start from", metavar="MODEL")
    backbone: str | None = option("image ViT of timm to arm with new video blocks", metavar="NAME")
    backbone_weights: str | None = option("its weights (default: fetched)", metavar="FILE")
    probe: bool = option("stop after the probe (--no-probe: without one)")
    freeze_backbone: bool = option("only the video blocks and the head learn")
    num_frames: int = option("frames per clip", metavar="T", row="frames", least=1)
    image_size: int = option("side of the input", metavar="PIXELS", row="image size", least=1)
    num_stages: int = option("global UniBlocks, on the last N", metavar="N", flag="--stages", row="stages", least=1)
    dropout: float = option("of classifier and global UniBlocks, 0 to below 1", metavar="P", row="dropout")
    batch_size: int = option("videos per step (default: tried out)", metavar="N", row="batch size", least=1)
    learning_rate: float = option("of the backbone; frozen: of the video blocks", metavar="RATE", row="learning rate")
    epochs: int = option("passes over the videos", metavar="N", row="epochs", least=1)
    budget: str = option("30m, 2h: epochs, views, freezing made to fit", metavar="TIME")
    balanced: bool = option("draw every class equally often", default=False, row="classes drawn")
    patience: int = option("stop after N epochs without a better score", metavar="N", least=1)
    augmentation: AugmentationName = option("light: crops and flips; strong: RandAugment too", row="augmentation")
    num_clips: int = option("clips per video in the final test", metavar="K", flag="--clips", row="final test", least=1)
    num_crops: int = option("crops per clip in the final test", flag="--crops", choices=(1, 3))
    precision: str = option(
        "auto (bf16 where it is faster), fp32, bf16", "auto", row="precision", choices=get_args(PrecisionName)
    )
    cache_features: bool = option("run the frozen backbone once, keep its tokens", default=False)
    cache_views: int = option("augmented clips per training video in the cache", metavar="N")
    cache_dtype: StorageName = option("of kept tokens: float16 (default), bfloat16, float32")
    cache_dir: str | None = option("folder of the cache (default: in the folder to write)", metavar="FOLDER")
    log: LoggerName = option("tensorboard (default), wandb, mlflow, none")
    seed: int = option("of every draw (default: 0)", 0, metavar="N")
    device: str = option("auto, cpu, cuda, cuda:1 (default: auto)", "auto", is_of_run=False)
    devices: int = option("GPUs, or processes, that train together (default: 1)", 1, metavar="N", least=1)
    num_workers: int = option("processes that read videos", metavar="N", flag="--workers", least=0, is_of_run=False)
    resume: bool = option("continue this command where it was stopped", default=False, is_of_run=False)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), item.metadata.get("least")
            if least is not None and isinstance(value, int) and value < least:
                raise UsageError(f"{flag_of(item)} must be at least {least}, got {value}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"--learning-rate must be above 0, got {self.learning_rate}.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"--seed must be from 0 to {LARGEST_SEED}, got {self.seed}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UsageError(f"--dropout must be at least 0 and below 1, got {self.dropout}.")
        if self.budget is not None:
            seconds_of(self.budget)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.model is not None and self.backbone is not None:
            raise UsageError("--model and --backbone both say what training starts from: give one of them.")
        if self.probe:
            self._check_probe()
        self._check_devices()
        if self.cache_views is not None and self.cache_views < 1:
            raise UsageError(f"--cache-views must be at least 1, got {self.cache_views}.")
        for name in ("cache_views", "cache_dtype", "cache_dir"):
            if getattr(self, name) is not None and not self.cache_features:
                raise UsageError(f"--{name.replace('_', '-')} is for --cache-features; add it, or leave both out.")
        if self.cache_features and not self.freeze_backbone:
            raise UsageError(
                "--cache-features keeps the tokens of a backbone that does not learn: add --freeze-backbone, or leave "
                "--cache-features out."
            )
        if self.cache_features and self.preset == "motion":
            raise UsageError(
                "--cache-features and --preset motion exclude each other: motion has local temporal steps, which learn "
                "inside the backbone and change its tokens with every step. Take --preset scene, or leave "
                "--cache-features out."
            )

    def _check_devices(self) -> None:
        if self.devices == 1:
            return
        if self.device.startswith("cuda:"):
            raise UsageError(
                f"--device {self.device} names one GPU, and --devices {self.devices} asks for more: leave one of them "
                "out. CUDA_VISIBLE_DEVICES says which GPUs are used."
            )
        if self.batch_size is not None and self.batch_size % self.devices:
            raise UsageError(
                f"--batch-size is shared by all --devices: {self.batch_size} videos cannot be divided by "
                f"{self.devices}; take a multiple of {self.devices}."
            )

    def _check_probe(self) -> None:
        of_steps = ("preset", "freeze_backbone", "num_stages", "dropout", "batch_size", "learning_rate", "epochs")
        for name in (*of_steps, "budget", "balanced", "patience", "augmentation", "cache_features", "log"):
            if getattr(self, name):
                flag = "--stages" if name == "num_stages" else f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} is for a training in steps, and --probe stops before it: leave one of them out."
                )
        if self.devices > 1:
            raise UsageError(
                "--devices is for a training in steps, and --probe stops before it: leave one of them out."
            )

    @property
    def folder(self) -> RunPaths:
        """The folder to write."""
        return RunPaths(Path(self.out or Path("runs") / Path(self.data).resolve().stem))

    def check(self, *, dry_run: bool = False) -> None:
        """Refuse files that are not there, and a folder that cannot be written or holds a training already.

        Args:
            dry_run: Nothing will be written.

        Raises:
            UsageError: It is so.
            FolderInUseError: A training is running in the folder to write.
        """
        if not Path(self.data).exists():
            raise UsageError(f"There is no file or folder {self.data}.")
        if self.root is not None and not Path(self.root).is_dir():
            raise UsageError(f"There is no folder {self.root}; --root is where the relative paths of the list start.")
        if self.backbone_weights is not None and not Path(self.backbone_weights).is_file():
            raise UsageError(f"There is no file {self.backbone_weights}.")
        if self.cache_dir is not None and Path(self.cache_dir).exists() and not Path(self.cache_dir).is_dir():
            raise UsageError(f"{self.cache_dir} is a file; --cache-dir names a folder.")
        self._check_place(dry_run=dry_run)

    def _check_place(self, *, dry_run: bool) -> None:
        folder = self.folder
        if folder.path.exists() and not folder.path.is_dir():
            raise UsageError(f"{folder.path} is a file; --out names a folder.")
        if folder.path.exists() and folder.path.samefile(self.data):
            raise UsageError(f"--out would write to {folder.path}, which this command reads: give another name.")
        above = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise UsageError(f"{folder.path} cannot be written, as {above} cannot; give another place with --out.")
        if not dry_run:
            folder.refuse_held()
        if (folder.last.exists() or folder.has_finished_probe) and not (self.resume or dry_run):
            raise UsageError(
                f"{folder.path} holds a training already: add --resume to continue it, or give another folder with "
                "--out."
            )
        if self.resume and not folder.record.exists():
            raise UsageError(
                f"{folder.path} holds no training to resume; leave --resume out, or give its folder with --out."
            )

    def request(self) -> dict[str, Any]:
        """What must be the same when the training is resumed, in plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(TrainOptions)}
        kept = {item.name: values[item.name] for item in fields(TrainOptions) if item.metadata.get("is_of_run", True)}
        root = None if self.root is None else str(Path(self.root).resolve())
        return {**kept, "data": str(Path(self.data).resolve()), "root": root}

    def changes(self, request: Mapping[str, Any]) -> list[str]:
        """Options that were others when a training was begun, in words.

        Args:
            request: What the user decided when the training was begun, see ``request_in_todays_words``.
        """
        before = {item.name: item.default for item in fields(TrainOptions)} | dict(request)
        now = self.request()
        return [
            f"{flag_of(item)} ({_given(before[item.name])} before, now {_given(now[item.name])})"
            for item in fields(TrainOptions)
            if item.name in now
            and now[item.name] != before[item.name]
            and not (item.name == "preset" and self.preset is None)
        ]


def _given(value: Any) -> str:
    return "not given" if value is None or value is False or value == "auto" else str(value)


@dataclass(frozen=True)
class Rates:
    """How fast each part learns.

    Attributes:
        learning_rate: Highest rate: of the backbone's last block, or where it is frozen of the video blocks.
        video_blocks_scale: Rate of the video blocks divided by it.
        layer_decay: Rate of a block of the backbone divided by that of the block above it.
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
        from uniformerv2.training.optim import Optimization

        return Optimization(
            **asdict(self),
            batch_size=None,
            warmup_start_rate=self.learning_rate / 10,
            end_rate=self.learning_rate / 100,
            warmup_epochs=(WARMUP if warmup is None else warmup) * epochs,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(TrainOptions):
    """What will be done: the options with every choice made, and what follows from the videos.

    ``model`` or ``backbone`` is set; ``precision`` is Lightning's word; ``cache_views`` is 0 where every step starts
    from the videos.

    Attributes:
        class_names: In head order.
        num_train: Videos.
        num_val: Videos.
        num_test: Videos; 0: the validation videos are tested on.
        rates: How fast each part learns.
        flip: Probability that a training clip is mirrored.
        label_smoothing: Part of the target that is spread over all classes; 0 to 1.
        is_multi_label: Videos have several classes.
        why: Name of a field -> why it has its value, where the user did not choose it.
        warnings: Sentences.
        videos_digest: Of ``Splits.digest``; empty where it is not known.
        most_epochs: Epochs at most where ``budget`` has time for them; 0 without one.
        probed: What the probe found (``ProbeResult.to_dict``) and decided (``told``, sentences); empty without one.

    Raises:
        UsageError: A number outside its range; the message names what is allowed.
    """

    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    rates: Rates
    flip: float
    label_smoothing: float
    is_multi_label: bool
    why: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    freeze_backbone: bool = False
    cache_views: int = 0
    cache_dtype: StorageName = "float16"
    videos_digest: str = ""
    most_epochs: int = 0
    probed: Mapping[str, Any] = field(default_factory=dict)

    def _check_combinations(self) -> None:
        """The user's own options were checked."""

    @property
    def start(self) -> str:
        """What training starts from: a video network, or the name of an image ViT."""
        return self.model or self.backbone or ""

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
    """Fields of a training that was begun before some of them were renamed.

    >>> in_todays_words({"trainable": "armour", "epochs": 5, "weights": "vit.pth"})
    {'epochs': 5, 'backbone_weights': 'vit.pth', 'freeze_backbone': True}
    """
    names = {"armour_scale": "video_blocks_scale", "weights": "backbone_weights"}
    found = {names.get(name, name): value for name, value in values.items()}
    if "trainable" in found:
        found["freeze_backbone"] = found.pop("trainable") == "armour"
    return found


def request_in_todays_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a user had asked for, also where it was noted before ``--model`` was an option of its own.

    >>> request_in_todays_words({"backbone": "hf:me/mine", "precision": "bf16-mixed"})
    {'backbone': None, 'precision': 'bf16', 'model': 'hf:me/mine'}
    """
    found = in_todays_words(values)
    if "probe" not in found and found.get("freeze_backbone") is False:
        found["freeze_backbone"] = None  # not given was no
    if "model" not in found:
        if "precision" in found:
            found["precision"] = {None: "auto", "32-true": "fp32", "bf16-mixed": "bf16"}[found["precision"]]
        start = found.get("backbone")
        if start is not None and is_video_network(start):
            found |= {"backbone": None, "model": start}
    return found


def is_video_network(start: str) -> bool:
    """Whether a word names a checkpoint or a model of the zoo, and no image ViT."""
    return Path(start).exists() or start.startswith("hf:") or start in list_models()
