"""Planners find minima, stay inside the action space, never get worse, and treat every episode alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modules.actions import BoxActions, DiscreteActions
from modules.planners import PLANNERS, Config, Grid
from modules.types import Growing, Plan, Planner, State

NAMES = sorted(set(PLANNERS) - {"random", "beam"})  # random does not search, beam has tests of its own
BOX = BoxActions((-1.0, -2.0, 0.5), (1.0, 1.0, 3.0))
BALL = BoxActions((-1.0, -1.0), (1.0, 1.0), max_norm=0.7)
ONE = DiscreteActions((5,), (1,))
TWO = DiscreteActions((2, 3), kind="multi")
choices = pytest.mark.parametrize("space", [ONE, TWO], ids=["one", "two"])
DISCRETE = ["cem", "mppi", "beam"]
few = settings(max_examples=8, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name, space, start, samples=48, iterations=5, seed=0, config=None):
    return PLANNERS[name](config or Config(), space, start, samples, iterations, generator(seed))


def minimise(planner, energy, iterations: int) -> Plan:
    """Ask and tell for a number of iterations, with energy: (E, N, H, K, A) -> (E, N)."""
    for _ in range(iterations):
        candidates = planner.ask()
        planner.tell(candidates, energy(candidates))
    return planner.best()


def rugged(episodes: int, size: int, seed: int = 0):
    """Energy with many minima, another one for every episode, and each episode computed apart from the others."""
    target = torch.randn(episodes, 1, 1, 1, size, generator=generator(seed + 99))

    def energy(candidates: Tensor) -> Tensor:
        terms = (candidates - target).square() + torch.sin(5 * candidates + target)
        return terms.flatten(2).sum(2)

    return energy, target


def inside(actions: Tensor, space: BoxActions) -> bool:
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    in_box = bool((actions >= low - 1e-6).all() and (actions <= high + 1e-6).all())
    return in_box and (space.max_norm is None or bool((actions.norm(dim=-1) <= space.max_norm + 1e-6).all()))


def test_only_the_gradient_planner_needs_gradients():
    needs = {name: build(name, BALL, torch.zeros(1, 2, 2, 2)).needs_gradient for name in [*NAMES, "random"]}
    assert needs == {"cem": False, "mppi": False, "gradient": True, "random": False}
    assert not any(build(name, ONE, torch.zeros(1, 2, 2, 5)).needs_gradient for name in DISCRETE)


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
@few
def test_finds_the_minimum_of_a_convex_quadratic(name, seed):
    # (a - t)' Q (a - t) over 2 held actions of 2 dimensions, condition of Q below 6, the minimum inside the box.
    g = generator(seed)
    target = torch.rand(3, 4, generator=g) * 1.2 - 0.6
    factor = torch.eye(4) + 0.2 * (torch.rand(3, 4, 4, generator=g) - 0.5)
    shape = factor @ factor.mT

    def energy(candidates):
        x = candidates[:, :, :, 0].flatten(2) - target[:, None]
        return torch.einsum("eni,eij,enj->en", x, shape, x)

    space = BoxActions((-1.0, -1.0), (1.0, 1.0))
    planner = build(name, space, torch.zeros(3, 2, 2, 2), 64, 40, seed, Config(min_std=0.01))
    plan = minimise(planner, energy, 40)
    assert torch.allclose(plan.actions[:, :, 0].flatten(1), target, atol=0.06)
    assert plan.energy.max() < 0.01


@pytest.mark.parametrize("space", [BOX, BALL], ids=["box", "ball"])
@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
@few
def test_finds_the_projection_of_a_minimum_outside_the_space(name, space, seed):
    target = 1.5 * torch.randn(2, 2, 1, space.size, generator=generator(seed)).clamp(-2, 2)
    if space.max_norm is None:
        nearest = space.project(target)
    else:  # the ball lies inside the box
        nearest = target * (space.max_norm / target.norm(dim=-1, keepdim=True)).clamp(max=1)

    def energy(candidates):
        return (candidates - target[:, None]).square().flatten(2).sum(2)

    planner = build(name, space, torch.zeros(2, 2, 2, space.size), 128, 40, seed, Config(min_std=0.02, noise_beta=0.0))
    plan = minimise(planner, energy, 40)
    optimum = energy(nearest.expand(2, 2, 2, space.size)[:, None])[:, 0]
    assert inside(plan.actions, space)
    assert (plan.energy - optimum).max() < 0.02 * (1 + optimum.max())
    assert (plan.actions - nearest).abs().max() < 0.15


@pytest.mark.parametrize("space", [BOX, BALL], ids=["box", "ball"])
@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
@few
def test_never_worse_than_the_start_nor_than_before_and_always_inside(name, space, seed):
    energy, _ = rugged(3, space.size, seed)
    start = 2 * torch.randn(3, 4, 2, space.size, generator=generator(seed))
    planner = build(name, space, start, 12, 6, seed)
    before = energy(space.project(start)[:, None])[:, 0]
    for _ in range(8):  # also beyond the announced iterations
        candidates = planner.ask()
        assert candidates.shape == (3, 12, 4, 2, space.size) and inside(candidates, space)
        told = energy(candidates)
        planner.tell(candidates, told)
        plan = planner.best()
        assert (plan.energy <= before).all() and (plan.energy <= told.min(1).values).all()
        assert inside(plan.actions, space)
        assert torch.equal(energy(plan.actions[:, None])[:, 0], plan.energy)
        assert torch.equal(planner.candidates, candidates) and torch.equal(planner.energy, told)
        # A descent that ran on outside the space would have to come all the way back.
        assert name != "gradient" or inside(planner.variables, space)
        before = plan.energy


@pytest.mark.parametrize("name", NAMES)
def test_the_first_candidate_is_the_clipped_start_even_when_it_does_not_hold_its_actions(name):
    start = 2 * torch.randn(2, 3, 4, 2, generator=generator(3))
    planner = build(name, BALL, start)
    assert torch.equal(planner.best().actions, BALL.project(start)) and planner.best().energy.isinf().all()
    assert torch.equal(planner.ask()[:, 0], BALL.project(start))


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_later_candidates_hold_the_best_plan_and_the_mean(name):
    energy, _ = rugged(2, 2)
    planner = build(name, BALL, torch.zeros(2, 3, 4, 2))
    minimise(planner, energy, 2)
    candidates = planner.ask()
    assert torch.equal(candidates[:, 0], planner.best().actions)
    assert torch.equal(candidates[:, 1], planner.grid.expand(planner.mean))


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
@few
def test_episodes_do_not_know_of_each_other(name, seed):
    energy_of = [rugged(1, 3, seed + i)[0] for i in range(5)]
    start = torch.randn(5, 3, 2, 3, generator=generator(seed))

    def run(chosen: list[int]) -> Plan:
        def energy(candidates):
            told = torch.cat([energy_of[e](candidates[i : i + 1]) for i, e in enumerate(chosen)])
            bad = torch.tensor([[e == 2 and n % 7 == 3 for n in range(37)] for e in chosen])
            return told.masked_fill(bad, float("nan"))  # one broken episode must not disturb the others either

        return minimise(build(name, BOX, start[chosen], 37, 4, seed, Config(action_repeat=1)), energy, 4)

    everyone = run([0, 1, 2, 3, 4])
    order = [3, 0, 4, 2, 1]
    permuted = run(order)
    assert torch.equal(permuted.actions, everyone.actions[order])
    assert torch.equal(permuted.energy, everyone.energy[order])
    for e in range(5):
        alone = run([e])
        assert torch.equal(alone.actions[0], everyone.actions[e]) and torch.equal(alone.energy[0], everyone.energy[e])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name):
    energy, _ = rugged(2, 2)
    plans = [minimise(build(name, BALL, torch.zeros(2, 3, 2, 2), seed=s), energy, 5) for s in (7, 7, 8)]
    assert torch.equal(plans[0].actions, plans[1].actions) and torch.equal(plans[0].energy, plans[1].energy)
    assert not torch.equal(plans[0].actions, plans[2].actions)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_candidates_of_non_finite_energy_are_never_chosen(name, bad):
    energy, _ = rugged(2, 2)

    def broken(candidates):  # the better half of the space is broken, and all but three candidates of episode 1
        told = energy(candidates)
        mask = candidates[:, :, 0, 0, 0] > 0.1
        mask[1, 3:] = True
        mask[:, 0] = False
        return told.masked_fill(mask, bad)

    planner = build(name, BALL, torch.zeros(2, 3, 2, 2))
    plan = minimise(planner, broken, 5)
    assert plan.energy.isfinite().all() and plan.actions.isfinite().all()
    assert (plan.actions[:, 0, 0, 0] <= 0.1).all()
    assert not planner.energy.isnan().any() and (planner.energy == float("inf")).sum() >= 45
    assert planner.ask().isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_without_any_finite_energy_is_an_error(name):
    planner = build(name, BALL, torch.zeros(3, 2, 2, 2))
    candidates = planner.ask()
    told = candidates.flatten(2).sum(2) * torch.tensor([[1.0], [float("nan")], [1.0]])
    with pytest.raises(FloatingPointError, match=r"episode\(s\) \[1\]"):
        planner.tell(candidates, told)


def test_a_descent_that_breaks_begins_again_at_the_best_plan():
    planner = build("gradient", BALL, torch.zeros(1, 2, 2, 2), samples=4, config=Config(learning_rate=1e-6))
    candidates = planner.ask()
    weight = torch.tensor([[1.0, 2.0, float("nan"), 3.0]])
    planner.tell(candidates, weight * (candidates + 1).square().flatten(2).sum(2))
    assert torch.allclose(planner.ask()[0, 2], planner.best().actions[0], atol=1e-5)


def test_the_gradient_planner_survives_a_kink_and_asks_for_autograd():
    planner = build("gradient", BALL, torch.zeros(1, 2, 2, 2), samples=4)
    plan = minimise(planner, lambda a: a.square().flatten(2).sum(2).sqrt(), 3)  # the root of zero: infinite slope
    assert plan.energy.item() == 0 and planner.ask().isfinite().all()
    with pytest.raises(AssertionError, match="autograd"):
        planner.tell(planner.ask(), torch.zeros(1, 4))


@pytest.mark.parametrize("hold", [1, 2, 4, None])
@pytest.mark.parametrize("name", NAMES)
def test_searched_actions_are_held(name, hold):
    energy, _ = rugged(2, 2)
    planner = build(name, BALL, torch.zeros(2, 3, 4, 2), config=Config(action_repeat=hold))
    for _ in range(3):
        candidates = planner.ask()
        held = candidates.reshape(2, 48, 3, 4 // (hold or 4), hold or 4, 2)
        assert torch.equal(held, held[:, :, :, :, :1].expand_as(held))
        if (hold or 4) < 4:  # and no longer than asked
            assert (held[:, 2:, :, 1:, 0] != held[:, 2:, :, :-1, 0]).any(-1).float().mean() > 0.9
        planner.tell(candidates, energy(candidates))


def test_action_repeat_must_divide_the_block():
    with pytest.raises(ValueError, match="action_repeat=3 must divide the action block of 4"):
        build("cem", BALL, torch.zeros(1, 2, 4, 2), config=Config(action_repeat=3))


@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_noise_has_unit_width_and_the_asked_correlation(beta):
    grid = Grid(Config(noise_beta=beta), BALL, torch.zeros(1, 6, 4, 2))
    noise = grid.noise(20_000, generator())
    assert torch.allclose(noise.std(0), torch.ones(6, 2), atol=0.03)
    lags = torch.stack([(noise[:, 0] * noise[:, v]).mean(0) for v in range(1, 6)])
    expected = torch.tensor([[beta**v, beta**v] for v in range(1, 6)])
    assert torch.allclose(lags, expected, atol=0.03)


def one_update(name, config, iterations=1):
    """Run one improvement with made-up energies, and return all that an independent computation needs."""
    start = BOX.project(torch.randn(2, 3, 4, 3, generator=generator(1)))
    planner = build(name, BOX, start, 20, iterations, 5, config)
    mean, std = planner.mean.numpy().copy(), planner.std.numpy().copy()
    candidates = planner.ask()
    told = torch.randn(2, 20, generator=generator(2))
    told[0, 4] = float("nan")
    planner.tell(candidates, told)
    variables = candidates.numpy().astype(np.float64).reshape(2, 20, 6, 2, 3).mean(3)  # hold = 2
    return planner, mean, std, variables, told.numpy().astype(np.float64)


HALF_RANGE = np.array([1.0, 1.5, 1.25])


def test_one_update_of_cem_is_that_of_an_independent_computation():
    config = Config(action_repeat=2, momentum=0.3, elites=0.2, min_std=0.4)
    planner, mean, std, variables, told = one_update("cem", config)
    assert np.allclose(std, HALF_RANGE)
    for e in range(2):
        elites = variables[e][np.argsort(told[e])[:4]]  # argsort puts NaN last
        assert np.allclose(planner.mean[e], 0.3 * mean[e] + 0.7 * elites.mean(0), atol=1e-5)
        # Candidate 0 does not hold its actions; it is not among the elites, else its width would differ.
        assert 0 not in np.argsort(told[e])[:4]
        expected = np.maximum(0.3 * std[e] + 0.7 * elites.std(0), 0.4 * HALF_RANGE)
        assert np.allclose(planner.std[e], expected, atol=1e-5)


def test_one_update_of_mppi_is_that_of_an_independent_computation():
    config = Config(action_repeat=2, momentum=0.3, temperature=0.5, min_std=0.01)
    planner, mean, std, variables, told = one_update("mppi", config, iterations=3)
    for e in range(2):
        good = np.isfinite(told[e])
        weights = np.exp(-(told[e][good] - told[e][good].min()) / (0.5 * told[e][good].std()))
        expected = (weights[:, None, None] * variables[e][good]).sum(0) / weights.sum()
        assert np.allclose(planner.mean[e], 0.3 * mean[e] + 0.7 * expected, atol=1e-5)
        assert np.allclose(planner.std[e], 0.1 * std[e], atol=1e-5)  # 1 -> 0.1 -> 0.01 in three iterations


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_one_finite_candidate_is_the_only_one_to_follow(name):
    planner = build(name, BOX, torch.zeros(1, 3, 2, 3))
    candidates = planner.ask()
    told = torch.full((1, 48), float("nan"))
    told[0, 5] = 3.0
    planner.tell(candidates, told)
    assert torch.allclose(planner.mean, candidates[:, 5, :, 0])
    if name == "cem":  # the width of MPPI follows its schedule
        assert torch.allclose(planner.std, planner.floor.expand_as(planner.std)), "the only elite has no width"


def test_the_first_descent_is_adam_with_linearly_shrinking_steps():
    target = torch.randn(1, 4, 1, 3, generator=generator(5))
    box = BoxActions((-10.0,) * 3, (10.0,) * 3)
    planner = build("gradient", box, torch.zeros(1, 4, 2, 3), samples=6, iterations=5, config=Config(learning_rate=0.1))
    actions = torch.zeros(1, 4, 1, 3, requires_grad=True)
    adam = torch.optim.Adam([actions], lr=0.1 * 10, betas=(0.9, 0.99), eps=1e-12)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / 5)
    for _ in range(5):
        candidates = planner.ask()
        assert torch.allclose(candidates[:, 0], actions.expand(1, 4, 2, 3), atol=1e-5)
        planner.tell(candidates, (candidates - target[:, None]).square().flatten(2).sum(2))
        adam.zero_grad()
        (actions - target).square().sum().backward()
        adam.step()
        schedule.step()
    assert torch.allclose(planner.ask()[:, 0], actions.expand(1, 4, 2, 3), atol=1e-5)


@pytest.mark.parametrize("name", ["cem", "mppi"])
@pytest.mark.parametrize("scale", [1e-12, 1e6, 1e25])
def test_the_scale_of_the_cost_does_not_matter(name, scale):
    energy, _ = rugged(2, 2)
    means = []
    for factor in (1.0, scale):
        planner = build(name, BALL, torch.zeros(2, 3, 2, 2))
        minimise(planner, lambda a, factor=factor: factor * energy(a), 3)
        means.append(planner.mean)
    assert torch.allclose(means[0], means[1], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_equal_energies_and_a_single_candidate_are_no_trouble(name):
    planner = build(name, BALL, torch.zeros(2, 3, 2, 2), samples=1)
    plan = minimise(planner, lambda a: 0 * a.flatten(2).sum(2) + 1, 3)
    assert torch.equal(plan.actions, torch.zeros(2, 3, 2, 2)) and (plan.energy == 1).all()
    assert planner.ask().isfinite().all()


def test_energies_in_double_precision_leave_the_actions_in_single():
    for name in NAMES:
        planner = build(name, BALL, torch.zeros(2, 3, 2, 2))
        minimise(planner, lambda a: a.double().square().flatten(2).sum(2), 2)
        assert planner.ask().dtype == torch.float32


@pytest.mark.parametrize("change", [
    {"initial_std": 0.0}, {"min_std": 2.0}, {"elites": 0.0}, {"elites": 1.5}, {"momentum": 1.0}, {"temperature": 0.0},
    {"action_repeat": 0}, {"learning_rate": -1.0}, {"noise_beta": 1.0},
])  # fmt: skip
def test_a_setting_out_of_range_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(Config(), **change)


def test_unbounded_spaces_and_empty_searches_are_refused():
    open_box = BoxActions((-float("inf"),) * 2, (float("inf"),) * 2)
    with pytest.raises(ValueError, match="bounded"):
        build("cem", open_box, torch.zeros(1, 2, 2, 2))
    assert inside(build("cem", replace(open_box, max_norm=0.7), torch.zeros(1, 2, 2, 2)).ask(), BALL)
    with pytest.raises(ValueError, match="samples"):
        build("mppi", BALL, torch.zeros(1, 2, 2, 2), samples=0)


@pytest.mark.parametrize("space", [BOX, BALL])
def test_the_random_planner_is_inside_the_space_and_does_not_care_for_energies(space: BoxActions):
    start = torch.full((3, 4, 2, len(space.low)), 7.0)
    plans = []
    for sign in (1, -1):
        found = minimise(build("random", space, start, 9, 4), lambda x, sign=sign: sign * x.flatten(2).sum(-1), 4)
        assert inside(found.actions, space) and found.energy.isfinite().all()
        plans.append(found.actions)
    assert torch.equal(*plans) and plans[0].std() > 0.1


# Discrete actions


def additive(space: DiscreteActions, episodes: int, steps: int, seed: int = 0):
    """A random cost for every step and choice, (E, H, A), and the energy that sums them up over steps and blocks."""
    table = torch.randn(episodes, steps, space.size, generator=generator(seed + 99))

    def energy(candidates: Tensor) -> Tensor:
        length = candidates.shape[2]
        return torch.einsum("enhka,eha->en", candidates, table[:, :length])

    return energy, table


def cheapest(space: DiscreteActions, table: Tensor) -> Tensor:
    """The best plan of an additive energy, choice by choice: (E, H, A) -> (E, H, A)."""
    groups = [torch.nn.functional.one_hot(x.argmin(-1), x.shape[-1]) for x in table.split(space.counts, -1)]
    return torch.cat(groups, -1).float()


def executable(actions: Tensor, space: DiscreteActions) -> bool:
    one_hot = bool(((actions == 0) | (actions == 1)).all())
    return one_hot and all(bool((x.sum(-1) == 1).all()) for x in actions.split(space.counts, -1))


def drawn(space: DiscreteActions, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(space.sample(np.random.default_rng(seed), shape))


@choices
@pytest.mark.parametrize("name", DISCRETE)
@given(seed=seeds)
@few
def test_discrete_search_finds_the_best_plan_of_an_additive_cost(name, space, seed):
    energy, table = additive(space, 3, 4, seed)
    planner = build(name, space, torch.zeros(3, 4, 2, space.size), 128, 12, seed)
    plan = minimise(planner, energy, planner.rounds)
    best = cheapest(space, table)
    assert torch.equal(plan.actions, best[:, :, None].expand(-1, -1, 2, -1))
    assert torch.allclose(plan.energy, 2 * (best * table).sum((1, 2)), atol=1e-5)


@choices
@pytest.mark.parametrize("name", DISCRETE)
@given(seed=seeds)
@few
def test_discrete_candidates_can_be_executed_and_the_plan_never_gets_worse(name, space, seed):
    energy, _ = additive(space, 3, 4, seed)
    start = torch.randn(3, 4, 2, space.size, generator=generator(seed))
    planner = build(name, space, start, 12, 6, seed)
    assert isinstance(planner, Planner) and isinstance(planner, Growing) == (name == "beam")
    assert torch.equal(planner.best().actions, space.project(start)) and planner.best().energy.isinf().all()
    before = energy(space.project(start)[:, None])[:, 0]
    for i in range(planner.rounds + 2):  # also beyond the announced rounds
        candidates = planner.ask()
        assert executable(candidates, space)
        assert i or torch.equal(candidates[:, 0], space.project(start))
        told = energy(candidates)
        planner.tell(candidates, told)
        plan = planner.best()
        assert plan.actions.shape == start.shape and executable(plan.actions, space)
        assert (plan.energy <= before).all()
        assert candidates.shape[2] < 4 or (plan.energy <= told.min(1).values).all()
        assert torch.allclose(energy(plan.actions[:, None])[:, 0], plan.energy)
        assert torch.equal(planner.candidates, candidates) and torch.equal(planner.energy, told)
        before = plan.energy


@choices
@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_later_discrete_candidates_hold_the_best_plan_and_the_mode(name, space):
    energy, _ = additive(space, 2, 3)
    planner = build(name, space, torch.zeros(2, 3, 4, space.size))
    minimise(planner, energy, 2)
    candidates = planner.ask()
    assert torch.equal(candidates[:, 0], planner.best().actions)
    assert torch.equal(candidates[:, 1], planner.grid.expand(planner.mean))


@choices
@pytest.mark.parametrize("name", DISCRETE)
@given(seed=seeds)
@few
def test_discrete_episodes_do_not_know_of_each_other(name, space, seed):
    """In the beam they differ in how many prefixes go on: some of them stand still under most choices."""
    tables = torch.randn(5, 4, space.size, generator=generator(seed))
    moves = torch.randn(5, space.size, 2, generator=generator(seed))
    moves[1] = 0
    moves[2, 1:] = 0
    moves[3, 2:] = 0
    start = drawn(space, (5, 4, 2), seed)

    def run(chosen: list[int]) -> Plan:
        planner = build(name, space, start[chosen], 37, 4, seed)
        for _ in range(planner.rounds):
            candidates = planner.ask()
            if isinstance(planner, Growing):
                ends = torch.stack([(c.sum((1, 2)) @ moves[e]) for c, e in zip(candidates, chosen, strict=True)])
                planner.reached(State(ends, ends[..., :0]))
            cost = tables[chosen, : candidates.shape[2]]
            told = [(c.sum(2) * t).sum((1, 2)) for c, t in zip(candidates, cost, strict=True)]
            planner.tell(candidates, torch.stack(told))
            filled.append(bool(planner.energy.isinf().any()))
        return planner.best()

    filled: list[bool] = []
    everyone = run([0, 1, 2, 3, 4])
    assert any(filled) == (name == "beam")
    order = [3, 0, 4, 2, 1]
    permuted = run(order)
    assert torch.equal(permuted.actions, everyone.actions[order])
    assert torch.equal(permuted.energy, everyone.energy[order])
    for e in range(5):
        alone = run([e])
        assert torch.equal(alone.actions[0], everyone.actions[e]) and torch.equal(alone.energy[0], everyone.energy[e])


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_the_same_seed_gives_the_same_discrete_bits(name):
    energy, _ = additive(ONE, 2, 6)
    last = []
    for seed in (7, 7, 8):
        planner = build(name, ONE, torch.zeros(2, 6, 1, 5), seed=seed)
        minimise(planner, energy, 3)
        last.append(planner.ask())
    assert torch.equal(last[0], last[1]) and not torch.equal(last[0], last[2])


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_first_proposals_are_the_start_and_a_uniform_share(share):
    start = drawn(TWO, (1, 3, 1))
    candidates = build("cem", TWO, start, 20_000, config=Config(initial_std=share)).ask()[0, 1:, :, 0]
    uniform = torch.tensor([1 / 2] * 2 + [1 / 3] * 3)
    assert torch.allclose(candidates.mean(0), (1 - share) * start[0, :, 0] + share * uniform, atol=0.015)


def test_one_update_of_discrete_cem_is_that_of_an_independent_computation():
    config = Config(momentum=0.3, elites=0.2, min_std=0.1)
    planner = build("cem", TWO, drawn(TWO, (2, 3, 4)), 20, 3, 5, config)
    before = planner.mean.numpy().copy()
    candidates, told = planner.ask(), torch.randn(2, 20, generator=generator(2))
    told[0, 4] = float("nan")
    planner.tell(candidates, told)
    for e in range(2):
        elites = candidates[e].numpy()[np.argsort(told[e].numpy())[:4]].mean(2)
        expected = 0.3 * before[e] + 0.7 * elites.mean(0)
        assert np.allclose(planner.mean[e], expected, atol=1e-6)
        assert np.allclose(planner.probability[e], 0.9 * expected + 0.1 * np.array([1 / 2] * 2 + [1 / 3] * 3))


def test_one_update_of_discrete_mppi_is_that_of_an_independent_computation():
    config = Config(temperature=0.5, min_std=0.01)
    planner = build("mppi", TWO, drawn(TWO, (2, 3, 1)), 20, 3, 5, config)
    candidates, told = planner.ask(), torch.randn(2, 20, generator=generator(2))
    planner.tell(candidates, told)
    for e in range(2):
        cost = told[e].numpy()
        weights = np.exp(-(cost - cost.min()) / (0.5 * cost.std()))
        mean = (weights[:, None, None] * candidates[e, :, :, 0].numpy()).sum(0) / weights.sum()
        assert np.allclose(planner.mean[e], mean, atol=1e-5)
        uniform = np.array([1 / 2] * 2 + [1 / 3] * 3)
        assert np.allclose(planner.probability[e], 0.9 * mean + 0.1 * uniform, atol=1e-5), "1 -> 0.1 -> 0.01"


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_no_choice_dies_out(name):
    energy, _ = additive(ONE, 1, 3)
    planner = build(name, ONE, torch.zeros(1, 3, 1, 5), 2000, 6, config=Config(min_std=0.1))
    minimise(planner, energy, 6)
    assert (planner.probability >= 0.1 / 5 - 1e-6).all() and planner.probability.max() > 0.85
    assert planner.ask().sum(1).min() >= 20


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_energies_that_are_not_finite(name):
    """Such candidates are never chosen, and an episode without any other is an error."""
    energy, _ = additive(ONE, 2, 3)
    planner = build(name, ONE, drawn(ONE, (2, 3, 1)) * 0 + torch.eye(5)[1], 50)
    for _ in range(planner.rounds):
        candidates = planner.ask()
        planner.tell(candidates, energy(candidates).masked_fill(candidates[:, :, :, 0, 0].any(2), float("nan")))
    assert planner.best().energy.isfinite().all() and not planner.best().actions[..., 0].any()
    with pytest.raises(FloatingPointError, match=r"episode\(s\) \[1\]"):
        planner.tell(planner.ask(), energy(planner.ask()) * torch.tensor([[1.0], [float("nan")]]))


def test_a_beam_that_is_wide_enough_is_exhaustive_search():
    """Any energy at all: a random number for every sequence, and for every prefix."""
    space, tables = DiscreteActions((3,)), [torch.randn(2, 3**d, generator=generator(d)) for d in range(5)]

    def number(candidates: Tensor) -> Tensor:
        digits = candidates[:, :, :, 0].argmax(-1)
        return (digits * 3 ** torch.arange(digits.shape[2])).sum(-1)

    found = []
    for samples in (81, 3):
        planner = build("beam", space, torch.zeros(2, 4, 1, 3), samples)
        assert planner.rounds == 5, "the start, then lengths 1 to 4"
        found.append(minimise(planner, lambda c: tables[c.shape[2]].gather(1, number(c)), 5).energy)
    assert torch.equal(found[0], tables[4].min(1).values)
    assert (found[1] > found[0]).all(), "one prefix alone, of any luck, misses it"


def test_prefixes_grow_from_their_parents():
    energy, _ = additive(TWO, 2, 5)
    planner, before = build("beam", TWO, torch.zeros(2, 5, 1, 5), 20), None
    for d in range(6):
        candidates = planner.ask()
        assert candidates.shape == ((2, [1, 6, 18, 18, 18, 18][d], [5, 1, 2, 3, 4, 5][d], 1, 5))
        if d < 2:
            assert planner.parents is None
        else:
            assert planner.parents is not None and before is not None
            rows = torch.arange(2)[:, None]
            assert torch.equal(candidates[:, :, :-1], before[rows, planner.parents])
            for part in candidates[0, :, -1, 0].split(6):
                assert torch.equal(part, TWO.primitives()), "every choice follows"
        before = candidates
        planner.tell(candidates, energy(candidates))


def test_a_beam_has_no_use_for_random_numbers():
    energy, _ = additive(ONE, 2, 3)
    plans = [minimise(build("beam", ONE, torch.zeros(2, 3, 1, 5), 10, seed=s), energy, 4) for s in (1, 2)]
    assert torch.equal(plans[0].actions, plans[1].actions)


@pytest.mark.parametrize(("merge", "kept"), [(0.0, 4), (0.25, 3)])
def test_of_prefixes_that_lead_to_the_same_state_the_best_goes_on(merge, kept):
    """A line on which one may step left or right: of four prefixes of two steps, two end where they began."""
    space = DiscreteActions((2,))
    planner = build("beam", space, torch.zeros(1, 3, 1, 2), 64, config=Config(merge=merge))
    for _ in range(3):
        candidates = planner.ask()
        place = (candidates[..., 0, 1] - candidates[..., 0, 0]).sum(2)
        ends = (place + 0.01 * candidates[:, :, 0, 0, 0])[..., None]  # not quite the same state
        planner.reached(State(100 * ends, ends[..., :0]))
        planner.tell(candidates, candidates[..., 0, 0] @ torch.tensor([2.0, 1.0, 0.5])[: candidates.shape[2]])
    prefixes = [tuple(p.argmax(-1).flatten().tolist()) for p in planner.ask()[0, :, :2]]
    assert set(prefixes) == {(0, 0), (1, 0), (1, 1)} | ({(0, 1)} if kept == 4 else set())
    assert len(prefixes) == 2 * kept


@pytest.mark.parametrize(("repeat", "count"), [(None, 3), (2, 9), (1, 81)])
def test_a_beam_takes_every_block_that_holds_its_actions(repeat, count):
    space = DiscreteActions((3,))
    planner = build("beam", space, torch.zeros(1, 1, 4, 3), 81, config=Config(action_repeat=repeat))
    planner.tell(planner.ask(), torch.zeros(1, 1))
    blocks = planner.ask()[0, :, 0]
    assert len({tuple(b.argmax(-1).tolist()) for b in blocks}) == len(blocks) == count
    held = blocks.unflatten(1, (-1, repeat or 4))
    assert torch.equal(held, held[:, :, :1].expand_as(held))


def test_what_a_planner_cannot_search_is_refused():
    with pytest.raises(ValueError, match=r"gradient needs continuous actions.*cem or beam"):
        build("gradient", ONE, torch.zeros(1, 2, 1, 5))
    with pytest.raises(ValueError, match=r"beam searches discrete actions.*cem"):
        build("beam", BOX, torch.zeros(1, 2, 1, 3))
    with pytest.raises(ValueError, match="beam has 625 different blocks of 4 actions for 100 samples"):
        build("beam", ONE, torch.zeros(1, 2, 4, 5), 100, config=Config(action_repeat=1))


def test_a_random_discrete_plan_takes_every_choice_alike():
    plan = minimise(build("random", TWO, torch.zeros(2, 5000, 1, 5)), lambda c: c.flatten(2).sum(2), 1)
    assert executable(plan.actions, TWO) and plan.energy.isfinite().all()
    assert torch.allclose(plan.actions.mean((1, 2)), torch.tensor([1 / 2] * 2 + [1 / 3] * 3), atol=0.03)
