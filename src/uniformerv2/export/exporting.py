"""``export_model``: a checkpoint as a file for another runtime, proved on real videos before it gets its name."""

from __future__ import annotations

import copy
import importlib.metadata
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from torch import Tensor
from torch.export import ExportedProgram

from uniformerv2.core.bundled import bundled_clips
from uniformerv2.core.files import check_room, staged_beside, write_text
from uniformerv2.core.messages import UsageError
from uniformerv2.core.optional import check_installed
from uniformerv2.data.named_videos import read_test_videos
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.export.calibration import Accuracy, calibration_views, measure_accuracy
from uniformerv2.export.graph import ExportableNetwork, trace
from uniformerv2.export.int8 import write_int8
from uniformerv2.export.onnx_file import check_size, to_onnx, write_onnx
from uniformerv2.export.openvino_folder import write_openvino
from uniformerv2.export.portable_folder import write_portable
from uniformerv2.export.pt2_file import write_pt2
from uniformerv2.export.verification import Verification, verify
from uniformerv2.inference.engines import EngineName, load_network
from uniformerv2.inference.scoring import weights_digest
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.checkpoint import load_model
from uniformerv2.zoo.exported import METADATA_FILE, ONNX_FILE, ExportedNetwork, ExportPrecision, metadata_beside
from uniformerv2.zoo.files import to_json

__all__ = ["ExportReport", "Format", "contract_of", "export_model", "write_files"]

Format = Literal["onnx", "openvino", "portable", "pt2"]
PACKAGES: Final = ("uniformerv2", "torch", "timm", "onnx", "onnxscript", "openvino")
"""Whose versions travel with an exported network."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported.

    Attributes:
        path: The file, or the folder.
        format: As asked for.
        network: What travels with it.
        num_bytes: Of the file or of the files of the folder.
        checkpoint_bytes: Of the checkpoint's tensors.
        verification: None where it was not verified.
        accuracy: On the videos of ``calibrate``, where they have labels.
    """

    path: Path
    format: Format
    network: ExportedNetwork
    num_bytes: int
    checkpoint_bytes: int
    verification: Verification | None
    accuracy: Accuracy | None


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What there is to know about a format.

    Attributes:
        suffix: Of the file; empty where it is a folder.
        engine: What proves it.
        precisions: What it can hold.
        packages: What must be installed, with the extra.
        why_no_more: Why it holds no other precision, and what to take instead.
    """

    suffix: str
    engine: EngineName
    precisions: tuple[ExportPrecision, ...]
    packages: Mapping[str, str]
    why_no_more: str = ""


def export_model(
    model: UniFormerV2 | str | Path,
    out: str | Path,
    *,
    format: Format = "onnx",
    precision: ExportPrecision = "fp32",
    calibrate: str | Path | None = None,
    verify_on: Sequence[str | Path] | Literal[False] | None = None,
    replaces: bool = False,
    **overrides: Any,
) -> ExportReport:
    """Export a network.

    Args:
        model: What ``load_model`` takes, or a network, which stays as it is.
        out: The file, or for some formats the folder; its folder is made where it does not exist.
        format: "onnx"; "pt2" (a file of torch.export, for C++); or a folder, "openvino" or "portable" (an ONNX file and
            what runs it without PyTorch).
        precision: "fp16" keeps the weights in float16 and computes in float32; "int8" computes linear maps in 8-bit
            integers.
        calibrate: A list or folder of videos like those to come: the scales of "int8" are measured on them, and the
            accuracy of both networks. None: each view has scales of its own.
        verify_on: Videos on which the scores must be those of the checkpoint; None: the bundled clips. False: none.
        replaces: Whether what is at ``out`` is replaced.
        **overrides: See ``load_model``.

    Returns:
        What was written, and how it compares.

    Raises:
        UsageError: What cannot be exported so; nothing was written.
        VerificationError: The file gives other scores; it is not kept.
        DiskFullError: There is no room for it.
        ModuleNotFoundError: What writes the format is not installed.
    """
    kind, out = _checked(out, format, precision, replaces=replaces)
    if calibrate is not None and precision != "int8":
        raise UsageError(f"Videos to calibrate on are for precision 'int8', got {precision!r}: leave them out.")
    if (format, precision, calibrate) == ("openvino", "int8", None):
        raise UsageError("OpenVINO is fast in 8 bits where the scales are known beforehand: add --calibrate DATA.")
    records = () if calibrate is None else read_test_videos(calibrate, split="all").records
    videos = bundled_clips() if verify_on is None else tuple(verify_on or ())
    network = copy.deepcopy(model) if isinstance(model, UniFormerV2) else load_model(model, **overrides)
    num_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if format != "pt2":
        check_size(num_bytes // 2 if precision == "fp16" else num_bytes)
    check_room(out, 2 * num_bytes, what="The exported network")
    contract = contract_of(network, out, precision=precision, is_calibrated=calibrate is not None)
    with staged_beside(out) as stage:
        folder = stage / "made"
        folder.mkdir()
        program = trace(ExportableNetwork(network, contract), contract)
        views = None if calibrate is None else calibration_views(records, contract.preprocessing)
        write_files(program, contract, folder, format=format, views=views)
        made = folder if not kind.suffix else folder / f"model{kind.suffix}"
        network.info, found, accuracy = contract.info, None, None
        network.merge_linear()
        if videos:
            found = verify(network, made, videos, precision=precision, engine=kind.engine)
        if calibrate is not None:
            accuracy = measure_accuracy(calibrate, load_network(made), network, engine=kind.engine)
        _put_in_place(made, out, stage)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return ExportReport(
        path=out,
        format=format,
        network=contract,
        num_bytes=sum(path.stat().st_size for path in files),
        checkpoint_bytes=num_bytes,
        verification=found,
        accuracy=accuracy,
    )


def _checked(out: str | Path, format: str, precision: str, *, replaces: bool) -> tuple[_Kind, Path]:
    """The format and where it goes.

    Raises:
        UsageError: It cannot be written there so.
    """
    out = Path(out)
    for name, value, allowed in (("format", format, Format), ("precision", precision, ExportPrecision)):
        if value not in get_args(allowed):
            raise UsageError(f"{name} is {' or '.join(map(repr, get_args(allowed)))}, got {value!r}.")
    kind = KINDS[format]
    if precision not in kind.precisions:
        raise UsageError(
            f"The format {format} holds {' or '.join(kind.precisions)}, got precision {precision!r}.{kind.why_no_more}"
        )
    for package, extra in kind.packages.items():
        check_installed(package, extra=extra)
    if out.suffix != kind.suffix:
        wanted = f"a file that ends with {kind.suffix}" if kind.suffix else "a folder, whose name has no suffix"
        raise UsageError(f"The format {format} writes {wanted}, got {out}.")
    for path in (out, *([metadata_beside(out)] if kind.suffix else [])):
        if path.exists() and not replaces:
            raise UsageError(f"{path} exists already: choose another name, or add --force (replaces=True).")
    if out.is_dir() != (not kind.suffix) and out.exists():
        raise UsageError(f"{out} is {'a folder' if out.is_dir() else 'a file'}: choose another name.")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UsageError(f"{out} cannot be written, as {above} cannot be written: choose another place.")
    return kind, out


def contract_of(
    network: UniFormerV2, out: Path, *, precision: ExportPrecision = "fp32", is_calibrated: bool = False
) -> ExportedNetwork:
    """What an exported network promises.

    Args:
        network: The checkpoint's, before its linear maps are merged.
        out: Where it will be.
        precision: See ``export_model``.
        is_calibrated: See ``ExportedNetwork``.

    Raises:
        UsageError: The network has no head, or takes no such input.
    """
    if not network.num_classes:
        raise UsageError("The network has no head, and an exported network gives scores: give one with classes.")
    size = {"num_frames": network.config.num_frames, "image_size": network.config.image_size}
    preprocessing = Preprocessing.from_dict({**size, **network.info.preprocessing})
    versions = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return ExportedNetwork(
        path=out,
        format="onnx",
        precision=precision,
        is_calibrated=is_calibrated,
        num_classes=network.num_classes,
        info=replace(network.info, preprocessing=preprocessing.to_dict(), versions=versions),
        weights_digest=weights_digest(network),
    )


def _put_in_place(made: Path, out: Path, stage: Path) -> None:
    """Give what was made its name; the metadata of a file lie beside it."""
    if not made.is_dir():
        (made.parent / METADATA_FILE).replace(metadata_beside(out))
    elif out.exists():
        out.replace(stage / "before")
    made.replace(out)


def write_files(
    program: ExportedProgram,
    contract: ExportedNetwork,
    folder: Path,
    *,
    format: Format,
    views: Iterable[Tensor] | None = None,
) -> None:
    """Write the network of a format into a folder, and its metadata beside it.

    Args:
        program: The graph.
        contract: What travels with it.
        folder: Exists.
        format: See ``export_model``.
        views: To calibrate 8-bit integers on; see ``write_int8``.
    """
    write_text(folder / METADATA_FILE, to_json(contract.to_dict()))
    if format == "pt2":
        write_pt2(program, contract, folder / "model.pt2")
        return
    onnx_file = folder / ONNX_FILE
    graph = to_onnx(program)
    if contract.precision == "int8":
        write_int8(graph, contract, onnx_file, views=views)
    else:
        write_onnx(graph, contract, onnx_file, is_half=contract.precision == "fp16")
    if format == "openvino":
        write_openvino(onnx_file, contract, folder)
        onnx_file.unlink()
    elif format == "portable":
        write_portable(contract, folder)


_ONNX: Final = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}
_ALL: Final = ("fp32", "fp16", "int8")
KINDS: Final[Mapping[str, _Kind]] = {
    "onnx": _Kind(suffix=".onnx", engine="onnxruntime", precisions=_ALL, packages=_ONNX),
    "portable": _Kind(suffix="", engine="onnxruntime", precisions=_ALL, packages=_ONNX),
    "openvino": _Kind(
        suffix="",
        engine="openvino",
        precisions=("fp32", "int8"),
        packages={**_ONNX, "openvino": "openvino"},
        why_no_more=" With weights that OpenVINO rounds to float16 scores of the demo model moved by 0.19, and 0.01 is "
        "allowed: format 'onnx' in fp16 is half as large too, and OpenVINO computes it (engine='openvino').",
    ),
    "pt2": _Kind(
        suffix=".pt2",
        engine="torch",
        precisions=("fp32",),
        packages={},
        why_no_more=" The compiler that reads it chooses precisions; format 'onnx' has the others.",
    ),
}
"""Format -> what there is to know about it."""
