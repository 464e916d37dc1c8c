"""Promises of agent/planning.py: what a search comes to, and what it asks of world model and cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agent.agent import Agent
from agent.planning import Level, Planned, imagine, plan
from modules.actions import DiscreteActions
from modules.actor import Actor, Policy
from modules.actor import Config as ActorConfig
from modules.cost import CostModule
from modules.drives import compose
from modules.planners import PLANNERS, Config
from modules.types import BodySpec, Directive, Goal, Imagined, State
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


# Discrete actions

MAZE = ["#########", "#S..#...#", "#.#.#.#.#", "#.#...#G#", "#########"]
STEPS = [(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0)]
TURNS = DiscreteActions((5,))


def find(letter: str) -> tuple[int, int]:
    return next((r, row.index(letter)) for r, row in enumerate(MAZE) if letter in row)


class Grid:
    """A place in a maze, as two numbers; a choice moves it where there is no wall, and latent variables add noise."""

    action_block = 1

    def __init__(self, continues: bool = True, z_size: int = 0, apart: bool = False) -> None:
        self.continues, self.z_size, self.apart = continues, z_size, apart
        self.asked: list[tuple[int, int]] = []
        """Candidates and steps of every rollout."""

    def predict(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> State:
        moves = torch.tensor(STEPS, dtype=torch.float32)[actions[:, 0].argmax(-1)]
        there = state.latent + moves
        row, column = there.round().long().unbind(-1)
        walls = torch.tensor([[c == "#" for c in line] for line in MAZE])
        blocked = walls[row.clamp(0, 4), column.clamp(0, 8)]
        return State(torch.where(blocked[:, None], state.latent, there) + (0 if z is None else 0.01 * z), state.proprio)

    def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
        self.asked.append(tuple(actions.shape[:2]))
        states = []
        for h in range(actions.shape[1]):
            state = self.predict(state, actions[:, h], None if z is None else z[:, h])
            states.append(state)
        whole = State.stack(states, 1)
        return Imagined(whole, actions, z, whole.latent.square().sum(-1) if self.apart else None)

    def status(self) -> dict[str, float]:
        return {}


def maze_level(model: Grid, merge: float = 0.25) -> Level:
    def read(state: State) -> Tensor:
        return state.latent.new_zeros(*state.batch_shape, 8)

    policy = Policy(ActorConfig(hidden=8), TURNS, read, read)
    planners = {name: lambda *a, f=f: f(Config(merge=merge, action_repeat=1), *a) for name, f in PLANNERS.items()}
    chosen = compose(("goal",), {}, {}, BodySpec(TURNS, goal_scale=0.01))
    return Level(model, CostModule(chosen), Actor(policy, planners))


def to_goal(count: int, planner: str, horizon: int, samples: int, **changes: Any) -> tuple[State, Directive]:
    """Starts (E, 2) and what is asked for: to be at the goal, which costs 1 (nearly) everywhere else."""
    start, goal = (torch.tensor([find(x)] * count, dtype=torch.float32) for x in "SG")
    if count > 1:
        start[1] = goal[1] - torch.tensor([1.0, 0.0])
    there = Goal(State(goal, goal[:, :0]))
    directive = Directive(there, {"goal": 1.0}, {}, 0.95, "terminal", 2, planner, horizon, samples, 20, 1)
    return State(start, start[:, :0]), directive.but(**changes)


def distance() -> int:
    """Steps from S to G, breadth first."""
    seen, front, steps = {find("S")}, {find("S")}, 0
    while find("G") not in front:
        front = {(r + a, c + b) for r, c in front for a, b in STEPS if MAZE[r + a][c + b] != "#"} - seen
        seen, steps = seen | front, steps + 1
    return steps


@pytest.mark.parametrize(("merge", "found"), [(0.25, True), (0.0, False)])
def test_a_beam_that_merges_states_is_a_breadth_first_search(merge, found):
    """No cost shows the way; with room for all 18 free cells the shortest one is found, else places repeat."""
    horizon = distance() + 2
    state, directive = to_goal(1, "beam", horizon, 18 * 5)
    planned = plan(maze_level(Grid(), merge), state, directive, torch.Generator())
    path = planned.imagined.states.latent[0].round().int().tolist()
    assert (list(find("G")) in path) == found
    if found:
        assert path.index(list(find("G"))) == distance() - 1, "no way is shorter"
        assert planned.plan.energy.item() == pytest.approx(distance() - 1, abs=0.01)
    assert planned.plan.actions.shape == (1, horizon, 1, 5) and planned.candidates.actions.shape[2] == horizon


@pytest.mark.parametrize("planner", ["cem", "mppi", "beam", "random"])
def test_a_discrete_plan_is_explained_by_its_cost_and_can_be_executed(planner):
    state, directive = to_goal(2, planner, 4, 60)
    level = maze_level(Grid())
    last = torch.eye(5)[torch.tensor([[3, 2], [0, 0]])]
    planned = plan(level, state, directive, torch.Generator().manual_seed(0), last)
    actions = planned.plan.actions
    assert actions.shape == (2, 4, 1, 5) and torch.equal(TURNS.project(actions), actions)
    cost = level.cost.trajectory(imagine(level.world_model, state, actions[:, None]), directive).energy[:, 0]
    assert torch.allclose(planned.plan.energy, cost, atol=1e-5)
    start = level.actor.propose(directive, last, 1)
    first = level.cost.trajectory(imagine(level.world_model, state, start[:, None]), directive).energy[:, 0]
    if planner != "random":
        assert torch.allclose(planned.proposal_energy, first, atol=1e-5)
        assert (planned.plan.energy <= planned.proposal_energy).all()
        assert planned.plan.energy[1] < 0.01 < planned.proposal_energy[1], "one step down, then stay"


@pytest.mark.parametrize("model", [{}, {"z_size": 2}, {"apart": True}], ids=["plain", "latent", "ensemble"])
def test_going_on_from_parents_gives_what_whole_rollouts_give(model, monkeypatch: pytest.MonkeyPatch):
    """Every round, what was imagined for a candidate is what a rollout of it gives; only its last step is asked for."""
    heard: list[Imagined] = []
    judge = CostModule.trajectory
    monkeypatch.setattr(CostModule, "trajectory", lambda self, x, d: (heard.append(x), judge(self, x, d))[1])
    state, directive = to_goal(2, "beam", 5, 40)
    grown, whole = Grid(**model), Grid(continues=False, **model)
    one, other = (plan(maze_level(m), state, directive, torch.Generator().manual_seed(0)) for m in (grown, whole))
    assert grown.asked == [(2, 5), (10, 1), *[(n, 1) for n, _ in grown.asked[2:6]], (2, 5)]
    assert [h for _, h in whole.asked] == [5, 1, 2, 3, 4, 5, 5]
    assert len(heard) == 14 and [x.states.latent.shape[2] for x in heard[:6]] == [5, 1, 2, 3, 4, 5]
    for x in heard[:6]:
        again = imagine(Grid(**model), state, x.actions, x.z)
        assert torch.allclose(again.states.latent, x.states.latent, atol=1e-5)
        assert (x.disagreement is None) == (not model.get("apart")) and (x.z is None) == (not grown.z_size)
        assert x.disagreement is None or torch.allclose(x.disagreement, again.disagreement, atol=1e-4)
    if not grown.z_size:  # other noise, other plans
        assert torch.equal(one.plan.actions, other.plan.actions) and torch.allclose(one.plan.energy, other.plan.energy)


@pytest.mark.parametrize("planner", ["cem", "mppi", "beam"])
def test_a_discrete_plan_does_not_depend_on_who_plans_beside_it(planner):
    state, directive = to_goal(2, planner, 6, 60)
    together = plan(maze_level(Grid()), state, directive, torch.Generator().manual_seed(0)).plan
    for e in range(2):
        alone = directive.but(goal=directive.goal and directive.goal[e : e + 1])
        found = plan(maze_level(Grid()), state[e : e + 1], alone, torch.Generator().manual_seed(0)).plan
        assert torch.equal(found.actions[0], together.actions[e])
        assert torch.allclose(found.energy[0], together.energy[e])
