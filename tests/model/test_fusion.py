"""The four fusions against the equations of the paper, written out."""

from __future__ import annotations

import pytest
import torch

from tests.model.test_blocks import DIM, GRID, randomize, tokens
from uniformerv2.model.blocks import GlobalUniBlock
from uniformerv2.model.fusion import FUSIONS


def make(name, num_stages=3):
    return randomize(FUSIONS[name]([GlobalUniBlock(DIM, 4) for _ in range(num_stages)], DIM)).eval()


def written_out(name, fusion, layers):
    """X_N by the table at the top of fusion.py."""
    stages = fusion.stages
    queries = [token.expand(2, 1, -1) for token in fusion.video_token]
    if name == "sequential":
        return stages[2](stages[1](stages[0](queries[0], layers[0], GRID), layers[1], GRID), layers[2], GRID)[:, 0]
    if name == "parallel":
        answers = [stage(query, x, GRID)[:, 0] for stage, query, x in zip(stages, queries, layers, strict=True)]
        return fusion.proj(torch.cat(answers, dim=1))
    if name == "hierarchical_kv":
        first = stages[0](queries[0], layers[0], GRID)
        second = stages[1](queries[1], layers[1], GRID, extra=first)
        return stages[2](queries[2], layers[2], GRID, extra=second)[:, 0]
    first = stages[0](queries[0], layers[0], GRID)
    second = stages[1](torch.cat([first, queries[1]], dim=1), layers[1], GRID)
    return stages[2](torch.cat([second, queries[2]], dim=1), layers[2], GRID).mean(dim=1)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_is_the_papers(name):
    fusion, layers = make(name), [tokens() for _ in range(3)]
    torch.testing.assert_close(fusion(layers, GRID), written_out(name, fusion, layers))


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_gets_a_gradient(name):
    fusion = make(name)
    fusion([tokens() for _ in range(3)], GRID).square().sum().backward()
    for key, parameter in fusion.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", FUSIONS)
def test_one_stage_is_enough(name):
    assert make(name, 1)([tokens()], GRID).shape == (2, DIM)


def test_no_stage_is_refused():
    with pytest.raises(ValueError, match="at least one stage"):
        make("sequential")([], GRID)
