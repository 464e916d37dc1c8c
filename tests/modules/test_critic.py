"""Promises of modules/critic.py: it equals numpy, learns shortest paths, and has a head for each drive."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.cost import CostModule
from modules.critic import Critic, critic_loss
from modules.types import BodySpec, Imagined, State
from tests.modules.by_hand import FEELING, GAMMA, SPACE, critical, distance, draw, make, tc, touched


def halves(cost: CostModule) -> tuple[Critic, Critic]:
    """The critic and its slow copy."""
    assert isinstance(cost.critic, Critic) and isinstance(cost.target, Critic)
    return cost.critic, cost.target


@pytest.mark.parametrize("heads", [("goal",), ("goal", "contact")])
@pytest.mark.parametrize("goal_proprio", [(), (0, 2)])
def test_the_critic_equals_numpy(goal_proprio, heads):
    cost = make(BodySpec(SPACE, ("x", "contact", "y"), goal_proprio=goal_proprio), heads=heads)
    critic, state, goal = halves(cost)[0], draw(4), draw(4, seed=1)
    found = critic(state, critic.goal(goal))
    assert found.shape == (4, len(heads), 2) and critic.names == heads
    np.testing.assert_allclose(found.detach().numpy(), tc(cost, state, goal), rtol=1e-9)
    assert (found > 0).all() and (found < 1 / (1 - GAMMA)).all()


# The loss


@pytest.mark.parametrize("ensemble", [1, 2])
def test_the_loss_of_a_goal_by_hand_and_nothing_flows_into_state_or_target(ensemble):
    cost = make(ensemble=ensemble)
    critic, target = halves(cost)
    state, futures, goal = draw(1, 2), draw(1, 2, 3, seed=1), draw(1, 4, seed=2)
    state.latent.requires_grad_()
    blocks = torch.tensor([1.0, 3.0, 1.0]).double()
    loss, metrics = critic_loss(critic, target, state.detach(), Imagined(futures, None), blocks, goal)
    errors, wanted = [], []
    for r in range(2):
        for g in range(4):
            here, there = state.detach()[0, r], goal[0, g]
            near, far, other = (tc(cost, futures[0, r, n], there).max() for n in range(3))
            after = min(near, 1 + GAMMA + GAMMA**2 * far, other)
            wanted.append(distance(here, there) * (1 + GAMMA * after))
            errors.append(np.square(tc(cost, here, there) - wanted[-1]))
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-9)
    assert metrics["critic"].item() == loss.item()
    assert metrics["critic_target"].item() == pytest.approx(np.mean(wanted), rel=1e-9)
    loss.backward()
    assert state.latent.grad is None
    assert all(p.grad is None and not p.requires_grad for p in target.parameters())
    assert any(p.grad.abs().sum() > 0 for p in critic.parameters())
    assert not any(v.requires_grad for v in metrics.values())


def test_the_loss_of_goal_and_contact_by_hand():
    """All heads follow one future: the one whose weighted sum is least."""
    weights = {"goal": 1.0, "contact": 4.0}
    cost = make(FEELING, ("goal", "contact"), heads=None, weights=weights)
    critic, target = halves(cost)
    with torch.no_grad():
        for p in target.parameters():
            p.mul_(1.3)  # another critic than the one that learns
    slow = CostModule(critic.drives, target)
    state, futures, goal = draw(1, 5), draw(1, 5, 3, seed=1), draw(1, 4, seed=2)
    blocks = [1, 3, 1]
    loss, _ = critic_loss(critic, target, state, Imagined(futures, None), torch.tensor(blocks).double(), goal)
    errors, changed = [], 0
    for r in range(5):
        for g in range(4):
            here, there = state[0, r], goal[0, g]
            follows = []
            for n, k in enumerate(blocks):
                after = futures[0, r, n]
                to_go = tc(slow, after, there).max(-1)  # pessimistic over the ensemble
                steps = [GAMMA**i for i in range(k)]
                toward = sum(steps[:-1]) + steps[-1] * to_go[0]
                touching = sum(steps) * touched(after) + GAMMA**k * to_go[1]
                follows.append((toward, touching))
            best = min(range(3), key=lambda n: follows[n][0] + 4.0 * follows[n][1])
            changed += best != min(range(3), key=lambda n: follows[n][0])
            away = distance(here, there)
            wanted = np.array([away * (1 + GAMMA * follows[best][0]), away * follows[best][1]])
            errors.append(np.square(tc(cost, here, there) - wanted[:, None]))
    assert changed > 0, "contact decides between futures somewhere"
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-9)


def test_a_drive_of_actions_is_asked_of_the_futures_actions():
    cost = make(FEELING, ("goal", "effort"), heads=None)
    state, futures, goal = draw(1, 2), draw(1, 2, 3, seed=1), draw(1, 4, seed=2)
    actions = torch.zeros(1, 2, 3, 4, 2, dtype=torch.float64)
    losses = [
        critic_loss(*halves(cost), state, Imagined(futures, a), torch.ones(3), goal)[0].item()
        for a in (actions, actions + 1)
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("heads", [("goal",), ("goal", "contact")])
def test_shuffled_labels_are_the_same_labels_at_other_pairs(heads):
    cost = make(FEELING, heads=heads, ensemble=1)
    critic, target = halves(cost)
    state, futures, goal = draw(2, 3), draw(2, 3, 4, seed=1), draw(2, 5, seed=2)
    drawn = critic, target, state, Imagined(futures, None), torch.ones(4), goal
    with torch.no_grad():
        right, told = critic_loss(*drawn)
        wrong, told_wrong = critic_loss(*drawn, shuffled=True)
        for p in (*critic.parameters(), *target.parameters()):
            p.zero_()  # a critic that says the same of every pair cannot tell the labels apart
        blind = [critic_loss(*drawn, shuffled=s)[0].item() for s in (False, True)]
    assert told["critic_target"].item() == pytest.approx(told_wrong["critic_target"].item(), rel=1e-12)
    assert abs(right.item() / wrong.item() - 1) > 1e-3 and blind[0] == pytest.approx(blind[1], rel=1e-12)


# Learning


def learn(cost: CostModule, places: State, futures: State, blocks: torch.Tensor, steps: int = 700) -> torch.Tensor:
    """The values (7, 7, J) of all places for all goals, after learning; and the last loss."""
    critic, target = halves(cost)
    optimiser = torch.optim.Adam(critic.parameters(), 5e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / (steps + 100))
        state = places.map(lambda x: x[None])
        loss, metrics = critic_loss(critic, target, state, Imagined(futures, None), blocks, state)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cost.update_target(0.1)
    assert metrics["critic"] < 0.01
    with torch.no_grad():
        return critic(places.map(lambda x: x[:, None]), critic.goal(places)[None]).mean(-1)


@pytest.mark.parametrize("far", [False, True])
def test_the_critic_learns_the_discounted_shortest_path(far):
    """Seven places in a row: from neighbours alone, and with places three steps away as further futures."""
    gamma = 0.8
    body = BodySpec(SPACE, goal_scale=0.01)
    cost = critical(body, size=(7, 0), gamma=gamma, hidden=48)
    places = State(torch.eye(7), torch.zeros(7, 0))
    neighbours = torch.stack([(torch.arange(7) - 1).clamp(min=0), (torch.arange(7) + 1).clamp(max=6)], 1)
    blocks = torch.ones(2)
    if far:
        three = torch.stack([torch.arange(7) - 3, torch.arange(7) + 3], 1)
        inside = (three >= 0) & (three <= 6)
        neighbours = torch.cat([neighbours, torch.where(inside, three, neighbours)], 1)
        blocks = torch.tensor([1.0, 1.0, 3.0, 3.0])  # at the ends: a detour of three steps to the neighbour
    value = learn(cost, places, places[neighbours].map(lambda x: x[None]), blocks)[..., 0]
    steps = (torch.arange(7)[:, None] - torch.arange(7)).abs()
    truth = (1 - gamma**steps) / (1 - gamma)
    assert (value - truth).abs().max() < 0.15 and truth.max() > 3.6


@pytest.mark.parametrize("weight", [0.0, 20.0])
def test_a_drive_that_weighs_much_makes_the_critic_value_the_detour(weight):
    """Seven places in a ring, and contact in place 1: from place 2 to place 0 it is two steps through it or five."""
    gamma = 0.8
    body = BodySpec(SPACE, ("contact",), goal_scale=0.01)
    cost = critical(body, ("goal", "contact"), {"contact": weight}, (7, 1), gamma, hidden=48)
    places = State(torch.eye(7), torch.zeros(7, 1))
    places.proprio[1] = 1
    neighbours = torch.stack([(torch.arange(7) - 1) % 7, (torch.arange(7) + 1) % 7], 1)
    value = learn(cost, places, places[neighbours].map(lambda x: x[None]), torch.ones(2), 1000)
    goal, contact = value[2, 0].tolist()
    taken = 2 if weight == 0 else 5
    assert goal == pytest.approx((1 - gamma**taken) / (1 - gamma), abs=0.2)
    assert contact == pytest.approx(1.0 if weight == 0 else 0.0, abs=0.2)
    assert value[0, 0].abs().max() < 0.2, "at the goal all costs end"
