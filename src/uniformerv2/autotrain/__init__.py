"""``uniformerv2 train``: choose, plan, estimate, run.

from uniformerv2.autotrain import train

outcome = train("videos", epochs=5)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniformerv2.autotrain.plan import TrainOptions
    from uniformerv2.autotrain.session import Outcome, Prepared, prepare, train

__all__ = ["Outcome", "Prepared", "TrainOptions", "prepare", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'uniformerv2.autotrain' has no attribute '{name}'")
    return getattr(import_module(f"uniformerv2.autotrain.{'plan' if name == 'TrainOptions' else 'session'}"), name)
