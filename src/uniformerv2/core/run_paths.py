"""Where a training keeps its files; every room may ask."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from uniformerv2.core.files import lock_folder, refuse_held

__all__ = ["RunPaths"]


class RunPaths:
    """The names of a run's files.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
        record: The plan and the architecture.
        config: What ``fit`` was told, as Lightning saves it.
        checkpoints: The folder of ``best`` and ``last``.
        best: Highest validation accuracy.
        last: Last epoch or step.
        features: The folder of cached features, where the user names no other.
        model: The folder of the result.
        probe: The folder of the probe's network.
        network: The folder of the trained network, where the probe is better and so the result.
        scores: The dump of the final test.
        report: The folder of the page on the final test.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.features = path / "features"
        self.model = path / "model"
        self.probe = path / "probe"
        self.network = path / "network"
        self.scores = path / "scores.pkl"
        self.report = path / "report"

    @property
    def has_finished_probe(self) -> bool:
        """Whether ``train --probe`` has written its model there; it leaves no checkpoints."""
        if not (self.record.is_file() and (self.model / "config.json").is_file()):
            return False
        try:
            return bool(json.loads(self.record.read_text(encoding="utf-8"))["plan"].get("probe"))
        except (ValueError, LookupError, AttributeError):
            return False

    def held(self) -> AbstractContextManager[None]:
        """The folder for this process alone, until the end of a ``with`` statement; see ``lock_folder``."""
        return lock_folder(self.path, what="A training")

    def refuse_held(self) -> None:
        """Make sure that no other process trains in it now.

        Raises:
            FolderInUseError: One does.
        """
        refuse_held(self.path, what="A training")
