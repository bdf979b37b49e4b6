"""``uniformerv2 train``: choose, plan, estimate, run.

from uniformerv2.autotrain import train

outcome = train("videos", epochs=5)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uniformerv2.autotrain.plan import TrainOptions
    from uniformerv2.autotrain.probe import ClipStatistics, Probe, ProbeResult
    from uniformerv2.autotrain.probe_features import clip_statistics
    from uniformerv2.autotrain.session import Outcome, Prepared, prepare, train

__all__ = [
    "ClipStatistics",
    "Outcome",
    "Prepared",
    "Probe",
    "ProbeResult",
    "TrainOptions",
    "clip_statistics",
    "prepare",
    "train",
]

MODULES: Final = {
    "TrainOptions": "plan",
    "clip_statistics": "probe_features",
    **dict.fromkeys(("ClipStatistics", "Probe", "ProbeResult"), "probe"),
}
"""Where a name stands; all others in ``session``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'uniformerv2.autotrain' has no attribute '{name}'")
    return getattr(import_module(f"uniformerv2.autotrain.{MODULES.get(name, 'session')}"), name)
