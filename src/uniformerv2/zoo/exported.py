"""Exported networks: what ``uniformerv2 export`` writes, recognised and checked without computing any of it.

::

    model.onnx   ONNX                           (model.onnx.json beside it)
    folder/      OpenVINO: model.xml, model.bin, model.json
    model.pt2    torch.export                   (model.pt2.json beside it)
    folder/      portable: model.onnx, model.json, predict.py, ...

The contract of each of them: the input ``video`` is views [V, T, 3, h, w] as they leave resize and crop, 0 to 255,
uint8 where the protocol rounds, else float32; V is free. The normalisation is inside. The outputs are ``logits`` and
``scores`` [V, K], softmax of the logits, or sigmoid where a video may have several classes. The same JSON lies inside
of the file and beside it, where tools that cannot read the file's own find it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args
from xml.etree import ElementTree

from uniformerv2.core.limits import check_items, get_limits, read_bytes
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.files import naming
from uniformerv2.zoo.onnx_header import TensorType, read_onnx_header
from uniformerv2.zoo.pt2_graph import read_pt2_header

__all__ = [
    "CONTRACT",
    "INPUT",
    "LOGITS",
    "METADATA_FILE",
    "METADATA_KEY",
    "ONNX_FILE",
    "OPENVINO_FILE",
    "SCORES",
    "ExportFormat",
    "ExportPrecision",
    "ExportedNetwork",
    "find_exported",
    "is_exported",
    "metadata_beside",
]

ExportFormat = Literal["onnx", "openvino", "pt2"]
ExportPrecision = Literal["fp32", "fp16", "int8"]

CONTRACT: Final = "uniformerv2-exported"
VERSION: Final = 1
METADATA_KEY: Final = "uniformerv2"
"""Under which a file has the JSON inside."""
METADATA_FILE: Final = "model.json"
"""In a folder."""
INPUT, LOGITS, SCORES = "video", "logits", "scores"
ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"
OPENVINO_TYPES: Final = {"f32": "float32", "u8": "uint8"}


@dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """An exported network, and all that travels with it.

    Attributes:
        path: The file; of OpenVINO ``model.xml``.
        format: What it is.
        precision: Of its weights; "int8" multiplies in 8 bits.
        is_calibrated: The scales of 8-bit products were measured beforehand, not for each view anew.
        num_classes: K.
        info: What travelled with the checkpoint; its preprocessing says every field.
        weights_digest: Of the checkpoint that it was made from.
    """

    path: Path
    format: ExportFormat
    precision: ExportPrecision
    is_calibrated: bool = False
    num_classes: int
    info: CheckpointInfo
    weights_digest: str

    @property
    def preprocessing(self) -> Preprocessing:
        """How a video becomes its input."""
        return Preprocessing.from_dict(self.info.preprocessing)

    @property
    def input_type(self) -> TensorType:
        """Type and shape of ``video``."""
        own = self.preprocessing
        dtype = "float32" if own.resize == "bilinear_float" else "uint8"
        return TensorType(dtype, ("views", own.num_frames, 3, *own.input_size))

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that hold the network."""
        return (self.path, self.path.with_suffix(".bin")) if self.format == "openvino" else (self.path,)

    def file_digest(self) -> str:
        """Digest of its bytes."""
        digest = hashlib.blake2b(digest_size=8)
        for path in self.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The JSON that lies inside and beside."""
        video, scores = self.input_type, ["views", self.num_classes]
        return {
            "format": CONTRACT,
            "version": VERSION,
            "precision": self.precision,
            "is_calibrated": self.is_calibrated,
            "num_classes": self.num_classes,
            "input": {"name": INPUT, "dtype": video.dtype, "shape": list(video.shape)},
            "outputs": {LOGITS: scores, SCORES: scores},
            "weights_digest": self.weights_digest,
            **asdict(self.info),
            "class_names": list(self.info.class_names),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, path: Path, format: ExportFormat) -> Self:
        """What ``to_dict`` gave.

        Raises:
            ValueError: It is something else, or says two things that do not go together.
        """
        if content.get("format") != CONTRACT:
            raise ValueError("its metadata were not written by uniformerv2 export")
        if content.get("version") != VERSION:
            raise ValueError(f"it was written in version {content.get('version')!r}; this package reads {VERSION}")
        if content.get("precision") not in get_args(ExportPrecision):
            raise ValueError(f"its precision is {content.get('precision')!r}, not fp32, fp16 or int8")
        num_classes, digest = content.get("num_classes"), content.get("weights_digest")
        if type(num_classes) is not int or num_classes < 1 or not isinstance(digest, str):
            raise ValueError("its metadata do not say how many classes it has, or which weights")
        get_limits().check("width", num_classes, what=f"num_classes {num_classes}")
        info = CheckpointInfo.from_dict(content)
        if info.class_names and len(info.class_names) != num_classes:
            raise ValueError(f"class_names has {len(info.class_names)} names, num_classes is {num_classes}")
        found = cls(
            path=path,
            format=format,
            precision=content["precision"],
            is_calibrated=content.get("is_calibrated") is True,
            num_classes=num_classes,
            info=info,
            weights_digest=digest,
        )
        if json.loads(json.dumps(found.to_dict()["input"])) != content.get("input"):
            raise ValueError("its preprocessing makes another input than its metadata say")
        return found


def metadata_beside(path: Path) -> Path:
    """Where the JSON of a file lies: ``model.onnx.json``."""
    return path.with_name(f"{path.name}.json")


def find_exported(source: str | Path) -> ExportedNetwork | None:
    """The exported network of a path; None where there is something else, such as a checkpoint.

    Args:
        source: A file or folder, or any name.

    Raises:
        ValueError: It looks like one, and is damaged, or somebody else's, or its metadata lie.
        FileNotFoundError: The weights of an OpenVINO folder are absent.
    """
    path, kind = _kind_of(Path(source))
    if kind is None:
        return None
    with naming(path):
        return _READERS[kind](path)


def is_exported(path: Path) -> bool:
    """Whether a path is called as ``uniformerv2 export`` calls what it writes; nothing is read."""
    return _kind_of(path)[1] is not None


def _kind_of(path: Path) -> tuple[Path, ExportFormat | None]:
    """The file that holds the network, and its format."""
    if path.is_dir():
        if (path / OPENVINO_FILE).is_file():
            return path / OPENVINO_FILE, "openvino"
        return (path / ONNX_FILE, "onnx") if (path / ONNX_FILE).is_file() else (path, None)
    kinds: dict[str, ExportFormat] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "pt2"}
    return path, kinds.get(path.suffix) if path.is_file() else None


def _read_onnx(path: Path) -> ExportedNetwork:
    header = read_onnx_header(path)
    found = _of_text(header.metadata.get(METADATA_KEY), path, "onnx")
    _check_types(found, header.inputs, header.outputs)
    return found


def _of_text(text: str | None, path: Path, kind: ExportFormat) -> ExportedNetwork:
    """What the JSON inside says.

    Raises:
        ValueError: There is none, or it says something else.
    """
    if text is None:
        made = "make one of a checkpoint with uniformerv2 export MODEL OUT"
        raise ValueError(f"it was not written by uniformerv2 export, and what it computes is not known; {made}")
    check_items(text, where="its metadata")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("its metadata are no object")
    return ExportedNetwork.from_dict(content, path=path, format=kind)


def _check_types(found: ExportedNetwork, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]) -> None:
    """Whether a file declares what its metadata say.

    Raises:
        ValueError: It does not.
    """
    scores = TensorType("float32", ("views", found.num_classes))
    said = ({INPUT: found.input_type}, {LOGITS: scores, SCORES: scores})
    for what, declared, wanted in zip(("input", "outputs"), (inputs, outputs), said, strict=True):
        if declared.keys() != wanted.keys():
            raise ValueError(f"its {what} must be {', '.join(wanted)}, the file has {', '.join(declared) or 'none'}")
        for name, kind in wanted.items():
            own = declared[name]
            if (own.dtype, own.shape[1:]) != (kind.dtype, kind.shape[1:]) or not isinstance(own.shape[0], str):
                raise ValueError(
                    f"its metadata say that {name} is {kind.dtype} {list(kind.shape)}, the file that it is {own.dtype} "
                    f"{list(own.shape)}"
                )


def _read_openvino(path: Path) -> ExportedNetwork:
    if not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(f"{path} has no weights: {path.with_suffix('.bin').name} is absent.")
    content = read_bytes(path)
    if b"<!DOCTYPE" in content:
        raise ValueError("it declares a document type, whose words may grow without end; OpenVINO writes none")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is damaged or no file of OpenVINO ({error})") from error
    said = root.find(f"rt_info/{METADATA_KEY}")
    found = _of_text(None if said is None else said.get("value"), path, "openvino")
    inputs = {
        layer.get("name", ""): TensorType(
            OPENVINO_TYPES.get(data.get("element_type", ""), "another type"),
            tuple("views" if size == "?" else int(size) for size in data.get("shape", "").split(",")),
        )
        for layer in root.iterfind("layers/layer[@type='Parameter']")
        for data in layer.iterfind("data")
    }
    outputs = {
        layer.get("output_names", ""): TensorType(
            "float32" if port.get("precision") == "FP32" else "another type",
            tuple("views" if dim.text == "-1" else int(dim.text or 0) for dim in port.iterfind("dim")),
        )
        for layer in root.iterfind("layers/layer[@type='Result']")
        for port in layer.iterfind("input/port")
    }
    _check_types(found, inputs, outputs)
    return found


def _read_pt2(path: Path) -> ExportedNetwork:
    header = read_pt2_header(path)
    found = _of_text(header.metadata, path, "pt2")
    names = (LOGITS, SCORES) if len(header.outputs) == 2 else map(str, range(len(header.outputs)))
    _check_types(found, header.inputs, dict(zip(names, header.outputs, strict=True)))
    return found


_READERS: Final[Mapping[ExportFormat, Callable[[Path], ExportedNetwork]]] = {
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "pt2": _read_pt2,
}
