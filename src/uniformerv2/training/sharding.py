"""Parameters sharded over processes: PyTorch's FSDP2 through Lightning's ``ModelParallelStrategy``.

Source:
    ``torch.distributed.fsdp.fully_shard``, https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.module import VideoClassifier

__all__ = ["ShardedVideoClassifier", "shard"]


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
