"""An explanation as a folder: a page, a picture per frame, a video, the numbers as JSON and as arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from uniformerv2.core.files import staged_beside, write_text, write_whole
from uniformerv2.inference.explanations.explanation import FORMAT, Explanation
from uniformerv2.inference.explanations.page import write_explanation_page
from uniformerv2.inference.explanations.pictures import draw_overlays, write_overlay_video

__all__ = ["check_explanation_folder", "write_explanation"]

PAGE, NUMBERS, ARRAYS, VIDEO, PICTURES = (
    "explanation.html",
    "explanation.json",
    "explanation.npz",
    "explanation.mp4",
    "frames",
)
OWN_PICTURE: Final = re.compile(r"\d{3}_frame_\d{6,}\.png")
LARGEST_JSON: Final = 50_000_000
"""Bytes of a file that is read to see whether it is ours."""


def check_explanation_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an explanation, which would be replaced.

    Raises:
        ValueError: It does.
    """
    if folder.is_dir() and any(folder.iterdir()) and not _is_explanation(folder / NUMBERS):
        raise ValueError(
            f"{folder} holds something else than an explanation: give a folder that is empty or not there yet. Nothing "
            "in it was touched."
        )


def _is_explanation(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > LARGEST_JSON:
        return False
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def write_explanation(explanation: Explanation, folder: Path, *, frames: Sequence[Image.Image], model: str) -> None:
    """Write all files; an older explanation in the folder is replaced when the new one is whole.

    Args:
        explanation: Of a view.
        folder: See ``check_explanation_folder``.
        frames: Of the view, T pictures of one size, not cropped.
        model: What to call the model.

    Raises:
        ValueError: The folder holds something else.
        ModuleNotFoundError: Jinja2 is not installed.
    """
    check_explanation_folder(folder)
    overlays = draw_overlays(explanation, frames)
    with staged_beside(folder) as stage:
        write_text(stage / NUMBERS, explanation.to_json(maps=True) + "\n")
        write_whole(stage / ARRAYS, lambda temporary: _write_arrays(temporary, explanation))
        for place, (number, overlay) in enumerate(zip(explanation.view.frame_indices, overlays, strict=True)):
            path = stage / PICTURES / f"{place:03}_frame_{number:06}.png"
            write_whole(path, partial(overlay.shown.save, format="png"))
        write_overlay_video(stage / VIDEO, overlays)
        write_explanation_page(stage / PAGE, explanation, overlays, model=model)
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for old in (folder / PICTURES).iterdir():
            if OWN_PICTURE.fullmatch(old.name):
                old.unlink()
        for new in sorted(path for path in stage.rglob("*") if path.is_file()):
            new.replace(folder / new.relative_to(stage))


def _write_arrays(path: Path, explanation: Explanation) -> None:
    names = ("map", "weights", "relevance", "prefix_weights", "prefix_relevance", "video_weights")
    with path.open("wb") as file:  # numpy would put .npz behind the name
        np.savez_compressed(file, allow_pickle=False, **{name: getattr(explanation, name) for name in names})
