"""A network as one graph: normalisation, merged linear maps, positions as constants, logits and scores.

Letters of this file: V views, T frames, h x w pixels, H x W patches, K classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.embedding import VideoEmbedding
from uniformerv2.model.image_vits import RelativeAttention
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.ops import functional as ops
from uniformerv2.ops.dispatch import set_impl
from uniformerv2.zoo.exported import ExportedNetwork

__all__ = ["ExportableNetwork", "trace"]


class ExportableNetwork(nn.Module):
    """The contract of every exported network as a module; see ``zoo.exported``.

    Args:
        model: Copied; on the CPU, in float32.
        contract: What it promises.
    """

    def __init__(self, model: UniFormerV2, contract: ExportedNetwork) -> None:
        super().__init__()
        preprocessing = contract.preprocessing
        self.model = copy.deepcopy(model).cpu().float().merge_linear()
        _make_plain(self.model, preprocessing)
        self.is_multi_label = contract.info.is_multi_label
        self.mean, self.std = (
            nn.Buffer(torch.tensor(colours).mul_(255).view(3, 1, 1))
            for colours in (preprocessing.mean, preprocessing.std)
        )

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Views [V, T, 3, h, w], 0 to 255 -> logits and scores [V, K]."""
        logits = self.model((video.to(torch.float32) - self.mean) / self.std)
        return logits, logits.sigmoid() if self.is_multi_label else logits.softmax(dim=-1)


def trace(network: ExportableNetwork, contract: ExportedNetwork) -> torch.export.ExportedProgram:
    """The graph, with a free number of views.

    Args:
        network: In eval mode.
        contract: What it promises.
    """
    kind = contract.input_type
    shape = [int(size) for size in kind.shape[1:]]
    video = torch.zeros(2, *shape, dtype=getattr(torch, kind.dtype))  # sizes 0 and 1 would be taken for constants
    with torch.no_grad(), set_impl("torch"):
        return torch.export.export(network.eval(), (video,), dynamic_shapes={"video": {0: torch.export.Dim("views")}})


class _Rotations(nn.Module):
    """timm's rotary positions for one grid, as constants.

    Args:
        rope: timm's module.
        grid: H, W.
    """

    def __init__(self, rope: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.feat_shape = grid
        self.values = nn.Buffer(rope.get_embed(shape=list(grid)).detach().clone())  # type: ignore[operator]

    def get_embed(self) -> Tensor:
        """Sines and cosines of each patch."""
        return self.values


def _make_plain(model: UniFormerV2, preprocessing: Preprocessing) -> None:
    """Interpolate learnt positions and compute rotary ones here, for the frames of the preprocessing alone.

    In a graph they would be computed anew for each view, and antialiased interpolation is wrong in some exporters.
    """
    height, width = preprocessing.input_size
    with torch.no_grad():
        embedding: VideoEmbedding = model.embedding
        grid = embedding.grid(torch.zeros(1, preprocessing.num_frames, 3, height, width))
        if embedding.positions is not None and embedding.native_grid is not None:
            positions = ops.interpolate_positions(embedding.positions, embedding.native_grid, grid)
            embedding.positions, embedding.native_grid = nn.Parameter(positions), grid
        for module in list(model.modules()):
            rope = getattr(module, "rope", None)
            if isinstance(rope, nn.Module) and hasattr(rope, "get_embed"):
                module.rope = _Rotations(rope, grid)
            if isinstance(module, RelativeAttention):
                module.attn.fused_attn = False  # the exporter takes the fused form with a bias for another layout
