"""The official protocol on two real videos: frame indices exactly, and each view's mean and standard deviation."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import torch

from uniformerv2.data.transforms import Preprocessing


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads(shared("goldens/pipeline/multi_view_scores.json").read_text())


@pytest.fixture(scope="module")
def videos(shared, cases):
    """File name -> all frames, uint8 [N, C, H, W], straight from PyAV."""
    found = {}
    for name in {case["video"] for case in cases}:
        with av.open(str(shared(f"goldens/pipeline/{name}"))) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        found[name] = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return found


def specification(case, protocol):
    constructor = getattr(Preprocessing, protocol)
    names = ("num_frames", "num_clips", "num_crops")
    return constructor(image_size=case["resolution"], **{name: case[name] for name in names})


@pytest.mark.parametrize("protocol", ["official", "mmaction2"])
def test_frame_indices_are_the_published_ones(cases, protocol):
    assert len(cases) == 8
    for case in cases:
        assert specification(case, protocol).indices(case["frames_in_video"]) == case["frame_indices"]


def test_views_of_the_official_protocol_have_the_published_statistics(cases, videos):
    for case in cases:
        video, preprocessing = videos[case["video"]], specification(case, "official")
        assert len(video) == case["frames_in_video"]
        views = preprocessing.views([video[indices] for indices in preprocessing.indices(len(video))])
        assert len(views) == case["num_clips"] * case["num_crops"]
        means, stds = views.mean(dim=(1, 2, 3, 4)), views.std(dim=(1, 2, 3, 4))
        assert torch.allclose(means, torch.tensor(case["official_view_means"]), rtol=0, atol=1e-5)
        assert torch.allclose(stds, torch.tensor(case["official_view_stds"]), rtol=0, atol=1e-5)


def test_the_two_protocols_are_not_the_same_pixels(cases, videos):
    case = cases[0]
    views = []
    for protocol in ("official", "mmaction2"):
        preprocessing = specification(case, protocol)
        clips = [videos[case["video"]][indices] for indices in case["frame_indices"]]
        views.append(preprocessing.views(clips))
    assert views[0].shape == views[1].shape
    assert (views[0] - views[1]).abs().mean() > 0.01
