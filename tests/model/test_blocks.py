"""The parts of the network: shapes, gradients, save and load, precision, and the fast forms against the plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uniformerv2.model import blocks, residual
from uniformerv2.model.blocks import (
    DynamicPositionEncoding,
    FeedForward,
    GlobalCrossMHRA,
    GlobalSpatialMHRA,
    GlobalUniBlock,
    LocalTemporalMHRA,
    LocalUniBlock,
    QuickGELU,
)
from uniformerv2.model.embedding import ImagePositions, VideoEmbedding, inflate
from uniformerv2.model.residual import DropPath, Residual
from uniformerv2.ops import functional as ops

GRID = (3, 4)
DIM = 24


def randomize(module):
    """Away from zero, where a module starts as zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return module


def tokens(dtype=torch.float32):
    return torch.randn(2, 5, 1 + GRID[0] * GRID[1], DIM, dtype=dtype)


def local_block():
    return LocalUniBlock(
        Residual(GlobalSpatialMHRA(DIM, 4), nn.LayerNorm(DIM)),
        Residual(FeedForward(DIM), nn.LayerNorm(DIM)),
        local=(LocalTemporalMHRA(DIM), LocalTemporalMHRA(DIM)),
    )


CASES = {
    "LocalTemporalMHRA": (lambda: LocalTemporalMHRA(DIM), lambda m, x: m(x[:, :, 1:]), (2, 5, 12, DIM)),
    "GlobalSpatialMHRA": (lambda: GlobalSpatialMHRA(DIM, 4), lambda m, x: m(x, GRID), (2, 5, 13, DIM)),
    "FeedForward": (lambda: FeedForward(DIM), lambda m, x: m(x), (2, 5, 13, DIM)),
    "LocalUniBlock": (local_block, lambda m, x: m(x, GRID), (2, 5, 13, DIM)),
    "DynamicPositionEncoding": (lambda: DynamicPositionEncoding(DIM), lambda m, x: m(x, GRID), (2, 5, 13, DIM)),
    "GlobalCrossMHRA": (lambda: GlobalCrossMHRA(DIM, 4), lambda m, x: m(x[:, 0, :2], x.flatten(1, 2)), (2, 2, DIM)),
    "GlobalUniBlock": (lambda: GlobalUniBlock(DIM, 4), lambda m, x: m(x[:, 0, :1], x, GRID), (2, 1, DIM)),
}


@pytest.mark.parametrize("name", CASES)
def test_shape_and_a_gradient_for_every_parameter(name):
    make, call, shape = CASES[name]
    module = randomize(make())
    x = tokens().requires_grad_()
    y = call(module, x)
    assert y.shape == shape
    y.square().sum().backward()
    assert x.grad.abs().sum() > 0
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    make, call, _ = CASES[name]
    module, x = randomize(make()).eval(), tokens()
    torch.save(module.state_dict(), tmp_path / "state.pt")
    again = make().eval()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(call(again, x), call(module, x))
    assert torch.equal(call(copy.deepcopy(module), x), call(module, x))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_near_float32(name):
    make, call, _ = CASES[name]
    module, x = randomize(make()).eval(), tokens()
    with torch.inference_mode():
        exact = call(module, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = call(module, x).float()
        low = call(module.bfloat16(), x.bfloat16())
    assert low.dtype == torch.bfloat16
    for near in (autocast, low.float()):
        assert (near - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("name", CASES)
def test_in_float64_the_gradient_is_that_of_finite_differences(name):
    make, call, _ = CASES[name]
    module = randomize(make()).double().eval()
    x = torch.randn(1, 2, 1 + GRID[0] * GRID[1], DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: call(module, x), x, fast_mode=True)


def test_local_temporal_mhra_is_the_published_stack_of_convolutions():
    module = randomize(LocalTemporalMHRA(DIM, reduction=1.5, kernel_size=5))
    hidden = 16
    plain = nn.Sequential(
        nn.BatchNorm3d(DIM),
        nn.Conv3d(DIM, hidden, 1),
        nn.Conv3d(hidden, hidden, (5, 1, 1), padding=(2, 0, 0), groups=hidden),
        nn.Conv3d(hidden, DIM, 1),
    )
    state = module.state_dict()
    keys = zip(plain.state_dict(), state, strict=True)
    plain.load_state_dict({theirs: state[ours].view(plain.state_dict()[theirs].shape) for theirs, ours in keys})
    x = torch.randn(2, 6, GRID[0] * GRID[1], DIM)
    for mode in (True, False):  # batch statistics, then running ones, moved by the pass before
        module.train(mode)
        plain.train(mode)
        wanted = plain(x.unflatten(2, GRID).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).flatten(2, 3)
        torch.testing.assert_close(module(x), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(module.norm.running_mean, plain[0].running_mean)


def test_local_temporal_mhra_starts_as_zero():
    assert LocalTemporalMHRA(DIM)(tokens()).abs().max() == 0


def test_cross_mhra_is_multi_head_attention_and_the_key_bias_cancels():
    module = randomize(GlobalCrossMHRA(DIM, 4))
    plain = nn.MultiheadAttention(DIM, 4, batch_first=True)
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([module.q.weight, module.k.weight, module.v.weight]))
        plain.in_proj_bias.copy_(torch.cat([module.q.bias, torch.randn(DIM), module.v.bias]))
        plain.out_proj.load_state_dict(module.proj.state_dict())
    query, keys = torch.randn(2, 3, DIM), torch.randn(2, 50, DIM)
    wanted = plain(query, keys, keys, need_weights=False)[0]
    torch.testing.assert_close(module(query, keys), wanted, atol=2e-5, rtol=1e-5)


def test_dynamic_position_encoding_leaves_the_prefix_tokens_alone():
    module, x = randomize(DynamicPositionEncoding(DIM)), tokens()
    y = module(x, GRID)
    assert torch.equal(y[:, :, 0], x[:, :, 0])
    assert not torch.allclose(y[:, :, 1:], x[:, :, 1:])


@pytest.mark.parametrize(("kernel", "stride", "frames"), [(1, 1, 4), (3, 2, 8), (5, 2, 6), (3, 1, 3)])
def test_tubelets_are_a_3d_convolution(kernel, stride, frames):
    conv = nn.Conv3d(3, DIM, (kernel, 4, 4), (stride, 4, 4), (kernel // 2, 0, 0))
    video = torch.randn(2, frames, 3, 12, 16)
    wanted = conv(video.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(ops.tubelets(video, conv.weight, conv.bias, stride), wanted, atol=1e-5, rtol=1e-5)


def test_inflated_weights_see_the_centre_frame_only():
    image = torch.randn(DIM, 3, 4, 4)
    video = torch.randn(1, 8, 3, 12, 16)
    of_tubelets = ops.tubelets(video, inflate(image, 3), None, 2)
    of_frames = F.conv2d(video[0, ::2], image, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(of_tubelets[0], of_frames)


def test_temporal_conv_is_a_depthwise_convolution():
    x, weight, bias = torch.randn(2, 7, 3, DIM), torch.randn(DIM, 3), torch.randn(DIM)
    rows = x.permute(0, 2, 3, 1).flatten(0, 1)  # [B L, D, T]
    wanted = F.conv1d(rows, weight[:, None], bias, padding=1, groups=DIM).unflatten(0, (2, 3)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ops.temporal_conv(x, weight, bias), wanted, atol=1e-5, rtol=1e-5)


def gradients(function, *inputs):
    """Result and gradients of all inputs, for a loss that treats no element like another."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y = function(*leaves)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).bfloat16().to(y.dtype)
    return [y, *torch.autograd.grad(y, leaves, direction)]


def assert_near(found, wanted, *, relative):
    for ours, plain in zip(found, wanted, strict=True):
        assert plain.norm() > 0
        assert (ours.double() - plain.double()).norm() < relative * plain.double().norm()


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_temporal_conv_by_images_is_shifted_multiply_adds(kernel, dtype, relative):
    inputs = (
        torch.randn(2, 7, 3, DIM, dtype=dtype),
        torch.randn(DIM, kernel, dtype=dtype),
        torch.randn(DIM, dtype=dtype),
    )
    assert_near(gradients(ops.temporal_conv, *inputs), gradients(ops.shifted_multiply_adds, *inputs), relative=relative)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5), (5, 1, 3)])
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 1), (3, 2, 7, 1)])
def test_depthwise_conv3d_is_pytorchs_with_gradients_of_its_own(shape, kernel, dtype, relative):
    """Against float64: for two frames PyTorch's own gradient of bfloat16 weights is wrong on some processors."""
    x, weight, bias = torch.randn(*shape, DIM), torch.randn(DIM, 1, *kernel), torch.randn(DIM)
    inputs = [tensor.to(dtype) for tensor in (x, weight, bias)]
    wanted = gradients(ops.conv3d_of_tokens, *(tensor.double() for tensor in inputs))
    assert_near(gradients(ops.depthwise_conv3d, *inputs), wanted, relative=relative)


@pytest.mark.parametrize(("shape", "kernel"), [((2, 5, 3, 4), 3), ((1, 1, 2, 2), 3), ((1, 4, 6, 5), 5)])
def test_conv2d_per_tap_is_pytorchs_conv3d(shape, kernel):
    x = torch.randn(*shape, 6, dtype=torch.float64)
    weight, bias = torch.randn(6, 1, kernel, kernel, kernel, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    found = gradients(ops.conv2d_per_tap, x, weight, bias)
    for ours, wanted in zip(found, gradients(ops.conv3d_of_tokens, x, weight, bias), strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize(("kernel", "stride", "bias"), [(1, 1, True), (3, 2, False), (3, 1, True), (2, 2, False)])
def test_cut_tubelets_are_what_a_convolution_sees(kernel, stride, bias):
    video, weight = torch.randn(2, 8, 3, 12, 18), torch.randn(8, 3, kernel, 4, 6)
    shift = torch.randn(8) if bias else None
    cut = F.linear(ops.cut_tubelets(video, kernel, stride, (4, 6)), weight.flatten(1), shift)
    torch.testing.assert_close(cut, ops.tubelets(video, weight, shift, stride), rtol=1e-4, atol=1e-4)


def test_depthwise_conv3d_under_autocast_gives_float32_gradients_to_float32_weights():
    inputs = torch.randn(2, 5, 4, 3, DIM), torch.randn(DIM, 1, 3, 3, 3), torch.randn(DIM)
    wanted = gradients(ops.conv3d_of_tokens, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(ops.depthwise_conv3d, *inputs)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16] + [torch.float32] * 3
    assert_near(found, wanted, relative=1e-2)


def test_attention_of_a_bfloat16_training_step_is_as_near_as_pytorchs():
    """Both against float64; that which is computed in float32 is the nearer one."""
    wide = [torch.randn(6, 4, 33, 16, dtype=torch.float64) for _ in range(3)]
    half = [tensor.bfloat16() for tensor in wide]
    exact = gradients(F.scaled_dot_product_attention, *[tensor.double() for tensor in half])
    found, native = gradients(ops.frame_attention, *half), gradients(F.scaled_dot_product_attention, *half)
    assert all(tensor.dtype == torch.bfloat16 for tensor in found)
    for ours, theirs, wanted in zip(found, native, exact, strict=True):
        error, native_error = ((tensor.double() - wanted).norm() / wanted.norm() for tensor in (ours, theirs))
        assert error < 0.01
        assert error < 1.1 * native_error


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_quick_gelu_is_the_sigmoid_form(dtype, relative):
    x = torch.linspace(-30, 30, 1001, dtype=dtype)
    assert_near(gradients(QuickGELU(), x), gradients(lambda x: x * torch.sigmoid(1.702 * x), x), relative=relative)


@pytest.mark.parametrize("make", [lambda: FeedForward(DIM, dropout=0.5), lambda: FeedForward(DIM)])
def test_in_training_less_is_kept_and_the_gradients_are_the_same(make, monkeypatch):
    module = randomize(make()).train()
    x = tokens()

    def run():
        torch.manual_seed(3)  # of the dropout
        kept = {}
        copied = copy.deepcopy(module)
        leaf = x.clone().requires_grad_()

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = copied(leaf)
        y.square().sum().backward()
        found = [y.detach(), leaf.grad, *(weight.grad for weight in copied.parameters()), *copied.buffers()]
        return found, sum(kept.values())

    found, kept = run()
    monkeypatch.setattr(residual, "checkpoint", lambda step, x, **options: step(x))
    wanted, kept_without = run()
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain, atol=0, rtol=0)
    assert kept < 0.85 * kept_without


def lora(layer, rank=2):
    """What adapters put into a layer's place: the layer, and a second path beside it."""

    class WithAdapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_layer = layer
            self.down, self.up = nn.Linear(layer.in_features, rank), nn.Linear(rank, layer.out_features)

        @property
        def weight(self):
            return self.base_layer.weight

        @property
        def bias(self):
            return self.base_layer.bias

        def forward(self, x):
            return self.base_layer(x) + self.up(self.down(x))

    return WithAdapter()


def double(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def replaced(layer):
    """As accelerate's hooks do it: a function in the place of the layer's ``forward``."""
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)
    return layer


WRAPPERS = {
    "adapter": lora,
    "parametrization": nn.utils.parametrizations.weight_norm,
    "hook": double,
    "replaced forward": replaced,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("case", "layer"),
    [
        ("GlobalCrossMHRA", "k"),
        ("GlobalCrossMHRA", "v"),
        ("LocalTemporalMHRA", "value"),
        ("FeedForward", "fc1"),
        ("FeedForward", "fc2"),
    ],
)
def test_a_layer_that_is_more_than_its_weight_is_called(case, layer, training, wrap):
    make, run, _ = CASES[case]
    torch.manual_seed(0)
    module, x = randomize(make()).train(training), 4 * tokens()
    before = run(module, x).detach()
    wrapped = wrap(getattr(module, layer))
    setattr(module, layer, wrapped)
    called = []
    noting = nn.modules.module.register_module_forward_hook(lambda layer, *_: called.append(layer))  # none of its own
    after = run(module, x)
    noting.remove()
    assert any(layer is wrapped for layer in called)
    if wrap is not nn.utils.parametrizations.weight_norm:  # which computes the same weight
        assert not torch.allclose(before, after, rtol=0.01)
    after.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in wrapped.parameters())


@pytest.mark.parametrize("wrap", [None, double, replaced])
def test_only_a_plain_norm_is_left_to_a_kernel(wrap, monkeypatch):
    """Which reads its weights; one that is more is called, before the operation."""
    module, x = randomize(GlobalUniBlock(DIM, 4)).eval(), tokens()
    given, operation = [], blocks.dispatch.cross_mhra
    monkeypatch.setattr(
        blocks.dispatch,
        "cross_mhra",
        lambda *args, norm, **rest: given.append(norm) or operation(*args, norm=norm, **rest),
    )
    before = module(x[:, 0, :1], x, GRID)
    if wrap is not None:
        wrap(module.norm_tokens)
        assert not torch.allclose(module(x[:, 0, :1], x, GRID), before, rtol=0.01)
    assert given == ([module.norm_tokens] if wrap is None else [module.norm_tokens, None])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["LocalUniBlock", "GlobalUniBlock"])
def test_a_block_of_plain_layers_compiles_as_one_graph(name, training):
    make, run, _ = CASES[name]
    module, x = randomize(make()).train(training), tokens()
    wanted = run(module, x)
    torch.testing.assert_close(run(torch.compile(module, fullgraph=True, backend="eager"), x), wanted)


@pytest.mark.parametrize("name", ["GlobalCrossMHRA", "FeedForward", "LocalTemporalMHRA"])
def test_with_layers_that_are_called_a_module_is_the_same_function(name, monkeypatch):
    make, run, _ = CASES[name]
    module, x = randomize(make().double()).eval(), tokens(torch.float64)
    direct = run(module, x)
    monkeypatch.setattr(blocks, "is_plain", lambda layer: False)
    torch.testing.assert_close(run(module, x), direct, rtol=1e-9, atol=1e-9)
    if hasattr(module, "fuse"):
        module.merge_linear()
        torch.testing.assert_close(run(module, x), direct, rtol=1e-9, atol=1e-9)


def test_positions_keep_their_prefix_and_change_their_grid():
    positions = torch.randn(2 + 16, DIM)
    assert ops.interpolate_positions(positions, (4, 4), (4, 4)) is positions
    other = ops.interpolate_positions(positions, (4, 4), (6, 5))
    assert other.shape == (2 + 30, DIM)
    assert torch.equal(other[:2], positions[:2])


def test_drop_path_leaves_out_whole_videos_and_keeps_the_mean():
    torch.manual_seed(0)
    module = DropPath(0.4)
    y = module(torch.ones(4000, 2, 3))
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 1 / 0.6]))
    assert all(len(video.unique()) == 1 for video in y)
    assert y.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(module.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def test_drop_path_per_token_shares_the_draw_of_a_position():
    torch.manual_seed(0)
    y = DropPath(0.5, own_dim=2)(torch.ones(2, 3, 100, 4))
    assert torch.equal(y, y[:1, :1, :, :1].expand_as(y))
    assert 20 < (y[0, 0, :, 0] == 0).sum() < 80


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DropPath(1.0), r"lies in \[0, 1\), got 1.0"),
        (lambda: GlobalSpatialMHRA(10, 4), "multiple of num_heads, got dim = 10 and num_heads = 4"),
        (lambda: GlobalCrossMHRA(10, 4), "multiple of num_heads"),
        (lambda: LocalTemporalMHRA(8, kernel_size=4), "must be odd"),
        (lambda: LocalTemporalMHRA(8, reduction=9), "at least one of the 8 channels"),
    ],
)
def test_wrong_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def embedding():
    return VideoEmbedding(
        torch.randn(DIM, 3, 3, 4, 4),
        bias=None,
        stride=2,
        prefix_tokens=torch.randn(1, DIM),
        has_class_token=True,
        positions=ImagePositions(torch.randn(13, DIM), GRID),
        norm=None,
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 3, 12), r"\[B, T, 3, height, width\], got \(2, 4, 3, 12\)"),
        ((2, 3, 4, 12, 16), r"video.transpose\(1, 2\)"),
        ((4, 3, 12, 16), r"The batch dimension is missing: video\.unsqueeze\(0\)"),
        ((2, 5, 3, 12, 16), "frames must be a multiple of 2, got 5; the nearest is 4"),
        ((2, 4, 3, 15, 16), "rows must be a multiple of 4, got 15; the nearest is 16"),
        ((2, 4, 3, 12, 1), "columns must be a multiple of 4, got 1; the nearest is 4"),
    ],
)
def test_clips_that_tubelets_do_not_tile_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        embedding()(torch.zeros(shape))


def test_embedding_takes_other_grids_and_lengths():
    assert embedding()(torch.zeros(1, 6, 3, 20, 8)).shape == (1, 3, 1 + 5 * 2, DIM)


def test_every_part_is_tested_here():
    parts = {name for name in blocks.__all__ if name[0].isupper()}
    assert parts - set(CASES) == {"QuickGELU"}
