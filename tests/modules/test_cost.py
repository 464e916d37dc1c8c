"""Promises of modules/cost.py: energies equal hand computation, weights are linear, the slow copy follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.planning import imagine
from agent.spec import as_tensors
from envs.gym_env import as_observation
from modules.cost import Config, CostModule
from modules.drives import compose
from modules.types import Goal, Imagined, State
from tests.helpers import born, tiny, tiny_maze
from tests.modules.by_hand import BODY, FEELING, GAMMA, beside, directive, distance, draw, make, tc, touched


def plain(body=BODY) -> CostModule:
    """Without a critic."""
    return CostModule(compose(("goal", "effort", "contact"), {}, {}, body))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# Energies


def test_terminal_energy_by_hand():
    cost, states, goal, actions = make(), draw(2, 3), draw(2, seed=1), noise(2, 3, 4, 2)
    asked = directive(goal, 0.7, weights={"goal": 2.0, "effort": 0.5})
    found = cost.trajectory(Imagined(states, actions), asked)
    ic = 2 * distance(states, beside(goal, 3))[:, :-1].sum(1)
    effort = 0.5 * np.square(actions.numpy() / 2).mean((2, 3)).sum(1)
    value = 0.7 * GAMMA**3 * tc(cost, states[:, -1], goal)[:, 0].mean(-1)
    np.testing.assert_allclose(found.energy.detach().numpy(), ic + effort + value, rtol=1e-9)
    np.testing.assert_allclose(found.critic[:, -1].detach().numpy(), value, rtol=1e-9)
    assert (found.critic[:, :-1] == 0).all() and (found.drives["goal"][:, -1] == 0).all()


def test_literal_energy_by_hand():
    cost, states, goal = make(), draw(2, 3), draw(2, seed=1)
    found = cost.trajectory(Imagined(states, noise(2, 3, 4, 2)), directive(goal, 0.7, energy="literal"))
    each = beside(goal, 3)
    expected = (distance(states, each) + 0.7 * tc(cost, states, each)[..., 0, :].mean(-1)).sum(1)
    np.testing.assert_allclose(found.energy.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("critic_weight", [0.0, 0.7])
def test_last_energy_by_hand(critic_weight):
    cost, states, goal, actions = make(), draw(2, 3), draw(2, seed=1), noise(2, 3, 4, 2)
    asked = directive(goal, critic_weight, weights={"goal": 2.0, "effort": 0.5}, energy="last")
    found = cost.trajectory(Imagined(states, actions), asked)
    effort = 0.5 * np.square(actions.numpy()[:, -1] / 2).mean((1, 2))
    end = critic_weight * GAMMA**3 * tc(cost, states[:, -1], goal)[:, 0].mean(-1)
    if not critic_weight:
        end = 2 * distance(states[:, -1], goal)
    np.testing.assert_allclose(found.energy.detach().numpy(), effort + end, rtol=1e-9)
    assert all((part[:, :-1] == 0).all() for part in (*found.drives.values(), found.critic))


@pytest.mark.parametrize("energy", ["terminal", "literal"])
def test_energy_with_a_head_for_each_drive_by_hand(energy):
    """Goal and contact: the goal's head stands for the goal drive at s[H]; contact at s[H] is still paid."""
    cost = make(FEELING, heads=("goal", "contact"))
    states, goal, actions = draw(2, 3), draw(2, seed=1), noise(2, 3, 4, 2)
    weights, heads = {"goal": 2.0, "effort": 0.5, "contact": 3.0}, {"goal": 0.7, "contact": 0.3}
    found = cost.trajectory(Imagined(states, actions), directive(goal, heads, weights=weights, energy=energy))
    each = beside(goal, 3)
    value = tc(cost, states, each).mean(-1) @ [0.7, 0.3]
    ic = 2 * distance(states, each)
    if energy == "terminal":
        ic[:, -1], value = 0, np.stack([np.zeros(2), np.zeros(2), GAMMA**3 * value[:, -1]], 1)
    effort = 0.5 * np.square(actions.numpy() / 2).mean((2, 3))
    expected = (ic + effort + 3 * touched(states) + value).sum(1)
    assert touched(states)[:, -1].any()
    np.testing.assert_allclose(found.energy.detach().numpy(), expected, rtol=1e-9)


def test_heads_are_weighed_one_by_one():
    cost, states, goal = make(FEELING, heads=("goal", "contact")), draw(2, 3), draw(2, seed=1)
    imagined = Imagined(states, noise(2, 3, 4, 2))

    def critic(**heads: float) -> torch.Tensor:
        return cost.trajectory(imagined, directive(goal, heads)).critic.detach()

    mixed = critic(goal=0.5, contact=3.0)
    assert torch.allclose(mixed, 0.5 * critic(goal=1.0) + 3 * critic(contact=1.0))
    assert not torch.allclose(critic(goal=1.0), critic(contact=1.0))
    assert (critic() == 0).all(), "no head that is named is asked"


@pytest.mark.parametrize("energy", ["terminal", "literal"])
def test_without_a_critic_the_last_state_pays_too(energy):
    states, goal = draw(2, 3), draw(2, seed=1)
    expected = distance(states, beside(goal, 3)).sum(1)
    for cost, asked in ((plain(), directive(goal, energy=energy)), (make(), directive(goal, 0.0, energy=energy))):
        found = cost.trajectory(Imagined(states, noise(2, 3, 4, 2)), asked).energy
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("energy", ["terminal", "literal"])
def test_many_trajectories_of_an_episode_cost_what_each_alone_costs(energy):
    """(E, N, H) with one goal an episode: every trajectory as if it were the only one."""
    cost, states, goal = make(FEELING, heads=("goal", "contact")), draw(2, 5, 3), draw(2, seed=1)
    actions, heads = noise(2, 5, 3, 4, 2), {"goal": 1.0, "contact": 0.4}
    asked = directive(goal, heads, weights={"goal": 1.0, "effort": 0.3, "contact": 2.0}, energy=energy)
    together = cost.trajectory(Imagined(states, actions), asked)
    for e in range(2):
        for n in range(5):
            own = asked.but(goal=Goal(goal[e : e + 1]))
            alone = cost.trajectory(Imagined(states[e : e + 1, n], actions[e : e + 1, n]), own)
            assert torch.allclose(alone.energy[0], together.energy[e, n])
            assert torch.allclose(alone.critic[0], together.critic[e, n])
            assert all(torch.allclose(alone.drives[k][0], together.drives[k][e, n]) for k in asked.weights)


def test_energy_is_the_sum_of_its_parts():
    cost, states = make(FEELING, heads=("goal", "contact")), draw(2, 3)
    weights = {"goal": 1.0, "effort": 0.3, "contact": 2.0}
    for energy in ("terminal", "literal", "last"):
        asked = directive(draw(2, seed=1), {"goal": 1.0, "contact": 0.5}, weights=weights, energy=energy)
        found = cost.trajectory(Imagined(states, torch.ones(2, 3, 4, 2).double()), asked)
        parts = [*found.drives.values(), found.critic]
        assert torch.allclose(found.energy, sum(p.sum(1) for p in parts)) and len(parts) == 4
        assert all(p.shape == (2, 3) for p in parts)


def test_weights_are_linear():
    cost, states, goal = make(FEELING), draw(2, 3), draw(2, seed=1)
    imagined = Imagined(states, torch.ones(2, 3, 4, 2, dtype=torch.float64))

    def energy(v: float, **weights: float) -> torch.Tensor:
        return cost.trajectory(imagined, directive(goal, v, weights=weights)).energy.detach()

    names = ("goal", "effort", "contact")
    ones = {n: energy(0.0, **{n: 1.0}) for n in names}
    mixed = energy(0.0, goal=0.5, effort=3.0, contact=2.0)
    assert torch.allclose(mixed, 0.5 * ones["goal"] + 3 * ones["effort"] + 2 * ones["contact"])
    assert torch.allclose(energy(3.0, effort=1.0) - energy(0.0, effort=1.0), 3 * energy(1.0))
    assert energy(0.0).tolist() == [0.0, 0.0]


def test_the_intrinsic_cost_is_weighted_and_leaves_out_what_weighs_nothing():
    states, goal = draw(2, 3), draw(2, seed=1)
    asked = directive(goal, weights={"goal": 2.0, "effort": 0.0, "contact": 0.5})
    found = plain(FEELING).intrinsic(Imagined(states, noise(2, 3, 4, 2)), asked)
    assert set(found) == {"goal", "contact"}
    np.testing.assert_allclose(found["goal"], 2 * distance(states, beside(goal, 3)))
    np.testing.assert_allclose(found["contact"], 0.5 * touched(states))


def test_an_unknown_drive_is_named():
    with pytest.raises(ValueError, match=r"'gaol'.*contact.*effort.*goal"):
        make().trajectory(Imagined(draw(1, 2), noise(1, 2, 4, 2)), directive(None, weights={"gaol": 1.0}))


def test_no_goal_no_goal_cost():
    found = make().trajectory(Imagined(draw(2, 3), noise(2, 3, 4, 2)), directive(None))
    assert found.energy.tolist() == [0.0, 0.0] and not any(part.any() for part in found.drives.values())


def test_the_cost_of_a_state_is_that_of_one_step_without_effort():
    cost, goal, state = make(FEELING, heads=("goal", "contact")), draw(2, seed=1), draw(2)
    weights, heads = {"goal": 0.7, "effort": 0.3, "contact": 1.0}, {"goal": 0.4, "contact": 0.2}
    asked = directive(goal, heads, weights=weights, energy="literal")
    found = cost.state(state, asked)
    still = torch.zeros(2, 1, 4, 2).double()
    trajectory = cost.trajectory(Imagined(state.map(lambda x: x[:, None]), still), asked)
    assert found.critic.shape == (2, 1) and not found.drives["effort"].any()
    assert torch.allclose(found.energy, trajectory.energy) and torch.allclose(found.critic, trajectory.critic)
    assert np.allclose(found.critic[:, 0].detach(), tc(cost, state, goal).mean(-1) @ [0.4, 0.2])
    assert (cost.state(state, directive(goal, 0.0)).critic == 0).all()


@pytest.mark.parametrize("energy", ["terminal", "literal"])
@pytest.mark.parametrize("make_config", ["pixels", "sensors"])
def test_gradient_of_the_planning_energy_equals_central_differences(make_config, energy):
    config = tiny() if make_config == "pixels" else tiny_maze()
    agent, environment = born(config)
    simulator = environment.truth
    for module in agent.modules().values():
        module.double()
    states = simulator.reset(np.random.default_rng(0), 3)
    with torch.no_grad():
        encoded = agent.perception.encode(
            as_tensors(as_observation(simulator.observe(states))).map(
                lambda x: x if x.dtype == torch.uint8 else x.double()
            )
        )
    cost = CostModule(
        compose(("goal", "effort"), {}, {}, next(iter(agent.cost.drives.values())).body), agent.cost.critic
    )
    goal = encoded[2:].map(lambda x: x.expand(2, -1))
    asked = directive(goal, weights={"goal": 1.0, "effort": 0.1}, energy=energy)
    generator = torch.Generator().manual_seed(0)
    unit = agent.actor.actions.unit(encoded.latent)
    actions = 0.3 * unit * torch.randn(2, 1, 3, 4, 2, generator=generator, dtype=torch.float64)

    def f(a: torch.Tensor) -> torch.Tensor:
        return cost.trajectory(imagine(agent.world_model, encoded[:2], a), asked).energy.sum()

    actions.requires_grad_()
    (gradient,) = torch.autograd.grad(f(actions), actions)
    assert gradient.abs().max() > 1e-4
    with torch.no_grad():
        for _ in range(12):
            direction = torch.randn(actions.shape, generator=generator, dtype=torch.float64)
            slope = (f(actions + 1e-5 * direction) - f(actions - 1e-5 * direction)) / 2e-5
            assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)


# The critic inside


def test_a_goal_is_embedded_once_by_the_critic():
    cost, states = make(), draw(2, 3)
    asked = directive(draw(2, seed=1))
    calls = []
    cost.critic.goal.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        values = [cost.to_go(states, asked) for _ in range(3)]
        assert len(calls) == 1 and torch.equal(values[0], values[2])
        assert not torch.equal(cost.to_go(states, directive(State(*vars(draw(2, seed=3)).values()))), values[0])
    assert len(calls) == 2


def test_the_slow_copy_follows():
    cost = make()
    for p in cost.critic.parameters():
        p.data += 1.0
    start = [p.clone() for p in cost.target.parameters()]
    cost.update_target(0.25)
    for old, new, fast in zip(start, cost.target.parameters(), cost.critic.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * fast)
    cost.update_target(1.0)
    assert all(torch.allclose(a, b) for a, b in zip(cost.target.parameters(), cost.critic.parameters(), strict=True))


def test_the_status_knows_whether_the_critic_has_learned():
    cost = make()
    assert cost.status() == {"critic_trained": 0.0}
    cost.trained.fill_(True)
    assert cost.status() == {"critic_trained": 1.0}
    bare = plain()
    bare.trained.fill_(True)
    assert bare.status() == {"critic_trained": 0.0} and list(bare.parameters()) == []


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"contact": 1.0}}, r"--cost.weights names 'contact'.*goal.*--cost.drives"),
        ({"floors": {"gaol": 1.0}}, r"--cost.floors names 'gaol'.*goal"),
        ({"weights": {"goal": -1.0}}, r"--cost.weights goal must be a number from 0, got -1"),
        ({"floors": {"goal": float("nan")}}, r"--cost.floors goal must be a number from 0, got nan"),
        ({"goal_scale": 0.0}, r"--cost.goal-scale must be more than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)
