"""The model zoo: a card for each of the 49 official and 23 MMAction2 checkpoints.

The table is ``model_zoo.csv`` beside this file, a line for each checkpoint; here it is read, checked
and turned into cards. What the table's columns mean is told by `ModelCard`.

How a name is built::

    uniformerv2_l14_frozen_k400_k710_32x336_mmaction2
                |   |      |    |    |      ported to or trained by MMAction2; else the authors' own
                |   |      |    |    frames x image side
                |   |      |    trained on this before, after CLIP: k710, or k710_k400
                |   |      the head's data: k400 k600 k700 k710 mit ssv1 ssv2 anet hacs
                |   the image ViT was frozen
                b16 or l14

Source:
    Li et al., UniFormerV2 (2022), https://arxiv.org/abs/2211.09552: MODEL_ZOO.md and the recipes of
    https://github.com/OpenGVLab/UniFormerV2; configs/recognition/uniformerv2 (metafile.yml, README.md) of
    https://github.com/open-mmlab/mmaction2.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_type_hints

from uniformerv2.zoo.download import cached_path, fetch
from uniformerv2.zoo.hub import fetch_from_hub

__all__ = ["ModelCard", "fetch_weights", "list_models", "model_card"]

Source = Literal["official", "mmaction2"]

HUB_REPOSITORY = "Andy1621/uniformerv2"

_NUM_CLASSES = MappingProxyType(
    {
        "Kinetics-400": 400,
        "Kinetics-600": 600,
        "Kinetics-700": 700,
        "Kinetics-710": 710,
        "Moments in Time V1": 339,
        "Something-Something V1": 174,
        "Something-Something V2": 174,
        "ActivityNet": 200,
        "HACS": 200,
    }
)

_LICENCE = MappingProxyType(
    {
        "official": "code: Apache-2.0 (LICENSE file), MIT (README); no separate terms are stated for the weights",
        "mmaction2": "code: Apache-2.0; no separate terms are stated for the weights",
        "hub": f"MIT, as stated by the Hugging Face repository {HUB_REPOSITORY}",
    }
)

_MEASURED = MappingProxyType(
    {
        "official": "by the authors, with their own test pipeline on their copy of the validation set",
        "mmaction2": "by MMAction2, with its test pipeline on the authors' validation list",
    }
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known about one published checkpoint.

    Attributes:
        name: Our name, see the top of this module.
        source: Who published the file; it decides key names, class order and preprocessing.
        architecture: As published, for instance ``"UniFormerV2-L/14@336"``.
        dataset: What the head was trained on, and where the accuracy was measured.
        pretraining: What came before, first to last, joined by ``+``.
        num_frames: Frames of one clip.
        image_size: Side of the square input in pixels.
        num_crops: Spatial crops of the published test; None where no accuracy is published.
        num_clips: Temporal clips of the published test; None where no accuracy is published.
        top1: Published accuracy in percent; None where none is published.
        top5: Published accuracy in percent; None where none is published.
        labels: Name of the class list in the order of this head; None where the authors' own order is
            not known here. Any other order scores next to nothing.
        recipe: Name of the published training configuration.
        sha256_prefix: First hex digits of the file's SHA-256; None where no hash is published.
        huggingface: Repository and file of a copy on the Hugging Face hub, if one survives.
        url: Where the file was published. The authors' bucket has been reported dead since 2025.
        note: What else one should know, such as a slip in the published tables; may be empty.
    """

    name: str
    source: Source
    architecture: str
    dataset: str
    pretraining: str
    num_frames: int
    image_size: int
    num_crops: int | None
    num_clips: int | None
    top1: float | None
    top5: float | None
    labels: str | None
    recipe: str
    sha256_prefix: str | None
    huggingface: tuple[str, str] | None
    url: str
    note: str

    @property
    def num_classes(self) -> int:
        """Rows of the head."""
        return _NUM_CLASSES[self.dataset]

    @property
    def may_be_fetched(self) -> bool:
        """Whether the weights are published on a server that is not known to be dead."""
        return self.huggingface is not None or self.source == "mmaction2"

    @property
    def views(self) -> str | None:
        """Frames x crops x clips of the published test, such as ``"8x3x4"``; None where none is published."""
        return None if self.num_crops is None else f"{self.num_frames}x{self.num_crops}x{self.num_clips}"

    @property
    def measured(self) -> str | None:
        """By whom and how the accuracy was measured; None where none is published."""
        return None if self.top1 is None else f"{_MEASURED[self.source]}; scores averaged over {self.views} views"

    @property
    def licence(self) -> str:
        """What the publishers state, and no more. CLIP and each dataset have terms of their own."""
        return _LICENCE["hub" if self.huggingface else self.source]

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments of ``UniFormerV2Config`` for this checkpoint, a new dict each time."""
        return _config(self)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How the published test prepares pixels: ``protocol`` (this card's source), ``num_frames``, ``image_size``."""
        return {"protocol": self.source, "num_frames": self.num_frames, "image_size": self.image_size}


def _config(card: ModelCard) -> dict[str, Any]:
    """The architecture, in the names of ``UniFormerV2Config``.

    Three families: motion (Something-Something) has local blocks, temporal stride 2 and global blocks on
    the last two thirds; scene has global blocks on the last four layers; untrimmed (ActivityNet, HACS)
    is scene with the drop path rates of motion.
    """
    large = "L/14" in card.architecture
    depth = 24 if large else 12
    num_heads = 16 if large else 12
    motion = card.dataset.startswith("Something-Something")
    drops_paths = motion or card.dataset in {"ActivityNet", "HACS"}
    fusion_stages = tuple(range(depth // 3 if motion else depth - 4, depth))
    return {
        "image_size": card.image_size,
        "patch_size": 14 if large else 16,
        "dim": 1024 if large else 768,
        "depth": depth,
        "num_heads": num_heads,
        "mlp_ratio": 4.0,
        "num_frames": card.num_frames,
        "num_classes": card.num_classes,
        "tubelet_size": 2 if motion else 1,
        "num_local_steps": 2 if motion else 0,
        "local_reduction": 1.5,
        "fusion_stages": fusion_stages,
        "global_num_heads": num_heads,
        "global_mlp_ratio": 4.0,
        "global_dropout": (0.5,) * len(fusion_stages),
        "drop_path_rate": 0.2 if drops_paths else 0.0,
        "global_drop_path_rate": 0.4 if drops_paths else 0.0,
        "classifier_dropout": 0.5,
        "use_gate": not card.architecture.startswith("Frozen"),
    }


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the model zoo that match a shell pattern, in the order of the table.

    Args:
        pattern: Such as ``"*k400*"`` or ``"*_mmaction2"``; upper and lower case are the same.
        pretrained: Only models whose weights are published where they may still be fetched: on the Hugging Face hub
            or on OpenMMLab's server, and not behind the authors' links, dead since 2025. No server is asked.

    >>> list_models("*b16_ssv2*")
    ['uniformerv2_b16_ssv2_16x224', 'uniformerv2_b16_ssv2_32x224']
    >>> list_models("*b16_mit*", pretrained=True)
    ['uniformerv2_b16_mit_k710_k400_8x224', 'uniformerv2_b16_mit_k710_k400_8x224_mmaction2']
    """
    zoo = _zoo() if not pretrained else {name: card for name, card in _zoo().items() if card.may_be_fetched}
    return [name for name in zoo if fnmatchcase(name, pattern.lower())]


def model_card(name: str) -> ModelCard:
    """The card of one model of the zoo.

    Raises:
        ValueError: No model has this name; the message gives the nearest one.

    >>> model_card("uniformerv2_b16_k400_8x224").top1
    84.4
    """
    zoo = _zoo()
    if name not in zoo:
        nearest = max(zoo, key=lambda known: _likeness(name.lower(), known))
        hint = f"Did you mean {nearest!r}? " if max(_likeness(name.lower(), nearest)) > 0.6 else ""
        raise ValueError(
            f"No model is called {name!r}. {hint}'uniformerv2 models' (list_models()) names all {len(zoo)}."
        )
    return zoo[name]


def _likeness(name: str, known: str) -> tuple[float, float]:
    """How like a name's beginning is, then how like the whole name is: people leave out the end."""
    return (
        SequenceMatcher(None, known[: len(name)], name).ratio(),
        SequenceMatcher(None, known, name).ratio(),
    )


def fetch_weights(card: ModelCard) -> Path:
    """The checkpoint's file on this machine, downloaded if it is not there yet.

    A file placed by hand comes first, then the surviving copy on the Hugging Face hub, then the published address.
    Where none of them can be had, the ``DownloadError`` says what to do instead.
    """
    instead = _instead(card)
    if card.huggingface and not cached_path(card.url).exists():
        repository, filename = card.huggingface
        return fetch_from_hub(repository, filename, instead=f"place the file at {cached_path(card.url)}, or {instead}")
    return fetch(card.url, sha256_prefix=card.sha256_prefix, instead=instead)


def _instead(card: ModelCard) -> str:
    """What a user can do when the published address is dead."""
    port = _zoo().get(f"{card.name}_mmaction2")
    advice = [f"use {port.name!r}, MMAction2's checkpoint of the same model"] if port else []
    advice.append("convert a copy that you have: uniformerv2 convert FILE FOLDER")
    return ", or ".join(advice)


@cache
def _zoo() -> dict[str, ModelCard]:
    """Name -> card, in the order of the table."""
    table = files("uniformerv2.zoo").joinpath("model_zoo.csv").read_text(encoding="utf-8")
    return {row["name"]: _read_card(row) for row in csv.DictReader(table.splitlines())}


def _read_card(row: dict[str, str]) -> ModelCard:
    """One line of the table, whose columns are the fields of ``ModelCard``."""
    hub = row.pop("huggingface_file")
    hints = get_type_hints(ModelCard)
    values = {name: _read_field(text, hints[name]) for name, text in row.items()}
    return ModelCard(**values, huggingface=(HUB_REPOSITORY, hub) if hub else None)


def _read_field(text: str, hint: Any) -> Any:
    """Of the type that the field has; an empty one is an unknown where that may be."""
    kinds = get_args(hint) or (hint,)
    if not text and type(None) in kinds:
        return None
    return next((kind for kind in (int, float) if kind in kinds), str)(text)
