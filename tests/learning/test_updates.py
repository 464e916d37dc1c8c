"""What updates learn from: memory, scenes, successors, and the actions whose futures are imagined."""

import dataclasses

import numpy as np
import pytest
import torch

from agent.config import check
from agent.errors import UserError
from agent.evaluation.oracle import perceive
from agent.learning import records as learning_records
from agent.learning.critic import CriticUpdate, futures
from agent.learning.trainer import updates_of
from agent.learning.updates import step_generator
from agent.learning.world_model import WorldModelUpdate
from tests.helpers import born, explored, tiny, tiny_maze


def remembered(config):
    agent, _ = born(config)
    data = explored(config)
    learning_records.remember(agent.perception, agent.memory, data, config.learn.critic_records)
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


def critic_update(config) -> CriticUpdate:
    agent, _ = born(config)
    update = updates_of(agent, explored(config), config)[1]
    assert isinstance(update, CriticUpdate)
    return update


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_held_actions_are_the_limits_and_half_of_them_in_all_directions(make):
    update, environment = critic_update(make()), born(make())[1]
    actions = update.held
    assert actions.shape == (17, update.model.action_block, 2)
    assert torch.equal(actions, actions[:, :1].expand_as(actions)) and not actions[0].any()
    norm = environment.spec.actions.max_norm or np.inf
    assert (actions.norm(dim=-1) <= norm + 1e-4).all() and actions[1:9].norm(dim=-1).min() > 0.9 * min(norm, 1)
    assert torch.allclose(actions[9:], actions[1:9] / 2) and len(torch.unique(actions[:, 0], dim=0)) == 17


def test_the_window_must_fit_into_an_episode():
    config = tiny()
    check(dataclasses.replace(config, learn=dataclasses.replace(config.learn, window=5)))
    with pytest.raises(UserError, match=r"--learn\.window 6"):
        check(dataclasses.replace(config, learn=dataclasses.replace(config.learn, window=6)))


@pytest.mark.parametrize("far", [1, 3])
def test_futures_are_imagined_step_by_step(far):
    agent, environment = born(tiny_maze())
    state = perceive(agent.perception, environment.truth, environment.truth.reset(np.random.default_rng(0), 3))
    held = agent.actor.actions.primitives()[:, None].expand(-1, agent.world_model.action_block, -1)
    with torch.no_grad():
        imagined, blocks = futures(agent.world_model, state, held, far)
        assert blocks.tolist() == [1.0] * 17 + ([3.0] * 8 if far == 3 else [])
        for n, k in ((0, 1), (5, 1), (16, 1), *(((17, 3), (24, 3)) if far == 3 else ())):
            led = held[n if n < 17 else n - 16]
            path = agent.world_model.rollout(state, led[None, None].expand(3, k, -1, -1)).states
            assert torch.allclose(imagined.states.proprio[:, n], path.proprio[:, -1], atol=1e-5)
            assert torch.allclose(imagined.states.latent[:, n], path.latent[:, -1], atol=1e-5)
            assert imagined.actions is not None
            assert torch.equal(imagined.actions[:, n], led.expand(3, -1, -1)), "drives see what led there"


@pytest.mark.parametrize("make", [tiny, tiny_maze])
@pytest.mark.parametrize("far", [1, 2])
def test_tabulated_futures_give_the_loss_of_those_imagined_for_each_batch(make, far):
    """Up to the half precision in which they are kept."""
    config = make()
    config = dataclasses.replace(config, learn=dataclasses.replace(config.learn, critic_far=far))
    update = critic_update(config)
    found = {}
    for tabulate in (True, False):
        update.prepare(None, tabulate)
        assert (update._table is not None) == tabulate
        loss, metrics = update.loss(step_generator(0, 1, 2))
        loss.backward()
        assert all(p.grad is None for p in update.model.parameters()), "imagining is not what learns here"
        found[tabulate] = {"loss": loss, **metrics}
    for name, value in found[True].items():
        assert value.item() == pytest.approx(found[False][name].item(), rel=2e-2), name
    assert found[True]["loss"].item() > 0


def test_futures_are_imagined_anew_when_the_world_model_has_learned():
    update = critic_update(tiny_maze())
    update.prepare(None, tabulate=False)
    before = update._futures(torch.zeros(1, 1, dtype=torch.long))[0].latent
    for p in update.model.parameters():
        p.data.mul_(1.5)
    after = update._futures(torch.zeros(1, 1, dtype=torch.long))[0].latent
    assert not torch.equal(before, after)


# Placebos


def losses(**changes) -> tuple[dict[str, float], list[torch.nn.Parameter], torch.nn.Module]:
    """The terms of the world model's first loss under other settings of learning, what learns, and the encoder."""
    config = tiny()
    config = dataclasses.replace(config, learn=dataclasses.replace(config.learn, **changes))
    agent = born(config)[0]
    update = updates_of(agent, explored(config), config)[0]
    assert isinstance(update, WorldModelUpdate)
    loss, terms = update.loss(step_generator(0, 0, 1))
    loss.backward()
    return {k: v.item() for k, v in terms.items()}, update.parameters, agent.perception


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
