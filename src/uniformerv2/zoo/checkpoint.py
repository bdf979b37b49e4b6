"""Checkpoints: a network with the preprocessing and the class names it was trained for. Load, save, create.

Our format is a folder: ``model.safetensors``, and ``config.json`` with the architecture and everything else that must
travel with the weights (preprocessing, class names, licence, source, metrics, versions). This is where ``model`` and
``data`` meet, which do not import each other.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from uniformerv2.core.files import check_room, write_text
from uniformerv2.data.labels import label_map, label_names
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
from uniformerv2.model.embedding import inflate
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.cards import ModelCard, fetch_weights, model_card
from uniformerv2.zoo.convert import CLIP_FORMATS, Converted, convert
from uniformerv2.zoo.exported import is_exported
from uniformerv2.zoo.files import naming, read_checkpoint, read_json, to_json, write_tensors
from uniformerv2.zoo.hub import fetch_folder_from_hub
from uniformerv2.zoo.runs import filled_network, is_of_training, model_folder, network_of_training

__all__ = ["create_model", "from_pretrained", "load_model", "push_to_hub", "save_model"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB_PREFIX = "hf:"
IMAGE_VIT = ("embedding.", "blocks.")
logger = logging.getLogger(__name__)


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> UniFormerV2:
    """A model of the zoo.

    Args:
        name: One of ``list_models()``.
        pretrained: With the published weights; else with random ones. Where ``num_classes`` is another number than
            the published one, the head is random, and a warning says so.
        **overrides: Fields of ``UniFormerV2Config``; with ``pretrained`` all that ``load_model`` takes.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: No such model; the message names the nearest.

    Examples:
        >>> create_model("uniformerv2_b16_k400_8x224", num_classes=6).num_classes
        6
    """
    card = model_card(name)
    if pretrained:
        has_other_head = overrides.get("num_classes") not in {None, card.config["num_classes"]}
        return load_model(name, **{"new_head": has_other_head and "head_map" not in overrides, **overrides})
    config = UniFormerV2Config.from_dict({**card.config, **overrides})
    info = CheckpointInfo(preprocessing=_card_preprocessing(card, config), class_names=_class_names(card, config))
    return UniFormerV2(config, info=info).eval()


def load_model(
    source: str | Path,
    /,
    *,
    num_classes: int | None = None,
    head_map: str | Sequence[int] | None = None,
    new_head: bool = False,
    **overrides: Any,
) -> UniFormerV2:
    """A model from our folder, a file of any published format, the zoo, or the Hugging Face hub.

    Files are recognised by the names of their tensors. Their architecture is read from shapes; what shapes do not
    tell (heads where a head has not 64 channels, frames, which layers are fused) is an override.

    Args:
        source: A folder that ``save_model`` wrote, or that of a training; a checkpoint file (official, MMAction2,
            CLIP, or ``checkpoints/*.ckpt`` of a training); a name of ``list_models()``; ``"hf:user/repository"``.
        num_classes: Check that the head has as many rows; with ``new_head``, the rows of the new one.
        head_map: Rows of the head to keep, in order: numbers, or a name such as "kinetics710_to_kinetics400".
        new_head: Replace the head by a random one of ``num_classes`` rows.
        **overrides: Fields of ``UniFormerV2Config``, for instance ``num_frames=8``. With another ``image_size`` learnt
            positions are interpolated. Where the architecture is known (our folder, the zoo) the fields of the clip
            and the rates of training alone may change; of a foreign file all may, for instance ``num_heads=4``.

    Returns:
        The model, in eval mode, float32, on the CPU.

    Raises:
        FileNotFoundError: Neither a file nor a folder nor a name of the zoo.
        ValueError: The format is unknown, tensors are missing, unknown or of another shape, or the head does not fit.
    """
    model = _load(source, overrides)
    if head_map is not None:
        _map_head(model, head_map)
    if new_head:
        if num_classes is None:
            raise ValueError("new_head=True needs num_classes, the rows of the new head.")
        if model.num_classes:
            logger.warning("The head of %d classes is replaced by a random one of %d.", model.num_classes, num_classes)
        model.reset_classifier(num_classes)
    elif num_classes is not None and num_classes != model.num_classes:
        raise ValueError(
            f"The head has {model.num_classes} classes, num_classes is {num_classes}: choose rows with head_map=, or "
            "replace the head by a random one with new_head=True."
        )
    return model.eval()


def save_model(model: UniFormerV2, folder: str | Path) -> Path:
    """Write a model in our format; what was in the folder under the same names is replaced.

    Args:
        model: With everything that shall travel in ``model.info``.
        folder: Made where it does not exist.

    Returns:
        The folder.

    Raises:
        ValueError: Its linear maps are merged.
        DiskFullError: The disk has no room for it.
    """
    if model.is_merged:
        raise ValueError("After merge_linear() a network has no batch norms and can't be saved: save it before.")
    folder = Path(folder)
    tensors = model.state_dict()
    check_room(folder, sum(tensor.nbytes for tensor in tensors.values()), what="The model")
    info = asdict(model.info)
    info["preprocessing"] = _explicit(model.info.preprocessing, model.config)
    info["versions"] = {name: version(name) for name in ("uniformerv2", "torch", "timm")}
    config = to_json({"format": "uniformerv2", "model": model.config.to_dict(), **info})  # fails before it writes
    write_tensors(folder / WEIGHTS, tensors)
    write_text(folder / CONFIG, config)
    return folder


def from_pretrained(
    repository: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    **overrides: Any,
) -> UniFormerV2:
    """A model that ``push_to_hub`` put on the Hugging Face hub: ``load_model("hf:" + repository)``.

    Args:
        repository: ``user/name``.
        revision: Branch, tag or commit; the newest state of the main branch where None.
        token: Access token; the one stored by ``hf auth login`` where None.
        cache_dir: Folder instead of the hub's own cache (``HF_HOME``).
        **overrides: As for ``load_model``.

    Returns:
        The model, in eval mode.

    Raises:
        DownloadError: It could not be fetched.
        ValueError: As ``load_model``.
    """
    wanted = (CONFIG, WEIGHTS)
    folder = fetch_folder_from_hub(repository, wanted, revision=revision, token=token, cache_dir=cache_dir)
    return load_model(folder, **overrides)


def push_to_hub(model: UniFormerV2, repository: str, *, private: bool = False, token: str | None = None) -> str:
    """Put a model on the Hugging Face hub, in our format; ``load_model("hf:" + repository)`` reads it.

    Args:
        model: With everything that shall travel in ``model.info``.
        repository: ``user/name``; made where it does not exist.
        private: Whether a new repository is private.
        token: The one stored by ``hf auth login`` where None.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    hub.create_repo(repository, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload with uniformerv2")
    return str(commit.commit_url)


def _load(source: str | Path, overrides: Mapping[str, Any]) -> UniFormerV2:
    if str(source).startswith(HUB_PREFIX):
        folder = fetch_folder_from_hub(str(source).removeprefix(HUB_PREFIX), (CONFIG, WEIGHTS))
        return _load_folder(folder, overrides)
    path = Path(source)
    if is_exported(path):
        raise ValueError(
            f"{path} is exported, for Predictor, predict and test alone: give the checkpoint that it was made from."
        )
    if path.is_dir():
        return _load_folder(model_folder(path), overrides)
    if path.is_file():
        if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
            return _load_folder(path.parent, overrides)
        return _load_file(path, overrides)
    if "/" in str(source) or path.suffix:
        raise FileNotFoundError(
            f"There is no file or folder {path}; a hub repository is written '{HUB_PREFIX}user/name'."
        )
    card = model_card(str(source))
    return _load_card(card, overrides)


def _load_folder(folder: Path, overrides: Mapping[str, Any]) -> UniFormerV2:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no model folder: {name} is absent.")
    content = read_json(folder / CONFIG)
    if content.get("format") != "uniformerv2" or "model" not in content:
        raise ValueError(f"{folder / CONFIG} was not written by uniformerv2.")
    with naming(folder / CONFIG):
        stored = UniFormerV2Config.from_dict(content["model"])
        config = stored.overridden(overrides)
        info = CheckpointInfo.from_dict({"source": "unknown", **content})
        if info.class_names and len(info.class_names) != config.num_classes:
            raise ValueError(f"class_names has {len(info.class_names)} names, the head {config.num_classes} classes.")
        size = {name: overrides[name] for name in ("num_frames", "image_size") if name in overrides}
        info = replace(info, preprocessing=_explicit({**info.preprocessing, **size}, config))
    return filled_network(config, info, read_checkpoint(folder / WEIGHTS), folder, grid=stored.grid)


def _load_file(path: Path, overrides: Mapping[str, Any]) -> UniFormerV2:
    content = read_checkpoint(path)
    if is_of_training(content):
        if overrides:
            raise ValueError(
                f"{path} is of a training, which says what its network is: leave out {', '.join(overrides)}."
            )
        return network_of_training(path, content, load=load_model)
    with naming(path):
        converted = convert(content)
        if converted.format == "native":
            raise ValueError(
                f"These are tensors of our own network without its {CONFIG}, which says how they are used: give the "
                "folder of save_model, which holds both, or create the network and call its load_state_dict."
            )
        stored = UniFormerV2Config.from_dict(converted.config)
        # Both attentions of every published network have as many heads.
        heads = {"global_num_heads": overrides["num_heads"]} if "num_heads" in overrides else {}
        config = UniFormerV2Config.from_dict({**converted.config, **heads, **overrides})
    assumed = [f"{name}={getattr(config, name)}" for name in converted.undetermined if name not in overrides]
    if assumed:
        logger.warning("%s does not tell, so assumed: %s. Override what is wrong.", path.name, ", ".join(assumed))
    if converted.dropped:
        logger.info("%s: not needed and left out: %s.", path.name, ", ".join(converted.dropped))
    info = CheckpointInfo(preprocessing=_file_preprocessing(converted, config), source=path.name)
    return _fill_converted(config, info, converted, path, grid=stored.grid)


def _load_card(card: ModelCard, overrides: Mapping[str, Any]) -> UniFormerV2:
    path = fetch_weights(card)
    stored = UniFormerV2Config.from_dict(card.config)
    config = stored.overridden(overrides)
    metrics = (
        {} if card.top1 is None else {"published_top1": card.top1, "published_top5": card.top5, "views": card.views}
    )
    info = CheckpointInfo(
        preprocessing=_card_preprocessing(card, config),
        class_names=_class_names(card, config),
        licence=card.licence,
        source=card.url,
        metrics=metrics,
    )
    with naming(path):
        converted = convert(read_checkpoint(path))
    return _fill_converted(config, info, converted, path, grid=stored.grid)


def _fill_converted(
    config: UniFormerV2Config, info: CheckpointInfo, converted: Converted, path: Path, *, grid: tuple[int, int]
) -> UniFormerV2:
    """Fill a model from a foreign file; an image tower leaves the video blocks as they were made."""
    if converted.format not in CLIP_FORMATS:
        return filled_network(config, info, converted.state, path, grid=grid)
    state = dict(converted.state)
    state["embedding.weight"] = inflate(state["embedding.weight"].squeeze(2), config.tubelet_kernel_size)
    logger.warning("%s holds an image ViT: %s are random.", path.name, ", ".join(converted.absent))
    fresh = UniFormerV2(config).state_dict()
    video_blocks = {key: value for key, value in fresh.items() if ".local." in key or not key.startswith(IMAGE_VIT)}
    return filled_network(config, info, {**video_blocks, **state}, path, grid=grid)


def _map_head(model: UniFormerV2, head_map: str | Sequence[int]) -> None:
    """Keep the rows of the head that a label map picks.

    Raises:
        ValueError: There is no head.
    """
    rows, names = _rows_of(head_map, model)
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ValueError("head_map picks rows of a head, but this model has none.")
    weight, bias = head.weight.detach()[rows], head.bias.detach()[rows]
    model.reset_classifier(len(rows))
    model.head.load_state_dict({"weight": weight, "bias": bias})
    model.info = replace(model.info, class_names=names)


def _rows_of(head_map: str | Sequence[int], model: UniFormerV2) -> tuple[list[int], tuple[str, ...]]:
    """The rows that a head map picks, and the names of their classes where known.

    Raises:
        ValueError: No such map, or rows that the head does not have.
    """
    if not isinstance(head_map, str):
        rows = [int(row) for row in head_map]
        if not rows or min(rows) < 0 or max(rows) >= model.num_classes:
            raise ValueError(f"head_map picks rows 0 to {model.num_classes - 1}, got {head_map!r}.")
        return rows, tuple(model.info.class_names[row] for row in rows) if model.info.class_names else ()
    source, _, target = head_map.partition("_to_")
    if not target:
        raise ValueError(f"A head map is called SOURCE_to_TARGET, as kinetics710_to_kinetics400, got {head_map!r}.")
    size = len(label_names(source))
    if model.num_classes != size:
        raise ValueError(f"{head_map} is for a head of {size} classes, this one has {model.num_classes}.")
    return list(label_map(source, target)), label_names(target)


def _explicit(preprocessing: Mapping[str, Any], config: UniFormerV2Config) -> dict[str, Any]:
    """Every field of the preprocessing, so that a file says all of it and no default of ours can change it."""
    size = {"num_frames": config.num_frames, "image_size": config.image_size}
    return Preprocessing.from_dict({**size, **preprocessing}).to_dict()


def _file_preprocessing(converted: Converted, config: UniFormerV2Config) -> dict[str, Any]:
    protocol = "mmaction2" if converted.format == "mmaction2" else "official"
    scaled = {name: tuple(value / 255 for value in values) for name, values in converted.preprocessing.items()}
    return _explicit({"protocol": protocol, **scaled}, config)


def _card_preprocessing(card: ModelCard, config: UniFormerV2Config) -> dict[str, Any]:
    size = {"num_frames": config.num_frames, "image_size": config.image_size}
    return _explicit({**card.preprocessing, **size}, config)


def _class_names(card: ModelCard, config: UniFormerV2Config) -> tuple[str, ...]:
    names = tuple(label_names(card.labels)) if card.labels else ()
    return names if len(names) == config.num_classes else ()
