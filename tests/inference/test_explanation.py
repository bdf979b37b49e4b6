"""Explanations: weights that sum to one, outputs that stay the same, places that are right, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.export.networks import ARCHITECTURES, named
from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import FROZEN, MOTION, TINY, make
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.explanations.attention import read_by_definition, recorded_weights
from uniformerv2.inference.explanations.explanation import FORMAT, explain
from uniformerv2.inference.predictor import Predictor
from uniformerv2.media.decoding import VideoError, open_video


def predictor_of(model=None, **options):
    return Predictor(model or named(make(TINY)), precision="fp32", **{"num_crops": 1, **options})


def clip_for(model, batch=1):
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, model.config.num_frames, 3, height, width, generator=torch.Generator().manual_seed(3))


def read(model, video, **options):
    with torch.no_grad():
        return read_by_definition(model, model.read_tokens(video), model.embedding.grid(video), **options)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("explained") / "a.mp4", num_frames=30, size=(48, 80), fps=10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_sum_to_one_and_the_output_is_the_plain_one(name):
    model = ARCHITECTURES[name]()
    video = clip_for(model)
    reading = read(model, video)
    with torch.inference_mode():
        torch.testing.assert_close(reading.logits, model(video)[0], atol=2e-5, rtol=1e-5)
    weights = reading.weights
    stages, heads = len(model.config.fusion_stages), model.config.global_num_heads
    steps, grid = model.config.num_frames // model.config.tubelet_size, model.embedding.grid(video)
    assert weights.patches.shape == (stages, heads, steps, *grid)
    assert weights.prefix.shape == (stages, heads, steps, model.embedding.num_prefix_tokens)
    total = weights.patches.sum((2, 3, 4)) + weights.prefix.sum((2, 3)) + weights.video
    torch.testing.assert_close(total, torch.ones_like(total))
    assert min(weights.patches.min(), weights.prefix.min() if weights.prefix.numel() else 0) >= 0
    assert (weights.video[1:] > 0).all() == (model.config.fusion == "hierarchical_kv" and stages > 1)
    assert reading.relevance.patches.shape == weights.patches.shape
    assert reading.relevance.patches.sum() > 0
    assert all(not stage.cross._forward_hooks for stage in model.fusion.stages)


def test_c_mhra_gives_the_same_with_its_weights():
    cross = make(TINY).fusion.stages[0].cross
    query, tokens = torch.randn(2, 3, 32), torch.randn(2, 68, 32)
    output, weights = cross.with_weights(query, tokens)
    torch.testing.assert_close(output, cross(query, tokens))
    assert weights.shape == (2, 4, 3, 68)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))


def test_adapters_in_the_place_of_a_layer_are_called():
    model = make(TINY)
    for stage in model.fusion.stages:
        torch.nn.utils.parametrizations.weight_norm(stage.cross.k)
        stage.cross.v.register_forward_hook(lambda _layer, _inputs, output: output + 0.1)
        stage.norm_tokens.register_forward_hook(lambda _layer, _inputs, output: 1.1 * output)
    video = clip_for(model)
    with torch.inference_mode():
        wanted = model(video)[0]
    torch.testing.assert_close(read(model, video).logits, wanted, atol=2e-5, rtol=1e-5)


def test_a_weight_belongs_to_its_frame_row_and_column():
    """Score by score from the layers, for tokens that lie on the way."""
    model = make(replace(MOTION, image_size=(32, 48)))
    video = clip_for(model)
    reading = read(model, video)
    stage, heads = model.fusion.stages[0], model.config.global_num_heads
    with torch.no_grad():
        tokens = stage.norm_tokens(stage.position(model.read_tokens(video)[0], (4, 6)))[0]  # [T', N, C]
        query = stage.cross.q(stage.norm_query(model.fusion.video_token[0]))
        keys = stage.cross.k(tokens)
        for head in range(heads):
            part = slice(8 * head, 8 * head + 8)
            scores = (keys[..., part] * query[part]).sum(-1) / 8**0.5  # [T', N]
            wanted = scores.exp() / scores.exp().sum()
            found = reading.weights.patches[0, head]
            for step, row, column in ((0, 0, 0), (1, 2, 5), (1, 3, 1)):
                torch.testing.assert_close(found[step, row, column], wanted[step, 1 + 6 * row + column])
            torch.testing.assert_close(reading.weights.prefix[0, head, :, 0], wanted[:, 0])


@pytest.mark.parametrize("fusion", ["sequential", "parallel", "hierarchical_kv"])
def test_relevance_is_the_weight_times_what_it_does_to_the_logit(fusion, monkeypatch):
    """Finite differences: one weight of one head a little larger, and the logit anew."""
    model = make(replace(TINY, fusion=fusion)).double()
    video, target = clip_for(model).double(), 3
    reading = read(model, video, target=target)
    cross = model.fusion.stages[0].cross
    plain = cross.with_weights
    for head, place in ((0, 5), (2, 40)):

        def nudged(query, tokens, *, by, head=head, place=place):
            output, weights = plain(query, tokens)
            value = cross._heads(query, tokens)[2][:, head, place]  # [B, C / heads]
            moved = torch.zeros_like(output).unflatten(-1, (4, 8))
            moved[:, 0, head] = by * value
            return output + moved.flatten(-2) @ cross.proj.weight.T, weights

        logits = []
        for by in (1e-4, -1e-4):
            monkeypatch.setattr(cross, "with_weights", lambda query, tokens, by=by, f=nudged: f(query, tokens, by=by))
            with torch.no_grad(), recorded_weights(model):
                logits.append(model(video)[0, target])
        slope = (logits[0] - logits[1]) / 2e-4
        step, token = divmod(place, 17)
        weight = reading.weights.patches[0, head, step].flatten()[token - 1]
        found = reading.relevance.patches[0, head, step].flatten()[token - 1]
        assert found == pytest.approx(max(0.0, float(weight * slope)), rel=1e-3, abs=1e-9)
        monkeypatch.setattr(cross, "with_weights", plain)


def test_what_is_frozen_or_in_inference_mode_is_explained_too(video):
    model = named(make(TINY))
    wanted = predictor_of(model).explain(video, "c")
    model.requires_grad_(False)
    with torch.inference_mode():
        found = predictor_of(model).explain(video, "c")
    assert wanted.map.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.map, wanted.map, atol=1e-7)
    merged = predictor_of(named(make(TINY)).merge_linear()).explain(video, "c")
    np.testing.assert_allclose(merged.map, wanted.map, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_explanation_is_of_the_middle_view_or_of_one_that_is_named(video):
    predictor = predictor_of(num_clips=2, num_crops=3)
    prediction = predictor(video)
    middle = predictor.explain(video, "b")
    assert (middle.view.clip, middle.view.num_clips, middle.view.num_crops) == (0, 1, 1)
    alone = predictor_of(num_clips=1, num_crops=1)(video)
    assert middle.target.score == pytest.approx(float(alone.scores[1]), abs=1e-6)
    assert middle.view.frame_indices == alone.frame_indices[0]
    for view in range(6):
        found = predictor.explain(video, 1, view=view)
        assert (found.view.clip, found.view.crop) == divmod(view, 3)
        assert found.target.score == pytest.approx(float(prediction.view_scores[view, 1]), abs=1e-6)
        assert found.view.frame_indices == prediction.frame_indices[view // 3]
    with open_video(video) as reader:
        frames = reader.frames(range(len(reader)))
    same = predictor.explain(frames, 1, view=5)
    np.testing.assert_allclose(same.map, found.map, atol=1e-7)
    assert (same.video, same.view.frame_seconds) == ("array", None)
    assert found.view.frame_seconds == pytest.approx([number / 10 for number in found.view.frame_indices])
    with pytest.raises(ValueError, match="views 0 to 5, got 6"):
        predictor.explain(video, view=6)


def test_a_class_is_named_or_numbered_or_the_best(video):
    predictor = predictor_of()
    best = predictor(video).top(1)[0]
    assert predictor.explain(video).target.index == best.index
    assert predictor.explain(video, "d").target.index == predictor.explain(video, 3).target.index == 3
    assert predictor.explain(video, "3").target.name == "d"
    assert [one.index for one in predictor.explain(video).top] == [one.index for one in predictor(video).top(5)]
    for wrong in ("f", 5, -1, "9"):
        with pytest.raises(ValueError, match=f"has no class {wrong!r}.* by name or 0 to 4"):
            predictor.explain(video, wrong)
    with pytest.raises(ValueError, match="one of 'gradient', 'attention', got 'rollout'"):
        predictor.explain(video, method="rollout")


def test_several_labels_have_sigmoids(video):
    predictor = predictor_of(ARCHITECTURES["multi-label"]())
    assert predictor.explain(video, "b").target.score == pytest.approx(float(predictor(video).scores[1]), abs=1e-6)


def test_the_map_is_of_the_method(video):
    predictor = predictor_of()
    by_weight = predictor.explain(video, method="attention")
    by_gradient = predictor.explain(video, "a")
    other = predictor.explain(video, "b")
    for found, parts in ((by_weight, by_weight.weights), (by_gradient, by_gradient.relevance)):
        combined = parts.mean(axis=1).sum(axis=0)
        np.testing.assert_allclose(found.map, combined / combined.sum(), atol=1e-7)
        assert found.time_curve.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(by_gradient.weights, other.weights)
    assert not np.allclose(by_gradient.map, other.map)
    assert 0 < by_weight.prefix_share < 1
    assert by_weight.prefix_share == pytest.approx(float(by_weight.prefix_weights.sum()) / (2 * 4))


def test_what_the_gate_adds_is_told(video):
    assert predictor_of(named(make(FROZEN))).explain(video).class_token_share == 0
    model = named(make(TINY))
    for gate, share in ((-100.0, 0), (100.0, 1)):
        with torch.no_grad():
            model.fusion_gate.fill_(gate)
        found = predictor_of(model).explain(video)
        assert found.class_token_share == pytest.approx(share, abs=1e-6)
    assert not found.map.any()  # nothing comes through the video token any more
    assert found.time_curve.sum() == 0
    assert found.prefix_share == 0


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (50, 50)])
@pytest.mark.parametrize("fields", [{}, {"image_size": (32, 48)}, {"crop_order": "first_last_middle"}])
def test_a_crop_lies_where_its_box_says(size, fields):
    """The frame's colours are its coordinates: those of the crop's middle are the middle of the box."""
    height, width = size
    preprocessing = Preprocessing(**{"image_size": 32, "num_crops": 3, **fields})
    frame = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    frame[0, 0] = torch.arange(height)[:, None]
    frame[0, 1] = torch.arange(width)
    crops = preprocessing.resize_and_crop(frame)[:, 0]
    for crop, (top, left, rows, columns) in zip(crops, preprocessing.crop_boxes(height, width), strict=True):
        assert crop[0].float().mean().item() + 0.5 == pytest.approx(top + rows / 2, abs=0.6)
        assert crop[1].float().mean().item() + 0.5 == pytest.approx(left + columns / 2, abs=0.6)
        assert 0 <= top <= top + rows <= height + 1e-9
        assert 0 <= left <= left + columns <= width + 1e-9


def test_tubelets_belong_to_their_frames(video):
    found = predictor_of(named(make(MOTION))).explain(video)
    assert found.map.shape[0] == 2
    assert [found.step_of(place) for place in range(4)] == [0, 0, 1, 1]


def test_the_schema_of_the_json(video):
    found = predictor_of().explain(video, "b")
    content = json.loads(found.to_json(maps=True))
    assert set(content) == {
        *("format", "video", "target", "top", "method", "view", "grid", "time_curve", "blocks", "stage_shares"),
        *("prefix_share", "prefix_weights", "video_weights", "class_token_share", "map"),
    }
    assert content["format"] == FORMAT
    assert content["target"] == {"name": "b", "index": 1, "score": round(found.target.score, 6)}
    assert content["view"]["box"] == pytest.approx(found.view.box, abs=1e-3)
    assert content["grid"] == [4, 4, 4]
    assert np.array(content["map"]) == pytest.approx(found.map, abs=1e-6)
    assert content["time_curve"] == pytest.approx(found.time_curve.tolist(), abs=1e-6)
    assert content["blocks"] == [1, 2]
    assert sum(content["stage_shares"]) == pytest.approx(1, abs=1e-5)
    assert "map" not in json.loads(found.to_json())
    assert repr(found).startswith("<Explanation of 'b' (0.")


def test_what_cannot_be_explained_says_why(video, tmp_path):
    from tests.inference.test_engines import network  # an exported one, of which nothing is computed

    probe = replace(TINY, fusion="statistics", statistics=("class_mean",), use_gate=False)
    for config in (probe, replace(TINY, statistics=("class_mean",))):
        with pytest.raises(ValueError, match="no places to show"):
            predictor_of(named(make(config))).explain(video)
    predictor = predictor_of()
    predictor.network = network()
    with pytest.raises(ValueError, match="gives scores alone"):
        predictor.explain(video)
    model = named(make(TINY))
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(VideoError, match="no finite number"):
        predictor_of(model).explain(video)
    (tmp_path / "broken.mp4").write_bytes(video.read_bytes()[:2000])
    with pytest.raises(VideoError):
        predictor_of().explain(tmp_path / "broken.mp4")


def test_segments_and_variable_rates(tmp_path):
    ticks = [0, 40, 80, 400, 420, 440, 1000, 1500, 2000, 2600, 2640, 3000]
    video = make_video(tmp_path / "variable.mp4", frames=12, ticks=ticks)
    found = explain(predictor_of(), VideoRecord(str(video), start_seconds=0.9, end_seconds=2.61))
    assert min(found.view.frame_indices) >= 5
    assert max(found.view.frame_indices) <= 9
    assert found.view.frame_seconds == pytest.approx([ticks[n] / 1000 for n in found.view.frame_indices], abs=2e-3)
    for number in range(6):
        Image.new("RGB", (64, 48), (40 * number, 0, 0)).save(tmp_path / f"img_{number:03}.png")
    video.unlink()
    assert predictor_of().explain(tmp_path).view.frame_seconds is None
    with pytest.raises(VideoError, match="its frames have no times"):
        explain(predictor_of(), VideoRecord(str(tmp_path), start_seconds=1.0))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchcodec/frame_exceeds_screen.gif", None),  # one frame
        ("torchcodec/var_fps_video.mp4", None),
        ("torchcodec/nasa_13013_rotated.mp4", (480, 270)),  # as it is shown
        ("torchvision/v_SoccerJuggling_g23_c01.avi", (240, 320)),  # no presentation times
    ],
)
def test_odd_videos_are_explained(shared, name, size):
    found = predictor_of().explain(shared("data/odd_videos") / name)
    assert found.map.sum() == pytest.approx(1, abs=1e-5)
    view = found.view
    assert len(view.frame_indices) == 4
    if size:
        assert (view.frame_height, view.frame_width) == size
    top, left, height, width = view.box
    assert top >= 0
    assert left >= 0
    assert top + height <= view.frame_height + 1e-6
    assert left + width <= view.frame_width + 1e-6


def test_a_video_with_a_broken_middle_is_told(shared):
    with pytest.raises(VideoError, match="frame 30 of 50 cannot be decoded"):
        predictor_of().explain(shared("data/odd_videos/decord/corrupted.mp4"))
