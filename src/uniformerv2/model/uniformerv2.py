"""UniFormerV2: an image ViT, armed for video.

Source:
    Li et al., UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer (2022),
    https://arxiv.org/abs/2211.09552. Defaults are those of the published B/16 on Kinetics.

Letters of this file: B videos, T frames, T' time steps (T / tubelet_size), H x W patches a frame, P prefix tokens a
frame, N = P + H * W tokens a frame, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from uniformerv2.model.blocks import (
    FeedForward,
    GlobalSpatialMHRA,
    GlobalUniBlock,
    LocalTemporalMHRA,
    LocalUniBlock,
    QuickGELU,
)
from uniformerv2.model.config import ActivationName, CheckpointInfo, UniFormerV2Config
from uniformerv2.model.embedding import ImagePositions, VideoEmbedding
from uniformerv2.model.fusion import FUSIONS, MultiStageFusion
from uniformerv2.model.residual import DropPath, Residual, recomputed
from uniformerv2.model.statistics import ChannelStandardization, TokenStatistics, norm_and_dropout, token_statistics

__all__ = ["ImageViT", "UniFormerV2", "block_drop_paths"]

TokenFormat = Literal["NTLC", "NLC", "NCTHW"]

ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class ImageViT(NamedTuple):
    """An image ViT, taken apart.

    ``embedding`` makes tokens; ``steps`` holds the attention and the feed-forward step of each block.
    """

    embedding: VideoEmbedding
    steps: Sequence[tuple[Residual, Residual]]


def block_drop_paths(config: UniFormerV2Config) -> list[DropPath]:
    """Stochastic depth of the steps of each block that work on [B, T, N, C]: rates linear in the depth."""
    own_dim = 0 if config.drop_path_per == "video" else 2
    return [DropPath(rate, own_dim) for rate in _rates(config.drop_path_rate, config.depth)]


def _noise(scale: float, *shape: int) -> Tensor:
    """Normal numbers; on the meta device none are drawn, as its arithmetic would import torch's compiler (a second)."""
    noise = torch.empty(shape)
    return noise if noise.is_meta else noise.normal_().mul_(scale)


def clip_vit(config: UniFormerV2Config) -> ImageViT:
    """CLIP's image ViT, the one the published models arm, with random weights."""
    kernel = (config.tubelet_kernel_size, config.patch_size, config.patch_size)
    num_patches = config.grid[0] * config.grid[1]
    scale = config.dim**-0.5
    embedding = VideoEmbedding(
        nn.Conv3d(3, config.dim, kernel, bias=False).weight.detach(),
        bias=None,
        stride=config.tubelet_size,
        prefix_tokens=_noise(scale, 1, config.dim),
        has_class_token=True,
        positions=ImagePositions(_noise(scale, 1 + num_patches, config.dim), config.grid),
        norm=nn.LayerNorm(config.dim),
    )
    activation = ACTIVATIONS[config.activation]
    steps = []
    for drop_path in block_drop_paths(config):
        attention = GlobalSpatialMHRA(config.dim, config.num_heads)
        ffn = FeedForward(config.dim, ratio=config.mlp_ratio, activation=activation)
        steps.append(
            (
                Residual(attention, nn.LayerNorm(config.dim), drop_path=drop_path),
                Residual(ffn, nn.LayerNorm(config.dim), drop_path=drop_path),
            )
        )
    return ImageViT(embedding, steps)


class UniFormerV2(nn.Module):
    """A video to class scores.

    Has timm's model interface (``forward_features``, ``forward_head``, ``forward_intermediates``,
    ``reset_classifier``, ``group_matcher``, ...).

    Args:
        config: The architecture.
        image_vit: The image ViT taken apart, where ``config.backbone`` names one; made by ``arm``.
        info: What travels with the weights.

    Raises:
        ValueError: ``config.backbone`` names an image ViT and none was given.
    """

    def __init__(
        self, config: UniFormerV2Config, *, image_vit: ImageViT | None = None, info: CheckpointInfo | None = None
    ) -> None:
        super().__init__()
        if image_vit is None:
            if config.backbone is not None:
                raise ValueError(f"Use uniformerv2.arm('{config.backbone}', ...): it builds the image ViT too.")
            image_vit = clip_vit(config)
        self.config = config
        self.info = info or CheckpointInfo()
        self.embedding = image_vit.embedding
        self.blocks = nn.ModuleList(
            LocalUniBlock(spatial, ffn, local=_local_steps(config), drop_path=DropPath(rate))
            for (spatial, ffn), rate in zip(image_vit.steps, _rates(config.drop_path_rate, config.depth), strict=True)
        )
        self.fusion: MultiStageFusion
        self.norm: nn.LayerNorm | ChannelStandardization
        self.statistics: TokenStatistics | None = None
        if config.fusion == "statistics":
            self.fusion = token_statistics(config, self.embedding)
            self.norm, self.head_drop = (
                ChannelStandardization(config.num_features),
                nn.Dropout(config.classifier_dropout),
            )
        else:
            self.fusion = FUSIONS[config.fusion](_global_blocks(config), config.dim)
            self.statistics = token_statistics(config, self.embedding) if config.statistics else None
            self.norm, self.head_drop = norm_and_dropout(config)
        self.fusion_gate = nn.Parameter(torch.zeros(config.dim)) if config.use_gate else None
        self.num_features = self.head_hidden_size = config.num_features
        self.head = nn.Linear(self.num_features, config.num_classes) if config.num_classes else nn.Identity()
        self.is_merged = False
        self._num_checkpointed = 0
        self._frozen: list[nn.Module] = []

    @property
    def num_classes(self) -> int:
        """Classes; 0 when there is no head."""
        return self.config.num_classes

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, 3, height, width] -> [B, num_classes]."""
        return self.forward_head(self.forward_features(video))

    def forward_features(self, video: Tensor) -> Tensor:
        """[B, T, 3, height, width] -> [B, C]: the fused video token, before the last norm; see ``num_features``."""
        return self._walk(video, keep=())[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, C] -> [B, num_classes], or the normed features [B, C] where ``pre_logits``."""
        x = self.norm(x)
        return x if pre_logits else self.head(self.head_drop(x))

    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: TokenFormat = "NTLC",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Tokens after some blocks, as timm's method of this name.

        Args:
            video: [B, T, 3, height, width].
            indices: Blocks, negative ones from the end; a number n means the last n; None means all.
            norm: Apply the network's last norm to the tokens.
            stop_early: Leave out the blocks after the last one of ``indices``; only with ``intermediates_only``.
            output_fmt: "NTLC" gives all tokens [B, T', N, C], a frame's prefix tokens first; "NLC" the same as one
                sequence [B, T' * N, C]; "NCTHW" the patches as maps [B, C, T', H, W], without prefix tokens.
            intermediates_only: Leave the features out.

        Returns:
            The tokens of each block asked for, in the order of the blocks; before them the features [B, C] unless
            ``intermediates_only``.

        Raises:
            IndexError: A block that is not there.
            ValueError: Another format, or ``stop_early`` without ``intermediates_only``.
        """
        if output_fmt not in get_args(TokenFormat):
            raise ValueError(f"output_fmt is 'NTLC', 'NLC' or 'NCTHW', got {output_fmt!r}.")
        if stop_early and not intermediates_only:
            raise ValueError("stop_early leaves blocks out that the features need: add intermediates_only=True.")
        depth = len(self.blocks)
        if isinstance(indices, int):
            if not 0 < indices <= depth:
                raise IndexError(f"The network has {depth} blocks, got the last {indices}.")
            indices = range(depth - indices, depth)
        wanted = range(depth) if indices is None else indices
        for index in wanted:
            if not -depth <= index < depth:
                raise IndexError(f"The network has blocks 0 to {depth - 1} (or -{depth} to -1), got {index}.")
        keep = {index % depth for index in wanted}
        num_blocks = max(keep, default=-1) + 1 if stop_early else depth
        features, kept = self._walk(video, keep=keep, fuse=not intermediates_only, num_blocks=num_blocks)
        grid = self.embedding.grid(video)
        tokens = [_in_format(self.norm(x) if norm else x, output_fmt, grid) for x in kept]
        return tokens if intermediates_only else (features, tokens)

    @property
    def read_blocks(self) -> tuple[int, ...]:
        """Blocks whose tokens are read by what lies above them: the fusion stages, and with a gate the last block."""
        stages, last = self.config.fusion_stages, len(self.blocks) - 1
        return stages if last in stages or self.fusion_gate is None else (*stages, last)

    def read_tokens(self, video: Tensor) -> list[Tensor]:
        """[B, T, 3, height, width] -> the tokens of each of ``read_blocks``, [B, T', N, C]."""
        return self._walk(video, keep=self.read_blocks, fuse=False)[1]

    @property
    def takes_frames_alone(self) -> bool:
        """Whether the blocks treat each frame alone, so that windows of a video may share its tokens."""
        return self.config.num_local_steps == 0 and self.config.tubelet_size == self.config.tubelet_kernel_size == 1

    def forward_tokens(self, tokens: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """What lies above the blocks: ``forward(video)`` is ``forward_tokens(read_tokens(video), grid)``.

        Args:
            tokens: Tokens of each of ``read_blocks``, [B, T', N, C].
            grid: Patches H, W.

        Returns:
            [B, num_classes].
        """
        return self.forward_head(self.fuse_tokens(tokens, grid))

    def fuse_tokens(self, tokens: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """The features of tokens: ``forward_features(video)`` is ``fuse_tokens(read_tokens(video), grid)``.

        Args:
            tokens: Tokens of each of ``read_blocks``, [B, T', N, C].
            grid: Patches H, W.

        Returns:
            [B, C].

        Raises:
            ValueError: Not as many as ``read_blocks``.
        """
        if len(tokens) != len(self.read_blocks):
            raise ValueError(f"The tokens of the blocks {self.read_blocks} are needed, got {len(tokens)} of them.")
        fused = self.fusion(tokens[: len(self.config.fusion_stages)], grid)
        return self._gate(fused, tokens[-1])

    def _walk(
        self, video: Tensor, keep: Collection[int], *, fuse: bool = True, num_blocks: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The features and the tokens of the blocks to keep; without ``fuse`` the features have no meaning."""
        grid = self.embedding.grid(video)
        x = self.embedding(video)
        kept: list[Tensor] = []
        fused = self.fusion.start(x.shape[0])
        for index, block in enumerate(self.blocks[:num_blocks]):
            recompute = self.training and index < self._num_checkpointed
            x = recomputed(block, x, grid) if recompute else block(x, grid)
            if index in keep:
                kept.append(x)
            if fuse and index in self.config.fusion_stages:
                fused = self.fusion.step(self.config.fusion_stages.index(index), fused, x, grid)
        return (self._gate(self.fusion.finish(fused), x) if fuse else x), kept

    def _gate(self, video_token: Tensor, x: Tensor) -> Tensor:
        """Mix the video token with what the image ViT would pool, w = sigmoid(gate) as published; statistics follow."""
        if self.fusion_gate is not None:
            weight = torch.sigmoid(self.fusion_gate)
            video_token = (1 - weight) * video_token + weight * self.embedding.pool(x)
        return video_token if self.statistics is None else self.statistics.after(video_token, x)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one with random weights.

        Args:
            num_classes: Classes of the new head; 0 leaves it out.
            global_pool: As in timm's method of this name; None is all that is allowed, as the video token pools.

        Raises:
            ValueError: ``global_pool`` is not None.
        """
        if global_pool is not None:
            raise ValueError(f"The video token pools, so global_pool must be None, got {global_pool!r}.")
        self.config = replace(self.config, num_classes=num_classes)
        self.info = replace(self.info, class_names=(), is_multi_label=False)
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.to(self.norm.weight.device, self.norm.weight.dtype)

    def no_weight_decay(self) -> set[str]:
        """Learnt tokens and positions; what else is free of weight decay is one-dimensional."""
        tokens = {"embedding.prefix_tokens", "embedding.positions", "fusion.video_token"}
        names = [name for name, _ in self.named_parameters()]
        return {name for name in names if name in tokens or name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that put the parameters in the order of the layers, for layer-wise rates.

        Args:
            coarse: Blocks as one group.
        """
        blocks = r"^blocks" if coarse else [(r"^blocks\.(\d+)", None), (r"^(?:fusion|norm|head)", (99999,))]
        return {"stem": r"^embedding", "blocks": blocks}

    def set_grad_checkpointing(self, enable: bool = True, *, num_blocks: int | None = None) -> None:
        """Recompute blocks in the backward pass instead of storing what is inside them.

        Args:
            enable: On or off.
            num_blocks: The first so many blocks; None means all.
        """
        self._num_checkpointed = (len(self.blocks) if num_blocks is None else num_blocks) if enable else 0

    def freeze_backbone(self) -> None:
        """Train the video blocks and the head only: the backbone gets no gradient and stays in eval mode."""
        self._frozen = [self.embedding]
        for block in self.blocks:
            self._frozen += [step for name, step in block.named_children() if name in {"spatial", "ffn"}]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def merge_linear(self) -> Self:
        """Make one of neighbouring linear maps, for inference: batch norm and ``value``, QuickGELU's factors and FFN.

        In place and for good: such a network is neither trained nor saved. ``Predictor`` merges what it loads.

        Returns:
            The network, in eval mode.
        """
        self.eval()
        for module in self.modules():
            if isinstance(module, LocalTemporalMHRA | FeedForward):
                module.merge_linear()
        self.is_merged = True
        return self

    def train(self, mode: bool = True) -> Self:
        """As ``torch.nn.Module.train``; a frozen backbone stays in eval mode.

        Raises:
            ValueError: Its linear maps are merged.
        """
        if mode and self.is_merged:
            raise ValueError("After merge_linear() a network has no batch norms and can't be trained: load it again.")
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def _in_format(x: Tensor, output_fmt: TokenFormat, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, T', N, C] in the format that ``forward_intermediates`` returns."""
    if output_fmt == "NCTHW":
        height, width = grid
        return x[:, :, x.shape[2] - height * width :].unflatten(2, grid).permute(0, 4, 1, 2, 3)
    return x.flatten(1, 2) if output_fmt == "NLC" else x


def _local_steps(config: UniFormerV2Config) -> tuple[LocalTemporalMHRA, ...]:
    return tuple(
        LocalTemporalMHRA(config.dim, reduction=config.local_reduction, kernel_size=config.local_kernel_size)
        for _ in range(config.num_local_steps)
    )


def _global_blocks(config: UniFormerV2Config) -> list[GlobalUniBlock]:
    own_dim = 0 if config.drop_path_per == "video" else 1
    rates = _rates(config.global_drop_path_rate, len(config.fusion_stages))
    return [
        GlobalUniBlock(
            config.dim,
            config.global_num_heads,
            ratio=config.global_mlp_ratio,
            dropout=dropout,
            drop_path=DropPath(rate, own_dim),
        )
        for dropout, rate in zip(config.global_dropout, rates, strict=True)
    ]


def _rates(last: float, count: int) -> list[float]:
    return [last * index / max(1, count - 1) for index in range(count)]
