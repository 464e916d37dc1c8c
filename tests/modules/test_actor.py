"""Promises of modules/actor.py: actions inside the limits, proposals that begin where the last plan ended."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from modules.actions import BoxActions
from modules.actor import Actor, Config, Policy, distillation_loss
from modules.heads import StateEmbedding
from modules.planners import PLANNERS
from modules.planners import Config as PlannerConfig
from modules.types import Directive, Goal, State

SPACE = BoxActions((-1.0, 0.0), (1.0, 4.0))
BALL = BoxActions((-2.0, -2.0), (2.0, 2.0), max_norm=2.0)
BLOCK = 2


def actor(space: BoxActions = SPACE) -> Actor:
    torch.manual_seed(0)
    policy = Policy(Config(hidden=16), space, StateEmbedding(6, 1, None, 16), StateEmbedding(6, 1, None, 16))
    return Actor(policy, {k: partial(v, PlannerConfig()) for k, v in PLANNERS.items()})


def states(n: int, scale: float = 1.0, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(scale * torch.randn(n, 6, generator=generator), torch.randn(n, 1, generator=generator))


def directive(goal: State | None = None, horizon: int = 3, planner: str = "cem", warm_start: bool = True) -> Directive:
    return Directive(goal and Goal(goal), {}, {}, 0.9, "terminal", 2, planner, horizon, 8, 2, 1, warm_start)


@pytest.mark.parametrize("space", [SPACE, BALL])
def test_the_policy_stays_inside_the_action_space(space):
    a = actor(space)
    actions = a.act(states(200, 300.0), directive(states(200, 300.0, seed=1)))
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    assert actions.shape == (200, 2) and (actions >= low).all() and (actions <= high).all()
    assert (actions == low).any() or space.max_norm, "the inputs are strong enough to meet the limits"
    if space.max_norm:
        assert (actions.norm(dim=-1) <= space.max_norm + 1e-5).all()
        assert (actions.norm(dim=-1) > space.max_norm - 1e-3).any()


def test_the_policy_needs_a_goal():
    with pytest.raises(ValueError, match=r"no goal.*mode 2"):
        actor().act(states(1), directive(None))


def test_distillation_is_in_half_action_ranges():
    policy, state, goal = actor(SPACE).policy, states(5), states(5, seed=1)
    with torch.no_grad():
        planned = policy(state, Goal(goal))
    assert distillation_loss(policy, state, goal, planned).item() == 0
    off = planned + torch.tensor([1.0, 0.0])
    assert distillation_loss(policy, state, goal, off).item() == pytest.approx(0.5, rel=1e-4)
    off = planned + torch.tensor([0.0, 2.0])  # half of a range of 4
    assert distillation_loss(policy, state, goal, off).item() == pytest.approx(0.5, rel=1e-4)


def test_the_policy_learns_what_plans_say():
    policy, state, goal = actor(SPACE).policy, states(32), states(32, seed=1)
    wanted = SPACE.project(torch.stack([state.latent[:, 0], 2 + goal.latent[:, 0]], 1))
    optimiser = torch.optim.Adam(policy.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        loss = distillation_loss(policy, state, goal, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_a_first_proposal_does_not_move():
    start = actor().propose(directive(), torch.empty(3, 0, 2), BLOCK)
    assert start.shape == (3, 3, 2, 2)
    assert torch.equal(start, torch.tensor([0.0, 2.0]).expand(3, 3, 2, 2)), "the middle of the action range"


def test_a_warm_start_is_the_rest_of_the_last_plan_and_then_no_movement():
    last = torch.arange(12.0).view(2, 3, 2)  # three primitive actions are left
    start = actor().propose(directive(), last, BLOCK).flatten(1, 2)
    assert torch.equal(start[:, :3], last)
    assert torch.equal(start[:, 3:], torch.tensor([0.0, 2.0]).expand(2, 3, 2))


def test_a_longer_rest_is_cut():
    last = torch.ones(2, 9, 2)
    assert torch.equal(actor().propose(directive(), last, BLOCK), torch.ones(2, 3, 2, 2))


def test_without_a_warm_start_the_last_plan_is_ignored():
    start = actor().propose(directive(warm_start=False), torch.ones(2, 4, 2), BLOCK)
    assert torch.equal(start, torch.tensor([0.0, 2.0]).expand(2, 3, 2, 2))


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient"])
def test_a_search_begins_at_the_proposal(planner):
    a = actor()
    start = a.propose(directive(), torch.full((2, 6, 2), 0.5), BLOCK)
    candidates = a.search(start, directive(planner=planner), torch.Generator().manual_seed(0)).ask()
    assert candidates.shape == (2, 8, 3, 2, 2)
    assert torch.equal(candidates[:, 0].detach(), start)


def test_the_status_follows_the_buffer():
    a = actor()
    assert a.status() == {"policy_trained": 0.0}
    a.trained.fill_(True)
    assert a.status() == {"policy_trained": 1.0} and bool(a.state_dict()["trained"])


def test_an_unknown_planner_is_named():
    a = actor()
    start = a.propose(directive(), torch.empty(1, 0, 2), BLOCK)
    with pytest.raises(ValueError, match=r"unknown planner 'cemm'.*cem, mppi, gradient, random"):
        a.search(start, directive(planner="cemm"), torch.Generator())


def test_the_policy_learns_through_its_goal_embedding():
    """A goal remembers its embedding only where nothing is learned: gradients reach the embedding of the goal."""
    policy, state, goal = actor().policy, states(5), Goal(states(5, seed=1))
    with torch.no_grad():
        policy(state, goal)
    assert policy.goal in goal.memo
    policy(state, goal).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.goal.parameters())
