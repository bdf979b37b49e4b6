"""The ``model`` section of a recipe: a network with weights to start from, in a ``VideoClassifier``."""

from __future__ import annotations

from typing import Any

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.module import VideoClassifier
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.runs import random_network

__all__ = ["ShardedVideoClassifier", "build_classifier", "build_network", "shard", "whole_network"]


def shard(network: UniFormerV2, mesh: DeviceMesh) -> None:
    """Make each local and each global UniBlock a unit, and one more of the rest; in place.

    Only the parameters of the unit at work are whole; the others lie in parts on the processes.

    Args:
        network: Not yet sharded.
        mesh: The processes, one-dimensional.
    """
    for block in (*network.blocks, *network.fusion.stages):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


class ShardedVideoClassifier(VideoClassifier):
    """A ``VideoClassifier`` for ``ModelParallelStrategy``; a class of its own because Lightning warns of this hook."""

    def configure_model(self) -> None:
        """Shard the network over the data-parallel processes, once.

        Raises:
            ValueError: Another strategy.
        """
        if self.device_mesh is None:
            raise ValueError("sharded=True needs trainer.strategy: ModelParallelStrategy, which says over what.")
        if not isinstance(self.network, FSDPModule):
            shard(self.network, self.device_mesh["data_parallel"])


def build_classifier(
    network: UniFormerV2Config | None = None,
    *,
    weights: str | None = None,
    head_map: str | None = None,
    new_head: bool = False,
    freeze_backbone: bool = False,
    sharded: bool = False,
    **training: Any,
) -> VideoClassifier:
    """What a recipe's ``model`` section says.

    Args:
        network: The architecture; None takes that of the weights.
        weights: What training starts from: all that ``load_model`` takes, or the image tower of CLIP, to which the
            the video blocks are added at random. None is random altogether.
        head_map: Rows of the weights' head to keep, such as "kinetics710_to_kinetics400".
        new_head: Replace the weights' head by a random one of ``network.num_classes`` rows.
        freeze_backbone: The backbone does not learn.
        sharded: For Lightning's ``ModelParallelStrategy``: shard the parameters over the processes (FSDP2).
        **training: What ``VideoClassifier`` takes beside the network.

    Returns:
        The classifier, in training mode.

    Raises:
        ValueError: Neither a network nor weights, or arguments that contradict each other.
    """
    built = build_network(network, weights=weights, head_map=head_map, new_head=new_head)
    if freeze_backbone:
        built.freeze_backbone()
    if sharded:
        return ShardedVideoClassifier(built, **training)
    return VideoClassifier(built, **training)


def build_network(
    network: UniFormerV2Config | None, *, weights: str | None, head_map: str | None = None, new_head: bool = False
) -> UniFormerV2:
    """The first arguments of ``build_classifier`` -> the network.

    Raises:
        ValueError: As ``build_classifier``.
    """
    if weights is None:
        if network is None:
            raise ValueError("Give the network's architecture, or weights that bring one.")
        if head_map is not None or new_head:
            raise ValueError("head_map and new_head are about the head of weights, and none are given.")
        return random_network(network)
    fields = {} if network is None else network.to_dict()
    num_classes = fields.pop("num_classes", None)
    return load_model(weights, num_classes=num_classes, head_map=head_map, new_head=new_head, **fields)


def whole_network(network: UniFormerV2) -> UniFormerV2:
    """The network itself, or where it is sharded a whole copy on the CPU; to be called in every process.

    Args:
        network: Sharded or not.

    Returns:
        In process 0 a network to be saved; in the others, of a sharded one, a copy without meaning.
    """
    if not isinstance(network, FSDPModule):
        return network
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    whole = random_network(network.config, network.info)
    whole.load_state_dict(state, strict=bool(state))  # gathered in process 0 alone
    return whole
