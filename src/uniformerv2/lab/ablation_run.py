"""One run of an ablation: a variant armed, trained with one seed, and measured on the validation videos.

Where the image ViT is frozen, all that lies below a variant's first local temporal step is computed once, by a plain
network, and kept; all seeds and variants of a suite that see the same images read the same tokens::

    videos -> blocks 0 .. 7 -> cached tokens -> blocks 8 .. 11 with local steps -> global UniBlocks -> head
              frozen, once                      trained from here

Rates, dropout, augmentation, precision and trainer are those of ``train``, but for what the settings say. The networks
are those after the last epoch: none is chosen by the videos that it is measured on, and these are seen in one view.

Letters: B clips of a batch, S cached blocks, T' time steps, N tokens a step, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from uniformerv2.autotrain.defaults import default_dropout, default_rates
from uniformerv2.autotrain.fitting import make_trainer
from uniformerv2.autotrain.run import MAX_FAILED, augmentation_of
from uniformerv2.core.console import Progress
from uniformerv2.core.devices import best_device
from uniformerv2.core.optional import require
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.splits import Splits
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.lab.ablation import AblationSettings
from uniformerv2.lab.ablation_parts import arm_plainly, blocks_of, build_network, depth_of, stages_of
from uniformerv2.lab.ablation_task import read_directions
from uniformerv2.model.precision import gains_from_bf16
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.datamodule import VideoDataModule
from uniformerv2.training.feature_cache import CachedVideos, token_grid
from uniformerv2.training.feature_key import FeatureSettings
from uniformerv2.training.frozen import CachedDataModule, TokenClassifier
from uniformerv2.training.module import VideoClassifier
from uniformerv2.training.optim import Optimization
from uniformerv2.training.progress import TrainProgress

if TYPE_CHECKING:
    import lightning.pytorch as lightning
else:
    lightning = require("lightning.pytorch", extra="train")

__all__ = ["Measured", "SharedTokens", "Variant", "prepare", "run_variant", "shared_tokens"]

DECIDE_TOKENS: Final = (
    *("backbone", "weights", "num_blocks", "num_frames", "image_size", "sampling", "frame_stride", "tubelet_size"),
    *("augmentation", "flip", "cache_views"),
)
"""Settings that decide the tokens of a frozen image ViT."""


@dataclass(frozen=True)
class SharedTokens:
    """What is computed once for several variants.

    Attributes:
        settings: Those that decide the tokens; the others have their defaults.
        blocks: Numbers of the blocks whose tokens are kept.
    """

    settings: AblationSettings
    blocks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """All that a run needs.

    Attributes:
        settings: With the dropout that is used.
        classifier: Trains ``classifier.network``.
        data: Reads videos, or tokens whose cache is yet to be filled.
        precision: Lightning's word.
        tokens: Which tokens are read from a cache; None: every step starts from the videos.
        source: The plain network that computes them.
    """

    settings: AblationSettings
    classifier: VideoClassifier
    data: VideoDataModule
    precision: str
    tokens: SharedTokens | None = None
    source: UniFormerV2 | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a run ended: what the trained network gets right.

    Attributes:
        hits: Whether the class of each validation sample was found, in the order of the data; unreadable ones were not.
        num_unreadable: Validation samples that could not be read.
        num_trainable: Parameters that learnt.
    """

    hits: tuple[bool, ...]
    num_unreadable: int
    num_trainable: int


def shared_tokens(settings: AblationSettings, suite: Iterable[AblationSettings]) -> SharedTokens | None:
    """Which tokens a variant reads from a cache; None: it trains from videos.

    Args:
        settings: What the variant is.
        suite: The settings of all variants, which share the tokens of the same images.
    """
    own = _cached_blocks(settings)
    if own is None:
        return None
    images = _images(settings)
    others = [_others_blocks(one) for one in suite if _images(one) == images]
    return SharedTokens(images, tuple(sorted(own.union(*others))))


def prepare(
    settings: AblationSettings,
    splits: Splits,
    *,
    seed: int,
    tokens: SharedTokens | None,
    cache_folder: Path,
    num_workers: int,
) -> Variant:
    """Network, data and optimiser of a run; nothing is computed yet.

    Args:
        settings: What the variant is.
        splits: The videos.
        seed: Decides random weights, dropout, order and, where no tokens are cached, the training clips.
        tokens: From ``shared_tokens``.
        cache_folder: Holds the tokens of all suites and variants.
        num_workers: Processes that read videos.
    """
    if settings.dropout is None:
        chosen = default_dropout(freeze_backbone=settings.freeze_backbone, num_train=len(splits.train))
        settings = replace(settings, dropout=chosen)
    network = build_network(settings, splits.class_names, seed=seed)
    precision = "bf16-mixed" if gains_from_bf16(network, best_device()) else "32-true"
    preprocessing = Preprocessing.from_dict(
        {**network.info.preprocessing, "sampling": settings.sampling, "frame_stride": settings.frame_stride}
    )
    options: dict[str, Any] = {
        "val": splits.val,
        "augmentation": _augmentation(settings),
        "batch_size": settings.batch_size,
        "num_workers": num_workers,
        "classes": splits.class_names,
        "max_failed": MAX_FAILED,
    }
    learning: dict[str, Any] = {
        "optimization": _optimization(settings, num_train=len(splits.train)),
        "label_smoothing": settings.label_smoothing,
    }
    if tokens is None:
        videos = _Videos(splits.train, preprocessing, seed=seed, repeats=settings.repeats, **options)
        classifier = VideoClassifier(network, **learning)
        return Variant(settings=settings, classifier=classifier, data=videos, precision=precision)
    torch.manual_seed(seed)  # a random image ViT is that of the variant
    source = arm_plainly(tokens.settings, splits.class_names, fusion_stages=tokens.blocks, num_local_steps=0)
    source.freeze_backbone()
    kept = FeatureSettings(num_views=settings.cache_views, storage="float16", precision=precision, device=best_device())
    return Variant(
        settings=settings,
        classifier=_FromTokens(network, tokens.blocks, **learning),
        data=_Tokens(splits.train, preprocessing, cache=cache_folder, settings=kept, order_seed=seed, **options),
        precision=precision,
        tokens=tokens,
        source=source,
    )


def run_variant(
    variant: Variant,
    *,
    seed: int,
    folder: Path,
    callbacks: Sequence[lightning.Callback] = (),
    progress: bool = False,
) -> Measured:
    """Fill the cache if there is one, train, measure.

    Args:
        variant: From ``prepare``.
        seed: Decides dropout and stochastic depth.
        folder: Where Lightning may write.
        callbacks: For Lightning.
        progress: Show on stderr how far it is.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SystemExit: Another signal.
    """
    if variant.source is not None and isinstance(variant.data, CachedDataModule):
        is_there = not any(part.missing_bytes for part in variant.data.open_cache(variant.source))
        with Progress("cache features", variant.data.num_clips, is_quiet=is_there or not progress) as bar:
            variant.data.fill_cache(variant.source, on_clips=bar.advance)
    lightning.seed_everything(seed, verbose=False)
    trainer = make_trainer(
        folder,
        epochs=variant.settings.epochs,
        precision=variant.precision,
        device=best_device(),
        callbacks=[*([TrainProgress("val_top1")] if progress else []), *callbacks],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
    )
    try:
        trainer.fit(variant.classifier, datamodule=variant.data)
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning makes an exit of it
            raise KeyboardInterrupt from stopped
        raise
    try:
        return _measure(variant)
    finally:
        variant.data.teardown("fit")


class _Videos(VideoDataModule):
    """A ``VideoDataModule`` that honours the direction of its records."""

    def _dataset(self, *args: Any, **options: Any) -> VideoDataset:
        return read_directions(super()._dataset(*args, **options))


class _Tokens(_Videos, CachedDataModule):
    """Cached tokens, which all seeds share, in the order of one seed.

    Args:
        *args: As ``CachedDataModule``.
        order_seed: Decides the order.
        **options: As ``CachedDataModule``.
    """

    def __init__(self, *args: Any, order_seed: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.order_seed = order_seed

    def _cached(self, split: str) -> CachedVideos:
        cached = super()._cached(split)
        cached.reader = replace(cached.reader, seed=self.order_seed)
        return cached


class _FromTokens(TokenClassifier):
    """A ``TokenClassifier`` for tokens of blocks below its first local step, or of more blocks than it reads.

    Args:
        network: Trained in place.
        cached: Numbers of the cached blocks.
        **options: As ``VideoClassifier``.
    """

    def __init__(self, network: UniFormerV2, cached: Sequence[int], **options: Any) -> None:
        super().__init__(network, **options)
        self.cached = tuple(cached)
        local = [index for index, block in enumerate(blocks_of(network)) if len(block.local)]
        self.first_trained = min(local, default=len(network.blocks))

    def logits(self, prepared: Tensor) -> Tensor:
        """Tokens [B, S, T', N, C] -> [B, K] float32."""
        grid = token_grid(self.network, self.preprocessing)
        dtype = self.network.norm.weight.dtype
        last = len(self.network.blocks)
        wanted = {*self.network.read_blocks, *([self.first_trained - 1] if self.first_trained < last else [])}
        tokens = {block: prepared[:, column].to(dtype) for column, block in enumerate(self.cached) if block in wanted}
        for index in range(self.first_trained, last):
            tokens[index] = self.network.blocks[index](tokens[index - 1], grid)
        return self.network.forward_tokens([tokens[block] for block in self.network.read_blocks], grid).float()


@torch.no_grad()
def _measure(variant: Variant) -> Measured:
    loader = variant.data.val_dataloader()
    if not isinstance(loader, VideoLoader):
        raise TypeError(f"There are no validation videos to measure on: the loader is {loader!r}.")
    device = best_device()
    classifier = variant.classifier.eval().to(device)
    hits: list[bool] = []
    num_unreadable = 0
    for batch in loader:
        moved = batch.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=variant.precision.startswith("bf16")):
            scores = classifier.log_scores(moved.video)
        hits += ((scores.argmax(dim=1) == moved.label) & moved.readable).tolist()
        num_unreadable += int((~batch.readable).sum())
    num_trainable = sum(weight.numel() for weight in classifier.network.parameters() if weight.requires_grad)
    return Measured(hits=tuple(hits), num_unreadable=num_unreadable, num_trainable=num_trainable)


def _cached_blocks(settings: AblationSettings) -> set[int] | None:
    """Blocks whose tokens a variant reads from a cache; None: it trains from videos."""
    if not settings.freeze_backbone or settings.repeats > 1 or not settings.cache_views:
        return None
    depth = depth_of(settings)
    first = min(settings.numbered(settings.local_blocks, depth)) if settings.local_steps else depth
    if not first:
        return None
    read = {*stages_of(settings, depth), depth - 1}
    return {block for block in read if block < first} | {first - 1}


def _others_blocks(settings: AblationSettings) -> set[int]:
    """The same of another variant; nothing where it names blocks that are not there, which its own run will say."""
    try:
        return _cached_blocks(settings) or set()
    except ValueError:
        return set()


def _images(settings: AblationSettings) -> AblationSettings:
    return AblationSettings(**{name: getattr(settings, name) for name in DECIDE_TOKENS})


def _augmentation(settings: AblationSettings) -> TrainAugmentation:
    size: dict[str, Any] = {"image_size": settings.image_size, "flip": settings.flip}
    if settings.augmentation != "none":
        return augmentation_of(settings.augmentation, **size)
    return replace(augmentation_of("light", **size), area=(1.0, 1.0), aspect_ratio=(1.0, 1.0), flip=0.0)


def _optimization(settings: AblationSettings, *, num_train: int) -> Optimization:
    """The optimisation of ``train``, but for what the settings say of rate and warm-up."""
    rates = default_rates(
        min(settings.batch_size, num_train),
        preset="motion" if settings.local_steps else "scene",
        freeze_backbone=settings.freeze_backbone,
        is_armed_anew=True,
    )
    rates = replace(rates, learning_rate=settings.learning_rate or rates.learning_rate)
    return rates.optimization(epochs=settings.epochs, warmup=settings.warmup)
