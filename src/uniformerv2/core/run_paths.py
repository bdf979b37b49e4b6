"""Where a training keeps its files; every room may ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunPaths"]


@dataclass(frozen=True)
class RunPaths:
    """The names of a run's files.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """The plan and the architecture."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of ``best`` and ``last``."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Highest validation accuracy."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Last epoch or step."""
        return self.checkpoints / "last.ckpt"

    @property
    def features(self) -> Path:
        """The folder of cached features, where the user names no other."""
        return self.path / "features"

    @property
    def model(self) -> Path:
        """The folder of the result."""
        return self.path / "model"

    @property
    def scores(self) -> Path:
        """The dump of the final test."""
        return self.path / "scores.jsonl"

    @property
    def report(self) -> Path:
        """The folder of the page on the final test."""
        return self.path / "report"
