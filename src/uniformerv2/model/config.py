"""What a UniFormerV2 is made of, and what travels with its weights.

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552; defaults are those of the published B/16 on
    Kinetics.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, Self, get_args

from uniformerv2.core.limits import get_limits
from uniformerv2.core.messages import did_you_mean

__all__ = ["ActivationName", "CheckpointInfo", "FusionName", "StatisticName", "UniFormerV2Config"]

ActivationName = Literal["quick_gelu", "gelu"]
DrawPer = Literal["video", "token"]
FusionName = Literal["sequential", "parallel", "hierarchical_kv", "hierarchical_q", "statistics"]
StatisticName = Literal[
    "class_mean",
    "patch_mean",
    "patch_max",
    "class_std",
    "patch_std",
    "class_step",
    "patch_step",
    "class_ramp",
    "patch_ramp",
]
"""See ``model.statistics``."""

_WHOLE: Final = (
    *("patch_size", "dim", "depth", "num_heads", "num_frames", "num_classes", "tubelet_size", "tubelet_kernel_size"),
    *("num_local_steps", "local_kernel_size", "global_num_heads"),
)
_FREE: Final = frozenset(
    {
        *("image_size", "num_frames", "drop_path_rate", "global_drop_path_rate", "global_dropout"),
        *("classifier_dropout", "drop_path_per"),
    }
)
"""Fields of a configuration with which the same weights are the same network."""

_HUGE: Final = 2**53
"""No factor or rate is near it; an integer of JSON may have thousands of digits."""

_FINITE: Final = (
    *("mlp_ratio", "local_reduction", "global_mlp_ratio", "drop_path_rate", "global_drop_path_rate"),
    "classifier_dropout",
)


@dataclass(frozen=True)
class UniFormerV2Config:
    """What a UniFormerV2 is made of.

    Names in parentheses are those of the published code.

    Args:
        image_size: Height and width the position embedding is for; other sizes are interpolated.
        patch_size: Side of a patch, in pixels.
        dim: Channels C (width).
        depth: Blocks (layers).
        num_heads: Heads of the spatial attention (heads).
        mlp_ratio: Hidden channels of a block's FFN divided by C.
        activation: Activation of the blocks' FFNs; CLIP's is QuickGELU.
        num_frames: Frames of a clip T (t_size); the network takes any multiple of ``tubelet_size``.
        num_classes: Classes; 0 leaves the head out.
        tubelet_size: Frames from one time step to the next: 1, or 2 (temporal_downsample).
        tubelet_kernel_size: Frames a tubelet sees (kernel_size), odd; 0 means 1 for a tubelet_size of 1, else 3.
        num_local_steps: Local temporal steps of a block: 0 (no_lmhra), 1, or 2 (double_lmhra).
        local_reduction: C divided by the bottleneck channels of LT_MHRA (dw_reduction).
        local_kernel_size: Frames that LT_MHRA sees.
        fusion: How the video tokens of the stages become one; the published models are sequential. With "statistics"
            there are no global UniBlocks: the head reads statistics of the tokens, as a probe does.
        fusion_stages: Blocks whose tokens a global UniBlock reads (return_list); empty means the last four.
        statistics: What the fusion "statistics" computes of the tokens of each stage. With another fusion the head
            reads these statistics of the last block's tokens beside the video token; the published models have none.
        global_num_heads: Heads of the cross attention (n_head); 0 means as many as ``num_heads``.
        global_mlp_ratio: Hidden channels of a global UniBlock's FFN divided by C (mlp_factor).
        global_dropout: Rate in a global UniBlock's FFN (mlp_dropout), one for all or one per stage.
        use_gate: Mix the video token with the class token's mean; the published frozen models do not.
        drop_path_rate: Stochastic depth of the last block, linear from 0 (backbone_drop_path_rate).
        global_drop_path_rate: Stochastic depth of the last stage, linear from 0 (drop_path_rate).
        drop_path_per: One draw per "video", or as the published code does per "token" position.
        classifier_dropout: Rate before the classifier (cls_dropout).
        backbone: timm name of the armed image ViT; None for CLIP's ViT, the published one.
        backbone_args: What timm's ``create_model`` is given beside the name.

    Raises:
        ValueError: A field outside its range; the message names what is allowed.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    activation: ActivationName = "quick_gelu"
    num_frames: int = 8
    num_classes: int = 400
    tubelet_size: int = 1
    tubelet_kernel_size: int = 0
    num_local_steps: int = 0
    local_reduction: float = 1.5
    local_kernel_size: int = 3
    fusion: FusionName = "sequential"
    fusion_stages: tuple[int, ...] = ()
    statistics: tuple[StatisticName, ...] = ()
    global_num_heads: int = 0
    global_mlp_ratio: float = 4.0
    global_dropout: tuple[float, ...] = (0.5,)
    use_gate: bool = True
    drop_path_rate: float = 0.0
    global_drop_path_rate: float = 0.0
    drop_path_per: DrawPer = "video"
    classifier_dropout: float = 0.5
    backbone: str | None = None
    backbone_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        self._resolve()
        for name, allowed in (("activation", ActivationName), ("fusion", FusionName), ("drop_path_per", DrawPer)):
            _check_choice(name, getattr(self, name), get_args(allowed))
        _check_choice("tubelet_size", self.tubelet_size, (1, 2))
        _check_choice("num_local_steps", self.num_local_steps, (0, 1, 2))
        for name in ("patch_size", "dim", "depth", "num_heads", "num_frames", "local_kernel_size", "global_num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        self._check_ranges()
        self._check_limits()
        self._check_stages()

    def _check_types(self) -> None:
        for name in _WHOLE:
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}.")
        for name in _FINITE:
            if not _is_finite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)!r}.")
        size, stages, dropout = self.image_size, self.fusion_stages, self.global_dropout
        sides = size if isinstance(size, tuple | list) else (size,) * 2
        if len(sides) != 2 or any(type(side) is not int for side in sides):
            raise ValueError(f"image_size is one number, or height and width, got {size!r}.")
        if not isinstance(stages, tuple | list) or any(type(stage) is not int for stage in stages):
            raise ValueError(f"fusion_stages are numbers of blocks, got {stages!r}.")
        if not isinstance(self.statistics, tuple | list) or not all(isinstance(name, str) for name in self.statistics):
            raise ValueError(f"statistics are names, got {self.statistics!r}.")
        if not isinstance(dropout, tuple | list) or not all(map(_is_finite, dropout)):
            raise ValueError(f"global_dropout is one rate or one per stage, got {dropout!r}.")
        if not isinstance(self.use_gate, bool):
            raise ValueError(f"use_gate is True or False, got {self.use_gate!r}.")
        if not isinstance(self.backbone, str | None) or not isinstance(self.backbone_args, Mapping):
            raise ValueError(
                f"backbone is a name and backbone_args a mapping, got {self.backbone!r} and {self.backbone_args!r}."
            )

    def _check_ranges(self) -> None:
        if min(self.grid) < 1:
            raise ValueError(f"image_size must be at least one patch of {self.patch_size}, got {self.image_size}.")
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 (no head) or more, got {self.num_classes}.")
        if self.tubelet_kernel_size < 1 or self.tubelet_kernel_size % 2 == 0:
            raise ValueError(f"tubelet_kernel_size must be odd, got {self.tubelet_kernel_size}.")
        for name in ("mlp_ratio", "global_mlp_ratio", "local_reduction"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        rates = {
            name: getattr(self, name) for name in ("drop_path_rate", "global_drop_path_rate", "classifier_dropout")
        }
        for name, rate in (*rates.items(), *(("global_dropout", rate) for rate in self.global_dropout)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} must be a rate from 0 to 1, got {rate}.")

    def _check_limits(self) -> None:
        """Refuse before anything is built what no machine should be asked for."""
        limits, (rows, columns) = get_limits(), self.grid
        limits.check("depth", self.depth, what=f"depth {self.depth}")
        hidden = {name: int(self.dim * getattr(self, name)) for name in ("mlp_ratio", "global_mlp_ratio")}
        hidden["local_reduction"] = int(self.dim / self.local_reduction)
        own = {"dim": self.dim, "num_classes": self.num_classes}
        for name, value in {**own, **hidden}.items():
            of_dim = "" if name in own else f", which makes {value} channels,"
            limits.check("width", value, what=f"{name} {getattr(self, name)}{of_dim}")
        limits.check("width", self.num_features, what=f"a head that reads {self.num_features} channels")
        for side in (self.image_size,) if isinstance(self.image_size, int) else self.image_size:
            limits.check("image_size", side, what=f"image_size {self.image_size}")
        limits.check("patches_per_frame", rows * columns, what=f"a frame of {rows} x {columns} patches")
        for name in ("num_frames", "tubelet_kernel_size", "local_kernel_size"):
            limits.check("frames_per_video", getattr(self, name), what=f"{name} {getattr(self, name)}")

    def _check_stages(self) -> None:
        stages = self.fusion_stages
        if list(stages) != sorted(set(stages)) or stages[0] < 0 or stages[-1] >= self.depth:
            raise ValueError(f"fusion_stages must rise within 0 to {self.depth - 1}, got {stages}.")
        if not self.use_gate and stages[-1] != self.depth - 1:
            raise ValueError(
                f"Without a gate nothing reads the blocks after the last fusion stage: end fusion_stages with "
                f"{self.depth - 1} or set depth={stages[-1] + 1}, got {stages}."
            )
        self._check_statistics()
        if len(self.global_dropout) != len(stages):
            raise ValueError(
                f"global_dropout is one rate or one per stage: {len(stages)} stages, got {self.global_dropout}."
            )

    def _check_statistics(self) -> None:
        if self.fusion == "statistics" and not self.statistics:
            raise ValueError("fusion='statistics' needs at least one of the statistics, got none.")
        for name in self.statistics:
            _check_choice("statistics", name, get_args(StatisticName))
        if len(set(self.statistics)) < len(self.statistics):
            raise ValueError(f"statistics must be named once each, got {self.statistics!r}.")
        if self.fusion == "statistics" and self.use_gate:
            raise ValueError("fusion='statistics' has no gate: set use_gate=False.")

    @property
    def num_features(self) -> int:
        """Channels that the head reads: C, and C for each statistic; of the fusion "statistics" those alone."""
        if self.fusion == "statistics":
            return self.dim * len(self.statistics) * len(self.fusion_stages)
        return self.dim * (1 + len(self.statistics))

    def _resolve(self) -> None:
        """Write defaults that follow from other fields, so that a stored configuration says everything."""
        stages = tuple(self.fusion_stages) or tuple(range(max(0, self.depth - 4), self.depth))
        dropout = tuple(self.global_dropout)
        resolved = {
            "image_size": self.image_size if isinstance(self.image_size, int) else tuple(self.image_size),
            "fusion_stages": stages,
            "statistics": tuple(self.statistics),
            "tubelet_kernel_size": self.tubelet_kernel_size or (1 if self.tubelet_size == 1 else 3),
            "global_num_heads": self.global_num_heads or self.num_heads,
            "global_dropout": dropout * len(stages) if len(dropout) == 1 else dropout,
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches H, W of a frame of ``image_size``."""
        height, width = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        return height // self.patch_size, width // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that ``to_dict`` gave, also after a way through JSON.

        Args:
            values: Fields by name; missing ones take their defaults.

        Raises:
            ValueError: A name that is no field, or no mapping.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"An architecture is a mapping of names to values, got a {type(values).__name__}.")
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"UniFormerV2Config has no field '{name}'.{did_you_mean(name, known)}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    def overridden(self, overrides: Mapping[str, Any]) -> Self:
        """The architecture of known weights with overrides: sizes of the clip, and rates that only training knows.

        Args:
            overrides: Fields by name.

        Raises:
            ValueError: Another value would make another network of the same weights, whose scores mean nothing.
        """
        config = self.from_dict({**self.to_dict(), **overrides})
        for name in sorted(overrides.keys() - _FREE):
            if getattr(config, name) != getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} in these weights, {overrides[name]!r} was asked for: leave it "
                    f"out. What may be another: {', '.join(sorted(_FREE))}."
                )
        return config


@dataclass(frozen=True)
class CheckpointInfo:
    """What travels with the weights besides the architecture.

    Args:
        preprocessing: Fields of ``data.transforms.Preprocessing``, in types that JSON knows.
        class_names: Names in the order of the head's rows; empty when unknown.
        is_multi_label: It was trained on videos with several classes: each score is a sigmoid of its own.
        licence: Licence of the weights.
        source: Where the weights come from.
        metrics: Measured or published numbers by name.
        versions: Versions of the packages that wrote the file.
    """

    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    is_multi_label: bool = False
    licence: str = "unknown"
    source: str = "random weights"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What a file says; names that are no field are left out, missing ones take their defaults.

        Args:
            content: Fields by name, as JSON has them.

        Raises:
            ValueError: A value of another type, or a class name that occurs twice.
        """
        kinds = {"preprocessing": dict, "metrics": dict, "versions": dict, "licence": str, "source": str}
        values = {name: content[name] for name in (*kinds, "class_names", "is_multi_label") if name in content}
        for name, value in values.items():
            if not isinstance(value, kinds.get(name, object)):
                raise ValueError(f"{name} must be a {kinds[name].__name__}, got {type(value).__name__}.")
        names = values.setdefault("class_names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names must be a list of names.")
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"class_names has {doubled[0]!r} more than once.")
        if not isinstance(values.get("is_multi_label", False), bool):
            raise ValueError(f"is_multi_label must be true or false, got {values['is_multi_label']!r}.")
        return cls(**{**values, "class_names": tuple(names)})

    def __post_init__(self) -> None:
        for name in ("preprocessing", "metrics"):  # as they come back from a file: lists, not tuples
            object.__setattr__(self, name, json.loads(json.dumps(dict(getattr(self, name)))))


def _is_finite(value: object) -> bool:
    return type(value) in {int, float} and abs(value) < _HUGE  # type: ignore[arg-type]


def _check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    if not isinstance(value, str | int) or value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, got {value!r}.")
