"""How each known format names its tensors: one table per format, and the notation they are written in.

Sources of the names:
    UniFormerV2 (Li et al., 2022), https://github.com/OpenGVLab/UniFormerV2, and its port in MMAction2,
    https://github.com/open-mmlab/mmaction2; CLIP (Radford et al., 2021), https://github.com/openai/CLIP, with
    open_clip's own ViTs, which share its names; the CLIP, DINOv2 and ViT models of Hugging Face transformers; timm.

`#` stands for a block or stage number, a final `*` for weight and bias, and (q|k|v) on the left joins tensors, on the
right splits one, along the first axis:

    transformer.dec.#.attn.in_proj_weight   ->   fusion.stages.#.cross.(q|k|v).weight

Image towers go to timm's names first; from there CLIP's go on to ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["TABLES", "TIMM_CLIP_TO_NATIVE", "Format", "Move", "Row", "Table", "count_numbered"]

Format = Literal["native", "official", "mmaction2", "clip", "hf_clip", "timm_clip", "timm_vit", "hf_dinov2", "hf_vit"]


class Move(NamedTuple):
    """One tensor on its way: sources are joined, changed, and split into targets."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    change: Callable[[Tensor], Tensor] | None


class Row(NamedTuple):
    """One line of a table; see the head of this file for the notation."""

    source: str
    target: str
    change: Callable[[Tensor], Tensor] | None = None
    when: str = ""  # the row counts only where some key holds this text

    def moves(self, keys: Collection[str], prefix: str) -> Iterator[Move]:
        """The row written out for every number that the keys have, and for weight and bias."""
        if not any(self.when in key for key in keys):
            return
        head, numbered, _ = self.source.partition("#")
        for number in range(max(1, count_numbered(keys, prefix + head)) if numbered else 1):
            for kind in ("weight", "bias") if self.source.endswith("*") else ("",):
                source, target = (
                    text.replace("#", str(number)).replace("*", kind) for text in (prefix + self.source, self.target)
                )
                yield Move(_alternatives(source), _alternatives(target), self.change)


class Table(NamedTuple):
    """How one format names its tensors. Without rows the names stay as they are."""

    format: Format
    signature: str  # regex: one such key tells the format; what stands before it is the prefix of the network
    rows: tuple[Row, ...] = ()
    dropped: str = ""  # regex: keys behind the prefix that have no place in the new names
    outside: str = ""  # regex: keys without the prefix, such as CLIP's text tower


def count_numbered(keys: Collection[str], head: str) -> int:
    """How many numbered modules stand under ``head``: one more than the highest number, at most one for a key.

    >>> count_numbered(["blocks.0.weight", "blocks.1.weight", "norm.weight"], "blocks.")
    2
    """
    numbers = (key.removeprefix(head).partition(".")[0] for key in keys if key.startswith(head))
    return min(max((int(number) + 1 for number in numbers if number.isdecimal()), default=0), len(keys))


def _alternatives(text: str) -> tuple[str, ...]:
    """Every reading of a name with one group of alternatives.

    >>> _alternatives("cross.(q|k).bias")
    ('cross.q.bias', 'cross.k.bias')
    """
    left, _, rest = text.partition("(")
    options, _, right = rest.partition(")")
    return tuple(left + option + right for option in options.split("|"))


def _as_row(weight: Tensor) -> Tensor:
    return weight.reshape(1, -1)


def _as_matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1) if weight.ndim > 1 else weight


def _without_key(bias: Tensor) -> Tensor:
    """A bias common to all keys adds the same to every score of a query, and the softmax takes it out again."""
    query, _, value = bias.unflatten(0, (3, -1))
    return torch.cat([query, value])


def _one_frame(weight: Tensor) -> Tensor:
    return weight.unsqueeze(2)


def _add_batch(weight: Tensor) -> Tensor:
    return weight.unsqueeze(0)


def _strip_batch(weight: Tensor) -> Tensor:
    return weight.squeeze(0)


def _local_rows(step: int) -> Iterator[Row]:
    theirs, ours = f"transformer.resblocks.#.lmhra{step}.pos_embed", f"blocks.#.local.{step - 1}"
    when = ".lmhra" if step == 1 else f".lmhra{step}."
    yield Row(f"{theirs}.0.*", f"{ours}.norm.*", when=when)
    for statistic in ("running_mean", "running_var", "num_batches_tracked"):
        yield Row(f"{theirs}.0.{statistic}", f"{ours}.norm.{statistic}", when=when)
    for layer, name in enumerate(("value", "affinity", "proj"), start=1):
        yield Row(f"{theirs}.{layer}.*", f"{ours}.{name}.*", _as_matrix, when)


_HF_QKV = "attention.attention.(query|key|value).*"
_BLOCKS = (
    ("blocks.#.", "blocks.#.", "transformer.resblocks.#.", "encoder.layers.#.", *3 * ("encoder.layer.#.",)),
    ("spatial.norm.*", "norm1.*", "ln_1.*", "layer_norm1.*", "norm1.*", "norm1.*", "layernorm_before.*"),
    ("spatial.fn.qkv.*", "attn.qkv.*", "attn.in_proj_*", "self_attn.(q|k|v)_proj.*", *3 * (_HF_QKV,)),
    ("spatial.fn.proj.*", "attn.proj.*", "attn.out_proj.*", "self_attn.out_proj.*", *3 * ("attention.output.dense.*",)),
    ("ffn.norm.*", "norm2.*", "ln_2.*", "layer_norm2.*", "norm2.*", "norm2.*", "layernorm_after.*"),
    ("ffn.fn.fc1.*", "mlp.fc1.*", "mlp.c_fc.*", "mlp.fc1.*", "mlp.fc1.*", "mlp.weights_in.*", "intermediate.dense.*"),
    ("ffn.fn.fc2.*", "mlp.fc2.*", "mlp.c_proj.*", "mlp.fc2.*", "mlp.fc2.*", "mlp.weights_out.*", "output.dense.*"),
)
"""A block of an image ViT, a line each part of it: where blocks stand, then the parts; a column each way to name it."""
_OURS, _TIMM, _CLIP, _HF_CLIP, _HF_DINOV2, _HF_SWIGLU, _HF_VIT = zip(*_BLOCKS, strict=True)


def _block_rows(theirs: tuple[str, ...], ours: tuple[str, ...] = _TIMM) -> Iterator[Row]:
    parts = zip(theirs[1:], ours[1:], strict=True)
    return (Row(theirs[0] + source, ours[0] + target) for source, target in parts)


_UNIFORMER_ROWS = (
    Row("conv1.weight", "embedding.weight"),
    Row("class_embedding", "embedding.prefix_tokens", _as_row),
    Row("positional_embedding", "embedding.positions"),
    Row("ln_pre.*", "embedding.norm.*"),
    *_block_rows(_CLIP, _OURS),
    *_local_rows(1),
    *_local_rows(2),
    Row("transformer.temporal_cls_token", "fusion.video_token", _as_row),
    Row("transformer.dpe.#.*", "fusion.stages.#.position.*"),
    Row("transformer.dec.#.ln_1.*", "fusion.stages.#.norm_query.*"),
    Row("transformer.dec.#.ln_3.*", "fusion.stages.#.norm_tokens.*"),
    Row("transformer.dec.#.attn.in_proj_weight", "fusion.stages.#.cross.(q|k|v).weight"),
    Row("transformer.dec.#.attn.in_proj_bias", "fusion.stages.#.cross.(q|v).bias", _without_key),
    Row("transformer.dec.#.attn.out_proj.*", "fusion.stages.#.cross.proj.*"),
    Row("transformer.dec.#.ln_2.*", "fusion.stages.#.ffn.norm.*"),
    Row("transformer.dec.#.mlp.c_fc.*", "fusion.stages.#.ffn.fn.fc1.*"),
    Row("transformer.dec.#.mlp.c_proj.*", "fusion.stages.#.ffn.fn.fc2.*"),
    Row("transformer.balance", "fusion_gate", when="transformer.balance"),
)
_OFFICIAL_ROWS = (
    *_UNIFORMER_ROWS,
    Row("transformer.proj.0.*", "norm.*"),
    Row("transformer.proj.2.*", "head.*"),
)
_MMACTION_ROWS = (
    *(row._replace(source=f"backbone.{row.source}") for row in _UNIFORMER_ROWS),
    Row("backbone.transformer.norm.*", "norm.*"),
    Row("cls_head.fc_cls.*", "head.*"),
    Row("data_preprocessor.mean", "preprocessing.mean", when="data_preprocessor."),
    Row("data_preprocessor.std", "preprocessing.std", when="data_preprocessor."),
)
_CLIP_TO_TIMM = (
    Row("conv1.weight", "patch_embed.proj.weight"),
    Row("class_embedding", "cls_token", lambda token: token.reshape(1, 1, -1)),
    Row("positional_embedding", "pos_embed", _add_batch),
    Row("ln_pre.*", "norm_pre.*"),
    *_block_rows(_CLIP),
    Row("ln_post.*", "norm.*", when="ln_post."),
)
_HF_CLIP_TO_TIMM = (
    Row("embeddings.patch_embedding.weight", "patch_embed.proj.weight"),
    Row("embeddings.class_embedding", "cls_token", lambda token: token.reshape(1, 1, -1)),
    Row("embeddings.position_embedding.weight", "pos_embed", _add_batch),
    Row("pre_layrnorm.*", "norm_pre.*"),  # spelt so in every published file
    *_block_rows(_HF_CLIP),
    Row("post_layernorm.*", "norm.*", when="post_layernorm."),
)
_HF_EMBEDDINGS_TO_TIMM = (
    Row("embeddings.patch_embeddings.projection.*", "patch_embed.proj.*"),
    Row("embeddings.cls_token", "cls_token"),
    Row("embeddings.position_embeddings", "pos_embed"),
    Row("layernorm.*", "norm.*", when="layernorm."),
)
_HF_DINOV2_TO_TIMM = (
    *_HF_EMBEDDINGS_TO_TIMM,
    Row("embeddings.register_tokens", "reg_token", when="register_tokens"),
    Row("encoder.layer.#.layer_scale1.lambda1", "blocks.#.ls1.gamma"),
    Row("encoder.layer.#.layer_scale2.lambda1", "blocks.#.ls2.gamma"),
)
TIMM_CLIP_TO_NATIVE = Table(
    "timm_clip",
    r"norm_pre\..+",
    (
        Row("patch_embed.proj.weight", "embedding.weight", _one_frame),
        Row("cls_token", "embedding.prefix_tokens", _strip_batch),
        Row("pos_embed", "embedding.positions", _strip_batch),
        Row("norm_pre.*", "embedding.norm.*"),
        *_block_rows(_TIMM, _OURS),
    ),
    dropped=r"(norm|head)\.(weight|bias)",
)

_CLIP_TEXT = (
    r"(transformer|token_embedding|ln_final|text|visual\.head)\..+|positional_embedding|text_projection|attn_mask"
    r"|logit_scale|logit_bias|input_resolution|context_length|vocab_size"
)
_HF_CLIP_TEXT = r"(text_model|text_projection|visual_projection)\..+|logit_scale"
_HF_HEADS = r"(classifier|decoder)\..+"

# In this order: UniFormerV2 holds all names of CLIP's image tower, so it comes before. A signature may not hang on one
# key, or a file that lost it would be taken for something else.
TABLES = (
    Table("native", r"fusion\.stages\.\d+\.norm_query\..+"),
    Table("mmaction2", r"backbone\.transformer\.norm\..+", _MMACTION_ROWS),
    Table("official", r"transformer\.(dec|dpe)\.\d+\..+", _OFFICIAL_ROWS),
    Table(
        "hf_clip",
        r"embeddings\.class_embedding|pre_layrnorm\..+",
        _HF_CLIP_TO_TIMM,
        dropped=r"embeddings\.position_ids",
        outside=_HF_CLIP_TEXT,
    ),
    Table("clip", r"class_embedding|ln_pre\..+", _CLIP_TO_TIMM, dropped="proj", outside=_CLIP_TEXT),
    *(  # the first is DINOv2's ViT-g
        Table(
            "hf_dinov2",
            rf"encoder\.layer\.\d+\.{signature}",
            (*_HF_DINOV2_TO_TIMM, *_block_rows(names)),
            dropped=r"embeddings\.mask_token",
            outside=_HF_HEADS,
        )
        for signature, names in ((r"mlp\.weights_.+", _HF_SWIGLU), (r"layer_scale\d\.lambda1", _HF_DINOV2))
    ),
    Table(
        "hf_vit",
        r"encoder\.layer\.\d+\.layernorm_(before|after)\..+",
        (*_HF_EMBEDDINGS_TO_TIMM, *_block_rows(_HF_VIT)),
        dropped=r"embeddings\.mask_token|pooler\..+",
        outside=_HF_HEADS,
    ),
    Table("timm_clip", TIMM_CLIP_TO_NATIVE.signature, outside=_CLIP_TEXT),
    Table("timm_vit", r"(?<!\d\.)blocks\.\d+\.norm1\..+", outside=_CLIP_TEXT),  # blocks of a stage are not a ViT's
)
