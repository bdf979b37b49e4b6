"""The recorded matrix products: which, how many operations, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uniformerv2.lab.benchmark.products import record_products, square_product
from uniformerv2.model.blocks import TemporalAffinity
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.summary import summarize
from uniformerv2.model.uniformerv2 import UniFormerV2

CONFIG = UniFormerV2Config(
    image_size=32, dim=48, depth=2, num_heads=3, num_frames=4, num_classes=5, num_local_steps=1, global_dropout=(0.0,)
)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_and_its_two_gradients(has_bias):
    layer, x = nn.Linear(4, 8, bias=has_bias), torch.randn(2, 3, 4, requires_grad=True)
    with torch.no_grad():
        assert record_products(lambda: layer(x)).flops == 2 * 6 * 4 * 8
    both = record_products(lambda: layer(x).sum().backward())
    assert both.flops == 3 * 2 * 6 * 4 * 8
    assert len(both.calls) == 3
    both()


def test_fused_attention_is_two_products_and_four_more_backward():
    q, k, v = torch.randn(3, 2, 3, 10, 16, requires_grad=True).unbind()
    forward = record_products(lambda: F.scaled_dot_product_attention(q, k, v))
    assert forward.flops == 2 * (2 * 2 * 3 * 10 * 10 * 16)
    assert len(forward.calls) == 2
    step = record_products(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert step.flops == 3 * forward.flops
    step()


def test_a_convolution_counts_and_a_depth_wise_one_does_not():
    x = torch.randn(1, 6, 5, 5)
    assert record_products(lambda: nn.Conv2d(6, 2, 3)(x)).flops == 2 * 9 * 6 * 9 * 2
    assert record_products(lambda: nn.Conv2d(6, 6, 3, groups=6)(x)).calls == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_s_products_are_what_the_summary_counts(dtype):
    model = UniFormerV2(CONFIG).eval().to(dtype)
    video = torch.randn(1, 4, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        products = record_products(lambda: model(video))
    patches = 4 * 2 * 2
    mixes = sum(part.weight.numel() for part in model.modules() if isinstance(part, TemporalAffinity))
    no_products = patches * (mixes + 27 * CONFIG.dim * len(CONFIG.fusion_stages))
    assert products.flops == 2 * (summarize(UniFormerV2(CONFIG)).macs - no_products)
    products()


def test_the_ceiling_is_one_square_product():
    square = square_product(torch.bfloat16, "cpu")
    assert square.flops == 2 * 2048**3
    assert square.calls[0]().dtype == torch.bfloat16
