"""Promises of modules/cost.py: energies equal hand computation, IC is immutable, the critic learns shortest paths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.interaction.environment import as_tensors
from envs.gym_env import as_observation
from modules import cost
from modules.cost import Anatomy, Config, Costs, critic_loss, goal_distance
from modules.perception import ProprioEmbedding, StateEmbedding
from modules.types import ActionSpace, Directive, State
from tests.helpers import born, tiny, tiny_maze, train_tiny

SPACE = ActionSpace((-2.0, -2.0), (2.0, 2.0))
GAMMA = 0.9


def directive(goal: State | None, **changes) -> Directive:
    base = Directive(goal, {"goal": 1.0}, 1.0, GAMMA, "terminal", 2, "cem", 3, 4, 2, 1)
    return dataclasses.replace(base, **changes)


BODY = Anatomy(SPACE)


def make(anatomy: Anatomy = BODY, latent: int = 6, proprio: int = 3, **changes) -> Costs:
    torch.manual_seed(0)
    config = Config(**{"hidden": 7, "ensemble": 2, "goal_scale": 0.5, **changes})
    return critical(config, anatomy, latent, proprio, GAMMA).double()


def critical(config: Config, anatomy: Anatomy, latent: int, proprio: int, gamma: float) -> Costs:
    """Costs that read a vector latent; goals by their proprio where the anatomy says so."""
    state, index = StateEmbedding(latent, proprio, None, config.hidden), anatomy.goal_proprio
    goal = ProprioEmbedding(index, config.hidden) if index else StateEmbedding(latent, proprio, None, config.hidden)
    return Costs(config, anatomy, state, goal, gamma)


def draw(*batch: int, latent: int = 6, proprio: int = 3, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.randn(*batch, latent, generator=generator, dtype=torch.float64),
        torch.randn(*batch, proprio, generator=generator, dtype=torch.float64),
    )


def tc(costs: Costs, state: State, goal: State) -> np.ndarray:
    """The critic again, in numpy: (..., M)."""
    w = {k: v.detach().numpy() for k, v in costs.critic.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    s, g = (np.concatenate([x.latent.numpy(), x.proprio.numpy()], -1) for x in (state, goal))
    if costs.anatomy.goal_proprio:
        g = goal.proprio.numpy()[..., list(costs.anatomy.goal_proprio)]
    x = linear(silu(linear(silu(linear(s, "state.head") + linear(g, "goal.head")), "heads.1")), "heads.3")
    return 1 / (1 + np.exp(-x)) / (1 - GAMMA)


def distance(states: State, goal: State) -> np.ndarray:
    """Saturated goal distance in the latent, scale 0.5."""
    d = np.square(states.latent.numpy() - goal.latent.numpy()).mean(-1)
    return 1 - np.exp(-d / 0.5)


# Drives


@pytest.mark.parametrize("proprio", [(), (0, 2)])
@pytest.mark.parametrize("saturate", [True, False])
def test_goal_distance_is_zero_at_the_goal_and_grows(proprio, saturate):
    config, anatomy = Config(goal_scale=0.5, saturate=saturate), Anatomy(SPACE, proprio)
    goal = draw(5)
    assert goal_distance(goal, goal, anatomy, config).tolist() == [0.0] * 5
    steps = [goal_distance(goal.map(lambda x, e=e: x + e), goal, anatomy, config) for e in (0.1, 0.2, 0.4)]
    assert (steps[0] > 0).all() and (steps[1] > steps[0]).all() and (steps[2] > steps[1]).all()
    d = 0.4**2 * (len(proprio) or 1) / 0.5
    assert steps[2][0].item() == pytest.approx(1 - np.exp(-d) if saturate else d)


def test_goals_in_slots_leave_the_latent_alone():
    goal = draw(4)
    elsewhere = State(goal.latent + 5, goal.proprio + torch.tensor([0.0, 9.0, 0.0]))
    assert goal_distance(elsewhere, goal, Anatomy(SPACE, (0, 2)), Config()).tolist() == [0.0] * 4


def test_effort_and_contact_by_hand():
    actions = torch.tensor([[[2.0, 0.0], [1.0, -2.0]]])
    assert cost.effort(actions, Anatomy(SPACE)).tolist() == [(1 + 0 + 0.25 + 1) / 4]
    states = State(torch.zeros(3, 2), torch.tensor([[9.0, -0.5], [9.0, 0.5], [9.0, 1.5]]))
    assert cost.contact(states, Anatomy(SPACE, contact_proprio=1)).tolist() == [0.0, 0.5, 1.0]
    assert cost.contact(states, Anatomy(SPACE)).tolist() == [0.0] * 3


# Energies


def test_terminal_energy_by_hand():
    costs, states, goal = make(), draw(2, 3), draw(2, seed=1)
    actions = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = costs.path(states, actions, directive(goal, weights={"goal": 2.0, "effort": 0.5}, critic_weight=0.7))
    ic = 2 * distance(states, State(goal.latent[:, None], goal.proprio[:, None]))[:, :-1].sum(1)
    effort = 0.5 * np.square(actions.numpy() / 2).mean((2, 3)).sum(1)
    value = 0.7 * GAMMA**3 * tc(costs, states[:, -1], goal).mean(-1)
    np.testing.assert_allclose(found.energy.detach().numpy(), ic + effort + value, rtol=1e-9)
    np.testing.assert_allclose(found.critic[:, -1].detach().numpy(), value, rtol=1e-9)
    assert (found.critic[:, :-1] == 0).all() and (found.drives["goal"][:, -1] == 0).all()


def test_literal_energy_by_hand():
    costs, states, goal = make(), draw(2, 3), draw(2, seed=1)
    actions = torch.zeros(2, 3, 4, 2, dtype=torch.float64)
    found = costs.path(states, actions, directive(goal, energy="literal", critic_weight=0.7))
    each = State(goal.latent[:, None].expand(-1, 3, -1), goal.proprio[:, None].expand(-1, 3, -1))
    expected = (distance(states, each) + 0.7 * tc(costs, states, each).mean(-1)).sum(1)
    np.testing.assert_allclose(found.energy.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("critic_weight", [0.0, 0.7])
def test_last_energy_by_hand(critic_weight):
    costs, states, goal = make(), draw(2, 3), draw(2, seed=1)
    actions = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    asked = directive(goal, weights={"goal": 2.0, "effort": 0.5}, critic_weight=critic_weight, energy="last")
    found = costs.path(states, actions, asked)
    effort = 0.5 * np.square(actions.numpy()[:, -1] / 2).mean((1, 2))
    end = critic_weight * GAMMA**3 * tc(costs, states[:, -1], goal).mean(-1)
    if not critic_weight:
        end = 2 * distance(states[:, -1], goal)
    np.testing.assert_allclose(found.energy.detach().numpy(), effort + end, rtol=1e-9)
    assert all((cost[:, :-1] == 0).all() for cost in (*found.drives.values(), found.critic))


@pytest.mark.parametrize("energy", ["terminal", "literal"])
def test_without_a_critic_the_last_state_pays_too(energy):
    costs, states, goal = make(critic=False), draw(2, 3), draw(2, seed=1)
    actions = torch.zeros(2, 3, 4, 2, dtype=torch.float64)
    expected = distance(states, State(goal.latent[:, None], goal.proprio[:, None])).sum(1)
    for c, d in ((costs, directive(goal, energy=energy)), (make(), directive(goal, energy=energy, critic_weight=0.0))):
        np.testing.assert_allclose(c.path(states, actions, d).energy.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("energy", ["terminal", "literal"])
def test_more_paths_of_an_episode_cost_what_each_alone_costs(energy):
    """(E, N, H) paths with one goal an episode: every path as if it were the only one."""
    costs, states, goal = make(Anatomy(SPACE, contact_proprio=1)), draw(2, 5, 3), draw(2, seed=1)
    actions = torch.randn(2, 5, 3, 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    d = directive(goal, weights={"goal": 1.0, "effort": 0.3, "contact": 2.0}, energy=energy)
    together = costs.path(states, actions, d)
    for e in range(2):
        for n in range(5):
            own = dataclasses.replace(d, goal=goal[e : e + 1])
            alone = costs.path(states[e : e + 1, n], actions[e : e + 1, n], own)
            assert torch.allclose(alone.energy[0], together.energy[e, n])
            assert torch.allclose(alone.critic[0], together.critic[e, n])
            assert all(torch.allclose(alone.drives[k][0], together.drives[k][e, n]) for k in d.weights)


def test_energy_is_the_sum_of_what_it_says():
    costs, states = make(Anatomy(SPACE, contact_proprio=1)), draw(2, 3)
    weights = {"goal": 1.0, "effort": 0.3, "contact": 2.0}
    for energy in ("terminal", "literal", "last"):
        found = costs.path(
            states, torch.ones(2, 3, 4, 2).double(), directive(draw(2, seed=1), weights=weights, energy=energy)
        )
        parts = [*found.drives.values(), found.critic]
        assert torch.allclose(found.energy, sum(p.sum(1) for p in parts)) and len(parts) == 4
        assert all(p.shape == (2, 3) for p in parts)


def test_weights_are_linear():
    costs, states, goal = make(Anatomy(SPACE, contact_proprio=1)), draw(2, 3), draw(2, seed=1)
    actions = torch.ones(2, 3, 4, 2, dtype=torch.float64)

    def energy(v: float, **weights: float) -> torch.Tensor:
        return costs.path(states, actions, directive(goal, weights=weights, critic_weight=v)).energy.detach()

    names = ("goal", "effort", "contact")
    ones = {n: energy(0.0, **{n: 1.0}) for n in names}
    mixed = energy(0.0, goal=0.5, effort=3.0, contact=2.0)
    assert torch.allclose(mixed, 0.5 * ones["goal"] + 3 * ones["effort"] + 2 * ones["contact"])
    assert torch.allclose(energy(3.0, effort=1.0) - energy(0.0, effort=1.0), 3 * energy(1.0))
    assert energy(0.0).tolist() == [0.0, 0.0]


def test_an_unknown_drive_is_named():
    with pytest.raises(ValueError, match=r"'gaol'.*contact.*effort.*goal"):
        make().path(draw(1, 2), torch.zeros(1, 2, 4, 2).double(), directive(None, weights={"gaol": 1.0}))


def test_no_goal_no_goal_cost():
    found = make().path(draw(2, 3), torch.zeros(2, 3, 4, 2).double(), directive(None))
    assert found.drives == {} and found.energy.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("goal_proprio", [(), (0, 2)])
def test_the_critic_equals_numpy(goal_proprio):
    costs, state, goal = make(Anatomy(SPACE, goal_proprio)), draw(4), draw(4, seed=1)
    found = costs.critic(state, costs.critic.embed_goal(goal))
    np.testing.assert_allclose(found.detach().numpy(), tc(costs, state, goal), rtol=1e-9)
    assert (found > 0).all() and (found < 1 / (1 - GAMMA)).all()


@pytest.mark.parametrize("energy", ["terminal", "literal"])
@pytest.mark.parametrize("make_config", ["pixels", "sensors"])
def test_gradient_of_the_planning_energy_equals_central_differences(make_config, energy):
    config = tiny() if make_config == "pixels" else tiny_maze()
    agent, simulator = born(config)
    for module in agent.modules().values():
        module.double()
    states = simulator.reset(np.random.default_rng(0), 3)
    with torch.no_grad():
        encoded = agent.perception.encode(
            as_tensors(as_observation(simulator.observe(states))).map(
                lambda x: x if x.dtype == torch.uint8 else x.double()
            )
        )
    d = directive(encoded[2:].map(lambda x: x.expand(2, -1)), weights={"goal": 1.0, "effort": 0.1}, energy=energy)
    generator = torch.Generator().manual_seed(0)
    unit = agent.world_model.action_scale
    actions = 0.3 * unit * torch.randn(2, 1, 3, 4, 2, generator=generator, dtype=torch.float64)

    def f(a: torch.Tensor) -> torch.Tensor:
        return agent.cost.path(agent.imagine(encoded[:2], a), a, d).energy.sum()

    actions.requires_grad_()
    (gradient,) = torch.autograd.grad(f(actions), actions)
    assert gradient.abs().max() > 1e-4
    with torch.no_grad():
        for _ in range(12):
            direction = torch.randn(actions.shape, generator=generator, dtype=torch.float64)
            slope = (f(actions + 1e-5 * direction) - f(actions - 1e-5 * direction)) / 2e-5
            assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)


# Immutability


def test_the_cost_of_a_state_is_that_of_a_path_of_one_step_without_effort():
    costs, goal, state = make(), draw(2, seed=1), draw(2)
    asked = directive(goal, weights={"goal": 0.7, "effort": 0.3, "contact": 1.0}, critic_weight=0.4, energy="literal")
    here = costs.here(state, asked)
    path = costs.path(state.map(lambda x: x[:, None]), torch.zeros(2, 1, 4, 2).double(), asked)
    assert set(here.drives) == {"goal", "contact"} and here.critic.shape == (2, 1)
    assert torch.allclose(here.energy, path.energy) and torch.allclose(here.critic, path.critic)
    assert np.allclose(here.critic[:, 0].detach(), 0.4 * tc(costs, state, goal).mean(-1))
    assert (costs.here(state, directive(goal, critic_weight=0.0)).critic == 0).all()


def test_the_intrinsic_cost_has_no_parameters_and_is_differentiable():
    assert not any(isinstance(f, torch.nn.Module) for f in cost.DRIVES.values())
    costs = make(critic=False)
    assert list(costs.parameters()) == []
    states = draw(2, 3).map(lambda x: x.requires_grad_())
    costs.path(states, torch.zeros(2, 3, 4, 2).double(), directive(draw(2, seed=1))).energy.sum().backward()
    assert (states.latent.grad.abs().sum((1, 2)) > 0).all()


def test_the_hash_of_the_intrinsic_cost_survives_training_and_sees_constants(tmp_path):
    config = tiny()
    agent, _ = born(config)
    before = cost.intrinsic_hash(agent.cost.anatomy, agent.cost.config)
    train_tiny(config, tmp_path / "run")
    after = Agent.load(tmp_path / "run").cost
    assert cost.intrinsic_hash(after.anatomy, after.config) == before
    changed = dataclasses.replace(agent.cost.config, goal_scale=agent.cost.config.goal_scale * 2)
    assert cost.intrinsic_hash(agent.cost.anatomy, changed) != before
    assert cost.intrinsic_hash(dataclasses.replace(agent.cost.anatomy, contact_proprio=0), agent.cost.config) != before


# The critic's learning


def chain(gamma: float, goal_proprio: tuple[int, ...] = ()) -> tuple[Costs, State, torch.Tensor]:
    """Seven places in a row, each its own direction; the neighbours of each, itself at the ends."""
    torch.manual_seed(0)
    config = Config(hidden=48, ensemble=2, goal_scale=0.01)
    costs = critical(config, Anatomy(SPACE, goal_proprio), 7, 7 if goal_proprio else 0, gamma)
    places = torch.eye(7)
    neighbours = torch.stack([(torch.arange(7) - 1).clamp(min=0), (torch.arange(7) + 1).clamp(max=6)], 1)
    return costs, State(places, places if goal_proprio else torch.zeros(7, 0)), neighbours


@pytest.mark.parametrize("far", [False, True])
def test_the_critic_learns_the_discounted_shortest_path(far):
    """From neighbours alone, and with places three steps away as further futures."""
    gamma = 0.8
    costs, places, neighbours = chain(gamma)
    blocks = torch.ones(2)
    if far:
        three = torch.stack([torch.arange(7) - 3, torch.arange(7) + 3], 1)
        inside = (three >= 0) & (three <= 6)
        neighbours = torch.cat([neighbours, torch.where(inside, three, neighbours)], 1)
        blocks = torch.tensor([1.0, 1.0, 3.0, 3.0])  # at the ends: a detour of three steps to the neighbour
    futures = places[neighbours].map(lambda x: x[None]), blocks
    optimiser = torch.optim.Adam(costs.critic.parameters(), 5e-3)
    for step in range(700):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / 800)
        state = places.map(lambda x: x[None])
        loss, metrics = critic_loss(costs, state, *futures, state)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        costs.update_target(0.1)
    with torch.no_grad():
        value = costs.critic(places.map(lambda x: x[:, None]), costs.critic.embed_goal(places)[None]).mean(-1)
    steps = (torch.arange(7)[:, None] - torch.arange(7)).abs()
    truth = (1 - gamma**steps) / (1 - gamma)
    assert (value - truth).abs().max() < 0.15
    assert (truth.max() > 3.6) and metrics["critic"] < 0.01


def test_critic_loss_by_hand_and_nothing_flows_into_state_or_target():
    costs, gamma = make(), GAMMA
    state, futures, goal = draw(1, 2), draw(1, 2, 3, seed=1), draw(1, 4, seed=2)
    state.latent.requires_grad_()
    blocks = torch.tensor([1, 3, 1])
    loss, metrics = critic_loss(costs, state.detach(), futures, blocks, goal)
    errors = []
    for r in range(2):
        for g in range(4):
            here, there = state.detach()[0, r], goal[0, g]
            near, far, beside = (tc(costs, futures[0, r, n], there).max() for n in range(3))
            after = min(near, 1 + gamma + gamma**2 * far, beside)
            target = distance(here, there) * (1 + gamma * after)
            errors.append(np.square(tc(costs, here, there) - target))
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-9)
    loss.backward()
    assert state.latent.grad is None
    assert all(p.grad is None and not p.requires_grad for p in costs.target.parameters())
    assert any(p.grad.abs().sum() > 0 for p in costs.critic.parameters())
    assert not any(v.requires_grad for v in metrics.values())


def test_shuffled_labels_are_the_same_labels_at_other_pairs():
    costs = make(ensemble=1)
    state, futures, goal = draw(2, 3), draw(2, 3, 4, seed=1), draw(2, 5, seed=2)
    drawn = costs, state, futures, torch.ones(4), goal
    with torch.no_grad():
        right, told = critic_loss(*drawn)
        wrong, told_wrong = critic_loss(*drawn, shuffled=True)
        for p in (*costs.critic.parameters(), *costs.target.parameters()):
            p.zero_()  # a critic that says the same of every pair cannot tell the labels apart
        blind = [critic_loss(*drawn, shuffled=s)[0].item() for s in (False, True)]
    assert told["critic_target"].item() == pytest.approx(told_wrong["critic_target"].item(), rel=1e-12)
    assert abs(right.item() / wrong.item() - 1) > 1e-3 and blind[0] == pytest.approx(blind[1], rel=1e-12)


def test_the_slow_copy_follows():
    costs = make()
    for p in costs.critic.parameters():
        p.data += 1.0
    start = [p.clone() for p in costs.target.parameters()]
    costs.update_target(0.25)
    for old, new, fast in zip(start, costs.target.parameters(), costs.critic.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * fast)
    costs.update_target(1.0)
    assert all(torch.allclose(a, b) for a, b in zip(costs.target.parameters(), costs.critic.parameters(), strict=True))


def test_the_digest_knows_whether_the_critic_has_learned():
    costs = make()
    assert costs.status() == {"critic_trained": 0.0}
    costs.trained.fill_(True)
    assert costs.status()["critic_trained"] == 1.0
    assert make(critic=False).status() == {"critic_trained": 0.0}
