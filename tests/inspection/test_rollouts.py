"""Promises of what is held out of any Gymnasium environment, and of the errors of imagination there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.build import build
from agent.config import ExploreConfig
from agent.drawing import figures
from agent.drawing.frames import SEEN
from agent.drawing.rendering import picture, svg
from agent.errors import UserError
from agent.inspection import episode_plans, rollouts
from agent.inspection.sight import Sight
from agent.interaction.environment import environment_of
from agent.interaction.explore import explore
from agent.interaction.scaling import fitted
from agent.spec import EnvSpec
from envs.guard import Guarded
from modules.types import ObservationSpec
from tests.inspection.drift import born, config_of
from tests.interaction.counter import SPACE, Fails

BLOCK, HORIZON = 2, 3


@pytest.fixture(scope="module")
def drift():
    """Everything of one environment of curves: agent, environment, config, held-out pieces and episodes."""
    config = config_of()
    agent, environment = born(config)
    pieces = rollouts.pieces(config, environment, 6, SEEN - 1 + HORIZON, (0, 2))
    with Sight(environment) as sight:
        episodes = rollouts.watch(config, environment, sight, 2, SEEN - 1 + HORIZON, 0, renders=True)
        yield agent, environment, config, pieces, episodes, sight


# Errors


def test_root_mean_square_by_hand():
    """Sensor 0 is off by 3 and 4, sensor 1 by nothing: (sqrt(12.5) + 0) / 2."""
    mean, half = rollouts.root_mean_square(torch.tensor([[[3.0, 0.0]], [[-4.0, 0.0]]]))
    assert mean.tolist() == pytest.approx([12.5**0.5 / 2])
    influence = np.array([9, 16]) / (2 * 12.5**0.5) / 2
    assert half.tolist() == pytest.approx([1.96 * influence.std(ddof=1) / 2**0.5])


def test_the_interval_is_that_of_a_bootstrap():
    rng = np.random.default_rng(0)
    apart = rng.standard_normal((400, 1, 3)) * [1.0, 2.0, 0.1]
    _, half = rollouts.root_mean_square(torch.from_numpy(apart))
    again = [apart[rng.integers(400, size=400)] for _ in range(500)]
    spread = np.std([np.sqrt((x**2).mean(0)).mean() for x in again])
    assert float(half[0]) == pytest.approx(1.96 * spread, rel=0.15)


def test_a_perfect_model_has_no_error(drift):
    agent, _, _, pieces, _, sight = drift
    rollout = rollouts.roll(agent, pieces)
    with torch.no_grad():
        found = rollouts.errors(dataclasses.replace(rollout, imagined=rollout.state[:, SEEN:]), sight.names)
        real = rollouts.errors(rollout, sight.names)
    assert found["latent_mse"]["learned"] == found["sensor_error"]["learned"] == [0.0] * HORIZON
    assert set(found["sensor_error_by_name"].values()) == {0.0} and set(found["sensor_error_by_name"]) == {*sight.names}
    assert found["ratio_persistence"] == found["sensor_ratio_shuffled"] == 0
    assert min(real["sensor_error"]["learned"]) > 0 < min(real["latent_mse"]["learned"])


def test_persistence_is_how_far_the_sensors_really_went(drift):
    agent, environment, _, pieces, _, sight = drift
    seen = environment.spec.observation
    sensors = pieces.sensors.numpy()[..., :-1] / np.array(seen.proprio_scale)[:-1]
    went = np.sqrt(((sensors[:, SEEN:] - sensors[:, SEEN - 1 : SEEN]) ** 2).mean(0)).mean(-1)
    with torch.no_grad():
        found = rollouts.errors(rollouts.roll(agent, pieces), sight.names)
    assert found["sensor_error"]["persistence"] == pytest.approx(went, rel=1e-5)
    assert found["horizons"] == [1, 2, 3] and found["horizon"] == HORIZON and found["episodes"] == 6


def test_shuffled_imagines_the_actions_of_another_piece(drift):
    agent, _, _, pieces, _, _ = drift
    with torch.no_grad():
        rollout = rollouts.roll(agent, pieces)
        state = rollout.state[:1, SEEN - 1]
        for h in range(HORIZON):
            state = agent.world_model.predict(state, pieces.actions[-1:, SEEN - 1 + h])
    assert torch.allclose(rollout.shuffled.latent[0, -1], state.latent[0], atol=1e-5)


# What is held out


def test_no_piece_was_seen_in_training(drift):
    _, environment, config, pieces, episodes, _ = drift
    trained = explore(config.collect, environment, BLOCK, config.seed).sensors.reshape(-1, 5).numpy()
    for held in (pieces.sensors.reshape(-1, 5).numpy(), episodes[0].observations["sensors"]):
        assert not set(map(bytes, held[:, :4])) & set(map(bytes, trained[:, :4]))


def test_the_horizon_is_no_longer_than_an_episode():
    environment = born(config_of("DriftShort-v0"))[1]
    assert rollouts.possible(environment, BLOCK) == 11 // BLOCK - (SEEN - 1)
    assert rollouts.possible(dataclasses.replace(environment, max_steps=None), BLOCK) is None
    with pytest.raises(UserError, match="DriftTiny-v0 have at most 5 actions"):
        rollouts.possible(born(config_of("DriftTiny-v0"))[1], BLOCK)


def test_where_episodes_turn_out_to_be_short_pieces_are_those_of_training():
    config = config_of("DriftShort-v0")
    pieces = rollouts.pieces(config, born(config)[1], 2, 9, (0, 2))
    assert pieces.length == config.collect.length == 4 and pieces.episodes == 2


def test_an_episode_is_what_the_environment_does_with_its_actions(drift):
    _, environment, _, _, episodes, _ = drift
    assert len(episodes) == 2 and not np.array_equal(episodes[0].actions, episodes[1].actions)
    for one in episodes:
        assert one.length == len(one.actions) == rollouts.LONG and len(one.frames) == rollouts.LONG + 1
        env = environment.one(render_mode="rgb_array")
        observation, _ = env.reset(seed=one.seed)
        for t, block in enumerate(one.actions):
            assert np.array_equal(one.observations["sensors"][t], observation["sensors"])
            assert np.array_equal(one.frames[t], env.render())
            for action in block:
                observation, *_ = env.step(action)


def test_the_state_in_which_an_episode_terminates_stays():
    config = config_of("DriftEnding-v0")
    environment = born(config)[1]
    with Sight(environment) as sight:
        (one,) = rollouts.watch(config, environment, sight, 1, 5, 0, renders=True)
    sensors = one.observations["sensors"]
    assert 0 < one.length < rollouts.LONG == len(one.actions)
    assert (sensors[one.length :] == sensors[one.length]).all() and not (sensors[one.length - 1, :4] > 1.5).any()
    assert sensors[one.length, -1] == 1 and np.abs(sensors[one.length, :2]).max() > 1.5
    assert not one.actions[one.length :].any() and one.actions[: one.length - 1].any()
    assert len(one.frames) == rollouts.LONG + 1 and (one.frames[-1] == one.frames[one.length]).all()


def test_rendering_stops_when_time_is_up(drift):
    _, environment, config, _, _, sight = drift
    assert len(rollouts.watch(config, environment, sight, 5, 3, 0, renders=True, seconds=0.0)) == 1


# Sensors


def test_the_fan_begins_on_the_real_line_and_is_imagined_open_loop(drift):
    agent, environment, _, _, episodes, sight = drift
    names = [sight.names[2], sight.names[0]]
    with torch.no_grad():
        found = rollouts.fan(agent, episodes[0], sight, names, HORIZON)
    real = np.array(found["real"])
    assert found["names"] == names
    assert np.allclose(real, episodes[0].observations["sensors"][:, [2, 0]], rtol=1e-4)
    assert [f["from"] for f in found["futures"]] == list(range(SEEN - 1, rollouts.LONG, rollouts.EVERY))
    for future in found["futures"]:
        assert np.allclose(future["values"][0], real[future["from"]], rtol=1e-4, atol=1e-6)
    future, data = found["futures"][1], rollouts.as_replay(episodes[:1], rollouts.LONG)
    t = future["from"]
    with torch.no_grad():
        state = agent.perception.encode(data.observe(torch.tensor([0]), torch.tensor([t])))
        for h in range(HORIZON):
            state = agent.world_model.predict(state, data.actions[:, t + h])
            seen = environment.spec.observation
            values = state.proprio[0].numpy() * seen.proprio_scale + np.array(seen.proprio_offset)
            assert np.allclose(future["values"][h + 1], values[[2, 0]], rtol=1e-3, atol=1e-5)


def test_sensors_that_matter_come_first_and_copies_are_left_out(drift):
    _, environment, _, pieces, _, sight = drift
    a, b, c, d = sight.names
    varies = pieces.sensors.flatten(0, 1).std(0)[:4]
    expected = [sight.names[i] for i in varies.argsort(descending=True)]
    assert rollouts.telling(pieces, environment.spec, [], sight.names) == expected
    assert rollouts.telling(pieces, environment.spec, [d], sight.names, 2) == [d, next(n for n in expected if n != d)]
    sensors = pieces.sensors.clone()
    sensors[..., 1] = sensors[..., 0]
    twice = rollouts.Replay()
    twice.append({"sensors": sensors, "actions": pieces.actions, "scene": pieces.scene})
    assert not {a, b} <= set(rollouts.telling(twice, environment.spec, [], sight.names)) >= {c, d}


def test_a_goal_and_the_cost_of_a_task_say_which_sensors_matter():
    config = dataclasses.replace(config_of("Pendulum-v1", ("pendulum-upright",)), goal=("angular_velocity=1",))
    agent, environment = born(config)
    assert episode_plans.wanted_names(agent, environment) == ["angular_velocity", "sin_angle", "cos_angle"]


# Plans


def test_the_executed_line_is_what_the_environment_does(drift):
    agent, environment, _, _, _, sight = drift
    before = agent.generator.get_state(), torch.get_rng_state(), agent.task, agent.episode
    found = episode_plans.plans(agent, environment, sight, 0, 2)
    assert torch.equal(agent.generator.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])
    assert (agent.task, agent.episode) == before[2:]
    assert found[0].seed != found[1].seed
    for plan in found:
        env = environment.one()
        seen = [env.reset(seed=plan.seed)[0]["sensors"]]
        for block in plan.actions.numpy():
            for action in block:
                observation, *_ = env.step(action)
            seen.append(observation["sensors"])
        assert np.array_equal(plan.executed["sensors"], seen) and len(seen) == 4
        assert plan.energy <= plan.first + 1e-4 and plan.energies == sorted(plan.energies)
        told = episode_plans.as_numbers(agent, environment, sight, plan, sight.names[:2])
        assert np.allclose(told["chosen"][0], told["executed"][0], rtol=1e-4, atol=1e-6)
        assert np.array(told["candidates"]).shape == (len(plan.energies), 4, 2) and told["goal"] == {}
        with torch.no_grad():
            state = plan.chosen[:1]
            for block in plan.actions:
                state = agent.world_model.predict(state, block[None])
        assert torch.allclose(state.proprio, plan.chosen.proprio[-1:], atol=1e-5)


def test_a_plan_whose_episode_ends_is_executed_until_then():
    environment = born(config_of("DriftEnding-v0"))[1]
    env = environment.one()
    plan = torch.ones(8, BLOCK, 2)
    seen = episode_plans.execute(env, 3, plan, environment.spec.actions)["sensors"]
    assert 1 < len(seen) < 9 and seen[-1, -1] == 1 and not seen[:-1, -1].any()


def test_a_goal_in_readings_is_told_and_drawn_dashed():
    config = dataclasses.replace(config_of(drives=("goal",)), goal=("obs[1]=0.75",))
    agent, environment = born(config)
    with Sight(environment) as sight:
        found = episode_plans.plans(agent, environment, sight, 0, 2)
        told = [episode_plans.as_numbers(agent, environment, sight, one, ["obs[1]", "obs[0]"]) for one in found]
    assert [one["goal"] for one in told] == [{"obs[1]": 0.75}] * 2
    assert found[0].goal is not None and found[0].goal["sensors"][1] == 0.75
    drawn = svg(figures.sensor_plans(told, ["obs[1]", "obs[0]"], "Plans"), "one", "plans")
    assert ">goal<" in drawn and "obs[1]" in drawn and f"energy {told[0]['energy']:.4g}" in drawn
    without = [{**one, "goal": {}} for one in told]
    assert ">goal<" not in svg(figures.sensor_plans(without, ["obs[1]", "obs[0]"], "Plans"), "one", "plans")


# Figures


def test_a_future_that_flies_off_does_not_press_the_real_line_flat():
    numbers = {
        "names": ["speed"],
        "real": [[0.0], [1.0], [2.0]],
        "futures": [{"from": 1, "values": [[1.0], [1e30]]}, {"from": 2, "values": [[2.0], [None]]}],
    }
    figure = figures.sensor_fan(numbers)
    low, high = figure.axes[0].get_ylim()
    assert -1 < low < 0 and 2 < high < 3
    lines = [line.get_xydata() for line in figure.axes[0].get_lines()]
    assert any(np.array_equal(line, [[0, 0], [1, 1], [2, 2]]) for line in lines)
    assert "speed" in svg(figure, "one", "sensors")


@pytest.mark.parametrize("count", range(1, 7))
def test_every_sensor_has_a_chart_and_now_has_a_column_in_each(count):
    numbers = {"names": [f"s{i}" for i in range(count)], "real": [[0.0] * count, [1.0] * count], "futures": []}
    figure = figures.sensor_fan(numbers)
    drawn = picture(figure)
    columns = [figures.columns_at(figure, x) for x in (0.0, 1.0)]
    assert len(columns[0]) == count
    for (left, top, bottom), (right, _, _) in zip(*columns, strict=True):
        assert 0 < left < right < drawn.shape[1] and 0 < top < bottom < drawn.shape[0]
        assert (drawn[top:bottom, left - 3 : left + 4] < 128).any(), "the real line begins there"


def test_states_are_read_in_the_units_that_were_fitted():
    """Offset and scale come from the agent, which knows what was explored; the environment declares no limits."""
    config = config_of()
    environment = environment_of(config)
    replay = explore(config.collect, environment, BLOCK, 0)
    agent = build(config, fitted(environment.spec, replay))
    told = agent.spec.observation
    assert any(told.proprio_offset[:4]) and told.proprio_scale != environment.spec.observation.proprio_scale
    with torch.no_grad(), Sight(dataclasses.replace(environment, spec=agent.spec)) as sight:
        state = agent.perception.encode_window(replay.observe(torch.arange(3), slice(None)))
        assert sight.readings(agent, state) == pytest.approx(replay.sensors[:3, :, :4].numpy(), abs=1e-5)


def test_an_environment_that_fails_is_shown_until_it_does():
    """A fault ends the episode; it does not end the command, and nothing is rendered of what is broken."""
    asked: list[int] = []
    env = Guarded(lambda: Fails(0, 50, each=1, at=3, episodes=[0]))
    spec = EnvSpec(ObservationSpec(sensor_low=(-1.0,) * 5, sensor_high=(1.0,) * 5), SPACE)
    found = rollouts.episode(env, ExploreConfig(), spec, 1, (0, 5, 0), 8, lambda: asked.append(1), 9)
    assert found.length == 3 and len(asked) == 3, "the beginning and two sound steps"
    assert found.observations["sensors"].shape == (9, 5)
