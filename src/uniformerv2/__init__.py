"""UniFormerV2: turn a pretrained image ViT into a video network.

The public face. Names are imported when they are first used, so that ``import uniformerv2`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniformerv2.data.transforms import Preprocessing
    from uniformerv2.export.exporting import export_model
    from uniformerv2.inference.prediction import Prediction
    from uniformerv2.inference.predictor import Predictor
    from uniformerv2.media.decoding import VideoError, open_video
    from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
    from uniformerv2.model.summary import ModelSummary, summarize
    from uniformerv2.model.uniformerv2 import UniFormerV2
    from uniformerv2.zoo.arming import arm
    from uniformerv2.zoo.cards import ModelCard, list_models, model_card
    from uniformerv2.zoo.checkpoint import create_model, from_pretrained, load_model, push_to_hub, save_model

__version__ = "0.1.0"

_HOME = {
    "CheckpointInfo": "model.config",
    "ModelCard": "zoo.cards",
    "ModelSummary": "model.summary",
    "Prediction": "inference.prediction",
    "Predictor": "inference.predictor",
    "Preprocessing": "data.transforms",
    "UniFormerV2": "model.uniformerv2",
    "UniFormerV2Config": "model.config",
    "VideoError": "media.decoding",
    "arm": "zoo.arming",
    "create_model": "zoo.checkpoint",
    "export_model": "export.exporting",
    "from_pretrained": "zoo.checkpoint",
    "list_models": "zoo.cards",
    "load_model": "zoo.checkpoint",
    "model_card": "zoo.cards",
    "open_video": "media.decoding",
    "push_to_hub": "zoo.checkpoint",
    "save_model": "zoo.checkpoint",
    "summarize": "model.summary",
}

__all__ = [
    "CheckpointInfo",
    "ModelCard",
    "ModelSummary",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "UniFormerV2",
    "UniFormerV2Config",
    "VideoError",
    "__version__",
    "arm",
    "create_model",
    "export_model",
    "from_pretrained",
    "list_models",
    "load_model",
    "model_card",
    "open_video",
    "push_to_hub",
    "save_model",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'uniformerv2' has no attribute '{name}'")
    return getattr(import_module(f"uniformerv2.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
