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

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from re import fullmatch
from typing import Any, Final, Literal, Self, get_args

import yaml

from uniformerv2.data.transforms import Sampling
from uniformerv2.model.config import FusionName
from uniformerv2.training.recipes import suite_path

__all__ = ["AblationSettings", "Suite", "read_suite"]

NAME: Final = r"[a-z0-9][a-z0-9_]*"

LocalRelation = Literal["convolution", "attention"]
GlobalRelation = Literal["attention", "average"]
Augmentation = Literal["none", "light", "strong"]
Blocks = tuple[int, ...] | Literal["all"]

PRETRAINED: Final = "pretrained"
RANDOM: Final = "random"

_CHOICES: Final[Mapping[str, Collection[object]]] = {
    "sampling": get_args(Sampling),
    "tubelet_size": (1, 2),
    "local_steps": (0, 1, 2),
    "local_relation": get_args(LocalRelation),
    "fusion": get_args(FusionName),
    "global_relation": get_args(GlobalRelation),
    "augmentation": get_args(Augmentation),
}
_LOWEST: Final = {
    "num_frames": 1,
    "image_size": 1,
    "num_blocks": 1,
    "frame_stride": 1,
    "epochs": 1,
    "batch_size": 1,
    "repeats": 1,
    "cache_views": 0,
}
_OPTIONAL: Final = frozenset({"num_blocks", "learning_rate", "dropout"})
_WORDS: Final = ("backbone", "weights")
_SWITCHES: Final = ("freeze_backbone", "has_global", "has_positions", "has_feed_forward")
_BLOCKS: Final = ("local_blocks", "fusion_stages")
_PARTS: Final = ("dropout", "drop_path_rate", "warmup", "flip", "label_smoothing")


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """One variant: what is built, and how it is trained. The defaults are an armed image ViT, its global blocks alone.

    Attributes:
        backbone: timm's image ViT.
        weights: "pretrained" fetches timm's; "random" takes none; else a file with the image ViT's weights.
        num_blocks: Keep only the first so many of its blocks; None: all.
        freeze_backbone: The backbone does not learn, nor do its tubelets.
        num_frames: Of a clip.
        image_size: Pixels of a square input.
        sampling: "segments" spreads a clip over the whole video, "dense" takes frames ``frame_stride`` apart.
        frame_stride: For dense sampling.
        tubelet_size: Frames of a time step, 1 or 2 (temporal downsampling).
        local_steps: Local temporal steps of a block, 0 to 2.
        local_relation: "attention" along time is not in the published model.
        local_reduction: C divided by the channels of the bottleneck.
        local_blocks: Blocks that have local steps, negative ones from the end; the published ones are "all".
        has_global: Without global UniBlocks the head reads the mean over the frames of the class token.
        fusion: See ``MultiStageFusion``.
        fusion_stages: Blocks that global UniBlocks read, negative ones from the end.
        global_relation: "average" pooling in place of C_MHRA is not in the published model.
        has_positions: DPE in the global UniBlocks; the published model has it.
        has_feed_forward: FFN in the global UniBlocks; the published model has it.
        dropout: In the FFN of global UniBlocks and before the head; None: what ``uniformerv2 train`` chooses.
        drop_path_rate: Stochastic depth, of blocks that learn and of global UniBlocks.
        epochs: Passes over the training videos.
        batch_size: Videos of a step.
        learning_rate: Highest rate; None: what ``uniformerv2 train`` chooses.
        warmup: Of all epochs, 0 to 1.
        augmentation: "light" crops, "strong" is the published one; "none" has neither crops nor flips.
        flip: Probability that a training clip is mirrored.
        repeats: Clips of a video in a step (repeated augmentation).
        label_smoothing: Of the loss.
        cache_views: Augmented clips of each training video whose tokens are kept, with a frozen image ViT; 0: none.

    Raises:
        ValueError: A field outside its range; the message names what is allowed.
    """

    backbone: str = "vit_small_patch14_dinov2"
    weights: str = PRETRAINED
    num_blocks: int | None = None
    freeze_backbone: bool = True
    num_frames: int = 8
    image_size: int = 112
    sampling: Sampling = "segments"
    frame_stride: int = 1
    tubelet_size: int = 1
    local_steps: int = 0
    local_relation: LocalRelation = "convolution"
    local_reduction: float = 1.5
    local_blocks: Blocks = "all"
    has_global: bool = True
    fusion: FusionName = "sequential"
    fusion_stages: Blocks = (-4, -3, -2, -1)
    global_relation: GlobalRelation = "attention"
    has_positions: bool = True
    has_feed_forward: bool = True
    dropout: float | None = None
    drop_path_rate: float = 0.0
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.1
    augmentation: Augmentation = "light"
    flip: float = 0.5
    repeats: int = 1
    label_smoothing: float = 0.1
    cache_views: int = 2

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            _check(name, value, value in allowed and type(value) is type(next(iter(allowed))), _listed(allowed))
        for name, lowest in _LOWEST.items():
            self._check_number(name, int, f"a whole number from {lowest} on", lambda value, low=lowest: value >= low)
        for name in _PARTS:
            self._check_number(name, float, "from 0 to below 1", lambda value: 0 <= value < 1)
        self._check_number("learning_rate", float, "a number above 0", lambda value: value > 0)
        self._check_number("local_reduction", float, "a number from 1 on", lambda value: value >= 1)
        for name in _WORDS:
            _check(name, getattr(self, name), isinstance(getattr(self, name), str), "a word")
        for name in _SWITCHES:
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        for name in _BLOCKS:
            blocks = tuple(value) if isinstance(value := getattr(self, name), list) else value
            are_numbers = isinstance(blocks, tuple) and bool(blocks) and all(type(block) is int for block in blocks)
            _check(name, value, blocks == "all" or are_numbers, "'all' or a list of numbers of blocks")
            object.__setattr__(self, name, blocks)
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames must be a multiple of tubelet_size {self.tubelet_size}, got {self.num_frames}."
            )

    def _check_number(self, name: str, kind: type, allowed: str, is_allowed: Any) -> None:
        value = getattr(self, name)
        if value is None and name in _OPTIONAL:
            return
        kinds = (int, float) if kind is float else (int,)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        _check(name, value, is_number and is_allowed(value), allowed + " or null" * (name in _OPTIONAL))

    def changed(self, overrides: Mapping[str, Any]) -> Self:
        """With other values.

        Args:
            overrides: Fields by name.

        Raises:
            ValueError: A name that is no field, or a value that is not allowed.
        """
        known = [item.name for item in fields(self)]
        for name in overrides:
            _check_known("setting", name, known)
        return replace(self, **overrides)

    def numbered(self, blocks: Blocks, depth: int) -> tuple[int, ...]:
        """Numbers of blocks from 0 on, in order.

        Args:
            blocks: ``local_blocks`` or ``fusion_stages``.
            depth: Blocks of the image ViT.

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


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A question, and the variants that answer it.

    Attributes:
        name: Small letters, digits and underscores.
        asks: The question, one sentence.
        base: What all variants have unless they say otherwise.
        variants: Name -> what it has otherwise.
        control: The variant that the others are compared with.
        seeds: Each variant is trained once with each.

    Raises:
        ValueError: Names, settings, control or seeds that are not allowed.
    """

    name: str
    asks: str
    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    control: str
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds) if isinstance(self.seeds, list) else self.seeds)
        for what, name in (("The name of a suite", self.name), *(("A variant", name) for name in self.variants)):
            if not isinstance(name, str) or not fullmatch(NAME, name):
                raise ValueError(f"{what} has small letters, digits and underscores, got {name!r}.")
        if not self.variants:
            raise ValueError(f"Suite '{self.name}' has no variants; it needs at least one.")
        if not isinstance(self.control, str) or self.control not in self.variants:
            raise ValueError(f"control is one of {', '.join(self.variants)}, got {self.control!r}.")
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
        """With other base settings; what a variant says of its own stands."""
        return replace(self, base={**self.base, **overrides})


def read_suite(name: str) -> Suite:
    """A suite by its name, or one of one's own.

    Args:
        name: Of a suite that comes with the package, or the path of a YAML file.

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
        return _suite(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _suite(content: Any) -> Suite:
    if not isinstance(content, dict):
        raise ValueError(f"A suite is a mapping of name, asks, base, variants, control, seeds; got {content!r:.60}.")
    known = [item.name for item in fields(Suite)]
    for key in content:
        _check_known("key", key, known)
    if missing := [key for key in ("name", "asks", "variants", "control") if not content.get(key)]:
        raise ValueError(f"A suite needs {', '.join(missing)}, which this one lacks.")
    content.setdefault("base", {})
    mappings = {"base": content["base"], "variants": content["variants"]}
    if isinstance(content["variants"], dict):
        mappings |= {f"variant '{name}'": overrides for name, overrides in content["variants"].items()}
    for what, value in mappings.items():
        if not isinstance(value, dict):
            raise ValueError(f"{what} is a mapping (write {{}} for an empty one), got {value!r:.60}.")
    if not isinstance(content["asks"], str):
        raise ValueError(f"asks is a sentence, got {content['asks']!r:.60}.")
    if not isinstance(content.get("seeds", []), list):
        raise ValueError(f"seeds is a list of whole numbers, got {content['seeds']!r:.60}.")
    return Suite(**content)


def _check(name: str, value: object, is_allowed: bool, allowed: str) -> None:
    if not is_allowed:
        raise ValueError(f"{name} is {allowed}, got {value!r}.")


def _check_known(what: str, name: object, known: Collection[str]) -> None:
    if name in known:
        return
    near = get_close_matches(str(name), known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known)}."
    raise ValueError(f"No {what} is called {name!r}. {hint}")


def _listed(allowed: Collection[object]) -> str:
    return "one of " + ", ".join(map(repr, allowed))
