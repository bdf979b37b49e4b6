"""The networks of a training: its folder, and the ``.ckpt`` files that Lightning writes while it runs.

``uniformerv2 train`` notes what its network is made of in ``run.json``, ``uniformerv2 fit`` in ``config.yaml``; both
write the result into ``model``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from uniformerv2.core.messages import first_few
from uniformerv2.core.run_paths import RunPaths
from uniformerv2.data.annotations.text_lists import named_classes
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.ops.functional import interpolate_positions
from uniformerv2.zoo.files import is_finite, naming, read_json

__all__ = [
    "SAVED_NAMES",
    "SAVED_NETWORK",
    "SAVED_SETTINGS",
    "fill",
    "filled_network",
    "is_of_training",
    "model_folder",
    "network_of_training",
    "random_network",
]

CONFIG: Final = "config.json"
POSITIONS: Final = "embedding.positions"
FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
SAVED_NAMES: Final = "class_names"
"""Where a checkpoint of a training keeps the names of the classes, in the order of the head."""
SAVED_NETWORK: Final = "uniformerv2_network"
"""Where it keeps the architecture and what travels with the weights, so that it can be loaded alone."""
SAVED_SETTINGS: Final = "uniformerv2_settings"
"""Where it keeps the arguments of its ``VideoClassifier``."""


def random_network(config: UniFormerV2Config, info: CheckpointInfo | None = None) -> UniFormerV2:
    """A network with random weights, armed or not, from its configuration."""
    if config.backbone is None:
        return UniFormerV2(config, info=info)
    from uniformerv2.zoo.arming import rebuild  # brings timm, which takes longer to import than a prediction

    return rebuild(config, info)


def filled_network(
    config: UniFormerV2Config,
    info: CheckpointInfo,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    grid: tuple[int, int] | None = None,
) -> UniFormerV2:
    """A network with exactly these tensors, whose positions are interpolated where its frames have another size.

    Args:
        config: The architecture.
        info: What travels with the weights.
        state: The tensors.
        path: Where they come from, for messages.
        grid: Patches H, W that the positions of ``state`` are for; those of the configuration where None.

    Raises:
        ValueError: Tensors are missing, unknown, of another shape or kind, or hold what is no finite number; or the
            architecture can't be built.
    """
    with naming(path):
        if grid and POSITIONS in state:
            state = {**state, POSITIONS: _at_grid(state[POSITIONS], grid, config)}
        with torch.device("meta"):  # shapes are compared before memory for them is asked for
            _check_fits(random_network(config, info).state_dict(), state)
        network = random_network(config, info)
    fill(network, state, path)
    return network


def fill(network: UniFormerV2, state: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network.

    Args:
        network: Changed in place.
        state: Its tensors by name.
        path: Where they come from, for messages.

    Raises:
        ValueError: They do not fit, or hold what is no finite number.
    """
    with naming(path):
        _check_fits(network.state_dict(), state)
    network.load_state_dict(state)
    for name, tensor in network.state_dict().items():
        if not is_finite(tensor):
            raise ValueError(f"{path}: {name} holds what is no finite number (NaN or infinite): the file is damaged.")


def _check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Whether a state dict is that of a network.

    Raises:
        ValueError: It is not; the message names ten tensors.
    """
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unknown {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(value.shape)}, the configuration needs {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems += [
        f"{key} holds {str(value.dtype).removeprefix('torch.')}, no {'floats' if is_float else 'whole numbers'}"
        for key, value in state.items()
        if key in own and value.dtype not in (FLOATS if (is_float := own[key].is_floating_point()) else {torch.int64})
    ]
    if problems:
        shown = first_few(problems, separator="; ")
        raise ValueError(f"The weights do not fit the configuration: {shown}.")


def _at_grid(positions: Tensor, grid: tuple[int, int], config: UniFormerV2Config) -> Tensor:
    """The positions of a published architecture for the frames of ``config``; an armed image ViT does it as it runs.

    Raises:
        ValueError: The new size is not of whole patches.
    """
    if config.backbone is not None or config.grid == grid or positions.ndim != 2:
        return positions
    for side in (config.image_size,) if isinstance(config.image_size, int) else config.image_size:
        if side % config.patch_size:
            nearest = round(side / config.patch_size) * config.patch_size
            raise ValueError(f"image_size must be a multiple of {config.patch_size}, got {side}; near is {nearest}.")
    return interpolate_positions(positions, grid, config.grid)


def model_folder(folder: Path) -> Path:
    """The folder of the result where a training wrote this one, else the folder itself.

    Raises:
        ValueError: The training is not finished.
    """
    run = RunPaths(folder)
    if (folder / CONFIG).is_file():
        return folder
    if (run.model / CONFIG).is_file():
        return run.model
    if run.record.is_file() or run.config.is_file() or run.checkpoints.is_dir():
        raise ValueError(
            f"The training in {folder} is not finished: continue it (train --resume, fit --ckpt_path last), or take "
            f"what it has so far, {run.best if run.best.is_file() else run.last}."
        )
    return folder


def is_of_training(content: Mapping[str, Any]) -> bool:
    """Whether Lightning wrote this checkpoint."""
    return "pytorch-lightning_version" in content


def network_of_training(path: Path, content: Mapping[str, Any], *, load: Callable[..., UniFormerV2]) -> UniFormerV2:
    """The network of ``OUT/checkpoints/x.ckpt``, of which ``OUT`` says what it is made of; else the file itself.

    Args:
        path: The file.
        content: What it holds.
        load: ``load_model``, for a configuration that names weights instead of an architecture.

    Raises:
        ValueError: Neither says it, or the weights do not fit.
    """
    run = RunPaths(path.resolve().parent.parent)
    state = content.get("state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no checkpoint of a training: its state_dict is no mapping of names to tensors.")
    own = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    if run.record.is_file():
        network = filled_network(*_of_run(run), own, path)
    elif run.config.is_file():
        network = _of_config(run.config, load, own, path)
    elif SAVED_NETWORK in content:
        network = filled_network(*_of_file(path, content[SAVED_NETWORK]), own, path)
    else:
        raise ValueError(
            f"{path} holds weights alone; what the network is made of stands in run.json or config.yaml of the folder "
            f"above, and {run.path} has neither. Give the model folder of the training, or put the file back."
        )
    if content.get(SAVED_NAMES):
        network.info = replace(network.info, class_names=tuple(content[SAVED_NAMES]))
    return network


def _of_run(run: RunPaths) -> tuple[UniFormerV2Config, CheckpointInfo]:
    """What ``uniformerv2 train`` noted.

    Raises:
        ValueError: It noted something else.
    """
    content = read_json(run.record)
    try:
        plan, info = content["plan"], CheckpointInfo.from_dict(content["info"])
        fields = {name: plan[name] for name in ("num_frames", "image_size", "num_clips", "num_crops")}
        preprocessing = Preprocessing.from_dict({**info.preprocessing, **fields}).to_dict()
        info = replace(info, preprocessing=preprocessing, class_names=tuple(plan["class_names"]))
        return UniFormerV2Config.from_dict(content["network"]), info
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.record} was not written by uniformerv2 train: {error!r}.") from error


def _of_file(path: Path, saved: Any) -> tuple[UniFormerV2Config, CheckpointInfo]:
    """What ``VideoClassifier`` put into its checkpoint.

    Raises:
        ValueError: It is something else.
    """
    with naming(path):
        info = {**saved["info"], "class_names": list(saved["info"].get("class_names", ()))}
        return UniFormerV2Config.from_dict(saved["config"]), CheckpointInfo.from_dict(info)


def _of_config(path: Path, load: Callable[..., UniFormerV2], state: Mapping[str, Tensor], source: Path) -> UniFormerV2:
    """With these tensors, of what ``uniformerv2 fit`` noted.

    Raises:
        ValueError: It noted something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        model, data = content["model"], content["data"]
        if model.get("network"):
            config = UniFormerV2Config.from_dict(model["network"])
            network = filled_network(config, CheckpointInfo(), state, source)
        else:
            network = load(model["weights"], head_map=model.get("head_map"))
            fill(network, state, source)
        names = named_classes(data["classes"]) if data.get("classes") else ()
        network.info = replace(network.info, preprocessing=data["preprocessing"], class_names=names)
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} was not written by uniformerv2 fit: {error!r}.") from error
    return network
