"""What the network does with windows: shared frames go through the backbone once, or each window is taken whole.

Letters of this file: W windows, F frames, T frames of a window, V crops of a frame, S read blocks, N tokens of a frame,
C channels, h x w of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

import torch
from torch import Tensor

from uniformerv2.inference.predictor import Predictor

__all__ = ["NETWORKS", "SharedFrames", "Way", "WholeWindows", "WindowNetwork"]

Way = Literal["shared frames", "whole windows"]


class WindowNetwork(Protocol):
    """What a frame becomes, and what windows of such frames say."""

    def take(self, pixels: Tensor) -> Sequence[Any]:
        """[F, V, C, h, w], 0 to 255 -> what is kept of each of the F frames."""
        ...

    def compute(self, windows: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor | None]:
        """T kept frames of each window -> logits [W, V, num_classes] and normed features [W, V, C], in float32."""
        ...


class SharedFrames:
    """Keeps the tokens of the read blocks."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.patches = (0, 0)

    @torch.inference_mode()
    def take(self, pixels: Tensor) -> Sequence[Any]:
        """See ``WindowNetwork``: S tokens [V, 1, N, C] of each frame."""
        video = self.predictor.network_input(pixels.transpose(0, 1))
        self.patches = self.predictor.model.embedding.grid(video)
        with self.predictor.autocast():
            tokens = self.predictor.model.read_tokens(video)
        return list(zip(*(block.split(1, dim=1) for block in tokens), strict=True))

    @torch.inference_mode()
    def compute(self, windows: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor | None]:
        """See ``WindowNetwork``."""
        blocks = range(len(windows[0][0]))
        tokens = [torch.cat([torch.cat([frame[s] for frame in frames], dim=1) for frames in windows]) for s in blocks]
        with self.predictor.autocast():
            fused = self.predictor.model.fuse_tokens(tokens, self.patches)
        return _said(self.predictor, fused, len(windows))


class WholeWindows:
    """Keeps the pixels."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def take(self, pixels: Tensor) -> Sequence[Any]:
        """See ``WindowNetwork``: [V, C, h, w] of each frame."""
        return pixels.unbind()

    @torch.inference_mode()
    def compute(self, windows: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor | None]:
        """See ``WindowNetwork``."""
        pixels = torch.cat([torch.stack(list(frames), dim=1) for frames in windows])
        if self.predictor.is_exported:
            return self.predictor.logits(pixels).unflatten(0, (len(windows), -1)), None
        with self.predictor.autocast():
            fused = self.predictor.model.forward_features(self.predictor.network_input(pixels))
        return _said(self.predictor, fused, len(windows))


NETWORKS: Final[dict[Way, Callable[[Predictor], WindowNetwork]]] = {
    "shared frames": SharedFrames,
    "whole windows": WholeWindows,
}


def _said(predictor: Predictor, fused: Tensor, num_windows: int) -> tuple[Tensor, Tensor]:
    """Fused features [W * V, C] -> logits [W, V, num_classes], normed features [W, V, C]."""
    with predictor.autocast():
        logits = predictor.model.forward_head(fused)
        features = predictor.model.forward_head(fused, pre_logits=True)
    return (
        logits.float().cpu().unflatten(0, (num_windows, -1)),
        features.float().cpu().unflatten(0, (num_windows, -1)),
    )
