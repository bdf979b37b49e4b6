"""The portable folder: an ONNX file with what runs it, for machines without PyTorch and without this package."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Final

from uniformerv2.core.files import write_text
from uniformerv2.core.messages import first_few
from uniformerv2.zoo.exported import ExportedNetwork

__all__ = ["write_portable"]

SOURCES: Final = Path(__file__).resolve().parent / "portable"
NEEDS: Final = ("numpy", "av", "onnxruntime")


def write_portable(contract: ExportedNetwork, folder: Path) -> None:
    """Add to ``model.onnx`` and ``model.json`` what predicts with them.

    Args:
        contract: Of the network.
        folder: Where the two are.
    """
    import jinja2

    write_text(folder / "predict.py", (SOURCES / "predict.py").read_text("utf-8"))
    pins = [f"{package}=={importlib.metadata.version(package)}" for package in NEEDS]
    write_text(folder / "requirements.txt", "\n".join(pins) + "\n")
    words = (SOURCES / "README.md").read_text("utf-8")
    template = jinja2.Environment(keep_trailing_newline=True).from_string(words)  # Markdown: nothing to escape
    video, info = contract.input_type, contract.info
    names = info.class_names or tuple(map(str, range(contract.num_classes)))
    text = template.render(
        name=info.source,
        num_classes=contract.num_classes,
        classes=first_few(names),
        shape=", ".join(map(str, video.shape)),
        dtype=video.dtype,
        kind="sigmoids, as a video may have several classes" if info.is_multi_label else "probabilities",
        licence=info.licence,
        source=info.source,
    )
    write_text(folder / "README.md", text)
