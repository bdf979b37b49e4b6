"""Clips that come with the package: an export is proved on them, and the page of a service offers them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from uniformerv2.core.messages import UsageError

__all__ = ["bundled_clips"]

PACKAGE: Final = Path(__file__).resolve().parents[1]
CLIPS: Final = (PACKAGE / "clips", PACKAGE.parents[1] / "examples")
"""Where they are: in an installed package, in a clone."""


def bundled_clips() -> tuple[Path, ...]:
    """Real clips that come with the package.

    Raises:
        UsageError: They are not there.
    """
    found = next((clips for folder in CLIPS if (clips := tuple(sorted(folder.glob("*.mp4"))))), ())
    if not found:
        raise UsageError("The bundled clips are absent: give videos to verify on (--verify VIDEO).")
    return found
