"""Ablation suites: a small YAML file that says what is asked, which variants answer it, and with which seeds.

::

    name: fusion
    asks: How should the video tokens of several stages become one?
    base: {num_frames: 8, image_size: 84, epochs: 10}     # fields of AblationSettings, for all variants
    variants:                                             # what each of them has otherwise
      sequential: {}
      parallel: {fusion: parallel}
    control: sequential                                   # which the others are compared with
    seeds: [0, 1, 2]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from re import fullmatch
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

import yaml

from uniformerv2.core.messages import did_you_mean
from uniformerv2.data.transforms import Sampling
from uniformerv2.model.config import FusionName
from uniformerv2.recipes import suite_path

__all__ = ["PRETRAINED", "RANDOM", "AblationSettings", "Suite", "read_suite"]

NAME: Final = r"[a-z0-9][a-z0-9_]*"

PRETRAINED: Final = "pretrained"
RANDOM: Final = "random"


class _Kind(NamedTuple):
    """What a setting may be: in words, and whether a value is so."""

    words: str
    holds: Callable[[Any], bool]


def _number(words: str, holds: Callable[[float], bool], kinds: tuple[type, ...] = (int, float)) -> _Kind:
    return _Kind(words, lambda value: type(value) in kinds and holds(value))


def _are_blocks(value: object) -> bool:
    return value == "all" or (isinstance(value, tuple) and bool(value) and all(type(one) is int for one in value))


LocalRelation = Literal["convolution", "attention"]
GlobalRelation = Literal["attention", "average"]
Augmentation = Literal["none", "light", "strong"]
Blocks = Annotated[tuple[int, ...] | Literal["all"], _Kind("'all' or a list of numbers of blocks", _are_blocks)]
Count = Annotated[int, _number("a whole number from 1 on", lambda value: value >= 1, (int,))]
CountOrZero = Annotated[int, _number("a whole number from 0 on", lambda value: value >= 0, (int,))]
Part = Annotated[float, _number("from 0 to below 1", lambda value: 0 <= value < 1)]
Rate = Annotated[float, _number("a number above 0", lambda value: value > 0)]
Ratio = Annotated[float, _number("a number from 1 on", lambda value: value >= 1)]


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """One variant: what is built, and how it is trained. The defaults are an armed image ViT, its global blocks alone.

    Attributes:
        backbone: timm's image ViT.
        weights: "pretrained" fetches timm's; "random" takes none; else a file with the image ViT's weights.
        num_blocks: Keep only its first blocks, as many as this; None: all.
        freeze_backbone: The backbone does not learn, nor do its tubelets.
        num_frames: Frames per clip.
        image_size: Pixels of a square input.
        sampling: "segments" spreads a clip over the whole video, "dense" takes frames ``frame_stride`` apart.
        frame_stride: Distance of the frames in dense sampling.
        tubelet_size: Frames per time step, 1 or 2 (temporal downsampling).
        local_steps: Local temporal steps per block, 0 to 2.
        local_relation: "attention" along time is not in the published model.
        local_reduction: C divided by the channels of the bottleneck.
        local_blocks: Blocks that have local steps, negative ones from the end; the published ones are "all".
        has_global: Without global UniBlocks the head reads the mean over the frames of the class token.
        fusion: See ``MultiStageFusion``.
        fusion_stages: Blocks that global UniBlocks read, negative ones from the end.
        global_relation: "average" pooling in place of C_MHRA is not in the published model.
        has_positions: DPE in the global UniBlocks; the published model has it.
        has_feed_forward: FFN in the global UniBlocks; the published model has it.
        dropout: Dropout in the FFN of global UniBlocks and before the head; None: what ``uniformerv2 train`` chooses.
        drop_path_rate: Stochastic depth in blocks that learn and in global UniBlocks.
        epochs: Passes over the training videos.
        batch_size: Videos per step.
        learning_rate: The highest rate; None: what ``uniformerv2 train`` chooses.
        warmup: Share of all epochs in which the rate rises, from 0 to below 1.
        augmentation: "light" crops, "strong" is the published one; "none" has neither crops nor flips.
        flip: Probability that a training clip is mirrored.
        repeats: Clips per video in a step (repeated augmentation).
        label_smoothing: Label smoothing of the loss.
        cache_views: Augmented clips of each training video whose tokens are kept, with a frozen image ViT; 0: none.

    Raises:
        ValueError: A field outside its range; the message names what is allowed.
    """

    backbone: str = "vit_small_patch14_dinov2"
    weights: str = PRETRAINED
    num_blocks: Count | None = None
    freeze_backbone: bool = True
    num_frames: Count = 8
    image_size: Count = 112
    sampling: Sampling = "segments"
    frame_stride: Count = 1
    tubelet_size: Literal[1, 2] = 1
    local_steps: Literal[0, 1, 2] = 0
    local_relation: LocalRelation = "convolution"
    local_reduction: Ratio = 1.5
    local_blocks: Blocks = "all"
    has_global: bool = True
    fusion: FusionName = "sequential"
    fusion_stages: Blocks = (-4, -3, -2, -1)
    global_relation: GlobalRelation = "attention"
    has_positions: bool = True
    has_feed_forward: bool = True
    dropout: Part | None = None
    drop_path_rate: Part = 0.0
    epochs: Count = 10
    batch_size: Count = 16
    learning_rate: Rate | None = None
    warmup: Part = 0.1
    augmentation: Augmentation = "light"
    flip: Part = 0.5
    repeats: Count = 1
    label_smoothing: Part = 0.1
    cache_views: CountOrZero = 2

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            value = getattr(self, name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if not kind.holds(value):
                raise ValueError(f"{name} is {kind.words}, got {value!r}.")
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames must be a multiple of tubelet_size {self.tubelet_size}, got {self.num_frames}."
            )

    def changed(self, overrides: Mapping[str, Any]) -> Self:
        """The same with other values, by the names of the fields.

        Raises:
            ValueError: A name that is no field, or a value that is not allowed.
        """
        _check_known("setting", overrides, self)
        return replace(self, **overrides)

    def numbered(self, blocks: Blocks, depth: int) -> tuple[int, ...]:
        """Number blocks from 0 on, in order.

        Args:
            blocks: ``local_blocks`` or ``fusion_stages``.
            depth: How many blocks the image ViT has.

        Raises:
            ValueError: A block that is not there.

        >>> AblationSettings().numbered((-1, 2), depth=12)
        (2, 11)
        """
        if blocks == "all":
            return tuple(range(depth))
        if wrong := [block for block in blocks if not -depth <= block < depth]:
            raise ValueError(f"The image ViT has blocks 0 to {depth - 1} (or -{depth} to -1), got {wrong[0]}.")
        return tuple(sorted({int(block) % depth for block in blocks}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@cache
def _kinds() -> dict[str, _Kind]:
    """What each field of ``AblationSettings`` may be."""
    return {name: _kind(hint) for name, hint in get_type_hints(AblationSettings, include_extras=True).items()}


def _kind(hint: Any) -> _Kind:
    choices = get_args(hint)
    if get_origin(hint) is Annotated:
        return choices[1]
    if get_origin(hint) is Literal:
        words = "one of " + ", ".join(map(repr, choices))
        return _Kind(words, lambda value: value in choices and type(value) is type(choices[0]))
    if type(None) in choices:
        words, holds = _kind(choices[0])
        return _Kind(f"{words} or null", lambda value: value is None or holds(value))
    return _Kind("a word" if hint is str else "true or false", lambda value: isinstance(value, hint))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A question, and the variants that answer it.

    Attributes:
        name: Small letters, digits and underscores.
        asks: The question, one sentence.
        variants: Name -> the settings that differ from ``base``.
        control: The variant that the others are compared with.
        base: Settings of all variants that do not say otherwise.
        seeds: Each variant is trained once with each.

    Raises:
        ValueError: Names, settings, control or seeds that are not allowed.
    """

    name: str
    asks: str
    variants: Mapping[str, Mapping[str, Any]]
    control: str
    base: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        mappings = {"base": self.base, "variants": self.variants}
        if isinstance(self.variants, dict):
            mappings |= {f"variant '{name}'": overrides for name, overrides in self.variants.items()}
        for what, value in mappings.items():
            if not isinstance(value, dict):
                raise ValueError(f"{what} is a mapping (write {{}} for an empty one), got {value!r:.60}.")
        if not isinstance(self.asks, str):
            raise ValueError(f"asks is a sentence, got {self.asks!r:.60}.")
        for what, name in (("The name of a suite", self.name), *(("A variant", name) for name in self.variants)):
            if not isinstance(name, str) or not fullmatch(NAME, name):
                raise ValueError(f"{what} has small letters, digits and underscores, got {name!r}.")
        if not isinstance(self.control, str) or self.control not in self.variants:
            raise ValueError(f"control is one of {', '.join(self.variants)}, got {self.control!r}.")
        if not isinstance(self.seeds, list | tuple):
            raise ValueError(f"seeds is a list of whole numbers, got {self.seeds!r:.60}.")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if wrong := [seed for seed in self.seeds if type(seed) is not int or seed < 0]:
            raise ValueError(f"A seed is a whole number from 0 on, got {wrong[0]!r}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different whole numbers, at least one, got {list(self.seeds)}.")
        for name in self.variants:
            self.settings(name)

    def settings(self, variant: str) -> AblationSettings:
        """All settings of a variant.

        Raises:
            ValueError: One that is not allowed; the message names the variant.
        """
        try:
            return AblationSettings().changed({**self.base, **self.variants[variant]})
        except ValueError as error:
            raise ValueError(f"Variant '{variant}' of suite '{self.name}': {error}") from error

    def with_base(self, overrides: Mapping[str, Any]) -> Self:
        """The same suite with other base settings; a variant's own settings stand."""
        return replace(self, base={**self.base, **overrides})


def read_suite(name: str) -> Suite:
    """A suite by its name, or one of one's own.

    Args:
        name: Name of a suite that comes with the package, or the path of a YAML file.

    Raises:
        FileNotFoundError: There is neither; the message names the nearest.
        ValueError: The file is no suite; the message says what came and what is allowed.
    """
    path = suite_path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    try:
        if not isinstance(content, dict):
            known = ", ".join(item.name for item in fields(Suite))
            raise ValueError(f"A suite is a mapping of {known}; got {content!r:.60}.")
        _check_known("key", content, Suite)
        if missing := [key for key in ("name", "asks", "variants", "control") if not content.get(key)]:
            raise ValueError(f"A suite needs {', '.join(missing)}, which this one lacks.")
        return Suite(**content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_known(what: str, names: Mapping[str, object], of: Any) -> None:
    """Check that the dataclass has all of these fields.

    Raises:
        ValueError: It has not; the message names the nearest.
    """
    known = [item.name for item in fields(of)]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
            raise ValueError(f"No {what} is called {name!r}.{hint}")
