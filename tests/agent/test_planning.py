"""Promises of agent/planning.py: what a search comes to, and what it asks of world model and cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agent.agent import Agent
from agent.planning import Level, Planned, imagine, plan
from modules.types import Directive, Imagined, State
from tests.helpers import born, directive_for, tiny, tiny_maze

E, N, H = 3, 5, 2
both = pytest.mark.parametrize("make", [tiny, tiny_maze])


def states(agent: Agent, count: int, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    sizes = agent.perception.latent_size, agent.perception.proprio_size
    return State(*(torch.randn(count, size, generator=generator) for size in sizes))


def candidates(agent: Agent, count: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    block, size = agent.world_model.action_block, agent.actor.actions.size
    return torch.randn(E, count, H, block, size, generator=generator)


def searched(agent: Agent, state: State, directive: Directive, last: Tensor | None = None, level=None) -> Planned:
    return plan(level or agent.level, state, directive, torch.Generator().manual_seed(0), last)


class Moving:
    """Every block adds the first of its actions, and the latent variable, to a latent of two numbers."""

    action_block = 4

    def __init__(self, z_size: int = 0) -> None:
        self.z_size = z_size
        self.asked: list[tuple[Tensor | None, Any]] = []

    def predict(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> State:
        return self.rollout(state, actions[:, None]).states[:, 0]

    def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
        self.asked.append((z, context))
        moves = actions[:, :, 0] if z is None else actions[:, :, 0] + z
        latent = state.latent[:, None] + moves.cumsum(1)
        apart = torch.ones(latent.shape[:2])
        return Imagined(State(latent, state.proprio[:, None].expand(-1, len(moves[0]), -1)), actions, z, apart)

    def status(self) -> dict[str, float]:
        return {}


# Imagining


@both
def test_each_candidate_is_imagined_from_its_episodes_state(make):
    agent, _ = born(make())
    state, actions = states(agent, E), candidates(agent)
    with torch.no_grad():
        imagined = imagine(agent.world_model, state, actions)
        assert imagined.states.batch_shape == (E, N, H) and imagined.actions is actions
        for e in range(E):
            for n in range(N):
                alone = agent.world_model.rollout(state[e : e + 1], actions[e, n][None]).states
                assert torch.allclose(imagined.states.latent[e, n], alone.latent[0], atol=1e-5)
                assert torch.allclose(imagined.states.proprio[e, n], alone.proprio[0], atol=1e-5)


def test_the_energy_can_be_differentiated_by_the_candidates():
    agent, _ = born(tiny())
    actions = candidates(agent).requires_grad_()
    directive = directive_for(agent, states(agent, E, 1))
    energy = agent.cost.trajectory(imagine(agent.world_model, states(agent, E), actions), directive).energy
    (gradient,) = torch.autograd.grad(energy.sum(), actions)
    assert (gradient.abs().flatten(2).sum(-1) > 0).all()


def test_latent_variables_and_disagreement_pass_through():
    agent, _ = born(tiny())
    model, actions = Moving(z_size=2), candidates(agent)
    z = torch.randn(E, N, H, 2)
    state = State(torch.zeros(E, 2), torch.zeros(E, 0))
    imagined = imagine(model, state, actions, z, context="a memory")
    assert torch.equal(imagined.z, z) and imagined.disagreement.shape == (E, N, H)
    assert torch.allclose(imagined.states.latent, (actions[:, :, :, 0] + z).cumsum(2), atol=1e-6)
    assert model.asked[0][1] == "a memory"


# Planning


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient", "random"])
@both
def test_a_plan_is_explained_by_its_cost_and_its_imagined_states(make, planner):
    agent, _ = born(make())
    state, directive = states(agent, E), directive_for(agent, states(agent, E, 1), planner=planner, iterations=3)
    found = searched(agent, state, directive)
    block, size = agent.world_model.action_block, agent.actor.actions.size
    assert found.plan.actions.shape == (E, directive.horizon, block, size) and found.plan.energy.shape == (E,)
    with torch.no_grad():
        imagined = agent.world_model.rollout(state, found.plan.actions)
        cost = agent.cost.trajectory(imagined, directive)
    assert torch.allclose(found.imagined.states.latent, imagined.states.latent, atol=1e-5)
    assert torch.allclose(found.plan.energy, cost.energy, rtol=1e-4)
    assert torch.equal(found.cost.energy, found.plan.energy)
    assert all(torch.allclose(found.cost.drives[k], v, atol=1e-5) for k, v in cost.drives.items())
    count = 1 if planner == "random" else directive.samples
    assert found.candidates.actions.shape == (E, count, *found.plan.actions.shape[1:])
    assert found.candidates.energy.shape == (E, count)
    assert not found.plan.actions.requires_grad and not found.candidates.actions.requires_grad


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient"])
def test_the_first_proposal_is_the_rest_of_the_last_plan_and_the_plan_is_never_worse(planner):
    agent, _ = born(tiny())
    state = states(agent, E)
    directive = directive_for(agent, states(agent, E, 1), planner=planner, samples=16, iterations=3)
    last = agent.actor.actions.project(candidates(agent, 1)[:, 0].flatten(1, 2)[:, :6])
    with torch.no_grad():
        for rest in (None, last):
            given = state.latent.new_empty(E, 0, 2) if rest is None else rest
            start = agent.actor.propose(directive, given, agent.world_model.action_block)
            expected = agent.cost.trajectory(imagine(agent.world_model, state, start[:, None]), directive).energy[:, 0]
            found = searched(agent, state, directive, rest)
            assert torch.allclose(found.proposal_energy, expected, rtol=1e-4)
            assert (found.plan.energy <= found.proposal_energy + 1e-6).all()


@pytest.mark.parametrize("planner", ["cem", "mppi"])
def test_a_plan_goes_where_the_cost_is_least(planner):
    """With a world that simply adds up actions, the best plan ends at the goal."""
    agent, _ = born(tiny())
    goal = State(torch.tensor([[0.5, -0.5], [-1.0, 0.2]]), torch.zeros(2, 0))
    state = State(torch.zeros(2, 2), torch.zeros(2, 0))
    directive = directive_for(agent, goal, planner=planner, samples=128, iterations=12, horizon=1, energy="last")
    found = searched(agent, state, directive, level=Level(Moving(), agent.cost, agent.actor))
    assert torch.allclose(found.imagined.states.latent[:, -1], goal.latent, atol=0.1)


def test_the_same_latent_variables_are_drawn_for_all_episodes_anew_in_each_iteration():
    agent, _ = born(tiny())
    model = Moving(z_size=2)
    state, goal = (State(torch.full((E, 2), x), torch.zeros(E, 0)) for x in (0.0, 0.5))
    directive = directive_for(agent, goal, iterations=2, samples=N, horizon=H)
    searched(agent, state, directive, level=Level(model, agent.cost, agent.actor))
    drawn = [z for z, _ in model.asked]
    assert len(drawn) == 3 and drawn[2] is None, "the chosen plan is imagined without noise"
    first, second = (z.unflatten(0, (E, N)) for z in drawn[:2])
    assert first.shape == (E, N, H, 2) and torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    assert not torch.equal(first, second) and first.std() > 0.5


def test_the_context_reaches_the_world_model():
    agent, _ = born(tiny())
    model = Moving()
    state = State(torch.zeros(E, 2), torch.zeros(E, 0))
    directive = directive_for(agent, state, iterations=2, samples=N, horizon=H)
    plan(Level(model, agent.cost, agent.actor), state, directive, torch.Generator(), context="a memory")
    assert [context for _, context in model.asked] == ["a memory"] * 3


def test_an_unknown_planner_is_named():
    agent, _ = born(tiny())
    state = states(agent, 1)
    with pytest.raises(ValueError, match=r"unknown planner 'cemm'.*cem, mppi, gradient, random"):
        searched(agent, state, directive_for(agent, state, planner="cemm"))


def test_planning_leaves_no_graph_and_no_gradients():
    agent, _ = born(tiny())
    state = states(agent, E)
    found = searched(agent, state, directive_for(agent, state, planner="gradient"))
    assert not found.plan.energy.requires_grad and not found.imagined.states.latent.requires_grad
    assert all(p.grad is None for module in agent.modules().values() for p in module.parameters())
