"""What the phases of learning draw from: memory, scenes, successors, and the actions whose futures are imagined."""

import dataclasses

import numpy as np
import pytest
import torch

from agent.config import check
from agent.errors import UserError
from agent.interaction.environment import as_tensors
from agent.learning import critic, schedules, world_model
from agent.learning import records as learning_records
from envs.gym_env import as_observation
from tests.helpers import born, explored, tiny, tiny_maze


def remembered(config):
    agent, _ = born(config)
    data = explored(config)
    learning_records.remember(agent, data, config.learn.critic_records)
    return agent, data, agent.memory.records()


def test_memory_holds_what_was_perceived_in_whole_episodes():
    config = tiny(env="TwoRoomsRandom-v0")
    agent, data, records = remembered(config)
    assert agent.memory.size == 8 * 5  # 40 records hold eight episodes of four blocks and one more state
    for i in range(0, 40, 7):
        episode, moment = int(records.episode[i]), int(records.time[i]) // agent.world_model.action_block
        seen = data.observe(torch.tensor([episode]), torch.tensor([moment]))
        assert torch.allclose(records.state.latent[i], agent.perception.encode(seen).latent[0], atol=1e-5)
        if moment < data.length:
            assert torch.equal(records.action[i], data.actions[episode, moment])


def test_the_next_record_is_one_block_later_or_itself():
    agent, _, records = remembered(tiny())
    after = learning_records.next_record(records, agent.world_model.action_block)
    assert torch.equal(records.episode[after], records.episode)
    last = records.time == records.time.max()
    assert torch.equal(after[last], torch.arange(40)[last])
    assert torch.equal(records.time[after][~last], records.time[~last] + agent.world_model.action_block)


@pytest.mark.parametrize("env", ["TwoRooms-v0", "TwoRoomsRandom-v0"])
def test_records_are_drawn_from_one_scene(env):
    _, data, records = remembered(tiny(env=env))
    scenes = learning_records.Scenes(data, records)
    which = scenes.draw(30, torch.Generator().manual_seed(0))
    picked = scenes.pick(which, 20, torch.Generator().manual_seed(1))
    scene = torch.from_numpy(data.scene)[records.episode][picked]
    assert (scene == scene[:, :1]).all()
    assert len(scene[:, 0].unique()) == (1 if env == "TwoRooms-v0" else 4), "eight episodes, two a scene"
    assert len(picked.unique()) > 30, "and all of it"


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_held_actions_are_the_limits_and_half_of_them_in_all_directions(make):
    agent, simulator = born(make())
    actions = critic.held_actions(agent, torch.device("cpu"))
    assert actions.shape == (17, agent.world_model.action_block, 2)
    assert torch.equal(actions, actions[:, :1].expand_as(actions)) and not actions[0].any()
    norm = simulator.action_max_norm or np.inf
    assert (actions.norm(dim=-1) <= norm + 1e-4).all() and actions[1:9].norm(dim=-1).min() > 0.9 * min(norm, 1)
    assert torch.allclose(actions[9:], actions[1:9] / 2) and len(torch.unique(actions[:, 0], dim=0)) == 17


def test_the_window_must_fit_into_an_episode():
    config = tiny()
    check(dataclasses.replace(config, learn=dataclasses.replace(config.learn, window=5)))
    with pytest.raises(UserError, match=r"--learn\.window 6"):
        check(dataclasses.replace(config, learn=dataclasses.replace(config.learn, window=6)))


@pytest.mark.parametrize("far", [1, 3])
def test_futures_are_imagined_step_by_step(far):
    agent, simulator = born(tiny_maze())
    state = agent.perception.encode(
        as_tensors(as_observation(simulator.observe(simulator.reset(np.random.default_rng(0), 3))))
    )
    with torch.no_grad():
        imagined, blocks = critic.futures(agent, state, far)
        actions = critic.held_actions(agent, torch.device("cpu"))
        assert blocks.tolist() == [1.0] * 17 + ([3.0] * 8 if far == 3 else [])
        for n, k in ((0, 1), (5, 1), (16, 1), *(((17, 3), (24, 3)) if far == 3 else ())):
            held = actions[n if n < 17 else n - 16][None, None].expand(3, k, -1, -1)
            assert torch.allclose(
                imagined.proprio[:, n], agent.world_model.rollout(state, held).proprio[:, -1], atol=1e-5
            )


# Shams


def losses(**changes) -> tuple[dict[str, float], list[torch.nn.Parameter], torch.nn.Module]:
    """The terms of the world model's first loss under other settings of learning, what learns, and the encoder."""
    config = tiny()
    config = dataclasses.replace(config, learn=dataclasses.replace(config.learn, **changes))
    agent = born(config)[0]
    phase = world_model.world_model(agent, explored(config), config)
    loss, terms = phase.update(1, schedules.step_generator(0, 0, 1))
    loss.backward()
    return {k: v.item() for k, v in terms.items()}, phase.parameters, agent.perception


def test_shuffled_actions_change_what_is_predicted_and_not_what_is_seen():
    (right, *_), (wrong, *_) = losses(), losses(shuffle_actions=True)
    assert right["variance"] == wrong["variance"] and right["covariance"] == wrong["covariance"]
    assert right["prediction"] != wrong["prediction"] and right["inverse"] != wrong["inverse"]


def test_an_untrained_encoder_is_left_as_it_was_drawn():
    (learned, everything, _), (drawn, others, encoder) = losses(), losses(train_encoder=False)
    assert drawn == learned, "the first loss is the same"
    assert len(everything) == len(others) + len([*encoder.parameters()])
    assert all(p.grad is not None for p in others)
    assert all(p.grad is None for p in encoder.parameters()), "nothing is computed for it either"
