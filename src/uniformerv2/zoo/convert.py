"""Foreign state dicts to ours, recognised by their keys: pure functions from dict to dict.

A file is unwrapped (`_unwrap`), recognised (`detect_format`) and renamed by its format's table (`convert_tables.py`),
which is strict in both directions: a key that the table does not know raises, and so does one that it misses. Both
are named as the file names them, wrappers aside. What shapes tell of the configuration is read from our names.

Letters of this file: C channels, K frames under the patch kernel, p patch size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from uniformerv2.core.messages import first_few

from .convert_tables import TABLES, TIMM_CLIP_TO_NATIVE, Format, Move, Table, count_numbered

__all__ = ["Converted", "Format", "convert", "detect_format", "to_timm_vit"]

CONTAINERS = ("model_state", "state_dict", "model")  # official trainer; MMAction2 and Lightning; DINO, MAE, timm
WRAPPERS = ("module.", "model.", "_orig_mod.")  # DistributedDataParallel; Lightning; torch.compile
CLIP_FORMATS = ("clip", "hf_clip", "timm_clip")
VIT_FORMATS = ("timm_vit", "hf_dinov2", "hf_vit")


@dataclass(frozen=True)
class Converted:
    """What a foreign state dict holds, in other names.

    Attributes:
        format: How the file names its tensors.
        state: The tensors under their new names, floating ones in float32. Some share memory with those given.
        config: Keyword arguments of ``UniFormerV2Config``, read from shapes. Empty for ``native``, whose config.json
            knows more than shapes do, and for :func:`to_timm_vit`.
        undetermined: Fields of ``config`` that shapes do not tell; the values there are assumed, and may be wrong.
        dropped: Keys of the file for which the new names have no place.
        absent: Parts of the new network that the file does not hold: ``("fusion", "norm", "head")`` for CLIP's
            image tower, ``("norm",)`` for an image ViT without its final norm.
        preprocessing: ``mean`` and ``std`` per colour, range 0 to 255, where the file holds them (MMAction2).
    """

    format: Format
    state: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    undetermined: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    preprocessing: dict[str, tuple[float, ...]] = field(default_factory=dict)


def detect_format(checkpoint: Mapping[str, Any], /) -> Format:
    """How a checkpoint names its tensors, told by its keys alone.

    ``clip`` is OpenAI's CLIP and open_clip's own ViTs, whole or the image tower alone: they share their names. An
    unknown format raises a ``ValueError`` that lists the first keys and the formats known.

    Args:
        checkpoint: What the file holds: a state dict, bare or in a container (``{"state_dict": ...}`` and the like).

    Returns:
        The name of the format.
    """
    return _recognise(_unwrap(checkpoint))[0].format


def convert(checkpoint: Mapping[str, Any], /) -> Converted:
    """The state dict of a UniFormerV2, or of CLIP's image tower, in our names, with what shapes tell of it.

    The published cross attention has a bias for its keys, which changes nothing (the softmax takes it out again) and
    which ours does not have. CLIP's image tower comes with one frame under the patch kernel, [C, 3, 1, p, p]; see
    ``embedding.inflate``. Its activation is assumed: OpenAI's models use QuickGELU, most others GELU.

    Args:
        checkpoint: What the file holds: a state dict, bare or in a container (``{"model_state": ...}`` of the
            official trainer, ``{"state_dict": ..., "meta": ...}`` of MMAction2, ``{"model": ...}``).

    Returns:
        Tensors, configuration, and a report of what was dropped, assumed and absent.

    Raises:
        ValueError: The format is unknown or an image ViT's, a key is unknown or missing, or a shape does not fit.
    """
    state = _unwrap(checkpoint)
    table, prefix = _recognise(state)
    if table.format in VIT_FORMATS:
        raise ValueError(
            f"These are weights of an image ViT ({table.format}), not of a UniFormerV2 or of CLIP's image tower. "
            "Arm the image model they belong to: uniformerv2.arm."
        )
    if table.format in CLIP_FORMATS:
        return _convert_clip(state, table, prefix)
    renamed = _rename(state, table, prefix)
    facts = {name: renamed.state.pop(f"preprocessing.{name}", None) for name in ("mean", "std")}
    config, undetermined = ({}, ()) if table.format == "native" else _video_config(renamed.state)
    return Converted(
        table.format,
        renamed.state,
        config,
        undetermined,
        dropped=renamed.dropped,
        preprocessing={name: tuple(fact.flatten().tolist()) for name, fact in facts.items() if fact is not None},
    )


def to_timm_vit(checkpoint: Mapping[str, Any], /) -> Converted:
    """The state dict of an image ViT in timm's names, for ``timm.create_model(...)`` and arming.

    A DINOv2 with registers takes timm's form: the class token holds its own position, patches alone have others.

    Args:
        checkpoint: What the file holds: a CLIP image tower, or a DINOv2 or ViT of Hugging Face transformers; one in
            timm's names stays as it is. Bare or in a container.

    Returns:
        Tensors, and a report of what was dropped; ``absent`` is ``("norm",)`` where the final norm is not in the
        file, which arming does not need. Classification heads and CLIP's projection are dropped.

    Raises:
        ValueError: The format is unknown or a UniFormerV2's, a key is unknown or missing, or a shape does not fit.
    """
    state = _unwrap(checkpoint)
    table, prefix = _recognise(state)
    if table.format not in CLIP_FORMATS + VIT_FORMATS:
        raise ValueError(
            f"These are weights of a UniFormerV2 ({table.format}), not of an image ViT. "
            "Load them as what they are: uniformerv2.load_model."
        )
    renamed = _rename(state, table, prefix)
    if table.format == "hf_dinov2" and "reg_token" in renamed.state:
        position = renamed.state["pos_embed"]
        renamed.state["cls_token"] = renamed.state["cls_token"] + position[:, :1]
        renamed.state["pos_embed"] = position[:, 1:]
    absent = () if "norm.weight" in renamed.state else ("norm",)
    return Converted(table.format, renamed.state, dropped=renamed.dropped, absent=absent)


def _convert_clip(state: Mapping[str, Tensor], table: Table, prefix: str) -> Converted:
    tower = _rename(state, table, prefix)  # to timm's names
    renamed = _rename(tower.state, TIMM_CLIP_TO_NATIVE, "")
    return Converted(
        table.format,
        renamed.state,
        _image_config(renamed.state),
        undetermined=("num_heads", "activation"),
        dropped=tower.dropped + tuple(key for name in renamed.dropped for key in tower.sources[name]),
        absent=("fusion", "norm", "head"),
    )


def _image_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the image part tells, which is all that CLIP's tower has.

    Raises:
        ValueError: The patch kernel or the position embedding is not a square image's.
    """
    kernel = state["embedding.weight"]
    if kernel.ndim != 5:
        raise ValueError(f"A patch kernel of a video model is [C, 3, K, p, p], got {list(kernel.shape)}.")
    dim, patch_size = kernel.shape[0], kernel.shape[-1]
    num_patches = state["embedding.positions"].shape[0] - 1
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"The position embedding of a square image has 1 + n * n rows, got 1 + {num_patches}.")
    return {
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "dim": dim,
        "depth": count_numbered(state, "blocks."),
        "num_heads": max(1, dim // 64),
        "mlp_ratio": state["blocks.0.ffn.fn.fc1.weight"].shape[0] / dim,
        "activation": "quick_gelu",
    }


def _video_config(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Configuration of a published UniFormerV2, and the fields in it that are assumed."""
    config = _image_config(state)
    dim, depth, kernel_size = config["dim"], config["depth"], state["embedding.weight"].shape[2]
    num_stages = count_numbered(state, "fusion.stages.")
    config |= {
        "num_frames": 8,
        "num_classes": state["head.weight"].shape[0],
        "tubelet_size": 1 if kernel_size == 1 else 2,
        "tubelet_kernel_size": kernel_size,
        "num_local_steps": count_numbered(state, "blocks.0.local."),
        "fusion": "sequential",
        "fusion_stages": tuple(range(depth - num_stages, depth)),
        "global_num_heads": config["num_heads"],
        "global_mlp_ratio": state["fusion.stages.0.ffn.fn.fc1.weight"].shape[0] / dim,
        "use_gate": "fusion_gate" in state,
    }
    if config["num_local_steps"]:
        hidden, config["local_kernel_size"] = state["blocks.0.local.0.affinity.weight"].shape
        config["local_reduction"] = _local_reduction(dim, hidden)
    return config, ("num_heads", "global_num_heads", "num_frames", "fusion_stages")


def _local_reduction(dim: int, hidden: int) -> float:
    """A reduction whose bottleneck, ``int(dim // reduction)``, has ``hidden`` channels: the published ones first.

    >>> _local_reduction(64, 42)
    1.5
    """
    return next(r for r in (1.5, 2.0, 1.0, dim / hidden, dim / (hidden + 0.5)) if int(dim // r) == hidden)


def _unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The flat state dict inside containers and wrappers.

    Raises:
        ValueError: It is empty or holds something else than tensors.
    """
    state: Mapping[Any, Any] = checkpoint if isinstance(checkpoint, Mapping) else {}
    for _ in CONTAINERS:  # containers may nest, but a pickle may also hold itself
        state = next((state[name] for name in CONTAINERS if isinstance(state.get(name), Mapping)), state)
    strange = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange or not state:
        held = f"these are no tensors: {_listed(strange)}" if strange else f"got an empty {type(checkpoint).__name__}"
        raise ValueError(
            f"A state dict maps names to tensors, bare or under one of {', '.join(CONTAINERS)}, but {held}."
        )
    while wrapper := next((wrapper for wrapper in WRAPPERS if all(key.startswith(wrapper) for key in state)), ""):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return dict(state)


def _recognise(state: Mapping[str, Tensor]) -> tuple[Table, str]:
    """The table of the first format whose signature is there, and what stands before the signature.

    Raises:
        ValueError: There is none.
    """
    for table in TABLES:
        for key in state:
            if found := re.fullmatch(rf"(|.*\.)(?:{table.signature})", key):
                return table, found[1]
    raise ValueError(
        f"These keys belong to no known format: {_listed(list(state))}. Known are {', '.join(get_args(Format))}."
    )


class _Renamed(NamedTuple):
    state: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]  # new name -> the keys it was made of
    dropped: tuple[str, ...]


def _rename(state: Mapping[str, Tensor], table: Table, prefix: str) -> _Renamed:
    """Rename by a table, strictly.

    Raises:
        ValueError: A key is unknown or missing.
    """
    inside = [key for key in state if key.startswith(prefix)]
    dropped = [key for key in inside if re.fullmatch(table.dropped, key.removeprefix(prefix))]
    dropped += [key for key in state if not key.startswith(prefix) and re.fullmatch(table.outside, key)]
    if table.rows:
        moves = [move for row in table.rows for move in row.moves(state, prefix)]
    else:
        moves = [Move((key,), (key.removeprefix(prefix),), None) for key in inside]
    sources = {key for move in moves for key in move.sources}
    unknown = [key for key in state if key not in sources and key not in dropped]
    missing = [key for move in moves for key in move.sources if key not in state]
    if unknown or missing:
        raise ValueError(
            f"These weights look like the format {table.format!r}, but {len(unknown)} keys are unknown: "
            f"{_listed(unknown)}; {len(missing)} keys are missing: {_listed(missing)}. "
            "Give the whole state dict of one model, and nothing else."
        )
    renamed: dict[str, Tensor] = {}
    for move in moves:
        renamed |= zip(move.targets, _carry_out(move, state), strict=True)
    return _Renamed(renamed, {name: move.sources for move in moves for name in move.targets}, tuple(dropped))


def _carry_out(move: Move, state: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """Join, change and split the tensors of one move.

    Raises:
        ValueError: A shape does not allow it.
    """
    try:
        joined = torch.cat([state[key] for key in move.sources]) if len(move.sources) > 1 else state[move.sources[0]]
        joined = joined.float() if joined.is_floating_point() else joined
        changed = move.change(joined) if move.change else joined
        if len(move.targets) == 1:
            return (changed,)
        return changed.unflatten(0, (len(move.targets), -1)).unbind()
    except RuntimeError as error:
        shapes = ", ".join(f"{key} {list(state[key].shape)}" for key in move.sources)
        raise ValueError(f"These shapes do not fit: {shapes} cannot become {', '.join(move.targets)}.") from error


def _listed(keys: Sequence[str]) -> str:
    """At most ten keys, then how many more."""
    return first_few(keys) or "none"
