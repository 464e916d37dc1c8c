"""A perception with a carry in learning: windows come with what was before them, and a hidden velocity is found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import LearnConfig
from agent.inspection.probes import encode_some, features, held_out_r2, read, ridge
from agent.interaction.replay import Replay
from agent.learning.records import encode_at, remember
from agent.learning.updates import step_generator
from agent.learning.world_model import WorldModelUpdate
from modules import losses, perception, world_model
from modules.actions import BoxActions
from modules.perception import RecurrentEncoder, compose
from modules.types import Observation, ObservationSpec
from modules.world_model import JEPA, InverseDynamics
from tests.helpers import born, explored, tiny_maze


def recurrent(**learn: Any) -> tuple[Agent, Replay, WorldModelUpdate]:
    """A maze whose pieces have six blocks, and the update of a world model on windows of two states."""
    config = tiny_maze()
    config = dataclasses.replace(
        config,
        perception=dataclasses.replace(config.perception, carry="gru", carry_size=12),
        collect=dataclasses.replace(config.collect, length=6),
        learn=dataclasses.replace(config.learn, window=2, **learn),
    )
    agent, data = born(config)[0], explored(config)
    agent.set_goal(None)
    weights = losses.Config(multi_step=False)
    update = WorldModelUpdate(agent.perception, agent.world_model, agent.inverse, data, weights, config.learn)
    return agent, data, update


def drawn(update: WorldModelUpdate, data: Replay, seed: int) -> tuple[torch.Tensor, int]:
    return data.draw(update.learn.batch, update.learn.window, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("context", [16, 2])
def test_a_window_is_seen_with_the_moments_before_it(monkeypatch, context):
    """At most `context` of them, and no more than the piece has; only the window itself is learned from."""
    agent, data, update = recurrent()
    monkeypatch.setattr(agent.perception, "context", context)
    begins = set()
    for seed in range(12):
        episode, begin = drawn(update, data, seed)
        begins.add(begin)
        _, terms = update.loss(torch.Generator().manual_seed(seed))
        first = max(0, begin - context)
        with torch.no_grad():
            whole = agent.perception.encode_window(
                data.observe(episode, slice(first, None)), data.actions[episode, first:]
            )
            before, after = whole[:, begin - first], whole[:, begin - first + 1]
            guess = agent.world_model.predict(before, data.actions[episode, begin])
        assert terms["prediction"].item() == pytest.approx((guess.latent - after.latent).square().mean().item(), 1e-4)
        pairs = torch.stack([before.latent, after.latent], 1).flatten(0, 1)
        assert terms["variance"].item() == pytest.approx(losses.variance(pairs).item(), rel=1e-4)
    assert begins == set(range(6))


def test_what_came_before_a_window_teaches_the_carry():
    """Gradients reach the percepts before the window."""
    agent, data, update = recurrent()
    assert isinstance(agent.perception, RecurrentEncoder)
    seed = next(s for s in range(50) if drawn(update, data, s)[1] == 5)
    latents: list[torch.Tensor] = []
    agent.perception.encoder.head.register_forward_hook(
        lambda _, args, out: (out.retain_grad(), latents.append(out))[-1]
    )
    update.loss(torch.Generator().manual_seed(seed))[0].backward()
    (gradient,) = (x.grad for x in latents)
    assert gradient is not None and (gradient.unflatten(0, (-1, 7)).abs().amax((0, 2)) > 0).all()


def test_shuffled_actions_are_not_those_that_perception_is_told():
    (_, _, right), (_, _, wrong) = recurrent(), recurrent(shuffle_actions=True)
    found = [update.loss(step_generator(0, 0, 1))[1] for update in (right, wrong)]
    assert found[0]["variance"] == found[1]["variance"] and found[0]["prediction"] != found[1]["prediction"]


def test_records_and_single_moments_are_seen_as_in_life():
    agent, data, _ = recurrent()
    everyone = torch.arange(data.episodes)
    with torch.no_grad():
        whole = agent.perception.encode_window(data.observe(everyone, slice(None)), data.actions)
        episode, moment = torch.tensor([3, 1, 3, 0, 3]), torch.tensor([6, 0, 2, 5, 2])
        state, seen = encode_at(agent.perception, data, episode, moment)
    assert torch.allclose(state.latent, whole.latent[episode, moment], atol=1e-6)
    assert seen.sensors is not None and torch.equal(seen.sensors, data.observe(episode, moment).sensors)
    remember(agent.perception, agent.memory, data, 1000)
    records = agent.memory.records()
    at = records.episode, records.time // agent.world_model.action_block
    assert torch.allclose(records.state.latent, whole.latent[at], atol=1e-6)


# A world whose velocity no sensor gives

BLOCK, LENGTH, PIECES = 2, 8, 256
SPACE = BoxActions((-1.0,), (1.0,))


def swinging() -> tuple[Replay, torch.Tensor]:
    """A weight on a spring, pushed back and forth: its position is observed, its velocity (M, T+1, 1) is not."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (PIECES, LENGTH, BLOCK, 1)).astype(np.float32)
    position, velocity = rng.uniform(-1, 1, (PIECES, 1)), 0.4 * rng.uniform(-1, 1, (PIECES, 1))
    seen, hidden = [position], [velocity]
    for t in range(LENGTH):
        for k in range(BLOCK):
            velocity = 0.97 * velocity - 0.15 * position + 0.1 * actions[:, t, k]
            position = position + velocity
        seen, hidden = [*seen, position], [*hidden, velocity]
    replay = Replay()
    sensors = torch.from_numpy(np.stack(seen, 1)).float()
    replay.append({"actions": torch.from_numpy(actions), "sensors": sensors, "scene": np.zeros(PIECES, np.int64)})
    return replay, torch.from_numpy(np.stack(hidden, 1)).float()


def learned(carry: Any, replay: Replay, updates: int = 250) -> tuple[Any, JEPA]:
    """Perception and world model after some updates on windows of four states."""
    torch.manual_seed(0)
    assert replay.sensors is not None
    most = float(replay.sensors.abs().max())
    config = perception.Config(size=16, hidden=32, carry=carry, carry_size=32)
    see = compose(config, ObservationSpec(sensor_low=(-most,), sensor_high=(most,)), SPACE, BLOCK)
    model = JEPA(world_model.Config(action_block=BLOCK, hidden=64), 16, 0, SPACE)
    weights = losses.Config(prediction=1, variance=1, covariance=1, inverse=1)
    learn = LearnConfig(batch=64, window=4)
    update = WorldModelUpdate(see, model, InverseDynamics(16, 0, BLOCK, 32), replay, weights, learn)
    optimiser = torch.optim.Adam(update.parameters, 3e-3)
    for step in range(updates):
        optimiser.zero_grad()
        update.loss(step_generator(0, 0, step))[0].backward()
        optimiser.step()
    return see, model


@torch.no_grad()
def read_out(see: Any, model: JEPA, replay: Replay, hidden: torch.Tensor) -> tuple[float, float]:
    """Held-out R2 of a linear probe for the velocity: in perceived states, and in those predicted one block ahead."""
    episode = torch.arange(PIECES).repeat_interleave(LENGTH - 2)
    moment = torch.arange(2, LENGTH).repeat(PIECES)
    now, after = (encode_some(see, replay, episode, moment + ahead) for ahead in (0, 1))
    train, wanted = len(episode) * 3 // 4, hidden[episode, moment + 1]
    perceived = held_out_r2(features(now), hidden[episode, moment], train)
    guess = read(
        ridge(features(after)[:train], wanted[:train]), features(model.predict(now, replay.actions[episode, moment]))
    )
    rest = slice(train, None)
    predicted = 1 - (guess[rest] - wanted[rest]).square().mean() / wanted[rest].var(correction=0)
    return float(perceived), float(predicted)


def test_a_hidden_velocity_is_found_and_predicted_with_a_carry_only():
    replay, hidden = swinging()
    with_carry, without = (read_out(*learned(carry, replay), replay, hidden) for carry in ("gru", "none"))
    assert min(with_carry) > 0.8, "perceived, and predicted one block ahead"
    assert max(without) < 0.5


def test_windows_of_observations_alone_still_have_their_first_moments():
    """A goal: one moment, no actions, no history."""
    replay, _ = swinging()
    torch.manual_seed(0)
    see = compose(perception.Config(size=16, carry="gru"), ObservationSpec(None, (-9.0,), (9.0,)), SPACE, BLOCK)
    with torch.no_grad():
        alone = see.encode_window(Observation(sensors=replay.observe(torch.arange(4), slice(0, 1)).sensors))
        whole = see.encode_window(replay.observe(torch.arange(4), slice(None)), replay.actions[:4])
    assert torch.allclose(alone.latent[:, 0], whole.latent[:, 0], atol=1e-6)
