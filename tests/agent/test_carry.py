"""Promises of agent/agent.py: a perception with a carry has the same states in acting as in training."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.agent import Agent
from agent.interaction.driver import drive, steps
from agent.interaction.environment import Environment
from agent.interaction.replay import Pieces
from envs import SimVectorEnv
from modules.perception import RecurrentEncoder, unroll
from modules.types import Observation, State
from tests.agent.scenes import ready, scene, settings
from tests.helpers import tiny_maze

ROWS, MOMENTS = 3, 19
BEGINS = {0: [0], 1: [0, 6], 2: [0, 1, 10]}
"""The moments at which the episodes of each row begin: their blocks of four actions are out of phase."""


class Exact:
    """A carry of two parts, without products of matrices: every bit is the same in a batch of any size."""

    context, map_shape = 100, None

    def __init__(self, inner: Any) -> None:
        self.inner, self.latent_size, self.proprio_size = inner, inner.latent_size, inner.proprio_size

    def initial(self, episodes: int) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.zeros(episodes, self.latent_size), {"moments": torch.zeros(episodes)}

    def observe(self, carry: Any, observation: Observation, last_block: Tensor | None, is_first: Tensor) -> Any:
        assert observation.sensors is not None
        trace, count = torch.where(is_first[:, None], 0.0, carry[0]), torch.where(is_first, 0.0, carry[1]["moments"])
        if last_block is not None:
            for k, action in enumerate(last_block.flatten(1).unbind(1)):
                trace = trace + torch.where(is_first, 0.0, action * 0.7**k)[:, None]
        trace = 0.5 * trace + observation.sensors[:, :1] + count[:, None]
        return (trace, {"moments": count + 1}), State(trace, self.inner._proprio(observation))

    def encode_window(self, observations: Observation, actions: Tensor | None = None) -> State:
        return unroll(self, observations, actions)

    def status(self) -> dict[str, float]:
        return {}


def carrying(exact: bool, **changes: Any) -> tuple[Agent, Environment]:
    """An agent whose states depend on the past."""
    config = settings(tiny_maze(), iterations=1, horizon=2, **changes)
    perception = dataclasses.replace(config.perception, carry="none" if exact else "gru", carry_size=12)
    agent, environment = ready(dataclasses.replace(config, perception=perception))
    if exact:
        agent.perception = Exact(agent.perception)
    return agent, environment


def repeated(x: Tensor) -> Tensor:
    """One row as often as there are rows that act together: products of the same shapes have the same bits."""
    return x[None].repeat(ROWS, *[1] * x.ndim)


@pytest.mark.parametrize("how", [{"replan_every": 4}, {"replan_every": 1}, {"replan_every": 3}, {"mode": 1}], ids=str)
@pytest.mark.parametrize("exact", [True, False], ids=["sums", "gru"])
def test_states_at_the_ends_of_blocks_are_those_of_training(exact, how):
    """Bit for bit, also where episodes begin and end at different moments."""
    agent, environment = carrying(exact, **how)
    seen = np.stack([scene(environment, ROWS, t)[0] for t in range(MOMENTS)])
    agent.set_goal(scene(environment, ROWS, 99)[1])
    decisions = [agent.act(x, np.array([t in BEGINS[e] for e in range(ROWS)]))[1] for t, x in enumerate(seen)]
    block, ends = agent.world_model.action_block, 0
    for row, begins in BEGINS.items():
        for first, end in zip(begins, [*begins[1:], MOMENTS], strict=True):
            moments = range(first, end, block)
            percepts = Observation(sensors=torch.from_numpy(np.stack([seen[t, row] for t in moments])))
            done = torch.stack([d.action[row] for d in decisions[first : moments[-1]]] or [torch.zeros(2)])
            blocks = done.view(-1, block, 2) if len(moments) > 1 else torch.zeros(0, block, 2)
            window = percepts.map(repeated), repeated(blocks)
            with torch.no_grad():
                one_by_one, trained = unroll(agent.perception, *window), agent.perception.encode_window(*window)
            for i, t in enumerate(moments):
                lived = decisions[t].state
                assert torch.equal(lived.latent[row], one_by_one.latent[row, i]), (row, t)
                assert torch.equal(lived.proprio[row], trained.proprio[row, i])
                # The recurrent encoder encodes the percepts of a window in one product, of another shape.
                same = torch.equal if exact else torch.allclose
                assert same(lived.latent[row], trained.latent[row, i]), (row, t)
            ends += len(moments) - 1
    assert ends == 4 + 1 + 3 + 0 + 2 + 2
    assert len({tuple(d.action[0].tolist()) for d in decisions}) > 2, "the blocks differ"


def test_a_state_inside_a_block_is_seen_from_its_beginning():
    """With what has been executed of the block; the part to come counts as rest, and nothing of it is kept."""
    agent, environment = carrying(False, replan_every=4)
    seen = [scene(environment, 1, t)[0] for t in range(7)]
    agent.set_goal(scene(environment, 1, 99)[1])
    decisions = [agent.act(x)[1] for x in seen]
    perception, rest = agent.perception, agent.actor.actions.rest(decisions[0].action)
    percepts, nobody = [agent.sense(x)[0] for x in seen], torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        first, _ = perception.observe(perception.initial(1), percepts[0], None, ~nobody)
        for t in (1, 2, 3):
            executed = torch.stack([*(d.action[0] for d in decisions[:t]), *[rest] * (4 - t)])[None]
            expected = perception.observe(first, percepts[t], executed, nobody)[1]
            assert torch.equal(decisions[t].state.latent, expected.latent)
        whole = torch.stack([d.action[0] for d in decisions[:4]])[None]
        fourth, expected = perception.observe(first, percepts[4], whole, nobody)
    assert torch.equal(decisions[4].state.latent, expected.latent)
    assert torch.equal(agent.episode.carry, fourth), "later moments of the next block did not change it"


def test_what_is_recorded_of_a_life_gives_its_states_again():
    """The whole way: environments, the loop, pieces of a replay. Episodes end inside a block of four."""
    agent, environment = carrying(False, replan_every=3)
    envs = SimVectorEnv(environment.truth, ROWS, 10)
    envs.np_random = np.random.default_rng(0)
    goals = scene(environment, ROWS, 99)[1]
    agent.set_goal(goals)
    pieces, lived = Pieces(2, 4), []

    def act(moment):
        action, decision = agent.act(moment.observation, moment.is_first)
        lived.append((decision.time, decision.state))
        return action, decision

    drive(envs, act, steps(25), [pieces.add])
    recorded = pieces.joined(pieces.count)
    assert pieces.count == 2 * ROWS and recorded["actions"].shape == (6, 2, 4, 2)
    with torch.no_grad():
        found = agent.perception.encode_window(Observation(sensors=recorded["sensors"]), recorded["actions"])
    starts = [t for t, (time, _) in enumerate(lived) if int(time[0]) == 0]
    for episode, start in enumerate(starts[:2]):
        for i in range(3):
            again = found.latent[episode * ROWS : (episode + 1) * ROWS, i]
            assert torch.allclose(again, lived[start + 4 * i][1].latent, atol=1e-6), (episode, i)


def test_episodes_with_a_carry_are_each_as_if_acted_alone():
    agent, environment = carrying(False, replan_every=3)
    seen = np.stack([scene(environment, ROWS, t)[0] for t in range(MOMENTS)])
    goal = scene(environment, ROWS, 99)[1]

    def lived(rows: slice, first: int, end: int, begins: dict[int, list[int]]) -> list[Tensor]:
        agent.set_goal(goal[rows])
        out = []
        for t in range(first, end):
            agent.generator.manual_seed(7)
            mask = np.array([t in begins[e] for e in range(ROWS)][rows])
            out.append(agent.act(seen[t, rows], mask)[1].state.latent)
        return out

    together = lived(slice(None), 0, MOMENTS, BEGINS)
    for row, begins in BEGINS.items():
        alone = lived(slice(row, row + 1), begins[-1], MOMENTS, BEGINS)
        for t, state in enumerate(alone, begins[-1]):
            assert torch.allclose(together[t][row], state[0], atol=1e-4), (row, t)


def test_a_goal_is_encoded_as_a_first_moment():
    agent, environment = carrying(False)
    assert isinstance(agent.perception, RecurrentEncoder)
    seen, goal = scene(environment, ROWS)
    agent.set_goal(goal)
    held = agent.act(seen)[1].directive.goal
    everyone = torch.ones(ROWS, dtype=torch.bool)
    with torch.no_grad():
        _, expected = agent.perception.observe(agent.perception.initial(ROWS), agent.sense(goal)[0], None, everyone)
    assert held is not None and torch.allclose(held.state.latent, expected.latent, atol=1e-6)
    assert torch.equal(held.state.proprio, expected.proprio)
