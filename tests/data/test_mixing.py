from __future__ import annotations

import numpy as np
import pytest
import torch

from uniformerv2.data.augmentation import BatchMixing


def batch(size=4):
    """Each video is flat, at the number of its class."""
    label = torch.arange(size)
    return label.float().view(-1, 1, 1, 1, 1).expand(size, 3, 3, 16, 24).contiguous(), label


def mixed(seed=0, **fields):
    video, label = batch()
    return BatchMixing(num_classes=5, **fields)(video, label, rng=np.random.default_rng(seed))


def test_mixup_blends_each_video_with_the_one_before():
    video, target = mixed(cutmix_alpha=0)
    share = target[1, 1]
    assert 0 < share < 1
    expected = share * torch.arange(4) + (1 - share) * torch.arange(4).roll(1)
    assert torch.allclose(video[:, 0, 0, 0, 0], expected)
    assert torch.equal(video, video[:, :1, :1, :1, :1].expand_as(video))
    assert target[2].tolist() == pytest.approx([0, float(1 - share), float(share), 0, 0])


def test_cutmix_pastes_one_rectangle_into_all_frames():
    video, target = mixed(seed=1, mixup_alpha=0)
    pasted = video[2] == 1
    share = pasted.float().mean()
    assert 0 < share < 1
    assert torch.equal(pasted, pasted[:1, :1].expand_as(pasted))
    assert target[2].tolist() == pytest.approx([0, float(share), 1 - float(share), 0, 0])


def test_the_generator_decides_and_torchs_own_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    (first, _), (second, _), (other, _) = mixed(3), mixed(3), mixed(4)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_probabilities_are_kept():
    kinds = []
    for seed in range(1000):
        video, _ = mixed(seed, mixup_alpha=20, cutmix_alpha=20, probability=0.5, cutmix_probability=0.25)
        original, _ = batch()
        kinds.append(
            "none" if torch.equal(video, original) else "mixup" if video[0].unique().numel() == 1 else "cutmix"
        )
    shares = [kinds.count(kind) / 1000 for kind in ("none", "mixup", "cutmix")]
    assert shares == pytest.approx([0.5, 0.375, 0.125], abs=0.05)


def test_targets_are_soft_also_where_nothing_is_mixed():
    video, target = mixed(probability=0)
    assert torch.equal(video, batch()[0])
    assert torch.equal(target, torch.eye(5)[:4])


def test_multi_hot_labels_are_mixed_as_they_are():
    video, _ = batch()
    label = torch.eye(5)[:4] + torch.eye(5)[1:5]
    _, target = BatchMixing(num_classes=5)(video, label, rng=np.random.default_rng(0))
    assert torch.allclose(target.sum(1), torch.full((4,), 2.0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixup_alpha": -1}, "mixup_alpha is -1"),
        ({"probability": 2}, "probability is 2"),
        ({"cutmix_probability": float("nan")}, "cutmix_probability is nan"),
        ({"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_arguments_outside_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BatchMixing(**{"num_classes": 5, **fields})


def test_what_cannot_be_mixed_is_refused():
    video, label = batch()
    mix, rng = BatchMixing(num_classes=3), np.random.default_rng(0)
    with pytest.raises(ValueError, match="labels go from 0 to 3, of 3 classes"):
        mix(video, label, rng=rng)
    with pytest.raises(ValueError, match="normalise it before"):
        mix(video.to(torch.uint8), label, rng=rng)
