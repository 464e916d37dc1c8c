"""Promises of modules/heads.py and of Goal: what heads read of states and goals, and what a goal remembers of it."""

from __future__ import annotations

import pytest
import torch

from modules.heads import ProprioEmbedding, StateEmbedding
from modules.types import Goal, State


@pytest.mark.parametrize("map_shape", [None, (3, 4, 4)])
def test_a_state_embedding_takes_any_number_of_leading_axes(map_shape):
    torch.manual_seed(0)
    embed = StateEmbedding(48, 2, map_shape, 11)
    state = State(torch.randn(2, 5, 48), torch.randn(2, 5, 2))
    out = embed(state)
    assert out.shape == (2, 5, 11)
    assert torch.allclose(out[1, 3], embed(state[1, 3:4])[0], atol=1e-6)
    for other in (State(state.latent + 1, state.proprio), State(state.latent, state.proprio + 1)):
        assert (embed(other) - out).abs().amax(-1).min() > 1e-3, "it reads latent and proprio"


def test_a_goal_in_proprio_is_read_from_it_alone():
    torch.manual_seed(0)
    embed = ProprioEmbedding((0, 2), 5, octaves=2)
    goal = State(torch.randn(4, 6), torch.randn(4, 3))
    out = embed(goal)
    assert out.shape == (4, 5)
    assert torch.equal(embed(State(goal.latent + 1, goal.proprio + torch.tensor([0.0, 1.0, 0.0]))), out)
    assert not torch.allclose(embed(State(goal.latent, goal.proprio + torch.tensor([0.0, 0.0, 0.1]))), out)


@pytest.mark.parametrize("map_shape", [None, (3, 4, 4)])
def test_a_goal_is_embedded_once_by_each_head(map_shape):
    torch.manual_seed(0)
    one, other = (StateEmbedding(48, 2, map_shape, 11) for _ in range(2))
    state = State(torch.randn(2, 48), torch.zeros(2, 2))
    goal = Goal(state)
    with torch.no_grad():
        first = goal.embedded(one)
        assert torch.equal(first, one(state)) and goal.embedded(one) is first
        assert torch.equal(goal.embedded(other), other(state)), "another head reads for itself"
        renewed = Goal(state.map(lambda x: x + 1))
        assert not torch.allclose(renewed.embedded(one), first), "another goal is read anew"


def test_where_gradients_are_recorded_a_goal_is_always_embedded_anew():
    torch.manual_seed(0)
    embed = StateEmbedding(48, 2, None, 11)
    goal = Goal(State(torch.randn(2, 48), torch.zeros(2, 2)))
    assert goal.embedded(embed).requires_grad and not goal.memo
    with torch.no_grad():
        before = goal.embedded(embed)
        for parameter in embed.parameters():
            parameter.add_(1.0)
        assert goal.embedded(embed) is before, "without gradients the weights are taken to be the same"
    assert goal.embedded(embed).requires_grad and not torch.allclose(goal.embedded(embed), before)


def test_some_rows_of_a_goal_keep_what_was_read_of_them():
    torch.manual_seed(0)
    embed = StateEmbedding(48, 2, None, 11)
    goal = Goal(State(torch.randn(4, 48), torch.randn(4, 2)))
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        whole = goal.embedded(embed)
        some = goal[rows]
        assert torch.equal(some.state.latent, goal.state.latent[rows])
        assert torch.equal(some.memo[embed], whole[rows])
        assert torch.allclose(some.embedded(embed), embed(goal.state[rows]), atol=1e-6)
