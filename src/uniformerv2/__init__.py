"""UniFormerV2: turn a pretrained image ViT into a video network."""

from __future__ import annotations

__version__ = "0.1.0"
