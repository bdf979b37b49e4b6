"""The network against the published implementations: logits, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.parity import goldens
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.zoo.convert import convert

VARIANTS = ("scene", "temporal", "single_local", "frozen", "odd")


@pytest.fixture
def official(request, shared):
    """A tiny published model in our form, and its golden tensors."""
    path = shared(f"goldens/model/official_{request.param}.safetensors")
    constructor = goldens.read(shared("goldens/model/official_tiny.json"))[request.param]
    model = UniFormerV2(UniFormerV2Config(**goldens.official_fields(constructor)))
    model.load_state_dict(convert(goldens.official_state(path)).state)
    return model, path


@pytest.mark.parametrize("official", VARIANTS, indirect=True)
def test_logits_equal_the_published_codes(official):
    model, path = official
    golden = goldens.load_file(path)
    with torch.inference_mode():
        logits = model.eval()(golden["input"].transpose(1, 2))
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("official", VARIANTS, indirect=True)
def test_merged_logits_equal_the_published_codes(official):
    model, path = official
    golden = goldens.load_file(path)
    with torch.inference_mode():
        logits = model.merge_linear()(golden["input"].transpose(1, 2))
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize("official", VARIANTS, indirect=True)
def test_bfloat16_logits_are_near_the_published_codes(official, is_merged):
    """Weights and activations are rounded to 8 bits in every layer: 3 % of the logits' norm."""
    model, path = official
    golden = goldens.load_file(path)
    model = model.merge_linear() if is_merged else model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(golden["input"].transpose(1, 2)).float()
    error = (logits - golden["logits"]).norm() / golden["logits"].norm()
    assert 0 < error < 0.03


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler beside other work takes minutes
@pytest.mark.filterwarnings("ignore")  # of the compiler's own code, whatever the version
@pytest.mark.parametrize("official", ["temporal", "odd"], indirect=True)
def test_compiled_logits_equal_the_published_codes(official):
    model, path = official
    golden = goldens.load_file(path)
    video = golden["input"].transpose(1, 2)
    with torch.inference_mode():
        logits = torch.compile(model.merge_linear())(video)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = torch.compile(model)(video).float()
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=1e-5)
    assert (near - golden["logits"]).norm() / golden["logits"].norm() < 0.03


@pytest.mark.parametrize("official", ["scene", "temporal", "single_local", "frozen"], indirect=True)
def test_loss_and_gradients_equal_the_published_codes(official):
    model, path = official
    golden = goldens.load_file(path)
    loss = F.cross_entropy(model.train()(golden["input"].transpose(1, 2)), torch.tensor([3, 7]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden["train_loss"][0], atol=1e-5, rtol=0)
    wanted = goldens.tensors(path, "grad.")
    assert len(wanted) >= 5
    parameters = dict(model.named_parameters())
    for key, gradient in _renamed(wanted, goldens.official_state(path)).items():
        error = (parameters[key].grad - gradient).abs().max() / gradient.abs().max()
        assert error < 1e-4, f"{key}: relative error {error:.1e}"


def _renamed(gradients, state):
    """Gradients under our names: the converter of the weights is linear, so it converts gradients too."""
    filled = {key: gradients.get(key, torch.zeros_like(value)) for key, value in state.items()}
    known = {key: torch.full_like(value, key in gradients) for key, value in state.items()}
    names = [name for name, mask in convert(known).state.items() if mask.any()]
    converted = convert(filled).state
    return {name: converted[name] for name in names}


@pytest.mark.parametrize("kind", ["scene", "temporal"])
def test_features_and_logits_equal_mmaction2s(kind, shared):
    path = shared(f"goldens/model/mmaction_{kind}.safetensors")
    constructor = goldens.read(shared(f"goldens/model/mmaction_{kind}.json"))["backbone"]
    model = UniFormerV2(UniFormerV2Config(**goldens.official_fields(constructor)))
    model.load_state_dict(convert(goldens.tensors(path, "state.")).state)
    golden = goldens.load_file(path)
    with torch.inference_mode():
        features = model.eval().forward_features(golden["input"].transpose(1, 2))
        torch.testing.assert_close(model.forward_head(features, pre_logits=True), golden["features"], atol=1e-5, rtol=0)
        torch.testing.assert_close(model.forward_head(features), golden["logits"], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", goldens.FULL_SIZE)
def test_full_size_logits_equal_the_published_codes(case, shared):
    golden = goldens.read(shared("goldens/model/official_full_size.json"))[case]
    fields = {
        **goldens.FULL_SIZE[case],
        "image_size": golden["resolution"],
        "num_frames": golden["num_frames"],
        "num_classes": golden["num_classes"],
    }
    config = UniFormerV2Config(**fields)
    state = {key: goldens.generated(key, shape) for key, shape in goldens.official_shapes(config).items()}
    for key in list(state):
        if key.endswith("running_mean"):
            state[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    num_parameters = sum(value.numel() for key, value in state.items() if "running_" not in key and value.ndim)
    assert num_parameters == golden["params"]
    model = UniFormerV2(config)
    model.load_state_dict(convert(state).state)
    shape = (1, 3, golden["num_frames"], golden["resolution"], golden["resolution"])
    with torch.inference_mode():
        logits = model.eval()(goldens.full_size_input(case, shape).transpose(1, 2))
    torch.testing.assert_close(logits[0], torch.tensor(golden["logits"]), atol=1e-3, rtol=0)
