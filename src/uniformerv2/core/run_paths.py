"""Where a training keeps its files; every room may ask."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from uniformerv2.core.files import lock_folder, refuse_held

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
    def config(self) -> Path:
        """What ``fit`` was told, as Lightning saves it."""
        return self.path / "config.yaml"

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
        return self.path / "scores.pkl"

    @property
    def report(self) -> Path:
        """The folder of the page on the final test."""
        return self.path / "report"

    def held(self) -> AbstractContextManager[None]:
        """The folder for this process alone, until the end of a ``with`` statement; see ``lock_folder``."""
        return lock_folder(self.path, what="A training")

    def refuse_held(self) -> None:
        """Make sure that no other process trains in it now.

        Raises:
            FolderInUseError: One does.
        """
        refuse_held(self.path, what="A training")
