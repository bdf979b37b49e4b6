"""The golden numbers of the published codes, read into our terms."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from uniformerv2.model.config import UniFormerV2Config


def tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a golden file whose name starts with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in load_file(path).items() if key.startswith(prefix)}


def official_state(path: Path) -> dict[str, Tensor]:
    """The published state dict of a tiny official model.

    The files were written after the training pass that gave ``train_loss``, which had moved the running statistics of
    the batch norms; the logits come from before it. Their values then follow the rule of the goldens' README.
    """
    state = tensors(path, "state.")
    for key in state:
        if key.rpartition(".")[2] in {"running_mean", "running_var"}:
            state[key] = generated(key, tuple(state[key].shape))
    return state


def generated(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a parameter by the rule of the goldens' README."""
    value = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    last = key.rpartition(".")[2]
    if last == "running_var":
        value = 0.5 + value * value
    elif last == "running_mean":
        value = 0.5 * value
    elif last in {"bias", "in_proj_bias"}:
        value = 0.02 * value
    elif last == "weight" and len(shape) == 1:
        value = 1 + 0.1 * value
    elif last in {"class_embedding", "positional_embedding", "temporal_cls_token"}:
        value = 0.1 * value
    elif last != "balance":
        value = value / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value)).float()


def official_fields(constructor: dict[str, Any]) -> dict[str, Any]:
    """Our configuration's fields, from the published constructor's arguments."""
    is_tubelet = constructor["temporal_downsample"]
    steps = 0 if constructor["no_lmhra"] else 2 if constructor["double_lmhra"] else 1
    return {
        "image_size": constructor["input_resolution"],
        "patch_size": constructor["patch_size"],
        "dim": constructor["width"],
        "depth": constructor["layers"],
        "num_heads": constructor["heads"],
        "num_classes": constructor.get("num_classes", 11),
        "num_frames": constructor["t_size"],
        "tubelet_size": 2 if is_tubelet else 1,
        "tubelet_kernel_size": constructor.get("kernel_size", 3) if is_tubelet else 1,
        "num_local_steps": steps,
        "local_reduction": constructor.get("dw_reduction", 1.5),
        "fusion_stages": tuple(constructor["return_list"]),
        "global_num_heads": constructor.get("n_head", constructor["heads"]),
        "global_mlp_ratio": constructor.get("mlp_factor", 4.0),
        "use_gate": not constructor.get("frozen", False),
        "global_dropout": (0.0,),
        "classifier_dropout": 0.0,
    }


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


FULL_SIZE: dict[str, dict[str, Any]] = {
    "b16_scene_8x224": {},
    "b16_temporal_16x224": {"tubelet_size": 2, "num_local_steps": 2, "fusion_stages": tuple(range(4, 12))},
    "l14_scene_8x224": {"patch_size": 14, "dim": 1024, "depth": 24, "num_heads": 16},
    "l14_336_scene_8x336": {"patch_size": 14, "dim": 1024, "depth": 24, "num_heads": 16},
}


def official_shapes(config: UniFormerV2Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, for the configuration of a full-size model."""
    dim, patch, hidden = config.dim, config.patch_size, int(config.dim // config.local_reduction)
    num_positions = 1 + config.grid[0] * config.grid[1]
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (dim, 3, config.tubelet_kernel_size, patch, patch),
        "class_embedding": (dim,),
        "positional_embedding": (num_positions, dim),
        "transformer.temporal_cls_token": (1, 1, dim),
        "transformer.balance": (dim,),
        "transformer.proj.2.weight": (config.num_classes, dim),
        "transformer.proj.2.bias": (config.num_classes,),
    }
    norms = ["ln_pre", "transformer.proj.0"]
    blocks = [f"transformer.resblocks.{index}" for index in range(config.depth)]
    stages = [f"transformer.dec.{index}" for index in range(len(config.fusion_stages))]
    for name in blocks + stages:
        norms += [f"{name}.ln_1", f"{name}.ln_2", *([f"{name}.ln_3"] if ".dec." in name else [])]
        shapes |= {f"{name}.attn.in_proj_weight": (3 * dim, dim), f"{name}.attn.in_proj_bias": (3 * dim,)}
        shapes |= {f"{name}.attn.out_proj.weight": (dim, dim), f"{name}.attn.out_proj.bias": (dim,)}
        shapes |= {f"{name}.mlp.c_fc.weight": (4 * dim, dim), f"{name}.mlp.c_fc.bias": (4 * dim,)}
        shapes |= {f"{name}.mlp.c_proj.weight": (dim, 4 * dim), f"{name}.mlp.c_proj.bias": (dim,)}
    for index in range(len(stages)):
        name = f"transformer.dpe.{index}"
        shapes |= {f"{name}.weight": (dim, 1, 3, 3, 3), f"{name}.bias": (dim,)}
    for name in [f"{block}.lmhra{step + 1}.pos_embed" for block in blocks for step in range(config.num_local_steps)]:
        norms.append(f"{name}.0")
        shapes |= {f"{name}.0.running_mean": (dim,), f"{name}.0.running_var": (dim,)}
        shapes |= {f"{name}.1.weight": (hidden, dim, 1, 1, 1), f"{name}.1.bias": (hidden,)}
        shapes |= {f"{name}.2.weight": (hidden, 1, 3, 1, 1), f"{name}.2.bias": (hidden,)}
        shapes |= {f"{name}.3.weight": (dim, hidden, 1, 1, 1), f"{name}.3.bias": (dim,)}
    for name in norms:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {f"backbone.{key}": shape for key, shape in shapes.items()}


def full_size_input(case: str, shape: tuple[int, ...]) -> Tensor:
    """The clip of a full-size case, [1, 3, T, R, R]."""
    seed = zlib.crc32(f"input.{case}".encode())
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()
