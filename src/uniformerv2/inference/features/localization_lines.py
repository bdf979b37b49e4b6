"""What ActionFormer and OpenTAD must be told of dense features: lines for their configurations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Final

from uniformerv2.inference.features.clock import FeatureClock

__all__ = ["actionformer_lines", "opentad_lines"]

NOT_ONE: Final = (
    "# {}. These windows are as long as clips of dense sampling, in frames, and\n"
    "# the videos have different rates: make the features again with --window-seconds.\n"
)


def actionformer_lines(clocks: Sequence[FeatureClock], *, folder: Path, dim: int) -> str:
    """YAML for the section ``dataset`` of ActionFormer's configuration.

    Args:
        clocks: The different ones of the videos; ActionFormer can be told of several rates, not of several strides.
        folder: Of the features.
        dim: C.
    """
    clock = clocks[0]
    if len({(each.feature_stride, each.num_frames) for each in clocks}) > 1:
        return NOT_ONE.format("ActionFormer takes features of one stride")
    is_one = len(clocks) == 1
    rate = f"{clock.fps:.12g}" if is_one else "~"
    why = "ticks of the features' clock, whatever the rate of the videos" if is_one else "as the next line says"
    more = "" if is_one else '  # in the annotation file "fps" of each video is what its JSON file here has as "fps"\n'
    return (
        "# Into the configuration of ActionFormer.\n"
        "dataset: {\n"
        f"  feat_folder: {json.dumps(folder.as_posix(), ensure_ascii=False)},\n"
        "  file_prefix: ~,\n"
        "  file_ext: .npy,\n"
        f"  input_dim: {dim},\n"
        f"  feat_stride: {clock.feature_stride},\n"
        f"  num_frames: {clock.num_frames},\n"
        f"  default_fps: {rate},  # {why}\n"
        f"{more}"
        "}\n"
    )


def opentad_lines(clocks: Sequence[FeatureClock], *, folder: Path, dim: int) -> str:
    """Python for an OpenTAD configuration.

    Args:
        clocks: The different ones of the videos; OpenTAD can be told of one.
        folder: Of the features.
        dim: C.
    """
    clock = clocks[0]
    if len(clocks) > 1:
        return NOT_ONE.format("OpenTAD takes features of one rate")
    return dedent(f"""\
        # Into the configuration of OpenTAD. This data set counts in the fps that it is given here, in ticks of the
        # features' clock, whatever the rate of the videos; Thumos' would take "frame" from the annotation file.
        dataset_type = "EpicKitchensPaddingDataset"  # or EpicKitchensSlidingDataset
        data_path = {json.dumps(folder.as_posix(), ensure_ascii=False)}
        lies = dict(feature_stride={clock.feature_stride}, sample_stride=1, offset_frames={clock.offset_frames}, \
fps={clock.fps:.12g})
        # dataset = dict(train=dict(type=dataset_type, data_path=data_path, **lies, ...), val=..., test=...)
        # pipeline: dict(type="LoadFeats", feat_format="npy"); model = dict(projection=dict(in_channels={dim}, ...))
        """)
