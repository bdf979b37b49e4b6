"""Tiny networks of every architecture, the cases of the table of exports."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from tests.model.test_arming import FAMILIES, image_vit
from tests.model.test_blocks import randomize
from tests.model.test_uniformerv2 import FROZEN, MOTION, TINY, make
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.model.fusion import FUSIONS
from uniformerv2.model.statistics import KINDS
from uniformerv2.zoo.arming import arm

NAMES = tuple("abcde")


def named(model, *, is_multi_label=False, **fields):
    """With class names and a preprocessing; without ``resize`` one whose views are float32."""
    size = {"num_frames": model.config.num_frames, "image_size": model.config.image_size}
    preprocessing = Preprocessing(**{**size, "num_crops": 3, **fields}).to_dict()
    model.info = CheckpointInfo(
        preprocessing=preprocessing, class_names=NAMES, is_multi_label=is_multi_label, licence="MIT", source="a test"
    )
    return model


def armed(family, **options):
    """Of three blocks and 48 pixels, with nothing left at zero."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own calls, when it resizes a relative position bias
        model = arm(image_vit(family), num_classes=5, num_frames=4, **options)
    for part in (model.fusion, model.head, *(block.local for block in model.blocks)):
        randomize(part)
    return named(model.eval(), resize="bicubic_antialias")


ARCHITECTURES = {
    **{f"scene, {fusion}": lambda fusion=fusion: named(make(replace(TINY, fusion=fusion))) for fusion in FUSIONS},
    "motion": lambda: named(make(MOTION), resize="bilinear_uint8"),
    "tubelet 2, one local step": lambda: named(make(replace(MOTION, num_local_steps=1, num_frames=6))),
    "no gate": lambda: named(make(FROZEN), sampling="dense", frame_stride=2),
    "statistics beside the video token": lambda: named(make(replace(TINY, statistics=KINDS["motion"]))),
    "multi-label": lambda: named(make(TINY), is_multi_label=True),
    "not square": lambda: named(make(replace(TINY, image_size=(32, 48)))),
    **{family: lambda family=family: armed(family) for family in FAMILIES},
    "motion, dinov3": lambda: armed("dinov3", preset="motion"),
    "dinov2, other size": lambda: armed("dinov2", image_size=64),
    "beit, not square": lambda: armed("beit", image_size=(48, 64)),
}
"""Name -> what makes the network, of five classes."""
