"""Each planned addition is a new class or function, never surgery: every door is used for something that is not there.

One test for each door; nothing outside of the test is changed, and none is longer than 40 lines.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agent.interaction.driver import Moment, Transition, drive, steps
from agent.interaction.replay import Pieces, Replay
from agent.learning import schedules
from agent.planning import Level, plan
from modules import cost, drives
from modules.actor import Actor, Config, Policy
from modules.configurator import RuleConfigurator
from modules.cost import CostModule
from modules.perception import unroll
from modules.planners import PLANNERS
from modules.planners import Config as PlannerConfig
from modules.types import BodySpec, Directive, Goal, Imagined, Observation, Situation, State
from tests.helpers import born, directive_for, explored, tiny, tiny_maze


class Countdown(gym.Env):
    """An environment whose episodes last as many steps as it is told."""

    observation_space, action_space = spaces.Box(0, 99, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int) -> None:
        self.length, self.left = length, 0

    def reset(self, **_: Any) -> tuple[NDArray, dict]:
        self.left = self.length
        return np.array([self.left], np.float32), {}

    def step(self, action: NDArray) -> tuple[NDArray, float, bool, bool, dict]:
        self.left -= 1
        return np.array([self.left], np.float32), 0.0, self.left == 0, False, {}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_environments_end_at_different_moments(mode: AutoresetMode):
    """D1, D2: one loop, any autoreset mode; pieces never cross a reset and episodes are told when they begin."""
    envs = SyncVectorEnv([lambda: Countdown(3), lambda: Countdown(5)], autoreset_mode=mode)
    firsts: list[list[float]] = [[], []]

    def act(moment: Moment) -> tuple[NDArray, None]:
        for e in np.flatnonzero(moment.is_first):
            firsts[e].append(float(moment.observation[e, 0]))
        return np.zeros((2, 1), np.float32), None

    pieces, ends = Pieces(length=3, block=1), np.zeros(2, int)

    def count(step: Transition) -> None:
        ends[:] += step.ended
        assert (step.observation[step.ended] == 0).all(), "an episode's last observation is its own"

    drive(envs, act, steps(24), [pieces.add, count])
    assert set(firsts[0]) == {3.0} and set(firsts[1]) == {5.0}, "first observations are those of a reset"
    assert ends[0] > ends[1] >= 3
    replay = Replay()
    replay.append(pieces.joined(pieces.count))
    assert replay.sensors is not None
    assert bool((replay.sensors.diff(dim=1) == -1).all()), "no piece crosses a reset"


class Compass:
    """Full speed in any direction: two numbers whose norm is exactly 1. Verbs of `types.Actions`."""

    size = 2

    def project(self, actions: Tensor) -> Tensor:
        return nn.functional.normalize(actions + 1e-9, dim=-1)

    def rest(self, like: Tensor) -> Tensor:
        return like.new_tensor([1.0, 0.0])

    def unit(self, like: Tensor) -> Tensor:
        return like.new_ones(2)

    def features(self, actions: Tensor) -> Tensor:
        return actions

    scale = features

    def from_features(self, features: Tensor) -> Tensor:
        return self.project(features)

    boundary = features

    def primitives(self) -> Tensor:
        return torch.cat([torch.eye(2), -torch.eye(2)])

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()

    def to_env(self, actions: NDArray) -> NDArray:
        return np.arctan2(actions[..., 1], actions[..., 0])

    def from_env(self, actions: NDArray) -> NDArray:
        return np.stack([np.cos(actions), np.sin(actions)], -1)


class Adding:
    """A world model that adds what a linear map makes of the action: s[t+1] = s[t] + sum over the block of a W."""

    z_size = 0

    def __init__(self, weights: Tensor, block: int = 1) -> None:
        self.weights, self.action_block = weights, block

    def predict(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> State:
        moved = actions.sum(1) @ self.weights + (0 if z is None else z)
        return State(state.latent + moved, state.proprio)

    def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
        states = []
        for h in range(actions.shape[1]):
            state = self.predict(state, actions[:, h], None if z is None else z[:, h])
            states.append(state)
        return Imagined(State.stack(states, 1), actions, z)

    def status(self) -> dict[str, float]:
        return {}


def level_of(model: Any, actions: Any, names: tuple[str, ...] = ("goal",), **body: Any) -> Level:
    """A Level of a toy world model and intrinsic drives, without a critic."""
    read = nn.Linear(model.weights.shape[1], 8)
    policy = Policy(Config(hidden=8), actions, lambda s: read(s.latent), lambda s: read(s.latent))
    actor = Actor(policy, {name: lambda *a, f=f: f(PlannerConfig(), *a) for name, f in PLANNERS.items()})
    chosen = drives.compose(names, {}, {}, BodySpec(actions, saturate=False, **body))
    return Level(model, CostModule(chosen), actor)


def ask_for(goal: Tensor | None, *names: str, horizon: int = 4) -> Directive:
    """A directive that plans by CEM for a goal latent (E, D), each drive with weight 1."""
    reach = None if goal is None else Goal(State(goal, goal[:, :0]))
    weights = dict.fromkeys(names or ("goal",), 1.0)
    return Directive(reach, weights, {}, 0.95, "last", 2, "cem", horizon, 200, 6, 1)


def test_an_action_space_of_ones_own_is_planned_over():
    """D3: a class with the verbs of Actions; the same planner searches it, here directions without a strength."""
    level = level_of(Adding(torch.eye(2)), Compass())
    goal = torch.tensor([[2.0, 2.0], [0.5, -1.0]])
    start = State(torch.zeros(2, 2), torch.zeros(2, 0))
    planned = plan(level, start, ask_for(goal), torch.Generator().manual_seed(0))
    actions = planned.plan.actions
    assert torch.allclose(actions.norm(dim=-1), torch.ones(2, 4, 1)), "full speed in every step"
    assert torch.allclose(planned.imagined.states.latent[:, -1], goal, atol=0.2), "a near goal by a detour"


def test_an_update_of_ones_own_is_run_by_both_schedules():
    """D4: a class with a loss; offline to its end, online whenever it is ready."""

    class Mean:
        """Learns the mean of all actions."""

        name, steps, rate, shared = "mean", 150, 0.1, False

        def __init__(self, replay: Replay) -> None:
            self.replay, self.value, self.calls = replay, nn.Parameter(torch.ones(2)), [0, 0]
            self.parameters = [self.value]

        def ready(self, replay: Replay) -> bool:
            return replay.size >= 16

        def prepare(self, progress: Any, tabulate: bool) -> None:
            self.calls[tabulate] += 1

        def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            episode, begin = self.replay.draw(8, 2, generator)
            loss = (self.replay.actions[episode, begin].mean((0, 1)) - self.value).square().mean()
            return loss, {"mean": loss.detach()}

        def after(self) -> None: ...
        def finish(self) -> None: ...

    config = tiny()
    replay = explored(config)
    offline = Mean(replay)
    schedules.offline([offline], replay, config)
    growing = Replay()
    online, whole = Mean(growing), {"actions": replay.actions}
    schedules.online([online], growing, config, lambda _: growing.append(whole), rounds=10, ratio=15)
    assert offline.calls == [0, 1] and online.calls == [9, 0], "8 pieces are not enough: ready from the second round on"
    assert growing.size == 80
    for update in (offline, online):
        assert torch.allclose(update.value, replay.actions.mean((0, 1, 2)), atol=0.4)


def test_a_drive_of_ones_own_has_a_floor(monkeypatch: pytest.MonkeyPatch):
    """D5: one function and one line in a preset; critic head, weight, floor and hash follow."""

    def left(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
        return (imagined.states.proprio[..., body.proprio_names.index("x")] < 0).float()

    monkeypatch.setitem(drives.DRIVES, "left", left)
    config = tiny_maze(cost=cost.Config(("goal", "left"), {"left": 0.5}, {"left": 0.2}, goal_scale=0.02))
    agent, environment = born(config)
    assert agent.cost.critic is not None and agent.cost.critic.names == ("goal", "left")
    assert environment.truth is not None and environment.goals is not None
    tasks = environment.goals.sample_tasks(np.random.default_rng(0), 3)
    agent.set_goal(environment.truth.observe(tasks.goal)["sensors"], weights={"left": 0.0})
    _, decision = agent.act(environment.truth.observe(tasks.start)["sensors"])
    assert decision.directive.weights == {"goal": 1.0, "left": 0.2}, "no task goes below the floor"
    x = decision.state.proprio[:, 0]
    assert torch.allclose(decision.cost.drives["left"][:, 0], 0.2 * (x < 0).float())
    plain = born(tiny_maze())[0]
    assert drives.intrinsic_hash(list(agent.cost.drives.values())) != drives.intrinsic_hash(
        list(plain.cost.drives.values())
    )


def test_an_ensemble_fills_disagreement(monkeypatch: pytest.MonkeyPatch):
    """D6: a world model of several; a drive that looks at what they disagree about."""

    class Ensemble(Adding):
        def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
            members = [super(Ensemble, self).rollout(state, s * actions).states for s in (0.5, 1.5)]
            latents = torch.stack([m.latent for m in members])
            mean = State(latents.mean(0), members[0].proprio)
            return Imagined(mean, actions, disagreement=latents.std(0).mean(-1))

    monkeypatch.setitem(drives.DRIVES, "doubt", lambda imagined, goal, body: imagined.disagreement)
    level = level_of(Ensemble(torch.eye(2)), born(tiny_maze())[0].actor.actions, ("goal", "doubt"))
    start, goal = State(torch.zeros(1, 2), torch.zeros(1, 0)), torch.tensor([[3.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    bold = plan(level, start, ask_for(goal), generator)
    wary = plan(level, start, ask_for(goal, "goal", "doubt").but(weights={"goal": 1.0, "doubt": 50.0}), generator)
    assert bold.imagined.disagreement is not None and wary.imagined.disagreement is not None
    assert bold.imagined.disagreement.shape == (1, 4)
    assert float(wary.imagined.disagreement.sum()) < 0.2 * float(bold.imagined.disagreement.sum())


def test_a_predictor_with_a_latent_variable_is_planned_with():
    """D6: z is drawn for each candidate and step, and reaches the model and the cost."""

    class Noisy(Adding):
        z_size = 2

    drawn: list[Tensor] = []

    class Watching(Noisy):
        def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
            drawn.extend([] if z is None else [z])
            return super().rollout(state, actions, z, context)

    level = level_of(Watching(torch.eye(2)), born(tiny_maze())[0].actor.actions)
    start, goal = State(torch.zeros(2, 2), torch.zeros(2, 0)), torch.ones(2, 2)
    planned = plan(level, start, ask_for(goal), torch.Generator().manual_seed(0))
    assert len(drawn) == 6 and all(z.shape == (2 * 200, 4, 2) for z in drawn)
    assert abs(float(torch.cat(drawn).std()) - 1) < 0.05
    assert planned.imagined.z is None, "the chosen plan is imagined without noise"


def test_a_world_model_reads_memory():
    """D6: what `read` takes from memory for these states reaches every rollout as its context."""

    class Reminded(Adding):
        given: list[Any] = []

        def read(self, memory: Any, state: State) -> Tensor:
            return memory.recall(state.latent, top_k=1)

        def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
            self.given.append(context)
            return super().rollout(state, actions, z, context)

    agent, environment = born(tiny_maze())
    assert environment.truth is not None
    seen = environment.truth.observe(environment.truth.reset(np.random.default_rng(0), 2))["sensors"]
    agent.remember(agent.act(seen)[1])
    held = agent.memory.records().state.latent
    acting = agent.acting(world_model=Reminded(torch.zeros(2, held.shape[1]), agent.world_model.action_block))
    acting.act(seen)
    assert Reminded.given and all(torch.allclose(context, held, atol=1e-5) for context in Reminded.given)


def test_a_perception_may_carry_frames():
    """D7: the frame a block ago; the loop hands the carry on at the ends of blocks, a reset empties it for its row."""

    class Stacked:
        context = 2

        def __init__(self, inner: Any) -> None:
            self.inner, self.latent_size, self.map_shape = inner, inner.latent_size, inner.map_shape
            self.proprio_size = inner.proprio_size

        def initial(self, episodes: int) -> None:
            return None

        def observe(self, carry: Any, observation: Observation, last_block: Any, is_first: Tensor) -> Any:
            now = self.inner.encode(observation)
            before = now.latent if carry is None else torch.where(is_first[:, None], now.latent, carry)
            return now.latent, State((now.latent + before) / 2, now.proprio)

        def encode_window(self, observations: Observation, actions: Tensor | None = None) -> State:
            return unroll(self, observations, actions)

        def status(self) -> dict[str, float]:
            return {}

    agent, environment = born(tiny_maze())
    encode = agent.perception.encode  # pyright: ignore[reportAttributeAccessIssue]
    agent.perception = Stacked(agent.perception)
    assert environment.truth is not None
    block, truth = agent.world_model.action_block, environment.truth
    seen = [truth.observe(truth.reset(np.random.default_rng(t), 2))["sensors"] for t in range(block + 2)]
    frames = [encode(Observation(None, torch.from_numpy(x))).latent for x in seen]
    before = [0, 1]  # the moment at which the last block of each row began; the second row is reset at 1
    for t, x in enumerate(seen):
        _, decision = agent.act(x, np.array([t == 0, t <= 1]))
        expected = [(frames[t][e] + frames[min(before[e], t)][e]) / 2 for e in (0, 1)]
        assert torch.allclose(decision.state.latent, torch.stack(expected))
        before = [t if t == first + block else b for first, b in zip((0, 1), before, strict=True)]


def test_the_plan_above_is_the_goal_below():
    """D8: a hierarchy is a list of Levels: the upper one plans in steps of four of the lower one's."""
    box = born(tiny_maze())[0].actor.actions
    upper, lower = level_of(Adding(4 * torch.eye(2)), box), level_of(Adding(torch.eye(2)), box)
    state, goal = State(torch.zeros(1, 2), torch.zeros(1, 0)), torch.tensor([[6.0, -5.0]])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        above = plan(upper, state, ask_for(goal, horizon=2).but(energy="terminal"), generator)
        subgoal = above.imagined.states.latent[:, 0]
        below = plan(lower, state, ask_for(subgoal), generator)
        reached = below.imagined.states.latent[:, -1]
        assert torch.allclose(reached, subgoal, atol=0.4), "the lower level does what the upper one asks"
        state = State(reached, state.proprio)
    assert torch.allclose(state.latent, goal, atol=0.5)


def test_a_configurator_of_ones_own():
    """D9: one class behind `configure`; it sees the situation and sets every module."""

    class Careful:
        """Looks twice as far, and pursues a subgoal half-way, in episodes that plan for the first time."""

        def __init__(self, rules: RuleConfigurator) -> None:
            self.rules, self.seen = rules, []

        def configure(self, situation: Situation) -> Directive:
            self.seen.append(situation)
            directive = self.rules.configure(situation)
            if situation.last is not None or situation.goal is None:
                return directive
            there = situation.goal.state
            half = State((situation.state.latent + there.latent) / 2, (situation.state.proprio + there.proprio) / 2)
            return directive.but(goal=Goal(half), horizon=2 * directive.horizon)

    agent, environment = born(tiny())
    assert environment.truth is not None and isinstance(agent.configurator, RuleConfigurator)
    agent.configurator = careful = Careful(agent.configurator)
    pixels = environment.truth.observe(environment.truth.reset(np.random.default_rng(0), 1))["pixels"]
    agent.set_goal(pixels)
    decisions = [agent.act(pixels)[1] for _ in range(2)]
    plain = directive_for(born(tiny())[0], None)
    assert [d.directive.horizon for d in decisions] == [2 * plain.horizon, plain.horizon]
    assert decisions[0].plan is not None and decisions[0].plan.actions.shape[1] == 2 * plain.horizon
    assert careful.seen[1].last is decisions[0].directive and careful.seen[0].memory is agent.memory
    assert decisions[1].replanned, "a plan of another length is made anew"


def test_every_door_test_is_short():
    """Under 40 lines each; toys that several of them use stand beside them."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert node.end_lineno is not None and node.end_lineno - node.lineno < 40, node.name
