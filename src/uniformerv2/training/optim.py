"""What AdamW is told: which parameter decays, how fast each layer learns, the rate of every step.

Source:
    The recipes of Li et al., UniFormerV2 (2022), https://github.com/OpenGVLab/UniFormerV2, which train with PySlowFast,
    https://github.com/facebookresearch/SlowFast. Layer-wise decay: Bao et al., BEiT (2021),
    https://arxiv.org/abs/2106.08254.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from uniformerv2.model.uniformerv2 import UniFormerV2

__all__ = ["Optimization", "SchedulePlace", "parameter_groups", "rate_scales", "regroup"]

CLASS_TOKEN = "embedding.prefix_tokens"
"""One-dimensional in the published code, where it belongs to one token; here [P, C]."""

IMAGE_VIT = re.compile(r"embedding\.|blocks\.\d+\.(?:spatial|ffn)\.")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW with a warm-up and half a cosine; defaults are those of the published B/16 on Kinetics-400.

    Args:
        learning_rate: Highest rate, at a global batch of ``batch_size``.
        batch_size: Videos of the global batch that all rates here are meant for; they are multiplied by the real one
            (videos a device x devices x accumulated batches) divided by this. None takes them as they are.
        warmup_start_rate: Rate of the first step.
        end_rate: Rate the cosine falls to.
        warmup_epochs: Epochs from the first rate to the highest, linear in the steps.
        weight_decay: Decay of all parameters except one-dimensional ones, BatchNorm and the class token.
        decay_tokens: Decay of the learnt positions and of the video token too, as published.
        layer_decay: Rate of a layer divided by that of the one above it; 1 is the published one.
        video_blocks_scale: Rate of the video blocks and the head divided by the backbone's.
        betas: Of AdamW.

    Raises:
        ValueError: A field outside its range; the message names what is allowed.
    """

    learning_rate: float = 1e-5
    batch_size: int | None = 256
    warmup_start_rate: float = 1e-6
    end_rate: float = 1e-6
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    decay_tokens: bool = True
    layer_decay: float = 1.0
    video_blocks_scale: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be 0 or more, and finite, got {value}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 video, or None, got {self.batch_size}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay lies above 0 and up to 1 (none), got {self.layer_decay}.")

    def batch_factor(self, global_batch_size: int) -> float:
        """What all rates are multiplied by.

        Args:
            global_batch_size: Videos of one optimiser step, over all devices and accumulated batches.
        """
        return 1.0 if self.batch_size is None else global_batch_size / self.batch_size

    def rate(self, epoch: float, num_epochs: float) -> float:
        """The published rate at a fractional epoch, before ``batch_factor``: linear warm-up, then half a cosine.

        ::

            learning_rate            .--.
                                   /      `.
            warmup_start_rate    /           `-.__   end_rate, also after it
                                0  warmup_epochs  num_epochs

        Args:
            epoch: Epochs done, for instance 2.5 in the middle of the third.
            num_epochs: Epochs of the whole training.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_start_rate + (self.learning_rate - self.warmup_start_rate) * epoch / self.warmup_epochs
        if epoch >= num_epochs:
            return self.end_rate
        progress = (epoch - self.warmup_epochs) / (num_epochs - self.warmup_epochs)
        return self.end_rate + (self.learning_rate - self.end_rate) * (math.cos(math.pi * progress) + 1) / 2


class SchedulePlace:
    """Where on its curve the rate of a step is; a training that is to end earlier goes through the rest more quickly.

    ::

        place  0 . . . . 4 . . . 8 (the end)           step 0 1 2 3 4 . 6     ``end_at(6, now=4)``

    >>> place = SchedulePlace(8)
    >>> place.end_at(6, now=4)
    >>> [place.at(step) for step in (4, 5, 6)]
    [4.0, 6.0, 8.0]

    Args:
        num_steps: Of the whole curve.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._step, self._place, self._speed = 0, 0.0, 1.0

    def at(self, step: int) -> float:
        """In steps of the curve; they are those of the training where it was never changed."""
        return self._place + self._speed * (step - self._step)

    def end_at(self, last: int, *, now: int) -> None:
        """Go from where it is to the end of the curve by a step after this one.

        Args:
            last: That step.
            now: Steps that are done.
        """
        self._place = self.at(now)
        self._step, self._speed = now, (self.num_steps - self._place) / (last - now)

    def state_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"step": self._step, "place": self._place, "speed": self._speed}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """What ``state_dict`` gave."""
        self._step, self._place, self._speed = int(state["step"]), float(state["place"]), float(state["speed"])


def parameter_groups(network: UniFormerV2, optimization: Optimization) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by what the optimiser does to them.

    Args:
        network: Frozen parameters are left out.
        optimization: Decides the groups.

    Returns:
        Groups for a ``torch.optim`` optimiser, each with ``params``, ``param_names``, ``lr`` and ``weight_decay``;
        lowest rate first.

    Raises:
        ValueError: Nothing is trainable.
    """
    free = _free_of_decay(network, decay_tokens=optimization.decay_tokens)
    scales = rate_scales(
        network, layer_decay=optimization.layer_decay, video_blocks_scale=optimization.video_blocks_scale
    )
    members: defaultdict[tuple[float, float], dict[str, nn.Parameter]] = defaultdict(dict)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in free else optimization.weight_decay
            members[scales[name], decay][name] = parameter
    if not members:
        raise ValueError("No parameter of the network is trainable.")
    return [
        {
            "params": list(members[scale, decay].values()),
            "param_names": list(members[scale, decay]),
            "lr": optimization.learning_rate * scale,
            "weight_decay": decay,
        }
        for scale, decay in sorted(members)
    ]


def regroup(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """A saved optimiser in the groups of now, which may be others: rates and decay decide which parameters share one.

    To be registered with ``register_load_state_dict_pre_hook``. The values of a group are not to be relied on.

    Args:
        optimizer: Made with ``parameter_groups``.
        state_dict: Saved from such a one.

    Returns:
        The same states; None where there are no numbers to sort: PyTorch's sharded checkpoints go by names.

    Raises:
        ValueError: Other parameters were trained.
    """
    saved = state_dict["param_groups"]
    if not all("param_names" in group and isinstance(group["params"][0], int) for group in saved):
        return None
    numbers = {
        name: number for group in saved for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    groups = [{**saved[0], "param_names": group["param_names"]} for group in optimizer.param_groups]
    now = {name for group in groups for name in group["param_names"]}
    if changed := now ^ set(numbers):
        raise ValueError(
            f"The checkpoint trained other parameters: {len(numbers)}, now {len(now)}; different is for instance "
            f"{min(changed)}. Go on with the model.freeze_backbone and the model.network of before, or start anew "
            "from its weights."
        )
    for group in groups:
        group["params"] = [numbers[name] for name in group["param_names"]]
    return {**state_dict, "param_groups": groups}


def rate_scales(
    network: UniFormerV2, *, layer_decay: float = 1.0, video_blocks_scale: float = 1.0
) -> Mapping[str, float]:
    """What the learning rate of each parameter is multiplied by.

    Layers are those of ``network.group_matcher()``: the embedding and each block, the last one with all above it.

    Args:
        network: Whose parameters.
        layer_decay: From a layer to the one below it.
        video_blocks_scale: For parameters that the image ViT did not have.

    Returns:
        Name of the parameter -> factor.
    """
    layers = group_parameters(network, network.group_matcher(), reverse=True)
    top = max(layers.values())
    return {
        name: layer_decay ** (top - layer) * (1.0 if IMAGE_VIT.match(name) else video_blocks_scale)
        for name, layer in layers.items()
    }


def _free_of_decay(network: UniFormerV2, *, decay_tokens: bool) -> set[str]:
    free = {name for name, parameter in network.named_parameters() if parameter.ndim <= 1}
    return free | {CLASS_TOKEN} | (set() if decay_tokens else network.no_weight_decay())
