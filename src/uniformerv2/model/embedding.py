"""From pixels to tokens: tubelet embedding, prefix tokens, positions.

Source:
    Dosovitskiy et al., An Image is Worth 16x16 Words (2020), https://arxiv.org/abs/2010.11929; tubelets and their
    initialisation from image weights as in Arnab et al., ViViT (2021), https://arxiv.org/abs/2103.15691.

Letters of this file: B videos, T frames, T' time steps, H x W patches a frame, P prefix tokens a frame, N = P + H * W,
C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uniformerv2.ops import functional as ops

__all__ = ["ImagePositions", "VideoEmbedding", "inflate"]


def inflate(image_weight: Tensor, kernel_size: int) -> Tensor:
    """Weights of a tubelet embedding that sees the centre frame only, from those of an image's patch embedding.

    Args:
        image_weight: [C, 3, p, p].
        kernel_size: Frames of a tubelet; odd.

    Returns:
        [C, 3, kernel_size, p, p].
    """
    weight = image_weight.new_zeros(*image_weight.shape[:2], kernel_size, *image_weight.shape[2:])
    weight[:, :, kernel_size // 2] = image_weight
    return weight


@dataclass(frozen=True)
class ImagePositions:
    """Where a learnt position embedding comes from.

    Args:
        embedding: [H * W, C], or [P + H * W, C] where prefix tokens have positions too.
        grid: H, W.
    """

    embedding: Tensor
    grid: tuple[int, int]


class VideoEmbedding(nn.Module):
    """A video to tokens, frame by frame or tubelet by tubelet.

    Args:
        weight: Tubelet weights [C, 3, kernel, p, p]; kernel odd.
        bias: [C] or none.
        stride: Frames from one tubelet to the next.
        prefix_tokens: Learnt tokens put before the patches of every frame [P, C]; P may be 0.
        has_class_token: The first of them is the class token; else all are registers.
        positions: Learnt positions, or none (rotary and relative positions live in the attention).
        norm: Norm of the tokens before the first block, or none.
    """

    def __init__(
        self,
        weight: Tensor,
        *,
        bias: Tensor | None,
        stride: int,
        prefix_tokens: Tensor,
        has_class_token: bool,
        positions: ImagePositions | None,
        norm: nn.Module | None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.prefix_tokens = nn.Parameter(prefix_tokens)
        self.has_class_token = has_class_token
        self.positions = None if positions is None else nn.Parameter(positions.embedding)
        self.native_grid = None if positions is None else positions.grid
        self.norm = norm or nn.Identity()

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens P before the patches of a frame."""
        return self.prefix_tokens.shape[0]

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, 3, height, width] -> [B, T', N, C]."""
        grid = self.grid(video)
        tokens = ops.tubelets(video, self.weight, self.bias, self.stride)
        prefix = self.prefix_tokens.to(tokens.dtype).expand(*tokens.shape[:2], -1, -1)
        if self.positions is None or self.native_grid is None:
            return self.norm(torch.cat([prefix, tokens], dim=2))
        positions = ops.interpolate_positions(self.positions, self.native_grid, grid).to(tokens.dtype)
        of_prefix, of_patches = positions.tensor_split([positions.shape[0] - grid[0] * grid[1]])
        if of_prefix.shape[0]:
            prefix = prefix + of_prefix
        return self.norm(torch.cat([prefix, tokens + of_patches], dim=2))

    def pool(self, x: Tensor) -> Tensor:
        """What an image ViT pools: the class token, or without one the patches' mean; [B, T', N, C] -> [B, C]."""
        return x[:, :, 0].mean(dim=1) if self.has_class_token else x[:, :, self.num_prefix_tokens :].mean(dim=(1, 2))

    def grid(self, video: Tensor) -> tuple[int, int]:
        """Patches H, W of a frame.

        Args:
            video: [B, T, 3, height, width].

        Raises:
            ValueError: Not a batch of videos, not floating-point, or a size that tubelets do not tile; the message
                names what to do, or the nearest size.
        """
        colours = self.weight.shape[1]
        if video.ndim != 5 or video.shape[2] != colours:
            way = "A batch in the order [B, C, T, H, W] becomes one by video.transpose(1, 2)."
            if video.ndim == 4:
                way = "The batch dimension is missing: video.unsqueeze(0) makes a batch of one video [T, C, H, W]."
            raise ValueError(f"A batch of videos is [B, T, {colours}, height, width], got {tuple(video.shape)}. {way}")
        if not video.is_floating_point():
            raise ValueError(
                f"The network takes normalised floating-point pixels, got {video.dtype}. "
                "Preprocessing.normalize(video) makes them from pixels of 0 to 255; Predictor does it itself."
            )
        patch = self.weight.shape[-2:]
        wanted = (self.stride, *patch)
        for name, size, step in zip(
            ("frames", "rows", "columns"), (video.shape[1], *video.shape[-2:]), wanted, strict=True
        ):
            if size % step or size == 0:
                nearest = max(step, round(size / step) * step)
                raise ValueError(f"{name} must be a multiple of {step}, got {size}; the nearest is {nearest}.")
        return video.shape[-2] // patch[0], video.shape[-1] // patch[1]
